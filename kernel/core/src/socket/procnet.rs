//! Texts of /proc/net and values of /proc/sys/net, for procfs to show.

use super::inet::stack;
use super::{netlink, unix};
use net::proc as text;

/// A file of /proc/net: its name and what makes its text.
pub type ProcFile = (&'static str, fn() -> String);

/// All files of /proc/net.
pub const PROC_NET: &[ProcFile] = &[
    ("arp", || text::net_arp(stack())),
    ("dev", || text::net_dev(stack())),
    ("if_inet6", || text::net_if_inet6(stack())),
    ("netlink", netlink::proc_net_netlink),
    ("packet", || "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n".to_owned()),
    ("route", || text::net_route(stack())),
    ("tcp", || text::net_tcp(stack(), false)),
    ("tcp6", || text::net_tcp(stack(), true)),
    ("udp", || text::net_udp(stack(), false)),
    ("udp6", || text::net_udp(stack(), true)),
    ("unix", unix::proc_net_unix),
];

/// Names below /proc/sys/net, such as `ipv4/ip_forward`.
pub fn sysctl_names() -> Vec<&'static str> {
    stack().sysctl_list()
}

/// Value of a name, without a newline; `None` if there is no such name.
pub fn sysctl_get(name: &str) -> Option<String> {
    stack().sysctl_get(name)
}

/// Sets a value; the caller has checked that the writer may.
pub fn sysctl_set(name: &str, value: &str) -> crate::Result<()> {
    stack().sysctl_set(name, value.trim())
}
