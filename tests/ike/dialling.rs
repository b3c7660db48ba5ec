//! Connections that we make: to several addresses, and to host names.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use wayfarer::sim::ike::{
    connections::{GATEWAY, TERMINAL, gateway, identity, terminal},
    side::{Side, reversed},
};
use wayfarer_mobility::{
    ike::{
        connection::{Connection, IdentityPattern, Remote},
        event::{Event, Found, LookUpId},
        reason::Reason,
        settings::Settings,
        view::{State, View},
        wire::Header,
    },
    path::Addresses,
};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than one attempt at an address where nobody answers.
const ATTEMPT: Duration = Duration::from_secs(60);

fn at(address: &str) -> Remote {
    Remote::At(address.parse().unwrap())
}

fn named(name: &str) -> Remote {
    Remote::Named(name.into(), 500)
}

fn addresses(all: &[&str]) -> Vec<IpAddr> {
    all.iter().map(|address| address.parse().unwrap()).collect()
}

/// A terminal, a gateway, and somebody who knows the addresses of host names.
struct World {
    now: Duration,
    terminal: Side,
    gateway: Side,
    /// Addresses of host names; look-ups of other names are not answered.
    names: BTreeMap<&'static str, Vec<IpAddr>>,
    /// The look-ups so far.
    look_ups: Vec<(LookUpId, String)>,
    /// What became of each answer.
    taken: Vec<Found>,
    /// Where the terminal tried to connect, in order.
    tries: Vec<SocketAddr>,
    spis: BTreeSet<u64>,
    events: usize,
}

