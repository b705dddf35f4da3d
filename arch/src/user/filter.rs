//! The classic-BPF programs that bind each kind of stub thread (seccomp(2)).
//!
//! Constants of the program are addresses of the stub image, so a program is built once per boot and placed in the
//! image's read-only page.

use super::layout::{FD_DOORBELL, FD_MAPPER_LISTENER, NR_NOTIFY};

/// One instruction, as `struct sock_filter`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Insn {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

const LD_ABS: u16 = 0x20;
const JEQ: u16 = 0x15;
const RET: u16 = 0x06;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_TRAP: u32 = 0x0003_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

const OFF_NR: u32 = 0;
const OFF_ARCH: u32 = 4;
const OFF_IP: u32 = 8;
const fn off_arg(n: u32) -> u32 {
    16 + 8 * n
}

/// The program that lets everything pass, for trying whether filters may be installed.
pub(super) fn allow_all() -> [Insn; 1] {
    [Insn { code: RET, jt: 0, jf: 0, k: RET_ALLOW }]
}

/// Builds programs from rules; all jumps are short because each rule is self-contained.
#[derive(Default)]
struct Program(Vec<Insn>);

impl Program {
    fn ld(&mut self, off: u32) {
        self.0.push(Insn { code: LD_ABS, jt: 0, jf: 0, k: off });
    }

    fn ret(&mut self, k: u32) {
        self.0.push(Insn { code: RET, jt: 0, jf: 0, k });
    }

    /// If the loaded word is not `k`, skips the next `skip` instructions.
    fn unless_eq_skip(&mut self, k: u32, skip: u8) {
        self.0.push(Insn { code: JEQ, jt: 0, jf: skip, k });
    }

    /// `ret` if all 64-bit words (offset, value) match and the number is `nr`; falls through otherwise, with the
    /// number loaded again.
    fn rule(&mut self, nr: u32, words: &[(u32, u64)], ret: u32) {
        // Each word is two loads and two compares; then the return; then the reload that both ways reach.
        let body = u8::try_from(words.len() * 4 + 1).expect("rules are short");
        self.unless_eq_skip(nr, body);
        for (i, &(off, value)) in words.iter().enumerate() {
            let left = u8::try_from((words.len() - i) * 4).expect("rules are short");
            self.ld(off);
            self.unless_eq_skip(value as u32, left - 1);
            self.ld(off + 4);
            self.unless_eq_skip((value >> 32) as u32, left - 3);
        }
        self.ret(ret);
        if !words.is_empty() {
            self.ld(OFF_NR);
        }
    }

    fn head(&mut self) {
        self.ld(OFF_ARCH);
        // Foreign ABIs (int 0x80, compat) cannot be served: the process ends.
        self.0.push(Insn { code: JEQ, jt: 1, jf: 0, k: AUDIT_ARCH_X86_64 });
        self.ret(RET_KILL_PROCESS);
        self.ld(OFF_NR);
    }
}

/// Addresses of the image that filters compare the instruction pointer with: each the one after its `syscall`.
pub(super) struct Sites {
    pub sigreturn_ip: u64,
    pub exit_ip: u64,
    /// The constant 1 that ringing the doorbell writes.
    pub one: u64,
}

fn doorbell(p: &mut Program, sites: &Sites) {
    // Constant arguments only, so who calls it does not matter: it rings, no more.
    p.rule(1, &[(off_arg(0), FD_DOORBELL), (off_arg(1), sites.one), (off_arg(2), 8)], RET_ALLOW);
}

/// A guest thread: everything is notified, but calls whose outcome depends on all registers trap to the handler
/// first, and the stub's own sigreturn and exit are let through by place.
pub(super) fn guest_thread(sites: &Sites) -> Vec<Insn> {
    let mut p = Program::default();
    p.head();
    p.rule(15, &[(OFF_IP, sites.sigreturn_ip)], RET_ALLOW); // rt_sigreturn
    p.rule(60, &[(OFF_IP, sites.exit_ip)], RET_ALLOW); // exit
    p.rule(158, &[(off_arg(0), 0x1002)], RET_ALLOW); // arch_prctl(ARCH_SET_FS)
    p.rule(158, &[(off_arg(0), 0x1001)], RET_ALLOW); // arch_prctl(ARCH_SET_GS)
    doorbell(&mut p, sites);
    for nr in [15, 56, 57, 58, 59, 158, 322, 435] {
        // rt_sigreturn, clone, fork, vfork, execve, arch_prctl (what it asks for is in registers), execveat, clone3
        p.rule(nr, &[], RET_TRAP);
    }
    p.ret(RET_USER_NOTIF);
    p.0
}

