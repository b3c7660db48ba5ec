//! The networks of one side of a tunnel, judged as a whole.

use super::ranges::{Range, touch};
use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr};

/// The networks of one side of a tunnel, each with the whole that it is part of.
#[derive(Debug)]
pub(super) struct Side(BTreeMap<Range, Range>);

impl Side {
    /// Takes the networks of a side. Those that touch are one whole, since all but a few networks are as
    /// many addresses as all. Those within others have been named by themselves, and are judged alike.
    pub(super) fn new(networks: impl IntoIterator<Item = Range>) -> Self {
        let mut level: Vec<Range> = networks.into_iter().collect();
        level.sort_unstable_by_key(|(first, last)| (*first, Reverse(*last)));
        level.dedup();
        let mut wholes = BTreeMap::new();
        while !level.is_empty() {
            let (mut runs, mut nested) = (Vec::<Vec<Range>>::new(), Vec::new());
            for network in level {
                match runs.last_mut().and_then(|run| Some((run.last()?.1, run))) {
                    Some((last, _)) if network.1 <= last => nested.push(network),
                    Some((last, run)) if touch(last, network.0) => run.push(network),
                    _ => runs.push(vec![network]),
                }
            }
            for run in runs {
                if let (Some((first, _)), Some((_, last))) = (run.first().copied(), run.last().copied()) {
                    wholes.extend(run.into_iter().map(|network| (network, (first, last))));
                }
            }
            level = nested;
        }
        Self(wholes)
    }

    /// Returns the whole that a network of the side is part of.
    pub(super) fn whole_of(&self, network: Range) -> Range {
        self.0.get(&network).copied().unwrap_or(network)
    }

    /// Returns whether a network of the side is part of a whole that names nobody.
    pub(super) fn is_wide(&self, network: Range) -> bool {
        is_wide(self.whole_of(network))
    }
}

/// Returns whether addresses are too many to name anybody: more than a /8, or a /16 of IPv6.
pub(super) fn is_wide((first, last): Range) -> bool {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            last.to_bits().saturating_sub(first.to_bits()) > u32::MAX >> 8
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            last.to_bits().saturating_sub(first.to_bits()) > u128::MAX >> 16
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::barrier::ranges;
    use wayfarer_dataplane::table::Prefix;

    fn network(text: &str) -> Range {
        ranges::of_prefix(text.parse::<Prefix>().unwrap())
    }

    fn side(texts: &[&str]) -> Side {
        Side::new(texts.iter().map(|text| network(text)))
    }

    /// All of IPv4 but 192.168.0.0/16.
    const ALL_BUT_ONE: [&str; 16] = [
        "0.0.0.0/1",
        "128.0.0.0/2",
        "192.0.0.0/9",
        "192.128.0.0/11",
        "192.160.0.0/13",
        "192.169.0.0/16",
        "192.170.0.0/15",
        "192.172.0.0/14",
        "192.176.0.0/12",
        "192.192.0.0/10",
        "193.0.0.0/8",
        "194.0.0.0/7",
        "196.0.0.0/6",
        "200.0.0.0/5",
        "208.0.0.0/4",
        "224.0.0.0/3",
    ];

    #[test]
    fn all_but_a_few_networks_are_wide() {
        let mut texts = ALL_BUT_ONE;
        for _ in 0..2 {
            let side = side(&texts);
            assert!(texts.iter().all(|text| side.is_wide(network(text))));
            texts.reverse();
        }
        let with_all = side(&[&["0.0.0.0/0", "10.98.0.0/16"][..], &texts].concat());
        assert!(texts.iter().all(|text| with_all.is_wide(network(text))), "beside all of them");
        assert!(!with_all.is_wide(network("10.98.0.0/16")), "one within a piece");
        let six = ["2000::/16", "2001::/20", "2001:1000::/20"];
        assert!(six.iter().all(|text| side(&six).is_wide(network(text))));
        let halves = ["128.0.0.0/1", "0.0.0.0/1"];
        assert!(halves.iter().all(|half| side(&halves).whole_of(network(half)) == network("0.0.0.0/0")));
    }

    #[test]
    fn several_networks_are_not_wide_unless_they_touch() {
        let private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/16"];
        assert!(!private.iter().any(|text| side(&private).is_wide(network(text))));
        let mixed = ["0.0.0.0/0", "::/0", "10.98.0.0/16", "10.98.0.0/16"];
        assert_eq!(mixed.map(|text| side(&mixed).is_wide(network(text))), [true, true, false, false]);
        for (first, last, expected) in [
            ("0.0.0.1", "255.255.255.255", true),
            ("10.0.0.0", "11.0.0.0", true),
            ("10.0.0.0", "10.255.255.255", false),
            ("2001::", "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
            ("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true),
        ] {
            assert_eq!(is_wide((first.parse().unwrap(), last.parse().unwrap())), expected, "{first}");
        }
    }
}
