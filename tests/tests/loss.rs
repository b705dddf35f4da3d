//! One TCP stream of a guest through a wire that loses frames, beside a Linux sender on the same wire with the same algorithm and
//! the same receiver; and a stream with a checksum of each byte through loss and reordering.
//!
//! The table (a quarter of an hour): `cargo test -p tests --release --test loss -- --ignored --nocapture`, with LOSS_ROUNDS and
//! LOSS_SECONDS. `KIBBLE_LONG=1` makes the checked stream 4 GiB. Skipped with a reason where ./vmlinux, the image or the guest
//! programs are not built, or the host has no namespaces or taps for us.

use std::process::Command;
use std::time::Duration;
use tests::guest::Guest;
use tests::shell::missing;
use tests::workspace::root;

const WAIT: Duration = Duration::from_secs(30);

fn nettool() -> std::path::PathBuf {
    root().join("target/guest/x86_64-unknown-linux-gnu/release/nettool")
}

fn cannot() -> Option<&'static str> {
    missing().or_else(|| (!nettool().exists()).then_some("the guest programs are not built"))
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// How the wire is: delay each way in microseconds; of the sender's data frames, of all frames one in so many lost; one in
/// so many late.
struct Wire {
    delay_us: u64,
    loss: u64,
    loss_all: u64,
    late: u64,
    seed: u64,
}

/// A namespace whose tap is the near end of the wire; at the far end a shell, of a guest or of Linux in a namespace of its own.
fn far_shell(wire: &Wire, guest: bool) -> Guest {
    let (root, tool) = (root().display().to_string(), nettool().display().to_string());
    let Wire { delay_us, loss, loss_all, late, seed } = wire;
    let (far, cmd) = if guest {
        let line =
            "mem=512M quiet root=/dev/ubda init=/bin/bash ip=10.0.2.2::10.0.2.1:255.255.255.0:kib:vec0:off";
        let nic = "vec0:transport=fd,fd=3,depth=128,gro=1";
        ("fd", format!("{root}/vmlinux {line} ubd0={root}/target/images/smoke.ext4 {nic}"))
    } else {
        let net = "ip addr add 10.0.2.2/24 dev tapb; ip link set tapb up";
        ("tap:tapb", format!("sh -c '{net}; exec bash --norc -i'"))
    };
    let script = format!(
        "ip tuntap add tapa mode tap; ip addr add 10.0.2.1/24 dev tapa; ip link set tapa up; ip link set lo up; \
         exec {tool} loss-relay tapa {far} {delay_us} {loss} {loss_all} {late} {seed} {cmd}"
    );
    let mut c = Command::new("unshare");
    c.args(["-n", "sh", "-c", &script]).env("PS1", "bash- ");
    let mut g = Guest::spawn(c).expect("starts");
    println!("waiting for a shell at the far end");
    g.expect("bash-", WAIT).unwrap_or_else(|e| panic!("{e}\n{}", g.transcript()));
    g.send(
        "PS1=; stty -echo 2>/dev/null; bind 'set enable-bracketed-paste off' 2>/dev/null; echo up\"\"now\n",
    )
    .expect("typed");
    g.expect("upnow", WAIT).unwrap_or_else(|e| panic!("{e}\n{}", g.transcript()));
    g
}

/// A program on the near side.
fn near(g: &Guest, args: &[&str]) -> Guest {
    let mut c = Command::new("nsenter");
    c.args(["-t", &g.pid().to_string(), "-n"]).args(args);
    Guest::spawn(c).expect("starts")
}

/// Ends the far end. The relay goes last, so nothing holds the image any more.
fn finish(mut g: Guest, guest: bool) {
    g.send(if guest { "poweroff -f\n" } else { "exit\n" }).expect("typed");
    println!("waiting for the end of the far end");
    g.wait(WAIT).unwrap_or_else(|e| panic!("{e}\n{}", g.transcript()));
}

/// Runs a command at the far end; what it writes.
fn run(g: &mut Guest, cmd: &str, limit: Duration) -> String {
    println!("waiting for: {cmd}");
    g.send(&format!("{cmd}; echo \"@\"\"@@$?@\"\n")).expect("typed");
    let out = g.expect("@@@", limit).unwrap_or_else(|e| panic!("{cmd}: {e}\n{}", g.transcript()));
    let rc = g.expect("@", WAIT).expect("a status");
    assert_eq!(rc, "0", "{cmd}: {out}");
    out
}

