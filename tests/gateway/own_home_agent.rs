//! The gateway's own home agent: registrations through tunnels, and the terminals' packets in Mobile IP tunnels.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use wayfarer::{
    config::model::{Config, Home, HomeAgent, HomeTerminal, Policy, PolicyAction, Roam, Route, Tunnel},
    control::protocol::{BindingView, Command, Outcome, Reply, View},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    drop::DropReason,
    wire::{
        datagram::{self, Datagram},
        encapsulation::{Encapsulation, Ends},
        icmp,
        ip::{IpHeader, protocol},
    },
};
use wayfarer_mobility::{
    crypto::Random,
    mip::{
        agent::ReverseTunnel,
        association::{Algorithm, Association, Replay},
        node::{Event, MobileNode, Now, Settings},
        wire::{self, Code, Flags},
    },
};

const SUITE: &str = "aes128gcm16";
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const HOST: &str = "10.99.0.7";
const OLD: &str = "192.0.2.1";
const NEW: &str = "198.51.100.7";
const REPLAY: Replay = Replay::Timestamps(Duration::from_secs(7));

#[derive(Debug)]
struct Fixed;

impl Random for Fixed {
    fn fill(&self, out: &mut [u8]) {
        out.iter_mut().zip(5..).for_each(|(byte, n)| *byte = n);
    }
}

fn home(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 97, 0, n)
}

fn follower(n: u32) -> Tunnel {
    let home = Home { agent: AGENT.into(), address: home(n as u8).into() };
    Tunnel {
        selectors: vec![selector("10.99.0.1", "0.0.0.0/0")],
        roam: Roam::HomeAgent,
        home: Some(home),
        ..tunnel(n, suite(SUITE))
    }
}

fn config_of(store: &Path, tunnels: Vec<Tunnel>) -> Config {
    let terminal = |n: u8| HomeTerminal {
        home: home(n),
        nai: None,
        spi: 300,
        algorithm: Algorithm::HmacSha256,
        secret: vec![n; 32].into(),
        replay: REPLAY,
    };
    let home_agent = HomeAgent {
        address: AGENT,
        network: "10.97.0.0/24".parse().unwrap(),
        store: Some(store.join("bindings")),
        lifetime: 600,
        reverse_tunnel: ReverseTunnel::Allowed,
        encapsulations: vec![wire::Encapsulation::Gre, wire::Encapsulation::Minimal],
        terminals: vec![terminal(1), terminal(2)],
    };
    // Hosts and terminals may reach each other, wherever these are.
    let bypass = |local, remote| Policy { selector: selector(local, remote), action: PolicyAction::Bypass };
    let policies = vec![
        bypass("10.99.0.0/24", "10.97.0.0/24"),
        bypass("10.97.0.0/24", "10.99.0.0/24"),
        bypass("10.97.0.0/24", "10.97.0.0/24"),
    ];
    Config { home_agent: Some(home_agent), policies, ..config(tunnels) }
}

fn node(n: u8, flags: Flags) -> MobileNode {
    node_with_key(n, n, flags)
}

fn node_with_key(n: u8, key: u8, flags: Flags) -> MobileNode {
    let settings = Settings {
        home: home(n),
        name: None,
        agent: AGENT,
        association: Association { spi: 300, algorithm: Algorithm::HmacSha256, key: vec![key; 32].into() },
        replay: REPLAY,
        lifetime: 300,
        flags: Flags { co_located: true, reverse_tunnel: true, ..flags },
        udp_tunnel: None,
        first_wait: Duration::from_secs(1),
        tries: 3,
    };
    MobileNode::new(settings, Box::new(Fixed))
}

fn now() -> Now {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Now { steady: since_1970, since_1970 }
}

/// A gateway with a home agent, and two terminals.
struct Lab {
    world: World,
    terminals: [Terminal; 2],
    nodes: [MobileNode; 2],
    store: TempDir,
}

impl Lab {
    fn new() -> Self {
        Self::wanting(Flags::default())
    }

