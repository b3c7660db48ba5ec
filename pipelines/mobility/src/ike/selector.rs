//! Narrowing of traffic selectors (RFC 7296 §2.9).

use super::{bounds, wire::TrafficSelector};
use alloc::vec::Vec;
use core::{net::IpAddr, slice};

/// Most comparisons by which selectors are narrowed: a few milliseconds. Ranges that do not overlap
/// need half as many at most.
const MAX_COMPARISONS: usize = 1 << 18;

/// The selectors need more than a child SA may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// IP protocols whose ports the data plane can check: TCP, UDP and SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// Returns the protocol that both allow; 0 is any.
fn common_protocol(a: &TrafficSelector, b: &TrafficSelector) -> Option<u8> {
    match (a.protocol, b.protocol) {
        (0, other) | (other, 0) => Some(other),
        (one, other) => (one == other).then_some(one),
    }
}

/// Returns what two selectors have in common, if anything.
pub fn intersection(a: &TrafficSelector, b: &TrafficSelector) -> Option<TrafficSelector> {
    if a.start.is_ipv4() != b.start.is_ipv4() {
        return None;
    }
    let common = TrafficSelector {
        protocol: common_protocol(a, b)?,
        start_port: a.start_port.max(b.start_port),
        end_port: a.end_port.min(b.end_port),
        start: a.start.max(b.start),
        end: a.end.min(b.end),
    };
    (common.start <= common.end && common.start_port <= common.end_port).then_some(common)
}

/// Returns the parts of `theirs` that lie within `ours`, in the peer's order.
///
/// # Errors
/// [`TooMany`] if there are more than [`bounds::SELECTORS`], or they overlap too often. Some of them
/// alone would be allowed (RFC 7296 §2.9), but nobody would know why the others do not work.
pub fn narrow(theirs: &[TrafficSelector], ours: &[TrafficSelector]) -> Result<Vec<TrafficSelector>, TooMany> {
    let mut narrowed: Vec<TrafficSelector> = Vec::new();
    let mut comparisons = 0;
    for their in theirs {
        for our in ours {
            let common = intersection(their, our);
            comparisons += 1 + common.map_or(0, |_| narrowed.len());
            if comparisons > MAX_COMPARISONS {
                return Err(TooMany);
            }
            let Some(common) = common else { continue };
            if narrowed.iter().any(|n| intersection(n, &common).as_ref() == Some(&common)) {
                continue;
            }
            if narrowed.len() == bounds::SELECTORS {
                return Err(TooMany);
            }
            narrowed.push(common);
        }
    }
    Ok(narrowed)
}

/// Returns the protocol of the traffic between `local` and `remote`, 0 for any. `None` if there is
/// no such traffic, or the data plane cannot check what they say of ports: for ICMP they mean types
/// and codes (RFC 4301 §4.4.1.3).
pub fn protocol_between(local: &TrafficSelector, remote: &TrafficSelector) -> Option<u8> {
    let protocol = common_protocol(local, remote)?;
    let has_any_port = |s: &TrafficSelector| (s.start_port, s.end_port) == (0, u16::MAX);
    let is_checked = WITH_PORTS.contains(&protocol) || (has_any_port(local) && has_any_port(remote));
    (local.start.is_ipv4() == remote.start.is_ipv4() && is_checked).then_some(protocol)
}

/// Returns the number of rules for these selectors in the data plane: pairs of prefixes.
fn rules(local: &[TrafficSelector], remote: &[TrafficSelector]) -> usize {
    let counted = |all: &[TrafficSelector]| -> Vec<(TrafficSelector, usize)> {
        all.iter().map(|s| (*s, prefixes(s.start, s.end))).collect()
    };
    let (local, remote) = (counted(local), counted(remote));
    let of_one = |(local, count): &(TrafficSelector, usize)| {
        let pairs = remote.iter().filter(|(remote, _)| protocol_between(local, remote).is_some());
        pairs.map(|(_, other)| count * other).sum::<usize>()
    };
    local.iter().map(of_one).sum()
}

/// Returns how many prefixes cover exactly the addresses from `first` to `last`.
fn prefixes(first: IpAddr, last: IpAddr) -> usize {
    let (mut from, to) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits())),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits()),
        _ => return 0,
    };
    let mut count = 0;
    while from <= to {
        count += 1;
        let fits = (to - from).checked_add(1).map_or(u128::BITS, u128::ilog2);
        let size = 1u128.checked_shl(from.trailing_zeros().min(fits));
        match size.and_then(|size| from.checked_add(size)) {
            Some(next) => from = next,
            None => break,
        }
    }
    count
}

