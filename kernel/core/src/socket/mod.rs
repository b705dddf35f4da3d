//! Sockets: inet, unix, netlink.
