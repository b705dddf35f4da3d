//! Frames in a byte stream, each behind its length in four bytes, big-endian: what QEMU's `-netdev stream` and passt speak.

use super::header::{DropReason, ETH_HLEN, Header, Outgoing, Stripped};

/// Bytes of the length.
pub const LENGTH_LEN: usize = 4;
/// Longest frame: an IP packet of 64 KiB behind an Ethernet header with a VLAN tag.
const MAX_FRAME: usize = 65_535 + 18;

/// Writes the length.
pub struct LengthPrefix;

impl Header for LengthPrefix {
    fn rx(&self, msg: &[u8]) -> Result<Stripped, DropReason> {
        Stripped::plain(msg, 0)
    }

    fn tx_len(&self) -> usize {
        LENGTH_LEN
    }

    fn tx(&self, out: &mut [u8], frame: Outgoing<'_>) {
        out.copy_from_slice(&u32::try_from(frame.frame.len()).unwrap_or(0).to_be_bytes());
    }
}

/// Puts frames together from chunks of the stream.
#[derive(Default)]
pub struct Reassembly {
    /// The beginning of a frame with its length, from chunks that are gone.
    part: Vec<u8>,
    /// A length came that no frame has: nothing that follows can be understood.
    broken: bool,
}

fn length(head: &[u8]) -> Option<usize> {
    head.first_chunk::<4>().and_then(|b| usize::try_from(u32::from_be_bytes(*b)).ok())
}

impl Reassembly {
    /// Takes the next chunk and hands every complete frame to `frame`, or the reason why one is thrown away.
    pub fn feed(&mut self, mut chunk: &[u8], mut frame: impl FnMut(Result<&[u8], DropReason>)) {
        if self.broken {
            return;
        }
        while !self.part.is_empty() && !chunk.is_empty() {
            // First the length, then what it says.
            let want = match length(&self.part) {
                None => LENGTH_LEN,
                Some(n) => LENGTH_LEN + n,
            };
            let n = (want - self.part.len()).min(chunk.len());
            let (now, later) = chunk.split_at(n);
            self.part.extend_from_slice(now);
            chunk = later;
            let Some(len) = length(&self.part) else { continue };
            if len > MAX_FRAME {
                self.broken = true;
                return frame(Err(DropReason::Long));
            }
            if self.part.len() == LENGTH_LEN + len {
                frame(check(&self.part[LENGTH_LEN..]));
                self.part.clear();
            }
        }
        while let Some(len) = length(chunk) {
            if len > MAX_FRAME {
                self.broken = true;
                return frame(Err(DropReason::Long));
            }
            let Some(body) = chunk.get(LENGTH_LEN..LENGTH_LEN + len) else { break };
            frame(check(body));
            chunk = &chunk[LENGTH_LEN + len..];
        }
        self.part.extend_from_slice(chunk);
    }

    /// True if the stream cannot be understood any more.
    pub fn is_broken(&self) -> bool {
        self.broken
    }
}

fn check(frame: &[u8]) -> Result<&[u8], DropReason> {
    if frame.len() < ETH_HLEN { Err(DropReason::Short) } else { Ok(frame) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(frames: &[&[u8]]) -> Vec<u8> {
        let mut w = Vec::new();
        for f in frames {
            w.extend_from_slice(&u32::try_from(f.len()).unwrap().to_be_bytes());
            w.extend_from_slice(f);
        }
        w
    }

    #[test]
    fn any_cut_gives_the_same_frames() {
        let frames: [&[u8]; 5] = [&[1; 14], &[2; 60], &[], &[3; 3000], &[4; 13]];
        let w = wire(&frames);
        for step in [1, 2, 3, 4, 5, 17, 18, 63, 100, w.len()] {
            let mut r = Reassembly::default();
            let (mut got, mut short) = (Vec::new(), 0);
            for c in w.chunks(step) {
                r.feed(c, |f| match f {
                    Ok(f) => got.push(f.to_vec()),
                    Err(e) => {
                        assert_eq!(e, DropReason::Short);
                        short += 1;
                    }
                });
            }
            assert_eq!(got, [frames[0], frames[1], frames[3]], "step {step}");
            assert_eq!((short, r.is_broken(), r.part.len()), (2, false, 0), "step {step}");
        }
    }

    #[test]
    fn a_length_of_nonsense_ends_it() {
        for step in [1, 3, 4, 9] {
            let mut r = Reassembly::default();
            let mut errors = Vec::new();
            for c in [&wire(&[&[1; 20]])[..], &[0, 1, 0, 18, 9, 9, 9, 9, 9]].concat().chunks(step) {
                r.feed(c, |f| errors.extend(f.err()));
            }
            assert_eq!((errors, r.is_broken()), (vec![DropReason::Long], true), "step {step}");
            assert!(r.part.len() < 64, "step {step}");
        }
    }
}
