//! Authentication whose time is limited: the side that connects authenticates again before it is over,
//! make before break (RFC 4478; RFC 7296 §2.8.3).

use crate::{
    fleet::Fleet,
    insider::Insider,
    node::{Habits, Node},
    pair::Pair,
    world::World,
};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};
use wayfarer::sim::{
    cable::Cable,
    ike::{
        connections::{self, gateway, prefix},
        side::Side,
    },
    nat::Kind,
};
use wayfarer_mobility::ike::{
    bounds,
    connection::{ChildPolicy, Connection, Lifetimes, LocalAuth, SharedKey},
    event::{ChildId, Event},
    pool::Pool,
    reason::Reason,
    settings::Settings,
    view::State,
    wire::{ExchangeType, Header, TrafficSelector},
};
use zeroize::Zeroizing;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// Has authentication last as long as `authentication`, and keys much longer.
pub(super) fn with_limit(connection: Connection, authentication: Option<Duration>) -> Connection {
    let (ike_sa, child) = (9 * HOUR, 9 * HOUR);
    Connection {
        lifetimes: Lifetimes { ike_sa, child, authentication, ..connection.lifetimes },
        ..connection
    }
}

/// Makes a gateway's connection whose peers must authenticate again after an hour.
pub(super) fn hourly() -> Connection {
    with_limit(gateway(), Some(HOUR))
}

/// Makes the connection of a terminal that knows of no limit before it is told.
pub(super) fn terminal() -> Connection {
    with_limit(connections::terminal(), None)
}

/// Gives the gateway a key that its peers do not know.
pub(super) fn with_wrong_key(connection: Connection) -> Connection {
    Connection { local_auth: LocalAuth::Psk(SharedKey(Zeroizing::new("a wrong key".into()))), ..connection }
}

/// Returns the inner addresses of the connected peers.
fn inner(side: &Side) -> Vec<IpAddr> {
    let up = side.endpoint.peers().filter(|peer| peer.state() == State::Up);
    up.flat_map(|peer| peer.inner().collect::<Vec<_>>()).collect()
}

/// Counts the failed attempts to authenticate again.
pub(super) fn failures(side: &Side) -> usize {
    side.events.iter().filter(|event| matches!(event, Event::RenewalFailed { .. })).count()
}

#[test]
fn nothing_is_lost_when_terminals_authenticate_again() {
    let habits = Habits { limits_authentication: true, ..Habits::default() };
    for kind in Kind::ALL {
        let mut world = World::with_habits(habits, 7, kind, 6, Cable::LOSSLESS);
        world.pass(60 * SECOND);
        world.assert_connected();
        let inner: Vec<_> = world.nodes[1..].iter().map(|node| node.inner()).collect();
        let peers: Vec<_> = (0..6).map(|terminal| world.peers(terminal)).collect();
        let counts = |world: &World| {
            let sum = |of: fn(&Node) -> u64| world.nodes.iter().map(of).sum::<u64>();
            [sum(|node| node.sent), sum(|node| node.unsent), world.delivered(), world.strays()]
        };
        let before = counts(&world);
        world.pace = SECOND / 4;
        world.pass(3 * HOUR);
        let [sent, unsent, delivered, strays] = [0, 1, 2, 3].map(|at| counts(&world)[at] - before[at]);
        assert_eq!((unsent, strays), (0, 0));
        assert!(sent > 6 * 2 * 4 * 10_000);
        // One packet of each terminal and direction may be on its way.
        assert!(sent.abs_diff(delivered) <= 12, "{sent} {delivered}");
        world.assert_connected();
        for (terminal, (here, there)) in peers.into_iter().enumerate() {
            assert_eq!(world.nodes[terminal + 1].inner(), inner[terminal]);
            let log = world.nodes[terminal + 1].logs_of_ended_peers();
            let replaced = log.iter().filter(|line| line.contains("reason: Replaced")).count();
            assert!((3..5).contains(&replaced), "{log:#?}");
            let (new_here, new_there) = world.peers(terminal);
            assert!(new_here > here && new_there > there);
        }
    }
}

