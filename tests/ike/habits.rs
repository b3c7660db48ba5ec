//! Peers with habits of other implementations: how libreswan answers probes, announces its moves and
//! keeps the encapsulation of its ESP.

use crate::{fleet::Fleet, insider::Insider, pair::Pair};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use wayfarer::sim::{
    ike::{
        connections::{GATEWAY, TERMINAL, gateway, terminal},
        habits::EmptyAnswers,
        side::{Side, to_gateway},
    },
    nat::{Kind, Nat},
};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        counter::Counter,
        event::{Event, PeerId},
        nat::NatDetection,
        settings::Settings,
        wire::{ExchangeType, Payload, notify},
    },
    path::{Addresses, Path},
};

const SECOND: Duration = Duration::from_secs(1);
const ELSEWHERE: [u8; 4] = [192, 0, 2, 99];
const OTHER: [u8; 4] = [198, 51, 100, 67];
const RAW: Option<(u16, u16)> = None;
const UDP: Option<(u16, u16)> = Some((4500, 4500));

/// Returns the path of ESP between the gateway and `remote`.
fn path(remote: [u8; 4], udp: Option<(u16, u16)>) -> Path {
    Path { local: GATEWAY.into(), remote: remote.into(), udp }
}

/// Returns the path that a side's data plane was given last, and whether it is confirmed.
fn last_path(side: &Side) -> Option<(Path, bool)> {
    side.events.iter().rev().find_map(|event| match event {
        Event::PeerMoved { path, confirmed, .. } => Some((*path, *confirmed)),
        _ => None,
    })
}

/// Connects a terminal that answers probes by empty messages.
fn with_empty_answers() -> (Fleet, PeerId) {
    let mut fleet = Fleet::new(vec![gateway()]);
    let side = Side::new(vec![terminal()], Settings { log_keys: true, ..Settings::default() }, 7);
    let habit = Some(EmptyAnswers::default());
    let mut side = Side { at: Some(TERMINAL.into()), empty_answers: habit, ..side };
    side.endpoint.dial(fleet.now, 0, TERMINAL.into());
    fleet.terminals.push(side);
    fleet.settle();
    let peer = fleet.peer_at(TERMINAL).unwrap();
    (fleet, peer)
}

/// Moves the terminal to `address`, which it announces.
fn move_to(fleet: &mut Fleet, address: [u8; 4]) {
    let side = &mut fleet.terminals[0];
    side.at = Some(address.into());
    let here = side.connected_peers()[0];
    side.endpoint.handle_local(fleet.now, here, address.into(), None).unwrap();
    fleet.settle();
}

#[test]
fn peer_that_answers_probes_by_empty_messages_moves() {
    let (mut fleet, peer) = with_empty_answers();
    for address in [ELSEWHERE, OTHER, TERMINAL] {
        move_to(&mut fleet, address);
        fleet.pass(60 * SECOND);
        assert_eq!(fleet.address_of(peer), SocketAddr::from((address, 4500)));
    }
    assert_eq!(fleet.gateway.endpoint.count(Counter::Unconfirmed), 0);
    // A peer that is not trusted moves as soon as it has answered.
    fleet.gateway.endpoint.handle_path(fleet.now, peer, path(OTHER, UDP));
    fleet.pass(11 * SECOND);
    assert_eq!(fleet.gateway.endpoint.count(Counter::Unconfirmed), 1);
    move_to(&mut fleet, ELSEWHERE);
    fleet.pass(Duration::from_millis(110));
    assert_eq!(fleet.address_of(peer), SocketAddr::from((ELSEWHERE, 4500)));
}

