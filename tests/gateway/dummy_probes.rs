//! The MTU outside of links with keys by hand, on paths whose routers say nothing: what two gateways find
//! by dummy packets, and what other peers and strangers get of these.

use crate::path_mtu::{in_udp, report};
use std::time::Duration;
use wayfarer::{
    config::model::{Encapsulation, PathProbing, Remote, Tunnel},
    control::protocol::{Command, Outcome, Reply, SaView, View},
    log::{Format, recorded},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    drop::DropReason::*,
    sa::{Df, Mode},
    wire::{
        ip::{IpHeader, protocol},
        probe::{self, Kind, Probe},
    },
};

const SECOND: Duration = Duration::from_secs(1);
/// The outer addresses of two gateways, by family, and a host and the network behind each.
const OUTER: [[&str; 2]; 2] = [["203.0.113.1", "203.0.113.2"], ["2001:db8:1::1", "2001:db8:1::2"]];
const HOSTS: [&str; 2] = ["10.99.0.7", "10.98.0.7"];
const NETS: [&str; 2] = ["10.99.0.0/24", "10.98.0.0/24"];

/// Two gateways and the path between them, whose routers drop what is longer than its MTU.
struct Pair {
    gateways: [World; 2],
    mtu: usize,
    /// The lengths of the packets that each has sent.
    sent: [Vec<usize>; 2],
}

impl Pair {
    /// Connects two gateways over IPv4 or IPv6 by a tunnel in UDP.
    fn new(mtu: usize, outer: [&str; 2]) -> Self {
        let cipher = suite("aes128gcm16");
        let gateway = |ours: usize| {
            let theirs = 1 - ours;
            let from = |end: usize| sa(0x1000 + end as u32, cipher, end as u32);
            let tunnel = Tunnel {
                local: ip(outer[ours]),
                remote: Remote::At(ip(outer[theirs]), 4500),
                encap: Encapsulation::Udp(4500),
                path_probing: PathProbing::Udp,
                selectors: vec![selector(NETS[ours], NETS[theirs])],
                ..bare_tunnel("pair".into(), from(theirs), from(ours))
            };
            let (mut ports, wires) = open_ports(1, 512);
            if ours == 1 {
                let subnet = |text: &str| text.parse().unwrap();
                ports[OUTSIDE].addresses = vec![
                    (ip(OUTER[0][1]), subnet("203.0.113.0/24")),
                    (ip(OUTER[1][1]), subnet("2001:db8:1::/64")),
                ];
                ports[INSIDE].addresses = vec![(ip("10.98.0.1"), subnet(NETS[1]))];
            }
            World::on(config(vec![tunnel]), (ports, wires))
        };
        Self { gateways: [gateway(0), gateway(1)], mtu, sent: Default::default() }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.gateways[0].now + time;
        while self.gateways[0].now < end {
            self.gateways.iter_mut().for_each(|gateway| gateway.pass(SECOND / 20));
            self.carry();
        }
    }

    /// Lets time pass, in which data flows both ways.
    fn pass_with_data(&mut self, time: Duration) {
        for _ in 0..time.as_secs() * 4 {
            self.pass(SECOND / 4);
            for from in [0, 1] {
                let data = datagram(HOSTS[from], HOSTS[1 - from], (1, 2), b"data");
                self.gateways[from].send(INSIDE, &data);
            }
            self.carry();
        }
    }

    fn carry(&mut self) {
        loop {
            let mut is_idle = true;
            for from in [0, 1] {
                for packet in self.gateways[from].take(OUTSIDE) {
                    self.sent[from].push(packet.len());
                    if packet.len() <= self.mtu {
                        self.gateways[1 - from].put(OUTSIDE, &packet);
                        is_idle = false;
                    }
                }
                self.gateways[1 - from].settle();
            }
            if is_idle {
                return;
            }
        }
    }

    /// Returns what both gateways show of the path.
    fn found(&mut self) -> [(Option<u16>, Option<String>); 2] {
        self.gateways.each_mut().map(found)
    }

    /// Sends a packet that must not be cut from the host behind one gateway. Returns the outer packet, or
    /// the MTU that its sender is told.
    fn send(&mut self, from: usize, length: usize) -> Result<Vec<u8>, usize> {
        let gateway = &mut self.gateways[from];
        gateway.take(INSIDE);
        gateway.send(INSIDE, &datagram(HOSTS[from], HOSTS[1 - from], (1, 2), &vec![7; length - 28]));
        match (gateway.take(OUTSIDE).pop(), gateway.take(INSIDE).pop()) {
            (Some(outer), None) => Ok(outer),
            (None, Some(answer)) => Err(u16::from_be_bytes([answer[26], answer[27]]).into()),
            other => panic!("{other:?} {:?}", gateway.all_drops()),
        }
    }
}

