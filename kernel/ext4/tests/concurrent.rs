//! Many threads on one mount with caches far too small, and the promise that all futures may move between threads.

mod common;

use common::{RamDisk, TempDir, block_on, list, mkfs, walk};
use ext4::{Ext4, MountOptions};

fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn threads_see_the_same_tree() {
    let dir = TempDir::new();
    let tree = dir.join("tree");
    for d in 0..20 {
        let sub = tree.join(format!("d{d}"));
        std::fs::create_dir_all(&sub).expect("directory");
        for f in 0..40 {
            std::fs::write(sub.join(format!("f{f}")), vec![d; f * 100]).expect("file");
        }
    }
    let Some(image) = mkfs(&dir, Some(&tree), "16M", &["-t", "ext4", "-b", "1024"], "") else { return };
    let opts = MountOptions { block_cache_bytes: 16 << 10, inode_cache: 8, noload: false };
    let disk = RamDisk::new(std::fs::read(&image).expect("image"));
    let fs = block_on(is_send(Ext4::mount(disk, opts))).expect("mounts");
    let want = block_on(walk(&fs)).expect("readable");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3 {
                    assert!(block_on(walk(&fs)).expect("readable") == want, "a thread saw something else");
                }
            });
        }
    });
    let (blocks, inodes) = fs.cached();
    assert!(blocks < 16 * 8 * 2 + 64 && inodes < 200, "caches grew to {blocks} blocks, {inodes} inodes");
}

#[test]
fn futures_are_send_and_inodes_unique() {
    let dir = TempDir::new();
    let Some(image) = mkfs(&dir, None, "8M", &["-t", "ext4"], "") else { return };
    let disk = RamDisk::new(std::fs::read(&image).expect("image"));
    let fs = block_on(Ext4::mount(disk, MountOptions::default())).expect("mounts");
    let root = block_on(is_send(fs.inode(fs.root_ino()))).expect("root");
    block_on(is_send(fs.lookup(&root, b"x"))).expect("readable");
    block_on(is_send(fs.readdir(&root, 0, &mut |_| true))).expect("readable");
    block_on(is_send(fs.map(&root, 0, 1))).expect("readable");
    block_on(is_send(fs.listxattr(&root))).expect("readable");
    let _ = block_on(is_send(fs.getxattr(&root, b"user.x")));
    let _ = block_on(is_send(fs.readlink(&root)));
    let _ = block_on(is_send(fs.read(&root, 0, 10)));
    let again = block_on(fs.inode(fs.root_ino())).expect("root");
    assert!(std::sync::Arc::ptr_eq(&root, &again), "one inode in memory for one number");
    // Cookies survive being made up.
    for pos in [1, 11, 13, 4095, 4096, u64::MAX] {
        block_on(fs.readdir(&root, pos, &mut |_| true)).expect("no entry is torn");
    }
    assert_eq!(block_on(list(&fs, &root, 1)).expect("list").len(), 3);
}
