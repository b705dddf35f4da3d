//! The kernel's log: a ring of lines with levels and time stamps, /dev/kmsg, syslog(2), and its copy on the console.
//!
//! Lock order: `LOG` is a leaf; the console is written after it has been dropped.

use crate::fs::devices::OpenChr;
use crate::fs::file::{File, FileOps};
use crate::fs::iov::IovIter;
use crate::fs::perm::cap;
use crate::fs::poll::{self, PollTable};
use crate::syscall::UserPtr;
use crate::task::Task;
use crate::{Errno, Result};
use klib::waitqueue::WaitQueue;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of text that the ring keeps.
const RING_BYTES: usize = 1 << 20;
/// Longest line.
const LINE_MAX: usize = 976;

struct Line {
    seq: u64,
    /// Level in the low three bits, facility above (syslog(3)).
    prio: u32,
    us: u64,
    text: Box<str>,
}

#[derive(Default)]
struct Log {
    lines: VecDeque<Line>,
    bytes: usize,
    next: u64,
    /// SYSLOG_ACTION_CLEAR.
    clear: u64,
    /// SYSLOG_ACTION_READ.
    read: u64,
}

static LOG: Mutex<Log> = Mutex::new(Log { lines: VecDeque::new(), bytes: 0, next: 0, clear: 0, read: 0 });
static CONSOLE_LEVEL: AtomicU32 = AtomicU32::new(7);

fn waiters() -> &'static WaitQueue {
    static Q: OnceLock<WaitQueue> = OnceLock::new();
    Q.get_or_init(WaitQueue::new)
}

fn uptime_us() -> u64 {
    static START: OnceLock<u64> = OnceLock::new();
    let now = arch::host::clock::monotonic().as_ns() / 1000;
    now - *START.get_or_init(|| now)
}

/// Sets which levels reach the console: those below `level` (`loglevel=`, `quiet`).
pub fn set_console_level(level: u32) {
    CONSOLE_LEVEL.store(level.clamp(1, 8), Ordering::Relaxed);
}

/// The console's level.
pub fn console_level() -> u32 {
    CONSOLE_LEVEL.load(Ordering::Relaxed)
}

/// A line of the kernel at a level of `log`: error 3, warn 4, info 6, debug and trace 7. `target` opens the line
/// unless it is empty.
pub fn emit(level: log::Level, target: &str, args: std::fmt::Arguments<'_>) {
    let prio = match level {
        log::Level::Error => 3,
        log::Level::Warn => 4,
        log::Level::Info => 6,
        log::Level::Debug | log::Level::Trace => 7,
    };
    let text = if target.is_empty() { args.to_string() } else { format!("{target}: {args}") };
    store(prio, &text);
}

/// Puts text into the log, a line at a time.
pub fn store(prio: u32, text: &str) {
    for line in text.trim_end_matches('\n').split('\n') {
        let mut end = line.len().min(LINE_MAX);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let line = &line[..end];
        let us = uptime_us();
        {
            let mut l = LOG.lock();
            let seq = l.next;
            l.next += 1;
            l.bytes += line.len() + 64;
            l.lines.push_back(Line { seq, prio, us, text: line.into() });
            while l.bytes > RING_BYTES {
                let Some(old) = l.lines.pop_front() else { break };
                l.bytes -= old.text.len() + 64;
            }
        }
        if prio & 7 < console_level() {
            crate::tty::console_write(format!("{line}\n").as_bytes());
        }
    }
    waiters().wake(poll::IN);
}

/// The lines so far that belong on the console, as it shows them.
pub fn replay() -> String {
    let l = LOG.lock();
    l.lines.iter().filter(|x| x.prio & 7 < console_level()).map(|x| format!("{}\n", x.text)).collect()
}

/// All lines as dmesg prints them, for panics and mconsole.
pub fn dump() -> String {
    let l = LOG.lock();
    l.lines.iter().map(classic).collect()
}

fn classic(l: &Line) -> String {
    format!("<{}>[{:5}.{:06}] {}\n", l.prio, l.us / 1_000_000, l.us % 1_000_000, l.text)
}

fn extended(l: &Line) -> String {
    let mut out = format!("{},{},{},-;", l.prio, l.seq, l.us);
    for b in l.text.bytes() {
        if (32..127).contains(&b) && b != b'\\' {
            out.push(char::from(b));
        } else {
            out += &format!("\\x{b:02x}");
        }
    }
    out.push('\n');
    out
}

/// An open /dev/kmsg.
struct Kmsg {
    next: Mutex<u64>,
}

/// Opens /dev/kmsg: reading starts at the oldest line.
pub fn open_kmsg(o: &OpenChr<'_>) -> Result<Arc<dyn FileOps>> {
    let writes_only = o.flags & uapi::raw::general::O_ACCMODE == uapi::raw::general::O_WRONLY;
    if !writes_only && !o.cur.cred().capable(cap::SYSLOG) {
        return Err(Errno::EPERM);
    }
    Ok(Arc::new(Kmsg { next: Mutex::new(0) }))
}