fn found(gateway: &mut World) -> (Option<u16>, Option<String>) {
    match gateway.ask(Command::Show { what: View::Sa }).outcome {
        Outcome::Result(Reply::Sa(mut all)) => {
            let SaView { path_mtu, path_mtu_source, .. } = all.remove(0);
            (path_mtu, path_mtu_source)
        }
        other => panic!("{other:?}"),
    }
}

/// Makes a gateway with a tunnel whose path is probed, and the terminal at its other end.
fn with_terminal(change: impl Fn(&mut Tunnel)) -> (World, Terminal) {
    let cipher = suite("aes128gcm16");
    let mut tunnel = tunnel(1, cipher);
    tunnel.remote = Remote::At(ip("192.0.2.1"), 4500);
    tunnel.path_probing = PathProbing::Udp;
    in_udp(&mut tunnel);
    change(&mut tunnel);
    let mut terminal = Terminal::new(1, cipher, "192.0.2.1");
    terminal.port = (tunnel.encap != Encapsulation::None).then_some(4500);
    let mut world = match tunnel.mode {
        Mode::Tunnel => World::new(vec![tunnel]),
        Mode::Transport => World::host(vec![tunnel]),
    };
    world.settle();
    (world, terminal)
}

fn over_transport(tunnel: &mut Tunnel) {
    tunnel.mode = Mode::Transport;
    tunnel.selectors = vec![selector("203.0.113.1", "192.0.2.1")];
}

/// Seals a payload as a dummy packet of a terminal.
fn dummy(terminal: &mut Terminal, payload: &[u8]) -> Vec<u8> {
    terminal.seq += 1;
    terminal.seal_as(payload, protocol::NONE, terminal.seq)
}

/// Seals a probe or an answer of a terminal.
fn probe_of(terminal: &mut Terminal, kind: Kind, token: u64) -> Vec<u8> {
    let mut payload = [0; probe::LEN];
    Probe { kind, token }.emit(&mut payload);
    dummy(terminal, &payload)
}

/// Reads a probe or an answer to a terminal.
fn read(terminal: &Terminal, packet: &[u8]) -> (IpHeader, Probe) {
    let (outer, _, payload, next) = terminal.open(packet);
    assert_eq!(next, protocol::NONE);
    (outer, Probe::parse(&payload).unwrap())
}

#[test]
fn both_gateways_find_the_mtu_of_a_silent_path() {
    for outer in OUTER {
        let mut pair = Pair::new(1400, outer);
        pair.pass(20 * SECOND);
        assert_eq!(pair.found(), [(); 2].map(|()| (Some(1400), Some("probe".to_owned()))));
        for from in [0, 1] {
            let told = pair.send(from, 1400).unwrap_err();
            let fits = pair.send(from, told).unwrap();
            assert!((1397..=1400).contains(&fits.len()), "{told} makes {}", fits.len());
            assert_eq!(pair.gateways[from].drops(Dummy), 0);
        }
        // The path takes more again, which is noticed although nothing is sent.
        pair.mtu = 1500;
        pair.pass(70 * SECOND);
        assert_eq!(pair.found(), [(); 2].map(|()| (None, None)));
        assert!(pair.send(0, 1400).is_ok());
    }
}

#[test]
fn path_that_takes_all_costs_a_few_packets_once() {
    let mut pair = Pair::new(1500, OUTER[0]);
    pair.pass(300 * SECOND);
    for sent in &pair.sent {
        let long: Vec<usize> = sent.iter().copied().filter(|length| *length > 100).collect();
        assert!(matches!(long[..], [1497..=1500]) && sent.len() == 4, "{sent:?}");
    }
    assert_eq!(pair.found(), [(); 2].map(|()| (None, None)));
}

#[test]
fn path_that_gets_smaller_is_noticed_while_data_flows() {
    let mut pair = Pair::new(1500, OUTER[0]);
    pair.pass_with_data(5 * SECOND);
    pair.mtu = 1300;
    pair.pass_with_data(90 * SECOND);
    assert_eq!(pair.found(), [(); 2].map(|()| (Some(1300), Some("probe".to_owned()))));
}

