//! `transport=vde`: a port of a vde_switch. A request on the switch's control socket, with the address of our data socket in
//! it, is answered with the address of the port; from then on bare frames go between the two (VDE 2, protocol version 3).

use super::socket::{Open, OwnPath, SocketTransport, unix_error};
use super::{Kind, Plan, Setup, Transport};
use crate::vector::options::{Key, Options, Type};
use arch::host::fd::HostFd;
use arch::host::unix::{self, MAX_PATH};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The transport on the command line.
pub static KIND: Kind = Kind {
    name: "vde",
    about: "a port of a vde_switch",
    keys: &[
        Key::new("vnl", Type::Text, "directory or control socket of the switch, or vde://PATH"),
        Key::new("descr", Type::Text, "how the switch lists us").default("UML"),
        Key::new("port", Type::Number { min: 1, max: 65535 }, "port of the switch; a free one if absent"),
        Key::new("mode", Type::Integer { bits: 12 }, "permissions of our socket, 0... for octal")
            .default("0700"),
        Key::new("group", Type::Text, "group of our socket, name or number"),
    ],
    parse,
};

/// First word of a request.
const MAGIC: u32 = 0xfeed_face;
/// Version of the protocol.
const VERSION: u32 = 3;
/// Bytes of a `struct sockaddr_un`.
const SOCKADDR_UN: usize = 110;
/// Longest description.
const MAX_DESCR: usize = 127;
/// How long the switch may take to answer.
const ANSWER_MS: u32 = 3000;

#[derive(Clone, Debug)]
struct VdePlan {
    vnl: String,
    dir: PathBuf,
    descr: String,
    port: u16,
    mode: u32,
    group: Option<u32>,
}

fn parse(o: &Options) -> Result<Arc<dyn Plan>, String> {
    let vnl = o.require("vnl", "vde")?;
    let dir = match vnl.split_once("://") {
        Some(("vde", path)) => path,
        Some((other, _)) => {
            return Err(format!(
                "vnl={vnl}: {other}:// needs a vde_plug of its own; expected vde://PATH or a path"
            ));
        }
        None => &vnl,
    };
    // A port may stand behind the path.
    let (dir, in_path) = match dir.strip_suffix(']').and_then(|d| d.split_once('[')) {
        Some((d, p)) => {
            let p: u16 =
                p.parse().map_err(|_| format!("vnl={vnl}: expected a port number between the brackets"))?;
            (d, Some(p))
        }
        None => (dir, None),
    };
    if !(1..=MAX_PATH - 4).contains(&dir.len()) {
        return Err(format!("vnl={vnl}: expected a path of 1 to {} bytes", MAX_PATH - 4));
    }
    let port = o.u32("port").and_then(|p| u16::try_from(p).ok());
    if let (Some(a), Some(b)) = (port, in_path)
        && a != b
    {
        return Err(format!("port={a}: contradicts vnl={vnl}; expected one of them"));
    }
    let descr = o.text("descr").unwrap_or_default();
    if descr.len() > MAX_DESCR {
        return Err(format!("descr={descr}: expected at most {MAX_DESCR} bytes"));
    }
    let group = o.text("group").map(|g| group(&g)).transpose()?;
    Ok(Arc::new(VdePlan {
        dir: dir.into(),
        descr,
        port: port.or(in_path).unwrap_or(0),
        mode: o.u32("mode").unwrap_or(0o700),
        group,
        vnl,
    }))
}

/// The number of a group of the host.
fn group(name: &str) -> Result<u32, String> {
    if let Ok(n) = name.parse() {
        return Ok(n);
    }
    let all = std::fs::read_to_string("/etc/group").unwrap_or_default();
    all.lines()
        .filter_map(|l| l.strip_prefix(name)?.strip_prefix(':')?.split(':').nth(1)?.parse().ok())
        .next()
        .ok_or_else(|| {
            format!("group={name}: no such group on this host; expected a name in /etc/group, or a number")
        })
}

/// The request: magic, version, type with the port above its low byte, our data socket, description without a NUL.
fn request(port: u16, ours: &Path, descr: &str) -> Vec<u8> {
    let mut r = Vec::with_capacity(12 + SOCKADDR_UN + descr.len());
    for word in [MAGIC, VERSION, u32::from(port) << 8] {
        r.extend_from_slice(&word.to_ne_bytes());
    }
    r.extend_from_slice(&1u16.to_ne_bytes());
    let path = ours.as_os_str().as_encoded_bytes();
    r.extend_from_slice(path.get(..path.len().min(MAX_PATH)).unwrap_or_default());
    r.resize(12 + SOCKADDR_UN, 0);
    r.extend_from_slice(descr.as_bytes());
    r
}

