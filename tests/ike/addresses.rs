//! Addresses of the two sides, NATs and moves (RFC 4555).

use crate::pair::Pair;
use std::net::SocketAddr;
use std::time::Duration;
use wayfarer::sim::ike::connections::{GATEWAY, TERMINAL, gateway, terminal};
use wayfarer::sim::nat::{Behavior, Endpoints, Kind, Nat};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        event::{Event, Reason},
        settings::Settings,
        view::State,
        wire::notify,
    },
    path::{Addresses, Path},
};

const SECOND: Duration = Duration::from_secs(1);

const NAT: [u8; 4] = [198, 51, 100, 9];

/// Returns the external port that the NAT maps the terminal's port 4500 to.
fn external_port(pair: &mut Pair, gateway: [u8; 4]) -> u16 {
    let ends = Endpoints { from: (TERMINAL, 4500).into(), to: (gateway, 4500).into() };
    pair.nat.as_mut().unwrap().outbound(pair.now, ends).unwrap().from.port()
}

#[test]
fn detects_a_nat_and_refuses_it_if_nats_are_forbidden() {
    let strict = |connection| Connection { no_nats: true, ..connection };
    for kind in Kind::ALL {
        let behind = |terminal| {
            let mut pair = Pair::new(gateway(), terminal);
            pair.nat = Some(Nat::new(NAT.into(), kind));
            pair.connect();
            pair
        };
        let mut pair = behind(terminal());
        pair.assert_one_each();
        let port = external_port(&mut pair, GATEWAY);
        assert_eq!(pair.gateway.children()[0].path.udp, Some((4500, port)), "{kind}");
        assert_eq!(behind(strict(terminal())).terminal.end_reasons(), [Reason::Nat], "{kind}");
    }
    Pair::connected(strict(gateway()), strict(terminal())).assert_one_each();
}

/// A terminal that sends to another address of the gateway keeps its external port only if the
/// NAT's mapping does not depend on addresses. The link goes on either way.
#[test]
fn terminal_behind_a_nat_moves_to_the_gateways_other_address() {
    let other = [203, 0, 113, 2];
    let both = || Connection { local: vec![GATEWAY.into(), other.into()], ..gateway() };
    for kind in Kind::ALL {
        let mut pair = Pair::new(both(), terminal());
        pair.nat = Some(Nat::new(NAT.into(), kind));
        pair.connect();
        let before = external_port(&mut pair, GATEWAY);
        let [here, _] = pair.connected_peers().map(|all| all[0]);
        pair.terminal.endpoint.handle_local(pair.now, here, TERMINAL.into(), Some(other.into()));
        pair.settle();
        pair.assert_one_each();
        let after = external_port(&mut pair, other);
        let seen = pair.gateway.endpoint.peers().next().unwrap().addresses();
        assert_eq!(seen.local, SocketAddr::from((other, 4500)), "{kind}");
        assert_eq!(seen.remote, SocketAddr::from((NAT, after)), "{kind}");
        assert_eq!(before == after, kind.mapping == Behavior::EndpointIndependent, "{kind}");
    }
}

/// After a NAT's restart, the gateway reaches the terminal only once that has sent something,
/// whatever the NAT's filter.
#[test]
fn terminal_is_reachable_after_a_nat_restart_once_it_sends() {
    for kind in Kind::ALL {
        let mut pair = Pair::new(gateway(), terminal());
        pair.nat = Some(Nat::new(NAT.into(), kind));
        pair.connect();
        let [here, there] = pair.connected_peers().map(|all| all[0]);
        pair.nat.as_mut().unwrap().restart();
        pair.gateway.endpoint.handle_liveness(pair.now, there, false);
        pair.settle();
        let before = pair.gateway.endpoint.peers().next().unwrap().addresses().remote;
        let ends = Endpoints { from: (GATEWAY, 4500).into(), to: before };
        assert_eq!(pair.nat.as_mut().unwrap().inbound(pair.now, ends), None, "{kind}");
        pair.terminal.endpoint.handle_liveness(pair.now, here, false);
        pair.settle();
        let again = external_port(&mut pair, GATEWAY);
        assert_ne!(again, before.port(), "{kind}");
        pair.assert_one_each();
    }
}