    fn wanting(flags: Flags) -> Self {
        let store = tempfile::tempdir().unwrap();
        let world = Self::world(store.path());
        let terminals = [(1, OLD), (2, "192.0.2.2")].map(|(n, at)| Terminal::new(n, suite(SUITE), at));
        Self { world, terminals, nodes: [1, 2].map(|n| node(n, flags)), store }
    }

    fn world(store: &Path) -> World {
        let mut world = World::with(config_of(store, vec![follower(1), follower(2)]), 512);
        world.meet_neighbours();
        world
    }

    /// Ends the gateway without a word and starts it again with the same store.
    fn restart(&mut self) {
        self.world.assembly.slow_path.start_home_agent(None).unwrap();
        self.world = Self::world(self.store.path());
    }

    /// Has terminal `n` register this care-of address, and returns what the home agent said; `None` if no reply
    /// came. The terminal sends from there.
    fn register(&mut self, n: usize, care_of: &str) -> Option<Event> {
        self.terminals[n - 1].address = ip(care_of);
        self.register_from_here(n, care_of)
    }

    fn register_from_here(&mut self, n: usize, care_of: &str) -> Option<Event> {
        self.nodes[n - 1].register(now(), care_of.parse().unwrap());
        let message = self.nodes[n - 1].poll_transmit().unwrap();
        let request = udp_packet(ip(care_of), AGENT.into(), (40_000, 434), &message);
        let sealed = self.terminals[n - 1].seal(&request);
        self.world.send(OUTSIDE, &sealed);
        let sent = self.world.take(OUTSIDE);
        let (outer, _, inner, _) = self.terminals[n - 1].open(sent.first()?);
        assert_eq!(IpAddr::from(outer.dst), self.terminals[n - 1].address);
        let Datagram { src, dst, payload } = Datagram::parse(&inner).unwrap();
        assert_eq!((src, dst), (SocketAddr::new(AGENT.into(), 434), SocketAddr::new(ip(care_of), 40_000)));
        self.nodes[n - 1].handle_reply(now(), payload).unwrap();
        self.nodes[n - 1].poll_event()
    }

    /// Sends a packet from the host to terminal `n`'s home, and returns what came to the terminal: outer
    /// destination, the header of the Mobile IP tunnel, and the packet in it.
    fn down(&mut self, n: usize, packet: &[u8]) -> Option<(IpAddr, IpHeader, Vec<u8>)> {
        self.world.send(INSIDE, packet);
        let sent = self.world.take(OUTSIDE);
        let (outer, _, mut inner, _) = self.terminals[n - 1].open(sent.first()?);
        let header = IpHeader::parse(&inner).unwrap();
        let range = Encapsulation::of_protocol(header.protocol).unwrap().unwrap(&mut inner, &header).unwrap();
        Some((outer.dst.into(), header, inner[range].to_vec()))
    }

    /// Returns a packet of terminal `n`'s Mobile IP tunnel from `care_of`.
    fn wrapped(&self, care_of: &str, packet: &[u8]) -> Vec<u8> {
        let (header, dst) = (IpHeader::parse(packet).unwrap(), AGENT);
        let mut bytes = [vec![0; 20], packet.to_vec()].concat();
        let ends = Ends { src: care_of.parse().unwrap(), dst };
        let length = Encapsulation::IpInIp.wrap(&mut bytes, &header, ends, 1);
        assert_eq!(length, bytes.len());
        bytes
    }

    fn bindings(&mut self) -> Vec<BindingView> {
        match self.world.ask(Command::Show { what: View::Bindings }).outcome {
            Outcome::Result(Reply::Bindings(all)) => all,
            other => panic!("{other:?}"),
        }
    }
}

fn to_home(n: u8) -> Vec<u8> {
    datagram(HOST, &home(n).to_string(), (7, 9), b"down")
}

fn from_home(n: u8) -> Vec<u8> {
    datagram(&home(n).to_string(), HOST, (9, 7), b"up")
}

fn is_registered(event: Option<Event>, at: &str) -> bool {
    matches!(event, Some(Event::Registered { care_of, .. }) if care_of.to_string() == at)
}

