use super::*;
use crate::mip::{
    agent::{self, HomeAgent, Node, Nodes, ReverseTunnel},
    association::Algorithm,
};
use alloc::{collections::BTreeMap, vec};
use core::{
    net::SocketAddrV4,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

const HOME: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const PLACES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::new(198, 51, 100, 7)];
const START: Duration = Duration::from_secs(1_800_000_000);
const SECOND: Duration = Duration::from_secs(1);

/// Another number each time.
#[derive(Debug, Default)]
struct Counting(AtomicU8);

impl Random for Counting {
    fn fill(&self, out: &mut [u8]) {
        out.fill(self.0.fetch_add(1, Relaxed));
    }
}

fn association() -> Association {
    Association { spi: 300, algorithm: Algorithm::HmacMd5, key: vec![9; 16].into() }
}

/// A node and its agent, whose clock is ahead of the node's.
struct Pair {
    node: MobileNode,
    agent: HomeAgent,
    ahead: Duration,
    /// Since the start.
    now: Duration,
    /// The node's clock at the start, since 1970.
    start: Duration,
}

impl Pair {
    fn new(replay: Replay, ahead: Duration) -> Self {
        let mut nodes = Nodes::default();
        let name = Some(b"n@example.net".to_vec());
        assert!(nodes.add(Node { home: HOME, name, replay, associations: vec![association()] }));
        let settings = agent::Settings {
            address: AGENT,
            max_lifetime: 1000,
            max_bindings: 1,
            reverse_tunnel: ReverseTunnel::Required,
            encapsulations: vec![],
            udp_tunnels: None,
            foreign_agents: BTreeMap::new(),
        };
        let node = Settings {
            home: HOME,
            name: None,
            agent: AGENT,
            association: association(),
            replay,
            lifetime: 300,
            flags: Flags { co_located: true, reverse_tunnel: true, ..Flags::default() },
            udp_tunnel: None,
            first_wait: SECOND,
            tries: 3,
        };
        Self {
            node: MobileNode::new(node, Box::new(Counting::default())),
            agent: HomeAgent::new(settings, nodes, BTreeMap::new(), &Counting::default()),
            ahead,
            now: Duration::ZERO,
            start: START,
        }
    }

    /// Returns the time by the node's clocks.
    fn clock(&self) -> Now {
        Now { steady: self.now, since_1970: self.start + self.now }
    }

    /// Carries a message to the agent. Returns the reply.
    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        let source = SocketAddrV4::new(PLACES[0], 434);
        self.agent.decide(START + self.now + self.ahead, request, source).unwrap().carry_out().0
    }

    /// Carries messages until there are no more. Returns the number of requests.
    fn carry(&mut self) -> usize {
        let mut requests = 0;
        while let Some(request) = self.node.poll_transmit() {
            requests += 1;
            let reply = self.ask(&request);
            self.node.handle_reply(self.clock(), &reply).unwrap();
        }
        requests
    }

    /// Lets time pass until something is due.
    fn wait(&mut self) -> Duration {
        let due = self.node.poll_timeout().unwrap();
        let waited = due - self.now;
        self.now = due;
        self.node.handle_timeout(self.clock());
        waited
    }

    fn bound(&self) -> Vec<Ipv4Addr> {
        let bindings = self.agent.bindings(HOME);
        bindings.map(|all| all.tunnels.iter().map(|tunnel| tunnel.care_of).collect()).unwrap_or_default()
    }
}

fn registered(care_of: Ipv4Addr, lifetime: u16) -> Option<Event> {
    Some(Event::Registered { care_of, home: HOME, lifetime, udp_tunnel: None })
}

const TIMESTAMPS: Replay = Replay::Timestamps(Duration::from_secs(7));

#[test]
fn node_registers_moves_and_comes_home_by_either_protection() {
    for (replay, ahead, first) in [
        (TIMESTAMPS, Duration::ZERO, 1),
        // The node learns the agent's clock, or its first nonce, from a denial.
        (TIMESTAMPS, 1_000_000 * SECOND, 2),
        (Replay::Nonces, Duration::ZERO, 2),
    ] {
        let mut pair = Pair::new(replay, ahead);
        for (n, place) in [PLACES[0], PLACES[1], PLACES[1], PLACES[0]].into_iter().enumerate() {
            pair.now += SECOND;
            pair.node.register(pair.clock(), place);
            assert_eq!(pair.carry(), if n == 0 { first } else { 1 }, "{replay:?}");
            assert_eq!((pair.node.poll_event(), pair.bound()), (registered(place, 300), vec![place]));
        }
        pair.now += SECOND;
        pair.node.register(pair.clock(), HOME);
        assert_eq!(pair.carry(), 1);
        assert_eq!((pair.node.poll_event(), pair.bound()), (registered(HOME, 0), vec![]));
        assert_eq!(pair.node.poll_timeout(), None);
    }
}

