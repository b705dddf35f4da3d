// One line a call: number, name, arguments, handler. Included by table.rs (a file of its own so that it stays a list).
// Keep each half sorted by family.
syscalls! {
    sync {
        __NR_getpid getpid() = task::ids::sys_getpid;
    }
    async {
        __NR_sched_yield sched_yield() = task::sched::sys_sched_yield;
    }
}
