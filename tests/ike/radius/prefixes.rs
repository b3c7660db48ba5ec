//! Inner addresses of a prefix that a RADIUS server granted.

use super::*;
use wayfarer_mobility::{aaa::grant::Ip6Prefix, ike::wire::TrafficSelector};

const LINK: &str = "2001:db8:50:7::";

fn prefix_of(text: &str, len: u8) -> Ip6Prefix {
    Ip6Prefix::new(text.parse().unwrap(), len).unwrap()
}

/// Makes a grant of an address of this prefix.
fn within(text: &str, len: u8) -> Grant {
    Grant { ip6_prefix: Some(prefix_of(text, len)), ..Grant::default() }
}

impl Rig {
    /// Returns the inner IPv6 addresses of all connected peers.
    fn inner6(&self) -> Vec<String> {
        self.inner().iter().filter(|inner| inner.is_ipv6()).map(IpAddr::to_string).collect()
    }
}

#[test]
fn a_peer_gets_the_first_address_of_its_prefix() {
    for (len, address) in [(64, "2001:db8:50:7::1"), (126, "2001:db8:50:7::1"), (127, "2001:db8:50:7::")] {
        let mut rig = Rig::new(vec![people()]);
        rig.connect(TERMINAL, granting("alice", within(LINK, len)));
        assert_eq!(rig.inner6(), [address], "/{len}");
        let only = TrafficSelector::host(address.parse().unwrap());
        let remote = &rig.gateway.newest_child().remote;
        assert!(remote.iter().filter(|remote| remote.start.is_ipv6()).eq([&only]), "{remote:?}");
        let peer = rig.gateway.connected_peers()[0];
        rig.gateway.endpoint.close(rig.now, peer);
        assert_eq!(rig.gateway.endpoint.state_sizes().leases, 0);
    }
}

#[test]
fn a_connection_without_pools_gives_an_address_of_a_granted_prefix() {
    let mut rig = Rig::new(vec![Connection { pools: vec![], ..people() }]);
    // The network behind the gateway has IPv4 only.
    let ip4 = Some([10, 50, 0, 7].into());
    rig.connect(TERMINAL, granting("alice", Grant { ip4, ..within(LINK, 64) }));
    assert_eq!(rig.inner6(), ["2001:db8:50:7::1"]);
}

#[test]
fn a_prefix_gives_no_address_that_somebody_else_has() {
    let mut rig = Rig::new(vec![people()]);
    rig.gateway.endpoint.reserve_addresses(["2001:db8:50:7::1".parse::<IpAddr>().unwrap()].into());
    rig.connect(TERMINAL, granting("alice", address("2001:db8:50:7::2")));
    rig.connect(ELSEWHERE, granting("bob", within(LINK, 64)));
    assert_eq!(rig.inner6(), ["2001:db8:50:7::2", "2001:db8:50:7::3"]);
    assert_eq!(rig.refusals(), []);
}

#[test]
fn a_prefix_without_a_free_address_refuses_the_peer() {
    for (text, len) in [(LINK, 127), (LINK, 128), ("fe80::", 64), ("ff02::", 64)] {
        let mut rig = Rig::new(vec![people()]);
        let taken = [LINK, "2001:db8:50:7::1"].map(|taken| taken.parse::<IpAddr>().unwrap());
        rig.gateway.endpoint.reserve_addresses(taken.into());
        rig.connect(TERMINAL, granting("alice", within(text, len)));
        assert_eq!(rig.refusals(), [GrantError::NoneFree(prefix_of(text, len))]);
        assert_eq!(rig.terminal.end_reasons(), [Reason::Refused(notify::INTERNAL_ADDRESS_FAILURE)]);
        assert_eq!(rig.gateway.endpoint.state_sizes().leases, 0);
    }
}

#[test]
fn only_the_first_256_addresses_of_a_prefix_are_given() {
    for (last, gets) in [(0xff, &["2001:db8:50:7::100"][..]), (0x100, &[])] {
        let mut rig = Rig::new(vec![people()]);
        let taken = (1..=last).map(|n| format!("{LINK}{n:x}").parse::<IpAddr>().unwrap()).collect();
        rig.gateway.endpoint.reserve_addresses(taken);
        rig.connect(TERMINAL, granting("alice", within(LINK, 64)));
        assert_eq!(rig.inner6(), gets);
        assert_eq!(rig.refusals().len(), 1 - gets.len());
        assert!(rig.refusals().iter().all(|why| *why == GrantError::NoneFree(prefix_of(LINK, 64))));
    }
}

#[test]
fn a_user_with_a_prefix_takes_the_address_along_to_another_device() {
    let mut rig = Rig::new(vec![Connection { unique: false, ..people() }]);
    for at in [TERMINAL, ELSEWHERE] {
        rig.connect(at, granting("alice", within(LINK, 64)));
        assert_eq!(rig.inner6(), ["2001:db8:50:7::1"]);
    }
    assert_eq!(rig.gateway.end_reasons(), [Reason::Replaced]);
}

#[test]
fn a_device_that_authenticates_again_keeps_its_address_of_a_prefix() {
    let mut rig = Rig::new(vec![people()]);
    rig.connect(TERMINAL, granting("alice", within(LINK, 64)));
    let alice = rig.gateway.connected_peers()[0];
    rig.connect(ELSEWHERE, granting("bob", within(LINK, 64)));
    rig.gateway.endpoint.close(rig.now, alice);
    rig.settle();
    let bob = rig.gateway.connected_peers()[0];
    assert_eq!(rig.inner6(), ["2001:db8:50:7::2"]);
    rig.gateway.endpoint.change_grant(rig.now, bob, Some(3660), None);
    let mut seconds = 0;
    while rig.asked.is_none() {
        rig.pass(1);
        seconds += 1;
        assert!(seconds < 3660, "it does not authenticate again");
    }
    rig.answer(granting("bob", within(LINK, 64)));
    rig.pass(5);
    assert_ne!(rig.gateway.connected_peers(), [bob], "a new peer has replaced it");
    let inner = rig.inner6();
    assert!(!inner.is_empty() && inner.iter().all(|inner| inner == "2001:db8:50:7::2"), "{inner:?}");
}

#[test]
fn a_prefix_for_networks_is_ignored_and_the_driver_is_told() {
    let mut rig = Rig::new(vec![people()]);
    let ignored = prefix_of("2001:db8:50::", 56);
    rig.connect(TERMINAL, granting("alice", Grant { ignored_prefix: Some(ignored), ..Grant::default() }));
    assert_eq!((rig.gateway.connected_peers().len(), rig.inner6()), (1, vec![]));
    let told = |event: &Event| matches!(event, Event::PrefixIgnored { prefix, .. } if *prefix == ignored);
    assert_eq!(rig.gateway.events.iter().filter(|event| told(event)).count(), 1);
}
