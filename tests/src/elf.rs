//! As much of ELF as it takes to see that a file is static.
//!
//! Source: elf(5), the System V ABI's program header table.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

const PT_INTERP: u32 = 3;

/// The interpreter that a 64-bit little-endian ELF file asks for, if any.
pub fn interpreter(path: &Path) -> Result<Option<String>> {
    let data = std::fs::read(path)?;
    let bad = || Error::new(ErrorKind::InvalidData, "not a 64-bit little-endian ELF file");
    if data.get(..6) != Some(&[0x7f, b'E', b'L', b'F', 2, 1][..]) {
        return Err(bad());
    }
    let num = |at: usize, len: usize| -> Result<usize> {
        let bytes = data.get(at..at.saturating_add(len)).ok_or_else(bad)?;
        Ok(bytes.iter().rev().fold(0usize, |v, b| v << 8 | usize::from(*b)))
    };
    let (phoff, phentsize, phnum) = (num(32, 8)?, num(54, 2)?, num(56, 2)?);
    for i in 0..phnum {
        let ph = phoff.saturating_add(i.saturating_mul(phentsize));
        if num(ph, 4)? == PT_INTERP as usize {
            let (off, len) = (num(ph + 8, 8)?, num(ph + 32, 8)?);
            let text = data.get(off..off.saturating_add(len)).ok_or_else(bad)?;
            return Ok(Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::interpreter;
    use std::path::Path;

    #[test]
    fn tells_dynamic_from_nonsense() {
        let sh = interpreter(Path::new("/bin/sh")).expect("/bin/sh is an ELF file");
        assert!(sh.is_some_and(|s| s.contains("ld-linux")));
        assert!(interpreter(Path::new("/etc/passwd")).is_err());
    }
}
