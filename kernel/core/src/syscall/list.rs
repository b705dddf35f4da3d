// One line a call: number, name, arguments, handler. Included by table.rs (a file of its own so that it stays a list).
// Keep each half sorted by family.
syscalls! {
    sync {
        __NR_mlockall mlockall(flags: u32) = mm::syscalls::sys_mlockall;
        __NR_msync msync(addr: u64, len: u64, flags: u32) = mm::syscalls::sys_msync;
        __NR_munlock munlock(addr: u64, len: u64) = mm::syscalls::sys_munlock;
        __NR_munlockall munlockall() = mm::syscalls::sys_munlockall;
        __NR_getpid getpid() = task::ids::sys_getpid;
    }
    async {
        __NR_brk brk(addr: u64) = mm::syscalls::sys_brk;
        __NR_madvise madvise(addr: u64, len: u64, advice: u32) = mm::syscalls::sys_madvise;
        __NR_mincore mincore(addr: u64, len: u64, vec: UserPtr<u8>) = mm::syscalls::sys_mincore;
        __NR_mlock mlock(addr: u64, len: u64) = mm::syscalls::sys_mlock;
        __NR_mlock2 mlock2(addr: u64, len: u64) = mm::syscalls::sys_mlock;
        __NR_mmap mmap(addr: u64, len: u64, prot: u32, flags: u32, fd: Fd, off: u64) = mm::syscalls::sys_mmap;
        __NR_mprotect mprotect(addr: u64, len: u64, prot: u32) = mm::syscalls::sys_mprotect;
        __NR_mremap mremap(old: u64, old_len: u64, new_len: u64, flags: u32, new_addr: u64) = mm::syscalls::sys_mremap;
        __NR_munmap munmap(addr: u64, len: u64) = mm::syscalls::sys_munmap;
        __NR_sched_yield sched_yield() = task::sched::sys_sched_yield;
    }
}
