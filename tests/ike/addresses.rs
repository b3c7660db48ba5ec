//! Addresses of the two sides, NATs and moves (RFC 4555).

use crate::{fleet::Fleet, pair::Pair};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use wayfarer::sim::ike::connections::{GATEWAY, TERMINAL, gateway, terminal};
use wayfarer::sim::ike::side::Side;
use wayfarer::sim::nat::{Behavior, Endpoints, Kind, Nat};
use wayfarer_mobility::{
    ike::{
        connection::{Connection, Remote},
        event::{Event, MoveCause},
        reason::Reason,
        settings::Settings,
        view::State,
        wire::notify,
    },
    path::{self, Addresses, OtherFamily, Path},
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
    for nat in Nat::all(NAT.into()) {
        let behind = |terminal| Pair::behind(nat.clone(), gateway(), terminal);
        let mut pair = behind(terminal());
        pair.assert_one_each();
        let port = external_port(&mut pair, GATEWAY);
        assert_eq!(pair.gateway.children()[0].path.udp, Some((4500, port)), "{nat}");
        assert_eq!(port == 4500, nat.preserves_ports, "{nat}");
        assert_eq!(behind(strict(terminal())).terminal.end_reasons(), [Reason::Nat], "{nat}");
    }
    Pair::connected(strict(gateway()), strict(terminal())).assert_one_each();
}

/// A terminal that sends to another address of the gateway keeps its external port only if the
/// NAT's mapping does not depend on addresses. The link goes on either way.
#[test]
fn terminal_behind_a_nat_moves_to_the_gateways_other_address() {
    let other = [203, 0, 113, 2];
    let both = || Connection { local: vec![GATEWAY.into(), other.into()], ..gateway() };
    for nat in Nat::all(NAT.into()) {
        let mut pair = Pair::behind(nat.clone(), both(), terminal());
        let before = external_port(&mut pair, GATEWAY);
        let [here, _] = pair.connected_peers().map(|all| all[0]);
        pair.terminal.endpoint.handle_local(pair.now, here, TERMINAL.into(), Some(other.into())).unwrap();
        pair.settle();
        pair.assert_one_each();
        let after = external_port(&mut pair, other);
        let seen = pair.gateway.endpoint.peers().next().unwrap().addresses();
        assert_eq!(seen.local, SocketAddr::from((other, 4500)), "{nat}");
        assert_eq!(seen.remote, SocketAddr::from((NAT, after)), "{nat}");
        assert_eq!(before == after, nat.kind.mapping == Behavior::EndpointIndependent, "{nat}");
    }
}

/// After a NAT's restart, the gateway reaches the terminal only once that has sent something,
/// whatever the NAT's filter.
#[test]
fn terminal_is_reachable_after_a_nat_restart_once_it_sends() {
    for nat in Nat::all(NAT.into()) {
        let mut pair = Pair::behind(nat.clone(), gateway(), terminal());
        let [here, there] = pair.connected_peers().map(|all| all[0]);
        pair.nat.as_mut().unwrap().restart();
        pair.gateway.endpoint.handle_liveness(pair.now, there, false);
        pair.settle();
        let before = pair.gateway.endpoint.peers().next().unwrap().addresses().remote;
        let ends = Endpoints { from: (GATEWAY, 4500).into(), to: before };
        assert_eq!(pair.nat.as_mut().unwrap().inbound(pair.now, ends), None, "{nat}");
        pair.terminal.endpoint.handle_liveness(pair.now, here, false);
        pair.settle();
        let again = external_port(&mut pair, GATEWAY);
        assert_eq!(again == before.port(), nat.preserves_ports, "{nat}");
        pair.assert_one_each();
    }
}

/// A terminal and a gateway behind the same NAT connect by its external address only if the NAT
/// turns packets back, lets in those of hosts that the gateway has sent nothing to, and gives the
/// gateway's answers the port that the terminal has dialled.
#[test]
fn terminal_reaches_a_gateway_behind_its_own_nat_if_that_hairpins() {
    let inside = [10, 0, 0, 1];
    for mut nat in Nat::all(NAT.into()) {
        let mut fleet = Fleet::new(vec![Connection { local: vec![inside.into()], ..gateway() }]);
        // The gateway's own packets to elsewhere make its mapping.
        let ends = Endpoints { from: (inside, 4500).into(), to: ([192, 0, 2, 99], 4500).into() };
        let external = nat.outbound(fleet.now, ends).unwrap().from;
        let side = fleet.dial(TERMINAL, Connection { remote: vec![Remote::At(external)], ..terminal() });
        fleet.terminals.push(side);
        fleet.settle_by(|now, _, ends| nat.outbound(now, ends));
        let all = Behavior::EndpointIndependent;
        let is_open = nat.kind == Kind { mapping: all, filtering: all };
        assert_eq!(fleet.connected_peers().len(), usize::from(nat.hairpins && is_open), "{nat}");
        for peer in fleet.connected_peers() {
            let Addresses { local, remote } = peer.addresses();
            assert_eq!((local, remote.ip()), ((inside, 4500).into(), NAT.into()), "{nat}");
        }
    }
}

