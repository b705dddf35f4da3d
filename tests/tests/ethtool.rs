//! Every command of the unmodified ethtool(8) against the vector NIC in a guest: docs/ethtool.md is its transcript, and
//! must have the same shape as what comes now. `KIBBLE_WRITE_DOCS=1 cargo test -p tests --test ethtool` writes it anew.
//! The counters are compared with what tcpdump saw on the host's side.
//!
//! Skipped with a reason where ./vmlinux or the image are not built, or the host has no namespaces or taps for us.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tests::guest::Guest;
use tests::workspace::root;

const LIMIT: Duration = Duration::from_secs(30);

/// The host's side: taps, and a pair whose other end is where tunnels go.
const HOST: &str = "set -e
for t in tap4 tap5; do ip tuntap add $t mode tap vnet_hdr; ip link set $t addrgenmode none; ip link set $t up; done
ip addr add 10.0.2.1/24 dev tap4
ip link add ext0 type veth peer name ext1
for l in ext0 ext1; do ip link set $l addrgenmode none; ip link set $l up; done
ip addr add 10.0.9.1/24 dev ext0
ip link set lo up
";

/// The NICs, with the transports that they show.
const NICS: [&str; 7] = [
    "vec0:transport=tap,ifname=tap4,depth=128,gro=1,mac=02:00:00:00:00:01",
    "vec1:transport=hybrid,ifname=tap5,bpfflash=1",
    "vec2:transport=raw,ifname=ext1",
    "vec3:transport=vxlan,vni=7,src=10.0.9.1,dst=10.0.9.2",
    "vec4:transport=geneve,vni=7,src=10.0.9.1,dst=10.0.9.2",
    "vec5:transport=gre,src=10.0.9.1,dst=10.0.9.2,rx_key=1,tx_key=2,sequence=1",
    "vec6:transport=l2tpv3,udp=1,src=10.0.9.1,dst=10.0.9.2,srcport=1701,dstport=1702,rx_session=1,tx_session=2",
];

/// Everything, against the tap.
const FULL: &[&str] = &[
    "ethtool vec0",
    "ethtool -i vec0",
    "ethtool -P vec0",
    "ethtool -k vec0",
    "ethtool -K vec0 tso off",
    "ethtool -K vec0 tso on",
    "ethtool -K vec0 rx off",
    "ethtool -k vec0 | grep -v fixed",
    "ethtool -K vec0 rx on",
    "ethtool -K vec0 gro off",
    "ethtool -K vec0 gro on",
    "ethtool -K vec0 rxvlan on",
    "ethtool -K vec0 nosuch on",
    "ethtool -S vec0",
    "ethtool -g vec0",
    "ethtool -G vec0 rx 128 tx 512",
    "ethtool -g vec0 | tail -n 10",
    "ethtool -G vec0 rx 5000",
    "ethtool -G vec0 rx-mini 5",
    "ethtool -c vec0",
    "ethtool -C vec0 tx-usecs 3000 tx-frames 16 rx-usecs 2000",
    "ethtool -c vec0 | grep -v n/a",
    "ping -c 3 -i 0.2 10.0.2.1 | tail -n 1",
    "ethtool -C vec0 tx-usecs 0 tx-frames 0 rx-usecs 0",
    "ethtool -C vec0 rx-usecs-irq 5",
    "ethtool -l vec0",
    "ethtool -L vec0 combined 4",
    "ethtool -t vec0",
    "ethtool -T vec0",
    "ethtool -f vec0 filter.bpf",
    "ethtool -f vec1 nosuch.bpf",
    "ethtool -s vec0 msglvl drv on link on",
    "ethtool vec0 | tail -n 3",
    "ethtool -s vec0 speed 100",
    "ethtool -a vec0",
    "ethtool -m vec0",
    "ethtool -d vec0",
    "ethtool -e vec0",
    "ethtool -p vec0 1",
    "ethtool nosuch",
    "ethtool -k lo | grep -v fixed",
    "su -s /bin/sh nobody -c 'ethtool -G vec0 rx 64'",
];

