//! The system call table: number, arguments, handler. `sync` handlers never sleep; `async` ones are boxed.

use super::SyscallArgs;
#[allow(unused_imports)]
use super::args::{Fd, FromArg, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::nr;

macro_rules! syscalls {
    (
        sync { $( $snr:ident $sname:ident ( $($sarg:ident : $sty:ty),* ) = $($sh:ident)::+ ; )* }
        async { $( $anr:ident $aname:ident ( $($aarg:ident : $aty:ty),* ) = $($ah:ident)::+ ; )* }
    ) => {
        /// Runs one system call to its end. The result goes to rax; restart kinds go to `signal::restart`.
        pub async fn dispatch(cur: &Arc<Task>, call: &SyscallArgs) -> Result<u64> {
            let Ok(number) = u32::try_from(call.nr) else { return Err(Errno::ENOSYS) };
            #[allow(unused_mut, unused_variables)]
            let mut raw = call.args.iter().copied();
            match number {
                $( nr::$snr => {
                    $( let $sarg = <$sty as FromArg>::from_arg(raw.next().unwrap_or(0)); )*
                    crate::$($sh)::+ (cur, $($sarg),*)
                } )*
                $( nr::$anr => {
                    $( let $aarg = <$aty as FromArg>::from_arg(raw.next().unwrap_or(0)); )*
                    Box::pin(crate::$($ah)::+ (cur, $($aarg),*)).await
                } )*
                _ => Err(unsupported(number)),
            }
        }

        /// The name and arity of a call, for `strace` and the status page.
        pub fn describe(number: u32) -> Option<(&'static str, &'static [(&'static str, &'static str)])> {
            Some(match number {
                $( nr::$snr => (stringify!($sname), &[ $( (stringify!($sarg), stringify!($sty)) ),* ]), )*
                $( nr::$anr => (stringify!($aname), &[ $( (stringify!($aarg), stringify!($aty)) ),* ]), )*
                _ => return None,
            })
        }

        /// Every call of the table (the status page in docs/ is made from it).
        pub const SUPPORTED: &[(u32, &str)] = &[
            $( (nr::$snr, stringify!($sname)), )*
            $( (nr::$anr, stringify!($aname)), )*
        ];
    };
}

include!("list.rs");

/// What programs try as a matter of course, content with ENOSYS (a kernel built without them answers the same): no
/// warning. Memory policies, keys, perf, bpf, userfaultfd, rseq, io_uring, the mount calls of libmount, landlock.
const QUIET: &[u32] = &[
    nr::__NR_mbind,
    nr::__NR_set_mempolicy,
    nr::__NR_get_mempolicy,
    nr::__NR_add_key,
    nr::__NR_request_key,
    nr::__NR_keyctl,
    nr::__NR_perf_event_open,
    nr::__NR_bpf,
    nr::__NR_userfaultfd,
    nr::__NR_rseq,
    nr::__NR_io_uring_setup,
    nr::__NR_open_tree,
    nr::__NR_fsopen,
    nr::__NR_landlock_create_ruleset,
];

/// Warns once a number and answers as Linux does for a call it was built without.
fn unsupported(number: u32) -> Errno {
    use std::sync::atomic::{AtomicU64, Ordering};
    static WARNED: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];
    if QUIET.contains(&number) {
        return Errno::ENOSYS;
    }
    if let Some(word) = WARNED.get(number as usize / 64) {
        let bit = 1u64 << (number % 64);
        if word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            log::warn!(target: "syscall", "system call {number} is not there yet: ENOSYS");
        }
    }
    Errno::ENOSYS
}