#[test]
fn registration_is_renewed_before_it_ends() {
    let mut pair = Pair::new(TIMESTAMPS, Duration::ZERO);
    pair.node.register(pair.clock(), PLACES[0]);
    pair.carry();
    for _ in 0..5 {
        assert_eq!(pair.node.poll_event(), registered(PLACES[0], 300));
        let waited = pair.wait();
        assert!((200 * SECOND..=225 * SECOND).contains(&waited), "{waited:?}");
        assert_eq!((pair.carry(), pair.bound()), (1, vec![PLACES[0]]));
    }
}

#[test]
fn request_without_a_reply_is_sent_again_and_given_up() {
    // Timestamps are others each time.
    for (replay, expected) in [(TIMESTAMPS, 4), (Replay::Nonces, 1)] {
        let mut pair = Pair::new(replay, Duration::ZERO);
        pair.node.register(pair.clock(), PLACES[0]);
        let (mut requests, mut waits) = (vec![pair.node.poll_transmit().unwrap()], vec![]);
        for _ in 0..3 {
            waits.push(pair.wait());
            requests.push(pair.node.poll_transmit().unwrap());
        }
        assert_eq!(waits, [SECOND, 2 * SECOND, 4 * SECOND]);
        let different: alloc::collections::BTreeSet<_> = requests.iter().collect();
        assert_eq!(different.len(), expected);
        assert_eq!(pair.node.poll_event(), None);
        pair.wait();
        assert_eq!(pair.node.poll_transmit(), None);
        assert_eq!(pair.node.poll_event(), Some(Event::GivenUp { code: None }));
        assert_eq!(pair.node.poll_timeout(), None);
    }
}

#[test]
fn late_reply_to_an_earlier_try_does_not_count() {
    let mut pair = Pair::new(TIMESTAMPS, Duration::ZERO);
    pair.node.register(pair.clock(), PLACES[0]);
    let first = pair.node.poll_transmit().unwrap();
    let reply = pair.ask(&first);
    pair.now += SECOND / 2;
    pair.node.register(pair.clock(), PLACES[1]);
    assert_eq!(pair.node.handle_reply(pair.clock(), &reply), Err(ReplyError::Other));
    assert_eq!(pair.node.poll_event(), None);
    pair.carry();
    assert_eq!((pair.node.poll_event(), pair.bound()), (registered(PLACES[1], 300), vec![PLACES[1]]));
}

#[test]
fn a_clock_that_is_set_delays_nothing() {
    for start in [START + 100_000 * SECOND, START - 100_000 * SECOND] {
        let mut pair = Pair::new(TIMESTAMPS, Duration::ZERO);
        pair.node.register(pair.clock(), PLACES[0]);
        assert!(pair.node.poll_transmit().is_some());
        pair.start = start;
        assert_eq!(pair.wait(), SECOND);
        // The second request tells the node how far its clock is off, the third is right.
        assert_eq!(pair.carry(), 2);
        assert_eq!((pair.node.poll_event(), pair.bound()), (registered(PLACES[0], 300), vec![PLACES[0]]));
    }
}

#[test]
fn denied_registration_is_tried_again_until_it_is_given_up() {
    let mut pair = Pair::new(TIMESTAMPS, Duration::ZERO);
    pair.node.settings.flags.reverse_tunnel = false;
    pair.node.register(pair.clock(), PLACES[0]);
    for _ in 0..4 {
        assert_eq!(pair.carry(), 1);
        assert_eq!(pair.node.poll_event(), Some(Event::Denied(Code::REVERSE_TUNNEL_NEEDED)));
        pair.wait();
    }
    let given_up = Event::GivenUp { code: Some(Code::REVERSE_TUNNEL_NEEDED) };
    assert_eq!((pair.node.poll_event(), pair.node.poll_transmit()), (Some(given_up), None));
}

