use super::*;
use crate::table::Stamp;
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn address() -> impl Strategy<Value = IpAddr> {
    // Few distinct bits, so that prefixes nest and addresses match.
    prop_oneof![
        any::<u8>().prop_map(|b| IpAddr::from([10, b & 3, b >> 4 & 3, b >> 6])),
        any::<u8>().prop_map(|b| IpAddr::from([
            0x2001,
            0xdb8,
            u16::from(b & 3),
            0,
            0,
            0,
            0,
            u16::from(b >> 6)
        ])),
        any::<u128>().prop_map(|b| IpAddr::from(Ipv6Addr::from_bits(b))),
    ]
}

/// Refers to a whole value.
fn whole<T>(value: &T) -> Option<&T> {
    Some(value)
}

fn prefix(a: IpAddr, length: u8) -> Prefix {
    Prefix::new(a, if a.is_ipv4() { length % 33 } else { length }).unwrap()
}

#[test]
fn addresses_far_from_prefixes_need_few_probes() {
    let mut writer = Writer::new();
    let reader = writer.reader();
    let lpm = Lpm::new(&writer, 256);
    let near: IpAddr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
    for length in 32..=128 {
        lpm.insert(&mut writer, Prefix::new(near, length).unwrap(), length);
    }
    let lengths = |address: &str| {
        let bits = Address::from(address.parse::<IpAddr>().unwrap()).bits();
        let ones = |entry: &V6Lengths| entry.iter().map(|word| word.load(Relaxed).count_ones()).sum::<u32>();
        ones(&lpm.v6_guide[lpm.v6_entry_of(bits)]) + ones(&lpm.v6_guide[V6_ENTRIES])
    };
    assert_eq!((lengths("2001:db8:1:9::"), lengths("2001:db8:2::1")), (97, 16));
    assert_eq!(lpm.find(near, &reader), Some(&128));
    assert_eq!(lpm.find("2001:db8:1:2:3:4:5:7".parse::<IpAddr>().unwrap(), &reader), Some(&127));
    assert_eq!(lpm.find("2001:db8:9::1".parse::<IpAddr>().unwrap(), &reader), Some(&44));
    for length in 32..=128 {
        assert!(lpm.remove(&mut writer, Prefix::new(near, length).unwrap()));
    }
    assert_eq!(lengths("2001:db8:1:9::"), 0);
}

#[test]
fn prefixes_chosen_by_a_peer_do_not_collide_in_the_guide() {
    let lpm = Lpm::<u8>::new(&Writer::new(), 8);
    // Sites of 2001:db8::/32 that share an entry with the first one if multiplied with the golden
    // ratio's fraction.
    let golden = |site: u16| 0x2001_0db8_0000_u64 + u64::from(site);
    let entry = |site: u64| site.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - V6_ENTRIES.ilog2());
    let sites: Vec<u64> =
        (1..=u16::MAX).map(golden).filter(|&site| entry(site) == entry(golden(1))).collect();
    let entries: std::collections::HashSet<_> =
        sites.iter().map(|&site| lpm.v6_entry_of(u128::from(site) << (128 - V6_SITE))).collect();
    assert!(sites.len() > 10 && entries.len() > 1, "{sites:x?}");
}

#[test]
fn families_are_separate() {
    let mut writer = Writer::new();
    let reader = writer.reader();
    let lpm = Lpm::new(&writer, 8);
    lpm.insert(&mut writer, "::/0".parse().unwrap(), 6);
    let find = |text: &str| lpm.find(text.parse::<IpAddr>().unwrap(), &reader).copied();
    assert_eq!(find("10.0.0.1"), None);
    lpm.insert(&mut writer, "0.0.0.0/0".parse().unwrap(), 4);
    assert_eq!((find("10.0.0.1"), find("2001:db8::1")), (Some(4), Some(6)));
}

