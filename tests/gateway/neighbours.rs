//! Static neighbours: packets to them wait for nobody's answer.

use std::time::Duration;
use wayfarer::{
    config::model::{Config, Neighbour, Remote},
    control::protocol::{Command, NeighbourView, Outcome, Reply, View},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
    slow_path::NewConfig,
};
use wayfarer_dataplane::{
    port::Mac,
    wire::{
        arp::{Arp, Operation},
        ethernet,
    },
};

const SUITE: &str = "aes128gcm16";
/// The MAC addresses of stations by port, as the configuration has them. The stations themselves have
/// others.
const CONFIGURED: [Mac; 2] = [[2, 0, 0, 0, 7, 0], [2, 0, 0, 0, 7, 1]];

/// Makes static neighbours of both families at both ports, with these MAC addresses.
fn neighbours(macs: [Mac; 2]) -> Vec<Neighbour> {
    let all = [
        (OUTSIDE, "203.0.113.254"),
        (OUTSIDE, "2001:db8:1::fe"),
        (INSIDE, "10.99.0.7"),
        (INSIDE, "fd00:99::7"),
    ];
    all.map(|(port, address)| Neighbour { port, address: ip(address), mac: macs[port] }).into()
}

/// Makes a configuration with static neighbours and a tunnel over each family, and the terminals.
fn configured() -> (Config, [Terminal; 2]) {
    let terminals =
        [(1, "192.0.2.1"), (2, "2001:db8:2::2")].map(|(n, address)| Terminal::new(n, suite(SUITE), address));
    let mut tunnels = vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))];
    for (tunnel, terminal) in tunnels.iter_mut().zip(&terminals) {
        tunnel.local = terminal.gateway;
        tunnel.remote = Remote::At(terminal.address, 4500);
    }
    (Config { neighbours: neighbours(CONFIGURED), ..config(tunnels) }, terminals)
}

fn world() -> (World, [Terminal; 2]) {
    let (config, terminals) = configured();
    (World::with(config, 512), terminals)
}

/// Turns the gateway until it is idle. Returns all frames that left by each port, requests for neighbours
/// among them, which nobody answers.
fn frames(world: &mut World) -> [Vec<Vec<u8>>; 2] {
    loop {
        let mut busy = world.assembly.workers[0].0.turn();
        busy |= world.assembly.slow_path.turn(world.now);
        if !busy {
            break;
        }
    }
    [OUTSIDE, INSIDE].map(|port| std::iter::from_fn(|| world.wires[port].receive(<[u8]>::to_vec)).collect())
}

/// Puts two packets on each wire, one of each family.
fn put(world: &mut World, terminals: &mut [Terminal; 2]) {
    let ends = [("10.98.0.1", "10.99.0.7"), ("fd00:98::2", "fd00:99::7")];
    for (terminal, (inner, server)) in terminals.iter_mut().zip(ends) {
        world.put(OUTSIDE, &terminal.seal(&datagram(inner, server, (1000, 53), b"question")));
        world.put(INSIDE, &datagram(server, inner, (53, 1000), b"answer"));
    }
}

/// Has two packets go each way. Returns the MAC addresses that all that left by each port was sent to.
fn exchange(world: &mut World, terminals: &mut [Terminal; 2]) -> [Vec<Mac>; 2] {
    put(world, terminals);
    receivers(&frames(world))
}

fn receivers(frames: &[Vec<Vec<u8>>; 2]) -> [Vec<Mac>; 2] {
    frames.each_ref().map(|frames| frames.iter().map(|frame| frame[..6].try_into().unwrap()).collect())
}

/// Two frames to each of these.
fn two_to(macs: [Mac; 2]) -> [Vec<Mac>; 2] {
    macs.map(|mac| vec![mac; 2])
}

/// Has the gateway use these static neighbours instead of its earlier ones.
fn reload(world: &mut World, neighbours: Vec<Neighbour>) {
    let (done, is_done) = crossbeam::channel::bounded(1);
    world.assembly.new_config.send(NewConfig { neighbours, ike: Box::default(), done }).unwrap();
    world.assembly.slow_path.turn(world.now);
    assert_eq!(is_done.try_recv(), Ok(()));
}

/// Has a station at `port` ask for the gateway, which tells its own addresses.
fn ask(world: &mut World, port: usize, sender: [u8; 4], sender_mac: Mac) {
    let target = [[203, 0, 113, 1], [10, 99, 0, 1]][port];
    let request = Arp {
        operation: Operation::Request,
        sender_mac,
        sender: sender.into(),
        target_mac: [0; 6],
        target: target.into(),
    };
    assert!(world.wires[port].send(&request.frame(ethernet::BROADCAST)));
}

