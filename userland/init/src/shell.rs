//! The prompt: words with quotes, `;` between commands, builtins, everything else from PATH.
use crate::{c, files, net, ping};
use std::io::{BufRead, Write};

const HELP: &str = "\
help                     this text
ls [-l] [PATH...]        cat FILE...          ps
echo WORDS...            cd [DIR]             pwd
ip [-br] addr|link       ip addr add A/P dev D
ip link set D up|down    ip route             ip route add default via G [dev D]
ping [-c N] HOST         uname                dmesg
mount [-t TYPE] [-o ro] [SOURCE DIR]          umount DIR
mkdir DIR                rm FILE              sleep SECONDS
time COMMAND...          sync                 poweroff, reboot
anything else is run from PATH";

/// Splits a line into commands of words. Quotes keep blanks together; there is no other expansion.
pub fn words(line: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(ch) = chars.next() {
        let end = |word: &mut Option<String>, all: &mut Vec<Vec<String>>| {
            if let (Some(w), Some(last)) = (word.take(), all.last_mut()) {
                last.push(w);
            }
        };
        match (quote, ch) {
            (Some(q), ch) if q == ch => quote = None,
            (Some(_), ch) => word.get_or_insert_default().push(ch),
            (None, '\'' | '"') => {
                quote = Some(ch);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, '#') if word.is_none() => break,
            (None, ';' | '\n') => {
                end(&mut word, &mut all);
                all.push(Vec::new());
            }
            (None, ch) if ch.is_whitespace() => end(&mut word, &mut all),
            (None, ch) => word.get_or_insert_default().push(ch),
        }
    }
    if let (Some(w), Some(last)) = (word, all.last_mut()) {
        last.push(w);
    }
    all.retain(|c| !c.is_empty());
    all
}

/// Runs all commands of a text; the status of the last.
pub fn lines(text: &str) -> i32 {
    words(text).iter().fold(0, |_, w| command(w))
}

/// Reads lines until the end of the input; the status of the last command.
pub fn prompt(first: bool) -> i32 {
    // Ctrl-C is for what runs in the foreground, not for the prompt.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
    }
    if first {
        println!("Kibble: help tells what there is, poweroff ends it.");
    }
    let mut status = 0;
    let mut line = String::new();
    loop {
        let dir = std::env::current_dir().map_or("?".into(), |d| d.display().to_string());
        print!("kibble {dir} # ");
        let _ = std::io::stdout().flush();
        line.clear();
        match std::io::stdin().lock().read_line(&mut line) {
            Ok(0) => return status,
            Ok(_) => status = lines(&line),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            // A line that is no UTF-8 is no command; a console that is gone ends the prompt.
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => eprintln!("init: {e}"),
            Err(_) => return status,
        }
    }
}

/// One command: a builtin or a program.
pub fn command(w: &[String]) -> i32 {
    let Some((name, args)) = w.split_first() else { return 0 };
    let done = |r: std::io::Result<()>| match r {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("{name}: {e}");
            1
        }
    };
    match name.as_str() {
        "help" => {
            println!("{HELP}");
            0
        }
        "exit" => std::process::exit(args.first().and_then(|a| a.parse().ok()).unwrap_or(0)),
        "true" => 0,
        "false" => 1,
        "echo" => {
            println!("{}", args.join(" "));
            0
        }
        "cd" => done(std::env::set_current_dir(args.first().map_or("/", String::as_str))),
        "pwd" => done(std::env::current_dir().map(|d| println!("{}", d.display()))),
        "ls" => done(files::ls(args)),
        "cat" => done(files::cat(args)),
        "ps" => done(files::ps()),
        "dmesg" => done(files::dmesg()),
        "mount" => done(files::mount(args)),
        "umount" => done(files::umount(args)),
        "uname" => done(files::uname()),
        "mkdir" => done(args.iter().try_for_each(std::fs::create_dir)),
        "rm" => done(args.iter().try_for_each(std::fs::remove_file)),
        "sleep" => {
            let s: f64 = args.first().and_then(|a| a.parse().ok()).unwrap_or(0.0);
            std::thread::sleep(std::time::Duration::from_secs_f64(s.clamp(0.0, 1e6)));
            0
        }
        "sync" => {
            unsafe { libc::sync() };
            0
        }
        "time" => {
            let t = std::time::Instant::now();
            let s = command(args);
            println!("{:.3} s", t.elapsed().as_secs_f64());
            s
        }
        "ip" => done(net::ip(args)),
        "ping" => ping::ping(args),
        "poweroff" | "halt" => crate::power(libc::RB_POWER_OFF),
        "reboot" => crate::power(libc::RB_AUTOBOOT),
        _ => external(w),
    }
}

/// Runs a program in the foreground: its status, 128 + number after a signal, 127 where there is none of the name.
pub fn external(w: &[String]) -> i32 {
    let argv: Vec<_> = w.iter().map(|a| c(a)).collect();
    let Some(prog) = argv.first() else { return 0 };
    let mut ptrs: Vec<_> = argv.iter().map(|a| a.as_ptr()).collect();
    ptrs.push(std::ptr::null());
    let _ = std::io::stdout().flush();
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => {
            eprintln!("fork: {}", std::io::Error::last_os_error());
            126
        }
        0 => unsafe {
            libc::setpgid(0, 0);
            libc::tcsetpgrp(0, libc::getpgrp());
            for s in [libc::SIGINT, libc::SIGTTOU, libc::SIGPIPE] {
                libc::signal(s, libc::SIG_DFL);
            }
            libc::execvp(prog.as_ptr(), ptrs.as_ptr());
            let e = std::io::Error::last_os_error();
            eprintln!("{}: {e}", w.first().map_or("", String::as_str));
            libc::_exit(if e.raw_os_error() == Some(libc::ENOENT) { 127 } else { 126 })
        },
        _ => {
            let status = wait(pid);
            unsafe { libc::tcsetpgrp(0, libc::getpgrp()) };
            status
        }
    }
}

/// Waits for one child and reaps every orphan that ends meanwhile.
fn wait(pid: i32) -> i32 {
    loop {
        let mut s = 0;
        let r = unsafe { libc::waitpid(-1, &mut s, 0) };
        if r == pid {
            return if libc::WIFSIGNALED(s) { 128 + libc::WTERMSIG(s) } else { libc::WEXITSTATUS(s) };
        }
        if r < 0 && std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return 126;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_quotes() {
        assert_eq!(words("a  b; 'c d' \"e;f\"\\ g # rest"), [vec!["a", "b"], vec!["c d", "e;f g"]]);
        assert_eq!(words(" ; ;"), Vec::<Vec<String>>::new());
        assert_eq!(words("''"), [vec![""]]);
    }
}
