//! Connections that forbid NATs (RFC 4555 §3.9).

use crate::fleet::Fleet;
use std::{net::SocketAddr, time::Duration};
use wayfarer::sim::ike::connections::{GATEWAY, TERMINAL, gateway, terminal};
use wayfarer::sim::ike::side::{Message, Side};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        counter::Counter,
        event::{PeerId, Reason},
        settings::Settings,
        view::State,
    },
    path::{Addresses, Path},
};

const SECOND: Duration = Duration::from_secs(1);
const ELSEWHERE: [u8; 4] = [192, 0, 2, 99];
/// The source address that something on the way writes on packets.
const CHANGED: [u8; 4] = [198, 51, 100, 66];

fn strict(connection: Connection) -> Connection {
    Connection { no_nats: true, ..connection }
}

fn changed(message: Message) -> Message {
    let (Addresses { local, remote }, bytes) = message;
    (Addresses { local: SocketAddr::new(CHANGED.into(), local.port()), remote }, bytes)
}

/// Carries messages until there are none. The source of the terminal's message number `n` is
/// changed if `is_changed(n)`; answers to the changed address reach the terminal.
fn settle(fleet: &mut Fleet, mut is_changed: impl FnMut(usize) -> bool) {
    let mut number = 0;
    for _ in 0..100 {
        let up: Vec<Message> = fleet.terminals[0].1.work(fleet.now);
        for message in up {
            let message = if is_changed(number) { changed(message) } else { message };
            number += 1;
            fleet.deliver(&message);
        }
        for (Addresses { local, remote }, message) in fleet.gateway.work(fleet.now) {
            let at = fleet.terminals[0].0;
            if remote.ip() == at || remote.ip() == std::net::IpAddr::from(CHANGED) {
                let addresses = Addresses { local: SocketAddr::new(at, remote.port()), remote: local };
                fleet.terminals[0].1.endpoint.handle_datagram(fleet.now, addresses, &message);
            }
        }
    }
}

/// Connects a terminal to a gateway; sources of its messages change as in [`settle`].
fn set_up([gateway, terminal]: [Connection; 2], is_changed: impl FnMut(usize) -> bool) -> Fleet {
    let mut fleet = Fleet::new(vec![gateway]);
    let mut side = Side::new(vec![terminal], Settings::default());
    side.endpoint.dial(fleet.now, 0, TERMINAL.into());
    fleet.terminals.push((TERMINAL.into(), side));
    settle(&mut fleet, is_changed);
    fleet
}

fn here(fleet: &Fleet) -> PeerId {
    let mut peers = fleet.terminals[0].1.endpoint.peers().filter(|peer| peer.state() == State::Up);
    peers.next().unwrap().id()
}

/// Moves the terminal.
fn move_terminal(fleet: &mut Fleet) {
    fleet.terminals[0].0 = ELSEWHERE.into();
    let peer = here(fleet);
    fleet.terminals[0].1.endpoint.handle_local(fleet.now, peer, ELSEWHERE.into(), None);
}

/// Lets time pass; sources of the terminal's messages change as in [`settle`].
fn pass(fleet: &mut Fleet, duration: Duration, mut is_changed: impl FnMut(usize) -> bool) {
    let until = fleet.now + duration;
    loop {
        let sides = [&fleet.terminals[0].1, &fleet.gateway];
        let next = sides.into_iter().filter_map(|side| side.endpoint.poll_timeout()).min();
        let Some(next) = next.filter(|next| *next <= until) else { break };
        fleet.now = fleet.now.max(next);
        fleet.terminals[0].1.endpoint.handle_timeout(fleet.now);
        fleet.gateway.endpoint.handle_timeout(fleet.now);
        settle(fleet, &mut is_changed);
    }
    fleet.now = until;
}

#[test]
fn changed_ike_auth_is_refused_and_the_next_attempt_succeeds() {
    // The terminal forbids NATs, the gateway allows them.
    let mut fleet = set_up([gateway(), strict(terminal())], |number| number == 1);
    assert_eq!(fleet.gateway.end_reasons(), [Reason::Nat]);
    assert_eq!(fleet.terminals[0].1.end_reasons(), [Reason::Nat], "UNEXPECTED_NAT_DETECTED");
    fleet.pass(5 * SECOND);
    assert_eq!(fleet.connected_peers().len(), 1, "one changed packet only delays the connection");
    assert_eq!(fleet.gateway.endpoint.count(Counter::NatRefused), 1);
}

