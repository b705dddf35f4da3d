//! What the tests share: an executor of ten lines, a RAM disk, images from mke2fs, a walk of everything.
#![allow(dead_code)]

use ext4::{BlockIo, BoxFuture, DirEntry, Ext4, FileType, MountError, MountOptions};
use klib::{Errno, Result};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(v) => return v,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A disk in memory that counts requests and fails after a number of them.
pub struct RamDisk {
    data: Vec<u8>,
    pub reads: AtomicU64,
    pub fail_after: AtomicU64,
}

impl RamDisk {
    pub fn new(data: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { data, reads: AtomicU64::new(0), fail_after: AtomicU64::new(u64::MAX) })
    }
}

/// Yields once, so that every read really suspends.
struct YieldOnce(bool);

impl Future for YieldOnce {
    type Output = ();
    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl BlockIo for RamDisk {
    fn size(&self) -> u64 {
        self.data.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            YieldOnce(false).await;
            assert!(offset.is_multiple_of(512) && len.is_multiple_of(512), "{len} bytes at {offset}");
            if self.reads.fetch_add(1, Ordering::Relaxed) >= self.fail_after.load(Ordering::Relaxed) {
                return Err(Errno::EIO);
            }
            let start = usize::try_from(offset).map_err(|_| Errno::EIO)?;
            self.data.get(start..start + len).map(<[u8]>::to_vec).ok_or(Errno::EIO)
        })
    }
}

/// A disk in a host file.
pub struct FileDisk(std::fs::File, u64);

impl FileDisk {
    pub fn open(path: &Path) -> Arc<Self> {
        let file = std::fs::File::open(path).expect("image");
        let size = file.metadata().expect("size").len();
        Arc::new(Self(file, size))
    }
}

impl BlockIo for FileDisk {
    fn size(&self) -> u64 {
        self.1
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Vec<u8>>> {
        use std::os::unix::fs::FileExt;
        let mut data = vec![0; len];
        let done = self.0.read_exact_at(&mut data, offset).map(|()| data).map_err(|_| Errno::EIO);
        Box::pin(std::future::ready(done))
    }
}

pub fn try_mount(image: Vec<u8>) -> Result<Arc<Ext4>, MountError> {
    block_on(Ext4::mount(RamDisk::new(image), MountOptions::default()))
}

pub fn mount(image: Vec<u8>) -> Arc<Ext4> {
    try_mount(image).unwrap_or_else(|e| panic!("{e}"))
}

/// A directory that goes away with the value.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ext4-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).expect("temporary directory");
        Self(dir)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The tool's path, or nothing (then the reason has been printed).
pub fn tool(name: &str) -> Option<PathBuf> {
    let dirs = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = dirs.split(':').map(|d| Path::new(d).join(name)).find(|p| p.exists());
    if found.is_none() {
        eprintln!("skipped: {name} (e2fsprogs) is not installed");
    }
    found
}

/// Runs a command with `input` as its standard input; panics with its output if it fails.
pub fn run(cmd: &mut Command, input: &str) -> String {
    run_codes(cmd, input, &[0])
}

/// As [`run`], with the exit codes that count as success.
pub fn run_codes(cmd: &mut Command, input: &str, codes: &[i32]) -> String {
    use std::io::Write;
    let mut child = cmd
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{cmd:?}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let out = child.wait_with_output().expect("output");
    let _ = writer.join();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code().is_some_and(|c| codes.contains(&c)), "{cmd:?}: {}\n{text}", out.status);
    text
}

/// Makes an image of `size` (as mke2fs takes it) from `tree`, then runs debugfs commands on it.
pub fn mkfs(dir: &TempDir, tree: Option<&Path>, size: &str, args: &[&str], debugfs: &str) -> Option<PathBuf> {
    let mke2fs = tool("mke2fs")?;
    let image = dir.join("image");
    let _ = std::fs::remove_file(&image);
    let mut cmd = Command::new(mke2fs);
    cmd.args(["-q", "-F", "-E", "lazy_itable_init=0"]).args(args);
    if !args.contains(&"-b") {
        // Small images get 1 KiB blocks otherwise.
        cmd.args(["-b", "4096"]);
    }
    if let Some(tree) = tree {
        cmd.arg("-d").arg(tree);
    }
    run(cmd.arg(&image).arg(size), "");
    if !debugfs.is_empty() {
        self::debugfs(&image, debugfs)?;
    }
    Some(image)
}