#[test]
fn packets_follow_each_registration_in_both_directions() {
    let mut lab = Lab::new();
    for at in [OLD, NEW, "203.0.113.99", OLD] {
        assert!(is_registered(lab.register(1, at), at), "{at}: {:?}", lab.world.all_drops());
        let (outer, tunnel, packet) = lab.down(1, &to_home(1)).unwrap();
        assert_eq!(
            (outer, IpAddr::from(tunnel.src), IpAddr::from(tunnel.dst)),
            (ip(at), AGENT.into(), ip(at))
        );
        assert_eq!((tunnel.protocol, packet), (protocol::IPV4, forwarded(&to_home(1))));
        let up = lab.wrapped(at, &from_home(1));
        let sealed = lab.terminals[0].seal(&up);
        lab.world.send(OUTSIDE, &sealed);
        assert_eq!(lab.world.take(INSIDE), [forwarded(&from_home(1))]);
        let [binding] = &lab.bindings()[..] else { panic!("one terminal is away") };
        assert_eq!((&binding.home[..], &binding.care_of[..]), ("10.97.0.1", at));
    }
}

#[test]
fn each_encapsulation_carries_what_the_terminal_asked_for() {
    for (flags, protocol) in [
        (Flags { gre: true, ..Flags::default() }, protocol::GRE),
        (Flags { minimal: true, ..Flags::default() }, protocol::MINIMAL),
    ] {
        let mut lab = Lab::wanting(flags);
        assert!(is_registered(lab.register(1, OLD), OLD));
        let (_, tunnel, packet) = lab.down(1, &to_home(1)).unwrap();
        assert_eq!((tunnel.protocol, packet), (protocol, forwarded(&to_home(1))));
    }
}

#[test]
fn a_terminal_at_home_gets_its_packets_there() {
    let mut lab = Lab::new();
    assert!(lab.down(1, &to_home(1)).is_none());
    assert_eq!(
        lab.world.drops(DropReason::NoBinding),
        1,
        "no route leads to its home, and any other is wrong"
    );
    assert!(is_registered(lab.register(1, OLD), OLD));
    assert!(lab.down(1, &to_home(1)).is_some());
    let home = home(1).to_string();
    assert!(is_registered(lab.register_from_here(1, OLD), OLD));
    // The end of all bindings, by the tunnel.
    lab.nodes[0].register(now(), home.parse().unwrap());
    let message = lab.nodes[0].poll_transmit().unwrap();
    let sealed = lab.terminals[0].seal(&udp_packet(ip(OLD), AGENT.into(), (40_000, 434), &message));
    lab.world.send(OUTSIDE, &sealed);
    assert_eq!(lab.world.take(OUTSIDE).len(), 1, "the reply");
    assert_eq!(lab.bindings(), []);
    assert!(lab.down(1, &to_home(1)).is_none());
    // Another terminal may get the address that it had.
    assert!(is_registered(lab.register(2, OLD), OLD));
    // Told in clear, at home, it is answered there.
    assert!(is_registered(lab.register(1, NEW), NEW));
    lab.nodes[0].register(now(), home.parse().unwrap());
    let message = lab.nodes[0].poll_transmit().unwrap();
    lab.world.send(INSIDE, &udp_packet(ip(HOST), AGENT.into(), (40_000, 434), &message));
    let replies = lab.world.take(INSIDE);
    assert_eq!(Datagram::parse(&replies[0]).unwrap().dst, SocketAddr::new(ip(HOST), 40_000));
}

#[test]
fn whoever_loses_its_care_of_address_loses_its_binding() {
    let mut lab = Lab::new();
    lab.terminals[0].send_from("203.0.113.77:40000".parse().unwrap());
    assert!(is_registered(lab.register_from_here(1, "192.0.2.2"), "192.0.2.2"));
    assert!(lab.down(1, &to_home(1)).is_some());
    // Terminal 2 is really there.
    assert!(is_registered(lab.register(2, "192.0.2.2"), "192.0.2.2"));
    let [binding] = &lab.bindings()[..] else { panic!("one terminal is away") };
    assert_eq!(binding.home, "10.97.0.2");
    assert!(lab.down(1, &to_home(1)).is_none(), "terminal 2 gets none of its packets");
    lab.restart();
    assert_eq!(lab.bindings().len(), 1);
}