proptest! {
    #[test]
    fn finds_what_a_linear_scan_finds(
        entries in proptest::collection::vec((address(), 0u8..=128, any::<u16>(), any::<bool>()), 0..60),
        wanted in proptest::collection::vec(address(), 1..40),
    ) {
        let mut writer = Writer::new();
        let reader = writer.reader();
        let lpm = Lpm::new(&writer, 16);
        let mut model = std::collections::BTreeMap::new();
        for (a, length, value, remove) in entries {
            let prefix = prefix(a, length);
            if remove {
                prop_assert_eq!(lpm.remove(&mut writer, prefix), model.remove(&prefix).is_some());
            } else {
                lpm.insert(&mut writer, prefix, value);
                model.insert(prefix, value);
            }
        }
        for a in wanted {
            let mut all: Vec<_> = model.iter().filter(|(p, _)| p.contains(a)).collect();
            all.sort_by_key(|(p, _)| std::cmp::Reverse(p.length));
            let scan: Vec<_> = all.into_iter().map(|(_, v)| *v).collect();
            let mut found = Vec::new();
            lpm.find_map(a, &reader, |value| -> Option<()> {
                found.push(*value);
                None
            });
            prop_assert_eq!(lpm.find(a, &reader), scan.first());
            prop_assert_eq!(found, scan);
        }
    }

    /// Answers are the values of all prefixes that contain an address.
    #[test]
    fn no_stamp_of_an_address_outlives_its_answer(
        steps in proptest::collection::vec((address(), 0u8..=128, any::<bool>()), 0..40),
        wanted in proptest::collection::vec(address(), 1..20),
    ) {
        let mut writer = Writer::new();
        let mut reader = writer.reader();
        let lpm = Lpm::new(&writer, 16);
        let answer = |a: IpAddr, reader: &Reader| {
            let mut found = Vec::new();
            lpm.find_map(a, reader, |value| -> Option<()> {
                found.push(*value);
                None
            });
            found
        };
        for (step, (a, length, remove)) in steps.into_iter().enumerate() {
            reader.quiescent();
            let before: Vec<_> = wanted
                .iter()
                .map(|&a| {
                    let parts = reader.parts_of(a.into());
                    let remembered = lpm.remember(a.into(), parts, &reader, whole);
                    (answer(a, &reader), Stamp::new(parts, &reader).unwrap(), remembered)
                })
                .collect();
            match remove {
                true => _ = lpm.remove(&mut writer, prefix(a, length)),
                // A value that was never there before.
                false => lpm.insert(&mut writer, prefix(a, length), step),
            }
            reader.quiescent();
            writer.collect();
            for (&a, (old, mut stamp, remembered)) in wanted.iter().zip(before) {
                let now = answer(a, &reader);
                let is_valid = stamp.is_current(&reader) || stamp.renew(&reader);
                prop_assert!(now == old || !is_valid, "{}: {:?} {:?}", a, old, now);
                prop_assert_eq!(remembered.is_some(), !old.is_empty());
                if let Some(mut remembered) = remembered {
                    let is_valid = remembered.get(&lpm, &reader).is_some() || remembered.renew(&reader);
                    prop_assert_eq!(remembered.get(&lpm, &reader), now.first().filter(|_| is_valid));
                }
            }
        }
    }

    #[test]
    fn prefixes_survive_a_round_trip_through_text(a in address(), length in 0u8..=128) {
        let prefix = prefix(a, length);
        prop_assert_eq!(prefix.to_string().parse::<Prefix>(), Ok(prefix));
    }
}

#[test]
fn refuses_invalid_texts() {
    for (text, error) in [
        ("10.0.0.0/33", PrefixError::Length),
        ("10.0.0.1/8", PrefixError::HostBits),
        ("ten/8", PrefixError::Syntax),
        ("10.0.0.0/-1", PrefixError::Syntax),
        ("", PrefixError::Syntax),
    ] {
        assert_eq!(text.parse::<Prefix>(), Err(error), "{text}");
    }
}

/// Returns the address with number `n` of those whose first 24 bits are without pattern.
fn scattered(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b1).rotate_left(7)).into()
}

