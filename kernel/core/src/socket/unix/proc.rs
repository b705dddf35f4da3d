//! All unix sockets, for /proc/net/unix.

use super::UnixSock;
use klib::sync::Mutex;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use uapi::raw::net as c;

static ALL: Mutex<Vec<Weak<UnixSock>>> = Mutex::new(Vec::new());

/// Adds a socket to the list; forgets those that are gone when the list has doubled.
pub(super) fn note(sock: &Arc<UnixSock>) {
    let mut all = ALL.lock();
    if all.len() == all.capacity() {
        all.retain(|s| s.strong_count() > 0);
        let room = all.len().max(32);
        all.reserve(room);
    }
    all.push(Arc::downgrade(sock));
}

/// Text of /proc/net/unix (proc(5)).
pub fn proc_net_unix() -> String {
    let socks: Vec<_> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    let mut out = String::from("Num       RefCount Protocol Flags    Type St Inode Path\n");
    for s in socks {
        let st = s.state.lock();
        if st.released {
            continue;
        }
        // __SO_ACCEPTCON; states SS_UNCONNECTED and SS_CONNECTED of linux/net.h.
        let flags = if st.listen.is_some() { 0x10000 } else { 0 };
        let state = if st.connected || (s.common.ty == c::SOCK_DGRAM && st.peer.is_some()) { 3 } else { 1 };
        let _ = write!(
            out,
            "{:016x}: {:08X} 00000000 {flags:08X} {:04X} {state:02X} {:5}",
            0,
            2,
            s.common.ty,
            s.common.ino.load(Ordering::Relaxed)
        );
        if let Some(n) = &st.name {
            let addr = super::Name::export(Some(n));
            let text: String = match addr.bytes().get(2..).unwrap_or(&[]) {
                [0, rest @ ..] => format!("@{}", String::from_utf8_lossy(rest)).replace('\0', "@"),
                p => String::from_utf8_lossy(p).trim_end_matches('\0').to_owned(),
            };
            let _ = write!(out, " {text}");
        }
        out.push('\n');
    }
    out
}
