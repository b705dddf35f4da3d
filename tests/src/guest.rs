//! A guest (or any program) driven over pipes: its console is standard input and output, every wait is bounded.
//!
//! Key type: [`Guest`]. Two threads copy the child's output into one channel, so no pipe ever fills up; the child is
//! ended by its own pid when the value is dropped.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Why a wait ended without what was waited for.
#[derive(Debug)]
pub enum Failure {
    /// The time limit passed; with what was waited for.
    Timeout(String),
    /// The guest closed its console or ended; with what was waited for.
    Ended(String),
    /// The host refused something.
    Io(std::io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout(w) => write!(f, "time limit passed while waiting for {w:?}"),
            Self::Ended(w) => write!(f, "the guest ended while {w:?} was waited for"),
            Self::Io(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::Io(e)
    }
}

/// A running child with its console on pipes.
pub struct Guest {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    transcript: Vec<u8>,
    /// How much of the transcript earlier waits have used up.
    seen: usize,
    eof: bool,
    echo: bool,
}

impl Guest {
    /// Starts a command with all three standard streams on pipes.
    pub fn spawn(cmd: Command) -> Result<Self, Failure> {
        Self::spawn_with(cmd, Stdio::piped())
    }

    /// The same with something else as standard error.
    pub fn spawn_with(mut cmd: Command, stderr: Stdio) -> Result<Self, Failure> {
        let mut child = cmd.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn()?;
        let (tx, output) = channel();
        if let Some(out) = child.stdout.take() {
            copy(out, tx.clone());
        }
        if let Some(err) = child.stderr.take() {
            copy(err, tx);
        }
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, output, transcript: Vec::new(), seen: 0, eof: false, echo: false })
    }

    /// Also prints everything to standard error as it comes.
    pub fn echo(mut self, on: bool) -> Self {
        self.echo = on;
        self
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types text into the console.
    pub fn send(&mut self, text: &str) -> Result<(), Failure> {
        if let Some(i) = &mut self.stdin {
            i.write_all(text.as_bytes())?;
            i.flush()?;
        }
        Ok(())
    }

    /// Closes the console's input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Waits until `text` appears after what earlier waits have used; gives what came before it.
    pub fn expect(&mut self, text: &str, limit: Duration) -> Result<String, Failure> {
        let end = Instant::now() + limit;
        loop {
            if let Some(at) = find(&self.transcript[self.seen..], text.as_bytes()) {
                let before =
                    String::from_utf8_lossy(&self.transcript[self.seen..self.seen + at]).into_owned();
                self.seen += at + text.len();
                return Ok(before);
            }
            self.more(end, text)?;
        }
    }

    /// The next whole line without its end; `None` when the guest has closed its console.
    pub fn line(&mut self, limit: Duration) -> Result<Option<String>, Failure> {
        let end = Instant::now() + limit;
        loop {
            if let Some(at) = find(&self.transcript[self.seen..], b"\n") {
                let line = &self.transcript[self.seen..self.seen + at];
                let line = String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
                self.seen += at + 1;
                return Ok(Some(line));
            }
            match self.more(end, "a line") {
                Err(Failure::Ended(_)) if self.seen < self.transcript.len() => {
                    let line = String::from_utf8_lossy(&self.transcript[self.seen..]).into_owned();
                    self.seen = self.transcript.len();
                    return Ok(Some(line));
                }
                Err(Failure::Ended(_)) => return Ok(None),
                other => other?,
            }
        }
    }

    /// Waits for the end of the child, reading on meanwhile.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                // What it wrote last may still be on its way through the copying threads.
                while !self.eof
                    && self.more(Instant::now() + Duration::from_millis(200), "the last output").is_ok()
                {
                }
                return Ok(status);
            }
            match self.more((Instant::now() + Duration::from_millis(20)).min(end), "the end") {
                Err(Failure::Timeout(_)) if Instant::now() < end => {}
                Err(Failure::Ended(_)) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(5))
                }
                Err(Failure::Ended(_)) => return Err(Failure::Timeout("the end of the child".into())),
                other => other?,
            }
        }
    }

    /// Everything that came so far.
    pub fn transcript(&self) -> String {
        String::from_utf8_lossy(&self.transcript).into_owned()
    }

    fn more(&mut self, end: Instant, what: &str) -> Result<(), Failure> {
        if self.eof {
            return Err(Failure::Ended(what.to_owned()));
        }
        match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(chunk) => {
                if self.echo {
                    let _ = std::io::stderr().write_all(&chunk);
                }
                self.transcript.extend_from_slice(&chunk);
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Err(Failure::Timeout(what.to_owned())),
            Err(RecvTimeoutError::Disconnected) => {
                self.eof = true;
                Err(Failure::Ended(what.to_owned()))
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn copy(mut from: impl Read + Send + 'static, to: Sender<Vec<u8>>) {
    std::thread::spawn(move || {
        let mut buf = [0u8; 16384];
        while let Ok(n) = from.read(&mut buf) {
            if n == 0 || to.send(buf[..n].to_vec()).is_err() {
                break;
            }
        }
    });
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use super::{Failure, Guest};
    use std::process::Command;
    use std::time::Duration;

    const S: Duration = Duration::from_secs(5);

    fn sh(script: &str) -> Guest {
        let mut c = Command::new("sh");
        c.args(["-c", script]);
        Guest::spawn(c).unwrap()
    }

    #[test]
    fn expects_sends_and_ends() {
        let mut g = sh("printf 'name? '; read n; echo hello $n; exit 3");
        g.expect("name? ", S).unwrap();
        g.send("kibble\n").unwrap();
        g.expect("hello kibble", S).unwrap();
        assert_eq!(g.wait(S).unwrap().code(), Some(3));
    }

    #[test]
    fn every_wait_is_bounded() {
        let mut g = sh("sleep 60");
        assert!(matches!(g.expect("x", Duration::from_millis(50)), Err(Failure::Timeout(_))));
        assert!(matches!(g.wait(Duration::from_millis(50)), Err(Failure::Timeout(_))));
    }

    #[test]
    fn lines_and_the_end() {
        let mut g = sh("echo a; echo b; printf c");
        let mut got = Vec::new();
        while let Some(l) = g.line(S).unwrap() {
            got.push(l);
        }
        assert_eq!(got, ["a", "b", "c"]);
    }
}
