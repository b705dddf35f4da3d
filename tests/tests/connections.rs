//! Very many TCP connections into one guest with 512 MiB over one tap: held and served, coming and going, beside many
//! listeners; nothing is left of them. Only counts decide; rates and times are printed.
//!
//! Short by default. `KIBBLE_LONG=1 cargo test -p tests --release --test connections -- --nocapture` holds 10 000 and lets
//! 5 000 a second come and go for a minute. Skipped with a reason where ./vmlinux or the image are not built, or the host
//! has no namespaces or taps for us.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tests::guest::Guest;
use tests::shell::{GUEST, HOST, Shell, missing};
use tests::workspace::root;

struct Size {
    held: usize,
    messages: usize,
    rate: u64,
    secs: u64,
    listeners: usize,
}

fn size() -> Size {
    if std::env::var_os("KIBBLE_LONG").is_some() {
        Size { held: 10_000, messages: 20_000, rate: 5000, secs: 60, listeners: 2000 }
    } else {
        Size { held: 1000, messages: 1000, rate: 500, secs: 3, listeners: 200 }
    }
}

fn nettool() -> String {
    root().join("target/guest/x86_64-unknown-linux-gnu/release/nettool").display().to_string()
}

/// What the tool wrote, as names and values.
fn values(text: &str) -> HashMap<String, f64> {
    let pair = |l: &str| {
        let mut w = l.split_whitespace();
        Some((w.next()?.to_owned(), w.next()?.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Runs the tool on the host's side to its end.
fn host(m: &Shell, args: &[&str], limit: Duration) -> HashMap<String, f64> {
    let tool = nettool();
    let mut all = vec![tool.as_str()];
    all.extend_from_slice(args);
    println!("waiting for the host's {args:?}");
    let mut g = Guest::spawn(m.host(&all)).expect("the tool starts");
    let end = g.wait(limit).unwrap_or_else(|e| panic!("{args:?}: {e}\n{}", g.transcript()));
    assert!(end.success(), "{args:?}: {}", g.transcript());
    print!("{}", g.transcript());
    values(&g.transcript())
}

/// Numbers of a line of /proc/net/sockstat.
fn sockstat(text: &str) -> HashMap<String, u64> {
    let line = |head: &str| text.lines().find(|l| l.starts_with(head)).unwrap_or("").to_owned();
    let tcp = line("TCP:");
    let w: Vec<&str> = tcp.split_whitespace().skip(1).collect();
    w.chunks(2).filter_map(|p| Some(((*p.first()?).to_owned(), p.get(1)?.parse().ok()?))).collect()
}

/// Waits until no connection is left but those of `listeners`.
fn settled(m: &mut Shell, what: &str) -> u64 {
    // The sockets of the server are of IPv6 and take IPv4 as well.
    let text = m.until(what, "cat /proc/net/sockstat; grep -c ' 01 ' /proc/net/tcp6", |t| {
        let s = sockstat(t);
        s.get("orphan") == Some(&0) && t.lines().last() == Some("0")
    });
    sockstat(&text).get("tw").copied().unwrap_or(0)
}

fn listening(m: &mut Shell, port: u16, ports: usize) {
    m.run(&format!("nettool many-server {port} {ports} >/tmp/server.{port} 2>&1 &"));
    m.until("a server", &format!("cat /tmp/server.{port}"), |t| t.contains("listening"));
}

/// Guests share an image, and their figures a machine: one after the other.
static ALONE: Mutex<()> = Mutex::new(());

/// A guest with a server on port 7000.
fn guest(test: fn(&mut Shell, &Size)) {
    if let Some(why) = missing() {
        return println!("skipped: {why}");
    }
    if !std::path::Path::new(&nettool()).exists() {
        return println!("skipped: the guest programs are not built");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut m = Shell::boot("", "mem=512M");
    m.limit = Duration::from_secs(60);
    listening(&mut m, 7000, 1);
    test(&mut m, &size());
}

#[test]
fn many_are_held_and_served() {
    guest(|m, n| {
        let anon = m.status("RssAnon");
        held(m, n);
        settled(m, "connections end");
        println!("memory of the kernel's own, KiB: {anon} at first, {} after", m.status("RssAnon"));
    });
}

#[test]
fn they_come_and_go_and_nothing_is_left() {
    guest(churned);
}

#[test]
fn many_listeners_and_a_client_in_the_guest() {
    guest(|m, n| {
        beside_listeners(m, n);
        guest_as_client(m, n);
    });
}

fn held(m: &mut Shell, n: &Size) {
    let (anon, shmem) = (m.status("RssAnon"), m.status("RssShmem"));
    let tool = nettool();
    let (conns, messages) = (n.held.to_string(), n.messages.to_string());
    let cmd = m.host(&[&tool, "many", GUEST, "7000", "1", &conns, &messages]);
    let mut client = Guest::spawn(cmd).expect("the tool starts");
    println!("waiting for {} connections with their messages", n.held);
    let served = client.expect("many_held", Duration::from_secs(120));
    let served = served.unwrap_or_else(|e| panic!("{e}\n{}", client.transcript()));
    print!("{served}");
    let (anon2, shmem2) = (m.status("RssAnon"), m.status("RssShmem"));
    println!(
        "memory a connection: {:.1} KiB of the kernel, {:.1} KiB of the memory file",
        (anon2 - anon.min(anon2)) as f64 / n.held as f64,
        (shmem2 - shmem.min(shmem2)) as f64 / n.held as f64
    );
    let inuse = m.run("grep -c ' 01 ' /proc/net/tcp6").0;
    assert_eq!(inuse.trim().parse(), Ok(n.held), "connections that stand");
    let ss = m.run("ss -Htn state established | wc -l").0;
    assert_eq!(ss.trim().parse(), Ok(n.held), "and what ss says");
    client.send("\n").expect("told to go on");
    let end = client.wait(Duration::from_secs(60)).unwrap_or_else(|e| panic!("{e}\n{}", client.transcript()));
    assert!(end.success(), "{}", client.transcript());
    let v = values(&client.transcript());
    assert_eq!(v.get("many_closed"), Some(&(n.held as f64)));
    println!("many_after {} us", v.get("many_after").copied().unwrap_or(0.0));
}

fn churn(m: &Shell, to: &str, port: &str, ports: usize, rate: u64, secs: u64) -> HashMap<String, f64> {
    let (ports, rate, s) = (ports.to_string(), rate.to_string(), secs.to_string());
    let v = host(m, &["churn", to, port, &ports, &rate, &s], Duration::from_secs(secs + 60));
    assert_eq!(v["churn_failed"], 0.0);
    assert_eq!(v["churn_done"], v["churn_begun"]);
    v
}

fn churned(m: &mut Shell, n: &Size) {
    // Tables and pools reach their size.
    churn(m, GUEST, "7000", 1, n.rate, n.secs.div_ceil(6));
    settled(m, "the first connections end");
    let (anon, shmem) = (m.status("RssAnon"), m.status("RssShmem"));
    churn(m, GUEST, "7000", 1, n.rate, n.secs);
    let tw = settled(m, "connections end");
    assert!(tw <= 16_384, "{tw} in TIME-WAIT");
    let (anon2, shmem2) = (m.status("RssAnon"), m.status("RssShmem"));
    println!(
        "{tw} in TIME-WAIT; memory before and after, KiB: kernel {anon} {anon2}, memory file {shmem} {shmem2}"
    );
    // A leak of one small block a connection would be more than this, if there are enough of them.
    let slack = 4096 + n.rate * n.secs / 100;
    assert!(anon2 < anon + slack && shmem2 < shmem + slack, "the kernel keeps memory");
}

fn beside_listeners(m: &mut Shell, n: &Size) {
    churn(m, GUEST, "7000", 1, 0, n.secs.div_ceil(6));
    listening(m, 8000, n.listeners);
    println!("beside {} listeners:", n.listeners);
    churn(m, GUEST, "7000", 1, 0, n.secs.div_ceil(6));
    println!("to {} listeners:", n.listeners);
    churn(m, GUEST, "8000", n.listeners, 0, n.secs.div_ceil(6));
    settled(m, "connections end");
}

fn guest_as_client(m: &mut Shell, n: &Size) {
    let tool = nettool();
    let mut server = Guest::spawn(m.host(&[&tool, "many-server", "9000", "1"])).expect("the tool starts");
    server.expect("listening", Duration::from_secs(10)).expect("a server");
    m.limit = Duration::from_secs(n.secs + 60);
    println!("connections of the guest's own:");
    let (out, rc) = m.run(&format!("nettool churn {HOST} 9000 1 0 {}", n.secs.div_ceil(6)));
    print!("{out}");
    let v = values(&out);
    assert_eq!((rc.as_str(), v.get("churn_failed")), ("0", Some(&0.0)), "{out}");
    assert_eq!(v["churn_done"], v["churn_begun"]);
}
