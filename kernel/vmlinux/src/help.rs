//! `--help`, `--showconfig`, `--version`.

use kernel::task::misc::RELEASE;
use std::fmt::Write as _;

type Group = (&'static str, &'static [(&'static str, &'static str)]);

/// Every option, by group.
const GROUPS: &[Group] = &[
    (
        "The machine",
        &[
            ("mem=SIZE", "guest memory with suffix k, m, g or t; default 64M, at least 16M"),
            ("ncpus=N", "CPUs, 1 to 8; default: as many as the host lends, at most 8"),
            ("umid=NAME", "name of the instance, at most 63 bytes; default: six random characters"),
            ("uml_dir=DIR", "where instance directories live; default ~/.uml"),
            ("hostname=NAME", "host name of the guest until init sets one"),
        ],
    ),
    (
        "Disks and the root file system",
        &[
            (
                "ubd<N>[rsdct]=FILE[,,SERIAL]",
                "disk N (0 to 15 or a to p) on a host file or block device; flags:",
            ),
            ("", "r read-only, s O_SYNC, d plain data, c shared (no lock), t no discard"),
            ("ubd=sync", "flag s for all disks"),
            ("root=DEVICE", "disk of the root file system: /dev/ubda, /dev/ubd0, 98:0; default ubd0"),
            ("rootfstype=ext4", "its file system"),
            ("rootflags=OPTIONS", "its mount data"),
            (
                "ro, rw",
                "mount it read-only (the default) or for writing (not yet supported: stays read-only)",
            ),
            ("initrd=FILE", "initramfs on the host, a cpio archive (newc)"),
            ("init=PATH", "first program; default /sbin/init, /etc/init, /bin/init, /bin/sh"),
            ("rdinit=PATH", "first program of an initramfs; default /init"),
            ("", "Without any disk the built-in initramfs boots: a small shell and tools."),
        ],
    ),
    (
        "Consoles",
        &[
            ("con<N>=CHANNEL[,CHANNEL]", "console N (0 to 15): input and output. Channels: fd:N, null, none"),
            ("con=CHANNEL[,CHANNEL]", "all consoles that have no option; default: con0 fd:0,fd:1, no others"),
            ("ssl<N>=CHANNEL, ssl=CHANNEL", "serial lines (0 to 63)"),
            ("console=ttyN", "which console the kernel writes to; default tty0"),
        ],
    ),
    (
        "Network",
        &[
            ("vec<N>:KEY=VALUE,...", "network device vecN; keys:"),
            ("", "transport=tap  how frames reach the host (others: not yet supported)"),
            ("", "ifname=NAME    tap interface; default: a new one, which takes CAP_NET_ADMIN"),
            (
                "",
                "depth=N        frames in queues, default 64; mac=XX:XX:XX:XX:XX:XX; mtu=N, default 1500; gro=0|1",
            ),
            ("ip=ADDR::GW:MASK:HOST:DEV:off", "address of a device from boot on"),
        ],
    ),
    (
        "Messages and tracing",
        &[
            ("quiet", "warnings and errors only (loglevel=4)"),
            ("loglevel=N", "lines of a level below N reach the console; default 7"),
            ("ignore_loglevel, debug", "all lines reach the console; debug makes subsystems say more"),
            ("log=LEVEL|SUBSYSTEM=LEVEL,...", "what subsystems say: log=net=debug,irqchip=trace"),
            ("strace", "log every system call"),
        ],
    ),
    (
        "The end",
        &[
            ("noreboot", "a reboot of the guest ends the process"),
            ("panic=SECONDS", "accepted; a panic always ends the process at once"),
            (
                "",
                "Exit status: /proc/exitcode of the guest (default 0) after halt and poweroff, 134 after a panic,",
            ),
            (
                "",
                "1 after a mistake on this line and after SIGTERM or SIGINT. A reboot starts over, same process id.",
            ),
        ],
    ),
    (
        "Help",
        &[
            ("--help", "this text"),
            ("--version", "the release"),
            ("--showconfig", "what is built in, in the form of a kernel configuration"),
        ],
    ),
];

