//! ioctl(2) on sockets: queue lengths, and the interface requests of netdevice(7).

use super::Socket;
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::ioctl as c;

/// SIOCOUTQ and SIOCINQ are spelled as terminals spell them.
const SIOCOUTQ: u32 = c::TIOCOUTQ;

/// All ioctls of sockets; FIONBIO, FIOCLEX and FIONCLEX have been handled by `sys_ioctl`.
pub async fn sock_ioctl(cur: &Arc<Task>, sock: &Arc<dyn Socket>, cmd: u32, arg: u64) -> Result<u64> {
    let n = match cmd {
        c::FIONREAD => sock.inq()?,
        SIOCOUTQ => sock.outq()?,
        c::SIOCATMARK => 0,
        _ => return Err(Errno::ENOTTY),
    };
    let n = i32::try_from(n).unwrap_or(i32::MAX);
    cur.mm().copy_to_user(arg, &n.to_ne_bytes()).await?;
    Ok(0)
}
