//! Streams, datagrams, files in flight.

use super::scm::Rights;
use super::*;
use crate::socket::{Control, SocketFile};

/// What is in flight is counted for all: these tests run one after the other.
static FLIGHT: Mutex<()> = Mutex::new(());

fn pair(ty: u32) -> (Arc<UnixSock>, Arc<UnixSock>) {
    let cred = Ucred { pid: 1, uid: 2, gid: 3 };
    let a = UnixSock::with_cred(ty, cred);
    let b = UnixSock::with_cred(ty, cred);
    UnixSock::join(&a, &b, cred);
    (a, b)
}

fn send(s: &UnixSock, data: &[u8]) -> Result<usize> {
    s.try_send(&mut SendMsg::default(), &mut IovIter::kernel_src(data))
}

fn recv(s: &UnixSock, n: usize, flags: u32) -> Result<(Vec<u8>, RecvMsg)> {
    let mut buf = vec![0; n];
    let mut m = RecvMsg { flags, wants_control: true, ..RecvMsg::default() };
    let got = s.try_recv(&mut m, &mut IovIter::kernel_dst(&mut buf))?;
    buf.truncate(got);
    Ok((buf, m))
}

fn send_files(s: &UnixSock, files: Vec<Arc<File>>) -> Result<usize> {
    let rights = Some(Rights::with_limit(files, 7, 100)?);
    let control = Control { rights, ..Control::default() };
    s.try_send(&mut SendMsg { control, ..SendMsg::default() }, &mut IovIter::kernel_src(b"f"))
}

fn poll_now(s: &UnixSock) -> u32 {
    let target: Arc<klib::waitqueue::TaskTarget> = Arc::default();
    s.poll(&mut PollTable::for_task(&target))
}

#[test]
fn a_stream_keeps_order_and_ends() {
    let (a, b) = pair(c::SOCK_STREAM);
    assert_eq!(recv(&b, 4, 0).map(|r| r.0), Err(Errno::EAGAIN));
    assert_eq!(send(&a, b"hello "), Ok(6));
    assert_eq!(send(&a, b"world"), Ok(5));
    assert_eq!(recv(&b, 8, c::MSG_PEEK).map(|r| r.0), Ok(b"hello wo".to_vec()));
    assert_eq!(b.inq(), Ok(11));
    assert_eq!(recv(&b, 20, 0).map(|r| r.0), Ok(b"hello world".to_vec()));
    assert_eq!(a.outq(), Ok(0));
    assert_eq!(a.shutdown(c::SHUT_WR), Ok(()));
    assert_eq!(recv(&b, 4, 0).map(|r| r.0), Ok(vec![]));
    assert_eq!(send(&a, b"x"), Err(Errno::EPIPE));
    assert_ne!(poll_now(&b) & poll::POLLRDHUP, 0);
    send(&b, b"back").expect("other way");
    b.release();
    assert_eq!(recv(&a, 9, 0).map(|r| r.0), Ok(b"back".to_vec()));
    assert_eq!(recv(&a, 9, 0).map(|r| r.0), Ok(vec![]));
}

#[test]
fn a_full_stream_says_again_and_wakes_late() {
    let (a, b) = pair(c::SOCK_STREAM);
    let mut sent = 0;
    loop {
        match send(&a, &[7; 65536]) {
            Ok(n) => sent += n,
            Err(e) => break assert_eq!(e, Errno::EAGAIN),
        }
    }
    assert!(sent >= 128 * 1024, "only {sent} bytes fit");
    assert_eq!(poll_now(&a) & poll::OUT, 0);
    let mut got = 0;
    while poll_now(&a) & poll::OUT == 0 {
        got += recv(&b, 4096, 0).expect("data").0.len();
    }
    assert!(got > sent / 2, "woken after {got} of {sent}");
}

#[test]
fn closing_with_unread_data_resets() {
    let (a, b) = pair(c::SOCK_STREAM);
    send(&a, b"lost").expect("sent");
    b.release();
    assert_eq!(recv(&a, 1, 0).map(|r| r.0), Err(Errno::ECONNRESET));
    assert_eq!(recv(&a, 1, 0).map(|r| r.0), Ok(vec![]));
    assert_eq!(send(&a, b"x"), Err(Errno::EPIPE));
}

