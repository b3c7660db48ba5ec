use super::*;
use proptest::prelude::*;

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
