//! The generic netlink family `ethtool` (Documentation/networking/ethtool-netlink.rst of Linux): what ethtool(8) asks
//! first; it falls back to SIOCETHTOOL for what has no command here.
//!
//! `COMMANDS` says what each command is; `params` holds the groups of numbers, `state` everything else.
//! Neighbours: `genl` calls [`FAMILY`]; `socket::ethtool` has the names and the bits, and the same by ioctl.

mod bitset;
mod params;
mod state;
mod strset;

#[cfg(test)]
mod tests;

use super::attr::{self, Attr, Nack};
use super::genl::{Family, GenlRequest};
use crate::Errno;
use crate::socket::inet::stack;
use net::Net;
use net::dev::Dev;
use net::rtnl::Msg;
use params::AnyGroup;
use std::sync::Arc;
use uapi::raw::netlink as nl;

const ID: u16 = 0x14;
const VERSION: u8 = 1;
/// The group "monitor".
const GROUP_MONITOR: u32 = 0x11;
/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;
/// GENL_CMD_CAP_DO, DUMP and HASPOL; GENL_UNS_ADMIN_PERM.
const CAP_GET: u32 = 0xe;
const CAP_SET: u32 = 0x1a;
const FLAG_COMPACT: u32 = 1;
const FLAG_OMIT_REPLY: u32 = 2;
/// Last command of ethtool 6.1 that is announced, so that it asks here and hears "not supported".
const LAST_COMMAND: u8 = 35;

/// The family.
pub const FAMILY: Family = Family {
    id: ID,
    name: "ethtool",
    version: VERSION,
    max_attr: 0,
    ops: || (1..=LAST_COMMAND).map(|c| (c, if sets(c) { CAP_SET } else { CAP_GET })).collect(),
    groups: &[("monitor", GROUP_MONITOR)],
    handle: |req, out| handle(stack(), req, out),
};

/// Commands that change something: they need CAP_NET_ADMIN.
fn sets(cmd: u8) -> bool {
    matches!(cmd, 3 | 5 | 8 | 10 | 12 | 14 | 16 | 18 | 20 | 22 | 24 | 26 | 27 | 30 | 35)
}

/// Writes what is told of a device; the flag is that of compact bitsets.
type Tell = fn(&Dev, &mut Msg, bool) -> Result<(), Nack>;