/// Returns how many stamps of a hundred addresses are renewed after changes of others' prefixes.
fn renewed_of_100() -> usize {
    let mut writer = Writer::new();
    let mut reader = writer.reader();
    let lpm = Lpm::new(&writer, 256);
    let stamp = |n| Stamp::new(reader.parts_of(scattered(n).into()), &reader).unwrap();
    let mut stamps: Vec<_> = (0..100).map(stamp).collect();
    for n in 1000..1100 {
        lpm.insert(&mut writer, Prefix::new(scattered(n), 24 + n as u8 % 9).unwrap(), n);
    }
    reader.quiescent();
    stamps.iter_mut().map(|stamp| stamp.renew(&reader)).filter(|is_renewed| *is_renewed).count()
}

#[test]
fn stamps_of_addresses_far_from_changes_are_mostly_renewed() {
    // By chance, one of the changes may share the part of short prefixes.
    assert!((0..4).any(|_| renewed_of_100() > 80));
}

#[test]
fn change_of_a_prefix_is_counted_for_every_address_in_it() {
    let mut writer = Writer::new();
    let mut reader = writer.reader();
    let lpm = Lpm::new(&writer, 16);
    for (prefix, inside) in [
        ("0.0.0.0/0", "192.0.2.1"),
        ("10.0.0.0/23", "10.0.1.255"),
        ("10.0.0.0/24", "10.0.0.255"),
        ("10.0.0.7", "10.0.0.7"),
        ("::/0", "2001:db8::1"),
        ("2001:db8::/63", "2001:db8:0:1::1"),
        ("2001:db8::/64", "2001:db8::ffff:1"),
        ("2001:db8::7", "2001:db8::7"),
    ] {
        let (prefix, address) = (prefix.parse().unwrap(), Address::from(inside.parse::<IpAddr>().unwrap()));
        reader.quiescent();
        let mut before = Stamp::new(reader.parts_of(address), &reader).unwrap();
        lpm.insert(&mut writer, prefix, 0);
        reader.quiescent();
        assert!(!before.renew(&reader), "{prefix} inserted");
        let mut between = Stamp::new(reader.parts_of(address), &reader).unwrap();
        assert!(lpm.remove(&mut writer, prefix));
        reader.quiescent();
        assert!(!between.renew(&reader), "{prefix} removed");
    }
}

#[test]
fn value_is_that_of_the_longest_prefix_that_has_one() {
    let mut writer = Writer::new();
    let mut reader = writer.reader();
    let lpm = Lpm::new(&writer, 16);
    lpm.insert(&mut writer, "10.0.0.0/8".parse().unwrap(), Some(8));
    lpm.insert(&mut writer, "10.0.0.0/24".parse().unwrap(), Some(24));
    lpm.insert(&mut writer, "10.0.0.7".parse().unwrap(), None);
    reader.quiescent();
    let find = |address: &str| {
        let address = Address::from(address.parse::<IpAddr>().unwrap());
        let remembered = lpm.remember(address, reader.parts_of(address), &reader, |value| value.as_ref())?;
        remembered.get(&lpm, &reader).copied()
    };
    assert_eq!([find("10.0.0.7"), find("10.0.1.7"), find("11.0.0.7")], [Some(24), Some(8), None]);
}

#[test]
#[should_panic(expected = "all parts of this address")]
fn value_is_not_remembered_without_the_part_of_short_prefixes() {
    let mut writer = Writer::new();
    let mut reader = writer.reader();
    let lpm = Lpm::new(&writer, 16);
    lpm.insert(&mut writer, "10.0.0.0/8".parse().unwrap(), 8);
    reader.quiescent();
    // Both may be the same by chance.
    let apart = (0..).map(scattered).map(Address::from).find(|a| {
        let [near, short] = reader.parts_of(*a);
        near != short
    });
    let address = apart.unwrap();
    let [near, _] = reader.parts_of(address);
    let _ = lpm.remember(address, [near], &reader, whole);
}
