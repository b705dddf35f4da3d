//! `#!` scripts (execve(2), "Interpreter scripts").

use crate::fs::file::File;
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// Bytes of the first line that count (BINPRM_BUF_SIZE).
const LINE_MAX: usize = 256;
/// Interpreters that may be scripts themselves.
const DEPTH: usize = 4;

/// The program that runs in the end.
pub struct Found {
    /// Its file.
    pub file: Arc<File>,
    /// Its name.
    pub name: Vec<u8>,
    /// Its arguments: those of the scripts in front.
    pub argv: Vec<Vec<u8>>,
}

/// Follows `#!` lines to a program. `ELOOP` after too many.
pub async fn resolve(
    cur: &Arc<Task>,
    mut file: Arc<File>,
    mut name: Vec<u8>,
    mut argv: Vec<Vec<u8>>,
) -> Result<Found> {
    for _ in 0..=DEPTH {
        let mut line = [0u8; LINE_MAX];
        let n = super::read_some(cur, &file, 0, &mut line).await?;
        let Some((interp, arg)) = parse(&line[..n])? else { return Ok(Found { file, name, argv }) };
        let mut new = vec![interp.clone()];
        new.extend(arg);
        new.push(name);
        new.extend(argv.into_iter().skip(1));
        argv = new;
        file = crate::fs::open::open_exec(cur, c::AT_FDCWD, &interp, 0).await?;
        name = interp;
    }
    Err(Errno::ELOOP)
}

/// Interpreter and its one optional argument.
type Line = (Vec<u8>, Option<Vec<u8>>);

/// What a script's first line says; `None`: not a script.
fn parse(head: &[u8]) -> Result<Option<Line>> {
    let Some(rest) = head.strip_prefix(b"#!") else { return Ok(None) };
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let line = match rest.iter().position(|&b| b == b'\n') {
        Some(end) => &rest[..end],
        // A line that does not fit may still hold a whole interpreter name.
        None if head.len() < LINE_MAX => rest,
        None => match rest.iter().skip_while(|b| blank(b)).position(blank) {
            Some(_) => rest,
            None => return Err(Errno::ENOEXEC),
        },
    };
    let line = line.trim_ascii();
    if line.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    let end = line.iter().position(blank).unwrap_or(line.len());
    let arg = line[end..].trim_ascii();
    Ok(Some((line[..end].to_vec(), (!arg.is_empty()).then(|| arg.to_vec()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines() {
        let some =
            |i: &str, a: Option<&str>| Ok(Some((i.as_bytes().to_vec(), a.map(|a| a.as_bytes().to_vec()))));
        assert_eq!(parse(b"\x7fELF"), Ok(None));
        assert_eq!(parse(b"#!/bin/sh\necho"), some("/bin/sh", None));
        assert_eq!(parse(b"#! /usr/bin/env  python3 -u \nx"), some("/usr/bin/env", Some("python3 -u")));
        assert_eq!(parse(b"#!/bin/sh"), some("/bin/sh", None));
        assert_eq!(parse(b"#!   \n"), Err(Errno::ENOEXEC));
    }
}