#[test]
fn only_the_terminal_sends_as_its_home_address_and_only_by_its_tunnel() {
    let mut lab = Lab::new();
    assert!(is_registered(lab.register(1, OLD), OLD));
    assert!(is_registered(lab.register(2, "192.0.2.2"), "192.0.2.2"));
    for (n, care_of, inner) in [
        // As another terminal, also from its care-of address; as a host, and as nobody.
        (2, "192.0.2.2", from_home(1)),
        (2, OLD, from_home(1)),
        (1, OLD, datagram(HOST, "10.99.0.8", (9, 7), b"up")),
        (1, OLD, from_home(3)),
    ] {
        let before = lab.world.drops(DropReason::NoBinding);
        let up = lab.wrapped(care_of, &inner);
        let sealed = lab.terminals[n - 1].seal(&up);
        lab.world.send(OUTSIDE, &sealed);
        assert_eq!(lab.world.take(INSIDE), Vec::<Vec<u8>>::new());
        assert_eq!(lab.world.drops(DropReason::NoBinding), before + 1);
    }
    // It has just moved, and is not registered there yet. Nothing is lost.
    lab.terminals[0].address = ip(NEW);
    let up = lab.wrapped(NEW, &from_home(1));
    let sealed = lab.terminals[0].seal(&up);
    lab.world.send(OUTSIDE, &sealed);
    assert_eq!(lab.world.take(INSIDE), [forwarded(&from_home(1))]);
    // In clear it is not let in, bare or in a tunnel, since the link should have brought it.
    lab.world.send(OUTSIDE, &from_home(1));
    lab.world.send(INSIDE, &from_home(1));
    assert_eq!(lab.world.drops(DropReason::Unprotected), 2);
    let in_clear = lab.wrapped(OLD, &from_home(1));
    lab.world.send(OUTSIDE, &in_clear);
    assert_eq!(lab.world.drops(DropReason::Unprotected), 3);
}

#[test]
fn terminals_reach_each_other_by_their_home_addresses() {
    let mut lab = Lab::new();
    assert!(is_registered(lab.register(1, OLD), OLD));
    assert!(is_registered(lab.register(2, "192.0.2.2"), "192.0.2.2"));
    let packet = datagram("10.97.0.1", "10.97.0.2", (1, 2), b"hello");
    let up = lab.wrapped(OLD, &packet);
    let sealed = lab.terminals[0].seal(&up);
    lab.world.send(OUTSIDE, &sealed);
    let sent = lab.world.take(OUTSIDE);
    let (outer, _, inner, _) = lab.terminals[1].open(&sent[0]);
    assert_eq!((IpAddr::from(outer.dst), &inner[20..]), (ip("192.0.2.2"), &forwarded(&packet)[..]));
}

#[test]
fn strangers_registrations_are_dropped_and_old_ones_denied() {
    let mut lab = Lab::new();
    assert!(is_registered(lab.register(1, OLD), OLD));
    // Terminal 2 for terminal 1's home address, with its own key.
    let mut thief = node_with_key(1, 2, Flags::default());
    thief.register(now(), "192.0.2.2".parse().unwrap());
    let message = thief.poll_transmit().unwrap();
    let sealed = lab.terminals[1].seal(&udp_packet(ip("192.0.2.2"), AGENT.into(), (1, 434), &message));
    lab.world.send(OUTSIDE, &sealed);
    assert_eq!(lab.world.take(OUTSIDE), Vec::<Vec<u8>>::new());
    assert_eq!(lab.world.slow_drops(DropReason::NoRegistration), 1);
    // A clock that is wrong: the denial tells the right time, by the link as it is.
    let wrong = Now { since_1970: now().since_1970 - Duration::from_secs(3600), ..now() };
    lab.nodes[0].register(wrong, OLD.parse().unwrap());
    let message = lab.nodes[0].poll_transmit().unwrap();
    let sealed = lab.terminals[0].seal(&udp_packet(ip(OLD), AGENT.into(), (40_000, 434), &message));
    lab.world.send(OUTSIDE, &sealed);
    let sent = lab.world.take(OUTSIDE);
    let (_, _, inner, _) = lab.terminals[0].open(&sent[0]);
    lab.nodes[0].handle_reply(wrong, Datagram::parse(&inner).unwrap().payload).unwrap();
    assert_eq!(lab.down(1, &to_home(1)).unwrap().0, ip(OLD));
    // The terminal has learnt the time, and registers again by it.
    let again = lab.nodes[0].poll_transmit().expect("another request");
    let sealed = lab.terminals[0].seal(&udp_packet(ip(OLD), AGENT.into(), (40_000, 434), &again));
    lab.world.send(OUTSIDE, &sealed);
    let sent = lab.world.take(OUTSIDE);
    let (_, _, inner, _) = lab.terminals[0].open(&sent[0]);
    lab.nodes[0].handle_reply(wrong, Datagram::parse(&inner).unwrap().payload).unwrap();
    assert!(is_registered(lab.nodes[0].poll_event(), OLD));
}

