//! epoll(7): a list of watched files, and a list of those that may be ready, fed by their wait queues.
//!
//! A wake of a file's queue puts its item on the ready list; epoll_wait asks only the files of that list. Lock
//! order: `EventPoll::inner` is a leaf: files are asked, and registrations made and dropped, with it free.

use super::file::{File, FileOps};
use super::poll::{self, PollTable};
use crate::task::Task;
use crate::{Errno, Result};
use klib::waitqueue::{WaitQueue, WakeTarget};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Flags of an interest that are not events.
pub mod flag {
    #![allow(missing_docs)]
    pub const EXCLUSIVE: u32 = 1 << 28;
    pub const WAKEUP: u32 = 1 << 29;
    pub const ONESHOT: u32 = 1 << 30;
    pub const ET: u32 = 1 << 31;
    pub const PRIVATE: u32 = EXCLUSIVE | WAKEUP | ONESHOT | ET;
}

/// Interests that all instances together may hold (fs.epoll.max_user_watches, less generous than Linux' share of
/// memory).
const MAX_WATCHES: u64 = 1 << 20;
/// How deep instances may watch each other.
const MAX_NESTING: u32 = 5;

static WATCHES: AtomicU64 = AtomicU64::new(0);

/// One watched descriptor.
pub struct Item {
    ep: Weak<EventPoll>,
    file: Weak<File>,
    key: (i32, u64),
    /// Events and flags asked for; after a one-shot has fired only its flags.
    events: AtomicU32,
    data: AtomicU64,
    queued: AtomicBool,
    table: Mutex<Option<PollTable>>,
}

impl WakeTarget for Item {
    fn wake(&self, events: u32) {
        let wants = self.events.load(Ordering::Acquire);
        if wants & !flag::PRIVATE == 0 || events & (wants | poll::ALWAYS) == 0 {
            return;
        }
        if let Some(ep) = self.ep.upgrade() {
            ep.make_ready(self.key);
        }
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        WATCHES.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Inner {
    items: HashMap<(i32, u64), Arc<Item>>,
    ready: VecDeque<Arc<Item>>,
}

/// An epoll instance.
#[derive(Default)]
pub struct EventPoll {
    inner: Mutex<Inner>,
    wait: WaitQueue,
}

impl Item {
    /// What the file is ready for now, of what was asked.
    fn ready_now(&self) -> u32 {
        let wants = self.events.load(Ordering::Acquire) & !flag::PRIVATE;
        if wants == 0 {
            return 0;
        }
        let Some(file) = self.file.upgrade() else { return 0 };
        file.poll_now() & (wants | poll::ALWAYS)
    }

    /// Registers with the file's queues; gives its readiness at that moment.
    fn register(self: &Arc<Self>, file: &File) -> u32 {
        let target = Arc::clone(self) as Arc<dyn WakeTarget>;
        let mut table = PollTable::new(target);
        let wants = self.events.load(Ordering::Acquire);
        if wants & flag::EXCLUSIVE != 0 {
            table = table.exclusive();
        }
        let ready = file.ops.poll(file, &mut table) & (wants | poll::ALWAYS);
        table.registered();
        let old = self.table.lock().replace(table);
        drop(old);
        ready
    }
}

impl EventPoll {
    /// A new instance.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn make_ready(&self, key: (i32, u64)) {
        {
            let mut i = self.inner.lock();
            let Some(item) = i.items.get(&key).cloned() else { return };
            if item.queued.swap(true, Ordering::AcqRel) {
                return;
            }
            i.ready.push_back(item);
        }
        self.wait.wake(poll::IN);
    }

    /// EPOLL_CTL_ADD.
    pub fn add(self: &Arc<Self>, fd: i32, file: &Arc<File>, events: u32, data: u64) -> Result<()> {
        const EXCLUSIVE_OK: u32 =
            poll::IN | poll::OUT | poll::POLLERR | poll::POLLHUP | flag::WAKEUP | flag::ET | flag::EXCLUSIVE;
        let nested = file.ops_as::<Self>();
        if events & flag::EXCLUSIVE != 0 && (events & !EXCLUSIVE_OK != 0 || nested.is_some()) {
            return Err(Errno::EINVAL);
        }
        if let Some(other) = &nested {
            if Arc::ptr_eq(other, self) {
                return Err(Errno::EINVAL);
            }
            if other.depth(self, 1)? >= MAX_NESTING {
                return Err(Errno::ELOOP);
            }
        }
        if WATCHES.fetch_add(1, Ordering::Relaxed) >= MAX_WATCHES {
            WATCHES.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::ENOSPC);
        }
        let key = (fd, file.id());
        let item = Arc::new(Item {
            ep: Arc::downgrade(self),
            file: Arc::downgrade(file),
            key,
            events: AtomicU32::new(events),
            data: AtomicU64::new(data),
            queued: AtomicBool::new(false),
            table: Mutex::new(None),
        });
        {
            let mut i = self.inner.lock();
            if i.items.contains_key(&key) {
                return Err(Errno::EEXIST);
            }
            i.items.insert(key, Arc::clone(&item));
        }
        file.watch(Arc::downgrade(&item));
        if item.register(file) != 0 {
            self.make_ready(key);
        }
        Ok(())
    }

