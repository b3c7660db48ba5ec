//! Remembered flows notice every change of policy, with the next packet.

use super::{
    gateway::{SERVERS, Spec, inner, prefix, server},
    known::{Known, terminal_of},
};
use wayfarer::{
    gateway::policy::{Action, Rule},
    sim::{fixtures::*, frames::forwarded},
};
use wayfarer_dataplane::{
    drop::DropReason,
    sa::{PortRange, Rank, Selector, TunnelId},
    table::Prefix,
    wire::ethernet,
};

/// Asserts that rules for prefixes of these lengths around terminal 1 forbid its packets until they go.
fn assert_forbid(mut known: Known, lengths: [u8; 5]) {
    for (round, length) in (1..).zip(lengths) {
        let to = Prefix::new(inner(1), length).unwrap();
        known.gateway.set_policy(to, Some(Action::Discard));
        assert_eq!(known.send_down(64).len(), 0, "{to}");
        assert_eq!(known.gateway.drops(), [(DropReason::Discard, round)]);
        known.gateway.set_policy(to, None);
        assert_eq!(known.send_down(64).len(), 1, "{to}");
        known.assert_known();
    }
}

#[test]
fn rule_for_fewer_addresses_forbids_until_it_goes() {
    let spec = Spec { selectors: vec![selector(SERVERS, "10.98.0.0/16")], ..Spec::new(1) };
    let known = Known::with(&spec);
    assert_forbid(known, [32, 30, 24, 23, 17]);
}

/// A peer that has narrowed its tunnel does not outrank what the operator says of more addresses.
#[test]
fn rule_for_more_addresses_forbids_what_a_narrowed_tunnel_carries() {
    let rank = Rank { local: 0, remote: 0, is_narrowed: true };
    let narrowed = Selector { rank, ..selector(SERVERS, &inner(1).to_string()) };
    let known = Known::with(&Spec { selectors: vec![narrowed], ..Spec::new(1) });
    assert_forbid(known, [8, 16, 23, 24, 31]);
}

#[test]
fn rule_of_the_tunnel_may_go_and_come_back() {
    let spec = Spec::new(1);
    let mut known = Known::new();
    let protect = known.gateway.protect(1);
    for round in 1..=2 {
        known.gateway.set_tunnel_rules(1, vec![]);
        assert_eq!(known.send_down(64).len(), 0);
        assert_eq!(known.gateway.worker.counters.drops.of(DropReason::NoPolicy), round);
        known.gateway.set_tunnel_rules(1, spec.rules(&protect));
        known.assert_known();

        known.gateway.set_tunnel_rules(1, spec.rules(&Action::Ended(TunnelId(1))));
        assert_eq!(known.send_down(64).len(), 0);
        assert_eq!(known.gateway.worker.counters.drops.of(DropReason::SaExpired), round);
        known.gateway.set_tunnel_rules(1, spec.rules(&protect));
        known.assert_known();
    }
}

#[test]
fn flow_that_policy_takes_out_of_its_tunnel_goes_in_clear() {
    let mut known = Known::new();
    let protect = known.gateway.protect(1);
    known.gateway.set_tunnel_rules(1, vec![]);
    known.gateway.set_policy(Prefix::host(inner(1)), Some(Action::Bypass));
    let out = known.send_down(64);
    assert_eq!(
        out.iter().map(|frame| &frame[ethernet::HEADER..]).collect::<Vec<_>>(),
        [&forwarded(&Known::down(64))[..]]
    );
    known.gateway.set_tunnel_rules(1, Spec::new(1).rules(&protect));
    // Within a prefix, tunnels come before policies.
    assert_eq!(terminal_of(&known.send_down(64)[0]), 1);
    known.assert_known();
}

#[test]
fn rule_that_selects_ports_takes_only_its_own_flows() {
    let mut known = Known::new();
    let protect = known.gateway.protect(1);
    let to_port = |port| Selector {
        remote_ports: PortRange { first: port, last: port },
        ..selector(SERVERS, &inner(1).to_string())
    };
    // That of the flow is 1001.
    for (port, passes) in [(1001, true), (1002, false), (1001, true)] {
        known.gateway.set_tunnel_rules(1, vec![Rule { selector: to_port(port), action: protect.clone() }]);
        assert_eq!(known.send_down(64).len(), usize::from(passes), "{port}");
        assert_eq!(known.send_down(64).len(), usize::from(passes), "{port}");
    }
    assert_eq!(known.gateway.drops(), [(DropReason::NoPolicy, 2)]);
}

#[test]
fn packet_out_of_a_tunnel_goes_into_another_once_policy_says_so() {
    for (local, to) in [(SERVERS, "10.99.0.7"), ("0.0.0.0/0", "10.99.0.0/16"), ("0.0.0.0/0", "10.0.0.0/8")] {
        let spec = Spec { selectors: vec![selector(local, &inner(1).to_string())], ..Spec::new(1) };
        let mut known = Known::with(&spec);
        let other = Spec::new(9);
        let protect = known.gateway.protect(9);
        let there = Rule { selector: selector("0.0.0.0/0", to), action: protect.clone() };
        for round in 0..2 {
            known.gateway.set_tunnel_rules(9, [other.rules(&protect), vec![there.clone()]].concat());
            assert_eq!(known.send_up(64).len(), 0, "{to} {round}: {:?}", known.gateway.drops());
            let out = known.gateway.worker.take(OUTSIDE);
            assert_eq!(out.iter().map(|frame| terminal_of(frame)).collect::<Vec<_>>(), [9], "{to}");
            known.gateway.set_tunnel_rules(9, other.rules(&protect));
            assert_eq!(known.send_up(64).len(), 1, "{to} {round}: {:?}", known.gateway.drops());
            known.assert_known();
        }
        assert_eq!(known.gateway.drops(), []);
    }
}

#[test]
fn rule_guards_a_destination_of_packets_out_of_a_tunnel() {
    let mut known = Known::new();
    let to = Prefix::host(server(0));
    for round in 1..=2 {
        known.gateway.set_policy(to, Some(Action::Guard));
        assert_eq!(known.send_up(64).len(), 0);
        assert_eq!(known.gateway.drops(), [(DropReason::Discard, round)]);
        known.gateway.set_policy(to, None);
        assert_eq!(known.send_up(64).len(), 1);
        known.assert_known();
    }
    // A shorter prefix than that of the tunnel's own side does not override it.
    known.gateway.set_policy(prefix("10.99.0.0/16"), Some(Action::Guard));
    assert_eq!(known.send_up(64).len(), 1);
}

#[test]
fn gateway_whose_policy_discards_checks_the_source_of_every_packet_out_of_a_tunnel() {
    let mut known =
        Known::discarding(&Spec { selectors: vec![selector(SERVERS, "10.98.0.0/16")], ..Spec::new(1) });
    for round in 1..=2 {
        known.gateway.set_policy(Prefix::host(inner(1)), Some(Action::Discard));
        assert_eq!(known.send_up(64).len(), 0);
        assert_eq!(known.gateway.drops(), [(DropReason::Discard, round)]);
        known.gateway.set_policy(Prefix::host(inner(1)), None);
        assert_eq!(known.send_up(64).len(), 1);
        known.assert_known();
    }
}