impl World {
    /// Makes a terminal that connects to `remote`.
    fn new(remote: Vec<Remote>, names: &[(&'static str, &[&str])]) -> Self {
        let mut world = Self {
            now: 1000 * SECOND,
            terminal: Side::new(vec![Connection { remote, ..terminal() }], Settings::default(), 1),
            gateway: Side::new(vec![gateway()], Settings::default(), 2),
            names: names.iter().map(|(name, all)| (*name, addresses(all))).collect(),
            look_ups: vec![],
            taken: vec![],
            tries: vec![],
            spis: BTreeSet::new(),
            events: 0,
        };
        world.terminal.endpoint.dial(world.now, 0, TERMINAL.into());
        world.settle();
        world
    }

    /// Answers look-ups and carries messages until there are none.
    fn settle(&mut self) {
        loop {
            let up = self.terminal.work(self.now);
            for (addresses, message) in &up {
                if self.spis.insert(Header::parse(message).unwrap().spi_i) {
                    self.tries.push(addresses.remote);
                }
                if addresses.remote.ip() == IpAddr::from(GATEWAY) {
                    self.gateway.endpoint.handle_datagram(self.now, reversed(*addresses), message);
                }
            }
            let down = self.gateway.work(self.now);
            for (addresses, message) in &down {
                self.terminal.endpoint.handle_datagram(self.now, reversed(*addresses), message);
            }
            if !self.answer() && up.is_empty() && down.is_empty() {
                return;
            }
        }
    }

    /// Answers the new look-ups. Returns true if there were any.
    fn answer(&mut self) -> bool {
        let asked: Vec<(LookUpId, String)> = self.terminal.events[self.events..]
            .iter()
            .filter_map(|event| match event {
                Event::LookUp { id, name } => Some((*id, name.clone())),
                _ => None,
            })
            .collect();
        self.events = self.terminal.events.len();
        for (id, name) in &asked {
            if let Some(found) = self.names.get(&name[..]) {
                self.taken.push(self.terminal.endpoint.handle_addresses(self.now, *id, found));
            }
        }
        self.look_ups.extend(asked.iter().cloned());
        !asked.is_empty()
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let timers = [&self.terminal, &self.gateway].map(|side| side.endpoint.poll_timeout());
            let Some(next) = timers.into_iter().flatten().min().filter(|next| *next <= until) else { break };
            self.now = next.max(self.now);
            self.terminal.endpoint.handle_timeout(self.now);
            self.gateway.endpoint.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    /// Lets time pass until the terminal has tried so many addresses, and returns these without ports.
    fn tried(&mut self, count: usize) -> Vec<String> {
        let deadline = self.now + 3600 * SECOND;
        while self.tries.len() < count {
            assert!(self.now < deadline, "{:?}", self.tries);
            self.pass(SECOND);
        }
        self.tries[..count].iter().map(|end| end.ip().to_string()).collect()
    }

    /// Returns the host names whose look-ups took too long.
    fn timed_out(&self) -> Vec<&str> {
        let all = self.terminal.events.iter().filter_map(|event| match event {
            Event::LookUpTimedOut { name } => Some(&name[..]),
            _ => None,
        });
        all.collect()
    }

    fn is_connected(&self) -> bool {
        !self.terminal.connected_peers().is_empty()
    }
}

#[test]
fn host_name_is_looked_up_again_at_each_try() {
    let mut world = World::new(vec![named("gw.example.org")], &[("gw.example.org", &["198.51.100.1"])]);
    assert_eq!(world.tries, ["198.51.100.1:500".parse().unwrap()]);
    world.pass(ATTEMPT / 2);
    assert!(!world.is_connected());
    world.names.insert("gw.example.org", vec![GATEWAY.into()]);
    world.pass(ATTEMPT);
    assert!(world.is_connected());
    let peer = world.terminal.connected_peers()[0];
    assert_eq!(world.terminal.endpoint.dialled_name(peer), Some("gw.example.org"));
    assert_eq!(world.look_ups.len(), 2);
}

#[test]
fn each_address_is_tried_once_a_round_in_the_operators_order() {
    let remote = vec![at("198.51.100.1:500"), named("gw.example.org"), at("198.51.100.3:500")];
    let found = [
        "198.51.100.2",
        "198.51.100.1",
        "198.51.100.2",
        "::ffff:198.51.100.2",
        "2001:db8::1",
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::ffff:198.51.100.4",
    ];
    let mut world = World::new(remote, &[("gw.example.org", &found)]);
    let round = ["198.51.100.1", "198.51.100.2", "198.51.100.4", "198.51.100.3"];
    assert_eq!(world.tried(4), round);
    assert_eq!(world.tried(8)[4..], round);
    assert_eq!(world.taken, [Found::New(2); 2]);
}

#[test]
fn second_address_is_tried_when_the_first_does_not_answer() {
    let remote = ["198.51.100.1:500", "203.0.113.1:500", "198.51.100.3:500"].map(at);
    let mut world = World::new(remote.into(), &[]);
    world.pass(ATTEMPT);
    assert!(world.is_connected());
    // After the link, the first one is tried first again, not the third.
    let there = world.gateway.connected_peers()[0];
    world.gateway.endpoint.close(world.now, there);
    assert_eq!(world.tried(4), ["198.51.100.1", "203.0.113.1", "198.51.100.1", "203.0.113.1"]);
}

#[test]
fn answer_that_comes_too_late_is_dropped() {
    let names = ["slow.example.org", "slower.example.org"].map(named);
    let ends = ["198.51.100.3:500", "203.0.113.1:500"].map(at);
    let mut world = World::new(names.into_iter().chain(ends).collect(), &[]);
    let late = addresses(&["198.51.100.1"]);
    for count in 1..=2 {
        world.pass(9 * SECOND);
        assert_eq!((world.look_ups.len(), &world.tries[..]), (count, &[][..]));
        world.pass(SECOND);
        // The next name or address has its turn meanwhile.
        let (id, _) = world.look_ups[count - 1].clone();
        assert_eq!(world.terminal.endpoint.handle_addresses(world.now, id, &late), Found::TooLate);
        world.settle();
    }
    assert_eq!(world.timed_out(), ["slow.example.org", "slower.example.org"]);
    assert_eq!(world.tried(2), ["198.51.100.3", "203.0.113.1"]);
    assert!(world.is_connected());
    world.pass(ATTEMPT);
    assert_eq!((world.is_connected(), world.tries.len()), (true, 2));
}

#[test]
fn an_address_that_was_tried_is_told_from_one_that_cannot_be_reached() {
    let remote = vec![at("198.51.100.1:500"), named("gw.example.org"), named("six.example.org")];
    let names =
        [("gw.example.org", &["2001:db8::1", "198.51.100.1"][..]), ("six.example.org", &["2001:db8::1"])];
    let mut world = World::new(remote, &names);
    assert_eq!(world.tried(2), ["198.51.100.1", "198.51.100.1"]);
    assert_eq!(world.taken, [Found::Known, Found::Unreachable]);
}

#[test]
fn name_without_an_address_is_looked_up_again_after_a_wait() {
    let mut world = World::new(vec![named("gw.example.org")], &[("gw.example.org", &[])]);
    world.pass(ATTEMPT);
    let count = world.look_ups.len();
    assert!((5..=8).contains(&count), "{count} look-ups in a minute");
    assert_eq!(world.tries, []);
    world.names.insert("gw.example.org", vec![GATEWAY.into()]);
    world.pass(ATTEMPT);
    assert!(world.is_connected());
}

#[test]
fn changed_name_does_not_end_a_link() {
    let mut world = World::new(vec![named("gw.example.org")], &[("gw.example.org", &["203.0.113.1"])]);
    assert!(world.is_connected());
    world.names.insert("gw.example.org", addresses(&["198.51.100.1"]));
    world.pass(3600 * SECOND);
    assert!(world.is_connected());
    assert_eq!((world.look_ups.len(), world.terminal.end_reasons()), (1, vec![]));
    let there = world.gateway.connected_peers()[0];
    world.gateway.endpoint.close(world.now, there);
    assert_eq!(world.tried(2)[1], "198.51.100.1");
}

#[test]
fn few_addresses_of_a_name_are_tried() {
    let many: Vec<String> = (0..=255).map(|n| format!("198.51.100.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let world = World::new(vec![named("many.example.org")], &[("many.example.org", &many)]);
    assert_eq!(world.taken, [Found::New(8)]);
}

#[test]
fn terminal_with_both_families_tries_both() {
    let own = vec![TERMINAL.into(), "2001:db8::7".parse().unwrap()];
    let connection = Connection { remote: vec![named("gw.example.org")], local: own, ..terminal() };
    let mut world = World::new(vec![], &[("gw.example.org", &["2001:db8::1", "203.0.113.1"])]);
    world.terminal = Side::new(vec![connection], Settings::default(), 1);
    world.terminal.endpoint.dial(world.now, 0, TERMINAL.into());
    assert_eq!(world.tried(2), ["2001:db8::1", "203.0.113.1"]);
    world.settle();
    assert!(world.is_connected());
}

#[test]
fn reload_begins_the_round_anew() {
    let mut world = World::new(vec![named("slow.example.org")], &[]);
    let (id, _) = world.look_ups[0].clone();
    let new = Connection { remote: vec![named("gw.example.org")], ..terminal() };
    world.terminal.endpoint.reconfigure(world.now, vec![new], vec![], Settings::default());
    let late = addresses(&["198.51.100.1"]);
    assert_eq!(world.terminal.endpoint.handle_addresses(world.now, id, &late), Found::TooLate);
    world.names.insert("gw.example.org", vec![GATEWAY.into()]);
    world.settle();
    assert!(world.is_connected());
    assert_eq!(world.look_ups.last().unwrap().1, "gw.example.org");
    assert_eq!(world.timed_out(), [""; 0], "the operator gave it up");
}

#[test]
fn host_name_does_not_say_where_a_peer_may_come_from() {
    let only = IdentityPattern::of(vec![identity("cl.test")]);
    let of = |remote: Vec<Remote>, from: [u8; 4]| {
        let connection = Connection { remote, remote_id: only.clone(), ..gateway() };
        let mut gateway = Side::new(vec![connection], Settings::default(), 3);
        let mut peer = Side::new(vec![terminal()], Settings::default(), 4);
        peer.endpoint.dial(SECOND, 0, from.into());
        for _ in 0..4 {
            for (addresses, message) in peer.work(SECOND) {
                gateway.endpoint.handle_datagram(SECOND, reversed(addresses), &message);
            }
            for (Addresses { local, remote }, message) in gateway.work(SECOND) {
                let addresses = Addresses { local: remote, remote: local };
                peer.endpoint.handle_datagram(SECOND, addresses, &message);
            }
        }
        gateway.connected_peers().len()
    };
    assert_eq!(of(vec![named("cl.example.org")], TERMINAL), 1);
    assert_eq!(of(vec![at("192.0.2.99:500"), named("cl.example.org")], TERMINAL), 1);
    assert_eq!(of(vec![at("192.0.2.99:500"), at("192.0.2.7:500")], TERMINAL), 1);
    assert_eq!(of(vec![at("192.0.2.99:500"), at("192.0.2.98:500")], TERMINAL), 0);
}

#[test]
fn refused_attempts_go_on_to_the_next_address() {
    let mut world = World::new(vec![named("slow.example.org")], &[]);
    let other = IdentityPattern::of(vec![identity("other.test")]);
    let refusing = Connection { remote_id: other, ..gateway() };
    world.gateway = Side::new(vec![refusing], Settings::default(), 5);
    let new = vec![Connection { remote: vec![at("203.0.113.1:500"), at("198.51.100.1:500")], ..terminal() }];
    world.terminal.endpoint.reconfigure(world.now, new, vec![], Settings::default());
    world.pass(SECOND);
    assert!(matches!(world.terminal.end_reasons()[..], [Reason::Refused(_)]));
    assert_eq!(world.tried(2), ["203.0.113.1", "198.51.100.1"]);
}

#[test]
fn driver_chooses_the_address_before_the_first_message() {
    let mut side = Side::new(vec![terminal()], Settings::default(), 6);
    side.endpoint.dial(SECOND, 0, TERMINAL.into());
    let peer = side.endpoint.peers().next().unwrap().id();
    let elsewhere = IpAddr::from([192, 0, 2, 8]);
    for answer in [elsewhere, "2001:db8::7".parse().unwrap()] {
        side.endpoint.handle_source(SECOND, peer, answer);
    }
    let sent = side.work(SECOND);
    assert_eq!(sent[0].0.local, SocketAddr::new(elsewhere, 500));
    assert!(side.events.iter().any(|event| matches!(event, Event::Dialled { peer: of } if *of == peer)));
    side.endpoint.handle_source(SECOND, peer, TERMINAL.into());
    let view = side.endpoint.peer(peer).unwrap();
    assert_eq!(view.addresses().local.ip(), elsewhere, "it has begun");
}

#[test]
fn new_address_of_ours_begins_a_round_soon_after_failures() {
    let remote = ["198.51.100.1:500", "198.51.100.2:500"].map(at);
    let mut world = World::new(remote.into(), &[]);
    assert_eq!(world.tried(9)[8], "198.51.100.1");
    let is_connecting = |peer: &View<'_>| peer.state() == State::Connecting;
    let peer = world.terminal.endpoint.peers().find(is_connecting).unwrap().id();
    world.terminal.endpoint.handle_local(world.now, peer, [192, 0, 2, 8].into(), None).unwrap();
    world.pass(2 * SECOND);
    assert_eq!(world.tries.len(), 10);
    assert_eq!(world.tried(10)[9], "198.51.100.1");
}
