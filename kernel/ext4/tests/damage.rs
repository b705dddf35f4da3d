//! Damaged images: an error or data, never a panic, a hang or memory without bound. The fuzz body is an ordinary
//! function over bytes, run here with random ones; `EXT4_FUZZ_ROUNDS` and `EXT4_FUZZ_SEED` make more of them.

mod common;

use common::{RamDisk, Rng, TempDir, block_on, debugfs, mkfs, run_codes, tool};
use ext4::{DirEntry, Ext4, FileType, MountOptions};
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One image may take so long at most, in a debug build on a busy machine.
const BOUND: Duration = Duration::from_secs(5);

/// How often an image may send a walk to new directories and how much of a file is read.
const MAX_FILES: usize = 2000;
const MAX_READ: u64 = 1 << 20;

/// Mounts whatever `image` is and touches everything in it. Returns how many errors it met.
async fn fuzz_body(image: Vec<u8>) -> usize {
    let opts = MountOptions { block_cache_bytes: 1 << 20, inode_cache: 64, noload: false };
    let Ok(fs) = Ext4::mount(RamDisk::new(image), opts).await else { return 1 };
    let mut errors = 0;
    let mut note = |failed: bool| errors += usize::from(failed);
    let mut seen = HashSet::new();
    let mut todo = vec![fs.root_ino()];
    fs.statfs();
    while let Some(ino) = todo.pop() {
        if !seen.insert(ino) || seen.len() > MAX_FILES {
            continue;
        }
        let Ok(inode) = fs.inode(ino).await else {
            note(true);
            continue;
        };
        for name in fs.listxattr(&inode).await.inspect_err(|_| note(true)).unwrap_or_default() {
            note(fs.getxattr(&inode, &name).await.is_err());
        }
        match inode.file_type() {
            FileType::Directory => {
                let mut names: Vec<(Vec<u8>, u32)> = Vec::new();
                let mut emit = |e: DirEntry<'_>| {
                    names.push((e.name.to_vec(), e.ino));
                    names.len() < MAX_FILES
                };
                note(fs.readdir(&inode, 0, &mut emit).await.is_err());
                note(fs.lookup(&inode, b"not there").await.is_err());
                for (name, ino) in names.iter().step_by(names.len() / 100 + 1) {
                    note(fs.lookup(&inode, name).await.is_err());
                    todo.push(*ino);
                }
            }
            FileType::Regular => {
                let size = inode.size();
                for at in [0, size / 2, size.saturating_sub(MAX_READ)] {
                    note(fs.read(&inode, at, MAX_READ as usize).await.is_err());
                }
                for at in [0, 1, 1 << 10, 1 << 20, (1 << 32) - 1, u64::MAX] {
                    note(fs.map(&inode, at, u64::MAX).await.is_err());
                }
            }
            FileType::Symlink => note(fs.readlink(&inode).await.is_err()),
            _ => note(fs.readlink(&inode).await.is_ok()),
        }
    }
    errors
}

/// Ends the process, naming the image, if one takes too long: a hang cannot be interrupted otherwise.
struct Watchdog(Arc<AtomicU64>, Arc<AtomicBool>);

