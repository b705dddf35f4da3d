//! The line as a whole: arguments, quotes, `--`, what goes to init, the text of /proc/cmdline.

use super::options::{self, Verdict};
use super::root::Root;
use super::{Action, At, BootLine, LINE_MAX, Mistake, Note, RootDev};

/// One argument: `name`, `name=value`, or a device's `vec0:text` (a name with the colon, then the text).
pub(super) struct Arg<'a> {
    /// The argument without quotes around it.
    pub whole: &'a str,
    /// Before the first `=`.
    pub name: &'a str,
    /// After it, without quotes around it.
    pub value: Option<&'a str>,
}

/// Takes quotes off that surround the text.
fn unquote(text: &str) -> &str {
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

impl<'a> Arg<'a> {
    pub fn new(text: &'a str) -> Self {
        let whole = unquote(text);
        match whole.split_once('=') {
            Some((name, value)) => Self { whole, name, value: Some(unquote(value)) },
            None => Self { whole, name: whole, value: None },
        }
    }
}

/// An argument as it stands in /proc/cmdline: with quotes where it holds blanks, so that it stays one.
pub fn quoted(arg: &str) -> String {
    if !arg.contains(char::is_whitespace) || arg.contains('"') {
        return arg.to_string();
    }
    match arg.split_once('=') {
        Some((name, value)) if !name.contains(char::is_whitespace) => format!("{name}=\"{value}\""),
        _ => format!("\"{arg}\""),
    }
}

/// See [`super::parse`].
pub(super) fn parse<S: AsRef<str>>(args: &[S]) -> (BootLine, Vec<Mistake>) {
    let mut st = State::default();
    let (mut kept, mut after): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut dashes = false;
    for (pos, arg) in args.iter().map(AsRef::as_ref).enumerate() {
        if dashes {
            after.push(arg);
            continue;
        }
        // The first argument is skipped if it begins with a blank: room that some scripts leave for ps(1).
        if arg.trim().is_empty() || (pos == 0 && arg.starts_with(' ')) {
            continue;
        }
        if arg == "--" {
            dashes = true;
            continue;
        }
        let at = At { pos, text: arg.to_string() };
        if several_in_one(arg) {
            st.mistakes
                .push(at.error("several options in one argument; expected each as an argument of its own"));
            continue;
        }
        let keep = match options::option(&mut st, &at, &Arg::new(arg)) {
            Ok(Verdict::Keep) => true,
            Ok(Verdict::Consume) => false,
            Ok(Verdict::Unknown) => {
                st.for_init(&at);
                true
            }
            Err(what) => {
                st.mistakes.push(at.error(what));
                true
            }
        };
        if keep {
            kept.push(quoted(arg));
        }
    }
    st.finish(kept, &after)
}

/// `"mem=64M root=/dev/ubda"` in one argument: UML cuts it at the blank, which breaks every name with a blank in it.
fn several_in_one(arg: &str) -> bool {
    let mut words = arg.split_whitespace();
    words.next().is_some_and(|w| options::known(w) && w.contains('='))
        && words.any(|w| w.contains('=') && options::known(w))
}

/// What is gathered while the line is read.
#[derive(Default)]
pub(super) struct State {
    /// The result.
    pub line: BootLine,
    /// In the order of the line.
    pub mistakes: Vec<Mistake>,
    /// Options that may stand once only: (name, where).
    pub once: Vec<(String, At)>,
    /// `root=`.
    pub root: Option<(At, Root)>,
    /// What sets the level of the console, the last of them.
    pub loglevel: Option<u32>,
    /// `ubd=sync`.
    pub all_sync: bool,
    words: Vec<String>,
    pairs: Vec<String>,
}

impl State {
    /// An option that may stand once; twice the same text does no harm.
    pub fn once(&mut self, name: &str, at: &At) -> Result<(), String> {
        match self.once.iter().find(|(n, _)| n == name) {
            Some((_, first)) if first.text != at.text => {
                Err(format!("given twice, first as {}; expected one of them", first.text))
            }
            Some(_) => Ok(()),
            None => {
                self.once.push((name.into(), at.clone()));
                Ok(())
            }
        }
    }

    /// A line for the boot log.
    pub fn note(&mut self, level: log::Level, text: String) {
        self.line.notes.push(Note { level, text });
    }

    /// What nobody here knows: `a.b=c` is a module's and is dropped, a pair is environment, a word is an argument.
    fn for_init(&mut self, at: &At) {
        let arg = Arg::new(&at.text);
        if arg.name.contains('.') {
            self.note(
                log::Level::Debug,
                format!("Parameter {} is of a module we do not have", quoted(&at.text)),
            );
            return;
        }
        if let Some(guess) = options::guess(arg.name) {
            let text = format!("Unknown option {}: did you mean {guess}?", quoted(&at.text));
            self.note(log::Level::Warn, text);
        }
        match arg.value {
            Some(value) => {
                let pair = format!("{}={value}", arg.name);
                let prefix = format!("{}=", arg.name);
                for list in [&mut self.pairs, &mut self.line.init_env] {
                    match list.iter_mut().find(|p| p.starts_with(&prefix)) {
                        Some(old) => old.clone_from(&pair),
                        None => list.push(pair.clone()),
                    }
                }
            }
            None => self.words.push(arg.whole.to_string()),
        }
    }

    fn finish(mut self, mut kept: Vec<String>, after: &[&str]) -> (BootLine, Vec<Mistake>) {
        self.find_root();
        if self.root.is_none() && self.line.root.is_some() {
            kept.push("root=98:0".into());
        }
        if self.line.consoles.is_empty() {
            self.line.consoles.push("tty0".into());
            kept.push("console=tty0".into());
        }
        if !after.is_empty() {
            kept.push("--".into());
            kept.extend(after.iter().map(|a| quoted(a)));
        }
        let line = &mut self.line;
        line.cmdline = kept.join(" ");
        if line.cmdline.len() > LINE_MAX {
            let at = At { pos: 0, text: "boot line".into() };
            let n = line.cmdline.len();
            self.mistakes.push(
                at.error(format!("too many command line arguments, {n} bytes; expected at most {LINE_MAX}")),
            );
        }
        if !(self.words.is_empty() && self.pairs.is_empty()) {
            let list: Vec<String> = self.words.iter().chain(&self.pairs).map(|a| quoted(a)).collect();
            let list = list.join(" ");
            line.unknown = Some(format!(
                "Unknown kernel command line parameters \"{list}\", will be passed to user space."
            ));
        }
        // Whoever asks for a subsystem's debug lines wants to see them.
        line.loglevel = self.loglevel.unwrap_or(if line.log.is_some() { 8 } else { 7 });
        line.init_args = self.words;
        line.init_args.extend(after.iter().map(|&a| a.to_string()));
        line.disks.sort_by_key(|d| d.unit);
        for disk in &mut line.disks {
            disk.sync |= self.all_sync;
        }
        if line.action != Action::Boot {
            self.mistakes.clear();
        }
        self.mistakes.sort_by_key(|m| m.at.pos);
        (self.line, self.mistakes)
    }

    /// The root disk: what `root=` says, else the first disk if there is one.
    fn find_root(&mut self) {
        let first = RootDev { unit: 0, partition: 0 };
        let have = |unit| self.once.iter().any(|(n, _)| *n == format!("ubd{unit}"));
        let dev = match &self.root {
            Some((_, Root::Initramfs)) => return,
            Some((at, Root::Dev(dev))) => Some((at, *dev)),
            Some((at, Root::Default)) => Some((at, first)),
            None => {
                self.line.root = have(0).then_some(first);
                return;
            }
        };
        if let Some((at, dev)) = dev {
            if !have(dev.unit) {
                let n = dev.unit;
                self.mistakes
                    .push(at.error(format!("there is no such disk; expected an option ubd{n}=FILE with it")));
            }
            self.line.root = Some(dev);
        }
    }
}
