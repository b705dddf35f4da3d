//! Smoke boots that are no script in a guest: each is a function that gets the kernel and the image.

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::time::Duration;
use tests::guest::Guest;

/// Name, whether our kernel is known to pass it, and the function.
pub const SPECIAL: &[(&str, bool, Special)] =
    &[("builtin", true, builtin), ("mistakes", true, mistakes), ("kill9", true, kill9)];

/// Gets the kernel and the image.
type Special = fn(&Path, &Path) -> Result<()>;

fn vm(kernel: &Path, words: &[&str]) -> Result<Guest> {
    let mut cmd = std::process::Command::new(kernel);
    cmd.args(words).env("TMPDIR", "/dev/shm").env("HOME", "/dev/shm");
    Ok(Guest::spawn(cmd)?)
}

fn wait(g: &mut Guest, text: &str, seconds: u64) -> Result<()> {
    eprintln!("smoke            waiting for {text:?}, at most {seconds} s");
    match g.expect(text, Duration::from_secs(seconds)) {
        Ok(_) => Ok(()),
        Err(e) => bail!("{e}; its console:\n{}", g.transcript()),
    }
}

/// The binary alone: built-in initramfs, prompt, commands, poweroff with status 0.
fn builtin(kernel: &Path, _: &Path) -> Result<()> {
    let mut g = vm(kernel, &["mem=128M", "con=null", "con0=fd:0,fd:1", "quiet"])?;
    wait(&mut g, " # ", 20)?;
    for (line, answer) in
        [("help", "poweroff"), ("ls /", "proc"), ("cat /etc/passwd", "root:x:0:0"), ("ps", "init")]
    {
        g.send(&format!("{line}\n"))?;
        wait(&mut g, answer, 10)?;
    }
    g.send("poweroff\n")?;
    let status = g.wait(Duration::from_secs(10)).with_context(|| g.transcript())?;
    ensure!(status.code() == Some(0), "exit status after poweroff: {status}");
    Ok(())
}

/// A mistake in the boot line is one line on stderr with the option, and status 1, before anything starts.
fn mistakes(kernel: &Path, _: &Path) -> Result<()> {
    for [word, names] in [
        ["mem=lots", "mem="],
        ["ubd0=/nowhere/at/all", "ubd0="],
        ["vec0:transport=tapp,ifname=x", "vec0"],
        ["vec0:transport=tap,ifname=no-such-tap-0,depth=x", "vec0"],
        ["con0=fd:zero", "con0="],
        ["ncpus=many", "ncpus="],
    ] {
        let mut g = vm(kernel, &[word])?;
        let status =
            g.wait(Duration::from_secs(10)).with_context(|| format!("{word}: {}", g.transcript()))?;
        let text = g.transcript();
        ensure!(status.code() == Some(1), "{word}: {status}, expected 1; it printed:\n{text}");
        ensure!(text.contains(names), "{word}: its message does not name the option:\n{text}");
        ensure!(text.trim().lines().count() == 1, "{word}: not one line:\n{text}");
    }
    Ok(())
}

/// SIGKILL of the kernel's process leaves no process behind.
fn kill9(kernel: &Path, ext4: &Path) -> Result<()> {
    let before = crate::procs::all();
    let ubd0 = format!("ubd0={}", ext4.display());
    let mut g =
        vm(kernel, &["mem=256M", &ubd0, "root=/dev/ubda", "ro", "con=null", "con0=fd:0,fd:1", "quiet"])?;
    wait(&mut g, "# ", 20)?;
    g.send("for i in 1 2 3 4; do sleep 1000 & done; sleep 1; echo star''ted\n")?;
    wait(&mut g, "started", 10)?;
    ensure!(crate::procs::family(g.pid()).len() > 1, "the guest has no stub processes");
    drop(g); // kills it by its pid, and only it
    for _ in 0..40 {
        std::thread::sleep(Duration::from_millis(50));
        let now = crate::procs::all();
        if !now.iter().any(|p| !before.contains(p) && crate::procs::alive(*p)) {
            return Ok(());
        }
    }
    bail!("processes are left two seconds after SIGKILL")
}
