//! The limits of those that authenticate again: of time, by either side (RFC 4478), and of what a full
//! gateway takes.

use crate::{
    doubles::FakeCertificate,
    fleet::Fleet,
    insider::{Answer, Insider},
    pair::Pair,
    renewals::{HOUR, SECOND, failures, hourly, terminal, with_limit, with_wrong_key},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use wayfarer::sim::ike::{
    connections::{self, TERMINAL, gateway, prefix},
    side::{Side, reversed, to_gateway},
};
use wayfarer_mobility::{
    crypto::{PeerCertificates, PeerSignature, Verifier, VerifyError, VerifyErrorKind},
    identity::Identity,
    ike::{
        bounds,
        connection::{ChildPolicy, Connection, Lifetimes, LocalAuth, RemoteAuth},
        event::Event,
        pool::Pool,
        reason::Reason,
        settings::Settings,
        wire::{ExchangeType, Header, Payload, flags, notify},
    },
};

/// Delivers the gateway's request that limits the terminal's authentication to this time.
fn limit(insider: &mut Insider, message_id: u32, data: &[u8]) -> usize {
    let payloads = [Payload::notify(notify::AUTH_LIFETIME, data)];
    let request = insider.protect_payloads(ExchangeType::Informational, 0, message_id, &payloads);
    let to_terminal = reversed(to_gateway(TERMINAL, 4500));
    let Pair { terminal, now, .. } = &mut insider.pair;
    terminal.endpoint.handle_datagram(*now, to_terminal, &request);
    terminal.work(*now).len()
}

/// Has a terminal handle its timers, and counts the IKE SAs that it begins.
fn inits(terminal: &mut Side, at: Duration) -> usize {
    terminal.endpoint.handle_timeout(at);
    let sent = terminal.work(at).into_iter();
    let exchanges = sent.map(|(_, message)| Header::parse(&message).unwrap().exchange);
    exchanges.filter(|exchange| *exchange == ExchangeType::SaInit.number()).count()
}

#[test]
fn a_gateway_may_shorten_the_time_but_not_cause_a_storm() {
    let mut insider = Insider::new(gateway(), terminal(), Settings::default());
    let start = insider.pair.now;
    for (message_id, seconds) in [3u32, 0, 0].into_iter().enumerate() {
        assert_eq!(limit(&mut insider, message_id as u32, &seconds.to_be_bytes()), 1, "the answer");
        insider.pair.now += 3 * SECOND;
    }
    // It cannot put it off by telling so again and again.
    let at = insider.pair.terminal.endpoint.poll_timeout().unwrap();
    assert_eq!(at, start + 10 * SECOND);
    assert_eq!(inits(&mut insider.pair.terminal, at), 1);
}

#[test]
fn a_gateway_cannot_lengthen_the_terminals_own_limit() {
    let terminal = with_limit(connections::terminal(), Some(40 * SECOND));
    let mut insider = Insider::new(gateway(), terminal, Settings::default());
    let start = insider.pair.now;
    for message_id in 0..2 {
        assert_eq!(limit(&mut insider, message_id, &[0xff; 4]), 1, "the answer");
        let at = insider.pair.terminal.endpoint.poll_timeout().unwrap();
        assert!(at <= start + 20 * SECOND, "after {message_id} more");
        insider.pair.now += 15 * SECOND;
    }
}

#[test]
fn a_gateway_cannot_hurry_an_attempt_after_one_that_failed() {
    let terminal = with_limit(connections::terminal(), Some(40 * SECOND));
    let mut insider = Insider::new(gateway(), terminal, Settings::default());
    let Pair { gateway: side, now, .. } = &mut insider.pair;
    let other = vec![with_wrong_key(gateway())];
    side.endpoint.reconfigure(*now, other, vec![], Settings::default());
    insider.pair.pass(20 * SECOND);
    assert_eq!(failures(&insider.pair.terminal), 1);
    assert_eq!(limit(&mut insider, 0, &[0; 4]), 1, "the answer");
    let Pair { terminal, now, .. } = &mut insider.pair;
    assert_eq!([*now, *now + 10 * SECOND].map(|at| inits(terminal, at)), [0, 1]);
}

/// An authority that trusts its gateway until the certificate is revoked.
#[derive(Debug, Default)]
struct Revocable {
    all: FakeCertificate,
    is_revoked: AtomicBool,
}

impl Verifier for Revocable {
    fn authorities(&self) -> &[u8] {
        self.all.authorities()
    }

    fn verify(
        &self,
        identity: &Identity,
        certificates: &PeerCertificates,
        signature: &PeerSignature,
    ) -> Result<(), VerifyError> {
        match self.is_revoked.load(Ordering::Relaxed) {
            true => Err(VerifyErrorKind::Identity.into()),
            false => self.all.verify(identity, certificates, signature),
        }
    }

    fn names(&self, certificate: &[u8]) -> Vec<Identity> {
        self.all.names(certificate)
    }
}

#[test]
fn whoever_began_ends_a_link_whose_other_side_it_no_longer_trusts() {
    let authority = Arc::new(Revocable::default());
    // Rekeys prolong nothing.
    let keys = HOUR / 4;
    let lifetimes = Lifetimes {
        ike_sa: keys,
        child: keys,
        authentication: Some(HOUR),
        ..connections::terminal().lifetimes
    };
    let remote_auth = RemoteAuth::Key(authority.clone());
    let local_auth = LocalAuth::Key(Arc::new(FakeCertificate::of("gw.test")));
    let mut pair = Pair::connected(
        Connection { local_auth, ..gateway() },
        Connection { remote_auth, lifetimes, ..connections::terminal() },
    );
    authority.is_revoked.store(true, Ordering::Relaxed);
    pair.pass(HOUR - SECOND);
    let connected = [&pair.terminal, &pair.gateway].map(|side| side.connected_peers().len());
    assert_eq!((connected, failures(&pair.terminal) > 4), ([1, 1], true));
    pair.pass(2 * SECOND);
    assert_eq!(pair.connected_peers(), [vec![], vec![]]);
    let ends = pair.terminal.end_reasons();
    assert_eq!(ends.iter().filter(|reason| **reason == Reason::AuthenticationOver).count(), 1);
    authority.is_revoked.store(false, Ordering::Relaxed);
    pair.pass(60 * SECOND);
    pair.assert_one_each();
}

#[test]
fn a_wrong_lifetime_is_refused_and_one_from_a_terminal_ignored() {
    let mut insider = Insider::new(gateway(), terminal(), Settings::default());
    let before = insider.pair.terminal.endpoint.poll_timeout();
    assert_eq!(limit(&mut insider, 0, &[0, 0, 1]), 1);
    assert_eq!(insider.pair.terminal.endpoint.poll_timeout(), before);
    let payloads = [Payload::notify(notify::AUTH_LIFETIME, &[0, 0, 0, 20])];
    assert_eq!(insider.ask(ExchangeType::Informational, &payloads), Answer::Other);
    insider.pass(25 * SECOND);
    assert_eq!(insider.pair.gateway.endpoint.peers().count(), 1);
    let flags = flags::INITIATOR;
    let bad = insider.protect_payloads(
        ExchangeType::Informational,
        flags,
        3,
        &[Payload::notify(notify::AUTH_LIFETIME, &[0; 5])],
    );
    insider.skip(1);
    assert_eq!(insider.send(&bad), Answer::Refused(notify::INVALID_SYNTAX));
}

/// Gives a fleet's gateway this connection and these settings.
fn reload(fleet: &mut Fleet, connection: Connection, settings: Settings) {
    let pool = Pool::new([10, 98, 0, 1].into(), [10, 98, 0, 254].into()).named("first");
    fleet.gateway.endpoint.reconfigure(fleet.now, vec![connection], vec![pool], settings);
}

/// Makes a connection with two child SAs: of the gateway if `is_ours`, else of a terminal.
fn with_two_children(connection: Connection, is_ours: bool) -> Connection {
    let policy = |net: u8| {
        let nets = vec![prefix([10, net, 0, 0], [10, net, 0, 255])];
        let [local, remote] = if is_ours { [nets, vec![]] } else { [vec![], nets] };
        ChildPolicy { name: format!("net {net}"), local, remote, transport: false }
    };
    Connection { children: [1, 2].map(policy).into(), ..connection }
}

#[test]
fn a_full_gateway_still_lets_peers_authenticate_again() {
    let full = Settings { child_limit: 4, ..Settings::default() };
    let mut fleet = Fleet::with(vec![with_two_children(hourly(), true)], full);
    for last in 1..3 {
        let local_id = connections::identity(&format!("t{last}.test"));
        fleet.connect([192, 0, 2, last], with_two_children(Connection { local_id, ..terminal() }, false));
    }
    for _ in 0..60 {
        fleet.pass(60 * SECOND);
        let children = fleet.connected_peers().iter().map(|peer| peer.children().count()).sum::<usize>();
        assert!((4..=8).contains(&children), "{children}");
    }
    for terminal in &fleet.terminals {
        assert_eq!((terminal.end_reasons(), failures(terminal)), (vec![Reason::Replaced], 0));
    }
    // A peer that replaces no other has no more room than before.
    let local_id = connections::identity("other.test");
    let other =
        fleet.connect([192, 0, 2, 9], with_two_children(Connection { local_id, ..terminal() }, false));
    assert_eq!(fleet.terminals[other].end_reasons(), [Reason::Refused(notify::NO_ADDITIONAL_SAS)]);
}

#[test]
fn the_old_ike_sa_stays_a_while_if_a_child_sa_of_the_new_one_is_refused() {
    for is_refused_for_ever in [false, true] {
        let connection = || with_two_children(Connection { unique: false, ..hourly() }, true);
        let reload = |fleet: &mut Fleet, child_limit| {
            reload(fleet, connection(), Settings { child_limit, ..Settings::default() });
        };
        let mut fleet = Fleet::new(vec![connection()]);
        fleet.connect(TERMINAL, with_two_children(terminal(), false));
        fleet.pass(HOUR / 2);
        let local_id = connections::identity("other.test");
        fleet.connect(
            [192, 0, 2, 9],
            Connection {
                local_id,
                children: with_two_children(terminal(), false).children[..1].into(),
                ..terminal()
            },
        );
        // There is room for one child SA more.
        reload(&mut fleet, 2);
        while fleet.terminals[0].connected_peers().len() < 2 {
            assert!(fleet.now < 2 * HOUR, "the terminal does not authenticate again");
            fleet.pass(SECOND);
        }
        fleet.pass(10 * SECOND);
        let [old, new] = fleet.terminals[0].connected_peers()[..] else { panic!("the old one is gone") };
        if !is_refused_for_ever {
            reload(&mut fleet, 100);
        }
        fleet.pass(bounds::REPLACED_WAIT);
        let terminal = &fleet.terminals[0];
        assert_eq!(terminal.connected_peers(), [new], "{old:?} is gone");
        let children = terminal.endpoint.peer(new).unwrap().children().count();
        assert_eq!(children, if is_refused_for_ever { 1 } else { 2 });
        assert_eq!(terminal.end_reasons(), [Reason::Replaced]);
    }
}

#[test]
fn a_lowered_limit_of_devices_is_enforced_when_one_authenticates_again() {
    let connection = || Connection { unique: false, ..hourly() };
    let mut fleet = Fleet::new(vec![connection()]);
    (1..7).for_each(|last| _ = fleet.connect([192, 0, 2, last], terminal()));
    reload(&mut fleet, connection(), Settings { device_limit: 3, ..Settings::default() });
    let renewed = loop {
        assert!(fleet.now < 2 * HOUR, "no terminal authenticates again");
        fleet.pass(SECOND);
        let up = |side: &Side| side.events.iter().filter(|e| matches!(e, Event::PeerUp { .. })).count();
        if let Some(renewed) = fleet.terminals.iter().find(|side| up(side) == 2) {
            break renewed;
        }
    };
    assert_eq!(renewed.end_reasons(), [], "its old IKE SA stays until it has moved its traffic");
    assert_eq!(fleet.gateway.end_reasons(), [const { Reason::Replaced }; 3]);
    assert_eq!(fleet.connected_peers().len(), 3 + 1);
}