    /// How deep instances are nested below `self`; `ELOOP` if `top` is among them.
    fn depth(&self, top: &Arc<Self>, level: u32) -> Result<u32> {
        if level > MAX_NESTING {
            return Err(Errno::ELOOP);
        }
        // Files are taken hold of outside of the lock: letting go of the last hold takes it again.
        let items: Vec<Arc<Item>> = self.inner.lock().items.values().cloned().collect();
        let below: Vec<Arc<Self>> =
            items.iter().filter_map(|x| x.file.upgrade()).filter_map(|f| f.ops_as::<Self>()).collect();
        let mut deepest = level;
        for b in below {
            if Arc::ptr_eq(&b, top) {
                return Err(Errno::ELOOP);
            }
            deepest = deepest.max(b.depth(top, level + 1)?);
        }
        Ok(deepest)
    }

    /// EPOLL_CTL_MOD.
    pub fn modify(&self, fd: i32, file: &Arc<File>, events: u32, data: u64) -> Result<()> {
        let key = (fd, file.id());
        let item = self.inner.lock().items.get(&key).cloned().ok_or(Errno::ENOENT)?;
        if (item.events.load(Ordering::Acquire) | events) & flag::EXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        item.events.store(events, Ordering::Release);
        item.data.store(data, Ordering::Release);
        if item.register(file) != 0 {
            self.make_ready(key);
        }
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    pub fn remove(&self, fd: i32, file: &File) -> Result<()> {
        if self.forget((fd, file.id())) { Ok(()) } else { Err(Errno::ENOENT) }
    }

    fn forget(&self, key: (i32, u64)) -> bool {
        let item = {
            let mut i = self.inner.lock();
            let item = i.items.remove(&key);
            if let Some(it) = &item
                && it.queued.load(Ordering::Acquire)
            {
                i.ready.retain(|x| !Arc::ptr_eq(x, it));
            }
            item
        };
        let Some(item) = item else { return false };
        let table = item.table.lock().take();
        drop(table);
        true
    }

    /// Takes up to `max` ready events off the list. Level-triggered ones go back to its end.
    fn collect(&self, max: usize) -> Vec<(Arc<Item>, u32)> {
        let mut batch = std::mem::take(&mut self.inner.lock().ready);
        let mut out = Vec::new();
        let mut again = Vec::new();
        while out.len() < max {
            let Some(item) = batch.pop_front() else { break };
            // From here on a wake puts it back on the list.
            item.queued.store(false, Ordering::Release);
            let ready = item.ready_now();
            if ready == 0 {
                continue;
            }
            let wants = item.events.load(Ordering::Acquire);
            if wants & flag::ONESHOT != 0 {
                item.events.store(wants & flag::PRIVATE, Ordering::Release);
            } else if wants & flag::ET == 0 {
                again.push(Arc::clone(&item));
            }
            out.push((item, ready));
        }
        let more = {
            let mut i = self.inner.lock();
            // What was not looked at stays in front, in its order.
            while let Some(item) = batch.pop_back() {
                i.ready.push_front(item);
            }
            for item in again {
                if i.items.contains_key(&item.key) && !item.queued.swap(true, Ordering::AcqRel) {
                    i.ready.push_back(item);
                }
            }
            !i.ready.is_empty()
        };
        if more && !out.is_empty() {
            self.wait.wake_one(poll::IN);
        }
        out
    }

    /// epoll_wait(2) without the wait: up to `max` events as (events, data).
    pub fn try_wait(&self, max: usize) -> Vec<(u32, u64)> {
        self.collect(max).into_iter().map(|(i, e)| (e, i.data.load(Ordering::Acquire))).collect()
    }

    /// epoll_wait(2): waits for events and hands them to `give`; if that fails they count as not reported.
    pub async fn wait(
        &self,
        cur: &Task,
        max: usize,
        patience: super::syscalls::poll::Patience,
    ) -> Result<Reported> {
        let got = super::syscalls::poll::wait_for(cur, patience, |table| {
            table.register(&self.wait, poll::IN);
            let v = self.collect(max);
            (!v.is_empty()).then_some(v)
        })
        .await;
        match got {
            Ok(v) => Ok(Reported(v.unwrap_or_default())),
            // epoll_wait is never restarted.
            Err(e) if e.is_restart() => Err(Errno::EINTR),
            Err(e) => Err(e),
        }
    }

    /// The guest could not take them: they will be reported again.
    pub fn give_back(&self, r: Reported) {
        for (item, _) in r.0 {
            self.make_ready(item.key);
        }
    }

    /// The watched descriptors, for /proc/PID/fdinfo.
    pub fn show(&self) -> String {
        let i = self.inner.lock();
        i.items
            .values()
            .map(|x| {
                format!(
                    "tfd: {:8} events: {:8x} data: {:16x}\n",
                    x.key.0,
                    x.events.load(Ordering::Relaxed),
                    x.data.load(Ordering::Relaxed)
                )
            })
            .collect()
    }
}

/// Events that epoll_wait took off the list.
pub struct Reported(Vec<(Arc<Item>, u32)>);

impl Reported {
    /// As struct epoll_event, packed: 12 bytes each.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() * 12);
        for (item, events) in &self.0 {
            out.extend_from_slice(&events.to_ne_bytes());
            out.extend_from_slice(&item.data.load(Ordering::Acquire).to_ne_bytes());
        }
        out
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if the time was over first.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for EventPoll {
    fn drop(&mut self) {
        // Items and the queues they registered with hold each other: that ends here.
        let items = std::mem::take(&mut self.inner.get_mut().items);
        for item in items.into_values() {
            let table = item.table.lock().take();
            drop(table);
        }
    }
}

/// Called when a watched file goes: its items go with it.
pub(super) fn file_gone(items: &[Weak<Item>]) {
    for item in items.iter().filter_map(Weak::upgrade) {
        if let Some(ep) = item.ep.upgrade() {
            ep.forget(item.key);
        }
    }
}

impl FileOps for EventPoll {
    fn poll(&self, _file: &File, table: &mut PollTable) -> u32 {
        table.register(&self.wait, poll::IN);
        let candidates: Vec<Arc<Item>> = self.inner.lock().ready.iter().cloned().collect();
        if candidates.iter().any(|i| i.ready_now() != 0) { poll::IN } else { 0 }
    }

