//! Lines and what becomes of them: a table of mistakes with their messages, then what good lines mean.

use super::*;

fn mistake(args: &[&str]) -> String {
    let (_, mistakes) = parse(args);
    mistakes.first().map(ToString::to_string).unwrap_or_default()
}

fn good(args: &[&str]) -> BootLine {
    let (line, mistakes) = parse(args);
    assert!(mistakes.is_empty(), "{args:?}: {}", mistakes[0]);
    line
}

/// Arguments (separated by blanks) and the message of the first mistake.
const MISTAKES: &[(&str, &str)] = &[
    (
        "mem=8M",
        "mem=8M: Too few physical memory! Needed=16777216, given=8388608; expected a number with suffix k, m, g or t, as in mem=512M",
    ),
    (
        "mem=512",
        "mem=512: Too few physical memory! Needed=16777216, given=512; expected a number with suffix k, m, g or t, as in mem=512M",
    ),
    ("mem=", "mem=: not a size; expected a number with suffix k, m, g or t, as in mem=512M"),
    ("mem", "mem: no value given; expected mem=VALUE"),
    ("mem=lots", "mem=lots: not a size; expected a number with suffix k, m, g or t, as in mem=512M"),
    ("mem=512MB", "mem=512MB: not a size; expected a number with suffix k, m, g or t, as in mem=512M"),
    ("mem=-1", "mem=-1: not a size; expected a number with suffix k, m, g or t, as in mem=512M"),
    ("mem=1E", "mem=1E: more than an address space holds; expected at most 64T"),
    (
        "mem=99999999999G",
        "mem=99999999999G: not a size; expected a number with suffix k, m, g or t, as in mem=512M",
    ),
    ("mem=64M mem=1G", "mem=1G: given twice, first as mem=64M; expected one of them"),
    ("umid=", "umid=: empty name; expected a name of at most 63 bytes without '/', as in umid=debian"),
    (
        "umid=a/b",
        "umid=a/b: a name with '/'; expected a name of at most 63 bytes without '/', as in umid=debian",
    ),
    ("umid=..", "umid=..: not a name; expected a name of at most 63 bytes without '/', as in umid=debian"),
    ("umid=a umid=b", "umid=b: given twice, first as umid=a; expected one of them"),
    ("uml_dir=", "uml_dir=: uml_dir can't be an empty string; expected a directory of the host"),
    ("ubd0", "ubd0: missing '='; expected ubd<0-15 or a-p>[r][s][d][c][t]=FILE[,BACKING][,SERIAL]"),
    ("ubd0=", "ubd0=: no file given; expected ubd<0-15 or a-p>[r][s][d][c][t]=FILE[,BACKING][,SERIAL]"),
    ("ubd16=f", "ubd16=f: device number out of range; expected 0 to 15 or a to p"),
    ("ubdq=f", "ubdq=f: device number out of range; expected 0 to 15 or a to p"),
    ("ubd0x=f", "ubd0x=f: flag 'x'; expected '=' or flag letter (r, s, c, t or d)"),
    (
        "ubd0rrrrrrr=f",
        "ubd0rrrrrrr=f: too many flags specified; expected ubd<0-15 or a-p>[r][s][d][c][t]=FILE[,BACKING][,SERIAL]",
    ),
    (
        "ubd0=a ubda=b",
        "ubda=b: device is already configured, given twice, first as ubd0=a; expected one of them",
    ),
    (
        "ubd0=cow,base",
        "ubd0=cow,base: COW files are not yet supported; expected one plain file, as in ubd0=FILE",
    ),
    (
        "ubd0d=cow,base",
        "ubd0d=cow,base: can't specify both 'd' and a COW file; expected one file, or no flag d",
    ),
    (
        "ubd0=a,b,c,d",
        "ubd0=a,b,c,d: too many parts (names with ',' or ':' cannot be given); expected FILE[,BACKING][,SERIAL]",
    ),
    ("ubd=3", "ubd=3: fake major not supported any more; expected ubd<N>=FILE or ubd=sync"),
    ("ubd=disk", "ubd=disk: no device number; expected ubd<N>=FILE, as in ubd0=FILE, or ubd=sync"),
    ("udb0=disk", "udb0=disk: unknown option; did you mean ubd0=disk?"),
    ("root=/dev/ubda", "root=/dev/ubda: there is no such disk; expected an option ubd0=FILE with it"),
    ("ubd0=f root=/dev/ubdb", "root=/dev/ubdb: there is no such disk; expected an option ubd1=FILE with it"),
    ("ubd0=f root=", "root=: no device given; expected /dev/ubda to /dev/ubdp (or /dev/ubd0, 98:0, 6200)"),
    (
        "ubd0=f root=/dev/sda",
        "root=/dev/sda: no such device here; expected /dev/ubda to /dev/ubdp (or /dev/ubd0, 98:0, 6200)",
    ),
    (
        "ubd0=f root=8:0",
        "root=8:0: device 8:0 is not a disk of ours; expected /dev/ubda to /dev/ubdp (or /dev/ubd0, 98:0, 6200)",
    ),
    (
        "ubd0=f root=ubda1",
        "root=ubda1: partitions are not yet supported; expected a disk that is one file system, as /dev/ubda",
    ),
    (
        "ubd0=f root=/dev/ubd16",
        "root=/dev/ubd16: device number out of range; expected /dev/ubda to /dev/ubdp (or /dev/ubd0, 98:0, 6200)",
    ),
    (
        "ubd0=f root=LABEL=x",
        "root=LABEL=x: disks by label or id are not yet supported; expected /dev/ubda to /dev/ubdp (or /dev/ubd0, 98:0, 6200)",
    ),
    (
        "ubd0=f root=what",
        "root=what: not a device; expected /dev/ubda to /dev/ubdp (or /dev/ubd0, 98:0, 6200)",
    ),
    ("rootfstype=hostfs", "rootfstype=hostfs: a root on hostfs is not yet supported; expected ext4"),
    ("rootfstype=btrfs", "rootfstype=btrfs: no file system 'btrfs' here; expected ext4"),
    ("init=", "init=: empty value; expected a program of the guest, as in init=/bin/sh"),
    ("init=/a init=/b", "init=/b: given twice, first as init=/a; expected one of them"),
    ("con16=null", "con16=null: device number out of range; expected con0 to con15"),
    ("con0", "con0: missing '='; expected con0=CHANNEL, as in con0=null"),
    ("con0=", "con0=: no channel given; expected fd:<n>, fd:<in>,fd:<out>, null or none"),
    ("con0=null con0=none", "con0=none: given twice, first as con0=null; expected one of them"),
    ("ssl64=null", "ssl64=null: device number out of range; expected ssl0 to ssl63"),
    ("console=ttyS0", "console=ttyS0: a serial line as console is not yet supported; expected tty0 to tty15"),
    ("console=hvc0", "console=hvc0: no such console; expected tty0 to tty15"),
    (
        "vec0=transport=tap",
        "vec0=transport=tap: expected ':' after device number; expected vec<N>:key=value,..., as in vec0:transport=tap,ifname=tap0",
    ),
    (
        "vec:transport=tap",
        "vec:transport=tap: bad device number; expected vec<N>:key=value,..., as in vec0:transport=tap,ifname=tap0",
    ),
    (
        "vecX:transport=tap",
        "vecX:transport=tap: bad device number; expected vec<N>:key=value,..., as in vec0:transport=tap,ifname=tap0",
    ),
    (
        "vec0:transport=tap vec0:transport=raw",
        "vec0:transport=raw: given twice, first as vec0:transport=tap; expected one of them",
    ),
    (
        "eth0=tuntap,tap7,,192.168.0.1",
        "eth0=tuntap,tap7,,192.168.0.1: eth devices are not supported; expected vec0:transport=tap,ifname=tap7",
    ),
    ("eth1=daemon", "eth1=daemon: eth devices are not supported; expected vec1:transport=vde,vnl=..."),
    ("ncpus=0", "ncpus=0: not a number of CPUs; expected 1 to 8"),
    ("ncpus=9", "ncpus=9: not a number of CPUs; expected 1 to 8"),
    ("loglevel=high", "loglevel=high: not a level; expected 0 to 8, as in loglevel=7"),
    ("panic=now", "panic=now: not a number; expected seconds, as in panic=-1"),
    ("quiet=1", "quiet=1: takes no value; expected quiet"),
    (
        "ip=dhcp",
        "ip=dhcp: asking the network for an address is not yet supported; expected ip=ADDRESS::GATEWAY:NETMASK:HOSTNAME:DEVICE:off or ip=off",
    ),
    (
        "ip=10.0.0",
        "ip=10.0.0: '10.0.0' is neither an address nor a protocol; expected ip=ADDRESS::GATEWAY:NETMASK:HOSTNAME:DEVICE:off or ip=off",
    ),
    ("hostname=", "hostname=: a name of 0 bytes; expected 1 to 64"),
    (
        "log=net=loud",
        "log=net=loud: 'loud' is not a level; expected off, error, warn, info, debug or trace, as in log=info,net::tcp=trace",
    ),
    ("strace=open", "strace=open: a filter is not yet supported; expected strace"),
    ("hostfs=/tmp", "hostfs=/tmp: hostfs is not yet supported; expected a boot line without this option"),
    (
        "mconsole=notify:/x",
        "mconsole=notify:/x: the management console is not yet supported; expected a boot line without this option",
    ),
    (
        "virtio_uml.device=/s:1",
        "virtio_uml.device=/s:1: virtio devices are not yet supported; expected a boot line without this option",
    ),
    (
        "xterm=konsole",
        "xterm=konsole: xterm channels are not yet supported; expected a boot line without this option",
    ),
    (
        "iomem=a,b",
        "iomem=a,b: a file as a region of I/O memory is not supported; expected a boot line without this option",
    ),
    ("dtb=x", "dtb=x: a device tree is not supported; expected a boot line without this option"),
    (
        "time-travel=inf-cpu",
        "time-travel=inf-cpu: simulated time is not supported; expected a boot line without this option",
    ),
    (
        "time-travel-start=3",
        "time-travel-start=3: simulated time is not supported; expected a boot line without this option",
    ),
    ("seccomp=yes", "seccomp=yes: invalid seccomp option; expected on, auto or off"),
    (
        "--hlep",
        "--hlep: unknown option; expected --help, --version or --showconfig (arguments of init go after --)",
    ),
    // The first of several, in the order of the line.
    ("root=/dev/ubda mem=1", "root=/dev/ubda: there is no such disk; expected an option ubd0=FILE with it"),
    (
        "quiet mem=1 umid=",
        "mem=1: Too few physical memory! Needed=16777216, given=1; expected a number with suffix k, m, g or t, as in mem=512M",
    ),
    // The mistake in the disk's option is not reported as one of root=.
    ("root=/dev/ubda ubd0z=f", "ubd0z=f: flag 'z'; expected '=' or flag letter (r, s, c, t or d)"),
];

