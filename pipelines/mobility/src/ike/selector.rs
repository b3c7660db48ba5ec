//! Narrowing of traffic selectors (RFC 7296 §2.9).

use super::wire::TrafficSelector;
use alloc::vec::Vec;
use core::net::IpAddr;

/// Most selectors of one child SA.
const MOST: usize = 16;

/// What two selectors have in common.
pub fn intersection(a: &TrafficSelector, b: &TrafficSelector) -> Option<TrafficSelector> {
    if a.start.is_ipv4() != b.start.is_ipv4() {
        return None;
    }
    let protocol = match (a.protocol, b.protocol) {
        (0, other) | (other, 0) => other,
        (one, other) if one == other => one,
        _ => return None,
    };
    let common = TrafficSelector {
        protocol,
        start_port: a.start_port.max(b.start_port),
        end_port: a.end_port.min(b.end_port),
        start: a.start.max(b.start),
        end: a.end.min(b.end),
    };
    (common.start <= common.end && common.start_port <= common.end_port).then_some(common)
}

/// What of `theirs` lies within `ours`; the part that holds what the peer named first comes first.
pub fn narrow(theirs: &[TrafficSelector], ours: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::new();
    for their in theirs {
        for our in ours {
            let Some(common) = intersection(their, our) else { continue };
            let is_covered = narrowed.iter().any(|n| intersection(n, &common).as_ref() == Some(&common));
            if !is_covered && narrowed.len() < MOST {
                narrowed.push(common);
            }
        }
    }
    narrowed
}

/// Whether there are any `inner`, and each lies within one of `outer`.
pub fn is_within(inner: &[TrafficSelector], outer: &[TrafficSelector]) -> bool {
    !inner.is_empty() && inner.iter().all(|i| outer.iter().any(|o| intersection(i, o).as_ref() == Some(i)))
}

/// All traffic of one family.
pub fn everything(is_v4: bool) -> TrafficSelector {
    match is_v4 {
        true => TrafficSelector::range(IpAddr::from([0; 4]), IpAddr::from([255; 4])),
        false => TrafficSelector::range(IpAddr::from([0; 16]), IpAddr::from([255; 16])),
    }
}

impl TrafficSelector {
    /// All traffic from `start` to `end`.
    pub fn range(start: IpAddr, end: IpAddr) -> Self {
        Self { protocol: 0, start_port: 0, end_port: u16::MAX, start, end }
    }

    /// All traffic of one address.
    pub fn host(address: IpAddr) -> Self {
        Self::range(address, address)
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && (self.start..=self.end).contains(&address)
    }
}