#[test]
fn gateway_that_forbids_nats_demands_proof() {
    // NO_NATS_ALLOWED is a proof, and so is NAT_DETECTION from a terminal that does not send it.
    for terminal in [strict(terminal()), terminal()] {
        assert_eq!(set_up([strict(gateway()), terminal.clone()], |_| false).connected_peers().len(), 1);
        for which in [0, 1] {
            let fleet = set_up([strict(gateway()), terminal.clone()], |number| number == which);
            assert_eq!(fleet.connected_peers().len(), 0, "message {which}");
            // A terminal that forbids NATs too sees one in our first answer, and gives up.
            let [ours, theirs] = [&fleet.gateway, &fleet.terminals[0].1].map(Side::end_reasons);
            assert!(
                ours == [Reason::Nat] || (ours.is_empty() && theirs == [Reason::Nat]),
                "{ours:?} {theirs:?}"
            );
        }
    }
    // A NAT changes every message.
    assert_eq!(set_up([strict(gateway()), terminal()], |_| true).connected_peers().len(), 0);
    assert_eq!(set_up([gateway(), terminal()], |_| true).connected_peers().len(), 1, "NATs are allowed");
}

#[test]
fn forced_encapsulation_does_not_count_as_a_nat() {
    let forced = Connection { force_udp: true, ..strict(terminal()) };
    let fleet = set_up([strict(gateway()), forced], |_| false);
    assert_eq!(fleet.connected_peers().len(), 1);
    assert!(fleet.gateway.children()[0].path.udp.is_some());
}

#[test]
fn path_that_only_a_nat_could_cause_is_not_followed() {
    for (gateway, terminal) in [(strict(gateway()), terminal()), (gateway(), strict(terminal()))] {
        let mut fleet = set_up([gateway, terminal], |_| false);
        let child = fleet.connected_peers()[0].children().next().unwrap();
        let peer = fleet.connected_peers()[0].id();
        let path = Path { local: GATEWAY.into(), remote: CHANGED.into(), udp: None };
        fleet.gateway.endpoint.handle_path(fleet.now, child, path);
        fleet.settle();
        assert_eq!(fleet.address_of(peer).ip(), std::net::IpAddr::from(TERMINAL));
        assert_eq!(fleet.gateway.endpoint.count(Counter::NatRefused), 1);
    }
}

#[test]
fn changed_update_is_retried_and_does_not_end_the_link() {
    for gateway in [gateway(), strict(gateway())] {
        let mut fleet = set_up([gateway, strict(terminal())], |_| false);
        move_terminal(&mut fleet);
        // The first three messages are changed.
        let mut sent = 0;
        let mut first_three = |_| {
            sent += 1;
            sent <= 3
        };
        settle(&mut fleet, &mut first_three);
        assert_eq!(
            fleet.connected_peers()[0].addresses().remote,
            SocketAddr::from((TERMINAL, 4500)),
            "refused"
        );
        pass(&mut fleet, 10 * SECOND, &mut first_three);
        assert_eq!(fleet.connected_peers()[0].addresses().remote, SocketAddr::from((ELSEWHERE, 4500)));
        assert_eq!((fleet.gateway.end_reasons(), fleet.terminals[0].1.end_reasons()), (vec![], vec![]));
    }
}

#[test]
fn link_restarts_if_every_update_is_changed() {
    let mut fleet = set_up([gateway(), strict(terminal())], |_| false);
    move_terminal(&mut fleet);
    pass(&mut fleet, 60 * SECOND, |_| true);
    assert_eq!(fleet.terminals[0].1.end_reasons().first(), Some(&Reason::Nat));
    let tries = fleet.gateway.endpoint.count(Counter::NatRefused);
    assert!(tries >= 9, "{tries}");
    pass(&mut fleet, 120 * SECOND, |_| false);
    assert_eq!(fleet.connected_peers().len(), 1);
}

#[test]
fn update_without_no_nats_allowed_needs_nat_detection() {
    let mut fleet = set_up([strict(gateway()), terminal()], |_| false);
    move_terminal(&mut fleet);
    settle(&mut fleet, |_| false);
    assert_eq!(
        fleet.connected_peers()[0].addresses().remote,
        SocketAddr::from((ELSEWHERE, 4500)),
        "NAT_DETECTION shows no NAT"
    );
    let peer = here(&fleet);
    fleet.terminals[0].1.endpoint.handle_local(fleet.now, peer, TERMINAL.into(), None);
    settle(&mut fleet, |_| true);
    assert_eq!(
        fleet.connected_peers()[0].addresses().remote,
        SocketAddr::from((ELSEWHERE, 4500)),
        "NAT_DETECTION shows a NAT"
    );
}
