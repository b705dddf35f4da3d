//! Running other programs: one small builder that says what failed and with which output.
//!
//! Key type: [`Cmd`]. Neighbours: everything in xtask that starts a program.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A command line whose failures carry its own text.
pub struct Cmd {
    inner: Command,
    text: String,
}

impl Cmd {
    /// A command from its words.
    pub fn new<I, S>(words: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut it = words.into_iter();
        let first = it.next().map(|s| s.as_ref().to_owned()).unwrap_or_default();
        let mut text = first.to_string_lossy().into_owned();
        let mut inner = Command::new(&first);
        for w in it {
            text.push(' ');
            text.push_str(&w.as_ref().to_string_lossy());
            inner.arg(w.as_ref());
        }
        Self { inner, text }
    }

    /// A command from a line split at blanks.
    pub fn line(line: &str) -> Self {
        Self::new(line.split_whitespace())
    }

    /// One more word.
    pub fn arg(mut self, a: impl AsRef<OsStr>) -> Self {
        self.text.push(' ');
        self.text.push_str(&a.as_ref().to_string_lossy());
        self.inner.arg(a);
        self
    }

    /// More words.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(self, words: I) -> Self {
        words.into_iter().fold(self, |c, w| c.arg(w))
    }

    /// Sets an environment variable.
    pub fn env(mut self, k: &str, v: impl AsRef<OsStr>) -> Self {
        self.inner.env(k, v);
        self
    }

    /// Sets the working directory.
    pub fn dir(mut self, d: &Path) -> Self {
        self.inner.current_dir(d);
        self
    }

    /// Runs with the caller's terminal; an error if the status is not 0.
    pub fn run(mut self) -> Result<()> {
        let status = self.inner.status().with_context(|| format!("cannot start `{}`", self.text))?;
        if !status.success() {
            bail!("`{}` failed: {status}", self.text);
        }
        Ok(())
    }

    /// Runs with the caller's terminal; whether the status is 0.
    pub fn status(mut self) -> Result<bool> {
        Ok(self.inner.status().with_context(|| format!("cannot start `{}`", self.text))?.success())
    }

    /// Runs quietly; standard output as text, an error with both outputs if the status is not 0.
    pub fn read(mut self) -> Result<String> {
        let out = self.output()?;
        if !out.status.success() {
            bail!(
                "`{}` failed: {}\n{}{}",
                self.text,
                out.status,
                String::from_utf8_lossy(&out.stdout),
                String::from_utf8_lossy(&out.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Runs quietly; whether it could be started and ended with status 0.
    pub fn ok(mut self) -> bool {
        self.output().is_ok_and(|o| o.status.success())
    }

    /// Runs quietly with nothing on standard input.
    pub fn output(&mut self) -> Result<Output> {
        self.inner.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", self.text))
    }

    /// The command for callers that need its pipes or its pid.
    pub fn into_inner(self) -> Command {
        self.inner
    }
}

/// Where a program stands, looking where Debian puts system programs even when PATH lacks them, and
/// never in a user's own trees: what goes into an image must come from the distribution.
pub fn system_program(name: &str) -> Option<std::path::PathBuf> {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().map(|d| Path::new(d).join(name)).find(|p| p.exists())
}
