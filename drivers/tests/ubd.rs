//! Disks on host files.

use arch::mm::PhysMem;
use device::block::BlockDevice;
use drivers::ubd::{Ubd, UbdConfig};
use executor::time::{now, timeout};
use executor::{Config, shutdown, spawn};
use klib::Errno;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

fn kernel(what: &'static str, f: impl Future<Output = ()> + Send + 'static) {
    let code = executor::start(Config { ncpus: 2, pin: false }, move || {
        spawn(async move {
            match timeout(Some(now() + Duration::from_secs(60)), f).await {
                Some(()) => shutdown(0),
                None => {
                    eprintln!("gave up waiting for: {what}");
                    shutdown(99);
                }
            }
        });
    });
    assert_eq!(code, 0, "{what}");
}

struct TempFile(PathBuf);
impl TempFile {
    fn new(name: &str, data: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("ubd-{name}-{}", std::process::id()));
        std::fs::write(&path, data).expect("write");
        Self(path)
    }
}
impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn cfg(path: &Path) -> UbdConfig {
    UbdConfig { path: path.to_path_buf(), ..UbdConfig::default() }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 512 * 7 + i) as u8).collect()
}

#[test]
fn reads_and_writes() {
    let file = TempFile::new("rw", &pattern(7000));
    let path = file.0.clone();
    kernel("disk requests", async move {
        let ubd = Ubd::open(&cfg(&path), None).expect("open");
        assert_eq!((ubd.name(), ubd.size(), ubd.read_only()), ("ubda", 14 * 512, false));
        let all = ubd.read(0, 7168).await.expect("read");
        assert_eq!(all[..7000], pattern(7000));
        assert_eq!(all[7000..], [0; 168], "zeros past the end");
        ubd.write(6656, vec![5; 512]).await.expect("write");
        ubd.flush().await.expect("flush");
        assert_eq!(ubd.read(6656, 512).await.expect("read"), [5; 512]);
        assert_eq!(std::fs::metadata(&path).expect("stat").len(), 7168);
        for (offset, len) in
            [(1, 512), (0, 100), (7168, 512), (512, 7168), (u64::MAX - 511, 512), (u64::MAX, 1)]
        {
            assert_eq!(ubd.read(offset, len).await.err(), Some(Errno::EINVAL), "{offset}+{len}");
            assert_eq!(ubd.write(offset, vec![0; len]).await, Err(Errno::EINVAL), "{offset}+{len}");
            assert_eq!(ubd.read_frames(offset, len, 0).await, Err(Errno::EINVAL), "{offset}+{len}");
        }
        assert_eq!(ubd.read(512, 0).await, Ok(vec![]));
        assert_eq!(ubd.read_frames(0, 512, 0).await, Err(Errno::EIO), "no memory was given");
    });
    drop(file);
}

#[test]
fn large_and_many() {
    const LEN: usize = 20 << 20;
    let file = TempFile::new("large", &pattern(LEN));
    let path = file.0.clone();
    kernel("large requests", async move {
        let ubd = Ubd::open(&cfg(&path), None).expect("open");
        assert!(ubd.read(0, LEN).await.expect("read") == pattern(LEN));
        let t0 = now();
        let n = 2000u64;
        for i in 0..n {
            ubd.read(i * 4096, 4096).await.expect("read");
        }
        println!("4 KiB read from the host's cache: {} ns", (now() - t0).as_nanos() as u64 / n);
        let t0 = now();
        for i in 0..10 {
            ubd.read(i << 20, 1 << 20).await.expect("read");
        }
        println!("1 MiB read from the host's cache: {} us", (now() - t0).as_micros() / 10);
        // Requests given up in flight, and writers beside them.
        for i in 0..200u64 {
            drop(timeout(Some(now()), ubd.read(0, 4 << 20)).await);
            ubd.write(i * 512, vec![i as u8; 512]).await.expect("write");
        }
        for i in 0..200u64 {
            assert_eq!(ubd.read(i * 512, 512).await.expect("read"), [i as u8; 512]);
        }
    });
    drop(file);
}