const EXAMPLES: &[(&str, &str)] = &[
    ("a shell in a terminal, nothing else needed", "vmlinux mem=256M"),
    (
        "a disk image, a name, the terminal as console",
        "vmlinux mem=512M umid=debian ubd0=debian.ext4 root=/dev/ubda con=null con0=fd:0,fd:1",
    ),
    (
        "a network: a tap made before by 'ip tuntap add tap4 mode tap user $USER vnet_hdr'",
        "vmlinux mem=512M ubd0=debian.ext4 vec0:transport=tap,ifname=tap4,depth=128,gro=1",
    ),
    ("one program, its arguments after --", "vmlinux ubd0r=debian.ext4 quiet noreboot init=/bin/ls -- -l /"),
];

/// Accepted for the sake of old start lines.
const ACCEPTED: &str = "mitigations= nokaslr earlyprintk rootwait rootdelay= selinux= apparmor= security= seccomp= nosysemu \
                        ssl-non-raw fake_ide fakehd";
/// Of later versions, or of none.
const LATER: &str = "hostfs= mconsole= virtio_uml.device= xterm= (not yet supported); eth<N>= iomem= dtb= time-travel \
                     time-travel-start= (not supported)";

/// The text of `--help`.
pub fn help() -> String {
    let mut out =
        format!("User Mode Linux v{RELEASE} (Kibble)\n\nvmlinux [OPTION]... [WORD]... [-- ARGUMENT]...\n");
    for (title, options) in GROUPS {
        let _ = writeln!(out, "\n{title}:");
        for (form, text) in *options {
            if form.is_empty() {
                let _ = writeln!(out, "  {:30}   {text}", "");
            } else {
                let _ = writeln!(out, "  {form:30} {text}");
            }
        }
    }
    out +=
        "\nWords and NAME=VALUE that are no options go to init: words as arguments, pairs as environment.\n";
    let _ = writeln!(out, "Accepted, without effect: {ACCEPTED}");
    let _ = writeln!(out, "Refused: {LATER}");
    out += "\nExamples:\n";
    for (what, line) in EXAMPLES {
        let _ = writeln!(out, "  {what}:\n    {line}");
    }
    out
}

/// The text of `--version`.
pub fn version() -> String {
    format!("{RELEASE}\n")
}

/// The text of `--showconfig`.
pub fn config() -> String {
    const YES: &[&str] = &[
        "UML",
        "64BIT",
        "X86_64",
        "SMP",
        "MMU",
        "BINFMT_ELF",
        "BINFMT_SCRIPT",
        "BLK_DEV_INITRD",
        "BLK_DEV_UBD",
        "DEVTMPFS",
        "EPOLL",
        "EVENTFD",
        "EXT4_FS",
        "FUTEX",
        "INET",
        "IP_PNP",
        "IPV6",
        "NET",
        "PACKET",
        "PRINTK",
        "PROC_FS",
        "SIGNALFD",
        "SYSFS",
        "TIMERFD",
        "TMPFS",
        "UML_NET_VECTOR",
        "UNIX",
        "UNIX98_PTYS",
    ];
    let mut out = format!("# Kibble {RELEASE}\nCONFIG_NR_CPUS={}\n", kernel::param::NCPUS_MAX);
    for name in YES {
        let _ = writeln!(out, "CONFIG_{name}=y");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_option() {
        let text = help();
        for name in kernel::param::option_names() {
            assert!(text.contains(name.trim_end_matches('=')), "--help does not mention {name}");
        }
        for line in text.lines() {
            assert!(line.len() <= 160, "{line}");
        }
    }

    #[test]
    fn examples_are_good_lines() {
        for (_, line) in EXAMPLES {
            let args: Vec<&str> = line.split(' ').skip(1).collect();
            let (_, mistakes) = kernel::param::parse(&args);
            assert!(mistakes.is_empty(), "{line}: {}", mistakes[0]);
        }
    }
}
