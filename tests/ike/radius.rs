//! Peers that a RADIUS server authenticates. The test is the server.

mod prefixes;

use std::{net::IpAddr, sync::Arc, time::Duration};
use wayfarer::{
    primitives::Primitives,
    sim::ike::{
        connections::{TERMINAL, gateway, prefix, terminal},
        eap::FakeEap,
        keys::LoggedKeys,
        side::{Side, reversed},
    },
};
use wayfarer_mobility::{
    aaa::{
        eap::{Conversation, Step},
        grant::Grant,
        radius::{
            Radius,
            packet::Code,
            question::{Realm, Reply},
        },
    },
    ike::{
        connection::{ChildPolicy, Connection, LocalAuth, RemoteAuth},
        counter::Counter,
        event::Event,
        leases::GrantError,
        protection::Fragments,
        reason::Reason,
        settings::Settings,
        view::State,
        wire::{self, Header, Payload, notify},
    },
    retransmission::Retransmission,
    task::{Outcome, TaskId},
    transmit,
};
use zeroize::Zeroizing;

const SECOND: Duration = Duration::from_secs(1);

/// A gateway whose RADIUS servers are the test, and a terminal.
struct Rig {
    now: Duration,
    gateway: Side,
    terminal: Side,
    /// The question that waits for the server's answer.
    asked: Option<(TaskId, Box<dyn Conversation>)>,
    /// The gateway's last message.
    last: Vec<u8>,
}

/// Makes a gateway's connection for users of the RADIUS server.
fn people() -> Connection {
    let radius = Radius::new(Realm::new(vec![], "gateway"));
    Connection { remote_auth: RemoteAuth::Eap(Arc::new(radius)), ..gateway() }
}

/// Makes an answer that accepts the user with this name.
fn accept(name: &str) -> Reply {
    let msk = Some(Some(Zeroizing::new(vec![7; 64])));
    let user_name = Some(name.as_bytes().to_vec());
    let grant = Some(Grant::default());
    Reply { server: 0, code: Code::Accept, eap: None, state: None, user_name, msk, grant }
}

/// Makes an answer that accepts the user with this name, and grants them something.
fn granting(name: &str, grant: Grant) -> Option<Reply> {
    Some(Reply { grant: Some(grant), ..accept(name) })
}

/// Makes a grant of an inner address.
fn address(text: &str) -> Grant {
    match text.parse().unwrap() {
        IpAddr::V4(ip4) => Grant { ip4: Some(ip4), ..Grant::default() },
        IpAddr::V6(ip6) => Grant { ip6: Some(ip6), ..Grant::default() },
    }
}

/// Makes the connection's terminal, which keeps waiting for the gateway.
fn client() -> Side {
    let local_auth = LocalAuth::Eap(Arc::new(FakeEap::new(None)));
    let patient = Retransmission { tries: 14, ..Retransmission::default() };
    let settings = Settings { half_open: 1000 * SECOND, retransmission: patient, ..Settings::default() };
    Side::new(vec![Connection { local_auth, ..terminal() }], settings, 2)
}

impl Rig {
    fn new(connections: Vec<Connection>) -> Self {
        let settings = Settings { log_keys: true, ..Settings::default() };
        let gateway = Side::new(connections, settings, 1);
        Self { now: 1000 * SECOND, gateway, terminal: client(), asked: None, last: vec![] }
    }

    /// Connects a new terminal at this address, which the server accepts by `reply`.
    fn connect(&mut self, address: [u8; 4], reply: Option<Reply>) {
        self.terminal = client();
        self.dial(address);
        self.answer(reply);
    }

    /// Returns the inner addresses of all connected peers.
    fn inner(&self) -> Vec<IpAddr> {
        let up = self.gateway.endpoint.peers().filter(|peer| peer.state() == State::Up);
        up.flat_map(|peer| peer.inner().collect::<Vec<_>>()).collect()
    }

