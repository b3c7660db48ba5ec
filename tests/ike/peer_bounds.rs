//! Bounds of the peers of an identity, and of all peers: those that SECURITY.md promises.

use crate::{fleet::Fleet, pair::Pair, renewals::sends};
use std::{mem, net::IpAddr, sync::Arc, time::Duration};
use wayfarer::sim::ike::{
    connections::{TERMINAL, gateway, terminal},
    eap::FakeEap,
    keys::LoggedKeys,
    side::{Side, reversed},
};
use wayfarer_mobility::{
    identity::Identity,
    ike::{
        connection::{Connection, LocalAuth, RemoteAuth, SharedKey},
        counter::Counter,
        event::PeerId,
        protection::Fragments,
        reason::Reason,
        settings::Settings,
        wire::{self, Header, Payload, notify},
    },
    path::Addresses,
};
use zeroize::Zeroizing;

const SECOND: Duration = Duration::from_secs(1);

/// Connects a new terminal of this name without INITIAL_CONTACT.
fn connect(pair: &mut Pair, name: &str, address: [u8; 4]) {
    let local_id = Identity::from_text(name).unwrap();
    pair.replace_terminal(Connection { local_id, ..terminal() });
    pair.terminal.endpoint.dial(pair.now, 0, IpAddr::from(address));
    for (Addresses { remote, local }, message) in pair.terminal.work(pair.now) {
        pair.gateway.endpoint.handle_datagram(pair.now, Addresses { local: remote, remote: local }, &message);
    }
    for (Addresses { remote, local }, message) in pair.gateway.work(pair.now) {
        pair.terminal.endpoint.handle_datagram(
            pair.now,
            Addresses { local: remote, remote: local },
            &message,
        );
    }
    for (Addresses { remote, local }, message) in pair.terminal.work(pair.now) {
        let message = without_initial_contact(pair, &message);
        pair.gateway.endpoint.handle_datagram(pair.now, Addresses { local: remote, remote: local }, &message);
    }
    drop(pair.gateway.work(pair.now));
}

fn without_initial_contact(pair: &Pair, message: &[u8]) -> Vec<u8> {
    let mut keys = LoggedKeys::newest(&pair.gateway.events);
    let header = Header::parse(message).unwrap();
    let opened = keys.protection(true).open(&header, message, &mut Fragments::default()).unwrap().unwrap();
    let mut payloads = wire::parse(opened.first, &opened.body).unwrap();
    payloads.retain(|p| !matches!(p, Payload::Notify(n) if n.kind == notify::INITIAL_CONTACT));
    let mut body = vec![];
    let first = wire::emit(&payloads, &mut body);
    keys.seal(header, first, body, None).remove(0)
}

#[test]
fn bounds_devices_of_an_identity_and_peers_of_all() {
    let log_keys = Settings { log_keys: true, ..Settings::default() };
    let shared = || Connection { unique: false, ..gateway() };
    let mut pair = Pair::with(shared(), terminal(), log_keys.clone());
    let most = log_keys.device_limit;
    for n in 0..most as u8 + 4 {
        connect(&mut pair, "cl.test", [192, 0, 2, n + 1]);
        assert_eq!(pair.gateway.connected_peers().len(), most.min(usize::from(n) + 1));
    }
    assert_eq!(pair.gateway.end_reasons(), [const { Reason::Replaced }; 4], "the oldest make room");
    let mut pair = Pair::with(shared(), terminal(), Settings { peer_limit: 2, ..log_keys });
    for (n, name) in (1..).zip(["a.test", "b.test", "c.test", "d.test"]) {
        connect(&mut pair, name, [192, 0, 2, n]);
    }
    assert_eq!(
        (pair.gateway.connected_peers().len(), pair.gateway.end_reasons()),
        (2, vec![Reason::Overload; 2])
    );
    assert_eq!(pair.gateway.endpoint.count(Counter::NoRoom), 2);
}