#[test]
fn empty_answer_confirms_a_move_only_from_the_new_address() {
    for (source, confirms) in [(TERMINAL, false), (OTHER, false), (ELSEWHERE, true)] {
        let mut insider = Insider::new(gateway(), terminal(), Settings::default());
        let [_, peer] = insider.pair.connected_peers().map(|all| all[0]);
        insider.pair.gateway.endpoint.handle_path(insider.pair.now, peer, path(ELSEWHERE, UDP));
        let probe = insider.pair.down().remove(0);
        assert_eq!(probe.0.remote, SocketAddr::from((ELSEWHERE, 4500)));
        insider.answer(ExchangeType::Informational, 0, source, &[]);
        let unconfirmed = insider.pair.gateway.endpoint.count(Counter::Unconfirmed);
        assert_eq!(unconfirmed, u64::from(!confirms), "from {source:?}");
        let at = insider.pair.gateway.endpoint.peers().next().unwrap().addresses().remote.ip();
        assert_eq!(at, IpAddr::from(if confirms { ELSEWHERE } else { TERMINAL }), "from {source:?}");
    }
}

#[test]
fn update_without_cookie2_is_followed_and_confirmed_by_an_empty_answer() {
    let mut insider = Insider::new(gateway(), terminal(), Settings::default());
    let spis = insider.pair.gateway.endpoint.peers().next().unwrap().spis().unwrap();
    let there = to_gateway(ELSEWHERE, 4500);
    let as_sent = Addresses { local: there.remote, remote: there.local };
    let nat = NatDetection::new(&wayfarer::primitives::Primitives, spis, as_sent);
    let mut payloads = vec![Payload::notify(notify::UPDATE_SA_ADDRESSES, &[])];
    payloads.extend(nat.payloads());
    let update = insider.seal(ExchangeType::Informational, &payloads);
    insider.pair.gateway.endpoint.handle_datagram(insider.pair.now, there, &update);
    let sent = insider.pair.down();
    assert_eq!(sent.iter().map(|(to, _)| to.remote).collect::<Vec<_>>(), [there.remote; 2]);
    let notified = |payloads: &[Payload<'_>]| {
        let kind = |payload: &Payload<'_>| match payload {
            Payload::Notify(notify) => Some(notify.kind),
            _ => None,
        };
        payloads.iter().filter_map(kind).collect::<Vec<_>>()
    };
    let nats = [notify::NAT_DETECTION_SOURCE_IP, notify::NAT_DETECTION_DESTINATION_IP];
    assert_eq!(insider.read(&sent[0].1, notified), nats, "the answer");
    assert_eq!(insider.read(&sent[1].1, notified), [notify::COOKIE2], "the probe");
    assert_eq!(last_path(&insider.pair.gateway), Some((path(ELSEWHERE, RAW), false)));
    insider.answer(ExchangeType::Informational, 0, ELSEWHERE, &[]);
    drop(insider.pair.down());
    assert!(insider.pair.gateway.events.iter().any(|event| matches!(event, Event::PathConfirmed { .. })));
}

#[test]
fn gateway_sends_esp_as_the_peers_packets_come() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    assert_eq!(pair.gateway.newest_child().path, path(TERMINAL, RAW));
    for udp in [UDP, RAW, UDP] {
        pair.gateway.endpoint.handle_path(pair.now, there, path(TERMINAL, udp));
        assert_eq!(pair.down(), [], "the address is the same, so there is nothing to probe");
        assert_eq!(last_path(&pair.gateway), Some((path(TERMINAL, udp), true)));
    }
    // Child SAs that are created later use it, too.
    pair.gateway.endpoint.rekey(pair.now, there, false);
    pair.settle();
    assert_eq!(pair.gateway.newest_child().path, path(TERMINAL, UDP));
    // A move without a NAT ends UDP, until packets show that the peer keeps it.
    pair.terminal.endpoint.handle_local(pair.now, here, ELSEWHERE.into(), None).unwrap();
    pair.up().iter().for_each(|update| pair.deliver_up(update));
    let answer_and_probe = pair.down();
    assert_eq!(last_path(&pair.gateway), Some((path(ELSEWHERE, RAW), false)));
    pair.gateway.endpoint.handle_path(pair.now, there, path(ELSEWHERE, UDP));
    assert_eq!(pair.down(), []);
    assert_eq!(last_path(&pair.gateway), Some((path(ELSEWHERE, UDP), false)));
    answer_and_probe.iter().for_each(|message| pair.deliver_down(message));
    pair.settle();
    assert_eq!(last_path(&pair.gateway).map(|(path, _)| path), Some(path(ELSEWHERE, UDP)));
    assert!(pair.gateway.events.iter().any(|event| matches!(event, Event::PathConfirmed { .. })));
    let view = pair.gateway.endpoint.peers().next().unwrap();
    assert_eq!(view.moves().0, 1, "only the address counts as a move");
}