#[test]
fn reports_of_routers_are_checked() {
    let mut pair = Pair::new(1500, OUTER[0]);
    pair.pass(5 * SECOND);
    // Somebody on the way reports what is not true.
    let outer = pair.send(0, 1400).unwrap();
    pair.gateways[0].send(OUTSIDE, &report(&outer, 600, 16));
    assert_eq!(pair.found()[0], (Some(600), Some("router".to_owned())));
    pair.pass(75 * SECOND);
    assert_eq!(pair.found()[0], (None, None));
    assert_eq!(pair.gateways[0].slow_drops(PathMtu), 0);
}

#[test]
fn report_that_shows_too_little_only_starts_probes() {
    let mut pair = Pair::new(1500, OUTER[0]);
    pair.pass(15 * SECOND);
    let outer = pair.send(0, 1400).unwrap();
    pair.mtu = 1400;
    pair.gateways[0].send(OUTSIDE, &report(&outer, 1300, 8));
    assert_eq!(pair.found()[0], (None, None));
    pair.pass(25 * SECOND);
    assert_eq!(pair.found()[0], (Some(1400), Some("probe".to_owned())));
    assert_eq!(pair.gateways[0].slow_drops(PathMtu), 0);
}

/// Most other programs drop dummy packets.
#[test]
fn peer_that_answers_nothing_gets_a_few_short_packets() {
    let (mut world, terminal) = with_terminal(|_| {});
    world.pass(30 * SECOND);
    let sent = world.take(OUTSIDE);
    assert_eq!(sent.len(), 3);
    for packet in &sent {
        assert!(packet.len() < 110, "{}", packet.len());
        assert_eq!(read(&terminal, packet).1.kind, Kind::Request);
    }
    world.pass(300 * SECOND);
    assert_eq!(world.take(OUTSIDE).len(), 0, "an idle link is not woken");
    assert_eq!(found(&mut world), (None, None));
}

/// Returns the event and the MTU of each line that is logged about probes during `act`.
fn lines(act: impl FnOnce()) -> Vec<(String, Option<u64>)> {
    let text = recorded(Format::Json, act);
    let all = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let of = |line: serde_json::Value| Some((line["event"].as_str()?.to_owned(), line["mtu"].as_u64()));
    all.filter_map(of).filter(|(event, _)| event.starts_with("path_mtu")).collect()
}

#[test]
fn log_has_what_was_found_and_once_that_a_peer_does_not_answer() {
    let both = lines(|| Pair::new(1400, OUTER[0]).pass(20 * SECOND));
    assert_eq!(both, [(); 2].map(|()| ("path_mtu".to_owned(), Some(1400))));
    for is_there in [true, false] {
        let all = lines(|| {
            let (mut world, mut terminal) = with_terminal(|_| {});
            world.meet_neighbours();
            for _ in 0..200 {
                world.pass(SECOND);
                world.send(INSIDE, &datagram("10.99.0.7", "10.98.0.1", (2, 1), &[7; 500]));
                if is_there {
                    let up = terminal.seal(&datagram("10.98.0.1", "10.99.0.7", (1, 2), b"up"));
                    world.send(OUTSIDE, &up);
                }
            }
            let hellos = world.take(OUTSIDE).iter().filter(|packet| packet.len() < 110).count();
            assert!((6..=9).contains(&hellos), "{hellos}: it was asked more than once");
        });
        let told: Option<(String, Option<u64>)> = is_there.then(|| ("path_mtu_unknown".to_owned(), None));
        assert_eq!(all, Vec::from_iter(told));
    }
}

