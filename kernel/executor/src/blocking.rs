//! Host calls that sleep, on a pool of host threads: started when needed, gone when idle.

use crate::crash;
use crate::machine::lock;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Threads at most; further jobs queue.
const MAX_THREADS: usize = 8;
/// A thread without work ends after this time.
const IDLE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Pool {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { jobs: VecDeque::new(), threads: 0, idle: 0 });
static WORK: Condvar = Condvar::new();

/// Runs `f` on a host thread of its own and waits for its result. If the future is dropped, `f` runs all the same.
pub fn spawn_blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Blocking<T> {
    let cell = Arc::new(Mutex::new(State { value: None, waker: None }));
    let theirs = Arc::clone(&cell);
    submit(Box::new(move || {
        let value = f();
        let waker = {
            let mut state = lock(&theirs);
            state.value = Some(value);
            state.waker.take()
        };
        if let Some(w) = waker {
            w.wake();
        }
    }));
    Blocking { cell }
}

struct State<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// Future of [`spawn_blocking`].
#[must_use = "futures do nothing unless awaited"]
pub struct Blocking<T> {
    cell: Arc<Mutex<State<T>>>,
}

impl<T> Future for Blocking<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = lock(&self.cell);
        match state.value.take() {
            Some(v) => Poll::Ready(v),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn submit(job: Job) {
    let mut pool = lock(&POOL);
    pool.jobs.push_back(job);
    if pool.idle >= pool.jobs.len() {
        WORK.notify_one();
    } else if pool.threads < MAX_THREADS {
        pool.threads += 1;
        drop(pool);
        if let Err(e) = std::thread::Builder::new().name("kworker".into()).spawn(worker) {
            let mut pool = lock(&POOL);
            pool.threads -= 1;
            if pool.threads == 0 {
                // Nobody will ever run it: do it here, late rather than never.
                let jobs = std::mem::take(&mut pool.jobs);
                drop(pool);
                log::error!(target: "executor", "no host thread for blocking work: {e}");
                jobs.into_iter().for_each(|j| j());
            }
        }
    }
}

fn worker() {
    crash::fatal_here();
    let mut pool = lock(&POOL);
    loop {
        if let Some(job) = pool.jobs.pop_front() {
            drop(pool);
            job();
            pool = lock(&POOL);
            continue;
        }
        pool.idle += 1;
        let (p, timed_out) = WORK.wait_timeout(pool, IDLE).unwrap_or_else(PoisonError::into_inner);
        pool = p;
        pool.idle -= 1;
        if timed_out.timed_out() && pool.jobs.is_empty() {
            pool.threads -= 1;
            return;
        }
    }
}

/// Host threads of the pool at present.
pub fn threads() -> usize {
    lock(&POOL).threads
}