#[test]
fn terminal_keeps_its_address_and_the_old_ike_sa_is_deleted_last() {
    for unique in [true, false] {
        let mut pair = Pair::connected(Connection { unique, ..hourly() }, terminal());
        let before = inner(&pair.terminal);
        assert_eq!(before.len(), 1);
        pair.pass(55 * 60 * SECOND);
        // Both are up until the traffic has moved.
        let starts = pair.terminal.events.iter().filter(|e| matches!(e, Event::PeerUp { .. })).count();
        assert_eq!(starts, 2, "unique: {unique}");
        pair.pass(20 * SECOND);
        pair.assert_one_each();
        assert_eq!((inner(&pair.terminal), inner(&pair.gateway)), (before.clone(), before));
        assert_eq!(pair.terminal.end_reasons(), [Reason::Replaced]);
        assert_eq!(pair.gateway.end_reasons(), [Reason::Deleted], "the terminal deletes it");
        assert_eq!(pair.gateway.endpoint.state_sizes().leases, 1);
    }
}

#[test]
fn child_sas_follow_in_pairs() {
    let mut pair = Pair::connected(hourly(), terminal());
    pair.pass(56 * 60 * SECOND);
    for side in [&pair.terminal, &pair.gateway] {
        let follows = side.events.iter().filter(|e| matches!(e, Event::ChildFollows { .. })).count();
        assert_eq!(follows, 1);
    }
    // The gateway has the new keys first. It sends by the new SA when a packet has come by it, or when
    // the old one goes.
    let is_new = |event: &&Event| matches!(event, Event::ChildUp { sa, .. } if !sa.send);
    assert_eq!(pair.gateway.events.iter().filter(is_new).count(), 1);
    let used = |side: &Side| side.events.iter().filter(|e| matches!(e, Event::ChildUse { .. })).count();
    assert_eq!((used(&pair.terminal), used(&pair.gateway)), (1, 0), "no packet has come");
}

/// Gives the gateway another connection, and the same addresses.
fn reload(pair: &mut Pair, connection: Connection) {
    let pool = Pool::new([10, 98, 0, 1].into(), [10, 98, 0, 254].into()).named("first");
    pair.gateway.endpoint.reconfigure(pair.now, vec![connection], vec![pool], Settings::default());
}

#[test]
fn a_link_goes_on_while_authentication_fails() {
    let mut pair = Pair::connected(hourly(), terminal());
    reload(&mut pair, with_wrong_key(hourly()));
    pair.pass(56 * 60 * SECOND);
    pair.assert_one_each();
    // The waits are ten seconds at first, and double up to a minute.
    let so_far = failures(&pair.terminal);
    assert!((5..14).contains(&so_far), "{so_far}");
    let waits = pair.terminal.events.iter().filter_map(|event| match event {
        Event::RenewalFailed { wait, .. } => Some(*wait),
        _ => None,
    });
    let waits: Vec<_> = waits.collect();
    assert!(waits[0] == 10 * SECOND && *waits.last().unwrap() > 50 * SECOND, "{waits:?}");
    reload(&mut pair, hourly());
    pair.pass(80 * SECOND);
    pair.assert_one_each();
    assert_eq!(failures(&pair.terminal), so_far);
    assert!(pair.terminal.end_reasons().ends_with(&[Reason::Replaced]));
}

#[test]
fn a_peer_that_does_not_authenticate_again_is_closed() {
    let mut insider = Insider::new(hourly(), terminal(), Settings::default());
    let quiet = insider.pair.gateway.connected_peers()[0];
    for _ in 0..3600 {
        insider.pass(SECOND);
        insider.pair.gateway.endpoint.handle_liveness(insider.pair.now, quiet, true);
        assert_eq!(insider.pair.gateway.end_reasons().is_empty(), insider.pair.now < 4600 * SECOND);
    }
    assert_eq!(insider.pair.gateway.end_reasons(), [Reason::AuthenticationOver]);
}

