//! TCP_INFO (`struct tcp_info` of linux/tcp.h).

use super::conn::Inner;
use super::flow::TcpState;
use super::listen::Listener;
use super::sock::TcpSock;
use klib::ktime::Ktime;

const TCP_INFO_LEN: usize = 248;

fn put32(v: &mut [u8], at: usize, x: u64) {
    let x = u32::try_from(x).unwrap_or(u32::MAX);
    v[at..at + 4].copy_from_slice(&x.to_ne_bytes());
}

fn put64(v: &mut [u8], at: usize, x: u64) {
    v[at..at + 8].copy_from_slice(&x.to_ne_bytes());
}

/// The structure as of Linux 6.12; fields that are not kept are zero.
pub(crate) fn tcp_info(s: &TcpSock) -> Vec<u8> {
    if let Some(c) = s.conn() {
        let now = s.net().now();
        return c.peek(|i| conn_info(i, now));
    }
    if let Some((now, max)) = s.backlog() {
        return backlog_info(now, max);
    }
    let mut v = vec![0u8; TCP_INFO_LEN];
    v[0] = TcpState::Close as u8;
    v
}

/// Of a listener: how many connections wait to be accepted, and how many may.
pub(crate) fn listen_info(l: &Listener) -> Vec<u8> {
    backlog_info(l.ready(), l.backlog())
}

fn backlog_info(now: usize, max: usize) -> Vec<u8> {
    let mut v = vec![0u8; TCP_INFO_LEN];
    v[0] = TcpState::Listen as u8;
    put32(&mut v, 24, now as u64);
    put32(&mut v, 28, max as u64);
    v
}

/// Of a connection.
pub(super) fn conn_info(i: &Inner, now: Ktime) -> Vec<u8> {
    let mut v = vec![0u8; TCP_INFO_LEN];
    v[0] = i.flow.state() as u8;
    let f = &i.flow;
    let st = f.stats();
    let mss = f.mss().max(1) as u64;
    let segs = |bytes: u32| u64::from(bytes).div_ceil(mss);
    let ms = |at: Ktime| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
    let (snd_wnd, snd_ws, rcv_ws) = f.windows();
    let opts = f.options();
    v[5] = u8::from(opts.timestamps) | u8::from(opts.sack) << 1 | u8::from(opts.wscale) << 2;
    v[6] = (snd_ws & 15) | (rcv_ws << 4);
    put32(&mut v, 8, 1_000_000);
    put32(&mut v, 12, 40_000);
    put32(&mut v, 16, mss);
    put32(&mut v, 20, mss);
    put32(&mut v, 24, (f.in_flight() as u64).div_ceil(mss));
    put32(&mut v, 52, ms(f.last_data_received()));
    put32(&mut v, 56, ms(i.heard));
    put32(&mut v, 60, f.mtu() as u64);
    put32(&mut v, 64, f.recv_capacity() as u64);
    put32(&mut v, 76, 0x7fff_ffff);
    put32(&mut v, 80, 10);
    put32(&mut v, 84, mss);
    put32(&mut v, 88, 3);
    put32(&mut v, 96, f.recv_capacity() as u64);
    put32(&mut v, 100, st.retrans);
    put64(&mut v, 104, u64::MAX);
    put64(&mut v, 112, u64::MAX);
    put64(&mut v, 120, st.bytes_acked);
    put64(&mut v, 128, st.bytes_received);
    put32(&mut v, 136, st.segs_out);
    put32(&mut v, 140, st.segs_in);
    put32(&mut v, 228, u64::from(snd_wnd));
    put32(&mut v, 232, (f.recv_capacity() - f.recv_queue().min(f.recv_capacity())) as u64);
    let Some(snd) = f.sender() else { return v };
    let n = snd.counters;
    v[1] = snd.state() as u8;
    v[2] = u8::try_from(snd.backoff()).unwrap_or(u8::MAX);
    v[3] = u8::try_from(i.probes.max(f.window_probes())).unwrap_or(u8::MAX);
    v[4] = v[2].max(u8::try_from(f.window_probes()).unwrap_or(u8::MAX));
    put32(&mut v, 8, u64::try_from(snd.rto().as_micros()).unwrap_or(u64::MAX));
    put32(&mut v, 28, segs(snd.board.sacked()));
    put32(&mut v, 32, segs(snd.board.lost()));
    put32(&mut v, 36, segs(snd.board.retrans()));
    put32(&mut v, 44, ms(snd.last_send));
    put32(&mut v, 68, snd.rtt.srtt_us);
    put32(&mut v, 72, snd.rtt.rttvar_us);
    if snd.cc.ssthresh != u32::MAX {
        put32(&mut v, 76, u64::from(snd.cc.ssthresh) / mss);
    }
    put32(&mut v, 80, u64::from(snd.cc.cwnd) / mss);
    put32(&mut v, 144, f.not_sent() as u64);
    put32(&mut v, 148, if snd.rtt.min_us == 0 { u64::from(u32::MAX) } else { snd.rtt.min_us });
    put32(&mut v, 192, n.delivered / mss);
    put64(&mut v, 200, n.bytes_sent);
    put64(&mut v, 208, n.bytes_retrans);
    put32(&mut v, 216, u64::from(n.dsack_dups));
    put32(&mut v, 220, u64::from(n.reord_seen));
    v[240..242].copy_from_slice(&u16::try_from(n.rtos).unwrap_or(u16::MAX).to_ne_bytes());
    v
}
