//! /proc/sys: tunables. Those of the network belong to crate `net`; the rest is what programs read, some of it may be
//! set.

use super::super::pseudo::{Entry, Text, Tree};
use crate::socket::net_stack;
use crate::task::misc;
use crate::{Errno, Result, printk};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Values that are read and may be set but change nothing here.
const PLAIN: &[(&str, &str)] = &[
    ("kernel/core_pattern", "core"),
    ("kernel/core_uses_pid", "0"),
    ("kernel/ctrl-alt-del", "0"),
    ("kernel/dmesg_restrict", "0"),
    ("kernel/kptr_restrict", "0"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/maxkeys", "200"),
    ("kernel/modprobe", "/sbin/modprobe"),
    ("kernel/msgmax", "8192"),
    ("kernel/msgmnb", "16384"),
    ("kernel/msgmni", "32000"),
    ("kernel/panic", "0"),
    ("kernel/panic_on_oops", "0"),
    ("kernel/perf_event_paranoid", "2"),
    ("kernel/pid_max", "32768"),
    ("kernel/randomize_va_space", "2"),
    ("kernel/sem", "32000\t1024000000\t500\t32000"),
    ("kernel/shmall", "18446744073692774399"),
    ("kernel/shmmax", "18446744073692774399"),
    ("kernel/shmmni", "4096"),
    ("kernel/sysrq", "1"),
    ("kernel/threads-max", "32768"),
    ("kernel/unprivileged_bpf_disabled", "2"),
    ("kernel/yama/ptrace_scope", "0"),
    ("vm/dirty_background_ratio", "10"),
    ("vm/dirty_ratio", "20"),
    ("vm/drop_caches", "0"),
    ("vm/max_map_count", "65530"),
    ("vm/min_free_kbytes", "4096"),
    ("vm/mmap_min_addr", "65536"),
    ("vm/overcommit_memory", "0"),
    ("vm/overcommit_ratio", "50"),
    ("vm/panic_on_oom", "0"),
    ("vm/swappiness", "60"),
    ("vm/vfs_cache_pressure", "100"),
    ("fs/aio-max-nr", "65536"),
    ("fs/aio-nr", "0"),
    ("fs/epoll/max_user_watches", "1048576"),
    ("fs/file-max", "1048576"),
    ("fs/inotify/max_queued_events", "16384"),
    ("fs/inotify/max_user_instances", "128"),
    ("fs/inotify/max_user_watches", "65536"),
    ("fs/lease-break-time", "45"),
    ("fs/leases-enable", "0"),
    ("fs/mount-max", "100000"),
    ("fs/nr_open", "1048576"),
    ("fs/pipe-max-size", "1048576"),
    ("fs/pipe-user-pages-soft", "16384"),
    ("fs/protected_fifos", "0"),
    ("fs/protected_hardlinks", "0"),
    ("fs/protected_regular", "0"),
    ("fs/protected_symlinks", "0"),
    ("fs/suid_dumpable", "0"),
    ("user/max_user_namespaces", "0"),
    ("dev/tty/ldisc_autoload", "1"),
    ("dev/tty/legacy_tiocsti", "0"),
];

/// Values that never change.
const FIXED: &[(&str, &str)] = &[
    ("kernel/ostype", "Linux"),
    ("kernel/osrelease", misc::RELEASE),
    ("kernel/version", misc::VERSION),
    ("kernel/arch", "x86_64"),
    ("kernel/ngroups_max", "65536"),
    ("kernel/cap_last_cap", "40"),
    ("kernel/overflowuid", "65534"),
    ("kernel/overflowgid", "65534"),
    ("kernel/tainted", "0"),
    ("kernel/random/entropy_avail", "256"),
    ("kernel/random/poolsize", "256"),
    ("kernel/random/urandom_min_reseed_secs", "60"),
    ("kernel/pty/max", "4096"),
    ("fs/overflowuid", "65534"),
    ("fs/overflowgid", "65534"),
];

static VALUES: Mutex<BTreeMap<&'static str, String>> = Mutex::new(BTreeMap::new());

fn uuid() -> String {
    let mut b = [0u8; 16];
    arch::host::random::fill(&mut b).ok();
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|x| format!("{x:02x}")).collect();
    format!("{}-{}-{}-{}-{}\n", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn text_of(bytes: &[u8]) -> Result<String> {
    let s = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    Ok(s.trim_end_matches(['\n', '\0']).to_owned())
}

fn line(bytes: Vec<u8>) -> Vec<u8> {
    let mut b = bytes;
    b.push(b'\n');
    b
}

/// Adds all of them.
pub fn fill(t: &Tree) {
    for (name, value) in FIXED {
        let value = format!("{value}\n");
        t.text(&format!("sys/{name}"), move || value.clone());
    }
    for &(name, value) in PLAIN {
        VALUES.lock().insert(name, value.to_owned());
        let read =
            move |_: &_| Ok(format!("{}\n", VALUES.lock().get(name).map_or("", String::as_str)).into_bytes());
        let text = Text::new(read).writable(move |_, b| {
            let new = text_of(b)?;
            if new.len() > 4096 {
                return Err(Errno::EINVAL);
            }
            let numeric = |s: &str| s.split_whitespace().all(|w| w.parse::<i128>().is_ok());
            let mut v = VALUES.lock();
            let old = v.entry(name).or_default();
            if numeric(old) && !numeric(&new) {
                return Err(Errno::EINVAL);
            }
            *old = new;
            Ok(())
        });
        t.add(&format!("sys/{name}"), Entry::File(text));
    }
    let host = Text::new(|_| Ok(line(misc::hostname()))).writable(|_, b| {
        misc::set_hostname(text_of(b)?.as_bytes());
        Ok(())
    });
    t.add("sys/kernel/hostname", Entry::File(host));
    let domain = Text::new(|_| Ok(line(misc::domainname()))).writable(|_, b| {
        misc::set_domainname(text_of(b)?.as_bytes());
        Ok(())
    });
    t.add("sys/kernel/domainname", Entry::File(domain));
    let levels =
        Text::new(|_| Ok(format!("{}\t4\t1\t7\n", printk::console_level()).into_bytes())).writable(|_, b| {
            let text = text_of(b)?;
            let first = text.split_whitespace().next().and_then(|w| w.parse().ok()).ok_or(Errno::EINVAL)?;
            printk::set_console_level(first);
            Ok(())
        });
    t.add("sys/kernel/printk", Entry::File(levels));
    t.text("sys/kernel/random/uuid", uuid);
    t.text("sys/kernel/random/boot_id", || {
        static ID: OnceLock<String> = OnceLock::new();
        ID.get_or_init(uuid).clone()
    });
    t.text("sys/kernel/pty/nr", || format!("{}\n", crate::tty::pty::pairs().len()));
    t.text("sys/fs/file-nr", || {
        format!("{}\t0\t{}\n", crate::fs::file::nr_files(), crate::fs::file::FILE_MAX)
    });
    t.text("sys/fs/inode-nr", || "0\t0\n".into());
    t.text("sys/fs/dentry-state", || "0\t0\t45\t0\t0\t0\n".into());
    t.add("sys/fs/binfmt_misc", Entry::Dir);
    for name in net_stack().sysctl_list() {
        let read =
            move |_: &_| Ok(format!("{}\n", net_stack().sysctl_get(name).unwrap_or_default()).into_bytes());
        let text = Text::new(read).writable(move |_, b| net_stack().sysctl_set(name, text_of(b)?.trim()));
        t.add(&format!("sys/net/{name}"), Entry::File(text));
    }
}