#[test]
fn terminal_moves_after_the_gateway_rekeyed() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    pair.gateway.endpoint.rekey(pair.now, there, true);
    pair.settle();
    pair.terminal.endpoint.handle_local(pair.now, here, [192, 0, 2, 8].into(), None).unwrap();
    pair.settle();
    let at = pair.gateway.endpoint.peers().find(|p| p.state() == State::Up).unwrap().addresses();
    assert_eq!(at.remote, SocketAddr::from(([192, 0, 2, 8], 4500)));
    assert!(pair.gateway.events.iter().any(|e| matches!(e, Event::PathConfirmed { .. })));
}

/// Nothing would come back to the old address, so the link ends at once, and nothing is sent from there.
#[test]
fn terminal_that_cannot_move_connects_anew_from_its_new_address() {
    let elsewhere = [192, 0, 2, 8];
    for (here, there) in [(false, true), (true, false)] {
        let with = |mobike, connection| Connection { mobike, ..connection };
        let mut pair = Pair::connected(with(there, gateway()), with(here, terminal()));
        let [peer, _] = pair.connected_peers().map(|all| all[0]);
        pair.terminal.endpoint.handle_local(pair.now, peer, TERMINAL.into(), None).unwrap();
        pair.pass(2 * SECOND);
        assert_eq!(pair.terminal.end_reasons(), [], "its address is the same");
        pair.terminal.endpoint.handle_local(pair.now, peer, elsewhere.into(), None).unwrap();
        assert_eq!(pair.up(), []);
        pair.pass(2 * SECOND);
        pair.assert_one_each();
        assert_eq!(pair.terminal.end_reasons(), [Reason::OwnAddress]);
        assert_eq!(pair.gateway.end_reasons(), [Reason::Replaced]);
        let at = pair.gateway.endpoint.peers().find(|p| p.state() == State::Up).unwrap().addresses();
        assert_eq!(at.remote.ip(), IpAddr::from(elsewhere));
    }
}

#[test]
fn handshake_begins_anew_if_the_terminals_address_is_gone() {
    let elsewhere = [192, 0, 2, 8];
    let mut pair = Pair::new(gateway(), terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    assert_eq!(pair.up().len(), 1, "it is lost");
    let peer = pair.terminal.endpoint.peers().next().unwrap().id();
    pair.terminal.endpoint.handle_local(pair.now, peer, elsewhere.into(), None).unwrap();
    pair.pass(2 * SECOND);
    pair.assert_one_each();
    assert_eq!(pair.terminal.end_reasons(), [Reason::OwnAddress]);
    let at = pair.gateway.endpoint.peers().next().unwrap().addresses();
    assert_eq!(at.remote.ip(), IpAddr::from(elsewhere));
}

#[test]
fn update_to_an_impossible_address_is_refused() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.handle_local(pair.now, here, [127, 0, 0, 1].into(), None).unwrap();
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
    for (connection, used) in [(both, other), (gateway(), GATEWAY)] {
        let mut pair = Pair::connected(connection.clone(), terminal());
        let peer = pair.gateway.endpoint.peers().next().unwrap().id();
        let path = Path { local: other.into(), remote: TERMINAL.into(), udp: None };
        pair.gateway.endpoint.handle_path(pair.now, peer, path);
        let local = |pair: &Pair| pair.gateway.endpoint.peers().next().unwrap().addresses().local.ip();
        assert_eq!(local(&pair), IpAddr::from(used), "a path");
        let mut pair = Pair::connected(connection, terminal());
        let [here, _] = pair.connected_peers().map(|all| all[0]);
        let terminal = &mut pair.terminal.endpoint;
        terminal.handle_local(pair.now, here, [192, 0, 2, 8].into(), Some(other.into())).unwrap();
        pair.settle();
        assert_eq!(local(&pair), IpAddr::from(used), "an update");
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
    let path = Path { local: GATEWAY.into(), remote: [192, 0, 2, 99].into(), udp: None };
    let address = |pair: &Pair| pair.gateway.endpoint.peers().next().unwrap().addresses().remote.ip();
    pair.gateway.endpoint.handle_path(pair.now, there, path);
    assert_eq!(address(&pair), path.remote);
    // The probe goes to an address where nobody is.
    drop(pair.down());
    let unconfirmed = |e: &Event| matches!(e, Event::PeerMoved { confirmed: false, .. });
    assert!(pair.gateway.events.iter().any(unconfirmed));
    pair.gateway.endpoint.handle_unconfirmed(pair.now, there);
    assert_eq!(address(&pair), IpAddr::from(TERMINAL), "given up after too many bytes");
    pair.gateway.endpoint.handle_path(pair.now, there, path);
    drop(pair.down());
    for _ in 0..12 {
        pair.now += SECOND;
        pair.gateway.endpoint.handle_timeout(pair.now);
        let sent = pair.down();
        sent.iter().filter(|(to, _)| to.remote.ip() != path.remote).for_each(|m| pair.deliver_down(m));
    }
    assert_eq!(address(&pair), IpAddr::from(TERMINAL), "given up without an answer");
    assert!(!pair.gateway.events.iter().any(|e| matches!(e, Event::PathConfirmed { .. })));
    let home = Path { remote: TERMINAL.into(), ..path };
    let told = [(home, path, MoveCause::Seen), (path, home, MoveCause::Unconfirmed)];
    assert_eq!(moves(&pair.gateway), told, "the second time, nothing was sent there before an answer");
}

/// Returns the moves that a side reported: the path before, the new one, and how each became known.
fn moves(side: &Side) -> Vec<(Path, Path, MoveCause)> {
    let moved = |event: &Event| match event {
        Event::PeerMoved { from, path, cause, .. } => Some((*from, *path, *cause)),
        _ => None,
    };
    side.events.iter().filter_map(moved).filter(|(from, to, _)| from != to).collect()
}

#[test]
fn announced_move_is_told_with_its_paths_and_its_cause() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.handle_local(pair.now, here, [192, 0, 2, 8].into(), None).unwrap();
    pair.settle();
    let from = Path { local: GATEWAY.into(), remote: TERMINAL.into(), udp: None };
    let to = Path { remote: [192, 0, 2, 8].into(), ..from };
    assert_eq!(moves(&pair.gateway), [(from, to, MoveCause::Announced)]);
    let reversed = |path: Path| Path { local: path.remote, remote: path.local, ..path };
    let own = moves(&pair.terminal);
    assert!(own.iter().all(|(.., cause)| *cause == MoveCause::Own), "{own:?}");
    assert_eq!((own[0].0, own[own.len() - 1].1), (reversed(from), reversed(to)));
}