    /// Returns why grants were refused.
    fn refusals(&self) -> Vec<GrantError> {
        let refusal = |event: &Event| match event {
            Event::GrantRefused { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        self.gateway.events.iter().filter_map(refusal).collect()
    }

    /// Lets the terminal connect from this address, until the server is asked.
    fn dial(&mut self, address: [u8; 4]) {
        self.terminal.endpoint.dial(self.now, 0, IpAddr::from(address));
        self.settle();
        assert!(self.asked.is_some(), "the server is asked");
    }

    /// Answers the question.
    fn answer(&mut self, reply: Option<Reply>) {
        let (id, mut conversation) = self.asked.take().unwrap();
        let step = conversation.answered(reply);
        self.gateway.endpoint.handle_outcome(self.now, id, Outcome::Eap(conversation, step));
        self.settle();
    }

    /// Runs tasks and carries messages until there are none.
    fn settle(&mut self) {
        loop {
            let up = self.terminal.work(self.now);
            let is_over = up.is_empty();
            for (addresses, message) in up {
                self.gateway.endpoint.handle_datagram(self.now, reversed(addresses), &message);
            }
            while let Some((id, _, task)) = self.gateway.endpoint.poll_task() {
                let outcome = match task.run(&Primitives) {
                    Outcome::Eap(conversation, Step::Ask) => {
                        self.asked = Some((id, conversation));
                        Outcome::Asking
                    }
                    outcome => outcome,
                };
                self.gateway.endpoint.handle_outcome(self.now, id, outcome);
            }
            let endpoint = &mut self.gateway.endpoint;
            self.gateway.events.extend(std::iter::from_fn(|| endpoint.poll_event()));
            let down: Vec<_> = std::iter::from_fn(|| endpoint.poll_transmit()).collect();
            if is_over && down.is_empty() {
                return;
            }
            for sent in down {
                if let transmit::Payload::Message(message) = sent.payload {
                    self.terminal.endpoint.handle_datagram(self.now, reversed(sent.addresses), &message);
                    self.last = message;
                }
            }
        }
    }

    /// Lets time pass, second by second.
    fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.now += SECOND;
            self.gateway.endpoint.handle_timeout(self.now);
            self.terminal.endpoint.handle_timeout(self.now);
            self.settle();
        }
    }
}

#[test]
fn a_peer_has_time_while_a_server_is_asked_but_not_for_ever() {
    let mut rig = Rig::new(vec![people()]);
    rig.dial(TERMINAL);
    rig.pass(60);
    rig.answer(Some(accept("alice")));
    assert_eq!(rig.gateway.connected_peers().len(), 1, "a human took a minute to confirm");

    let mut rig = Rig::new(vec![people()]);
    rig.dial(TERMINAL);
    rig.pass(329);
    assert_eq!((rig.gateway.endpoint.half_open(), rig.gateway.end_reasons()), (1, vec![]));
    rig.pass(2);
    assert_eq!((rig.gateway.endpoint.half_open(), rig.gateway.end_reasons()), (0, vec![Reason::Timeout]));
    rig.answer(Some(accept("alice")));
    assert_eq!(rig.gateway.connected_peers().len(), 0, "the answer comes too late");
}

#[test]
fn a_peers_own_time_does_not_start_again_when_a_server_answers() {
    let mut rig = Rig::new(vec![people()]);
    rig.dial(TERMINAL);
    rig.pass(60);
    let (id, mut conversation) = rig.asked.take().unwrap();
    let step = conversation.answered(Some(accept("alice")));
    rig.gateway.endpoint.handle_outcome(rig.now, id, Outcome::Eap(conversation, step));
    // The terminal says nothing more.
    drop(rig.gateway.work(rig.now));
    for (seconds, half_open) in [(29, 1), (2, 0)] {
        rig.now += seconds * SECOND;
        rig.gateway.endpoint.handle_timeout(rig.now);
        assert_eq!(rig.gateway.endpoint.half_open(), half_open);
    }
}

#[test]
fn a_silent_server_is_told_apart_from_a_refusal() {
    let refusal = || Some(Reply { code: Code::Reject, ..accept("alice") });
    for (answer, reason, counts) in [(None, Reason::NoServer, [0, 1]), (refusal(), Reason::Eap, [1, 0])] {
        let mut rig = Rig::new(vec![people()]);
        rig.dial(TERMINAL);
        rig.answer(answer);
        assert_eq!(rig.gateway.end_reasons(), [reason]);
        let counted = [Counter::EapRefused, Counter::NoServer].map(|one| rig.gateway.endpoint.count(one));
        assert_eq!(counted, counts);
    }
}

// Inner addresses.