/// The path in the switch's answer, a `struct sockaddr_un`.
fn answer(bytes: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = bytes.get(2..)?;
    let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
    let path = path.get(..end).filter(|p| !p.is_empty())?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

impl VdePlan {
    fn ours(&self) -> Result<(HostFd, OwnPath), String> {
        use std::os::unix::fs::PermissionsExt as _;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let fd = unix::socket(unix::Kind::Datagram).map_err(|e| format!("vnl={}: {}", self.vnl, e.text()))?;
        let name = format!("kibble.{:05}-{:05}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dirs = [self.dir.clone(), std::env::temp_dir()];
        let mut last = None;
        for path in dirs.iter().map(|d| d.join(&name)) {
            match unix::bind(&fd, unix::Kind::Datagram, &path) {
                Ok(()) => {
                    let path = OwnPath(path);
                    let mode = std::fs::Permissions::from_mode(self.mode & 0o777);
                    let set = std::os::unix::fs::chown(&path.0, None, self.group)
                        .and_then(|()| std::fs::set_permissions(&path.0, mode));
                    if let Err(e) = set {
                        return Err(format!("mode, group: cannot set them on {}: {e}", path.0.display()));
                    }
                    return Ok((fd, path));
                }
                Err(e) => last = Some(unix_error("src", &path.to_string_lossy(), e)),
            }
        }
        Err(last.unwrap_or_default())
    }

    fn connect(&self) -> Result<Open, String> {
        let control =
            unix::socket(unix::Kind::Stream).map_err(|e| format!("vnl={}: {}", self.vnl, e.text()))?;
        let socket = if self.dir.is_dir() { self.dir.join("ctl") } else { self.dir.clone() };
        unix::connect(&control, &socket).map_err(|e| unix_error("vnl", &self.vnl, e))?;
        let (fd, path) = self.ours()?;
        let failed = |what: &str| format!("vnl={}: {what}", self.vnl);
        let r = request(self.port, &path.0, &self.descr);
        if control.send_now(&r) != Ok(r.len()) {
            return Err(failed("the switch does not take the request"));
        }
        if !control.poll_wait(1, ANSWER_MS).is_ok_and(|e| e & 1 != 0) {
            return Err(failed("the switch does not answer"));
        }
        let mut buf = [0u8; SOCKADDR_UN];
        let n = control.recv_now(&mut buf).unwrap_or(0);
        let Some(theirs) = buf.get(..n).and_then(answer) else {
            let port = self.port;
            return Err(failed(&format!(
                "the switch refuses; is port {port} free and allowed to this user?"
            )));
        };
        if let Err(e) = unix::connect(&fd, &theirs) {
            return Err(failed(&format!("cannot connect to {}: {}", theirs.display(), e.text())));
        }
        // The port is ours as long as the control connection stands.
        Ok(Open { fd, keep: Some(control), path: Some(path) })
    }
}

impl Plan for VdePlan {
    fn open(&self, _setup: &Setup) -> Result<Box<dyn Transport>, String> {
        let what = format!("vde {}: bare frames", self.vnl);
        let open = SocketTransport::new("vde", what, self.connect()?, unix::Kind::Datagram);
        let plan = self.clone();
        Ok(Box::new(open.connecting(Box::new(move || plan.connect()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_byte_for_byte() {
        let r = request(3, Path::new("/tmp/x"), "UML");
        assert_eq!(r.len(), 12 + 110 + 3);
        assert_eq!(&r[..12], [0xce, 0xfa, 0xed, 0xfe, 3, 0, 0, 0, 0, 3, 0, 0]);
        assert_eq!(&r[12..22], [1, 0, b'/', b't', b'm', b'p', b'/', b'x', 0, 0]);
        assert_eq!(&r[122..], b"UML");
    }

    #[test]
    fn answers_are_paths_or_nothing() {
        assert_eq!(answer(b"\x01\x00/run/p\x00junk"), Some("/run/p".into()));
        assert_eq!(answer(b"\x01\x00/run/p"), Some("/run/p".into()));
        assert_eq!(answer(b"\x01\x00\x00x"), None);
        assert_eq!(answer(b"\x01"), None);
        assert_eq!(answer(b""), None);
    }
}