#[test]
fn probes_go_whole_and_may_not_be_cut() {
    let kinds: [fn(&mut Tunnel); 3] = [|_| {}, |tunnel| tunnel.df = Df::Set, over_transport];
    for change in kinds {
        let (mut world, mut terminal) = with_terminal(change);
        world.pass(SECOND);
        let hello = world.take(OUTSIDE).pop().unwrap();
        let (_, Probe { token, .. }) = read(&terminal, &hello);
        // Nobody but the peer knows the token.
        let other = probe_of(&mut terminal, Kind::Answer, token ^ 1);
        world.send(OUTSIDE, &other);
        assert!(world.take(OUTSIDE).is_empty());
        let answer = probe_of(&mut terminal, Kind::Answer, token);
        world.send(OUTSIDE, &answer);
        let long = world.take(OUTSIDE).pop().unwrap();
        let (outer, probe) = read(&terminal, &long);
        assert_eq!((outer.dont_fragment, probe.kind, probe.token == token), (true, Kind::Request, false));
        assert!((1497..=1500).contains(&long.len()), "{}", long.len());
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn only_paths_that_are_to_be_probed_are() {
    let plain = |tunnel: &mut Tunnel| {
        tunnel.encap = Encapsulation::None;
        tunnel.remote = Remote::At(ip("192.0.2.1"), 0);
    };
    let sends = |change: &dyn Fn(&mut Tunnel)| {
        let (mut world, _) = with_terminal(change);
        world.pass(2 * SECOND);
        !world.take(OUTSIDE).is_empty()
    };
    assert!(sends(&|_| {}) && !sends(&plain));
    assert!(sends(&|tunnel| {
        plain(tunnel);
        tunnel.path_probing = PathProbing::Always;
    }));
    assert!(!sends(&|tunnel| tunnel.path_probing = PathProbing::Off));
    // Routers cut its packets.
    assert!(!sends(&|tunnel| tunnel.df = Df::Clear));
    assert!(!sends(&|tunnel| tunnel.remote = Remote::Any), "nobody knows where the peer is");
}

/// A terminal that may be anywhere is found by its first packet.
#[test]
fn path_is_probed_once_it_is_known() {
    let (mut world, mut terminal) = with_terminal(|tunnel| tunnel.remote = Remote::Any);
    world.pass(2 * SECOND);
    let first = terminal.seal(&datagram("10.98.0.1", "10.99.0.7", (1, 2), b"up"));
    world.send(OUTSIDE, &first);
    assert!(world.take(OUTSIDE).is_empty());
    world.pass(SECOND);
    let hello = world.take(OUTSIDE).pop().unwrap();
    let (outer, probe) = read(&terminal, &hello);
    assert_eq!((outer.dst, probe.kind), (ip("192.0.2.1").into(), Kind::Request));
}

#[test]
fn probes_are_answered_and_other_dummy_packets_are_dropped() {
    let (mut world, mut terminal) = with_terminal(|tunnel| tunnel.path_probing = PathProbing::Off);
    let request = probe_of(&mut terminal, Kind::Request, 0x0102_0304);
    world.send(OUTSIDE, &request);
    let answer = world.take(OUTSIDE).pop().unwrap();
    let (_, probe) = read(&terminal, &answer);
    assert_eq!(probe, Probe { kind: Kind::Answer, token: 0x0102_0304 });
    assert!(answer.len() < 110 && world.take(INSIDE).is_empty());
    world.send(OUTSIDE, &request);
    assert_eq!(world.all_drops(), [(ReplayDuplicate, 1)]);
    let mut unknown = [0; probe::LEN];
    probe.emit(&mut unknown);
    unknown[16] = 77;
    for payload in [&unknown[..], &unknown[..16], &[0; 100], &[]] {
        let packet = dummy(&mut terminal, payload);
        world.send(OUTSIDE, &packet);
    }
    assert_eq!((world.drops(Dummy), world.take(OUTSIDE).len()), (4, 0));
    // It has asked for no answer.
    let answer = probe_of(&mut terminal, Kind::Answer, 7);
    world.send(OUTSIDE, &answer);
    assert_eq!((world.slow_drops(Dummy), world.take(OUTSIDE).len()), (1, 0));
}

#[test]
fn flood_of_probes_is_bounded_and_disturbs_nobody() {
    let (mut world, mut terminal) = with_terminal(|tunnel| tunnel.path_probing = PathProbing::Off);
    world.meet_neighbours();
    let (floods, each) = (10, 200);
    for token in 0..floods * each {
        let request = probe_of(&mut terminal, Kind::Request, token);
        world.put(OUTSIDE, &request);
        if token % each == each - 1 {
            let up = terminal.seal(&datagram("10.98.0.1", "10.99.0.7", (1, 2), b"up"));
            world.send(OUTSIDE, &up);
            assert_eq!(world.take(INSIDE).len(), 1, "{:?}", world.all_drops());
        }
    }
    let answers = world.take(OUTSIDE).len() as u64;
    assert!((1..=8).contains(&answers), "{answers} in one moment");
    let refused = world.drops(PuntRingFull) + world.slow_drops(SlowPathLimit);
    assert_eq!(answers + refused, floods * each);
}