impl Watchdog {
    fn new() -> Self {
        let (at, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (a, d) = (at.clone(), done.clone());
        std::thread::spawn(move || {
            let (mut last, mut since) = (0, Instant::now());
            while !d.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                let now = a.load(Ordering::Relaxed);
                if now != last {
                    (last, since) = (now, Instant::now());
                } else if since.elapsed() > BOUND * 4 {
                    eprintln!("image {now} hangs");
                    std::process::abort();
                }
            }
        });
        Self(at, done)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

fn base_images(dir: &TempDir) -> Option<Vec<Vec<u8>>> {
    let e2fsck = tool("e2fsck")?;
    let tree = dir.join("tree");
    let many = tree.join("many");
    std::fs::create_dir_all(&many).expect("directory");
    for i in 0..150 {
        std::fs::write(many.join(format!("a rather long name to fill the blocks {i}")), [7; 50])
            .expect("file");
    }
    std::fs::write(tree.join("file"), vec![1; 300_000]).expect("file");
    std::os::unix::fs::symlink("t".repeat(500), tree.join("link")).expect("link");
    std::fs::write(dir.join("long"), vec![b'v'; 300]).expect("file");
    let fill: String = (0..300).map(|i| format!("setb {}\n", 1500 + i * 2)).collect();
    let cmds = format!(
        "{fill}ea_set file user.a one\nea_set -f {} file user.long\nwrite {} frag\n",
        dir.join("long").display(),
        tree.join("file").display()
    );
    let journal =
        format!("jo -c -v 3\njw -b 40,41,42 {0}\njw -r 41\njw -b 43 {0}\njc\n", tree.join("file").display());
    let sets: [&[&str]; 5] = [
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum"],
        &["-t", "ext2", "-b", "1024"],
        &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,inline_data"],
        &["-t", "ext3", "-b", "1024"],
    ];
    let mut images = Vec::new();
    for args in sets {
        let image = mkfs(dir, Some(&tree), "4M", args, &cmds)?;
        run_codes(Command::new(&e2fsck).args(["-fyD"]).arg(&image), "", &[0, 1]);
        images.push(std::fs::read(&image).expect("image"));
        if args.contains(&"ext3") || args.len() == 4 && args.contains(&"ext4") {
            debugfs(&image, &journal.replace("-c -v 3", if args.contains(&"ext3") { "" } else { "-c -v 3" }));
            images.push(std::fs::read(&image).expect("image"));
        }
    }
    Some(images)
}

/// Blocks that hold more than file content: those that are not all zeros or all alike.
fn metadata_blocks(image: &[u8]) -> Vec<usize> {
    let interesting = |b: &[u8]| b.windows(2).any(|w| w[0] != w[1]);
    image.chunks(1024).enumerate().filter(|(_, b)| interesting(b)).map(|(i, _)| i * 1024).collect()
}

#[test]
fn two_hundred_damaged_images_and_more() {
    let dir = TempDir::new();
    let Some(images) = base_images(&dir) else { return };
    let dog = Watchdog::new();
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let (mut met, mut slowest) = (0, Duration::ZERO);
    let targets: Vec<_> = images.iter().map(|i| metadata_blocks(i)).collect();
    let env = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let rounds = env("EXT4_FUZZ_ROUNDS").unwrap_or(600);
    rng.0 ^= env("EXT4_FUZZ_SEED").unwrap_or(0);
    for round in 0..rounds {
        dog.0.store(round, Ordering::Relaxed);
        let nr = (round % images.len() as u64) as usize;
        let mut image = images[nr].clone();
        let blocks = &targets[nr];
        for _ in 0..1 + rng.below(40) {
            let block = blocks[rng.below(blocks.len() as u64) as usize];
            let at = block + rng.below(1024) as usize;
            match rng.below(4) {
                0 => image[at] ^= 1 << rng.below(8),
                1 => image[at] = rng.next() as u8,
                2 => image[at & !3..(at & !3) + 4].fill(0xff),
                // Structures that look right in the wrong place.
                _ => {
                    let from = blocks[rng.below(blocks.len() as u64) as usize];
                    image.copy_within(from..from + 1024, block);
                }
            }
        }
        let start = Instant::now();
        met += usize::from(block_on(fuzz_body(image)) > 0);
        let took = start.elapsed();
        assert!(took < BOUND, "image {round} took {took:?}");
        slowest = slowest.max(took);
    }
    eprintln!("{met} of {rounds} damaged images gave errors, the slowest took {slowest:?}");
    assert!(met as u64 > rounds / 4, "damage was hardly noticed: {met} of {rounds}");
}

/// Damage that checksums would hide, each placed by hand where a loop could be endless.
#[test]
fn fields_at_their_extremes() {
    let dir = TempDir::new();
    let tree = dir.join("tree");
    std::fs::create_dir_all(tree.join("d")).expect("directory");
    std::fs::write(tree.join("f"), vec![1; 100_000]).expect("file");
    let (huge, dog) = ("0xffffffffffffffff", Watchdog::new());
    let cases = [
        format!("sif d size {huge}\n"),
        "sif d size 0x7fffffff\n".to_owned(),
        "sif f size 0x7fffffffffffffff\n".to_owned(),
        format!("sif f size {huge}\n"),
        "sif f block[0] 0x0\n".to_owned(),
        "sif d flags 0x81000\n".to_owned(),
        "sif d flags 0\n".to_owned(),
        "sif f flags 0x10080000\n".to_owned(),
        "sif f mode 0120777\n".to_owned(),
        "sif f mode 040755\n".to_owned(),
        "sif d mode 0100644\n".to_owned(),
        "sif <2> mode 0100644\n".to_owned(),
        "sif f file_acl 0xffffffff\n".to_owned(),
        "sif f file_acl 1\n".to_owned(),
        "sif f extra_isize 3\n".to_owned(),
        "sif f extra_isize 65535\n".to_owned(),
        "ssv first_ino 0xffffffff\n".to_owned(),
        "ssv inodes_per_group 0\n".to_owned(),
        "ssv blocks_per_group 0\n".to_owned(),
        "ssv desc_size 0\n".to_owned(),
        "ssv desc_size 0xffff\n".to_owned(),
        "ssv log_block_size 0xffffffff\n".to_owned(),
        "ssv inode_size 0\n".to_owned(),
        "ssv blocks_count 0xffffffffffff\n".to_owned(),
        "ssv first_data_block 0xffffffff\n".to_owned(),
        "ssv journal_inum 0xffffffff\nfeature needs_recovery\n".to_owned(),
        "ssv journal_inum 2\nfeature needs_recovery\n".to_owned(),
    ];
    for (i, case) in cases.iter().enumerate() {
        dog.0.store(i as u64, Ordering::Relaxed);
        for args in [&["-t", "ext4"][..], &["-t", "ext2"]] {
            let Some(image) = mkfs(&dir, Some(Path::new(&tree)), "4M", args, case) else { return };
            let start = Instant::now();
            block_on(fuzz_body(std::fs::read(&image).expect("image")));
            assert!(start.elapsed() < BOUND, "{case} took {:?}", start.elapsed());
        }
    }
}