const ELSEWHERE: [u8; 4] = [192, 0, 2, 8];

#[test]
fn a_granted_address_is_the_peers_inner_address() {
    // In the connection's pool, and outside of all pools.
    for text in ["10.98.0.200", "10.50.0.7", "2001:db8:50::7"] {
        let mut rig = Rig::new(vec![people()]);
        rig.connect(TERMINAL, granting("alice", address(text)));
        let fixed: IpAddr = text.parse().unwrap();
        assert!(rig.inner().contains(&fixed), "{text}: {:?}", rig.inner());
        let child = rig.gateway.newest_child();
        assert!(child.remote.iter().any(|remote| remote.start == fixed && remote.end == fixed), "{text}");
        assert_eq!(rig.gateway.endpoint.state_sizes().leases, rig.inner().len());
        let peer = rig.gateway.connected_peers()[0];
        rig.gateway.endpoint.close(rig.now, peer);
        assert_eq!(rig.gateway.endpoint.state_sizes().leases, 0);
    }
}

#[test]
fn a_connection_without_pools_gives_only_granted_addresses() {
    let mut rig = Rig::new(vec![Connection { pools: vec![], ..people() }]);
    rig.connect(TERMINAL, granting("alice", address("10.50.0.7")));
    assert_eq!(rig.inner(), [IpAddr::from([10, 50, 0, 7])]);
}

#[test]
fn a_granted_address_that_another_user_has_is_refused() {
    for (text, is_in_pool) in [("10.98.0.1", true), ("10.50.0.7", false)] {
        let mut rig = Rig::new(vec![people()]);
        // The pool's first address goes to whoever comes first.
        let first = if is_in_pool { Grant::default() } else { address(text) };
        rig.connect(TERMINAL, granting("alice", first));
        rig.connect(ELSEWHERE, granting("bob", address(text)));
        let fixed: IpAddr = text.parse().unwrap();
        assert_eq!(rig.refusals(), [GrantError::Taken(fixed)]);
        assert_eq!(rig.terminal.end_reasons(), [Reason::Refused(notify::INTERNAL_ADDRESS_FAILURE)]);
        assert_eq!(rig.inner(), [fixed], "alice keeps it");
    }
}

#[test]
fn a_user_with_a_granted_address_takes_it_along_to_another_device() {
    let mut rig = Rig::new(vec![Connection { unique: false, ..people() }]);
    for at in [TERMINAL, ELSEWHERE] {
        rig.connect(at, granting("alice", address("10.50.0.7")));
        assert_eq!(rig.inner(), [IpAddr::from([10, 50, 0, 7])]);
    }
    assert_eq!((rig.gateway.end_reasons(), rig.refusals()), (vec![Reason::Replaced], vec![]));
    assert_eq!(rig.gateway.endpoint.state_sizes().leases, 1);
}

#[test]
fn addresses_that_no_peer_can_have_are_not_granted() {
    let router = IpAddr::from([203, 0, 113, 254]);
    for text in [
        "203.0.113.1",
        "10.99.0.53",
        "192.0.2.7",
        "203.0.113.254",
        "0.0.0.0",
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.5",
        "240.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "::ffff:10.0.0.1",
    ] {
        let mut rig = Rig::new(vec![people()]);
        rig.gateway.endpoint.reserve_addresses([router].into());
        rig.connect(TERMINAL, granting("alice", address(text)));
        assert_eq!(rig.refusals(), [GrantError::Impossible(text.parse().unwrap())]);
        assert_eq!(rig.terminal.end_reasons(), [Reason::Refused(notify::INTERNAL_ADDRESS_FAILURE)]);
        assert_eq!(rig.gateway.endpoint.state_sizes().leases, 0, "{text}");
    }
}

#[test]
fn address_of_a_removed_name_server_can_be_granted() {
    let other = Connection { name: "other".into(), dns: vec![[10, 99, 0, 54].into()], ..gateway() };
    let mut rig = Rig::new(vec![people(), other]);
    let server = || granting("alice", address("10.99.0.54"));
    rig.connect(TERMINAL, server());
    assert_eq!(rig.refusals().len(), 1);
    rig.gateway.endpoint.reconfigure(rig.now, vec![people()], vec![], Settings::default());
    rig.connect(TERMINAL, server());
    assert_eq!(rig.inner(), [IpAddr::from([10, 99, 0, 54])]);
}