#[test]
fn forced_encapsulation_stays_whatever_comes() {
    let mut pair = Pair::connected(Connection { force_udp: true, ..gateway() }, terminal());
    let [_, there] = pair.connected_peers().map(|all| all[0]);
    pair.gateway.endpoint.handle_path(pair.now, there, path(TERMINAL, RAW));
    drop(pair.down());
    assert!(last_path(&pair.gateway).is_none_or(|(last, _)| last == path(TERMINAL, UDP)));
}

#[test]
fn terminal_follows_the_gateways_encapsulation_but_no_address() {
    let from = |gateway: [u8; 4], udp| Path { local: TERMINAL.into(), remote: gateway.into(), udp };
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    for udp in [UDP, RAW] {
        pair.terminal.endpoint.handle_path(pair.now, here, from(GATEWAY, udp));
        pair.terminal.endpoint.handle_path(pair.now, here, from(OTHER, udp));
        assert_eq!(pair.up(), []);
        assert_eq!(last_path(&pair.terminal), Some((from(GATEWAY, udp), true)));
    }
    // Behind a NAT, plain ESP would go on only as long as nobody changes packets on the way.
    let nat = Nat::new([198, 51, 100, 9].into(), Kind::ALL[0]);
    let mut pair = Pair::behind(nat, gateway(), terminal());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.handle_path(pair.now, here, from(GATEWAY, RAW));
    assert_eq!((pair.up(), last_path(&pair.terminal)), (vec![], None));
}

/// Plain ESP from behind a NAT shows the NAT's address, but not the port that it gives to IKE.
#[test]
fn probe_goes_to_the_port_at_which_ike_reaches_the_peer() {
    let external = SocketAddr::from((OTHER, 7777));
    let guessed = SocketAddr::from((OTHER, 4500));
    for is_heard_before in [true, false] {
        let mut pair = Pair::connected(gateway(), terminal());
        let [here, there] = pair.connected_peers().map(|all| all[0]);
        let hear = |pair: &mut Pair| {
            pair.terminal.endpoint.handle_liveness(pair.now, here, false);
            let (addresses, check) = pair.up().remove(0);
            pair.deliver_up(&(Addresses { local: external, ..addresses }, check));
        };
        let show = |pair: &mut Pair| pair.gateway.endpoint.handle_path(pair.now, there, path(OTHER, RAW));
        let mut to = vec![];
        for is_heard in [is_heard_before, !is_heard_before] {
            if is_heard {
                hear(&mut pair)
            } else {
                show(&mut pair)
            }
            to.extend(pair.down().iter().map(|(addresses, _)| addresses.remote));
        }
        // The answer to the liveness check goes there in any case.
        let expected = if is_heard_before { vec![external; 2] } else { vec![guessed, external] };
        assert_eq!(to, expected);
        pair.now += SECOND;
        pair.gateway.endpoint.handle_timeout(pair.now);
        let probes = pair.down();
        assert!(probes.iter().all(|(addresses, _)| addresses.remote == external), "{probes:?}");
        let at = pair.gateway.endpoint.peers().next().unwrap().addresses().remote;
        assert_eq!(at, external);
    }
}
