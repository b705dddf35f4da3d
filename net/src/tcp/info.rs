//! TCP_INFO (`struct tcp_info` of linux/tcp.h).

use super::flow::TcpState;
use super::sock::TcpSock;

const TCP_INFO_LEN: usize = 248;

/// The structure as of Linux 6.12; fields that are not kept are zero.
pub(crate) fn tcp_info(s: &TcpSock) -> Vec<u8> {
    let mut v = vec![0u8; TCP_INFO_LEN];
    let state = s.state();
    v[0] = state as u8;
    let put32 = |v: &mut [u8], at: usize, x: u64| {
        let x = u32::try_from(x).unwrap_or(u32::MAX);
        v[at..at + 4].copy_from_slice(&x.to_ne_bytes());
    };
    let put64 = |v: &mut [u8], at: usize, x: u64| v[at..at + 8].copy_from_slice(&x.to_ne_bytes());
    if state == TcpState::Listen {
        if let Some((now, max)) = s.backlog() {
            put32(&mut v, 24, now as u64);
            put32(&mut v, 28, max as u64);
        }
        return v;
    }
    let Some(c) = s.conn() else { return v };
    c.peek(|i| {
        let f = &i.flow;
        let st = f.stats();
        let mss = f.mss().max(1) as u64;
        let (snd_wnd, snd_ws, rcv_ws) = f.windows();
        // TCPI_OPT_SACK | TCPI_OPT_WSCALE
        v[5] = 2 | 4;
        v[6] = (snd_ws & 15) | (rcv_ws << 4);
        put32(&mut v, 8, (st.srtt_us + 4 * st.rttvar_us).max(200_000));
        put32(&mut v, 12, 40_000);
        put32(&mut v, 16, mss);
        put32(&mut v, 20, mss);
        put32(&mut v, 24, (f.in_flight() as u64).div_ceil(mss));
        put32(&mut v, 60, mss + 40);
        put32(&mut v, 64, f.recv_capacity() as u64);
        put32(&mut v, 68, st.srtt_us);
        put32(&mut v, 72, st.rttvar_us);
        put32(&mut v, 76, 0x7fff_ffff);
        // The engine does not show its window; the most that was ever under way is the nearest to it.
        put32(&mut v, 80, u64::from(st.max_flight).div_ceil(mss).max(10));
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
        put32(&mut v, 144, (f.send_queue().saturating_sub(f.in_flight())) as u64);
        put32(&mut v, 148, st.min_rtt_us);
        put32(&mut v, 228, u64::from(snd_wnd));
    });
    v
}
