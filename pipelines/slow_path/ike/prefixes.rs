//! Converts ranges of addresses to prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wayfarer_dataplane::{table::Prefix, wire::Address};

/// Returns the prefixes by which a pool of the addresses from `first` to `last` is ranked: the
/// prefix that the operator wrote, whose first and last address may be left out, or else the fewest
/// prefixes that cover the pool.
pub(crate) fn pool_ranks(first: IpAddr, last: IpAddr) -> Vec<Prefix> {
    let common = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return vec![],
    };
    let is_written = |around: &Prefix| {
        let (from, to) = around.span();
        Address::from(first).bits() - from <= 1 && to - Address::from(last).bits() <= 1
    };
    match Prefix::new(first, common as u8).filter(is_written) {
        Some(around) => vec![around],
        None => prefixes(first, last),
    }
}

/// Returns the fewest prefixes that cover exactly the addresses from `first` to `last`.
pub(crate) fn prefixes(first: IpAddr, last: IpAddr) -> Vec<Prefix> {
    let (width, mut from, to) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (32u32, u128::from(a.to_bits()), u128::from(b.to_bits())),
        (IpAddr::V6(a), IpAddr::V6(b)) => (128, a.to_bits(), b.to_bits()),
        _ => return vec![],
    };
    let mut all = Vec::new();
    while from <= to {
        let aligned = from.trailing_zeros().min(width);
        let span = to - from;
        // The greatest power of two that is not greater than the rest of the range.
        let fits = if span == u128::MAX { 128 } else { (span + 1).ilog2() };
        let bits = aligned.min(fits);
        let address: IpAddr = match width {
            32 => Ipv4Addr::from_bits(from as u32).into(),
            _ => Ipv6Addr::from_bits(from).into(),
        };
        all.extend(Prefix::new(address, (width - bits) as u8));
        match 1u128.checked_shl(bits).and_then(|size| from.checked_add(size)) {
            Some(next) => from = next,
            None => break,
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use wayfarer_mobility::ike::bounds;

    fn texts(first: &str, last: &str) -> Vec<String> {
        let all = prefixes(first.parse().unwrap(), last.parse().unwrap());
        all.iter().map(|p| format!("{}/{}", p.address(), p.length())).collect()
    }

    #[test]
    fn no_range_of_ipv4_addresses_needs_more_prefixes_than_a_selector_may() {
        assert_eq!(texts("0.0.0.1", "255.255.255.254").len(), bounds::PREFIXES);
        assert!(texts("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe").len() > bounds::PREFIXES);
    }

    #[test]
    fn a_pool_is_ranked_by_the_prefix_that_was_written_or_those_that_cover_it() {
        let texts = |first: &str, last: &str| {
            let all = pool_ranks(first.parse().unwrap(), last.parse().unwrap());
            all.iter().map(Prefix::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts("10.98.0.1", "10.98.0.254"), ["10.98.0.0/24"]);
        assert_eq!(texts("10.98.0.0", "10.98.0.255"), ["10.98.0.0/24"]);
        assert_eq!(texts("10.98.0.7", "10.98.0.7"), ["10.98.0.7/32"]);
        assert_eq!(texts("fd00::", "fd00::ffff"), ["fd00::/112"]);
        // The only prefix around this range is far too wide.
        assert_eq!(
            texts("10.127.255.252", "10.128.0.2"),
            ["10.127.255.252/30", "10.128.0.0/31", "10.128.0.2/32"]
        );
        assert!(texts("fd00::1", "10.0.0.1").is_empty());
    }

    #[test]
    fn a_range_is_the_fewest_prefixes() {
        assert_eq!(texts("10.0.0.0", "10.0.0.255"), ["10.0.0.0/24"]);
        assert_eq!(
            texts("10.0.0.1", "10.0.0.6"),
            ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]
        );
        assert_eq!(texts("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(texts("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["::/0"]);
        assert_eq!(texts("255.255.255.254", "255.255.255.255"), ["255.255.255.254/31"]);
        assert_eq!(texts("2001:db8::", "2001:db8::ffff"), ["2001:db8::/112"]);
    }
}