#[test]
fn forged_and_foreign_replies_are_ignored() {
    let mut pair = Pair::new(TIMESTAMPS, Duration::ZERO);
    pair.node.register(pair.clock(), PLACES[0]);
    let request = pair.node.poll_transmit().unwrap();
    let reply = pair.ask(&request);
    for at in 0..reply.len() {
        let mut changed = reply.clone();
        changed[at] ^= 1;
        assert!(pair.node.handle_reply(pair.clock(), &changed).is_err(), "byte {at}");
    }
    // Authenticated twice, not at all, or cut short.
    let mut twice = reply.clone();
    association().authenticate(&mut twice, Parties::MobileHome);
    for other in [&twice[..], &reply[..20], &reply[..30], &request, b""] {
        assert!(pair.node.handle_reply(pair.clock(), other).is_err());
    }
    assert_eq!((pair.node.poll_event(), pair.node.poll_transmit()), (None, None));
    assert_eq!(pair.node.handle_reply(pair.clock(), &reply), Ok(()));
    // The same again.
    assert_eq!(pair.node.handle_reply(pair.clock(), &reply), Err(ReplyError::Other));
    assert_eq!(pair.node.poll_event(), registered(PLACES[0], 300));
}

#[test]
fn node_that_knows_only_its_name_learns_its_address_and_comes_home() {
    let mut pair = Pair::new(Replay::Nonces, Duration::ZERO);
    pair.node.settings.home = Ipv4Addr::UNSPECIFIED;
    pair.node.settings.name = Some(b"n@example.net".to_vec());
    pair.node.home = Ipv4Addr::UNSPECIFIED;
    pair.node.register(pair.clock(), PLACES[0]);
    pair.carry();
    assert_eq!((pair.node.poll_event(), pair.bound()), (registered(PLACES[0], 300), vec![PLACES[0]]));
    pair.node.register(pair.clock(), HOME);
    pair.carry();
    assert_eq!((pair.node.poll_event(), pair.bound()), (registered(HOME, 0), vec![]));
}

#[test]
fn late_reply_to_a_request_by_nonces_that_was_sent_again_counts() {
    let mut pair = Pair::new(Replay::Nonces, Duration::ZERO);
    pair.node.register(pair.clock(), PLACES[0]);
    pair.carry();
    pair.node.poll_event();
    pair.node.register(pair.clock(), PLACES[1]);
    let request = pair.node.poll_transmit().unwrap();
    let reply = pair.ask(&request);
    pair.wait();
    assert_eq!(pair.node.handle_reply(pair.clock(), &reply), Ok(()));
    assert_eq!(pair.node.poll_event(), registered(PLACES[1], 300));
}

#[test]
fn denials_of_the_same_request_end_it_at_last_whoever_causes_them() {
    let mut pair = Pair::new(TIMESTAMPS, Duration::ZERO);
    pair.node.register(pair.clock(), PLACES[0]);
    let mut requests = 0;
    // Somebody sends a copy of each request first, with something added behind the authenticator.
    while pair.node.poll_timeout().is_some() {
        while let Some(request) = pair.node.poll_transmit() {
            requests += 1;
            let copy = [&request[..], &[38, 0, 0, 6, 0, 0, 0x12, 0x34, 0, 1]].concat();
            let reply = pair.ask(&copy);
            pair.node.handle_reply(pair.clock(), &reply).unwrap();
        }
        pair.wait();
    }
    assert_eq!(requests, 4);
    let given_up = Event::GivenUp { code: Some(Code::FOREIGN_VENDOR) };
    assert_eq!((pair.node.poll_event(), pair.bound()), (Some(given_up), vec![]));
}

#[test]
fn reply_with_a_vendors_extension_that_must_be_understood_does_not_count() {
    let mut pair = Pair::new(TIMESTAMPS, Duration::ZERO);
    pair.node.register(pair.clock(), PLACES[0]);
    let request = pair.node.poll_transmit().unwrap();
    let reply = pair.ask(&request);
    let with_vendor = [&reply[..], &[38, 0, 0, 6, 0, 0, 0x12, 0x34, 0, 1]].concat();
    assert_eq!(pair.node.handle_reply(pair.clock(), &with_vendor), Err(ReplyError::Vendor));
    assert_eq!(pair.node.handle_reply(pair.clock(), &reply), Ok(()));
}