/// Lets time pass until the terminal begins to authenticate again.
fn wait_until_due(pair: &mut Pair) {
    let here = pair.terminal.connected_peers()[0];
    while pair.terminal.endpoint.peers().count() < 2 {
        assert!(pair.now < 2 * HOUR, "it does not");
        pair.now += SECOND;
        pair.terminal.endpoint.handle_timeout(pair.now);
        pair.terminal.endpoint.handle_liveness(pair.now, here, true);
    }
}

/// Carries this many messages of the terminal, with their answers.
fn carry(pair: &mut Pair, messages: usize) {
    for _ in 0..messages {
        pair.up().iter().for_each(|message| pair.deliver_up(message));
        pair.down().iter().for_each(|message| pair.deliver_down(message));
    }
}

#[test]
fn a_link_that_ends_meanwhile_is_the_new_peers() {
    // The gateway closes the old IKE SA after each message of the new one.
    for messages in 0..5 {
        let mut pair = Pair::connected(hourly(), terminal());
        let [_, there] = pair.connected_peers().map(|all| all[0]);
        wait_until_due(&mut pair);
        carry(&mut pair, messages);
        pair.gateway.endpoint.close(pair.now, there);
        pair.settle();
        pair.pass(70 * SECOND);
        pair.assert_one_each();
        let starts = pair.terminal.events.iter().filter(|e| matches!(e, Event::PeerUp { .. })).count();
        assert_eq!(starts, 2, "after {messages} messages, the link is made once");
        assert!(sends(&pair.terminal) && sends(&pair.gateway), "after {messages} messages");
        // The terminal connects again as soon as that one ends.
        let there = pair.gateway.connected_peers()[0];
        pair.gateway.endpoint.close(pair.now, there);
        pair.pass(5 * SECOND);
        pair.assert_one_each();
    }
}

/// Returns whether a side sends by its newest child SA, or will once the one before has gone.
pub(super) fn sends(side: &Side) -> bool {
    let up = side.events.iter().rev().find_map(|event| match event {
        Event::ChildUp { child, sa, .. } => Some((*child, sa.send)),
        _ => None,
    });
    let (newest, at_once) = up.unwrap();
    let is_use = |event: &Event| match event {
        Event::ChildUse { child } | Event::ChildFollows { child, .. } => *child == newest,
        _ => false,
    };
    at_once || side.events.iter().any(is_use)
}

#[test]
fn a_terminal_gets_another_address_if_its_pool_is_gone() {
    let mut pair = Pair::connected(hourly(), terminal());
    let other = Pool::new([10, 97, 0, 1].into(), [10, 97, 0, 254].into()).named("other");
    pair.gateway.endpoint.reconfigure(pair.now, vec![hourly()], vec![other], Settings::default());
    pair.pass(56 * 60 * SECOND);
    pair.assert_one_each();
    assert_eq!(inner(&pair.terminal), [IpAddr::from([10, 97, 0, 1])]);
}

#[test]
fn several_devices_of_one_identity_authenticate_again() {
    let mut fleet = Fleet::new(vec![Connection { unique: false, ..hourly() }]);
    for last in 1..4 {
        fleet.connect([192, 0, 2, last], terminal());
    }
    let addresses = |fleet: &Fleet| {
        let mut all: Vec<_> = fleet
            .connected_peers()
            .iter()
            .flat_map(|peer| {
                peer.inner().map(|inner| (peer.addresses().remote.ip(), inner)).collect::<Vec<_>>()
            })
            .collect();
        all.sort();
        all
    };
    let before = addresses(&fleet);
    assert_eq!(before.len(), 3);
    fleet.pass(2 * HOUR);
    assert_eq!(addresses(&fleet), before);
    assert!(fleet.gateway.end_reasons().iter().all(|reason| *reason == Reason::Deleted));
}

