//! `transport=bess`: bare frames on a SEQPACKET socket, as BESS's UnixSocketPort and any program of few lines speak them.

use super::socket::{Open, OwnPath, SocketTransport, unix_error};
use super::{Kind, Plan, Setup, Transport};
use crate::vector::options::{Key, Options, Type};
use arch::host::unix::{self, MAX_PATH};
use std::path::Path;
use std::sync::Arc;

/// The transport on the command line.
pub static KIND: Kind = Kind {
    name: "bess",
    about: "bare frames on a SEQPACKET unix socket",
    keys: &[
        Key::new("dst", Type::Path { max: MAX_PATH }, "socket of the peer"),
        Key::new("src", Type::Path { max: MAX_PATH }, "where our own socket is bound; nowhere if absent"),
    ],
    parse,
};

#[derive(Clone, Debug)]
struct BessPlan {
    src: Option<String>,
    dst: String,
}

fn parse(o: &Options) -> Result<Arc<dyn Plan>, String> {
    Ok(Arc::new(BessPlan { src: o.text("src"), dst: o.require("dst", "bess")? }))
}

impl BessPlan {
    fn connect(&self) -> Result<Open, String> {
        let kind = unix::Kind::SeqPacket;
        let fd = unix::socket(kind).map_err(|e| format!("dst={}: no socket: {}", self.dst, e.text()))?;
        let mut path = None;
        if let Some(src) = &self.src {
            unix::bind(&fd, kind, Path::new(src)).map_err(|e| unix_error("src", src, e))?;
            path = Some(OwnPath(src.into()));
        }
        unix::connect(&fd, Path::new(&self.dst)).map_err(|e| unix_error("dst", &self.dst, e))?;
        Ok(Open { fd, keep: None, path })
    }
}

impl Plan for BessPlan {
    fn open(&self, _setup: &Setup) -> Result<Box<dyn Transport>, String> {
        let what = format!("bess {}: bare frames", self.dst);
        let open = SocketTransport::new("bess", what, self.connect()?, unix::Kind::SeqPacket);
        let plan = self.clone();
        Ok(Box::new(open.connecting(Box::new(move || plan.connect()))))
    }
}
