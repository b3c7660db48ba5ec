//! Where NATs are forbidden (RFC 4555 §3.9).

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
    nat::Ends,
};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        counter::Counter,
        event::{PeerId, Reason},
        view::State,
    },
    path::Path,
};

const SECOND: Duration = Duration::from_secs(1);
const ELSEWHERE: [u8; 4] = [192, 0, 2, 99];
/// What something on the way makes of a source.
const CHANGED: [u8; 4] = [198, 51, 100, 66];

fn strict(connection: Connection) -> Connection {
    Connection { no_nats: true, ..connection }
}

/// A way on which those messages of the terminal that `is_changed` says, by their number, come from
/// elsewhere, and what is answered to there comes back.
fn changing(mut is_changed: impl FnMut(usize) -> bool) -> impl FnMut(Duration, Way, Ends) -> Option<Ends> {
    let (mut number, mut terminal) = (0, None);
    move |_, way, ends| {
        let Ends { mut from, mut to } = ends;
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
        Some(Ends { from, to })
    }
}

/// Both, with the messages of the set-up that `is_changed` says coming from elsewhere.
fn set_up(of: [Connection; 2], is_changed: impl FnMut(usize) -> bool) -> Fleet {
    let [gateway, terminal] = of;
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

/// The terminal moves.
fn moves(fleet: &mut Fleet) {
    fleet.terminals[0].at = Some(ELSEWHERE.into());
    let peer = here(fleet);
    fleet.terminals[0].endpoint.handle_local(fleet.now, peer, ELSEWHERE.into(), None).unwrap();
}

#[test]
fn a_changed_first_ike_auth_is_refused_and_the_next_attempt_succeeds() {
    // The terminal forbids NATs, the gateway does not care.
    let mut fleet = set_up([gateway(), strict(terminal())], |number| number == 1);
    assert_eq!(fleet.gateway.ends(), [Reason::Nat]);
    assert_eq!(fleet.terminals[0].ends(), [Reason::Nat], "UNEXPECTED_NAT_DETECTED");
    fleet.pass(5 * SECOND);
    assert_eq!(fleet.ups().len(), 1, "one changed packet is not the end");
    assert_eq!(fleet.gateway.endpoint.count(Counter::NatRefused), 1);
}

#[test]
fn a_gateway_that_forbids_nats_asks_for_proof_that_there_is_none() {
    // By NO_NATS_ALLOWED, or by NAT_DETECTION of one that does not know it.
    for terminal in [strict(terminal()), terminal()] {
        assert_eq!(set_up([strict(gateway()), terminal.clone()], |_| false).ups().len(), 1);
        for which in [0, 1] {
            let fleet = set_up([strict(gateway()), terminal.clone()], |number| number == which);
            assert_eq!(fleet.ups().len(), 0, "message {which}");
            // Who forbids NATs itself sees it in our first answer, and says nothing more.
            let [ours, theirs] = [&fleet.gateway, &fleet.terminals[0]].map(Side::ends);
            assert!(
                ours == [Reason::Nat] || (ours.is_empty() && theirs == [Reason::Nat]),
                "{ours:?} {theirs:?}"
            );
        }
    }
    // A NAT that changes all.
    assert_eq!(set_up([strict(gateway()), terminal()], |_| true).ups().len(), 0);
    assert_eq!(set_up([gateway(), terminal()], |_| true).ups().len(), 1, "where NATs are allowed");
}

#[test]
fn encapsulation_that_is_wanted_anyway_is_no_nat() {
    let forced = Connection { force_udp: true, ..strict(terminal()) };
    let fleet = set_up([strict(gateway()), forced], |_| false);
    assert_eq!(fleet.ups().len(), 1);
    assert!(fleet.gateway.children()[0].path.udp.is_some());
}

#[test]
fn a_path_that_only_a_nat_could_make_is_not_followed() {
    for (gateway, terminal) in [(strict(gateway()), terminal()), (gateway(), strict(terminal()))] {
        let mut fleet = set_up([gateway, terminal], |_| false);
        let child = fleet.ups()[0].children().next().unwrap();
        let peer = fleet.ups()[0].id();
        let path = Path { local: GATEWAY.into(), remote: CHANGED.into(), udp: None };
        fleet.gateway.endpoint.handle_path(fleet.now, child, path);
        fleet.settle();
        assert_eq!(fleet.place(peer).ip(), IpAddr::from(TERMINAL));
        assert_eq!(fleet.gateway.endpoint.count(Counter::NatRefused), 1);
    }
}

#[test]
fn an_update_that_was_changed_is_tried_again_and_does_not_end_the_link() {
    for gateway in [gateway(), strict(gateway())] {
        let mut fleet = set_up([gateway, strict(terminal())], |_| false);
        moves(&mut fleet);
        let mut first_three = changing(|number| number < 3);
        fleet.settle_by(&mut first_three);
        assert_eq!(fleet.ups()[0].addresses().remote, SocketAddr::from((TERMINAL, 4500)), "refused");
        fleet.pass_by(10 * SECOND, first_three);
        assert_eq!(fleet.ups()[0].addresses().remote, SocketAddr::from((ELSEWHERE, 4500)));
        assert_eq!((fleet.gateway.ends(), fleet.terminals[0].ends()), (vec![], vec![]));
    }
}

#[test]
fn where_all_updates_are_changed_the_link_ends_and_begins_anew() {
    let mut fleet = set_up([gateway(), strict(terminal())], |_| false);
    moves(&mut fleet);
    fleet.pass_by(60 * SECOND, changing(|_| true));
    assert_eq!(fleet.terminals[0].ends().first(), Some(&Reason::Nat));
    let tries = fleet.gateway.endpoint.count(Counter::NatRefused);
    assert!(tries >= 9, "{tries}");
    fleet.pass(120 * SECOND);
    assert_eq!(fleet.ups().len(), 1);
}

#[test]
fn an_update_without_no_nats_allowed_must_show_it_otherwise() {
    let mut fleet = set_up([strict(gateway()), terminal()], |_| false);
    moves(&mut fleet);
    fleet.settle();
    assert_eq!(
        fleet.ups()[0].addresses().remote,
        SocketAddr::from((ELSEWHERE, 4500)),
        "NAT_DETECTION shows it"
    );
    let peer = here(&fleet);
    fleet.terminals[0].endpoint.handle_local(fleet.now, peer, TERMINAL.into(), None).unwrap();
    fleet.settle_by(changing(|_| true));
    assert_eq!(
        fleet.ups()[0].addresses().remote,
        SocketAddr::from((ELSEWHERE, 4500)),
        "and that it is not so"
    );
}
