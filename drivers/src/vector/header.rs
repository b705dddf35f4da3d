//! What stands in front of a frame on its way to and from the host.

use net::{CsumStatus, GsoInfo};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of an Ethernet header, the least a frame may have.
pub const ETH_HLEN: usize = 14;

/// Where the frame lies in a received message, and what is known of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stripped {
    /// First byte of the Ethernet header.
    pub at: usize,
    /// Bytes of the frame.
    pub len: usize,
    /// State of the checksum; offsets count from the frame's first byte.
    pub csum: CsumStatus,
    /// Set for a super-frame.
    pub gso: Option<GsoInfo>,
}

impl Stripped {
    /// A plain frame: whatever of `msg` is behind `at`.
    pub fn plain(msg: &[u8], at: usize) -> Result<Self, DropReason> {
        let len = msg.len().checked_sub(at).filter(|l| *l >= ETH_HLEN).ok_or(DropReason::Short)?;
        Ok(Self { at, len, csum: CsumStatus::None, gso: None })
    }

    /// A frame without a header.
    pub fn whole(frame: &[u8]) -> Self {
        Self { at: 0, len: frame.len(), csum: CsumStatus::None, gso: None }
    }
}

macro_rules! reasons {
    ($($variant:ident $name:literal $doc:literal,)*) => {
        /// Why a received message was thrown away.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum DropReason {
            $(#[doc = $doc] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order in which they are counted.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Name of its counter.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("rx_drop_", $name),)*
                }
            }
        }
    };
}

reasons! {
    Short "short" "Shorter than its headers.",
    Long "long" "Longer than any frame.",
    Vnet "vnet" "The virtio-net header does not fit the frame.",
    Header "header" "The tunnel's header has other flags or another version than expected.",
    Protocol "protocol" "The tunnel carries something else than Ethernet.",
    Key "key" "Another key, session or network identifier.",
    Cookie "cookie" "Another cookie.",
    Checksum "checksum" "The tunnel's checksum is wrong.",
    Option "option" "A critical option that is not known.",
    Source "source" "From a stranger.",
}

/// How often each reason occurred.
#[derive(Default)]
pub struct Drops([AtomicU64; DropReason::ALL.len()]);

impl Drops {
    /// Counts one.
    pub fn count(&self, why: DropReason) {
        if let Some(c) = self.0.get(why as usize) {
            c.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So often was it `why`.
    pub fn get(&self, why: DropReason) -> u64 {
        self.0.get(why as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }

    /// Names and counts, in order.
    pub fn stats(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DropReason::ALL.iter().map(|r| (r.name(), self.get(*r)))
    }
}

/// A frame to be sent, as the header that goes in front of it sees it.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The frame, Ethernet header first.
    pub frame: &'a [u8],
    /// `Partial` only if the transport's features have checksums.
    pub csum: CsumStatus,
    /// Set only if the transport's features have segmentation of that kind.
    pub gso: Option<GsoInfo>,
}

/// Takes headers off and puts them on. State (a sequence number) is atomic; frames of a lane are given in order.
pub trait Header: Send + Sync {
    /// Looks at a received message. Whatever the wire says is hostile.
    fn rx(&self, msg: &[u8]) -> Result<Stripped, DropReason>;
    /// Bytes that [`tx`](Self::tx) writes, at most 128; always the same.
    fn tx_len(&self) -> usize;
    /// Writes the header in front of a frame into `out`, which has [`tx_len`](Self::tx_len) bytes of old data.
    fn tx(&self, out: &mut [u8], frame: Outgoing<'_>);
}

/// No header: a message is a frame.
pub struct Bare;

impl Header for Bare {
    fn rx(&self, msg: &[u8]) -> Result<Stripped, DropReason> {
        Stripped::plain(msg, 0)
    }

    fn tx_len(&self) -> usize {
        0
    }

    fn tx(&self, _out: &mut [u8], _frame: Outgoing<'_>) {}
}
