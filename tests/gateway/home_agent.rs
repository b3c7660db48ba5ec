//! Links that a home agent moves: registration through the tunnel, the update, the reply, then data.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};
use wayfarer::{
    config::model::{Config, Home, Policy, PolicyAction, Roam, SharedKey, Siu, Tunnel},
    control::protocol::{Command, HomeAgentView, Outcome as Answered, Reply, View},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{drop::DropReason, wire::datagram::Datagram};
use wayfarer_mobility::{
    crypto::Random,
    mip::{
        agent::{HomeAgent, Node, Nodes, ReverseTunnel, Settings as AgentSettings},
        association::{Algorithm, Association, Replay},
        node::{Event as NodeEvent, MobileNode, Now, Settings as NodeSettings},
        siu::{Event, Sender, Settings, Status, UDP_PORT, Update},
        wire::Flags,
    },
    retransmission::Retransmission,
};

const SUITE: &str = "aes128gcm16";
const AGENT: &str = "10.99.0.2";
const HOME: &str = "10.97.0.1";
const OLD: &str = "192.0.2.1";
const NEW: &str = "198.51.100.7";
/// The UDP port of home agents (RFC 5944 §3.3).
const MIP: u16 = 434;

#[derive(Debug)]
struct Fixed(u8);

impl Random for Fixed {
    fn fill(&self, out: &mut [u8]) {
        out.iter_mut().zip(self.0..).for_each(|(byte, n)| *byte = n);
    }
}

fn key(number: u32) -> SharedKey {
    SharedKey { number, secret: vec![number as u8; 32].into() }
}

/// Returns tunnel `n`, whose peer's home address is 10.97.0.n.
fn follower(n: u32) -> Tunnel {
    Tunnel {
        selectors: vec![selector(AGENT, "0.0.0.0/0")],
        roam: Roam::HomeAgent,
        home: Some(Home { agent: ip(AGENT), address: ip(&format!("10.97.0.{n}")) }),
        ..tunnel(n, suite(SUITE))
    }
}

fn config_of(tunnels: Vec<Tunnel>) -> Config {
    let siu = |name: &str, address, number| Siu { name: name.into(), address: ip(address), key: key(number) };
    Config { siu: vec![siu("first", AGENT, 1), siu("second", "10.99.0.3", 2)], ..config(tunnels) }
}

/// A gateway, terminals by two tunnels, and a home agent inside.
struct Lab {
    world: World,
    terminals: [Terminal; 2],
    sender: Sender,
    address: IpAddr,
}

impl Lab {
    fn new() -> Self {
        Self::with(config_of(vec![follower(1), follower(2)]))
    }

    fn with(config: Config) -> Self {
        let mut world = World::with(config, 512);
        world.meet_neighbours();
        let settings = Settings { key: key(1), retransmission: Retransmission::default() };
        let terminals = [(1, OLD), (2, "192.0.2.2")].map(|(n, at)| Terminal::new(n, suite(SUITE), at));
        Self { world, terminals, sender: Sender::new(settings, &Fixed(1)), address: ip(AGENT) }
    }

    /// Sends terminal `n`'s packet from its care-of address to the home agent, and checks that it got there.
    fn up(&mut self, n: usize, care_of: &str) {
        let packet = datagram(care_of, AGENT, (MIP, MIP), b"request");
        let sealed = self.terminals[n - 1].seal(&packet);
        self.world.send(OUTSIDE, &sealed);
        assert_eq!(self.world.take(INSIDE), [forwarded(&packet)], "{:?}", self.world.all_drops());
    }

    /// Passes datagrams between home agent and gateway until there are none left.
    fn exchange(&mut self) {
        let gateway = SocketAddr::new(ip("10.99.0.1"), UDP_PORT);
        while let Some(update) = self.sender.poll_transmit() {
            let packet = udp_packet(self.address, gateway.ip(), (5000, UDP_PORT), &update);
            self.world.send(INSIDE, &packet);
            for answer in self.world.take(INSIDE) {
                let Datagram { src, dst, payload } = Datagram::parse(&answer).expect("a whole datagram");
                assert_eq!((src, dst), (gateway, SocketAddr::new(self.address, 5000)));
                self.sender.receive(self.world.now, payload).expect("the gateway's answer");
            }
        }
    }

    /// Has the home agent send an update, and returns the gateway's answer.
    fn update(&mut self, update: Update) -> Option<Status> {
        self.sender.update(self.world.now, update).expect("an update that can be sent");
        self.exchange();
        self.sender.poll_event().and_then(|event| event.status)
    }

    /// Returns where a packet to `care_of` goes, and by which terminal's SA; `None` if it is dropped.
    fn down(&mut self, care_of: &str) -> Option<(IpAddr, usize)> {
        self.world.send(INSIDE, &datagram(AGENT, care_of, (MIP, MIP), b"data"));
        self.sealed(b"data").first().copied()
    }

    /// Returns where the sealed packets with this payload went, and by which terminal's SA.
    fn sealed(&mut self, payload: &[u8]) -> Vec<(IpAddr, usize)> {
        let sent = self.world.take(OUTSIDE);
        let opened = sent.iter().map(|packet| {
            let mut found =
                (1..).zip(&self.terminals).filter_map(|(n, one)| Some((n, one.try_open(packet)?)));
            let (n, (outer, _, inner, _)) = found.next().expect("nothing leaves in clear");
            assert_eq!(Datagram::parse(&inner).expect("a datagram").payload, payload);
            (IpAddr::from(outer.dst), n)
        });
        opened.collect()
    }

    fn shown(&mut self) -> HomeAgentView {
        match self.world.ask(Command::Show { what: View::HomeAgents }).outcome {
            Answered::Result(Reply::HomeAgents(all)) => all[0].clone(),
            other => panic!("{other:?}"),
        }
    }
}

fn update(n: u8, new: &str) -> Update {
    let unspecified = Ipv4Addr::UNSPECIFIED.into();
    let reply = datagram(AGENT, new, (MIP, MIP), b"reply");
    let home = Ipv4Addr::new(10, 97, 0, n).into();
    Update { lifetime: 600, home, old: unspecified, new: ip(new), link: vec![], reply }
}

fn lab_at_old() -> Lab {
    let mut lab = Lab::new();
    lab.up(1, OLD);
    assert_eq!(lab.update(update(1, OLD)), Some(Status::Done));
    assert_eq!(lab.sealed(b"reply"), [(ip(OLD), 1)]);
    lab
}

/// Moves terminal 1 to `NEW`, as far as the gateway can see.
fn seen_at_new(lab: &mut Lab) {
    lab.terminals[0].address = ip(NEW);
    lab.up(1, NEW);
}

#[test]
fn nothing_goes_to_a_care_of_address_before_the_home_agent_has_named_it() {
    let mut lab = Lab::new();
    lab.up(1, OLD);
    assert_eq!(lab.down(OLD), None);
    assert_eq!(lab.update(update(1, OLD)), Some(Status::Done));
    assert_eq!(lab.sealed(b"reply"), [(ip(OLD), 1)]);
    assert_eq!(lab.down(OLD), Some((ip(OLD), 1)));
}

#[test]
fn the_link_moves_when_the_home_agent_says_so_and_not_before() {
    let mut lab = lab_at_old();
    seen_at_new(&mut lab);
    assert_eq!(lab.down(OLD), Some((ip(OLD), 1)), "only the home agent moves it");
    assert_eq!(lab.update(update(1, NEW)), Some(Status::Done));
    assert_eq!(lab.sealed(b"reply"), [(ip(NEW), 1)]);
    assert_eq!(lab.down(NEW), Some((ip(NEW), 1)));
    assert_eq!(lab.down(OLD), None, "the old address is nobody's any more");
}

#[test]
fn no_wide_policy_lets_out_what_is_for_an_unknown_care_of_address() {
    let bypass = Policy { selector: selector("10.99.0.0/24", "0.0.0.0/0"), action: PolicyAction::Bypass };
    let mut lab = Lab::with(Config { policies: vec![bypass], ..config_of(vec![follower(1)]) });
    assert_eq!(lab.down(NEW), None);
    assert_eq!(lab.world.drops(DropReason::Discard), 1);
    let others = datagram("10.99.0.9", NEW, (1, 2), b"in clear");
    lab.world.send(INSIDE, &others);
    assert_eq!(lab.world.take(OUTSIDE), [forwarded(&others)]);
}

#[test]
fn fifty_moves_each_take_effect_with_their_update() {
    let mut lab = lab_at_old();
    for n in 1..=50 {
        let at = format!("203.0.113.{}", 100 + n);
        lab.terminals[0].address = ip(&at);
        lab.up(1, &at);
        assert_eq!(lab.update(update(1, &at)), Some(Status::Done), "move {n}");
        assert_eq!(lab.sealed(b"reply"), [(ip(&at), 1)]);
        assert_eq!(lab.down(&at), Some((ip(&at), 1)));
    }
    let shown = lab.shown();
    assert_eq!((shown.done, shown.refused, shown.unreachable), (51, 0, 0));
    assert_eq!((shown.links[0].care_of.as_deref(), &shown.links[0].home[..]), (Some("203.0.113.150"), HOME));
}

#[test]
fn behind_a_nat_the_care_of_address_is_the_terminals_and_the_path_the_nats() {
    let mut lab = Lab::new();
    lab.terminals[0].send_from("203.0.113.77:40000".parse().unwrap());
    lab.up(1, "192.168.1.7");
    assert_eq!(lab.update(update(1, "192.168.1.7")), Some(Status::Done));
    assert_eq!(lab.sealed(b"reply"), [(ip("203.0.113.77"), 1)]);
    // The NAT begins a new mapping: the same registration again follows it.
    lab.terminals[0].send_from("203.0.113.77:40001".parse().unwrap());
    lab.up(1, "192.168.1.7");
    assert_eq!(lab.update(update(1, "192.168.1.7")), Some(Status::Done));
    lab.world.take(OUTSIDE);
    assert_eq!(lab.down("192.168.1.7"), Some((ip("203.0.113.77"), 1)));
    assert_eq!(lab.shown().links[0].path.as_deref(), Some("udp:203.0.113.1:4500-203.0.113.77:40001"));
}

#[test]
fn an_update_that_is_not_to_be_carried_out_changes_nothing() {
    let mut lab = lab_at_old();
    lab.up(2, "192.0.2.2");
    assert_eq!(lab.update(update(2, "192.0.2.2")), Some(Status::Done));
    lab.world.take(OUTSIDE);
    seen_at_new(&mut lab);
    let named = |n, link: &str| Update { link: link.into(), ..update(n, NEW) };
    let reply = |packet: Vec<u8>| Update { reply: packet, ..update(1, NEW) };
    let whole = datagram(AGENT, NEW, (MIP, MIP), b"reply");
    for (wrong, status) in [
        (update(9, NEW), Status::UnknownLink),
        (named(1, "t9"), Status::UnknownLink),
        (named(1, "t2"), Status::Refused),
        // Another terminal's address, the gateway's own, and one that no host has.
        (update(1, "192.0.2.2"), Status::Refused),
        (update(1, "203.0.113.1"), Status::Refused),
        (update(1, "198.51.100.8"), Status::Unreachable),
        // The reply is no packet from the home agent to the terminal.
        (reply(datagram("10.99.0.9", NEW, (MIP, MIP), b"reply")), Status::Refused),
        (reply(datagram(AGENT, "198.51.100.8", (MIP, MIP), b"reply")), Status::Refused),
        (reply(whole[..whole.len() - 1].to_vec()), Status::Refused),
        (reply(fragments(&datagram(AGENT, NEW, (MIP, MIP), &[0; 600]), 576, 1)[0].clone()), Status::Refused),
    ] {
        assert_eq!(lab.update(wrong.clone()), Some(status), "{wrong:?}");
        assert_eq!(lab.sealed(b"reply"), [], "{wrong:?}");
        assert_eq!(lab.down(OLD), Some((ip(OLD), 1)));
        assert_eq!(lab.down(NEW), None);
    }
    let shown = lab.shown();
    assert_eq!((shown.unknown_link, shown.refused, shown.unreachable), (2, 7, 1));
    assert_eq!(lab.update(named(1, "t1")), Some(Status::Done));
    assert_eq!(lab.sealed(b"reply"), [(ip(NEW), 1)]);
}

#[test]
fn whoever_is_at_an_address_gets_it_from_whoever_claims_it_behind_a_nat() {
    let mut lab = Lab::new();
    lab.terminals[0].send_from("203.0.113.77:40000".parse().unwrap());
    lab.up(1, "192.0.2.2");
    assert_eq!(lab.update(update(1, "192.0.2.2")), Some(Status::Done));
    lab.world.take(OUTSIDE);
    // The one that is really there.
    lab.up(2, "192.0.2.2");
    assert_eq!(lab.update(update(2, "192.0.2.2")), Some(Status::Done));
    assert_eq!(lab.sealed(b"reply"), [(ip("192.0.2.2"), 2)]);
    assert_eq!(lab.down("192.0.2.2"), Some((ip("192.0.2.2"), 2)));
    // And not the other way round.
    lab.up(1, "192.0.2.2");
    assert_eq!(lab.update(update(1, "192.0.2.2")), Some(Status::Refused));
    assert_eq!(lab.down("192.0.2.2"), Some((ip("192.0.2.2"), 2)));
}

#[test]
fn an_address_that_another_rule_sends_elsewhere_is_refused() {
    let lan = Policy { selector: selector("10.99.0.0/24", "10.0.0.0/8"), action: PolicyAction::Bypass };
    let site = Tunnel { selectors: vec![selector(AGENT, "0.0.0.0/0")], ..tunnel(2, suite(SUITE)) };
    for config in [
        Config { policies: vec![lan], ..config_of(vec![follower(1)]) },
        // A tunnel of the same rank, which comes first.
        config_of(vec![site, follower(1)]),
    ] {
        let mut lab = Lab::with(config);
        lab.terminals[0].send_from("203.0.113.77:40000".parse().unwrap());
        let request = datagram("10.1.2.3", AGENT, (MIP, MIP), b"request");
        let sealed = lab.terminals[0].seal(&request);
        lab.world.send(OUTSIDE, &sealed);
        lab.world.take(INSIDE);
        assert_eq!(lab.update(update(1, "10.1.2.3")), Some(Status::Refused));
        assert_eq!(lab.world.take(OUTSIDE), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn no_terminal_takes_the_place_of_a_home_agent_or_a_host_inside() {
    let mut lab = Lab::new();
    lab.terminals[0].send_from("203.0.113.77:40000".parse().unwrap());
    for (at, status) in [(AGENT, Status::Refused), ("10.99.0.9", Status::Unreachable)] {
        let request = datagram(at, AGENT, (MIP, MIP), b"request");
        let sealed = lab.terminals[0].seal(&request);
        lab.world.send(OUTSIDE, &sealed);
        lab.world.take(INSIDE);
        assert_eq!(lab.update(update(1, at)), Some(status), "{at}");
    }
}

#[test]
fn strangers_and_other_home_agents_move_nothing() {
    let mut lab = lab_at_old();
    seen_at_new(&mut lab);
    // Whoever has another secret.
    let wrong = SharedKey { number: 1, ..key(3) };
    lab.sender = Sender::new(Settings { key: wrong, retransmission: Retransmission::default() }, &Fixed(9));
    assert_eq!(lab.update(update(1, NEW)), None);
    assert_eq!(lab.world.slow_drops(DropReason::ControlFormat), 1);
    assert_eq!(lab.shown().malformed, 1);
    // Whoever is not the home agent.
    lab.address = ip("10.99.0.9");
    lab.sender = Sender::new(Settings { key: key(1), retransmission: Retransmission::default() }, &Fixed(9));
    assert_eq!(lab.update(update(1, NEW)), None);
    assert_eq!(lab.world.slow_drops(DropReason::NoHomeAgent), 1);
    // Another home agent, with its own key.
    lab.address = ip("10.99.0.3");
    lab.sender = Sender::new(Settings { key: key(2), retransmission: Retransmission::default() }, &Fixed(9));
    assert_eq!(lab.update(update(1, NEW)), Some(Status::Refused));
    assert_eq!(lab.down(OLD), Some((ip(OLD), 1)));
}

#[test]
fn a_registration_that_ends_leaves_the_link_where_it_is() {
    let mut lab = lab_at_old();
    let end = Update { lifetime: 0, new: Ipv4Addr::UNSPECIFIED.into(), ..update(1, OLD) };
    assert_eq!(lab.update(end.clone()), Some(Status::Done));
    assert_eq!(lab.sealed(b"reply"), [(ip(OLD), 1)]);
    assert_eq!(lab.down(OLD), Some((ip(OLD), 1)));
    // Another terminal may get the address then.
    lab.terminals[1].address = ip(OLD);
    lab.up(2, OLD);
    assert_eq!(lab.update(update(2, OLD)), Some(Status::Done));
    assert_eq!(lab.sealed(b"reply"), [(ip(OLD), 2)]);
    assert_eq!(lab.down(OLD), Some((ip(OLD), 2)));
    // There is nothing to leave alone, and nowhere to send the reply.
    let mut unregistered = Lab::new();
    assert_eq!(unregistered.update(end), Some(Status::Refused));
}

#[test]
fn a_repeated_update_is_answered_and_forwards_nothing() {
    let mut lab = lab_at_old();
    seen_at_new(&mut lab);
    lab.sender.update(lab.world.now, update(1, NEW)).unwrap();
    let bytes = lab.sender.poll_transmit().unwrap();
    let packet = udp_packet(ip(AGENT), ip("10.99.0.1"), (5000, UDP_PORT), &bytes);
    lab.world.send(INSIDE, &packet);
    assert_eq!(lab.sealed(b"reply"), [(ip(NEW), 1)]);
    let first = lab.world.take(INSIDE);
    lab.terminals[0].address = ip(OLD);
    lab.up(1, OLD);
    assert_eq!(lab.update(update(1, OLD)), Some(Status::Done));
    lab.world.take(OUTSIDE);
    lab.world.send(INSIDE, &packet);
    assert_eq!(lab.world.take(INSIDE), first, "the same answer");
    assert_eq!(lab.sealed(b"reply"), []);
    assert_eq!(lab.down(OLD), Some((ip(OLD), 1)));
}

#[test]
fn a_home_agent_behind_a_tunnel_is_answered_through_it() {
    let site = Tunnel { selectors: vec![selector("10.99.0.1", AGENT)], ..tunnel(3, suite(SUITE)) };
    let mut lab = Lab::with(config_of(vec![follower(1), site]));
    let mut site = Terminal::new(3, suite(SUITE), "192.0.2.3");
    lab.sender.update(lab.world.now, update(1, OLD)).unwrap();
    let bytes = lab.sender.poll_transmit().unwrap();
    let packet = udp_packet(ip(AGENT), ip("10.99.0.1"), (5000, UDP_PORT), &bytes);
    lab.world.send(OUTSIDE, &site.seal(&packet));
    let answers = lab.world.take(OUTSIDE);
    let (_, _, answer, _) = site.open(&answers[0]);
    assert!(lab.sender.receive(lab.world.now, Datagram::parse(&answer).unwrap().payload).unwrap());
    // In clear it would not be let in.
    lab.world.send(INSIDE, &packet);
    assert_eq!(lab.world.drops(DropReason::Unprotected), 1);
}

/// Document 001, figure 2, with the protocol's own halves at both ends.
#[test]
fn a_terminal_roams_by_registrations_alone() {
    let mut lab = Lab::new();
    let association = || Association { spi: 300, algorithm: Algorithm::HmacSha256, key: vec![7; 32].into() };
    let (home, agent_address): (Ipv4Addr, Ipv4Addr) = (HOME.parse().unwrap(), AGENT.parse().unwrap());
    let replay = Replay::Timestamps(Duration::from_secs(7));
    let mut nodes = Nodes::default();
    assert!(nodes.add(Node { home, name: None, replay, associations: vec![association()] }));
    let settings = AgentSettings {
        address: agent_address,
        max_lifetime: 600,
        max_bindings: 1,
        reverse_tunnel: ReverseTunnel::Allowed,
        encapsulations: vec![],
        udp_tunnels: None,
        foreign_agents: [].into(),
    };
    let mut agent = HomeAgent::new(settings, nodes, [].into(), &Fixed(3));
    let settings = NodeSettings {
        home,
        name: None,
        agent: agent_address,
        association: association(),
        replay,
        lifetime: 300,
        flags: Flags { co_located: true, ..Flags::default() },
        udp_tunnel: None,
        first_wait: Duration::from_secs(1),
        tries: 3,
    };
    let mut node = MobileNode::new(settings, Box::new(Fixed(5)));
    let mut since_1970 = Duration::from_secs(1_800_000_000);
    for (i, care_of) in [OLD, NEW, "203.0.113.99", OLD].into_iter().enumerate() {
        since_1970 += Duration::from_secs(2);
        // The terminal changes its own SAs first, then registers through them.
        lab.terminals[0].address = ip(care_of);
        node.register(Now { steady: since_1970, since_1970 }, care_of.parse().unwrap());
        let request = udp_packet(ip(care_of), ip(AGENT), (40_000, MIP), &node.poll_transmit().unwrap());
        let sealed = lab.terminals[0].seal(&request);
        lab.world.send(OUTSIDE, &sealed);
        let arrived = lab.world.take(INSIDE).remove(0);
        let Datagram { src: SocketAddr::V4(from), payload, .. } = Datagram::parse(&arrived).unwrap() else {
            panic!("IPv4")
        };
        let decision = agent.decide(since_1970, payload, from).unwrap();
        let to: SocketAddrV4 = decision.to();
        let (reply, change) = decision.carry_out();
        let change = change.expect("it is somewhere else");
        let address = |bindings: &[wayfarer_mobility::mip::binding::Binding]| {
            bindings.first().map_or(Ipv4Addr::UNSPECIFIED, |binding| binding.care_of)
        };
        let update = Update {
            lifetime: 300,
            home: home.into(),
            old: address(&change.before).into(),
            new: address(&change.after).into(),
            link: vec![],
            reply: udp_packet(ip(AGENT), (*to.ip()).into(), (MIP, to.port()), &reply),
        };
        assert_eq!(lab.update(update), Some(Status::Done), "move {i}");
        let sent = lab.world.take(OUTSIDE);
        let (outer, _, inner, _) = lab.terminals[0].open(&sent[0]);
        assert_eq!(IpAddr::from(outer.dst), ip(care_of));
        node.handle_reply(Now { steady: since_1970, since_1970 }, Datagram::parse(&inner).unwrap().payload)
            .unwrap();
        let registered = matches!(node.poll_event(), Some(NodeEvent::Registered { care_of: at, .. }) if at.to_string() == care_of);
        assert!(registered, "move {i}");
        assert_eq!(lab.down(care_of), Some((ip(care_of), 1)));
    }
    assert_eq!(lab.sender.poll_event(), None::<Event>);
    assert_eq!(lab.shown().done, 4);
}
