//! Where the two sides are, and how they move (RFC 4555).

use crate::pair::{GATEWAY, Pair, TERMINAL, gateway, terminal};
use std::net::SocketAddr;
use std::time::Duration;
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

#[test]
fn a_nat_is_seen_and_where_none_is_allowed_refused() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.nat = Some(SocketAddr::from((NAT, 31_000)));
    pair.connect();
    pair.assert_one_each();
    assert_eq!(pair.gateway.children()[0].path.udp, Some((4500, 31_000)));
    let strict = |connection| Connection { no_nats: true, ..connection };
    Pair::connected(strict(gateway()), strict(terminal())).assert_one_each();
    let mut pair = Pair::new(gateway(), strict(terminal()));
    pair.nat = Some(SocketAddr::from((NAT, 31_000)));
    pair.connect();
    assert_eq!(pair.terminal.ends(), [Reason::Nat]);
}

#[test]
fn a_terminal_moves_even_after_the_gateway_changed_keys() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.ups().map(|all| all[0]);
    pair.gateway.endpoint.rekey(pair.now, there, true);
    pair.settle();
    pair.terminal.endpoint.handle_local(pair.now, here, [192, 0, 2, 8].into(), None);
    pair.settle();
    let at = pair.gateway.endpoint.peers().find(|p| p.state() == State::Up).unwrap().addresses();
    assert_eq!(at.remote, SocketAddr::from(([192, 0, 2, 8], 4500)));
    assert!(pair.gateway.events.iter().any(|e| matches!(e, Event::PathConfirmed { .. })));
}

#[test]
fn an_update_to_nowhere_is_unacceptable() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.ups().map(|all| all[0]);
    pair.terminal.endpoint.handle_local(pair.now, here, [127, 0, 0, 1].into(), None);
    pair.settle();
    // Somebody may have changed a packet: one is not the end.
    assert_eq!((pair.terminal.ends(), pair.gateway.ends()), (vec![], vec![]));
    pair.pass(Settings::default().retransmission.total());
    let why = Reason::Refused(notify::UNACCEPTABLE_ADDRESSES);
    assert_eq!(pair.terminal.ends().first(), Some(&why));
    assert_eq!(pair.gateway.ends().first(), Some(&Reason::Deleted));
}

#[test]
fn which_of_our_addresses_a_peer_uses_is_the_operators_choice() {
    let other = [203, 0, 113, 2];
    let both = Connection { local: vec![GATEWAY.into(), other.into()], ..gateway() };
    for (connection, moves) in [(both, true), (gateway(), false)] {
        let mut pair = Pair::connected(connection, terminal());
        let [here, _] = pair.ups().map(|all| all[0]);
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
fn a_probe_from_elsewhere_is_answered_there_and_moves_nothing() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.ups().map(|all| all[0]);
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
fn who_is_not_where_it_was_seen_is_back_where_it_was() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [_, there] = pair.ups().map(|all| all[0]);
    let child = pair.gateway.endpoint.peers().next().unwrap().children().next().unwrap();
    let path = Path { local: GATEWAY.into(), remote: [192, 0, 2, 99].into(), udp: None };
    let place = |pair: &Pair| pair.gateway.endpoint.peers().next().unwrap().addresses().remote.ip();
    pair.gateway.endpoint.handle_path(pair.now, child, path);
    assert_eq!(place(&pair), path.remote);
    // The question goes to where nobody is.
    drop(pair.down());
    let unconfirmed = |e: &Event| matches!(e, Event::PeerMoved { confirmed: false, .. });
    assert!(pair.gateway.events.iter().any(unconfirmed));
    pair.gateway.endpoint.handle_unconfirmed(pair.now, there);
    assert_eq!(place(&pair), std::net::IpAddr::from(TERMINAL), "enough was sent");
    pair.gateway.endpoint.handle_path(pair.now, child, path);
    drop(pair.down());
    for _ in 0..12 {
        pair.now += SECOND;
        pair.gateway.endpoint.handle_timeout(pair.now);
        let sent = pair.down();
        sent.iter().filter(|(to, _)| to.remote.ip() != path.remote).for_each(|m| pair.deliver_down(m));
    }
    assert_eq!(place(&pair), std::net::IpAddr::from(TERMINAL), "no answer");
    assert!(!pair.gateway.events.iter().any(|e| matches!(e, Event::PathConfirmed { .. })));
}