#[test]
fn mistakes() {
    for (args, expected) in MISTAKES {
        let args: Vec<&str> = args.split(' ').collect();
        assert_eq!(mistake(&args), *expected, "{args:?}");
    }
}

#[test]
fn messages_are_one_line() {
    assert_eq!(
        mistake(&["mem=a\nb"]),
        "mem=a\\nb: not a size; expected a number with suffix k, m, g or t, as in mem=512M"
    );
    let long = format!("vec0={}", "x".repeat(3000));
    assert!(mistake(&[&long]).len() < 300);
    assert_eq!(
        mistake(&["mem=64M root=/dev/ubda"]),
        "mem=64M root=/dev/ubda: several options in one argument; expected each as an argument of its own"
    );
    let long = "x".repeat(5000);
    assert!(mistake(&[&long]).starts_with("boot line: too many command line arguments, "));
}

#[test]
fn standard_line() {
    let args = "mem=512M umid=test ubd0=root.img ubd1r=data.img root=/dev/ubda ro init=/sbin/init con=null con0=fd:0,fd:1 \
                vec0:transport=tap,ifname=tap4,depth=128,gro=1";
    let b = good(&args.split_whitespace().collect::<Vec<_>>());
    assert_eq!((b.mem, b.umid.as_deref(), b.init.as_deref()), (512 << 20, Some("test"), Some("/sbin/init")));
    let disks: Vec<_> = b.disks.iter().map(|d| (d.name(), d.file.as_str(), d.read_only)).collect();
    assert_eq!(disks, [("ubda".into(), "root.img", false), ("ubdb".into(), "data.img", true)]);
    assert_eq!(b.root.map(|r| r.to_string()).as_deref(), Some("/dev/ubda"));
    assert!(b.root_ro);
    assert_eq!(b.cons[&0].text, "fd:0,fd:1");
    assert_eq!(b.con_default.map(|c| c.text).as_deref(), Some("null"));
    assert_eq!(b.vecs[&0].text, "transport=tap,ifname=tap4,depth=128,gro=1");
    assert!(b.unknown.is_none());
    // umid= is consumed, a console is added.
    assert!(b.cmdline.starts_with("mem=512M ubd0=root.img "), "{}", b.cmdline);
    assert!(b.cmdline.ends_with(" console=tty0"), "{}", b.cmdline);
}