/// The mapper: three memory calls, what it needs to confine itself, and its notification.
pub(super) fn mapper(sites: &Sites) -> Vec<Insn> {
    let mut p = Program::default();
    p.head();
    for nr in [9, 10, 11, 28] {
        // mmap, mprotect, munmap, madvise
        p.rule(nr, &[], RET_ALLOW);
    }
    p.rule(NR_NOTIFY, &[], RET_USER_NOTIF);
    doorbell(&mut p, sites);
    p.rule(272, &[(off_arg(0), 0x400)], RET_ALLOW); // unshare(CLONE_FILES)
    p.rule(3, &[(off_arg(0), FD_MAPPER_LISTENER as u64)], RET_ALLOW); // close
    p.ret(RET_KILL_PROCESS);
    p.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets a program over a `seccomp_data`, as the host does.
    fn run(prog: &[Insn], nr: u32, ip: u64, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(nr.to_le_bytes());
        data.extend(AUDIT_ARCH_X86_64.to_le_bytes());
        data.extend(ip.to_le_bytes());
        args.iter().for_each(|a| data.extend(a.to_le_bytes()));
        let (mut pc, mut acc) = (0usize, 0u32);
        loop {
            let i = prog[pc];
            pc += 1;
            match i.code {
                LD_ABS => acc = u32::from_le_bytes(data[i.k as usize..i.k as usize + 4].try_into().unwrap()),
                JEQ => pc += usize::from(if acc == i.k { i.jt } else { i.jf }),
                RET => return i.k,
                _ => unreachable!(),
            }
        }
    }

    #[test]
    fn guest_threads_get_through_only_at_the_stubs_own_sites() {
        let s = Sites { sigreturn_ip: 0x7ff0_0000_0100, exit_ip: 0x7ff0_0000_0200, one: 0x7ff0_0000_0300 };
        let p = guest_thread(&s);
        assert_eq!(run(&p, 15, s.sigreturn_ip, [0; 6]), RET_ALLOW);
        assert_eq!(run(&p, 15, 0x4000, [0; 6]), RET_TRAP);
        assert_eq!(run(&p, 15, s.sigreturn_ip ^ (1 << 40), [0; 6]), RET_TRAP);
        assert_eq!(run(&p, 60, s.exit_ip, [0; 6]), RET_ALLOW);
        assert_eq!(run(&p, 60, 0x4000, [0; 6]), RET_USER_NOTIF);
        assert_eq!(run(&p, 158, 1, [0x1002, 5, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(run(&p, 158, 1, [0x1001, 5, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(run(&p, 158, 1, [0x1003, 5, 0, 0, 0, 0]), RET_TRAP);
        assert_eq!(run(&p, 1, 1, [0, s.one, 8, 0, 0, 0]), RET_ALLOW);
        assert_eq!(run(&p, 1, 1, [0, s.one, 9, 0, 0, 0]), RET_USER_NOTIF);
        assert_eq!(run(&p, 1, 1, [1, s.one, 8, 0, 0, 0]), RET_USER_NOTIF);
        for nr in [56, 57, 58, 59, 322, 435] {
            assert_eq!(run(&p, nr, 1, [0; 6]), RET_TRAP);
        }
        for nr in [0, 2, 9, 10, 11, 39, 101, 157, 317, NR_NOTIFY, 0x4000_0000] {
            assert_eq!(run(&p, nr, 1, [0; 6]), RET_USER_NOTIF);
        }
        let m = mapper(&s);
        for nr in [9, 10, 11] {
            assert_eq!(run(&m, nr, 1, [0; 6]), RET_ALLOW);
        }
        assert_eq!(run(&m, NR_NOTIFY, 1, [0; 6]), RET_USER_NOTIF);
        assert_eq!(run(&m, 272, 1, [0x400, 0, 0, 0, 0, 0]), RET_ALLOW);
        for nr in [0, 2, 56, 59, 101, 272, 310, 311, 317] {
            assert_eq!(run(&m, nr, 1, [0; 6]), RET_KILL_PROCESS);
        }
    }
}