/// What is shown of each of the others.
const SHORT: &[&str] = &["ethtool", "ethtool -i", "ethtool -g", "ethtool -l", "ethtool -t"];

fn quiet(cmd: &str) -> bool {
    let mut c = Command::new("sh");
    c.args(["-c", cmd]).stdout(Stdio::null()).stderr(Stdio::null());
    c.status().is_ok_and(|s| s.success())
}

/// Why this host cannot run it.
fn missing() -> Option<&'static str> {
    let image = root().join("target/images/smoke.ext4");
    if !root().join("vmlinux").exists() {
        Some("./vmlinux is not built")
    } else if !image.exists() {
        Some("the image is not built: cargo xtask image smoke")
    } else if !quiet("unshare -n true") {
        Some("no network namespaces for us")
    } else if !quiet("unshare -n ip tuntap add tap4 mode tap vnet_hdr") {
        Some("no taps for us")
    } else {
        None
    }
}

struct Machine {
    guest: Guest,
}

impl Machine {
    fn boot() -> Self {
        let mut script = HOST.to_owned();
        let _ =
            write!(script, "exec {}/vmlinux mem=512M quiet root=/dev/ubda init=/bin/bash ", root().display());
        let _ = write!(script, "ubd0={}/target/images/smoke.ext4 ", root().display());
        let _ = write!(script, "ip=10.0.2.2::10.0.2.1:255.255.255.0:kib:vec0:off {}", NICS.join(" "));
        let mut cmd = Command::new("unshare");
        cmd.args(["-n", "sh", "-c", &script]);
        let mut this = Self { guest: Guest::spawn(cmd).expect("starts") };
        println!("waiting for the shell in the guest");
        this.guest.expect("bash-", LIMIT).expect("a prompt");
        // Echo off, no prompt: what comes is what commands write.
        this.guest
            .send("PS1=; stty -echo; bind 'set enable-bracketed-paste off' 2>/dev/null; echo up\"\"now\n")
            .expect("typed");
        this.guest.expect("upnow", LIMIT).expect("a shell");
        this.run("mount -t tmpfs t /tmp; mount -t proc p /proc; mount -t sysfs s /sys; for i in 1 2 3 4 5 6; do ip link set vec$i up; done");
        this
    }

    /// What a command writes, and its status.
    fn run(&mut self, cmd: &str) -> (String, String) {
        println!("waiting for: {cmd}");
        let line = format!("echo \"<\"\"<<\"; {{ {cmd}; }} 2>&1; echo \"@\"\"@@$?@\"\n");
        self.guest.send(&line).expect("typed");
        let got = self.guest.expect("<<<", LIMIT).and_then(|_| self.guest.expect("@@@", LIMIT));
        let out = got.unwrap_or_else(|e| panic!("{cmd}: {e}\n{}", self.guest.transcript()));
        let rc = self.guest.expect("@", LIMIT).expect("a status");
        (out.replace('\r', "").trim_start_matches('\n').to_owned(), rc)
    }

    /// Runs a command on the host's side of the guest's network.
    fn host(&self, args: &str) -> Command {
        let mut c = Command::new("nsenter");
        c.args(["-t", &self.guest.pid().to_string(), "-n"]).args(args.split(' '));
        c
    }

    fn number(&mut self, cmd: &str) -> u64 {
        let (out, _) = self.run(cmd);
        out.trim().parse().unwrap_or_else(|_| panic!("{cmd}: {out:?}"))
    }