/// Runs debugfs commands on an image, writing.
pub fn debugfs(image: &Path, commands: &str) -> Option<String> {
    Some(run(Command::new(tool("debugfs")?).args(["-w", "-f", "-"]).arg(image), commands))
}

/// Everything about one file that tests compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub ino: u32,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub size: u64,
    pub mtime: (i64, u32),
    pub rdev: (u32, u32),
    /// Content of a file, target of a link.
    pub data: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// All entries of a directory, listed in steps of `chunk` to try the cookies.
pub async fn list(fs: &Ext4, dir: &ext4::Inode, chunk: usize) -> Result<Vec<(Vec<u8>, u32, FileType)>> {
    let mut out = Vec::new();
    let mut pos = 0;
    loop {
        let (mut got, from) = (0, pos);
        let mut emit = |e: DirEntry<'_>| {
            if got == chunk {
                return false;
            }
            got += 1;
            pos = e.next_pos;
            out.push((e.name.to_vec(), e.ino, e.file_type));
            true
        };
        fs.readdir(dir, from, &mut emit).await?;
        if got < chunk {
            return Ok(out);
        }
    }
}

/// Content of a file through `read`, in odd steps.
pub async fn content(fs: &Ext4, inode: &ext4::Inode) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let part = fs.read(inode, out.len() as u64, 1 << 20 | 0x321).await?;
        if part.is_empty() {
            return Ok(out);
        }
        out.extend(part);
    }
}

/// One file, with its content and attributes.
pub async fn node(fs: &Ext4, ino: u32) -> Result<Node> {
    let inode = fs.inode(ino).await?;
    let a = inode.attr();
    let data = match inode.file_type() {
        FileType::Regular => content(fs, &inode).await?,
        FileType::Symlink => fs.readlink(&inode).await?,
        _ => Vec::new(),
    };
    let mut xattrs = BTreeMap::new();
    for name in fs.listxattr(&inode).await? {
        let value = fs.getxattr(&inode, &name).await?;
        xattrs.insert(name, value);
    }
    Ok(Node {
        ino,
        mode: a.mode,
        uid: a.uid,
        gid: a.gid,
        nlink: a.nlink,
        size: a.size,
        mtime: (a.mtime.sec, a.mtime.nsec),
        rdev: a.rdev,
        data,
        xattrs,
    })
}

/// Every file by path. Names are looked up as well as listed, and both must agree.
pub async fn walk(fs: &Ext4) -> Result<BTreeMap<PathBuf, Node>> {
    use std::os::unix::ffi::OsStrExt;
    let mut all = BTreeMap::new();
    let mut todo = vec![(PathBuf::from("/"), fs.root_ino(), fs.root_ino())];
    while let Some((path, ino, parent)) = todo.pop() {
        let dir = fs.inode(ino).await?;
        all.insert(path.clone(), node(fs, ino).await?);
        for (name, child, ft) in list(fs, &dir, 7).await? {
            let found = fs.lookup(&dir, &name).await?;
            assert_eq!(found, Some(child), "lookup of {:?} in {path:?}", String::from_utf8_lossy(&name));
            match &name[..] {
                b"." => assert_eq!(child, ino),
                b".." => assert_eq!(child, parent, "parent of {path:?}"),
                _ => {
                    let path = path.join(std::ffi::OsStr::from_bytes(&name));
                    let inode = fs.inode(child).await?;
                    assert!(ft == FileType::Unknown || ft == inode.file_type(), "type of {path:?}");
                    if inode.file_type() == FileType::Directory {
                        todo.push((path, child, ino));
                    } else {
                        all.insert(path, node(fs, child).await?);
                    }
                }
            }
        }
        assert_eq!(fs.lookup(&dir, b"no such name").await?, None);
    }
    Ok(all)
}

/// xorshift: the tests' random numbers, the same in every run.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}