#[test]
fn packets_keep_their_borders() {
    for ty in [c::SOCK_DGRAM, c::SOCK_SEQPACKET] {
        let (a, b) = pair(ty);
        send(&a, b"first").expect("sent");
        send(&a, b"").expect("sent");
        send(&a, b"third").expect("sent");
        let (data, m) = recv(&b, 3, 0).expect("first");
        assert_eq!((&data[..], m.out_flags & c::MSG_TRUNC), (&b"fir"[..], c::MSG_TRUNC));
        assert_eq!(recv(&b, 3, 0).map(|r| r.0), Ok(vec![]));
        let mut buf = [0; 2];
        let mut m = RecvMsg { flags: c::MSG_TRUNC, ..RecvMsg::default() };
        assert_eq!(b.try_recv(&mut m, &mut IovIter::kernel_dst(&mut buf)), Ok(5));
        assert_eq!(send(&a, &vec![0; 1 << 20]), Err(Errno::EMSGSIZE));
    }
}

#[test]
fn credentials_come_when_asked_for() {
    let (a, b) = pair(c::SOCK_STREAM);
    b.common.opts().passcred = true;
    send(&a, b"x").expect("sent");
    let other = Ucred { pid: 9, uid: 9, gid: 9 };
    let mut m = SendMsg { cred: Some(other), ..SendMsg::default() };
    a.try_send(&mut m, &mut IovIter::kernel_src(b"y")).expect("sent");
    let (data, m) = recv(&b, 10, 0).expect("one writer only");
    assert_eq!(data, b"x");
    assert_eq!(m.control[0].data, a.cred.bytes());
    let (data, m) = recv(&b, 10, 0).expect("the other");
    assert_eq!((&data[..], &m.control[0].data[..]), (&b"y"[..], &other.bytes()[..]));
}

#[test]
fn files_travel_and_cycles_are_collected() {
    let _alone = FLIGHT.lock();
    let (a, b) = pair(c::SOCK_STREAM);
    let fa = SocketFile::open(&crate::task::Cred::root(), a.clone(), 0);
    let fb = SocketFile::open(&crate::task::Cred::root(), b.clone(), 0);
    send_files(&a, vec![fa.clone(), fb.clone()]).expect("sent");
    let (_, m) = recv(&b, 9, 0).expect("received");
    assert_eq!(m.rights.len(), 2);
    drop(m);
    // a's file waits in b's queue, b's file in a's queue; then both are closed.
    send_files(&a, vec![fa.clone()]).expect("sent");
    send_files(&b, vec![fb.clone()]).expect("sent");
    let (wa, wb) = (Arc::downgrade(&fa), Arc::downgrade(&fb));
    let (sa, sb) = (Arc::downgrade(&a), Arc::downgrade(&b));
    drop((a, b));
    drop(fa);
    assert!(wa.upgrade().is_some(), "b can still receive it");
    drop(fb);
    // Nothing is open any more; the next close of any socket collects.
    pair(c::SOCK_STREAM).0.release();
    assert!(wa.upgrade().is_none() && wb.upgrade().is_none());
    assert!(sa.upgrade().is_none() && sb.upgrade().is_none());
}

#[test]
fn a_long_chain_of_files_ends_without_recursion() {
    let _alone = FLIGHT.lock();
    let mut inner: Option<Arc<File>> = None;
    for _ in 0..50_000 {
        let (a, b) = pair(c::SOCK_DGRAM);
        let fb = SocketFile::open(&crate::task::Cred::root(), b, 0);
        if let Some(f) = inner.take() {
            let rights = Some(Rights::with_limit(vec![f], 8, usize::MAX).expect("no limit"));
            let control = Control { rights, ..Control::default() };
            a.try_send(&mut SendMsg { control, ..SendMsg::default() }, &mut IovIter::kernel_src(b"f"))
                .expect("sent");
        }
        inner = Some(fb);
    }
    drop(inner);
}

#[test]
fn too_many_files_in_flight_are_refused() {
    let (a, b) = pair(c::SOCK_STREAM);
    let f = SocketFile::open(&crate::task::Cred::root(), b, 0);
    let r = Rights::with_limit(vec![f.clone(), f.clone()], 991, 2).expect("within");
    assert_eq!(Rights::with_limit(vec![f.clone()], 991, 2).err(), Some(Errno::ETOOMANYREFS));
    drop(r);
    Rights::with_limit(vec![f], 991, 2).expect("free again");
    a.release();
}
