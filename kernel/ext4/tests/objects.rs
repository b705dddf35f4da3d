//! What `mke2fs -d` does not make: devices, attributes, fragments, refusals; and a second reader's opinion.

mod common;

use common::{RamDisk, TempDir, block_on, mkfs, mount, node, run, run_codes, tool, try_mount, walk};
use ext4::{Ext4, ExtentState, FileType, MountError, MountOptions};
use klib::Errno;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

#[test]
fn devices_attributes_and_times() {
    let dir = TempDir::new();
    let tree = dir.join("tree");
    std::fs::create_dir(&tree).expect("directory");
    std::fs::write(tree.join("f"), b"data").expect("file");
    std::fs::write(tree.join("g"), b"data").expect("file");
    let long = "v".repeat(900);
    std::fs::write(dir.join("long"), &long).expect("file");
    // user::rw- user:1000:r-- group::r-- mask::r-- other::---, as user space knows it; debugfs stores ext4's form.
    let mut acl = vec![2u8, 0, 0, 0];
    for (tag, perm, id) in
        [(1u16, 6u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(perm.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    std::fs::write(dir.join("acl"), &acl).expect("file");
    let cmds = format!(
        "mknod c c 5 1\nmknod b b 259 700\nmknod p p\nsif c uid 100000\nsif c gid 65537\n\
         ea_set f user.short one\nea_set f security.capability two\nea_set f trusted.t three\n\
         ea_set -f {} f user.long\nea_set g user.g four\nea_set -f {} g system.posix_acl_access\n\
         sif f mtime @0x80000000\nsif f atime @1\nsif f crtime @77\nsif f generation 4711\n",
        dir.join("long").display(),
        dir.join("acl").display(),
    );
    for args in [&["-t", "ext4"][..], &["-t", "ext4", "-O", "^metadata_csum"], &["-t", "ext2", "-I", "128"]] {
        let Some(image) = mkfs(&dir, Some(&tree), "8M", args, &cmds) else { return };
        let fs = mount(std::fs::read(&image).expect("image"));
        let all = block_on(walk(&fs)).unwrap_or_else(|e| panic!("{args:?}: {e:?}"));
        let at = |p: &str| all.get(Path::new(p)).unwrap_or_else(|| panic!("{args:?}: no {p}"));
        assert_eq!((at("/c").rdev, at("/c").mode & 0o170_000), ((5, 1), 0o020_000), "{args:?}");
        assert_eq!((at("/c").uid, at("/c").gid), (100_000, 65537), "{args:?}");
        assert_eq!((at("/b").rdev, at("/b").mode & 0o170_000), ((259, 700), 0o060_000), "{args:?}");
        assert_eq!(at("/p").mode & 0o170_000, 0o010_000, "{args:?}");
        let x = |p: &str, name: &str| at(p).xattrs.get(name.as_bytes()).cloned().unwrap_or_default();
        assert_eq!(x("/f", "user.short"), b"one", "{args:?}");
        assert_eq!(x("/f", "security.capability"), b"two", "{args:?}");
        assert_eq!(x("/f", "trusted.t"), b"three", "{args:?}");
        assert_eq!(x("/f", "user.long"), long.as_bytes(), "{args:?}");
        assert_eq!(at("/f").xattrs.len(), 4, "{args:?}");
        assert_eq!(x("/g", "user.g"), b"four", "{args:?}");
        assert_eq!(at("/g").data, b"data");
        assert_eq!(x("/g", "system.posix_acl_access"), acl, "{args:?}");
        block_on(async {
            let f = fs.inode(at("/f").ino).await.expect("inode");
            let a = f.attr();
            assert_eq!(a.generation, 4711);
            assert_eq!(a.atime.sec, 1);
            if !args.contains(&"128") {
                assert_eq!(a.mtime.sec, 0x8000_0000);
                assert_eq!(a.crtime.expect("large inode").sec, 77);
            } else {
                assert_eq!(a.crtime, None);
            }
            assert_eq!(fs.getxattr(&f, b"user.none").await, Err(Errno::ENODATA));
            assert_eq!(fs.getxattr(&f, b"other.none").await, Err(Errno::EOPNOTSUPP));
            assert_eq!(fs.lookup(&f, b"x").await, Err(Errno::ENOTDIR));
            assert_eq!(fs.readlink(&f).await, Err(Errno::EINVAL));
            let root = fs.inode(2).await.expect("root");
            assert_eq!(fs.lookup(&root, &[b'n'; 256]).await, Err(Errno::ENAMETOOLONG));
            let c = fs.inode(at("/c").ino).await.expect("inode");
            assert_eq!(c.file_type(), FileType::CharDevice);
            assert_eq!(fs.map(&c, 0, 1).await, Err(Errno::EINVAL));
            assert_eq!(fs.inode(8).await.err(), Some(Errno::EUCLEAN), "the journal is nobody's file");
            assert_eq!(fs.inode(0).await.err(), Some(Errno::EUCLEAN));
            assert_eq!(fs.inode(u32::MAX).await.err(), Some(Errno::EUCLEAN));
        });
    }
}

#[test]
fn fragmented_files() {
    let dir = TempDir::new();
    let big: Vec<u8> = (0..2_000_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(dir.join("big"), &big).expect("file");
    let tree = dir.join("tree");
    std::fs::create_dir(&tree).expect("directory");
    // Every second block is taken, so that the big file gets what is between.
    let fill: Vec<String> = (0..9000).map(|i| (2000 + i * 2).to_string()).collect();
    let mut cmds: String = fill.iter().map(|b| format!("setb {b}\n")).collect();
    cmds += &format!("write {} big\n", dir.join("big").display());
    for args in [&["-t", "ext4", "-b", "1024"][..], &["-t", "ext2", "-b", "1024"]] {
        let Some(image) = mkfs(&dir, Some(&tree), "24M", args, &cmds) else { return };
        let fs = mount(std::fs::read(&image).expect("image"));
        block_on(async {
            let root = fs.inode(2).await.expect("root");
            let ino = fs.lookup(&root, b"big").await.expect("readable").expect("there");
            let inode = fs.inode(ino).await.expect("inode");
            let mut extents = 0u64;
            let mut at = 0;
            let end = inode.size().div_ceil(1024);
            while at < end {
                let e = fs.map(&inode, at, end - at).await.expect("mapped");
                assert!(e.logical == at && e.len > 0 && e.physical().is_some(), "{args:?}: {e:?}");
                at += e.len;
                extents += 1;
            }
            assert!(extents > 3000, "{args:?}: only {extents} extents");
            let tail = fs.map(&inode, end, 1000).await.expect("mapped");
            assert_eq!(tail.state, ExtentState::Hole, "{args:?}");
            assert_eq!(fs.map(&inode, u64::MAX, u64::MAX).await.expect("hole").state, ExtentState::Hole);
            assert_eq!(fs.map(&inode, 0, 0).await, Err(Errno::EINVAL));
            let n = node(&fs, ino).await.expect("readable");
            assert!(n.data == big, "{args:?}: content");
            assert!(fs.read(&inode, u64::MAX, 10).await.expect("nothing").is_empty());
        });
    }
}

#[test]
fn refusals_name_the_feature() {
    let dir = TempDir::new();
    for feature in ["encrypt", "casefold", "mmp", "ea_inode"] {
        let Some(image) = mkfs(&dir, None, "8M", &["-t", "ext4", "-O", feature], "") else { return };
        let e = try_mount(std::fs::read(&image).expect("image")).expect_err("unsupported");
        assert_eq!(e, MountError::Unsupported(feature.into()));
        assert_eq!(e.to_string(), format!("ext4: unsupported feature: {feature}"));
        assert_eq!(e.errno(), Errno::EINVAL);
    }
    let Some(image) = mkfs(&dir, None, "8M", &["-O", "journal_dev"], "") else { return };
    let e = try_mount(std::fs::read(&image).expect("image")).expect_err("not a file system");
    assert_eq!(e, MountError::Unsupported("journal_dev".into()));

    let Some(image) = mkfs(&dir, None, "8M", &["-t", "ext4", "-L", "a label"], "") else { return };
    let good = std::fs::read(&image).expect("image");
    let fs = mount(good.clone());
    assert_eq!((fs.label(), fs.fs_type(), fs.block_size()), (&b"a label"[..], "ext4", 4096));
    assert!(matches!(try_mount(good[..4 << 20].to_vec()), Err(MountError::DeviceTooSmall { .. })));
    assert_eq!(try_mount(vec![0; 100]).err(), Some(MountError::NotExt4));
    assert_eq!(try_mount(vec![0; 1 << 20]).err(), Some(MountError::NotExt4));
    let mut bad = good.clone();
    bad[1024 + 0x2c] ^= 1;
    assert_eq!(try_mount(bad).err(), Some(MountError::Checksum("superblock".into())));
    // A device that fails at any request is an error, and the next try is not poisoned by it.
    let disk = RamDisk::new(good);
    for n in 0..3 {
        disk.reads.store(0, Ordering::Relaxed);
        disk.fail_after.store(n, Ordering::Relaxed);
        let e = block_on(Ext4::mount(disk.clone(), MountOptions::default())).expect_err("cannot read");
        assert_eq!(e, MountError::Io(Errno::EIO));
    }
}

struct Reader(Vec<u8>);

impl ext4_view::Ext4Read for Reader {
    fn read(
        &mut self,
        start: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        let start = usize::try_from(start)?;
        dst.copy_from_slice(self.0.get(start..start + dst.len()).ok_or("behind the end")?);
        Ok(())
    }
}

/// The crate's own sources as a tree, indexed by e2fsck, seen by us and by ext4-view.
#[test]
fn as_ext4_view_sees_it() {
    let Some(e2fsck) = tool("e2fsck") else { return };
    let dir = TempDir::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for args in [&["-t", "ext4"][..], &["-t", "ext4", "-b", "1024"], &["-t", "ext3"]] {
        let cmds = "symlink sl /src/lib.rs\nmknod dev c 1 3\nsif Cargo.toml uid 123456\n";
        let Some(image) = mkfs(&dir, Some(root), "16M", args, cmds) else { return };
        run_codes(Command::new(&e2fsck).args(["-fyD"]).arg(&image), "", &[0, 1]);
        let bytes = std::fs::read(&image).expect("image");
        let ours = block_on(walk(&mount(bytes.clone()))).expect("readable");
        let view = ext4_view::Ext4::load(Box::new(Reader(bytes))).expect("loads");
        let mut seen = 0;
        for (path, node) in &ours {
            let p = path.to_str().expect("our names");
            let meta = view.symlink_metadata(p).unwrap_or_else(|e| panic!("{p}: {e}"));
            assert_eq!(meta.mode(), node.mode & 0o7777, "{p}");
            assert_eq!((meta.uid(), meta.gid(), meta.len()), (node.uid, node.gid, node.size), "{p}");
            if meta.file_type().is_regular_file() {
                assert!(view.read(p).expect("reads") == node.data, "{p}");
            } else if meta.is_symlink() {
                assert_eq!(view.read_link(p).expect("reads"), &node.data[..], "{p}");
            } else if meta.is_dir() {
                let n = view.read_dir(p).expect("reads").count();
                let children = ours.keys().filter(|k| k.parent() == Some(path)).count();
                assert_eq!(n, children + 2, "{p}");
            }
            seen += 1;
        }
        assert!(seen > 40, "{seen} files");
    }
}

/// statfs beside the host's own ext4, where the host lets us mount.
#[test]
fn statfs_as_the_host_says() {
    let dir = TempDir::new();
    for args in [
        &["-t", "ext4"][..],
        &["-t", "ext4", "-b", "1024", "-O", "bigalloc"],
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext3"],
        &["-t", "ext2", "-b", "1024"],
    ] {
        let Some(image) = mkfs(&dir, None, "64M", args, "") else { return };
        let s = mount(std::fs::read(&image).expect("image")).statfs();
        let mnt = dir.join("mnt");
        let _ = std::fs::create_dir(&mnt);
        let done = Command::new("mount").args(["-t", "ext4", "-o", "loop,ro"]).arg(&image).arg(&mnt).output();
        if !done.is_ok_and(|o| o.status.success()) {
            eprintln!("skipped: this host does not let us mount an image");
            return;
        }
        let said = run(Command::new("stat").args(["-f", "-c", "%S %b %f %a %c %d %l %i"]).arg(&mnt), "");
        run(Command::new("umount").arg(&mnt), "");
        let fsid = format!("{:x}", s.fsid.rotate_left(32));
        let ours = format!(
            "{} {} {} {} {} {} {} {fsid}",
            s.bsize, s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.namelen
        );
        assert_eq!(said.trim(), ours, "{args:?}");
    }
}
