//! `transport=stream`: frames behind their length on a unix stream socket, as QEMU's `-netdev stream` and passt speak.
//! With passt an unprivileged guest reaches whatever the user reaches.

use super::socket::{Open, SocketTransport, unix_error};
use super::{Kind, Plan, Setup, Transport};
use crate::vector::options::{Key, Options, Type};
use arch::host::unix::{self, MAX_PATH};
use std::path::Path;
use std::sync::Arc;

/// The transport on the command line.
pub static KIND: Kind = Kind {
    name: "stream",
    about: "frames behind their length on a unix stream socket (QEMU's -netdev stream, passt)",
    keys: &[Key::new("dst", Type::Path { max: MAX_PATH }, "socket of passt or another peer")
        .alias(&["path", "addr.path"])],
    parse,
};

#[derive(Debug)]
struct StreamPlan {
    dst: String,
}

fn parse(o: &Options) -> Result<Arc<dyn Plan>, String> {
    Ok(Arc::new(StreamPlan { dst: o.require("dst", "stream")? }))
}

fn connect(dst: &str) -> Result<Open, String> {
    let fd = unix::socket(unix::Kind::Stream).map_err(|e| format!("dst={dst}: no socket: {}", e.text()))?;
    unix::connect(&fd, Path::new(dst)).map_err(|e| unix_error("dst", dst, e))?;
    Ok(fd.into())
}

impl Plan for StreamPlan {
    fn open(&self, _setup: &Setup) -> Result<Box<dyn Transport>, String> {
        let what = format!("stream {}: frames behind their length", self.dst);
        let open = SocketTransport::new("stream", what, connect(&self.dst)?, unix::Kind::Stream);
        let dst = self.dst.clone();
        Ok(Box::new(open.connecting(Box::new(move || connect(&dst)))))
    }
}