/// Returns what these selectors count for as [`bounds`] have it: their rules in the data plane, and one
/// for each selector that has none, because it must be kept too. `0` if there are no rules at all.
pub fn cost(local: &[TrafficSelector], remote: &[TrafficSelector]) -> usize {
    let is_idle = |one: &&TrafficSelector, others: &[TrafficSelector]| {
        others.iter().all(|other| protocol_between(one, other).is_none())
    };
    match rules(local, remote) {
        0 => 0,
        rules => {
            let idle = local.iter().filter(|one| is_idle(one, remote)).count()
                + remote.iter().filter(|one| is_idle(one, local)).count();
            rules + idle
        }
    }
}

/// Returns what these selectors count for; see [`cost`].
///
/// # Errors
/// [`TooMany`] if that is more than a child SA may have.
pub fn cost_within_bounds(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Result<usize, TooMany> {
    let fits = |s: &TrafficSelector| prefixes(s.start, s.end) <= bounds::PREFIXES;
    let cost = cost(local, remote);
    match local.iter().chain(remote).all(fits) && cost <= bounds::CHILD_RULES {
        true => Ok(cost),
        false => Err(TooMany),
    }
}

/// Returns how many of `asked` have nothing in common with those that were `agreed`. A whole family of
/// addresses does not count: a side may have none of it.
pub fn left_out(asked: &[TrafficSelector], agreed: &[TrafficSelector]) -> usize {
    let is_missing = |one: &&TrafficSelector| {
        **one != everything(one.start.is_ipv4())
            && agreed.iter().all(|other| intersection(one, other).is_none())
    };
    asked.iter().filter(is_missing).count()
}

/// Returns how many of the selectors `before` do not lie within one of those `after`.
pub fn narrowed(before: &[TrafficSelector], after: &[TrafficSelector]) -> usize {
    before.iter().filter(|one| !is_within(slice::from_ref(*one), after)).count()
}

/// Returns true if `inner` is not empty and each of it lies within one of `outer`.
pub fn is_within(inner: &[TrafficSelector], outer: &[TrafficSelector]) -> bool {
    !inner.is_empty() && inner.iter().all(|i| outer.iter().any(|o| intersection(i, o).as_ref() == Some(i)))
}

/// Returns a selector for all traffic of one family.
pub fn everything(is_v4: bool) -> TrafficSelector {
    match is_v4 {
        true => TrafficSelector::range(IpAddr::from([0; 4]), IpAddr::from([255; 4])),
        false => TrafficSelector::range(IpAddr::from([0; 16]), IpAddr::from([255; 16])),
    }
}

impl TrafficSelector {
    /// Returns a selector for all traffic of the addresses from `start` to `end`.
    pub fn range(start: IpAddr, end: IpAddr) -> Self {
        Self { protocol: 0, start_port: 0, end_port: u16::MAX, start, end }
    }

    /// Returns a selector for all traffic of one address.
    pub fn host(address: IpAddr) -> Self {
        Self::range(address, address)
    }

    /// Returns true if the selector is for the unspecified address alone, which no packet has.
    pub fn is_unspecified(&self) -> bool {
        self.start.is_unspecified() && self.end.is_unspecified()
    }

    /// Returns true if the selector contains this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && (self.start..=self.end).contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: [u8; 4], last: [u8; 4]) -> TrafficSelector {
        TrafficSelector::range(first.into(), last.into())
    }

    #[test]
    fn text_has_a_prefix_or_a_range_and_what_limits_it() {
        let text = |selector: TrafficSelector| alloc::format!("{selector}");
        let one = range([192, 0, 2, 7], [192, 0, 2, 7]);
        assert_eq!(text(TrafficSelector { protocol: 17, ..one }), "192.0.2.7/32[17/0-65535]");
        assert_eq!(text(TrafficSelector { start_port: 80, end_port: 81, ..one }), "192.0.2.7/32[0/80-81]");
        assert_eq!(text(range([10, 1, 0, 0], [10, 1, 127, 255])), "10.1.0.0/17");
        assert_eq!(text(range([10, 1, 0, 0], [10, 1, 0, 2])), "10.1.0.0-10.1.0.2");
        assert_eq!(text(range([10, 1, 0, 128], [10, 1, 1, 127])), "10.1.0.128-10.1.1.127");
        assert_eq!([true, false].map(|is_v4| text(everything(is_v4))), ["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn ranges_cost_as_many_rules_as_prefixes_cover_them() {
        let one = range([10, 0, 0, 0], [10, 0, 0, 255]);
        let four = range([10, 0, 0, 1], [10, 0, 0, 6]);
        let most = range([0, 0, 0, 1], [255, 255, 255, 254]);
        assert_eq!(rules(&[one], &[four, one]), 5);
        assert_eq!((rules(&[most], &[one]), rules(&[most], &[most])), (62, 62 * 62));
        assert_eq!(rules(&[everything(true), everything(false)], &[everything(true), everything(false)]), 2);
        let most6 = TrafficSelector::range([0, 0, 0, 0, 0, 0, 0, 1].into(), IpAddr::from([0xff; 16]));
        assert_eq!(rules(&[most6], &[everything(false)]), 128);
    }

    #[test]
    fn unsupported_selectors_need_no_rules() {
        let with = |protocol, start_port, end_port| TrafficSelector {
            protocol,
            start_port,
            end_port,
            ..range([10, 0, 0, 0], [10, 0, 0, 255])
        };
        let (any, tcp, udp) = (with(0, 0, u16::MAX), with(6, 80, 80), with(17, 0, u16::MAX));
        let (icmp, echo) = (with(1, 0, u16::MAX), with(1, 0x800, 0x8ff));
        assert_eq!([(tcp, any), (any, udp), (icmp, any)].map(|(a, b)| rules(&[a], &[b])), [1; 3]);
        assert_eq!([(echo, echo), (echo, any), (tcp, udp)].map(|(a, b)| rules(&[a], &[b])), [0; 3]);
        assert_eq!(rules(&[with(0, 80, 80)], &[any]), 0, "ports of no protocol");
        assert_eq!(rules(&[echo, tcp], &[any, udp]), 1);
        // They must be kept nevertheless.
        assert_eq!(cost(&[echo, tcp], &[any, udp]), 3);
        assert_eq!((cost(&[tcp], &[any]), cost(&[echo], &[echo])), (1, 0));
        let idle: Vec<_> =
            (0..255).map(|host| TrafficSelector { start: [10, 0, 0, host].into(), ..echo }).collect();
        assert_eq!(cost_within_bounds(&[&idle[..254], &[tcp]].concat(), &[any]), Ok(255));
        assert_eq!(cost_within_bounds(&[&idle[..254], &[tcp]].concat(), &[any, echo, udp]), Err(TooMany));
    }

    #[test]
    fn more_than_a_child_sa_may_have_is_refused_and_never_cut() {
        let nets = |count: u32| -> Vec<_> {
            let net = |n: u32| (u32::from_be_bytes([10, 0, 0, 0]) + (n << 8)).to_be_bytes();
            (0..count).map(|n| range(net(n), (u32::from_be_bytes(net(n)) + 255).to_be_bytes())).collect()
        };
        let everywhere = [everything(true)];
        for count in [1, 16, 17, 100, 255] {
            let all = nets(count);
            assert_eq!(narrow(&everywhere, &all).as_ref(), Ok(&all), "{count} of ours");
            assert_eq!(narrow(&all, &everywhere).as_ref(), Ok(&all), "{count} of the peer's");
            assert_eq!(narrow(&all, &all).as_ref(), Ok(&all), "{count} of both");
            assert_eq!(cost_within_bounds(&all, &everywhere), Ok(count as usize));
        }
        assert_eq!(narrow(&nets(256), &everywhere), Err(TooMany));
        assert_eq!(cost_within_bounds(&nets(16), &nets(16)), Ok(256));
        assert_eq!(cost_within_bounds(&nets(17), &nets(16)), Err(TooMany));
        let most = range([0, 0, 0, 1], [255, 255, 255, 254]);
        assert_eq!(cost_within_bounds(&[most], &[most]), Err(TooMany));
        let most6 = TrafficSelector::range([0, 0, 0, 0, 0, 0, 0, 1].into(), IpAddr::from([0xff; 16]));
        assert_eq!(cost_within_bounds(&[most6], &[everything(false)]), Err(TooMany));
    }

    #[test]
    fn selectors_that_overlap_in_many_ways_do_not_take_long() {
        let sliding = |n: u8| range([10, n, 0, 0], [11, n, 0, 0]);
        let theirs: Vec<_> = (0..=254).map(sliding).collect();
        assert_eq!(narrow(&theirs, &theirs), Err(TooMany));
        let few: Vec<_> = theirs.into_iter().take(20).collect();
        assert_eq!(narrow(&few, &few), Ok(few.clone()));
    }

    #[test]
    fn selectors_without_an_answer_are_counted() {
        let [a, b] = [range([10, 0, 0, 0], [10, 0, 0, 255]), range([10, 1, 0, 0], [10, 1, 0, 255])];
        let part = range([10, 1, 0, 7], [10, 1, 0, 7]);
        assert_eq!(
            (left_out(&[a, b], &[part]), left_out(&[a, b], &[a, part]), left_out(&[], &[a])),
            (1, 0, 0)
        );
        assert_eq!(left_out(&[everything(true), everything(false)], &[a]), 0);
        assert_eq!(
            (narrowed(&[a, b], &[part]), narrowed(&[a, b], &[b, a]), narrowed(&[a, part], &[a, b])),
            (2, 0, 0)
        );
    }
}
