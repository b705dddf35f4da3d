//! Wrong `vecN:` lines and what the user is told: one line each, and the table in docs/vec-errors.md is made of them.
//! `KIBBLE_WRITE_DOCS=1 cargo test -p drivers --test vec_errors` writes it anew.

use drivers::vector::{Vector, VectorConfig};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// Lines that no host takes, whatever it has and may.
const LINES: &[&str] = &[
    "vec0",
    "vec0=transport=tap",
    "vecx:transport=tap",
    "vec-1:transport=tap",
    "vec0:",
    "vec0:transport",
    "vec0:depth=64",
    "vec0:transport=",
    "vec0:transport=TAP",
    "vec0:transport=tapfoo",
    "vec0:transport=slirp",
    "vec0:transport=tap,transport=raw",
    "vec0:transport=tap,ifname=",
    "vec0:transport=tap,ifname=a=b",
    "vec0:transport=tap,ifname=averyverylongname",
    "vec0:transport=tap,ifname=eth0:1",
    "vec0:transport=tap,ifname=..",
    "vec0:transport=tap,nope=1",
    "vec0:transport=tap,fd=3",
    "vec0:transport=tap,depth=0",
    "vec0:transport=tap,depth=-1",
    "vec0:transport=tap,depth=1025",
    "vec0:transport=tap,depth=many",
    "vec0:transport=tap,depth=1,depth=1",
    "vec0:transport=tap,queues=0",
    "vec0:transport=tap,queues=9",
    "vec0:transport=raw,ifname=lo,queues=2",
    "vec0:transport=tap,mtu=575",
    "vec0:transport=tap,mtu=65536",
    "vec0:transport=tap,mtu=0x5dc",
    "vec0:transport=tap,gro=2",
    "vec0:transport=tap,vec=maybe",
    "vec0:transport=tap,headroom=65536",
    "vec0:transport=tap,mac=1:2:3",
    "vec0:transport=tap,mac=02:00:00:00:00:0g",
    "vec0:transport=tap,mac=01:00:00:00:00:01",
    "vec0:transport=tap,mac=00:00:00:00:00:00",
    "vec0:transport=tap,bpfflash=yes",
    "vec0:transport=tap,bpffile=",
    "vec0:transport=hybrid",
    "vec0:transport=raw",
    "vec0:transport=raw,ifname=nosuchlink0",
    "vec0:transport=fd",
    "vec0:transport=fd,fd=-1",
    "vec0:transport=fd,fd=1000000",
    "vec0:transport=bess",
    "vec0:transport=bess,dst=/nonexistent/socket",
    "vec0:transport=bess,dst=/dev/null",
    "vec0:transport=stream,dst=",
    "vec0:transport=stream,dst=/nonexistent/socket",
    "vec0:transport=vde,vnl=vxvde://",
    "vec0:transport=vde,vnl=/nonexistent",
    "vec0:transport=vde,vnl=/tmp/sw[7],port=8",
    "vec0:transport=vde,vnl=/tmp/sw,group=nosuchgroup",
    "vec0:transport=gre",
    "vec0:transport=gre,src=10.0.0.1",
    "vec0:transport=gre,src=,dst=10.0.0.2",
    "vec0:transport=gre,src=10.0.0.1,dst=10.0.0.2,rx_key=1",
    "vec0:transport=gre,src=10.0.0.1,dst=10.0.0.2,rx_key=1,tx_key=0x100000000",
    "vec0:transport=gre,src=10.0.0.1,dst=10.0.0.2,ttl=0",
    "vec0:transport=l2tpv3,src=10.0.0.1,dst=10.0.0.2,udp=1",
    "vec0:transport=l2tpv3,src=10.0.0.1,dst=10.0.0.2,udp=2",
    "vec0:transport=l2tpv3,src=10.0.0.1,dst=10.0.0.2,rx_session=1,tx_session=2,rx_cookie=3",
    "vec0:transport=l2tpv3,src=10.0.0.1,dst=10.0.0.2,udp=1,srcport=70000",
    "vec0:transport=vxlan,src=10.0.0.1,dst=10.0.0.2",
    "vec0:transport=vxlan,src=10.0.0.1,dst=10.0.0.2,vni=16777216",
    "vec0:transport=geneve,src=10.0.0.1,dst=10.0.0.2,vni=1,tos=256",
];