#[test]
fn the_outer_address_of_a_peer_without_an_inner_one_is_not_granted() {
    for pools in [vec![], vec![0]] {
        let is_refused = pools.is_empty();
        let mut rig = Rig::new(vec![Connection { pools, unique: false, ..people() }]);
        rig.connect(ELSEWHERE, granting("bob", Grant::default()));
        let outer = IpAddr::from(ELSEWHERE);
        rig.connect(TERMINAL, granting("alice", address("192.0.2.8")));
        match is_refused {
            true => assert_eq!(rig.refusals(), [GrantError::Impossible(outer)]),
            false => assert!(rig.inner().contains(&outer), "bob's traffic has an inner address"),
        }
        if is_refused {
            let bob = rig.gateway.connected_peers()[0];
            rig.gateway.endpoint.close(rig.now, bob);
            rig.connect(TERMINAL, granting("alice", address("192.0.2.8")));
            assert!(rig.inner().contains(&outer), "bob is gone");
        }
    }
}

#[test]
fn a_named_pool_is_used_if_the_connection_has_it() {
    let named = |name: &str| Grant { pools: vec![name.into()], ..Grant::default() };
    let both = || Connection { pools: vec![0, 1], ..people() };
    let mut rig = Rig::new(vec![both()]);
    rig.connect(TERMINAL, granting("alice", named("second")));
    assert_eq!(rig.inner(), [IpAddr::from([10, 98, 1, 1])]);
    // Another connection's pool, and an address of it, are as little granted as an unknown pool.
    let fixed = IpAddr::from([10, 98, 1, 7]);
    for (grant, refusal) in [
        (named("second"), GrantError::UnknownPool("second".into())),
        (named("third"), GrantError::UnknownPool("third".into())),
        (address("10.98.1.7"), GrantError::OtherPool(fixed)),
    ] {
        let mut rig = Rig::new(vec![people()]);
        rig.connect(TERMINAL, granting("alice", grant));
        assert_eq!((rig.refusals(), rig.inner()), (vec![refusal], vec![]));
    }
}

#[test]
fn attributes_of_a_wrong_length_refuse_the_peer() {
    let mut rig = Rig::new(vec![people()]);
    rig.connect(TERMINAL, Some(Reply { grant: None, ..accept("alice") }));
    assert_eq!(rig.gateway.end_reasons(), [Reason::Eap]);
}

// Sessions.

#[test]
fn a_session_ends_after_the_time_that_was_granted() {
    for session_timeout in [None, Some(15)] {
        let mut rig = Rig::new(vec![people()]);
        rig.connect(TERMINAL, granting("alice", Grant { session_timeout, ..Grant::default() }));
        rig.pass(14);
        assert_eq!(rig.gateway.connected_peers().len(), 1);
        rig.pass(2);
        let reasons = [&rig.gateway, &rig.terminal].map(|side| side.end_reasons());
        match session_timeout {
            None => assert_eq!(reasons, [vec![], vec![]]),
            Some(_) => assert_eq!(reasons, [vec![Reason::SessionOver], vec![Reason::Deleted]]),
        }
    }
}

#[test]
fn a_server_may_end_a_session_or_give_it_another_end() {
    let mut rig = Rig::new(vec![people()]);
    rig.connect(TERMINAL, granting("alice", Grant { session_timeout: Some(15), ..Grant::default() }));
    rig.pass(10);
    let peer = rig.gateway.connected_peers()[0];
    rig.gateway.endpoint.change_grant(rig.now, peer, Some(20), None);
    rig.pass(19);
    assert_eq!(rig.gateway.end_reasons(), []);
    rig.pass(2);
    assert_eq!(rig.gateway.end_reasons(), [Reason::SessionOver]);

    let mut rig = Rig::new(vec![people()]);
    rig.connect(TERMINAL, granting("alice", Grant { session_timeout: Some(15), ..Grant::default() }));
    let peer = rig.gateway.connected_peers()[0];
    // A peer that has an hour or more is told, and authenticates again before.
    rig.gateway.endpoint.change_grant(rig.now, peer, Some(3660), None);
    rig.pass(2960);
    assert!(rig.asked.is_none());
    rig.pass(350);
    assert!(rig.asked.is_some());
    rig.gateway.endpoint.change_grant(rig.now, peer, Some(0), None);
    rig.pass(20);
    assert_eq!(rig.gateway.end_reasons(), [], "zero means no end");
    rig.gateway.endpoint.disconnect(rig.now, peer);
    rig.settle();
    let reasons = [&rig.gateway, &rig.terminal].map(|side| side.end_reasons());
    assert_eq!(reasons, [[Reason::Disconnected], [Reason::Deleted]]);
    assert_eq!(rig.gateway.endpoint.state_sizes().leases, 0);
}