    fn show_fdinfo(&self, _file: &File) -> String {
        self.show()
    }
}

#[cfg(test)]
mod tests {
    use super::super::anon::anon_file;
    use super::super::eventfd::EventFd;
    use super::super::iov::IovIter;
    use super::*;

    fn event() -> (Arc<EventFd>, Arc<File>) {
        let e = EventFd::new(0, false);
        let f = anon_file("[eventfd]", e.clone(), 2);
        (e, f)
    }

    fn add(e: &EventFd, f: &File) {
        e.try_write(f, 0, &mut IovIter::kernel_src(&1u64.to_ne_bytes())).unwrap();
    }

    fn take(e: &EventFd, f: &File) {
        e.try_read(f, 0, &mut IovIter::kernel_dst(&mut [0; 8])).unwrap();
    }

    #[test]
    fn level_edge_and_one_shot() {
        let ep = EventPoll::new();
        let (a, fa) = event();
        let (b, fb) = event();
        let (c, fc) = event();
        ep.add(1, &fa, poll::POLLIN, 10).unwrap();
        ep.add(2, &fb, poll::POLLIN | flag::ET, 20).unwrap();
        ep.add(3, &fc, poll::POLLIN | flag::ONESHOT, 30).unwrap();
        assert_eq!(ep.add(1, &fa, poll::POLLIN, 0), Err(Errno::EEXIST));
        assert!(ep.try_wait(10).is_empty());
        for (e, f) in [(&a, &fa), (&b, &fb), (&c, &fc)] {
            add(e, f);
        }
        let datas = |v: Vec<(u32, u64)>| v.into_iter().map(|x| x.1).collect::<Vec<_>>();
        assert_eq!(datas(ep.try_wait(10)), [10, 20, 30]);
        assert_eq!(datas(ep.try_wait(10)), [10]);
        add(&b, &fb);
        add(&c, &fc);
        assert_eq!(datas(ep.try_wait(10)), [10, 20]);
        ep.modify(3, &fc, poll::POLLIN | flag::ONESHOT, 31).unwrap();
        take(&a, &fa);
        assert_eq!(datas(ep.try_wait(10)), [31]);
        assert!(ep.try_wait(10).is_empty());
    }