#[test]
fn terminal_moves_after_the_gateway_rekeyed() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    pair.gateway.endpoint.rekey(pair.now, there, true);
    pair.settle();
    pair.terminal.endpoint.handle_local(pair.now, here, [192, 0, 2, 8].into(), None);
    pair.settle();
    let at = pair.gateway.endpoint.peers().find(|p| p.state() == State::Up).unwrap().addresses();
    assert_eq!(at.remote, SocketAddr::from(([192, 0, 2, 8], 4500)));
    assert!(pair.gateway.events.iter().any(|e| matches!(e, Event::PathConfirmed { .. })));
}

#[test]
fn update_to_an_impossible_address_is_refused() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.handle_local(pair.now, here, [127, 0, 0, 1].into(), None);
    pair.settle();
    // One refusal does not end the link, because somebody may have changed the packet.
    assert_eq!((pair.terminal.end_reasons(), pair.gateway.end_reasons()), (vec![], vec![]));
    pair.pass(Settings::default().retransmission.total());
    let why = Reason::Refused(notify::UNACCEPTABLE_ADDRESSES);
    assert_eq!(pair.terminal.end_reasons().first(), Some(&why));
    assert_eq!(pair.gateway.end_reasons().first(), Some(&Reason::Deleted));
}

#[test]
fn peer_uses_only_our_configured_addresses() {
    let other = [203, 0, 113, 2];
    let both = Connection { local: vec![GATEWAY.into(), other.into()], ..gateway() };
    for (connection, moves) in [(both, true), (gateway(), false)] {
        let mut pair = Pair::connected(connection, terminal());
        let [here, _] = pair.connected_peers().map(|all| all[0]);
        let child = pair.gateway.endpoint.peers().next().unwrap().children().next().unwrap();
        let path = Path { local: other.into(), remote: TERMINAL.into(), udp: None };
        pair.gateway.endpoint.handle_path(pair.now, child, path);
        let local = |pair: &Pair| pair.gateway.endpoint.peers().next().unwrap().addresses().local.ip();
        assert_eq!(local(&pair) == std::net::IpAddr::from(other), moves, "a path");
        let mut pair = Pair::connected(if moves { continue } else { gateway() }, terminal());
        pair.terminal.endpoint.handle_local(pair.now, here, [192, 0, 2, 8].into(), Some(other.into()));
        pair.settle();
        assert_eq!(local(&pair), std::net::IpAddr::from(GATEWAY), "an update");
    }
}

#[test]
fn probe_from_elsewhere_is_answered_there_without_a_move() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.handle_liveness(pair.now, here, false);
    let probe = pair.up();
    let elsewhere = SocketAddr::from(([192, 0, 2, 99], 4500));
    pair.deliver_up(&(Addresses { local: elsewhere, ..probe[0].0 }, probe[0].1.clone()));
    let answer = pair.down();
    assert_eq!(answer[0].0.remote, elsewhere);
    let at = pair.gateway.endpoint.peers().next().unwrap().addresses().remote;
    assert_eq!(at, SocketAddr::from((TERMINAL, 4500)));
}

#[test]
fn unconfirmed_path_is_given_up() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [_, there] = pair.connected_peers().map(|all| all[0]);
    let child = pair.gateway.endpoint.peers().next().unwrap().children().next().unwrap();
    let path = Path { local: GATEWAY.into(), remote: [192, 0, 2, 99].into(), udp: None };
    let address = |pair: &Pair| pair.gateway.endpoint.peers().next().unwrap().addresses().remote.ip();
    pair.gateway.endpoint.handle_path(pair.now, child, path);
    assert_eq!(address(&pair), path.remote);
    // The probe goes to an address where nobody is.
    drop(pair.down());
    let unconfirmed = |e: &Event| matches!(e, Event::PeerMoved { confirmed: false, .. });
    assert!(pair.gateway.events.iter().any(unconfirmed));
    pair.gateway.endpoint.handle_unconfirmed(pair.now, there);
    assert_eq!(address(&pair), std::net::IpAddr::from(TERMINAL), "given up after too many bytes");
    pair.gateway.endpoint.handle_path(pair.now, child, path);
    drop(pair.down());
    for _ in 0..12 {
        pair.now += SECOND;
        pair.gateway.endpoint.handle_timeout(pair.now);
        let sent = pair.down();
        sent.iter().filter(|(to, _)| to.remote.ip() != path.remote).for_each(|m| pair.deliver_down(m));
    }
    assert_eq!(address(&pair), std::net::IpAddr::from(TERMINAL), "given up without an answer");
    assert!(!pair.gateway.events.iter().any(|e| matches!(e, Event::PathConfirmed { .. })));
}
