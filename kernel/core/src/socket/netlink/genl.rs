//! Generic netlink (linux/genetlink.h): the controller family, which names the others, and their dispatch.

use super::attr::{self, Nack};
use super::ethnl;
use super::proto::{Ctx, Request};
use crate::Errno;
use net::rtnl::Msg;
use uapi::raw::netlink as nl;

/// GENL_ID_CTRL.
pub const GENL_ID_CTRL: u16 = 0x10;
/// Bytes of `struct genlmsghdr` behind those of `struct nlmsghdr`.
pub const HEADERS: usize = 20;
const CTRL_CMD_NEWFAMILY: u8 = 1;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_OPS: u16 = 6;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
/// The group "notify" of the controller.
const GROUP_NOTIFY: u32 = 0x10;

/// One family.
pub struct Family {
    /// Its number, which is the type of its messages.
    pub id: u16,
    /// Its name.
    pub name: &'static str,
    /// Version of its protocol.
    pub version: u8,
    /// Highest attribute, 0 where each command has its own.
    pub max_attr: u32,
    /// Commands with their `GENL_CMD_CAP_*`.
    pub ops: fn() -> Vec<(u8, u32)>,
    /// Groups with their numbers, which are unique among all families.
    pub groups: &'static [(&'static str, u32)],
    /// Answers a request.
    pub handle: fn(&GenlRequest<'_>, &mut Vec<Vec<u8>>) -> Result<(), Nack>,
}

/// A request of a family.
pub struct GenlRequest<'a> {
    /// The command.
    pub cmd: u8,
    /// All of the message.
    pub whole: &'a [u8],
    /// Number of the request.
    pub seq: u32,
    /// Port of the sender.
    pub port: u32,
    /// A dump is asked for.
    pub dump: bool,
    /// The sender has CAP_NET_ADMIN.
    pub admin: bool,
}

impl<'a> GenlRequest<'a> {
    /// Its attributes.
    pub fn attrs(&self) -> Result<Vec<attr::Attr<'a>>, Nack> {
        attr::parse(self.whole, HEADERS, self.whole.len())
    }

    /// Begins an answer of a family.
    pub fn answer(&self, family: u16, cmd: u8, version: u8) -> Msg {
        let flags = if self.dump { nl::NLM_F_MULTI as u16 } else { 0 };
        let mut m = Msg::new(family, flags, self.seq, self.port);
        m.put(&[cmd, version, 0, 0]);
        m
    }
}

const CTRL: Family = Family {
    id: GENL_ID_CTRL,
    name: "nlctrl",
    version: 2,
    max_attr: 10,
    ops: || vec![(CTRL_CMD_GETFAMILY, 0xe)],
    groups: &[("notify", GROUP_NOTIFY)],
    handle: control,
};

/// All families.
static FAMILIES: [&Family; 2] = [&CTRL, &ethnl::FAMILY];

fn describe(req: &GenlRequest<'_>, f: &Family) -> Vec<u8> {
    let mut m = req.answer(GENL_ID_CTRL, CTRL_CMD_NEWFAMILY, 2);
    m.attr_str(CTRL_ATTR_FAMILY_NAME, f.name);
    m.attr(CTRL_ATTR_FAMILY_ID, &f.id.to_ne_bytes());
    m.attr_u32(3, f.version.into());
    m.attr_u32(4, 0);
    m.attr_u32(5, f.max_attr);
    m.nest(CTRL_ATTR_OPS, |m| {
        for (i, (op, caps)) in (1..).zip((f.ops)()) {
            m.nest(i, |m| {
                m.attr_u32(1, op.into());
                m.attr_u32(2, caps);
            });
        }
    });
    if !f.groups.is_empty() {
        m.nest(CTRL_ATTR_MCAST_GROUPS, |m| {
            for (i, (name, id)) in (1..).zip(f.groups) {
                m.nest(i, |m| {
                    m.attr_u32(2, *id);
                    m.attr_str(1, name);
                });
            }
        });
    }
    m.finish()
}

fn control(req: &GenlRequest<'_>, out: &mut Vec<Vec<u8>>) -> Result<(), Nack> {
    if req.cmd != CTRL_CMD_GETFAMILY {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if req.dump {
        out.extend(FAMILIES.iter().map(|f| describe(req, f)));
        return Ok(());
    }
    let attrs = req.attrs()?;
    let found = if let Some(a) = attr::find(&attrs, CTRL_ATTR_FAMILY_ID) {
        let id = a.number()?;
        FAMILIES.iter().find(|f| u32::from(f.id) == id)
    } else if let Some(a) = attr::find(&attrs, CTRL_ATTR_FAMILY_NAME) {
        let name = a.text()?;
        FAMILIES.iter().find(|f| f.name == name)
    } else {
        return Err(Errno::EINVAL.into());
    };
    out.push(describe(req, found.ok_or(Errno::ENOENT)?));
    Ok(())
}

/// Answers one request. A dump's end is the caller's.
pub fn request(r: &Request<'_>, ctx: &Ctx, dump: bool, out: &mut Vec<Vec<u8>>) -> Result<(), Nack> {
    let f = FAMILIES.iter().find(|f| f.id == r.ty).ok_or(Errno::ENOENT)?;
    let head = r.whole.get(..HEADERS).ok_or(Errno::EINVAL)?;
    let req = GenlRequest {
        cmd: head[16],
        whole: r.whole,
        seq: r.seq,
        port: ctx.port,
        dump,
        admin: ctx.privileged,
    };
    (f.handle)(&req, out)
}
