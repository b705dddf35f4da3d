//! ioctl(2) on sockets: queue lengths, the interface requests of netdevice(7), routes, ethtool.

use super::inet::stack;
use super::msg::first_int;
use super::{Socket, ethtool};
use crate::syscall::UserPtr;
use crate::task::Task;
use crate::{Errno, Result};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use uapi::raw::{ioctl as c, net as n};

/// SIOCOUTQ and SIOCINQ are spelled as terminals spell them.
const SIOCOUTQ: u32 = c::TIOCOUTQ;
const SIOCETHTOOL: u32 = 0x8946;
/// Bytes of `struct ifreq`.
const IFREQ: usize = 40;
/// Bytes of `struct rtentry`, and where its `rt_dev` lies (linux/route.h).
const RTENTRY: usize = 120;
const RT_DEV: usize = 88;
const CAP_NET_ADMIN: u32 = 12;

/// All ioctls of sockets; FIONBIO, FIOCLEX and FIONCLEX have been handled by `sys_ioctl`.
pub async fn sock_ioctl(cur: &Arc<Task>, sock: &Arc<dyn Socket>, cmd: u32, arg: u64) -> Result<u64> {
    let mm = cur.mm();
    let admin = cur.cred().capable(CAP_NET_ADMIN);
    match cmd {
        c::FIONREAD | SIOCOUTQ | c::SIOCATMARK => {
            let n = match cmd {
                c::FIONREAD => sock.inq()?,
                SIOCOUTQ => sock.outq()?,
                // There is no urgent data, so no mark to stand at.
                _ => 0,
            };
            mm.copy_to_user(arg, &i32::try_from(n).unwrap_or(i32::MAX).to_ne_bytes()).await?;
        }
        c::SIOCGIFCONF => ifconf(cur, arg).await?,
        c::SIOCADDRT | c::SIOCDELRT if sock.common().family == n::AF_INET => {
            if !admin {
                return Err(Errno::EPERM);
            }
            let mut rt = [0u8; RTENTRY];
            mm.copy_from_user(arg, &mut rt).await?;
            let dev = rt[RT_DEV..].first_chunk::<8>().map_or(0, |b| u64::from_ne_bytes(*b));
            let name = if dev == 0 { None } else { Some(mm.read_cstr(dev, 16).await?) };
            let name = name.map(String::from_utf8).transpose().map_err(|_| Errno::ENODEV)?;
            stack().rtioctl(cmd == c::SIOCADDRT, &rt, name.as_deref())?;
        }
        c::SIOCSIFADDR | c::SIOCDIFADDR if sock.common().family == n::AF_INET6 => {
            if !admin {
                return Err(Errno::EPERM);
            }
            addr6(cur, arg, cmd == c::SIOCSIFADDR).await?;
        }
        SIOCETHTOOL => ethtool::ethtool(cur, arg).await?,
        0x8910..=0x89ff => {
            let mut ifr = [0u8; IFREQ];
            mm.copy_from_user(arg, &mut ifr).await?;
            stack().ifioctl(cmd, &mut ifr, admin)?;
            mm.copy_to_user(arg, &ifr).await?;
        }
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

/// SIOCGIFCONF: fills what fits; without a buffer it says how much there is.
async fn ifconf(cur: &Arc<Task>, arg: u64) -> Result<()> {
    let room = UserPtr::<i32>::new(arg).read(cur).await?;
    let buf = UserPtr::<u64>::new(arg.wrapping_add(8)).read(cur).await?;
    let all = stack().ifconf();
    let used = if buf == 0 {
        all.len()
    } else {
        let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
        let n = all.len().min(room / IFREQ * IFREQ);
        cur.mm().copy_to_user(buf, all.get(..n).unwrap_or(&[])).await?;
        n
    };
    UserPtr::<i32>::new(arg).write(cur, &i32::try_from(used).unwrap_or(0)).await
}

/// `struct in6_ifreq`: address, prefix length, device.
async fn addr6(cur: &Arc<Task>, arg: u64, add: bool) -> Result<()> {
    let mut raw = [0u8; 24];
    cur.mm().copy_from_user(arg, &mut raw).await?;
    let addr = raw.first_chunk::<16>().map(|b| Ipv6Addr::from(*b)).ok_or(Errno::EINVAL)?;
    let prefix = u8::try_from(first_int(&raw[16..])?).ok().filter(|p| *p <= 128).ok_or(Errno::EINVAL)?;
    let index = u32::try_from(first_int(&raw[20..])?).map_err(|_| Errno::ENODEV)?;
    let dev = stack().devs.get(index).ok_or(Errno::ENODEV)?;
    if add {
        stack().addr_add(dev.ifindex, net::IfAddr::new(IpAddr::V6(addr), prefix))
    } else {
        stack().addr_del(dev.ifindex, IpAddr::V6(addr), Some(prefix))
    }
}
