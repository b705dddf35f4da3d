//! What a packet buffer knows about its checksum and its segments.

/// State of the transport checksum (Linux: `skb->ip_summed`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CsumStatus {
    /// Received: not looked at. Sent: complete.
    #[default]
    None,
    /// Received: somebody trustworthy has verified it.
    Unnecessary,
    /// The field at `start + offset` holds the folded pseudo-header sum only; whoever puts the frame on a wire sums the
    /// bytes from `start` to the end and stores the complement there (virtio: `NEEDS_CSUM`). Received frames with it
    /// come from a peer on the same host and count as good. `start` counts from the first byte of the frame as it
    /// stands now (`push` and `pull` keep it right).
    Partial {
        /// First byte that is summed.
        start: u16,
        /// Where the sum goes, counted from `start`: 16 for TCP, 6 for UDP.
        offset: u16,
    },
}

/// Which protocol a super-frame is cut by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GsoType {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP, either version: each segment gets its own UDP header (virtio: `UDP_L4`).
    Udp,
}

/// A frame that stands for several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GsoInfo {
    /// How to cut.
    pub kind: GsoType,
    /// Payload bytes a segment.
    pub size: u16,
    /// Bytes from the start of the *IP header* to the payload. Zero if unknown (received frames): the headers say it.
    pub hdr_len: u16,
}

/// To whom a received frame was addressed (Linux: `skb->pkt_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PktType {
    /// Our own address.
    #[default]
    Host,
    /// Link-layer broadcast.
    Broadcast,
    /// Link-layer multicast.
    Multicast,
    /// Somebody else (promiscuous reception).
    OtherHost,
}