#[test]
fn reads_into_guest_frames() {
    const LEN: usize = (3 << 20) + 1000;
    let file = TempFile::new("frames", &pattern(LEN));
    let path = file.0.clone();
    kernel("reads into guest frames", async move {
        let mem = PhysMem::new(8 << 20).expect("guest memory");
        mem.write(4096, &[0xee; 4 << 20]);
        let ubd = Ubd::open(&cfg(&path), Some(mem.clone())).expect("open");
        let len = ubd.size() as usize;
        ubd.read_frames(0, len, 8192).await.expect("read");
        let mut got = vec![0; len];
        mem.read(8192, &mut got);
        assert!(got[..LEN] == pattern(LEN));
        assert!(got[LEN..].iter().all(|&b| b == 0), "zeros past the end");
        let mut around = [0u8; 2];
        mem.read(8191, &mut around[..1]);
        mem.read(8192 + len as u64, &mut around[1..]);
        assert_eq!(around, [0xee; 2], "nothing else is touched");
        let t0 = now();
        for i in 0..1000u64 {
            ubd.read_frames(i % 40 * 65536, 65536, 65536).await.expect("read");
        }
        println!("64 KiB read into frames: {} ns", (now() - t0).as_nanos() as u64 / 1000);
    });
    drop(file);
}

#[test]
fn refusals_are_one_clear_line() {
    let cow = TempFile::new("cow", b"OOOM\0\0\0\x03 and so on");
    let empty = TempFile::new("empty", b"");
    let plain = TempFile::new("plain", &[1; 512]);
    let err = |c: &UbdConfig| Ubd::open(c, None).err().expect("refused");
    for (what, line) in [
        ("no such file", err(&cfg(Path::new("/nonexistent/disk")))),
        ("expected a regular file", err(&cfg(Path::new("/dev/null")))),
        ("empty", err(&cfg(&empty.0))),
        ("COW files are not yet supported", err(&cfg(&cow.0))),
        ("COW files are not yet supported", err(&UbdConfig { backing: Some("b".into()), ..cfg(&plain.0) })),
        ("out of range", err(&UbdConfig { unit: 16, ..cfg(&plain.0) })),
    ] {
        assert!(line.contains(what) && !line.contains('\n') && line.starts_with("ubd"), "{line}");
    }
    assert!(Ubd::open(&UbdConfig { data: true, ..cfg(&cow.0) }, None).is_ok());
    let ro = Ubd::open(&UbdConfig { read_only: true, unit: 2, ..cfg(&plain.0) }, None).expect("open");
    assert_eq!((ro.name(), ro.read_only()), ("ubdc", true));
    kernel("a write to a read-only disk", async move {
        assert_eq!(ro.write(0, vec![0; 512]).await, Err(Errno::EROFS));
        assert_eq!(ro.flush().await, Ok(()));
    });
}

/// Run by `a_locked_file_names_the_holder` in a process of its own.
#[test]
fn holder() {
    let Some(path) = std::env::var_os("UBD_TEST_HOLD") else { return };
    let _disk = Ubd::open(&cfg(Path::new(&path)), None).expect("open");
    println!("\nheld");
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}

#[test]
fn a_locked_file_names_the_holder() {
    let file = TempFile::new("lock", &[1; 512]);
    let mut child = Command::new(std::env::current_exe().expect("exe"))
        .args(["holder", "--exact", "--nocapture"])
        .env("UBD_TEST_HOLD", &file.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let out = BufReader::new(child.stdout.take().expect("stdout"));
    assert!(out.lines().map_while(Result::ok).any(|l| l == "held"), "the other process holds the file");
    let line = Ubd::open(&cfg(&file.0), None).err().expect("refused");
    assert!(line.contains(&format!("locked by process {}", child.id())), "{line}");
    assert!(Ubd::open(&UbdConfig { shared: true, ..cfg(&file.0) }, None).is_ok());
    drop(child.stdin.take());
    child.wait().expect("wait");
    assert!(Ubd::open(&cfg(&file.0), None).is_ok());
}