#[test]
fn handshake_keeps_the_gateways_address_that_it_began_with() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    pair.up().iter().for_each(|message| pair.deliver_up(message));
    pair.down().iter().for_each(|message| pair.deliver_down(message));
    let other = SocketAddr::from(([203, 0, 113, 2], 4500));
    for (addresses, message) in pair.up() {
        pair.deliver_up(&(Addresses { remote: other, ..addresses }, message));
    }
    let answer = pair.down();
    let at = pair.gateway.endpoint.peers().next().unwrap();
    assert_eq!((at.state(), at.addresses().local.ip()), (State::Up, GATEWAY.into()));
    assert_eq!(answer[0].0.local.ip(), IpAddr::from(GATEWAY));
}

#[test]
fn refuses_a_local_address_of_another_family() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    let v6 = IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 1]);
    let endpoint = &mut pair.terminal.endpoint;
    assert_eq!(endpoint.handle_local(pair.now, here, v6, None), Err(OtherFamily));
    assert_eq!(endpoint.handle_local(pair.now, here, TERMINAL.into(), Some(v6)), Err(OtherFamily));
    assert_eq!(endpoint.peers().next().unwrap().addresses().local.ip(), IpAddr::from(TERMINAL));
    assert_eq!(pair.up(), []);
}

#[test]
fn update_answered_after_a_rekey_reports_no_nat() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.handle_local(pair.now, here, [192, 0, 2, 8].into(), None).unwrap();
    let update = pair.up();
    pair.gateway.endpoint.rekey(pair.now, there, true);
    pair.down().iter().for_each(|message| pair.deliver_down(message));
    pair.up().iter().for_each(|message| pair.deliver_up(message));
    let delete = pair.down();
    update.iter().for_each(|message| pair.deliver_up(message));
    pair.settle();
    delete.iter().for_each(|message| pair.deliver_down(message));
    pair.settle();
    let moved = |event: &Event| match event {
        Event::PeerMoved { nat, .. } => Some(*nat),
        _ => None,
    };
    let nats: Vec<_> = pair.terminal.events.iter().filter_map(moved).collect();
    assert_eq!(nats.last(), Some(&path::Nat::default()));
    assert_eq!((pair.terminal.end_reasons(), pair.gateway.end_reasons()), (vec![], vec![]));
}

#[test]
fn other_ports_have_the_non_esp_marker_from_the_first_message_on() {
    for port in [4500, 24500] {
        let remote = vec![Remote::At(SocketAddr::from((GATEWAY, port)))];
        let mut pair = Pair::new(gateway(), Connection { remote, ..terminal() });
        pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
        let first = pair.up().remove(0);
        let ports = (first.0.local.port(), first.0.remote.port());
        assert_eq!(ports, (4500, port), "a message from port 500 would have no marker");
        pair.deliver_up(&first);
        pair.settle();
        assert_eq!(pair.connected_peers().map(|all| all.len()), [1, 1]);
    }
}