impl FileOps for Kmsg {
    fn try_read(&self, _file: &File, _pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        let mut next = self.next.lock();
        let (text, seq) = {
            let l = LOG.lock();
            let first = l.lines.front().map_or(l.next, |x| x.seq);
            if *next < first && *next != 0 {
                *next = first;
                return Err(Errno::EPIPE);
            }
            *next = (*next).max(first);
            let i = usize::try_from(*next - first).unwrap_or(usize::MAX);
            let line = l.lines.get(i).ok_or(Errno::EAGAIN)?;
            (extended(line), line.seq)
        };
        if to.remaining() < text.len() {
            return Err(Errno::EINVAL);
        }
        let mark = to.done();
        let n = to.copy_to(text.as_bytes())?;
        if n < text.len() {
            to.rewind(mark);
            return Err(Errno::EFAULT);
        }
        *next = seq + 1;
        Ok(n)
    }

    fn try_write(&self, _file: &File, _pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        let want = from.remaining();
        if want > LINE_MAX + 32 {
            return Err(Errno::EINVAL);
        }
        let mut buf = vec![0; want];
        let mark = from.done();
        if from.copy_from(&mut buf)? < want {
            from.rewind(mark);
            return Err(Errno::EFAULT);
        }
        let text = String::from_utf8_lossy(&buf);
        let (prio, text) = split_prio(&text);
        store(prio, text);
        Ok(want)
    }

    fn poll(&self, _file: &File, table: &mut PollTable) -> u32 {
        table.register(waiters(), poll::IN);
        let ready = *self.next.lock() < LOG.lock().next;
        poll::OUT | if ready { poll::IN } else { 0 }
    }

    fn seek(&self, _file: &File, offset: i64, whence: u32) -> Option<Result<u64>> {
        // SEEK_SET: the oldest; SEEK_DATA: behind the last clear; SEEK_END: the end.
        let to = match (offset, whence) {
            (0, 0) => 0,
            (0, 2) => LOG.lock().next,
            (0, 3) => LOG.lock().clear,
            _ => return Some(Err(Errno::EINVAL)),
        };
        *self.next.lock() = to;
        Some(Ok(0))
    }
}

/// A leading `<N>` gives the priority; guests' lines are of facility "user".
fn split_prio(text: &str) -> (u32, &str) {
    if let Some(rest) = text.strip_prefix('<')
        && let Some((n, rest)) = rest.split_once('>')
        && let Ok(n) = n.parse::<u32>()
    {
        return (if n < 8 { n | 8 } else { n & 0xff }, rest);
    }
    (12, text)
}

/// syslog(2).
pub async fn sys_syslog(cur: &Arc<Task>, action: i32, buf: UserPtr<u8>, len: i32) -> Result<u64> {
    // Only reading everything and asking for the size are open to all (dmesg_restrict is 0).
    if !matches!(action, 3 | 10) && !cur.cred().capable(cap::SYSLOG) {
        return Err(Errno::EPERM);
    }
    let size = usize::try_from(len).map_err(|_| Errno::EINVAL)?.min(RING_BYTES * 2);
    match action {
        0 | 1 => Ok(0),
        2 => {
            if buf.is_null() {
                return Err(Errno::EINVAL);
            }
            cur.wait_event(None, |t| {
                t.register(waiters(), poll::IN);
                let l = LOG.lock();
                (l.read < l.next).then_some(())
            })
            .await?;
            let (text, next) = {
                let l = LOG.lock();
                let mut text = String::new();
                let mut next = l.read;
                for x in l.lines.iter().filter(|x| x.seq >= l.read) {
                    let s = classic(x);
                    if text.len() + s.len() > size {
                        break;
                    }
                    text += &s;
                    next = x.seq + 1;
                }
                (text, next)
            };
            cur.mm().copy_to_user(buf.addr(), text.as_bytes()).await?;
            LOG.lock().read = next;
            Ok(text.len() as u64)
        }
        3 | 4 => {
            if buf.is_null() {
                return Err(Errno::EINVAL);
            }
            let (text, end) = {
                let l = LOG.lock();
                // The newest lines that fit.
                let mut room = size;
                let mut parts = Vec::new();
                for x in l.lines.iter().rev().take_while(|x| x.seq >= l.clear) {
                    let s = classic(x);
                    if s.len() > room {
                        break;
                    }
                    room -= s.len();
                    parts.push(s);
                }
                parts.reverse();
                (parts.concat(), l.next)
            };
            cur.mm().copy_to_user(buf.addr(), text.as_bytes()).await?;
            if action == 4 {
                LOG.lock().clear = end;
            }
            Ok(text.len() as u64)
        }
        5 => {
            let mut l = LOG.lock();
            l.clear = l.next;
            Ok(0)
        }
        6 => {
            set_console_level(1);
            Ok(0)
        }
        7 => {
            set_console_level(7);
            Ok(0)
        }
        8 => {
            if !(1..=8).contains(&len) {
                return Err(Errno::EINVAL);
            }
            set_console_level(u32::try_from(len).unwrap_or(7));
            Ok(0)
        }
        9 => {
            let l = LOG.lock();
            Ok(l.lines.iter().filter(|x| x.seq >= l.read).map(|x| classic(x).len() as u64).sum())
        }
        10 => Ok(RING_BYTES as u64),
        _ => Err(Errno::EINVAL),
    }
}
