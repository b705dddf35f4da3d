//! ETHTOOL_MSG_STRSET_GET: sets of names.

use crate::Errno;
use crate::socket::ethtool::strings;
use crate::socket::netlink::attr::{self, Attr, Nack};
use net::dev::Dev;
use net::rtnl::Msg;

const STRINGSETS: u16 = 2;
const COUNTS_ONLY: u16 = 3;
const NESTED: u16 = 0x8000;
/// More sets in one request are refused: there are not so many.
const MAX_SETS: usize = 64;

/// Writes the sets that the request names, or all of the device, or all that belong to none.
pub fn put(dev: Option<&Dev>, attrs: &[Attr<'_>], m: &mut Msg) -> Result<(), Nack> {
    let counts = attr::find(attrs, COUNTS_ONLY).is_some();
    let mut ids = Vec::new();
    if let Some(sets) = attr::find(attrs, STRINGSETS) {
        for s in sets.nested()? {
            let parts = s.nested()?;
            let id = attr::find(&parts, 1).ok_or_else(|| Nack::invalid("no string set id", &s))?;
            let n = id.number()?;
            if ids.len() >= MAX_SETS {
                return Err(Nack::invalid("too many string sets", &s));
            }
            if dev.is_none() && strings::OF_DEVICE.contains(&n) {
                return Err(Nack {
                    errno: Errno::EINVAL,
                    text: "requested per device strings without dev",
                    at: id.at,
                });
            }
            if !ids.contains(&n) {
                ids.push(n);
            }
        }
    } else {
        ids.extend(if dev.is_some() { &strings::OF_DEVICE[..] } else { &strings::GLOBAL[..] });
    }
    m.nest(STRINGSETS | NESTED, |m| {
        for id in ids {
            let Some(names) = strings::of(dev, id).filter(|n| !n.is_empty()) else { continue };
            m.nest(1 | NESTED, |m| {
                m.attr_u32(1, id);
                m.attr_u32(2, u32::try_from(names.len()).unwrap_or(0));
                if counts {
                    return;
                }
                m.nest(3 | NESTED, |m| {
                    for (i, n) in (0u32..).zip(&names) {
                        m.nest(1 | NESTED, |m| {
                            m.attr_u32(1, i);
                            m.attr_str(2, n);
                        });
                    }
                });
            });
        }
    });
    Ok(())
}
