//! Connections that forbid NATs (RFC 4555 §3.9).

use crate::fleet::Fleet;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use wayfarer::sim::{
    ike::{
        carrier::Way,
        connections::{GATEWAY, TERMINAL, gateway, terminal},
        side::Side,
    },
    nat::Endpoints,
};
use wayfarer_mobility::{
    ike::{connection::Connection, counter::Counter, event::PeerId, reason::Reason, view::State},
    path::Path,
};

const SECOND: Duration = Duration::from_secs(1);
const ELSEWHERE: [u8; 4] = [192, 0, 2, 99];
/// The source address that something on the way writes on packets.
const CHANGED: [u8; 4] = [198, 51, 100, 66];

fn strict(connection: Connection) -> Connection {
    Connection { no_nats: true, ..connection }
}

/// Makes a way that changes the source of the terminal's message number `n` if `is_changed(n)`;
/// answers to the changed address reach the terminal.
fn changing(
    mut is_changed: impl FnMut(usize) -> bool,
) -> impl FnMut(Duration, Way, Endpoints) -> Option<Endpoints> {
    let (mut number, mut terminal) = (0, None);
    move |_, way, ends| {
        let Endpoints { mut from, mut to } = ends;
        match way {
            Way::Up => {
                terminal = Some(from.ip());
                if is_changed(number) {
                    from.set_ip(CHANGED.into());
                }
                number += 1;
            }
            Way::Down if to.ip() == IpAddr::from(CHANGED) => to.set_ip(terminal?),
            Way::Down => {}
        }
        Some(Endpoints { from, to })
    }
}

/// Connects a terminal to a gateway; sources of its messages change as in [`changing`].
fn set_up([gateway, terminal]: [Connection; 2], is_changed: impl FnMut(usize) -> bool) -> Fleet {
    let mut fleet = Fleet::new(vec![gateway]);
    let side = fleet.dial(TERMINAL, terminal);
    fleet.terminals.push(side);
    fleet.settle_by(changing(is_changed));
    fleet
}

fn here(fleet: &Fleet) -> PeerId {
    let mut peers = fleet.terminals[0].endpoint.peers().filter(|peer| peer.state() == State::Up);
    peers.next().unwrap().id()
}

/// Moves the terminal.
fn move_terminal(fleet: &mut Fleet) {
    fleet.terminals[0].at = Some(ELSEWHERE.into());
    let peer = here(fleet);
    fleet.terminals[0].endpoint.handle_local(fleet.now, peer, ELSEWHERE.into(), None).unwrap();
}

#[test]
fn changed_ike_auth_is_refused_and_the_next_attempt_succeeds() {
    // The terminal forbids NATs, the gateway allows them.
    let mut fleet = set_up([gateway(), strict(terminal())], |number| number == 1);
    assert_eq!(fleet.gateway.end_reasons(), [Reason::Nat]);
    assert_eq!(fleet.terminals[0].end_reasons(), [Reason::Nat], "UNEXPECTED_NAT_DETECTED");
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
            let [ours, theirs] = [&fleet.gateway, &fleet.terminals[0]].map(Side::end_reasons);
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
        let peer = fleet.connected_peers()[0].id();
        let path = Path { local: GATEWAY.into(), remote: CHANGED.into(), udp: None };
        fleet.gateway.endpoint.handle_path(fleet.now, peer, path);
        fleet.settle();
        assert_eq!(fleet.address_of(peer).ip(), IpAddr::from(TERMINAL));
        assert_eq!(fleet.gateway.endpoint.count(Counter::NatRefused), 1);
    }
}

#[test]
fn changed_update_is_retried_and_does_not_end_the_link() {
    for gateway in [gateway(), strict(gateway())] {
        let mut fleet = set_up([gateway, strict(terminal())], |_| false);
        move_terminal(&mut fleet);
        let mut first_three = changing(|number| number < 3);
        fleet.settle_by(&mut first_three);
        assert_eq!(
            fleet.connected_peers()[0].addresses().remote,
            SocketAddr::from((TERMINAL, 4500)),
            "refused"
        );
        fleet.pass_by(10 * SECOND, first_three);
        assert_eq!(fleet.connected_peers()[0].addresses().remote, SocketAddr::from((ELSEWHERE, 4500)));
        assert_eq!((fleet.gateway.end_reasons(), fleet.terminals[0].end_reasons()), (vec![], vec![]));
    }
}

#[test]
fn link_restarts_if_every_update_is_changed() {
    let mut fleet = set_up([gateway(), strict(terminal())], |_| false);
    move_terminal(&mut fleet);
    fleet.pass_by(60 * SECOND, changing(|_| true));
    assert_eq!(fleet.terminals[0].end_reasons().first(), Some(&Reason::Nat));
    let tries = fleet.gateway.endpoint.count(Counter::NatRefused);
    assert!(tries >= 9, "{tries}");
    fleet.pass(120 * SECOND);
    assert_eq!(fleet.connected_peers().len(), 1);
}

#[test]
fn update_without_no_nats_allowed_needs_nat_detection() {
    let mut fleet = set_up([strict(gateway()), terminal()], |_| false);
    move_terminal(&mut fleet);
    fleet.settle();
    assert_eq!(
        fleet.connected_peers()[0].addresses().remote,
        SocketAddr::from((ELSEWHERE, 4500)),
        "NAT_DETECTION shows no NAT"
    );
    let peer = here(&fleet);
    fleet.terminals[0].endpoint.handle_local(fleet.now, peer, TERMINAL.into(), None).unwrap();
    fleet.settle_by(changing(|_| true));
    assert_eq!(
        fleet.connected_peers()[0].addresses().remote,
        SocketAddr::from((ELSEWHERE, 4500)),
        "NAT_DETECTION shows a NAT"
    );
}
