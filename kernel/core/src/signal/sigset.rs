//! Sets of signals: bit n-1 is signal n.

use uapi::raw::general as c;

/// Number of signals; they count from 1 to this.
pub const NSIG: i32 = 64;
/// The first real-time signal (the kernel's own count, not libc's).
pub const SIGRTMIN: i32 = 32;

/// A set of signals.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SigSet(pub u64);

impl std::fmt::Debug for SigSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigSet({:#x})", self.0)
    }
}

const fn bit(sig: u32) -> u64 {
    1 << (sig - 1)
}

impl SigSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Every signal.
    pub const ALL: Self = Self(u64::MAX);
    /// SIGKILL and SIGSTOP, which nobody blocks or handles.
    pub const KERNEL_ONLY: Self = Self(bit(c::SIGKILL) | bit(c::SIGSTOP));
    /// Raised by an instruction of the thread itself; taken before others.
    pub const SYNCHRONOUS: Self = Self(
        bit(c::SIGSEGV) | bit(c::SIGBUS) | bit(c::SIGILL) | bit(c::SIGTRAP) | bit(c::SIGFPE) | bit(c::SIGSYS),
    );
    /// Stop by default.
    pub const STOP: Self = Self(bit(c::SIGSTOP) | bit(c::SIGTSTP) | bit(c::SIGTTIN) | bit(c::SIGTTOU));
    /// Dump core by default.
    pub const CORE: Self = Self(
        bit(c::SIGQUIT)
            | bit(c::SIGILL)
            | bit(c::SIGTRAP)
            | bit(c::SIGABRT)
            | bit(c::SIGFPE)
            | bit(c::SIGSEGV)
            | bit(c::SIGBUS)
            | bit(c::SIGSYS)
            | bit(c::SIGXCPU)
            | bit(c::SIGXFSZ),
    );
    /// Ignored by default.
    pub const IGNORED: Self = Self(bit(c::SIGCONT) | bit(c::SIGCHLD) | bit(c::SIGWINCH) | bit(c::SIGURG));

    /// The set of one signal; empty for a number that is none.
    pub const fn of(sig: i32) -> Self {
        if sig >= 1 && sig <= NSIG { Self(1 << (sig - 1)) } else { Self(0) }
    }

    /// True if `sig` is in the set.
    pub const fn has(self, sig: i32) -> bool {
        self.0 & Self::of(sig).0 != 0
    }

    /// Adds a signal.
    pub fn add(&mut self, sig: i32) {
        self.0 |= Self::of(sig).0;
    }

    /// Takes a signal out.
    pub fn remove(&mut self, sig: i32) {
        self.0 &= !Self::of(sig).0;
    }

    /// Those in `self` but not in `other`.
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those in both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in either.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True if no signal is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// A mask as a guest may set it: without SIGKILL and SIGSTOP.
    pub const fn blockable(self) -> Self {
        self.minus(Self::KERNEL_ONLY)
    }

    /// The signal that is taken next: synchronous ones first, then the lowest number.
    pub const fn first(self) -> Option<i32> {
        let sync = self.and(Self::SYNCHRONOUS);
        let from = if sync.is_empty() { self } else { sync };
        if from.is_empty() { None } else { Some(from.0.trailing_zeros() as i32 + 1) }
    }
}

/// True for 1..=64.
pub const fn valid_signal(sig: i32) -> bool {
    sig >= 1 && sig <= NSIG
}