/// What a command does.
enum Action {
    /// Tells something of a device.
    Tell(Tell),
    /// Tells strings.
    Strings,
    /// Changes something of a device; true if it is to be announced.
    Change(fn(&Arc<Dev>, &[Attr<'_>]) -> Result<bool, Nack>),
    /// Changes features and answers with what became of the wish.
    Features,
}

/// A command, its answer or announcement, and what it does.
struct Command {
    cmd: u8,
    reply: u8,
    action: Action,
}

const fn tell(cmd: u8, reply: u8, f: fn(&Dev, &mut Msg, bool) -> Result<(), Nack>) -> Command {
    Command { cmd, reply, action: Action::Tell(f) }
}

const fn change(cmd: u8, ntf: u8, f: fn(&Arc<Dev>, &[Attr<'_>]) -> Result<bool, Nack>) -> Command {
    Command { cmd, reply: ntf, action: Action::Change(f) }
}

fn put(g: &dyn AnyGroup, d: &Dev, m: &mut Msg) -> Result<(), Nack> {
    Ok(g.put(d.drv.ethtool(), m)?)
}

/// ETHTOOL_MSG_*: commands of users with the answers of the kernel.
static COMMANDS: [Command; 15] = [
    Command { cmd: 1, reply: 1, action: Action::Strings },
    tell(2, 2, state::linkinfo),
    tell(4, 4, state::linkmodes),
    tell(6, 6, state::linkstate),
    tell(7, 7, state::debug),
    change(8, 8, state::set_debug),
    tell(11, 11, state::features),
    Command { cmd: 12, reply: 12, action: Action::Features },
    tell(15, 16, |d, m, _| put(&params::RINGS, d, m)),
    change(16, 17, |d, a| params::RINGS.change(d.drv.ethtool(), a)),
    tell(17, 18, |d, m, _| put(&params::CHANNELS, d, m)),
    change(18, 19, |d, a| params::CHANNELS.change(d.drv.ethtool(), a)),
    tell(19, 20, |d, m, _| put(&params::COALESCE, d, m)),
    change(20, 21, |d, a| params::COALESCE.change(d.drv.ethtool(), a)),
    tell(25, 28, state::tsinfo),
];
/// ETHTOOL_MSG_FEATURES_NTF.
const FEATURES_NTF: u8 = 13;

/// Attribute of the header in requests: the first, but for statistics.
const HEADER: u16 = 1;

/// The header of a request.
#[derive(Default)]
struct Header {
    dev: Option<Arc<Dev>>,
    flags: u32,
}

fn header(net: &Net, attrs: &[Attr<'_>]) -> Result<Header, Nack> {
    let Some(h) = attr::find(attrs, HEADER) else {
        return Err(Nack { errno: Errno::EINVAL, text: "request header missing", at: 0 });
    };
    let parts = h.nested()?;
    let flags = attr::find(&parts, 3).map_or(Ok(0), |a| a.number())?;
    let name = attr::find(&parts, 2);
    let dev = match attr::find(&parts, 1) {
        Some(i) => {
            let none = Nack { errno: Errno::ENODEV, text: "no device matches ifindex", at: i.at };
            let dev = net.devs.get(i.number()?).ok_or(none)?;
            if let Some(n) = name
                && *dev.name() != *n.text()?
            {
                return Err(Nack { errno: Errno::ENODEV, text: "ifindex and name do not match", at: n.at });
            }
            Some(dev)
        }
        None => match name {
            Some(n) => {
                let none = Nack { errno: Errno::ENODEV, text: "no device matches name", at: n.at };
                Some(net.devs.by_name(n.text()?).ok_or(none)?)
            }
            None => None,
        },
    };
    Ok(Header { dev, flags })
}

fn put_header(m: &mut Msg, dev: &Dev) {
    m.nest(HEADER | NESTED, |m| {
        m.attr_u32(1, dev.ifindex);
        m.attr_str(2, &dev.name());
    });
}

/// Announces the state of a device to the group "monitor".
fn announce(dev: &Dev, reply: u8, f: fn(&Dev, &mut Msg, bool) -> Result<(), Nack>) {
    let mut m = Msg::new(ID, 0, 0, 0);
    m.put(&[reply, VERSION, 0, 0]);
    put_header(&mut m, dev);
    if f(dev, &mut m, false).is_ok() {
        super::broadcast(nl::NETLINK_GENERIC, GROUP_MONITOR, &m.finish());
    }
}

/// Features of a device have changed.
pub fn features_changed(dev: &Dev) {
    announce(dev, FEATURES_NTF, state::features);
}

/// The command that tells what `cmd` changes.
fn teller(cmd: u8) -> Option<Tell> {
    COMMANDS.iter().find_map(|c| match c.action {
        Action::Tell(f) if c.cmd + 1 == cmd => Some(f),
        _ => None,
    })
}

/// Answers one request.
fn handle(net: &Net, req: &GenlRequest<'_>, out: &mut Vec<Vec<u8>>) -> Result<(), Nack> {
    if sets(req.cmd) && !req.admin {
        return Err(Errno::EPERM.into());
    }
    let attrs = req.attrs()?;
    let head = header(net, &attrs)?;
    let command = COMMANDS.iter().find(|c| c.cmd == req.cmd);
    let compact = head.flags & FLAG_COMPACT != 0;
    let tell = |dev: &Dev, c: &Command, f: fn(&Dev, &mut Msg, bool) -> Result<(), Nack>| {
        let mut m = req.answer(ID, c.reply, VERSION);
        put_header(&mut m, dev);
        f(dev, &mut m, compact).map(|()| m.finish())
    };
    if let Some(Command { action: Action::Strings, reply, .. }) = command {
        let devs = if req.dump { net.devs.all() } else { Vec::new() };
        if !req.dump {
            let mut m = req.answer(ID, *reply, VERSION);
            if let Some(d) = &head.dev {
                put_header(&mut m, d);
            }
            strset::put(head.dev.as_deref(), &attrs, &mut m)?;
            out.push(m.finish());
        }
        for d in devs {
            let mut m = req.answer(ID, *reply, VERSION);
            put_header(&mut m, &d);
            strset::put(Some(&d), &attrs, &mut m)?;
            out.push(m.finish());
        }
        return Ok(());
    }
    if req.dump {
        let Some(c @ Command { action: Action::Tell(f), .. }) = command else {
            return Err(Errno::EOPNOTSUPP.into());
        };
        // Devices that have nothing to tell are left out.
        out.extend(net.devs.all().iter().filter_map(|d| tell(d, c, *f).ok()));
        return Ok(());
    }
    let Some(dev) = head.dev else {
        let a = attr::find(&attrs, HEADER);
        let at = a.map_or(0, |a| a.at);
        return Err(Nack { errno: Errno::EINVAL, text: "neither ifindex nor name specified", at });
    };
    let Some(c) = command else { return Err(Errno::EOPNOTSUPP.into()) };
    let rest: Vec<Attr<'_>> = attrs.iter().filter(|a| a.kind != HEADER).copied().collect();
    match &c.action {
        Action::Tell(f) => out.push(tell(&dev, c, *f)?),
        Action::Change(f) => {
            if f(&dev, &rest)?
                && let Some(t) = teller(req.cmd)
            {
                announce(&dev, c.reply, t);
            }
        }
        Action::Features => {
            let mut m = req.answer(ID, c.reply, VERSION);
            put_header(&mut m, &dev);
            state::set_features(&dev, &rest, &mut m, compact)?;
            if head.flags & FLAG_OMIT_REPLY == 0 {
                out.push(m.finish());
            }
        }
        Action::Strings => {}
    }
    Ok(())
}
