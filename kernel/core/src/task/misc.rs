//! System-wide calls: uname(2), sysinfo(2), reboot(2), getrandom(2), personality(2), membarrier(2) and others.

use super::cred::cap;
use super::pid;
use super::task::Task;
use crate::power::{self, PowerEvent};
use crate::syscall::{SyscallArgs, UserPtr};
use crate::{Errno, Result, time};
use arch::user::{GUEST_END, UserRegs};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uapi::raw::general as c;

/// Bytes of each member of `struct new_utsname`, NUL included.
const UTS_LEN: usize = 65;
/// `release` of uname(2).
pub const RELEASE: &str = "6.12.0-kibble";
/// `version` of uname(2).
pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC";

static HOSTNAME: RwLock<Vec<u8>> = RwLock::new(Vec::new());
static DOMAINNAME: RwLock<Vec<u8>> = RwLock::new(Vec::new());

/// The host name; `(none)` until it is set.
pub fn hostname() -> Vec<u8> {
    or_none(&HOSTNAME)
}

/// The NIS domain name; `(none)` until it is set.
pub fn domainname() -> Vec<u8> {
    or_none(&DOMAINNAME)
}

fn or_none(name: &RwLock<Vec<u8>>) -> Vec<u8> {
    let n = name.read();
    if n.is_empty() { b"(none)".to_vec() } else { n.clone() }
}

/// Sets the host name (`umid=`, /proc/sys/kernel/hostname); cut to 64 bytes.
pub fn set_hostname(name: &[u8]) {
    *HOSTNAME.write() = name.iter().copied().take(UTS_LEN - 1).collect();
}

/// Sets the domain name; cut to 64 bytes.
pub fn set_domainname(name: &[u8]) {
    *DOMAINNAME.write() = name.iter().copied().take(UTS_LEN - 1).collect();
}

/// uname(2).
pub async fn sys_uname(cur: &Arc<Task>, out: UserPtr<[u8; UTS_LEN * 6]>) -> Result<u64> {
    let mut b = [0u8; UTS_LEN * 6];
    let (host, domain) = (hostname(), domainname());
    let fields: [&[u8]; 6] = [b"Linux", &host, RELEASE.as_bytes(), VERSION.as_bytes(), b"x86_64", &domain];
    for (slot, text) in b.chunks_exact_mut(UTS_LEN).zip(fields) {
        for (d, s) in slot.iter_mut().take(UTS_LEN - 1).zip(text) {
            *d = *s;
        }
    }
    out.write(cur, &b).await?;
    Ok(0)
}

