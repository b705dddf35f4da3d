//! What the tests of the vector NIC share: a stack with its clock and timer, a CPU to run it on, a namespace of their own.
#![allow(dead_code, reason = "no test binary uses all of it")]

use executor::hrtimer::Hrtimer;
use executor::softirq::{self, SoftirqVec};
use klib::ktime::Ktime;
use net::{Net, NetHost};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

static NET: OnceLock<Arc<Net>> = OnceLock::new();
static TIMER: OnceLock<Hrtimer> = OnceLock::new();
static ARMED: Mutex<u64> = Mutex::new(u64::MAX);
const MARK: &str = "KIBBLE_TEST_NAMESPACE";

struct Host;

impl NetHost for Host {
    fn now(&self) -> Ktime {
        arch::host::clock::monotonic()
    }
    fn random(&self, out: &mut [u8]) {
        arch::host::random::fill(out).expect("random bytes");
    }
    fn raise_softirq(&self) {
        softirq::raise(SoftirqVec::NetTx);
    }
    fn timer_armed(&self, at: Ktime) {
        let mut armed = ARMED.lock().expect("lock");
        if at.0 < *armed {
            *armed = at.0;
            TIMER.get_or_init(|| Hrtimer::new(fire)).arm(at);
        }
    }
}

fn fire() {
    *ARMED.lock().expect("lock") = u64::MAX;
    let net = stack();
    net.run_timers(arch::host::clock::monotonic());
    if let Some(at) = net.next_timer() {
        Host.timer_armed(at);
    }
}

/// The stack of this process.
pub fn stack() -> &'static Arc<Net> {
    NET.get_or_init(|| Net::new(Arc::new(Host)))
}

/// Runs `body` on a CPU that serves the stack, to its end.
pub fn on_a_cpu(body: impl Future<Output = ()> + Send + 'static) {
    let code = executor::start(executor::Config { ncpus: 1, pin: false }, move || {
        let serve = || {
            stack().run_softirq();
            false
        };
        softirq::register(SoftirqVec::NetTx, Arc::new(serve));
        executor::spawn(async move {
            body.await;
            executor::shutdown(0);
        });
    });
    assert_eq!(code, 0);
}

/// A command of the shell that must succeed.
pub fn sh(cmd: &str) {
    let ok = Command::new("sh").args(["-c", cmd]).status().is_ok_and(|s| s.success());
    assert!(ok, "{cmd}");
}

/// Runs the calling test, whose name is given, again in a process and a network namespace of its own. True in there; false:
/// done, or skipped with the reason printed.
pub fn in_namespace(test: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let works =
        |flag: &&str| Command::new("unshare").args([flag, "true"]).output().is_ok_and(|o| o.status.success());
    // As root the real root is kept: /dev/net/tun asks for it on some hosts.
    let Some(flag) = ["-n", "-rn"].into_iter().find(works) else {
        println!("skipped: no network namespaces for us here");
        return false;
    };
    let status = Command::new("unshare")
        .arg(flag)
        .arg(std::env::current_exe().expect("own path"))
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env(MARK, "1")
        .status()
        .expect("unshare");
    assert!(status.success(), "{test}: failed in its namespace");
    false
}
