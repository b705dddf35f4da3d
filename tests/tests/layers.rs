//! Dependencies run one way: `cargo metadata` against the table of allowed edges. Dev-dependencies are excepted.

use std::collections::BTreeMap;
use tests::workspace::crates;

/// Crate, our crates that it may use, other crates that it may use. `log` and `bitflags` are allowed everywhere.
const TABLE: [(&str, &str, &str); 17] = [
    ("uapi", "", "linux-raw-sys num_enum"),
    ("klib", "uapi", "parking_lot crossbeam async-lock event-listener intrusive-collections rangemap"),
    ("device", "klib uapi", ""),
    ("ext4", "klib", "zerocopy crc32c parking_lot"),
    ("net", "klib uapi", "smoltcp zerocopy siphasher netlink-packet-core netlink-packet-route parking_lot"),
    ("arch", "klib uapi", "libc rustix io-uring slab seccompiler caps parking_lot"),
    ("executor", "arch klib", "async-task crossbeam parking_lot"),
    ("drivers", "executor arch device net klib uapi", "parking_lot"),
    ("kernel", "executor arch device net ext4 klib uapi", "object cpio parking_lot"),
    ("vmlinux", "drivers kernel executor arch device net ext4 klib uapi", "env_logger serde ron"),
    ("init", "uapi", "libc"),
    ("usertest", "uapi", "libc"),
    ("hostile", "uapi", "libc"),
    ("nettool", "uapi", "libc"),
    ("microbench", "uapi", "libc"),
    ("tests", "", "serde ron anyhow"),
    ("xtask", "tests", "anyhow serde ron clap"),
];

#[test]
fn every_edge_is_in_the_table() {
    let table: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = TABLE
        .iter()
        .map(|(n, a, b)| (*n, (a.split_whitespace().collect(), b.split_whitespace().collect())))
        .collect();
    let all = crates().expect("cargo metadata");
    let ours: Vec<_> = all.iter().filter(|c| c.source.is_empty()).collect();
    assert!(ours.len() >= 10, "cargo metadata names too few crates of ours");
    let mut wrong = Vec::new();
    for c in &ours {
        let Some((own, other)) = table.get(c.name.as_str()) else {
            wrong.push(format!("{}: this crate is not in the table", c.name));
            continue;
        };
        for d in &c.deps {
            let allowed = if ours.iter().any(|o| o.name == *d) { own } else { other };
            if d != "log" && d != "bitflags" && !allowed.contains(&d.as_str()) {
                wrong.push(format!("{} -> {d}", c.name));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the table does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn licences_can_be_combined_with_ours() {
    const GOOD: [&str; 8] =
        ["MIT", "Apache-2.0", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "Unicode-3.0", "Zlib", "Unlicense"];
    let mut wrong = Vec::new();
    for c in crates().expect("cargo metadata") {
        // An expression is fine if one side of its ORs is; every part of an AND must be. `/` is an old way to say OR.
        let text = c.license.replace('/', " OR ").replace(['(', ')'], " ");
        let fine = text.split(" AND ").all(|part| {
            part.split(" OR ").any(|l| GOOD.contains(&l.trim().trim_end_matches(" WITH LLVM-exception")))
        });
        if !fine {
            wrong.push(format!("{}: {:?}", c.name, c.license));
        }
        if !c.source.is_empty()
            && !c.source.starts_with("registry+https://github.com/rust-lang/crates.io-index")
        {
            wrong.push(format!("{}: comes from {}", c.name, c.source));
        }
    }
    assert!(wrong.is_empty(), "licences or sources that are not allowed:\n{}", wrong.join("\n"));
}