#[test]
fn a_care_of_address_where_the_terminal_is_not_is_denied() {
    let mut lab = Lab::new();
    assert!(is_registered(lab.register(1, OLD), OLD));
    // The packet comes from the old address, whatever it says inside.
    lab.nodes[0].register(now(), NEW.parse().unwrap());
    let message = lab.nodes[0].poll_transmit().unwrap();
    let sealed = lab.terminals[0].seal(&udp_packet(ip(NEW), AGENT.into(), (40_000, 434), &message));
    lab.world.send(OUTSIDE, &sealed);
    let sent = lab.world.take(OUTSIDE);
    let (outer, _, inner, _) = lab.terminals[0].open(&sent[0]);
    assert_eq!(IpAddr::from(outer.dst), ip(OLD));
    lab.nodes[0].handle_reply(now(), Datagram::parse(&inner).unwrap().payload).unwrap();
    assert_eq!(lab.nodes[0].poll_event(), Some(Event::Denied(Code::PROHIBITED)));
    assert_eq!(lab.down(1, &to_home(1)).unwrap().0, ip(OLD));
}

#[test]
fn bindings_survive_a_restart() {
    let mut lab = Lab::new();
    assert!(is_registered(lab.register(1, OLD), OLD));
    lab.restart();
    assert_eq!(lab.bindings().len(), 1);
    // Its first packet shows where it is; no registration is needed.
    let up = lab.wrapped(OLD, &from_home(1));
    lab.terminals[0] = Terminal::new(1, suite(SUITE), OLD);
    let sealed = lab.terminals[0].seal(&up);
    lab.world.send(OUTSIDE, &sealed);
    assert_eq!(lab.world.take(INSIDE), [forwarded(&from_home(1))]);
    assert_eq!(lab.down(1, &to_home(1)).unwrap().0, ip(OLD));
}

#[test]
fn a_binding_that_its_link_cannot_keep_ends_for_good() {
    let mut lab = Lab::new();
    assert!(is_registered(lab.register(1, OLD), OLD));
    // The next configuration has what is sent there go in clear.
    let mut config = config_of(lab.store.path(), vec![follower(1)]);
    config
        .policies
        .push(Policy { selector: selector("10.99.0.0/24", "192.0.2.0/24"), action: PolicyAction::Bypass });
    lab.world.assembly.slow_path.start_home_agent(None).unwrap();
    lab.world = World::with(config, 512);
    assert_eq!(lab.bindings(), []);
    lab.restart();
    assert_eq!(lab.bindings(), []);
}