#[test]
fn bounds_peers_that_replace_one_another() {
    let limits = [
        Settings { device_limit: 4, ..Settings::default() },
        Settings { peer_limit: 4, ..Settings::default() },
    ];
    for settings in limits {
        let settings = Settings { log_keys: true, ..settings };
        let mut pair = Pair::with(Connection { unique: false, ..gateway() }, terminal(), settings);
        connect(&mut pair, "cl.test", [192, 0, 2, 2]);
        let other = pair.gateway.connected_peers()[0];
        // Each authenticates again by a new IKE SA, and deletes none.
        for n in 0..40 {
            connect(&mut pair, "cl.test", [192, 0, 2, 1]);
            let peers = pair.gateway.connected_peers();
            assert!(peers.len() <= 2 * 4 && peers.contains(&other), "{peers:?} after {n}");
            assert!(sends(&pair.gateway), "by the new child SA after {n}");
        }
        assert!(pair.gateway.end_reasons().iter().all(|reason| *reason == Reason::Replaced));
    }
}

/// Lets the gateway's timers run until the peer `id` has ended. Returns how long that took, and the number of
/// messages to it.
fn wait_for_end(pair: &mut Pair, id: PeerId) -> (Duration, usize) {
    let spi = pair.gateway.endpoint.peers().find(|peer| peer.id() == id).unwrap().spis().unwrap()[0];
    let (before, mut sent) = (pair.now, 0);
    while pair.gateway.connected_peers().contains(&id) {
        pair.now = pair.gateway.endpoint.poll_timeout().unwrap();
        pair.gateway.endpoint.handle_timeout(pair.now);
        let messages = pair.gateway.work(pair.now);
        sent += messages.iter().filter(|(_, message)| Header::parse(message).unwrap().spi_i == spi).count();
    }
    (pair.now - before, sent)
}

/// The peer may have restarted and send nothing, so that only its silence shows that the old SAs are dead.
#[test]
fn silent_peer_that_another_replaces_is_given_up_within_seconds() {
    for (unique, is_asked, sent_before) in
        [(true, false, false), (false, false, false), (false, true, false), (true, false, true)]
    {
        let settings = Settings { log_keys: true, ..Settings::default() };
        let mut pair = Pair::with(Connection { unique, ..gateway() }, terminal(), settings);
        connect(&mut pair, "cl.test", [192, 0, 2, 1]);
        let old = pair.gateway.connected_peers()[0];
        if is_asked {
            // It has not answered for long, which could also be the path's fault.
            pair.gateway.endpoint.handle_liveness(pair.now, old, false);
            for _ in 0..6 {
                pair.now = pair.gateway.endpoint.poll_timeout().unwrap();
                pair.gateway.endpoint.handle_timeout(pair.now);
                drop(pair.gateway.work(pair.now));
            }
        }
        connect(&mut pair, "cl.test", [192, 0, 2, 1]);
        assert_eq!(pair.gateway.connected_peers().len(), 2, "it may be authenticating again");
        if sent_before {
            // Packets have come since the last question, but before it restarted.
            pair.now += SECOND;
            pair.gateway.endpoint.handle_liveness(pair.now, old, true);
        }
        let (dark, asked) = wait_for_end(&mut pair, old);
        let dark = dark + if sent_before { SECOND } else { Duration::ZERO };
        assert!((5 * SECOND..10 * SECOND).contains(&dark), "{dark:?}, {sent_before}");
        assert!(asked >= 4, "{asked} times, {is_asked}");
        assert_eq!((pair.gateway.connected_peers().len(), sends(&pair.gateway)), (1, true));
        assert_eq!(pair.gateway.end_reasons(), [Reason::Timeout]);
    }
}

