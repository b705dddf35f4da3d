//! `siginfo_t` (sigaction(2)): 128 bytes, a head and a part whose meaning depends on the signal.

use uapi::raw::general as c;

/// Bytes of `siginfo_t`.
pub const SIGINFO_SIZE: usize = 128;

/// A signal's information as the guest will read it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SigInfo {
    /// `si_signo`.
    pub signo: i32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    /// Everything from byte 16 on.
    body: [u8; 112],
}

impl std::fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigInfo {{ signo: {}, code: {}, pid: {} }}", self.signo, self.code, self.pid())
    }
}

impl SigInfo {
    /// With nothing but number and code.
    pub const fn new(signo: i32, code: i32) -> Self {
        Self { signo, errno: 0, code, body: [0; 112] }
    }

    /// From the kernel itself (SI_KERNEL).
    pub const fn kernel(signo: i32) -> Self {
        Self::new(signo, c::SI_KERNEL as i32)
    }

    /// From kill(2) (`SI_USER`), tkill(2) (`SI_TKILL`): sender's process and real user id.
    pub fn user(signo: i32, code: i32, pid: u32, uid: u32) -> Self {
        let mut s = Self::new(signo, code);
        s.put(0, &pid.to_ne_bytes());
        s.put(4, &uid.to_ne_bytes());
        s
    }

    /// A fault at `addr` (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP).
    pub fn fault(signo: i32, code: i32, addr: u64) -> Self {
        let mut s = Self::new(signo, code);
        s.put(0, &addr.to_ne_bytes());
        s
    }

    /// A child's change of state; times in clock ticks.
    pub fn child(signo: i32, code: i32, pid: u32, uid: u32, status: i32, utime: i64, stime: i64) -> Self {
        let mut s = Self::user(signo, code, pid, uid);
        s.put(8, &status.to_ne_bytes());
        s.put(16, &utime.to_ne_bytes());
        s.put(24, &stime.to_ne_bytes());
        s
    }

    /// A POSIX timer: its id, overrun count and `sigev_value`.
    pub fn timer(signo: i32, timer_id: i32, overrun: i32, value: u64) -> Self {
        let mut s = Self::new(signo, c::SI_TIMER);
        s.put(0, &timer_id.to_ne_bytes());
        s.put(4, &overrun.to_ne_bytes());
        s.put(8, &value.to_ne_bytes());
        s
    }

    /// I/O on a descriptor (F_SETSIG): `si_band` and `si_fd`.
    pub fn poll(signo: i32, code: i32, band: i64, fd: i32) -> Self {
        let mut s = Self::new(signo, code);
        s.put(0, &band.to_ne_bytes());
        s.put(8, &fd.to_ne_bytes());
        s
    }

    /// What rt_sigqueueinfo(2) brought; the number is the call's own.
    pub fn from_bytes(signo: i32, raw: &[u8; SIGINFO_SIZE]) -> Self {
        let int = |at: usize| i32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let mut s = Self { signo, errno: int(4), code: int(8), body: [0; 112] };
        s.body.copy_from_slice(&raw[16..]);
        s
    }

    /// The guest's view.
    pub fn to_bytes(&self) -> [u8; SIGINFO_SIZE] {
        let mut out = [0u8; SIGINFO_SIZE];
        out[0..4].copy_from_slice(&self.signo.to_ne_bytes());
        out[4..8].copy_from_slice(&self.errno.to_ne_bytes());
        out[8..12].copy_from_slice(&self.code.to_ne_bytes());
        out[16..].copy_from_slice(&self.body);
        out
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.body[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u32_at(&self, at: usize) -> u32 {
        let b = &self.body[at..at + 4];
        u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) | u64::from(self.u32_at(at + 4)) << 32
    }

    /// `si_pid`, or `si_tid` of a timer.
    pub fn pid(&self) -> u32 {
        self.u32_at(0)
    }

    /// `si_uid`, or `si_overrun` of a timer.
    pub fn uid(&self) -> u32 {
        self.u32_at(4)
    }

    /// `si_status` of SIGCHLD.
    pub fn status(&self) -> i32 {
        self.u32_at(8).cast_signed()
    }

    /// `si_utime` and `si_stime` of SIGCHLD.
    pub fn child_times(&self) -> (u64, u64) {
        (self.u64_at(16), self.u64_at(24))
    }

    /// `si_value` of sigqueue(3) and timers.
    pub fn value(&self) -> u64 {
        self.u64_at(8)
    }

    /// `si_addr` of faults, `si_band` of SIGIO.
    pub fn addr(&self) -> u64 {
        self.u64_at(0)
    }

    /// `si_fd` of SIGIO.
    pub fn fd(&self) -> i32 {
        self.u32_at(8).cast_signed()
    }

    /// Sets `si_overrun` of a timer.
    pub fn set_overrun(&mut self, n: i32) {
        self.put(4, &n.to_ne_bytes());
    }

    /// True if a process sent it, not the kernel.
    pub fn from_user(&self) -> bool {
        self.code <= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    type Ki = c::__sifields;

    #[test]
    fn layout_is_the_kernels() {
        assert_eq!(size_of::<c::siginfo>(), SIGINFO_SIZE);
        // The union starts at 16 on 64-bit machines; these are its members' places.
        assert_eq!(offset_of!(c::__sifields__bindgen_ty_1, _uid), 4);
        assert_eq!(offset_of!(c::__sifields__bindgen_ty_2, _overrun), 4);
        assert_eq!(offset_of!(c::__sifields__bindgen_ty_2, _sigval), 8);
        assert_eq!(offset_of!(c::__sifields__bindgen_ty_3, _sigval), 8);
        assert_eq!(offset_of!(c::__sifields__bindgen_ty_4, _status), 8);
        assert_eq!(offset_of!(c::__sifields__bindgen_ty_4, _utime), 16);
        assert_eq!(offset_of!(c::__sifields__bindgen_ty_4, _stime), 24);
        assert_eq!(align_of::<Ki>(), 8);
    }

    #[test]
    fn bytes_round_trip() {
        let s = SigInfo::child(17, 1, 42, 1000, 7, 3, 4);
        let b = s.to_bytes();
        assert_eq!(SigInfo::from_bytes(17, &b), s);
        assert_eq!((s.pid(), s.uid(), s.status(), s.child_times()), (42, 1000, 7, (3, 4)));
        assert_eq!(&b[16..20], &42u32.to_ne_bytes());
        assert_eq!(&b[24..28], &7i32.to_ne_bytes());
    }
}