#[test]
fn a_peer_and_the_one_that_replaces_it_count_as_one() {
    let full = [
        Settings { device_limit: 3, ..Settings::default() },
        Settings { peer_limit: 3, ..Settings::default() },
    ];
    for settings in full {
        let mut fleet = Fleet::with(vec![Connection { unique: false, ..hourly() }], settings);
        let places = [1, 2, 3].map(|last| [192, 0, 2, last]);
        places.into_iter().for_each(|place| _ = fleet.connect(place, terminal()));
        let before = places.map(|place| fleet.peer_at(place));
        fleet.pass(2 * HOUR);
        for (place, before) in places.into_iter().zip(before) {
            assert!(fleet.peer_at(place) > before, "{place:?} has authenticated again");
        }
        let reasons = fleet.gateway.end_reasons();
        assert!(reasons.iter().all(|reason| *reason == Reason::Deleted), "{reasons:?}");
        // Once the old ones have gone, each peer counts.
        let newest = places.map(|place| fleet.peer_at(place));
        fleet.connect([192, 0, 2, 4], terminal());
        assert_eq!(
            (fleet.connected_peers().len(), fleet.gateway.end_reasons().len()),
            (3, reasons.len() + 1)
        );
        let stay = places.into_iter().zip(newest).filter(|(place, id)| fleet.peer_at(*place) == *id).count();
        assert!(stay >= 2, "one makes room at most");
    }
}

#[test]
fn a_rekey_does_not_keep_a_peer_that_was_replaced() {
    let mut pair = Pair::connected(hourly(), terminal());
    while pair.gateway.connected_peers().len() < 2 {
        assert!(pair.now < 2 * HOUR, "it authenticates again");
        pair.pass(SECOND);
    }
    let all = pair.gateway.connected_peers();
    // The terminal goes on with the old IKE SA. When the gateway is about to delete it, its own rekey of
    // it is under way.
    let wait = |pair: &mut Pair, time| {
        pair.now += time;
        pair.gateway.endpoint.handle_timeout(pair.now);
        all.iter().for_each(|peer| pair.gateway.endpoint.handle_liveness(pair.now, *peer, true));
        drop(pair.down());
    };
    wait(&mut pair, bounds::REPLACED_WAIT - 2 * SECOND);
    pair.gateway.endpoint.rekey(pair.now, all[0], true);
    let requests = pair.down();
    wait(&mut pair, 2 * SECOND);
    requests.iter().for_each(|request| pair.deliver_down(request));
    pair.up().iter().for_each(|answer| pair.deliver_up(answer));
    drop(pair.down());
    let rekeyed = pair.gateway.endpoint.peers().find(|peer| peer.id() == all[0]).unwrap();
    assert_eq!((rekeyed.state(), rekeyed.ike_sas()), (State::Up, 2), "the rekey has come first");
    let Settings { retransmission, linger, .. } = Settings::default();
    let until = pair.now + retransmission.total() + linger;
    while pair.now < until {
        wait(&mut pair, SECOND);
    }
    assert_eq!(pair.gateway.connected_peers(), all[1..]);
    assert_eq!(pair.gateway.end_reasons(), [Reason::Replaced]);
}

/// Makes connections of both sides with a child SA for each of these networks behind the gateway.
fn with_children(nets: [(&str, TrafficSelector); 2]) -> [Connection; 2] {
    let policy = |(name, net): (&str, TrafficSelector), is_ours| {
        let [local, remote] = if is_ours { [vec![net], vec![]] } else { [vec![], vec![net]] };
        ChildPolicy { name: name.into(), local, remote, transport: false }
    };
    let with = |connection, is_ours| Connection {
        children: nets.map(|net| policy(net, is_ours)).into(),
        ..connection
    };
    [with(hourly(), true), with(terminal(), false)]
}

/// Returns the child SAs that take over traffic, each with the one whose traffic that is.
fn followers(side: &Side) -> Vec<[ChildId; 2]> {
    let follower = |event: &Event| match event {
        Event::ChildFollows { child, old } => Some([*child, *old]),
        _ => None,
    };
    side.events.iter().filter_map(follower).collect()
}

