//! Journals that need recovery: what we show must be what e2fsck shows after replaying a copy.

mod common;

use common::{TempDir, block_on, debugfs, mkfs, mount, run, run_codes, tool, try_mount, walk};
use ext4::MountError;
use std::path::Path;
use std::process::Command;

/// Writes the blocks in which `to` differs from `from` to a file; returns their numbers as debugfs takes them.
fn difference(from: &Path, to: &Path, block_size: usize, file: &Path) -> String {
    let (a, b) = (std::fs::read(from).expect("image"), std::fs::read(to).expect("image"));
    let mut numbers = Vec::new();
    let mut blocks = Vec::new();
    for (i, (x, y)) in a.chunks(block_size).zip(b.chunks(block_size)).enumerate() {
        if x != y {
            numbers.push(i.to_string());
            blocks.extend_from_slice(y);
        }
    }
    std::fs::write(file, blocks).expect("blocks");
    numbers.join(",")
}

fn replay(image: &Path, copy: &Path) {
    std::fs::copy(image, copy).expect("copy");
    let e2fsck = tool("e2fsck").expect("checked before");
    run_codes(Command::new(e2fsck).args(["-fy", "-E", "journal_only"]).arg(copy), "", &[0, 1]);
}

#[test]
fn written_by_debugfs() {
    if tool("debugfs").is_none() || tool("e2fsck").is_none() {
        return;
    }
    let dir = TempDir::new();
    let tree = dir.join("tree");
    std::fs::create_dir_all(tree.join("d")).expect("directory");
    std::fs::write(tree.join("old"), vec![7; 9000]).expect("file");
    // Content that looks like a journal block must be escaped in the log.
    let escaped = dir.join("escaped");
    let mut magic = vec![0xc0, 0x3b, 0x39, 0x98];
    magic.resize(20_000, 0x11);
    std::fs::write(&escaped, magic).expect("file");
    let escaped = escaped.display();
    let sets: &[(&[&str], usize, &str)] = &[
        (&["-t", "ext4"], 4096, ""),
        (&["-t", "ext4"], 4096, "-c -v 3"),
        (&["-t", "ext4"], 4096, "-c -v 2"),
        (&["-t", "ext4", "-b", "1024"], 1024, "-c -v 3"),
        (&["-t", "ext4", "-O", "^64bit"], 4096, "-c -v 2"),
        (&["-t", "ext4", "-O", "^64bit,^metadata_csum"], 4096, ""),
        (&["-t", "ext3"], 4096, ""),
    ];
    for (args, block_size, open) in sets {
        let what = format!("{args:?} jo {open}");
        let Some(image) = mkfs(&dir, Some(&tree), "16M", args, "") else { return };
        let step = |name: &str| dir.join(name);
        std::fs::copy(&image, step("one")).expect("copy");
        debugfs(&step("one"), &format!("mkdir new\nwrite {escaped} new/escaped\nsymlink new/link target\n"));
        std::fs::copy(step("one"), step("two")).expect("copy");
        debugfs(&step("two"), "rm old\nmkdir new/sub\nsif new/escaped uid 70000\n");
        let first = difference(&image, &step("one"), *block_size, &step("one.blocks"));
        let second = difference(&step("one"), &step("two"), *block_size, &step("two.blocks"));
        // A block of the old file gets garbage that a revoke takes back; the last transaction is not committed.
        let garbage = debugfs(&image, "blocks old\n").expect("checked before");
        let garbage = garbage.split_whitespace().rev().find(|w| w.parse::<u64>().is_ok()).expect("a block");
        let junk = step("junk");
        std::fs::write(&junk, vec![0xee; 3 * block_size]).expect("file");
        let (one, two, junk) = (step("one.blocks"), step("two.blocks"), junk);
        let cmds = format!(
            "jo {open}\njw -b {garbage} {}\njw -b {first} {}\njw -r {garbage}\njw -b {second} {}\njw -b 3,4,5 -c {}\njc\n",
            junk.display(),
            one.display(),
            two.display(),
            junk.display()
        );
        let said = debugfs(&image, &cmds).expect("checked before");
        replay(&image, &step("replayed"));

        let fs = mount(std::fs::read(&image).expect("image"));
        assert!(fs.journal_overlay_len() > 3, "{what}: nothing was recovered: {said}");
        let ours = block_on(walk(&fs)).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        let theirs = block_on(walk(&mount(std::fs::read(step("replayed")).expect("image")))).expect("reads");
        let meant = block_on(walk(&mount(std::fs::read(step("two")).expect("image")))).expect("reads");
        assert!(ours == theirs, "{what}: differs from what e2fsck replayed: {ours:?} and {theirs:?}");
        for (path, node) in &meant {
            assert!(ours.get(path) == Some(node), "{what}: {path:?} is not what was written");
        }
        assert_eq!(ours[Path::new("/new/escaped")].data.len(), 20_000, "{what}");

        // Damage in the log's content is seen where there are checksums.
        if open.contains("-c") {
            let mut bytes = std::fs::read(&image).expect("image");
            let needle = std::fs::read(&two).expect("blocks");
            let needle = needle.get(needle.len() - block_size..).expect("one block");
            let mut hits = 0;
            for chunk in bytes.chunks_mut(*block_size).filter(|c| *c == needle) {
                chunk[100] ^= 1;
                hits += 1;
            }
            assert!(hits > 0, "{what}: content not found in the log");
            assert!(matches!(try_mount(bytes), Err(MountError::Checksum(_))), "{what}: damage not seen");
        }
    }
}