async fn read_name(cur: &Arc<Task>, name: UserPtr<u8>, len: i32) -> Result<Vec<u8>> {
    if !cur.cred().capable(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let len = usize::try_from(len).ok().filter(|&l| l < UTS_LEN).ok_or(Errno::EINVAL)?;
    name.read_vec(cur, len).await
}

/// sethostname(2).
pub async fn sys_sethostname(cur: &Arc<Task>, name: UserPtr<u8>, len: i32) -> Result<u64> {
    let name = read_name(cur, name, len).await?;
    set_hostname(&name);
    Ok(0)
}

/// setdomainname(2).
pub async fn sys_setdomainname(cur: &Arc<Task>, name: UserPtr<u8>, len: i32) -> Result<u64> {
    let name = read_name(cur, name, len).await?;
    set_domainname(&name);
    Ok(0)
}

/// sysinfo(2).
pub async fn sys_sysinfo(cur: &Arc<Task>, out: UserPtr<[u8; 112]>) -> Result<u64> {
    let frames = crate::mm::frames::frames();
    let page = klib::addr::PAGE_SIZE as u64;
    let (total, free) = (frames.total_pages() * page, frames.free_pages() * page);
    let mut b = [0u8; 112];
    let mut put = |at: usize, v: u64| b[at..at + 8].copy_from_slice(&v.to_ne_bytes());
    put(0, time::uptime_ns() / time::clock::NSEC);
    put(32, total);
    put(40, free);
    let procs = u16::try_from(pid::read().nr_threads()).unwrap_or(u16::MAX);
    b[80..82].copy_from_slice(&procs.to_ne_bytes());
    // mem_unit
    b[104..108].copy_from_slice(&1u32.to_ne_bytes());
    out.write(cur, &b).await?;
    Ok(0)
}

/// getrandom(2): the host's generator, which is always ready.
pub async fn sys_getrandom(cur: &Arc<Task>, buf: UserPtr<u8>, len: usize, flags: u32) -> Result<u64> {
    const CHUNK: usize = 4096;
    if flags & !(c::GRND_NONBLOCK | c::GRND_RANDOM | c::GRND_INSECURE) != 0
        || flags & (c::GRND_RANDOM | c::GRND_INSECURE) == c::GRND_RANDOM | c::GRND_INSECURE
    {
        return Err(Errno::EINVAL);
    }
    let len = len.min(i32::MAX as usize);
    let mm = cur.mm();
    let mut chunk = vec![0u8; len.min(CHUNK)];
    let mut done = 0;
    while done < len {
        let n = (len - done).min(CHUNK);
        arch::host::random::fill(&mut chunk[..n])?;
        if let Err(e) = mm.copy_to_user(buf.addr().wrapping_add(done as u64), &chunk[..n]).await {
            return if done > 0 { Ok(done as u64) } else { Err(e) };
        }
        done += n;
        if done < len {
            if cur.signal_pending() {
                break;
            }
            executor::yield_now().await;
        }
    }
    Ok(done as u64)
}

/// personality(2): kept and reported; only PER_LINUX with flags is accepted.
pub fn sys_personality(cur: &Arc<Task>, persona: u32) -> Result<u64> {
    const ASK: u32 = u32::MAX;
    let word = &cur.group.personality;
    let old =
        if persona == ASK { word.load(Ordering::Relaxed) } else { word.swap(persona, Ordering::Relaxed) };
    Ok(u64::from(old))
}

/// membarrier(2): the query answers that no command is there, since no trap reaches all threads of a process at once.
pub fn sys_membarrier(_cur: &Arc<Task>, cmd: i32, flags: u32, _cpu: i32) -> Result<u64> {
    if flags != 0 || cmd != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

/// reboot(2).
pub async fn sys_reboot(cur: &Arc<Task>, m1: u32, m2: u32, cmd: u32, _arg: u64) -> Result<u64> {
    static CAD: AtomicBool = AtomicBool::new(true);
    if !cur.cred().capable(cap::SYS_BOOT) {
        return Err(Errno::EPERM);
    }
    let second =
        [c::LINUX_REBOOT_MAGIC2, c::LINUX_REBOOT_MAGIC2A, c::LINUX_REBOOT_MAGIC2B, c::LINUX_REBOOT_MAGIC2C];
    if m1 != c::LINUX_REBOOT_MAGIC1 || !second.contains(&m2) {
        return Err(Errno::EINVAL);
    }
    let event = match cmd {
        c::LINUX_REBOOT_CMD_RESTART | c::LINUX_REBOOT_CMD_RESTART2 => PowerEvent::Restart,
        // UML has no power-off hook: both end as a halt.
        c::LINUX_REBOOT_CMD_HALT | c::LINUX_REBOOT_CMD_POWER_OFF => PowerEvent::Halt,
        c::LINUX_REBOOT_CMD_CAD_ON | c::LINUX_REBOOT_CMD_CAD_OFF => {
            CAD.store(cmd == c::LINUX_REBOOT_CMD_CAD_ON, Ordering::Relaxed);
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL),
    };
    power::end(event);
    // The executors stop; the caller must not run on until they have.
    cur.wait_killable::<()>(|_| None).await?;
    Ok(0)
}

/// arch_prctl(2). The two calls that set a base usually never come here: the stub lets the host's own serve them.
pub async fn arch_prctl(
    cur: &Arc<Task>,
    call: &SyscallArgs,
    regs: &mut UserRegs,
    gs_base: u64,
) -> Result<u64> {
    // <asm/prctl.h>
    const SET_FS: u32 = 0x1002;
    const GET_FS: u32 = 0x1003;
    const GET_GS: u32 = 0x1004;
    const GET_CPUID: u32 = 0x1011;
    const SET_CPUID: u32 = 0x1012;
    let [code, arg, ..] = call.args;
    // Linux looks at the low half of the code alone.
    match code as u32 {
        GET_FS => cur.mm().copy_to_user(arg, &regs.fs_base.to_ne_bytes()).await?,
        GET_GS => cur.mm().copy_to_user(arg, &gs_base.to_ne_bytes()).await?,
        SET_FS if arg >= GUEST_END => return Err(Errno::EPERM),
        SET_FS => regs.fs_base = arg,
        // CPUID faults are the host's to switch; a CPU without them answers so.
        GET_CPUID => return Ok(1),
        SET_CPUID => return Err(Errno::ENODEV),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}
