//! Sockets over the loopback of a real stack, without an executor: the softirq is run by hand.

use super::*;
use crate::socket::msg::{Cmsg, Control};
use std::sync::OnceLock;

fn up() {
    static UP: OnceLock<()> = OnceLock::new();
    UP.get_or_init(|| {
        let lo = stack().devs.by_name("lo").expect("lo");
        stack().set_link_up(lo.ifindex, true).expect("up");
        if lo.addrs.read().is_empty() {
            stack().addr_add(lo.ifindex, net::IfAddr::new([127, 0, 0, 1].into(), 8)).expect("address");
        }
    });
}

fn tcp() -> Arc<InetSock> {
    let com = SockCommon::new(c::AF_INET, c::SOCK_STREAM, IPPROTO_TCP);
    InetSock::wrap(com, Proto::Tcp(TcpSock::new(stack(), Family::V4)))
}

fn udp() -> Arc<InetSock> {
    let com = SockCommon::new(c::AF_INET, c::SOCK_DGRAM, IPPROTO_UDP);
    InetSock::wrap(com, Proto::Udp(UdpSock::new(stack(), Family::V4)))
}

fn addr(port: u16) -> SockAddr {
    SockAddr::from_inet(&SocketAddr::from(([127, 0, 0, 1], port)))
}

fn inner_tcp(s: &InetSock) -> &TcpSock {
    match &s.proto {
        Proto::Tcp(t) => t,
        _ => panic!("not TCP"),
    }
}

fn recv(s: &InetSock, n: usize, flags: u32) -> Result<(Vec<u8>, RecvMsg)> {
    let mut buf = vec![0; n];
    let mut m = RecvMsg { flags, wants_control: true, ..RecvMsg::default() };
    let got = s.try_recv(&mut m, &mut IovIter::kernel_dst(&mut buf))?;
    buf.truncate(got);
    Ok((buf, m))
}

fn send(s: &InetSock, data: &[u8], dest: Dest) -> Result<usize> {
    let r = s.try_send(&mut SendMsg { dest, ..SendMsg::default() }, &mut IovIter::kernel_src(data));
    stack().run_softirq();
    r
}

#[test]
fn a_tcp_connection_over_the_loopback() {
    up();
    let server = tcp();
    inner_tcp(&server).bind(addr(0).to_inet().expect("address")).expect("bound");
    server.is_listening().then(|| panic!("not yet"));
    inner_tcp(&server).listen(5).expect("listens");
    assert!(server.is_listening());
    let at = server.name(false).expect("name").to_inet().expect("address");
    let client = tcp();
    assert_eq!(recv(&client, 1, 0).map(|r| r.0), Err(Errno::ENOTCONN));
    assert_eq!(send(&client, b"x", Dest::Connected), Err(Errno::EPIPE));
    let begun = inner_tcp(&client).connect(at);
    assert_eq!(begun, Err(Errno::EINPROGRESS));
    *client.connecting.lock() = Some(at);
    stack().run_softirq();
    assert_eq!(client.connect_result(), Some(Ok(())));
    let conn = server.accept().expect("accepted");
    assert_eq!(server.accept().err(), Some(Errno::EAGAIN));
    assert_eq!(send(&client, b"hello tcp", Dest::Connected), Ok(9));
    let conn = conn.as_any().downcast::<InetSock>().expect("inet");
    assert_eq!(recv(&conn, 5, c::MSG_PEEK).map(|r| r.0), Ok(b"hello".to_vec()));
    assert_eq!(recv(&conn, 100, 0).map(|r| r.0), Ok(b"hello tcp".to_vec()));
    assert_eq!(recv(&conn, 100, 0).map(|r| r.0), Err(Errno::EAGAIN));
    client.shutdown(c::SHUT_WR).expect("shut");
    stack().run_softirq();
    assert_eq!(recv(&conn, 100, 0).map(|r| r.0), Ok(vec![]));
    for s in [client, conn, server] {
        s.release();
    }
}

#[test]
fn datagrams_with_control_messages() {
    up();
    let (a, b) = (udp(), udp());
    for s in [&a, &b] {
        match &s.proto {
            Proto::Udp(u) => u.bind(addr(0).to_inet().expect("address")).expect("bound"),
            _ => unreachable!(),
        }
    }
    let to = Dest::Addr(b.name(false).expect("name"));
    assert_eq!(send(&a, b"x", Dest::Connected), Err(Errno::EDESTADDRREQ));
    let on = 1i32.to_ne_bytes();
    if let Proto::Udp(u) = &b.proto {
        for name in [c::IP_PKTINFO, c::IP_RECVTTL] {
            u.setsockopt(0, name.cast_signed(), &on).expect("option");
        }
    }
    b.common.opts().timestamp = crate::socket::Timestamping::Micros(false);
    assert_eq!(send(&a, b"datagram", to.clone()), Ok(8));
    let (data, m) = recv(&b, 4, c::MSG_TRUNC).expect("received");
    assert_eq!((data.len(), m.out_flags), (4.max(data.len()), c::MSG_TRUNC));
    assert_eq!(m.name.bytes(), a.name(false).expect("name").bytes());
    let kinds: Vec<_> = m.control.iter().map(|x| (x.level, x.ty)).collect();
    assert_eq!(
        kinds,
        [(c::SOL_SOCKET, c::SO_TIMESTAMP_OLD), (c::SOL_IP, c::IP_PKTINFO), (c::SOL_IP, c::IP_TTL)]
    );
    let bad = Control { other: vec![Cmsg { level: 0, ty: 999, data: vec![] }], ..Control::default() };
    let mut m = SendMsg { dest: to, control: bad, ..SendMsg::default() };
    assert_eq!(a.try_send(&mut m, &mut IovIter::kernel_src(b"y")), Err(Errno::EINVAL));
    a.release();
    b.release();
}