/// Unmounts when it goes.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn mount(dir: &TempDir, image: &Path, opts: &str) -> Option<Self> {
        let mnt = dir.join("mnt");
        let _ = std::fs::create_dir(&mnt);
        let done = Command::new("mount").args(["-t", "ext4", "-o", opts]).arg(image).arg(&mnt).output();
        if !done.is_ok_and(|o| o.status.success()) {
            eprintln!("skipped: this host does not let us mount an image with -o {opts}");
            return None;
        }
        Some(Self(mnt))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Another test's child may hold our files open between its fork and its exec.
        for _ in 0..50 {
            if Command::new("umount").arg(&self.0).output().is_ok_and(|o| o.status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Where the host lets us mount: images copied off a live mount of the host's own ext4 in the middle of work.
#[test]
fn copied_off_a_live_mount() {
    if tool("e2fsck").is_none() {
        return;
    }
    let sets: &[(&[&str], &str)] = &[
        (&["-t", "ext4"], "loop"),
        (&["-t", "ext4", "-b", "1024", "-O", "orphan_file", "-J", "size=1"], "loop"),
        (&["-t", "ext4", "-O", "^metadata_csum"], "loop,journal_checksum"),
        (&["-t", "ext4", "-O", "inline_data"], "loop,data=journal"),
        (&["-t", "ext4", "-O", "^extent,^64bit", "-b", "1024"], "loop,data=journal,journal_async_commit"),
    ];
    for (args, opts) in sets {
        let what = format!("{args:?} -o {opts}");
        let dir = TempDir::new();
        let Some(image) = mkfs(&dir, None, "32M", args, "") else { return };
        let Some(mounted) = Mounted::mount(&dir, &image, opts) else { continue };
        let mnt = mounted.0.clone();
        let mut open = Vec::new();
        for i in 0..300usize {
            let path = mnt.join(format!("d{}", i % 10));
            let _ = std::fs::create_dir(&path);
            let mut data = vec![0xc0, 0x3b, 0x39, 0x98];
            data.resize(i * 37, i as u8);
            let path = path.join(format!("file {i}"));
            std::fs::write(&path, data).expect("written");
            if i % 3 == 0 {
                std::os::unix::fs::symlink("s".repeat(i + 1), mnt.join(format!("l{i}"))).expect("link");
            }
            if i % 7 == 0 {
                // An orphan: open and unlinked.
                open.push(std::fs::File::open(&path).expect("open"));
                std::fs::remove_file(&path).expect("removed");
            }
            if i % 7 == 6 {
                open.push(std::fs::File::open(&mnt).expect("open"));
                open.last().expect("just pushed").sync_all().expect("synced");
                run(Command::new("sync").arg("-f").arg(&mnt), "");
            }
        }
        // Large enough for an index made by the host.
        std::fs::create_dir(mnt.join("many")).expect("directory");
        for i in 0..1500 {
            std::fs::write(mnt.join("many").join(format!("entry number {i}")), b"").expect("written");
        }
        std::fs::create_dir(mnt.join("after")).expect("directory");
        std::fs::File::open(mnt.join("after")).and_then(|f| f.sync_all()).expect("synced");
        let (snapshot, copy) = (dir.join("snapshot"), dir.join("copy"));
        std::fs::copy(&image, &snapshot).expect("copy");
        drop(open);
        drop(mounted);
        replay(&snapshot, &copy);
        let fs = mount(std::fs::read(&snapshot).expect("image"));
        assert!(fs.journal_overlay_len() > 0, "{what}: nothing to recover");
        let ours = block_on(walk(&fs)).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        let theirs = block_on(walk(&mount(std::fs::read(&copy).expect("image")))).expect("reads");
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{what}");
        for (path, node) in &ours {
            assert!(*node == theirs[path], "{what}: {path:?} differs: {node:?} and {:?}", theirs[path]);
        }
        assert!(ours.contains_key(Path::new("/after")), "{what}: the last fsync is missing");
    }
}

/// Fast commits are refused where they would matter, not for the feature alone.
#[test]
fn fast_commits() {
    let dir = TempDir::new();
    let args = ["-t", "ext4", "-O", "fast_commit", "-J", "size=8"];
    let Some(image) = mkfs(&dir, None, "32M", &args, "") else { return };
    mount(std::fs::read(&image).expect("image"));
    let Some(mounted) = Mounted::mount(&dir, &image, "loop") else { return };
    std::fs::create_dir(mounted.0.join("full")).expect("directory");
    run(Command::new("sync").arg("-f").arg(&mounted.0), "");
    for i in 0..5 {
        let file = std::fs::File::create(mounted.0.join(format!("fast{i}"))).expect("file");
        file.sync_all().expect("synced");
    }
    let snapshot = std::fs::read(&image).expect("image");
    drop(mounted);
    let e = try_mount(snapshot).err();
    assert!(matches!(&e, Some(MountError::Unsupported(s)) if s.starts_with("fast_commit")), "{e:?}");
    // After a clean unmount there is nothing left in the journal.
    let fs = mount(std::fs::read(&image).expect("image"));
    assert_eq!(block_on(walk(&fs)).expect("readable").len(), 8);
}