    /// Waits until a command says what it should.
    fn until(&mut self, cmd: &str, want: &str) {
        for _ in 0..50 {
            if self.run(cmd).0.contains(want) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{cmd}: never {want}");
    }
}

/// Lines without what differs from run to run: numbers, and the ends of lines.
fn shape(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for l in text.lines() {
        let mut s = String::new();
        for c in l.trim_end().chars() {
            match c {
                '0'..='9' if s.ends_with('#') => {}
                '0'..='9' => s.push('#'),
                c => s.push(c),
            }
        }
        lines.push(s);
    }
    lines
}

fn show(doc: &mut String, cmd: &str, (out, rc): &(String, String)) {
    let _ = write!(doc, "```\n# {cmd}\n{out}");
    if rc != "0" {
        let _ = writeln!(doc, "(status {rc})");
    }
    doc.push_str("```\n\n");
}

/// Frames and their bytes in a capture file, sent by `mac` and by others.
fn captured(file: &[u8], mac: [u8; 6]) -> [(u64, u64); 2] {
    let word = |at: usize| file.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    assert_eq!(word(0), Some(0xa1b2_c3d4), "a capture file");
    let mut sums = [(0, 0); 2];
    let mut at = 24;
    while let (Some(len), Some(full)) = (word(at + 8), word(at + 12)) {
        let from = file.get(at + 22..at + 28);
        let side = &mut sums[usize::from(from != Some(&mac[..]))];
        *side = (side.0 + 1, side.1 + u64::from(full));
        at += 16 + len as usize;
    }
    sums
}

/// Every place that counts frames of vec0 agrees with tcpdump.
fn counters_agree(m: &mut Machine) {
    let path = std::env::temp_dir().join(format!("kibble-ethtool-{}.pcap", std::process::id()));
    let dump: Child = {
        let mut c = m.host(&format!(
            "tcpdump -q -U --immediate-mode -B 8192 -Z root -s 64 -i tap4 -w {}",
            path.display()
        ));
        match c.stderr(Stdio::null()).spawn() {
            Ok(c) => c,
            Err(e) => return println!("skipped: no tcpdump: {e}"),
        }
    };
    println!("waiting for tcpdump to write the head of its file");
    for _ in 0..50 {
        if std::fs::metadata(&path).is_ok_and(|m| m.len() >= 24) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_millis(500));
    let stat = |f: &str| format!("cat /sys/class/net/vec0/statistics/{f}");
    let names = ["tx_packets", "tx_bytes", "rx_packets", "rx_bytes"];
    let before = names.map(|n| m.number(&stat(n)));
    m.run("ping -c 40 -i 0.01 -s 1000 10.0.2.1; ping -c 5 -i 0.01 -s 9000 10.0.2.1");
    std::thread::sleep(Duration::from_millis(500));
    let after = names.map(|n| m.number(&stat(n)));
    // tcpdump is ended as a user would end it, so that it writes everything.
    quiet(&format!("kill -INT {}", dump.id()));
    let mut dump = dump;
    println!("waiting for tcpdump to end");
    dump.wait().expect("tcpdump ends");
    let file = std::fs::read(&path).expect("a capture");
    let _ = std::fs::remove_file(&path);
    let [sent, received] = captured(&file, [2, 0, 0, 0, 0, 1]);
    let delta: Vec<u64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    assert!(sent.0 >= 45 && received.0 >= 45, "tcpdump saw {sent:?} and {received:?}");
    assert_eq!(delta, [sent.0, sent.1, received.0, received.1], "guest against tcpdump: {names:?}");
    // The other places that show them, at one moment.
    let (dev, _) =
        m.run("grep vec0: /proc/net/dev | tr -s ' ' | sed 's/^ *vec0: *//' | cut -d' ' -f1,2,9,10");
    let (link, _) = m.run(
        "ip -s link show vec0 | sed -n '4p;6p' | tr -s ' ' | sed 's/^ //' | cut -d' ' -f1,2 | tr '\\n' ' '",
    );
    assert_eq!(dev.trim(), link.trim(), "/proc/net/dev against ip -s link");
    assert_eq!(
        dev.trim(),
        format!("{} {} {} {}", after[3], after[2], after[1], after[0]),
        "and against /sys"
    );
    let (queues, _) = m.run("ethtool -S vec0 | grep -E 'x_queue_0_(frames|bytes)' | tr -dc '0-9\\n ' | tr -s ' ' | cut -d' ' -f3 | tr '\\n' ' '");
    println!("per queue since link-up: {queues}");
}

#[test]
fn every_command_answers_as_the_manual_shows() {
    if let Some(why) = missing() {
        return println!("skipped: {why}");
    }
    let mut m = Machine::boot();
    counters_agree(&mut m);
    let mut doc = String::from(
        "# ethtool\n\nWhat Debian's ethtool 6.1 shows of the vector NIC. Made by `KIBBLE_WRITE_DOCS=1 cargo test -p tests --test ethtool`; \
         without the variable the test fails if the answers no longer have this shape. Numbers differ from run to run.\n\n\
         - Rings can be resized while frames flow: `tx` is a bound and changes at once, receive slots are powers of two from 16 to 256.\n\
         - `tx-usecs`, `tx-frames`, `rx-usecs`, `rx-frames` hold frames back for company; 0 microseconds, as at boot, holds nothing. \
         A full queue never waits. At most one second.\n\
         - Statistics begin with UML's fourteen names. Frames, bytes, errors and drops count since boot, the others since the last link-up; \
         `host_calls` and `host_waits` are those of all CPUs.\n\
         - Carrier, speed and duplex are those of the interface on the host behind tap, hybrid and raw.\n\
         - `-t` puts headers on and takes them off in memory, cuts a super-frame and looks at the link; nothing is sent.\n\
         - `-K` acts at once, on connections that are there too. What the device does not cut the stack or the driver cuts at the last moment, \
         so `tso off` puts MTU frames on the wire; `gso off` is kept and changes nothing besides, since TCP hands over super-frames either way.\n\
         - `-f` takes a classic BPF program from the guest's /lib/firmware if the line of the NIC has `bpfflash=1`; a wrong or missing file leaves the old program in force.\n\n\
         ## tap\n\n",
    );
    for cmd in FULL {
        let r = m.run(cmd);
        show(&mut doc, cmd, &r);
    }
    doc.push_str("The interface on the host is set down and up again:\n\n");
    for (state, want) in [("down", "Link detected: no"), ("up", "Link detected: yes")] {
        assert!(m.host(&format!("ip link set tap4 {state}")).status().is_ok_and(|s| s.success()));
        m.until("ethtool vec0", want);
        let cmd = "ethtool vec0 | tail -n 1; cat /sys/class/net/vec0/carrier /sys/class/net/vec0/operstate";
        let r = m.run(cmd);
        show(&mut doc, cmd, &r);
    }
    for (i, nic) in NICS.iter().enumerate().skip(1) {
        let _ = write!(doc, "## {}\n\n`{nic}`\n\n", nic.split(['=', ',']).nth(1).unwrap_or(""));
        for cmd in SHORT {
            let cmd = format!("{cmd} vec{i}");
            let r = m.run(&cmd);
            assert!(!cmd.contains("-t") || r.0.contains("result is PASS"), "{cmd}: {}", r.0);
            show(&mut doc, &cmd, &r);
        }
        let cmd = format!("ethtool -k vec{i} | grep -v fixed");
        let r = m.run(&cmd);
        show(&mut doc, &cmd, &r);
    }
    let path = root().join("docs/ethtool.md");
    let doc = format!("{}\n", doc.trim_end());
    if std::env::var_os("KIBBLE_WRITE_DOCS").is_some() {
        std::fs::write(&path, doc).expect("docs/ethtool.md can be written");
        return;
    }
    let old = std::fs::read_to_string(&path).expect("docs/ethtool.md is there");
    let (old, new) = (shape(&old), shape(&doc));
    for (i, (o, n)) in old.iter().zip(&new).enumerate() {
        assert_eq!(o, n, "line {} of docs/ethtool.md", i + 1);
    }
    assert_eq!(old.len(), new.len(), "lines of docs/ethtool.md");
}