/// It has two IKE SAs, and has not restarted.
#[test]
fn peer_that_answers_beside_its_successor_has_as_much_time_as_others() {
    let settings = Settings { log_keys: true, ..Settings::default() };
    let mut pair = Pair::with(Connection { unique: false, ..gateway() }, terminal(), settings);
    pair.connect();
    let old = pair.gateway.connected_peers()[0];
    let another = Side::new(vec![], Settings::default(), 1);
    let mut first = mem::replace(&mut pair.terminal, another);
    pair.now += SECOND;
    connect(&mut pair, "cl.test", TERMINAL);
    pair.now += SECOND;
    pair.gateway.endpoint.handle_timeout(pair.now);
    for (addresses, message) in pair.gateway.work(pair.now) {
        first.endpoint.handle_datagram(pair.now, reversed(addresses), &message);
    }
    let answers = first.work(pair.now);
    assert_eq!(answers.len(), 1);
    answers.iter().for_each(|answer| pair.deliver_up(answer));
    pair.now += SECOND;
    pair.gateway.endpoint.handle_liveness(pair.now, old, false);
    let (dark, _) = wait_for_end(&mut pair, old);
    assert!(dark >= Settings::default().retransmission.total(), "{dark:?}");
}

/// Its requests may be lost one way.
#[test]
fn peer_that_goes_on_sending_beside_its_successor_has_as_much_time_as_others() {
    let settings = Settings { log_keys: true, ..Settings::default() };
    let mut pair = Pair::with(Connection { unique: false, ..gateway() }, terminal(), settings);
    pair.connect();
    let old = pair.gateway.connected_peers()[0];
    pair.terminal = Side::new(vec![], Settings::default(), 1);
    pair.now += SECOND;
    connect(&mut pair, "cl.test", TERMINAL);
    // The first report may be of packets from before, the second is not.
    for _ in 0..2 {
        pair.now += SECOND;
        pair.gateway.endpoint.handle_liveness(pair.now, old, true);
    }
    let (dark, _) = wait_for_end(&mut pair, old);
    assert!(dark >= 20 * SECOND, "{dark:?}");
}

#[test]
fn unnamed_peers_leave_room_for_others() {
    let eap = || Arc::new(FakeEap::new(None));
    let guests = Connection { remote_auth: RemoteAuth::Eap(eap()), ..gateway() };
    let guest = || Connection { local_auth: LocalAuth::Eap(eap()), ..terminal() };
    let settings = Settings { peer_limit: 16, ..Settings::default() };
    let mut fleet = Fleet::with(vec![guests, gateway()], settings);
    for n in 1..=20 {
        fleet.connect([192, 0, 2, n], guest());
    }
    assert_eq!((fleet.connected_peers().len(), fleet.gateway.end_reasons()), (2, vec![Reason::Replaced; 18]));
    assert!([19, 20].into_iter().all(|n| fleet.peer_at([192, 0, 2, n]).is_some()), "the oldest make room");
    for n in 1..=14 {
        let local_id = Identity::from_text(&format!("t{n}.test")).unwrap();
        fleet.connect([192, 0, 2, 100 + n], Connection { local_id, ..terminal() });
    }
    assert_eq!((fleet.connected_peers().len(), fleet.gateway.end_reasons().len()), (16, 18));
}

#[test]
fn bounds_peers_that_linger_after_their_end() {
    let settings = Settings { half_open_limit: 4, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    for n in 0..20 {
        let local_auth = LocalAuth::Psk(SharedKey(Zeroizing::new(b"a wrong secret".to_vec())));
        pair.replace_terminal(Connection { local_auth, ..terminal() });
        pair.terminal.endpoint.dial(pair.now, 0, IpAddr::from([192, 0, 2, n]));
        pair.settle();
        assert!(pair.gateway.endpoint.peers().count() <= 4);
    }
    assert_eq!(pair.gateway.end_reasons(), [const { Reason::Authentication }; 20]);
    pair.now += 10 * SECOND;
    pair.gateway.endpoint.handle_timeout(pair.now);
    assert_eq!(pair.gateway.endpoint.peers().count(), 0);
}