#[test]
fn defaults() {
    let b = good(&[]);
    assert_eq!((b.mem, b.root, b.ncpus, b.loglevel, b.panic), (64 << 20, None, None, 7, 0));
    assert_eq!(b.consoles, ["tty0"]);
    assert_eq!(b.cmdline, "console=tty0");
    assert_eq!(b.init_env, ["HOME=/", "TERM=linux"]);
    let b = good(&["ubd0=f"]);
    assert_eq!(b.cmdline, "ubd0=f root=98:0 console=tty0");
    assert_eq!(b.root, Some(RootDev { unit: 0, partition: 0 }));
    assert_eq!(good(&["ubd1=f"]).root, None);
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("mem=64M", 64 << 20),
        ("mem=0x40m", 64 << 20),
        ("mem=0100M", 64 << 20),
        ("mem=65536k", 64 << 20),
        ("mem=67108864", 64 << 20),
        ("mem=67108865", 64 << 20),
        ("mem=2g", 2 << 30),
        ("mem=1T", 1 << 40),
    ] {
        assert_eq!(good(&[text]).mem, bytes, "{text}");
    }
}

#[test]
fn roots() {
    let all = ["/dev/ubdb", "ubdb", "/dev/ubd1", "ubd1", "/dev/ubd/1", "98:16", "6210", "0x6210"];
    for text in all {
        let b = good(&["ubd1=f", &format!("root={text}")]);
        assert_eq!(b.root, Some(RootDev { unit: 1, partition: 0 }), "{text}");
    }
    assert_eq!(good(&["ubda=f", "root=/dev/root"]).root, Some(RootDev { unit: 0, partition: 0 }));
    assert_eq!(good(&["ubd0=f", "root=/dev/ram0"]).root, None);
}