#[test]
fn every_byte_arrives_through_loss_and_reordering() {
    if let Some(why) = cannot() {
        return println!("skipped: {why}");
    }
    let long = std::env::var_os("KIBBLE_LONG").is_some();
    let total: u64 = if long { 4 << 30 } else { 64 << 20 };
    let wire = Wire { delay_us: 100, loss: 0, loss_all: 100, late: 20, seed: 7 };
    let mut g = far_shell(&wire, true);
    let tool = nettool().display().to_string();
    let mut rx = near(&g, &[&tool, "stream-rx", "5301"]);
    rx.expect("listening", WAIT).expect("a receiver");
    let limit = Duration::from_secs(if long { 3600 } else { 120 });
    let out = run(&mut g, &format!("nettool stream-tx 10.0.2.1 5301 {total} -"), limit);
    assert!(out.contains(&format!("stream_sent {total}")), "{out}");
    let end = rx.wait(WAIT).unwrap_or_else(|e| panic!("{e}\n{}", rx.transcript()));
    assert!(
        end.success() && rx.transcript().contains(&format!("stream_bytes {total}")),
        "{}",
        rx.transcript()
    );
    print!("out of the guest:\n{}", rx.transcript());
    // And into it.
    g.send("nettool stream-rx 5302\n").expect("typed");
    g.expect("listening", WAIT).expect("a receiver");
    let mut tx = near(&g, &[&tool, "stream-tx", "10.0.2.2", "5302", &total.to_string(), "-"]);
    println!("waiting for {total} bytes in the guest");
    let end = tx.wait(limit).unwrap_or_else(|e| panic!("{e}\n{}", tx.transcript()));
    assert!(end.success(), "{}", tx.transcript());
    let got = g.expect("Mbit/s", WAIT).unwrap_or_else(|e| panic!("{e}\n{}", g.transcript()));
    assert!(got.contains(&format!("stream_bytes {total}")), "{got}");
    println!("into the guest:{got}Mbit/s");
    finish(g, true);
}

/// Mbit/s that the receiver sees of one stream of `secs` seconds.
fn goodput(wire: &Wire, guest: bool, algorithm: &str, secs: u64) -> f64 {
    let mut g = far_shell(wire, guest);
    if guest {
        // iperf3 keeps its data in a file there.
        run(&mut g, "mount -t tmpfs t /tmp", WAIT);
    }
    let mut server = near(&g, &["iperf3", "-s", "-1", "--forceflush"]);
    server.expect("listening", WAIT).expect("a server");
    let cmd = format!("iperf3 -c 10.0.2.1 -t {secs} -O 2 -i 0 -C {algorithm} -f k");
    let out = run(&mut g, &cmd, Duration::from_secs(secs + 40));
    finish(g, guest);
    let line = out.lines().find(|l| l.contains("receiver")).unwrap_or_else(|| panic!("{out}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|w| *w == "Kbits/sec").unwrap_or_else(|| panic!("{line}"));
    words[at - 1].parse::<f64>().unwrap_or_else(|_| panic!("{line}")) / 1000.0
}

fn spread(v: &mut [f64]) -> String {
    v.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", v[v.len() / 2], v[0], v[v.len() - 1])
}

#[test]
#[ignore = "a quarter of an hour; prints a table"]
fn beside_a_linux_sender() {
    if let Some(why) = cannot() {
        return println!("skipped: {why}");
    }
    let (rounds, secs) = (number("LOSS_ROUNDS", 5), number("LOSS_SECONDS", 20));
    let mut table = String::from(
        "| Loss | Algorithm | Kibble, Mbit/s | Linux, Mbit/s | Kibble / Linux, pair by pair |\n|---|---|---|---|---|\n",
    );
    for (loss, name) in [(100, "1 %"), (1000, "0.1 %")] {
        for algorithm in ["reno", "cubic"] {
            let (mut ours, mut linux, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..rounds {
                // Who begins changes with each round; both see the same kind of chance, not the same frames lost.
                let wire = Wire { delay_us: 10_000, loss, loss_all: 0, late: 0, seed: loss + round };
                let mut pair = [0.0; 2];
                for guest in [round % 2 == 0, round % 2 != 0] {
                    pair[usize::from(guest)] = goodput(&wire, guest, algorithm, secs);
                }
                println!("{name} {algorithm}: Kibble {:.2}, Linux {:.2} Mbit/s", pair[1], pair[0]);
                ours.push(pair[1]);
                linux.push(pair[0]);
                ratio.push(pair[1] / pair[0]);
            }
            let row = [spread(&mut ours), spread(&mut linux), spread(&mut ratio)].join(" | ");
            table.push_str(&format!("| {name} | {algorithm} | {row} |\n"));
        }
    }
    println!("{rounds} rounds of {secs} s, medians and extremes:\n\n{table}");
}
