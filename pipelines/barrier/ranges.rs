//! Ranges of addresses as nftables takes them: sorted, neither overlapping nor touching.

use std::net::{IpAddr, Ipv6Addr};
use wayfarer_dataplane::table::Prefix;

/// The first and last address of one family.
pub(super) type Range = (IpAddr, IpAddr);

/// Returns the first and the last address of a prefix.
pub(super) fn of_prefix(prefix: Prefix) -> Range {
    let (first, (_, last)) = (prefix.address(), prefix.span());
    (first, if first.is_ipv4() { IpAddr::V4((last as u32).into()) } else { Ipv6Addr::from_bits(last).into() })
}

/// Returns whether a range contains every address of its family.
pub(super) fn is_everywhere((first, last): Range) -> bool {
    number(first) == 0 && number(last) == u128::MAX >> (128 - width(first))
}

/// Returns whether a range that begins with `first` touches or overlaps an earlier one that ends with `last`.
pub(super) fn touch(last: IpAddr, first: IpAddr) -> bool {
    last.is_ipv4() == first.is_ipv4() && number(first) <= number(last).saturating_add(1)
}

/// A set of addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl Ranges {
    /// Adds a range.
    pub(super) fn add(&mut self, (first, last): Range) {
        let ranges = if first.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        ranges.push((number(first), number(last)));
    }

    /// Adds the remote range of a pair, or the local one if the remote one covers every address.
    pub(super) fn add_pair(&mut self, [far, near]: [Range; 2]) {
        self.add(if is_everywhere(far) { near } else { far });
    }

    /// Adds the ranges of `other`.
    pub(super) fn extend(&mut self, other: &Self) {
        self.v4.extend(&other.v4);
        self.v6.extend(&other.v6);
    }

    /// Sorts the ranges and joins those that overlap or touch.
    pub(super) fn merge(&mut self) {
        for ranges in [&mut self.v4, &mut self.v6] {
            ranges.sort_unstable();
            ranges.dedup_by(|next, before| {
                let joins = next.0 <= before.1.saturating_add(1);
                before.1 = if joins { before.1.max(next.1) } else { before.1 };
                joins
            });
        }
    }

    /// Returns the ranges of one family.
    pub(super) fn of(&self, is_ipv4: bool) -> &[(u128, u128)] {
        if is_ipv4 { &self.v4 } else { &self.v6 }
    }
}

/// Returns the number of bits of an address.
fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Range {
        let (address, length) = text.split_once('/').unwrap();
        of_prefix(Prefix::new(address.parse().unwrap(), length.parse().unwrap()).unwrap())
    }

    fn merged(prefixes: &[&str]) -> Vec<(u128, u128)> {
        let mut ranges = Ranges::default();
        prefixes.iter().for_each(|text| ranges.add(prefix(text)));
        ranges.merge();
        let is_ipv4 = !prefixes[0].contains(':');
        assert!(ranges.of(!is_ipv4).is_empty());
        ranges.of(is_ipv4).to_vec()
    }

    #[test]
    fn overlapping_and_adjacent_ranges_are_merged() {
        let one = |text| merged(&[text]);
        assert_eq!(merged(&["10.1.0.0/16", "10.0.0.0/16", "10.0.7.0/24"]), one("10.0.0.0/15"));
        assert_eq!(merged(&["10.0.0.0/24", "10.0.2.0/24"]).len(), 2);
        assert_eq!(merged(&["0.0.0.0/1", "128.0.0.0/1"]), [(0, u128::from(u32::MAX))]);
        assert_eq!(merged(&["::/0", "2001:db8::/32"]), [(0, u128::MAX)]);
        assert_eq!(merged(&["2001:db8::1/128", "2001:db8::/128"]), one("2001:db8::/127"));
    }

    #[test]
    fn pairs_are_matched_by_their_far_side_unless_it_is_everything() {
        for (far, near, told) in [
            ("10.0.0.0/8", "172.16.0.0/12", "10.0.0.0/8"),
            ("0.0.0.0/0", "10.98.0.7/32", "10.98.0.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "2001:db8::/32", "2001:db8::/32"),
        ] {
            let mut ranges = Ranges::default();
            ranges.add_pair([prefix(far), prefix(near)]);
            assert_eq!(ranges.of(far.contains('.')), merged(&[told]), "{far} {near}");
        }
    }
}