/// Lines that need a right; what is said to somebody who has none.
const RIGHTS: &[&str] = &[
    "vec0:transport=tap",
    "vec0:transport=tap,ifname=tap4",
    "vec0:transport=hybrid,ifname=tap4",
    "vec0:transport=raw,ifname=lo",
    "vec0:transport=gre,src=127.0.0.1,dst=127.0.0.2",
    "vec0:transport=l2tpv3,src=127.0.0.1,dst=127.0.0.2",
    "vec0:transport=l2tpv3,udp=1,src=127.0.0.1,dst=127.0.0.2,srcport=170,dstport=1701",
    "vec0:transport=vxlan,src=127.0.0.1,dst=127.0.0.2,vni=1,localport=478",
];
/// Set in the process that has no rights.
const MARK: &str = "KIBBLE_WITHOUT_RIGHTS";
/// What its lines begin with.
const ANSWER: &str = "told: ";

fn told(line: &str) -> String {
    let cfg = match VectorConfig::parse(line) {
        Ok(c) => c,
        Err(e) => return e,
    };
    match Vector::new(&cfg) {
        Ok(_) => panic!("{line} was taken"),
        Err(e) => e,
    }
}

fn row(out: &mut String, line: &str, e: &str) {
    assert!(!e.contains('\n') && e.starts_with("vec"), "{line}: {e}");
    let _ = writeln!(out, "| `{line}` | {} |", e.replace('|', "\\|"));
}

/// The table of this process without rights, made by another one; `None`, with the reason printed, where that cannot be.
fn without_rights() -> Option<String> {
    let set = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"];
    let works = |flag: &&str| {
        Command::new("unshare").arg(flag).args(set).arg("true").output().is_ok_and(|o| o.status.success())
    };
    let Some(flag) = ["-n", "-rn"].into_iter().find(works) else {
        println!("skipped: lines without rights: no network namespaces for us, or no setpriv");
        return None;
    };
    if !Path::new("/dev/net/tun").exists() {
        println!("skipped: lines without rights: this host has no /dev/net/tun");
        return None;
    }
    let out = Command::new("unshare")
        .arg(flag)
        .args(set)
        .arg(std::env::current_exe().expect("own path"))
        .args(["the_table_is_what_users_see", "--exact", "--nocapture"])
        .env(MARK, "1")
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let answers: Vec<&str> = text.lines().filter_map(|l| Some(l.split_once(ANSWER)?.1)).collect();
    assert_eq!(answers.len(), RIGHTS.len(), "{text}");
    let mut table = String::new();
    for (line, e) in RIGHTS.iter().zip(answers) {
        assert!(e.contains("CAP_"), "{line}: no capability is named: {e}");
        row(&mut table, line, e);
    }
    Some(table)
}

const HEAD: &str = "| Line | Message |\n|---|---|\n";

#[test]
fn the_table_is_what_users_see() {
    if std::env::var_os(MARK).is_some() {
        RIGHTS.iter().for_each(|line| println!("\n{ANSWER}{}", told(line)));
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vec-errors.md");
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let mut out = format!(
        "# Wrong `vecN:` lines\n\nWhat vmlinux says before it exits with status 1, after `vmlinux: ` and the line itself. \
         Written by a test: `KIBBLE_WRITE_DOCS=1 cargo test -p drivers --test vec_errors`.\n\n{HEAD}"
    );
    for line in LINES {
        row(&mut out, line, &told(line));
    }
    let title = format!("\n## Without the right\n\nWhat a user without capabilities is told.\n\n{HEAD}");
    let old = || there.split_once(&title).map(|t| t.1.to_owned());
    out += &title;
    out += &without_rights().or_else(old).unwrap_or_default();
    if std::env::var_os("KIBBLE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &out).expect("written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    for (a, b) in there.lines().zip(out.lines()) {
        assert_eq!(a, b, "docs/vec-errors.md is not what is said today");
    }
    assert_eq!(there.lines().count(), out.lines().count(), "docs/vec-errors.md has other lines");
}