// Child SAs.

/// Makes a connection whose peers may have one of two child SAs.
fn two_halves() -> Connection {
    let half = |name: &str, first, last| ChildPolicy {
        name: name.into(),
        local: vec![prefix([10, 99, 0, first], [10, 99, 0, last])],
        remote: vec![],
        transport: false,
    };
    Connection { children: vec![half("lower", 0, 127), half("upper", 128, 255)], ..people() }
}

fn filters(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

#[test]
fn a_peer_has_only_the_child_sas_that_the_server_names() {
    for (names, child) in [(&[][..], "lower"), (&["lower", "upper"], "lower"), (&["upper"], "upper")] {
        let mut rig = Rig::new(vec![two_halves()]);
        rig.connect(TERMINAL, granting("alice", Grant { filters: filters(names), ..Grant::default() }));
        assert_eq!(rig.gateway.newest_child().name, child, "{names:?}");
    }
}

#[test]
fn a_child_sa_that_the_connection_does_not_have_refuses_the_log_in() {
    for name in ["middle", "Upper", ""] {
        let mut rig = Rig::new(vec![two_halves()]);
        rig.connect(
            TERMINAL,
            granting("alice", Grant { filters: filters(&["upper", name]), ..Grant::default() }),
        );
        assert_eq!(rig.refusals(), [GrantError::UnknownFilter(name.into())]);
        assert_eq!(rig.gateway.end_reasons(), [Reason::Grant]);
        assert!(rig.gateway.connected_peers().is_empty());
    }
}

#[test]
fn a_child_sa_that_a_server_forbids_ends_at_once_and_stays_away() {
    let mut rig = Rig::new(vec![two_halves()]);
    rig.connect(TERMINAL, granting("alice", Grant::default()));
    let peer = rig.gateway.connected_peers()[0];
    assert!(!rig.gateway.endpoint.has_filters(peer, &filters(&["middle"])));
    assert!(rig.gateway.endpoint.has_filters(peer, &filters(&["upper"])));
    rig.gateway.endpoint.change_grant(rig.now, peer, None, Some(filters(&["upper"])));
    let ended = |side: &Side| side.events.iter().any(|event| matches!(event, Event::ChildDown { .. }));
    let first = rig.gateway.endpoint.poll_event();
    assert!(matches!(first, Some(Event::ChildDown { .. })), "before the peer has answered");
    rig.settle();
    assert!(ended(&rig.terminal));
    // The terminal asks for all of it again, and gets what is left.
    rig.pass(5);
    assert_eq!(rig.gateway.newest_child().name, "upper");
    assert_eq!(rig.gateway.end_reasons(), []);
}

#[test]
fn a_peer_with_a_long_session_is_told_when_to_authenticate_again() {
    for (session_timeout, told) in [(None, None), (Some(3599), None), (Some(3600), Some(3540))] {
        let mut rig = Rig::new(vec![people()]);
        rig.connect(TERMINAL, granting("alice", Grant { session_timeout, ..Grant::default() }));
        let (header, keys) = (Header::parse(&rig.last).unwrap(), LoggedKeys::newest(&rig.gateway.events));
        let opened = keys.protection(false).open(&header, &rig.last, &mut Fragments::default());
        let opened = opened.unwrap().unwrap();
        let payloads = wire::parse(opened.first, &opened.body).unwrap();
        let lifetime = payloads.iter().find_map(|payload| match payload {
            Payload::Notify(n) if n.kind == notify::AUTH_LIFETIME => {
                Some(u32::from_be_bytes(n.data.try_into().unwrap()))
            }
            _ => None,
        });
        assert_eq!(lifetime, told);
    }
}
