//! Directories of 20 000 entries with an index, in all hashes, looked up in few reads.

mod common;

use common::{RamDisk, TempDir, block_on, debugfs, list, mkfs, run, run_codes, tool};
use ext4::{Ext4, MountOptions};
use std::process::Command;
use std::sync::atomic::Ordering;

const ENTRIES: usize = 20_000;

fn name(i: usize) -> String {
    format!("file-number-{i:06}-\u{e9}-{}", "x".repeat(i % 19))
}

/// The blocks of a linear directory, made here because mke2fs needs half a minute for one: all entries are hard links
/// to inode `target`. e2fsck repairs the counts and builds the index.
fn linear_dir(block_size: usize, target: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block: Vec<u8> = Vec::new();
    let mut last = 0;
    let close = |block: &mut Vec<u8>, last: usize, out: &mut Vec<u8>| {
        // The last entry reaches to the checksum's entry.
        let len = u16::try_from(block_size - 12 - last).expect("small");
        block[last + 4..last + 6].copy_from_slice(&len.to_le_bytes());
        block.resize(block_size - 12, 0);
        block.extend([0, 0, 0, 0, 12, 0, 0, 0xde, 0, 0, 0, 0]);
        out.append(block);
    };
    let names = [".".to_owned(), "..".to_owned()].into_iter().chain((0..ENTRIES).map(name));
    for (i, name) in names.enumerate() {
        let len = (8 + name.len()).next_multiple_of(4);
        if block.len() + len > block_size - 12 {
            close(&mut block, last, &mut out);
        }
        last = block.len();
        let (ino, ft) = if i < 2 { (2, 2) } else { (target, 1) };
        block.extend(u32::to_le_bytes(ino));
        block.extend(u16::try_from(len).expect("small").to_le_bytes());
        block.extend([u8::try_from(name.len()).expect("short"), ft]);
        block.extend(name.as_bytes());
        block.resize(last + len, 0);
    }
    close(&mut block, last, &mut out);
    out
}

#[test]
fn big_directories() {
    let (Some(e2fsck), Some(tune2fs)) = (tool("e2fsck"), tool("tune2fs")) else { return };
    let dir = TempDir::new();
    let tree = dir.join("tree");
    std::fs::create_dir(&tree).expect("directory");
    std::fs::write(tree.join("target"), b"target\n").expect("file");
    for (alg, unsigned, block_size) in [
        ("legacy", false, 4096),
        ("half_md4", false, 1024),
        ("tea", false, 4096),
        ("half_md4", true, 4096),
        ("legacy", true, 1024),
        ("tea", true, 1024),
    ] {
        let what = format!("{alg} unsigned={unsigned} {block_size}");
        std::fs::write(tree.join("bigdir"), linear_dir(block_size, 12)).expect("file");
        let bs = block_size.to_string();
        let Some(image) = mkfs(&dir, Some(&tree), "32M", &["-t", "ext4", "-b", &bs], "") else { return };
        run(Command::new(&tune2fs).arg("-E").arg(format!("hash_alg={alg}")).arg(&image), "");
        let flags = if unsigned { 2 } else { 1 };
        let ls = debugfs(&image, "ls -l\n").expect("found before");
        let ino = |n: &str| {
            let line = ls.lines().find(|l| l.ends_with(n)).unwrap_or_else(|| panic!("{n} in {ls}"));
            line.split_whitespace().next().expect("number").to_owned()
        };
        let target: u32 = ino("target").parse().expect("number");
        if target != 12 {
            // The order of the tree's entries is the host's.
            std::fs::write(tree.join("bigdir"), linear_dir(block_size, target)).expect("file");
            mkfs(&dir, Some(&tree), "32M", &["-t", "ext4", "-b", &bs], "");
            run(Command::new(&tune2fs).arg("-E").arg(format!("hash_alg={alg}")).arg(&image), "");
        }
        let cmds = format!("ssv flags {flags}\nsif bigdir mode 040755\n");
        debugfs(&image, &cmds);
        run_codes(Command::new(&e2fsck).args(["-fyD"]).arg(&image), "", &[0, 1]);
        let dump = debugfs(&image, "htree_dump bigdir\n").expect("found before");
        assert!(dump.contains("Hash Version"), "{what}: not indexed: {dump}");
        if block_size == 1024 {
            assert!(dump.contains("Indirect levels: 1"), "{what}: no second level");
        }

        let disk = RamDisk::new(std::fs::read(&image).expect("image"));
        let fs = block_on(Ext4::mount(disk.clone(), MountOptions::default())).expect("mounts");
        block_on(async {
            let root = fs.inode(fs.root_ino()).await.expect("root");
            let ino = fs.lookup(&root, b"bigdir").await.expect("readable").expect("there");
            let big = fs.inode(ino).await.expect("directory");
            let before = disk.reads.load(Ordering::Relaxed);
            assert_eq!(fs.lookup(&big, name(777).as_bytes()).await, Ok(Some(target)), "{what}");
            let reads = disk.reads.load(Ordering::Relaxed) - before;
            assert!(reads <= 5, "{what}: {reads} reads for one name: the index is not used");
            for i in 0..ENTRIES {
                assert_eq!(fs.lookup(&big, name(i).as_bytes()).await, Ok(Some(target)), "{what}: {i}");
                if i % 10 == 0 {
                    assert_eq!(fs.lookup(&big, format!("no {i}").as_bytes()).await, Ok(None), "{what}");
                }
            }
            assert_eq!(fs.lookup(&big, b".").await, Ok(Some(ino)));
            assert_eq!(fs.lookup(&big, b"..").await, Ok(Some(2)));
            let mut names: Vec<_> =
                list(&fs, &big, 321).await.expect("list").into_iter().map(|e| e.0).collect();
            names.sort();
            let mut want: Vec<_> = (0..ENTRIES).map(|i| name(i).into_bytes()).collect();
            want.extend([b".".to_vec(), b"..".to_vec()]);
            want.sort();
            assert!(names == want, "{what}: {} names listed", names.len());
        });
    }
}
