//! CPU time of tasks: clocks are read where a task changes between user code, kernel and sleep. Nothing ticks.
//!
//! What counts as running is the time between two such changes; time in which the host gave the core to somebody
//! else is in it. DIFFERS: Linux leaves that out.

use klib::ktime::Ktime;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

const KERNEL: u8 = 0;
const USER: u8 = 1;
const ASLEEP: u8 = 2;

/// The account of one task. Only the task itself changes it; others read.
#[derive(Default)]
pub struct Account {
    mode: AtomicU8,
    since_ns: AtomicU64,
    user_ns: AtomicU64,
    system_ns: AtomicU64,
}

impl Account {
    /// A task that begins to run in the kernel now.
    pub fn started(now_ns: u64) -> Self {
        Self { since_ns: AtomicU64::new(now_ns), ..Self::default() }
    }

    fn switch(&self, mode: u8, now: Ktime) {
        let now = now.as_ns();
        let (user, system) = self.read_at(now);
        self.user_ns.store(user, Relaxed);
        self.system_ns.store(system, Relaxed);
        self.since_ns.store(now, Relaxed);
        self.mode.store(mode, Relaxed);
    }

    /// The task goes to user mode.
    pub fn enter_user(&self) {
        self.switch(USER, executor::time::now());
    }

    /// The task has trapped: the CPU has looked at the clock when that woke it.
    pub fn enter_kernel(&self) {
        self.switch(KERNEL, executor::time::recent());
    }

    /// The task goes on after a sleep.
    pub fn wake(&self) {
        self.switch(KERNEL, executor::time::now());
    }

    /// The task waits for something.
    pub fn sleep(&self) {
        self.switch(ASLEEP, executor::time::now());
    }

    fn read_at(&self, now: u64) -> (u64, u64) {
        let run = now.saturating_sub(self.since_ns.load(Relaxed));
        let (user, system) = (self.user_ns.load(Relaxed), self.system_ns.load(Relaxed));
        match self.mode.load(Relaxed) {
            USER => (user.saturating_add(run), system),
            KERNEL => (user, system.saturating_add(run)),
            _ => (user, system),
        }
    }

    /// User and system time so far, ns, including the current stretch.
    pub fn read(&self) -> (u64, u64) {
        self.read_at(executor::time::now().as_ns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_counts() {
        let a = Account::started(0);
        a.sleep();
        let (u, s) = a.read();
        assert_eq!(a.read(), (u, s), "asleep");
        a.enter_user();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let (u2, s2) = a.read();
        assert!(u2 - u >= 2_000_000 && s2 == s);
        a.wake();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(a.read().1 - s >= 2_000_000);
    }
}