#[test]
fn the_host_hears_what_is_too_long_for_the_way_to_the_terminal() {
    let mut lab = Lab::new();
    assert!(is_registered(lab.register(1, OLD), OLD));
    let long = udp_packet(ip(HOST), home(1).into(), (7, 9), &[0; 1460]);
    lab.world.send(INSIDE, &long);
    assert_eq!(lab.world.take(OUTSIDE), Vec::<Vec<u8>>::new());
    let answers = lab.world.take(INSIDE);
    let header = IpHeader::parse(&answers[0]).unwrap();
    assert!(icmp::is_too_big(&header, &answers[0]));
    let (quoted, _) = icmp::quoted(&header, &answers[0]).unwrap();
    assert_eq!((IpAddr::from(header.dst), IpAddr::from(quoted.dst)), (ip(HOST), home(1).into()));
    let mtu = usize::from(u16::from_be_bytes([answers[0][26], answers[0][27]]));
    let fits = udp_packet(ip(HOST), home(1).into(), (7, 9), &vec![0; mtu - 28]);
    assert_eq!(lab.down(1, &fits).unwrap().2, forwarded(&fits));
    let one_more = udp_packet(ip(HOST), home(1).into(), (7, 9), &vec![0; mtu - 27]);
    lab.world.send(INSIDE, &one_more);
    assert_eq!(lab.world.take(OUTSIDE), Vec::<Vec<u8>>::new());
}

#[test]
fn what_goes_to_and_from_a_home_address_is_judged_by_policy() {
    let store = tempfile::tempdir().unwrap();
    let discard = |local, remote| Policy { selector: selector(local, remote), action: PolicyAction::Discard };
    let mut config = config_of(store.path(), vec![follower(1)]);
    config.policies.push(discard(HOST, "10.97.0.1"));
    let mut lab = Lab { world: World::with(config, 512), ..Lab::new() };
    lab.world.meet_neighbours();
    assert!(is_registered(lab.register(1, OLD), OLD));
    assert!(lab.down(1, &to_home(1)).is_none());
    assert_eq!(lab.world.drops(DropReason::Discard), 1);
    let other = datagram("10.99.0.8", "10.97.0.1", (7, 9), b"down");
    assert!(lab.down(1, &other).is_some());
    let up = lab.wrapped(OLD, &from_home(1));
    let sealed = lab.terminals[0].seal(&up);
    lab.world.send(OUTSIDE, &sealed);
    assert_eq!(lab.world.take(INSIDE), Vec::<Vec<u8>>::new());
    assert_eq!(lab.world.drops(DropReason::Discard), 2);
    // From outside, as a host inside, and as a stranger of whom no policy knows.
    lab.world.send(OUTSIDE, &other);
    assert_eq!(lab.world.drops(DropReason::SourcePort), 1);
    lab.world.send(OUTSIDE, &datagram("198.51.100.50", "10.97.0.1", (7, 9), b"down"));
    assert_eq!(lab.world.drops(DropReason::NoPolicy), 1);
}

#[test]
fn a_terminal_at_home_is_reached_by_the_route_that_leads_there() {
    let store = tempfile::tempdir().unwrap();
    let mut config = config_of(store.path(), vec![follower(1)]);
    config.routes.push(Route {
        to: "10.97.0.0/24".parse().unwrap(),
        via: Some(ip("10.99.0.9")),
        port: INSIDE,
    });
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    let packet = datagram("203.0.113.200", "10.97.0.1", (7, 9), b"down");
    world.send(OUTSIDE, &packet);
    assert_eq!(world.drops(DropReason::NoPolicy), 1);
    world.send(INSIDE, &to_home(1));
    assert_eq!((world.take(OUTSIDE), world.take(INSIDE)), (vec![], vec![forwarded(&to_home(1))]));
}

#[test]
fn a_terminal_that_is_no_links_registers_in_clear() {
    let store = tempfile::tempdir().unwrap();
    let mut world = World::with(config_of(store.path(), vec![]), 512);
    world.meet_neighbours();
    let mut node = node(2, Flags::default());
    node.register(now(), "10.99.0.7".parse().unwrap());
    let request = datagram::emit(
        "10.99.0.7:5000".parse().unwrap(),
        SocketAddr::new(AGENT.into(), 434),
        &[&node.poll_transmit().unwrap()],
    );
    world.send(INSIDE, &request.unwrap());
    let replies = world.take(INSIDE);
    node.handle_reply(now(), Datagram::parse(&replies[0]).unwrap().payload).unwrap();
    assert!(is_registered(node.poll_event(), "10.99.0.7"));
}