    #[test]
    fn small_batches_take_turns_and_closed_files_go() {
        let ep = EventPoll::new();
        let (a, fa) = event();
        let (b, fb) = event();
        ep.add(1, &fa, poll::POLLIN, 1).unwrap();
        ep.add(2, &fb, poll::POLLIN, 2).unwrap();
        add(&a, &fa);
        add(&b, &fb);
        assert_eq!(ep.try_wait(1)[0].1, 1);
        assert_eq!(ep.try_wait(1)[0].1, 2);
        assert_eq!(ep.try_wait(1)[0].1, 1);
        drop(fb);
        assert_eq!(ep.try_wait(9).len(), 1);
        assert_eq!(ep.inner.lock().items.len(), 1);
        ep.remove(1, &fa).unwrap();
        assert!(ep.try_wait(9).is_empty());
    }

    #[test]
    fn nesting_is_seen_and_loops_are_refused() {
        let outer = EventPoll::new();
        let inner = EventPoll::new();
        let fo = anon_file("[eventpoll]", outer.clone(), 2);
        let fi = anon_file("[eventpoll]", inner.clone(), 2);
        let (e, fe) = event();
        inner.add(5, &fe, poll::POLLIN, 5).unwrap();
        outer.add(6, &fi, poll::POLLIN, 6).unwrap();
        assert_eq!(inner.add(7, &fo, poll::POLLIN, 7), Err(Errno::ELOOP));
        assert!(outer.try_wait(4).is_empty());
        add(&e, &fe);
        assert_eq!(outer.try_wait(4), [(poll::POLLIN, 6)]);
        take(&e, &fe);
        assert!(outer.try_wait(4).is_empty());
    }
}