fn shown(world: &mut World) -> Vec<NeighbourView> {
    match world.ask(Command::Show { what: View::Neighbours }).outcome {
        Outcome::Result(Reply::Neighbours(all)) => all,
        other => panic!("{other:?}"),
    }
}

#[test]
fn static_neighbours_are_never_asked_for() {
    let (mut world, mut terminals) = world();
    for _ in 0..3 {
        assert_eq!(exchange(&mut world, &mut terminals), two_to(CONFIGURED), "{:?}", world.all_drops());
        // Long after any station would have been asked again.
        world.now += Duration::from_secs(3600);
        assert_eq!(receivers(&frames(&mut world)), [const { Vec::<Mac>::new() }; 2]);
    }
}

#[test]
fn what_a_station_says_does_not_change_a_static_neighbour() {
    let (mut world, mut terminals) = world();
    let liar = [4; 6];
    ask(&mut world, OUTSIDE, [203, 0, 113, 254], liar);
    ask(&mut world, INSIDE, [10, 99, 0, 7], liar);
    // It is answered at the address that it has asked from.
    assert_eq!(receivers(&frames(&mut world)), [vec![liar], vec![liar]]);
    assert_eq!(exchange(&mut world, &mut terminals), two_to(CONFIGURED));
}

#[test]
fn reload_changes_static_neighbours_and_takes_them_back() {
    let (mut world, mut terminals) = world();
    // Twice, so that the flows are remembered.
    for _ in 0..2 {
        assert_eq!(exchange(&mut world, &mut terminals), two_to(CONFIGURED));
    }
    let others = [[2, 0, 0, 0, 8, 0], [2, 0, 0, 0, 8, 1]];
    reload(&mut world, neighbours(others));
    for _ in 0..2 {
        assert_eq!(exchange(&mut world, &mut terminals), two_to(others));
    }
    reload(&mut world, vec![]);
    assert_eq!(shown(&mut world), []);
    put(&mut world, &mut terminals);
    let requests = frames(&mut world);
    for (port, requests) in requests.iter().enumerate() {
        assert_eq!(requests.len(), 2, "one for each family");
        for request in requests {
            let reply = answer_neighbour(request, STATION_MAC[port]).expect("a request");
            assert!(world.wires[port].send(&reply));
        }
    }
    // The packets have waited for the answers.
    assert_eq!(receivers(&frames(&mut world)), two_to(STATION_MAC));
    assert_eq!(world.all_drops(), []);
    // From learned to static.
    reload(&mut world, neighbours(CONFIGURED));
    assert_eq!(exchange(&mut world, &mut terminals), two_to(CONFIGURED));
}

#[test]
fn neighbours_are_shown_with_their_origin() {
    let (mut world, _) = world();
    ask(&mut world, INSIDE, [10, 99, 0, 8], STATION_MAC[INSIDE]);
    let line = |port: &str, address: &str, mac: &str, origin: &str| NeighbourView {
        port: port.into(),
        address: address.into(),
        mac: mac.into(),
        origin: origin.into(),
    };
    assert_eq!(
        shown(&mut world),
        [
            line("outside", "203.0.113.254", "02:00:00:00:07:00", "static"),
            line("outside", "2001:db8:1::fe", "02:00:00:00:07:00", "static"),
            line("inside", "10.99.0.7", "02:00:00:00:07:01", "static"),
            line("inside", "10.99.0.8", "02:00:00:00:00:21", "learned"),
            line("inside", "fd00:99::7", "02:00:00:00:07:01", "static"),
        ]
    );
    let answer = world.ask(Command::Show { what: View::Ports });
    let Outcome::Result(Reply::Ports(ports)) = answer.outcome else { panic!("{answer:?}") };
    assert_eq!(ports.iter().map(|port| port.neighbours).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn the_only_station_of_a_port_gets_what_is_for_static_neighbours() {
    let (config, mut terminals) = configured();
    let mut world = World::on(config, open_host_ports(512));
    put(&mut world, &mut terminals);
    assert_eq!(receivers(&frames(&mut world)), two_to([CONFIGURED[OUTSIDE], STATION_MAC[INSIDE]]));
    assert!(shown(&mut world).iter().all(|neighbour| neighbour.port == "outside"));
}