#[test]
fn child_sas_follow_those_with_the_same_selectors() {
    let [gateway, terminal] = with_children([
        ("wide", prefix([10, 0, 0, 0], [10, 255, 255, 255])),
        ("narrow", prefix([10, 1, 0, 0], [10, 1, 255, 255])),
    ]);
    let mut pair = Pair::connected(gateway, terminal);
    let peer = pair.terminal.connected_peers()[0];
    wait_until_due(&mut pair);
    // The wide one is rekeyed meanwhile, and is the newer of the two from then on.
    let first_wide = |side: &Side| {
        let wide = |event: &Event| match event {
            Event::ChildUp { child, sa, .. } if sa.name == "wide" => Some(*child),
            _ => None,
        };
        side.events.iter().find_map(wide).unwrap()
    };
    pair.terminal.endpoint.handle_child_due(pair.now, peer, first_wide(&pair.terminal));
    pair.settle();
    pair.pass(HOUR / 2);
    for side in [&pair.terminal, &pair.gateway] {
        let selectors = |child: ChildId| {
            side.events.iter().find_map(|event| match event {
                Event::ChildUp { child: up, sa, .. } if *up == child => Some((&sa.local, &sa.remote)),
                _ => None,
            })
        };
        let all = followers(side);
        assert_eq!(all.len(), 2, "{:#?}", side.events);
        for [new, old] in all {
            assert_eq!(selectors(new), selectors(old));
            assert_ne!(old, first_wide(side), "it carries nothing more");
        }
    }
}

#[test]
fn a_child_sa_with_other_selectors_follows_none() {
    let nets = |second| {
        let net = |last| prefix([10, second, last, 0], [10, second, last, 255]);
        with_children([("one", net(1)), ("other", net(2))])
    };
    let [gateway, terminal] = nets(1);
    let mut pair = Pair::connected(gateway, terminal);
    let [gateway, terminal] = nets(2);
    reload(&mut pair, gateway);
    pair.terminal.endpoint.reconfigure(pair.now, vec![terminal], vec![], Settings::default());
    pair.pass(HOUR);
    for side in [&pair.terminal, &pair.gateway] {
        assert_eq!((side.connected_peers().len(), followers(side)), (1, vec![]));
        assert!(sends(side));
    }
}

#[test]
fn each_child_sa_has_one_follower() {
    let net = || prefix([10, 0, 0, 0], [10, 255, 255, 255]);
    let [gateway, terminal] = with_children([("one", net()), ("other", net())]);
    let mut pair = Pair::connected(gateway, terminal);
    pair.pass(HOUR);
    for side in [&pair.terminal, &pair.gateway] {
        let all = followers(side);
        let [new, old] = [0, 1].map(|at| all.iter().map(|pair| pair[at]).collect::<BTreeSet<_>>());
        assert_eq!((all.len(), new.len(), old.len()), (2, 2, 2), "{all:?}");
    }
}

#[test]
fn the_old_ike_sa_stays_until_all_child_sas_have_moved() {
    let [gateway, terminal] = with_children([
        ("one", prefix([10, 1, 0, 0], [10, 1, 255, 255])),
        ("other", prefix([10, 2, 0, 0], [10, 2, 255, 255])),
    ]);
    let mut pair = Pair::connected(gateway, terminal);
    wait_until_due(&mut pair);
    // The new IKE SA is up with its first child SA. The request for the second is lost for a while.
    carry(&mut pair, 2);
    let until = pair.now + 2 * Settings::default().linger;
    while pair.now < until {
        pair.now += SECOND;
        pair.terminal.endpoint.handle_timeout(pair.now);
        let headers = pair.up().into_iter().map(|(_, message)| Header::parse(&message).unwrap());
        let requests = headers.filter(|header| !header.is_response());
        let others = requests.filter(|header| header.exchange != ExchangeType::CreateChildSa.number());
        assert_eq!(others.count(), 0, "nothing is deleted");
    }
    pair.pass(HOUR / 2);
    assert_eq!((followers(&pair.terminal).len(), pair.terminal.end_reasons()), (2, vec![Reason::Replaced]));
}