#[test]
fn disks() {
    let b = good(&["ubdbrsdct=x,,SER", "ubd0=y", "ubd0=y"]);
    let d = &b.disks[1];
    assert_eq!((d.unit, d.file.as_str(), d.serial.as_deref()), (1, "x", Some("SER")));
    assert!(d.read_only && d.sync && d.data && d.shared && d.no_trim);
    assert!(!b.disks[0].sync);
    assert!(good(&["ubd0=y", "ubd=sync"]).disks[0].sync);
    assert_eq!(good(&["vec0x1f:transport=tap"]).vecs.keys().collect::<Vec<_>>(), [&31]);
    assert_eq!(good(&["ubd0x3=y"]).disks[0].unit, 3);
}

#[test]
fn words_for_init() {
    let b = good(&[
        "single",
        "A=1",
        "kvm.x=2",
        "mem=64M",
        "A=2",
        "TERM=vt100",
        "3",
        "--",
        "x y",
        "mem=1",
        "--help",
    ]);
    assert_eq!(b.init_args, ["single", "3", "x y", "mem=1", "--help"]);
    assert_eq!(b.init_env, ["HOME=/", "TERM=vt100", "A=2"]);
    assert_eq!(
        b.unknown.as_deref(),
        Some(
            "Unknown kernel command line parameters \"single 3 A=2 TERM=vt100\", will be passed to user space."
        )
    );
    // Defaults are put before `--`, blanks inside an argument are kept by quotes.
    assert_eq!(b.cmdline, "single A=1 kvm.x=2 mem=64M A=2 TERM=vt100 3 console=tty0 -- \"x y\" mem=1 --help");
    assert_eq!(b.action, Action::Boot);
}

