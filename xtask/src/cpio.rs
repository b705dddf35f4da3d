//! A cpio archive in the "newc" form, the same bytes for the same input.
//!
//! Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.

use anyhow::{Result, ensure};

const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;

/// An archive that grows entry by entry; parents before children, as the unpacker expects.
#[derive(Default)]
pub struct Cpio {
    out: Vec<u8>,
    ino: u32,
}

impl Cpio {
    /// A directory, mode 0755 unless `mode` says otherwise.
    pub fn dir(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(path, S_IFDIR | mode, &[])
    }

    /// A regular file.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        self.entry(path, S_IFREG | mode, data)
    }

    /// Closes the archive and gives its bytes, padded to 512.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.pad(512);
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        ensure!(u32::try_from(data.len()).is_ok(), "{path}: too big for a cpio archive");
        let trailer = path == "TRAILER!!!";
        if !trailer {
            self.ino += 1;
        }
        let ino = if trailer { 0 } else { self.ino };
        let nlink = if mode & S_IFDIR == S_IFDIR { 2 } else { 1 };
        // magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [ino, mode, 0, 0, nlink, 0, data.len() as u32, 0, 0, 0, 0, path.len() as u32 + 1, 0];
        self.out.extend_from_slice(b"070701");
        for f in fields {
            self.out.extend_from_slice(format!("{f:08X}").as_bytes());
        }
        self.out.extend_from_slice(path.as_bytes());
        self.out.push(0);
        self.pad(4);
        self.out.extend_from_slice(data);
        self.pad(4);
        Ok(())
    }

    fn pad(&mut self, to: usize) {
        self.out.resize(self.out.len().next_multiple_of(to), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Cpio;

    #[test]
    fn same_input_same_bytes_and_aligned() {
        let make = || {
            let mut c = Cpio::default();
            c.dir("/bin", 0o755).unwrap();
            c.file("/init", 0o755, b"hello").unwrap();
            c.finish().unwrap()
        };
        let a = make();
        assert_eq!(a, make());
        assert_eq!(a.len() % 512, 0);
        assert_eq!(&a[..6], b"070701");
        assert!(a.windows(10).any(|w| w == b"TRAILER!!!"));
    }
}