#[test]
fn quotes() {
    let b = good(&["ubd0=my disk.img", "GREETING=\"hello you\"", "init=\"/bin/my sh\"", "a b"]);
    assert_eq!(b.disks[0].file, "my disk.img");
    assert_eq!(b.init.as_deref(), Some("/bin/my sh"));
    assert_eq!(b.init_env[2], "GREETING=hello you");
    assert_eq!(b.init_args, ["a b"]);
    assert!(
        b.cmdline.starts_with("ubd0=\"my disk.img\" GREETING=\"hello you\" init=\"/bin/my sh\" \"a b\" ")
    );
    assert_eq!(good(&[" mem=1", "", "mem=64M"]).cmdline, "mem=64M console=tty0");
}

#[test]
fn known_to_linux() {
    let b = good(&[
        "mitigations=off",
        "nokaslr",
        "earlyprintk",
        "rootwait",
        "rootdelay=3",
        "selinux=0",
        "apparmor=0",
        "security=none",
        "seccomp=auto",
        "nosysemu",
        "noreboot",
        "rootflags=errors=remount-ro",
        "rootfstype=ext4",
        "panic=-1",
        "debug",
        "quiet",
        "loglevel=5",
        "ignore-loglevel",
        "console=tty",
        "con=null",
        "con=null",
        "ssl=none",
        "rw",
        "rdinit=/x",
        "ip=off",
    ]);
    assert!(b.unknown.is_none(), "{:?}", b.unknown);
    assert_eq!(b.notes.iter().filter(|n| n.level == log::Level::Info).count(), 10);
    assert!(b.noreboot && !b.root_ro && b.quiet);
    assert_eq!((b.panic, b.loglevel, b.rdinit.as_deref()), (-1, 15, Some("/x")));
    assert!(b.init_args.is_empty());
}

#[test]
fn actions() {
    for (arg, action) in
        [("--help", Action::Help), ("--version", Action::Version), ("--showconfig", Action::ShowConfig)]
    {
        // Whoever asks for help gets it whatever else the line says.
        let b = good(&["mem=1", arg, "ubd0=x"]);
        assert_eq!(b.action, action);
    }
}

#[test]
fn hints() {
    for (arg, expected) in [
        ("umdi=x", "Unknown option umdi=x: did you mean umid=?"),
        ("MEM=64M", "Unknown option MEM=64M: did you mean mem=?"),
        ("queit", "Unknown option queit: did you mean quiet?"),
        ("ncpu=2", "Unknown option ncpu=2: did you mean ncpus=?"),
    ] {
        let b = good(&[arg]);
        assert_eq!(b.notes.first().map(|n| n.text.as_str()), Some(expected));
        assert!(b.unknown.is_some());
    }
    assert!(good(&["PATH=/bin", "LANG=C", "single", "mode=3"]).notes.is_empty());
}

/// Anything at all is answered without a panic, and twice the same.
#[test]
fn random_lines() {
    let pieces = [
        "mem=",
        "ubd0",
        "ubd",
        "=",
        ":",
        ",",
        "vec",
        "0",
        "0x",
        "con",
        "ssl",
        "eth1=",
        "ip=",
        "--",
        " ",
        "\"",
        "é",
        "root=",
        "98:",
        "/dev/",
        "\0",
        "-",
        "ubdé=",
        "9999999999",
        "udb",
        "log=",
        "%",
        "time-travel",
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % n as u64).unwrap()
    };
    for _ in 0..20_000 {
        let args: Vec<String> =
            (0..next(4) + 1).map(|_| (0..next(6)).map(|_| pieces[next(pieces.len())]).collect()).collect();
        let (a, b) = (parse(&args), parse(&args));
        assert_eq!(a.0.cmdline, b.0.cmdline);
        for m in a.1 {
            assert!(!m.to_string().contains('\n'));
        }
    }
}
