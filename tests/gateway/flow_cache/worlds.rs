//! The comparison of whole gateways, whose slow paths follow terminals and neighbours.

use std::{net::SocketAddr, time::Duration};
use wayfarer::{
    control::protocol::Command,
    sim::{fixtures::*, frames::*, random::Random, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    port::Mac,
    wire::{
        arp::{Arp, Operation},
        ethernet,
    },
};

const TERMINALS: u32 = 8;
const SUITE: &str = "aes128gcm16";
/// Packets of a burst.
const BURST: u64 = 16;

/// A gateway without a cache of flows and one with it, which get the same.
struct Twins {
    worlds: [World; 2],
    terminals: Vec<Terminal>,
    random: Random,
}

impl Twins {
    fn new(seed: u64) -> Self {
        let worlds = [0, 1 << 14].map(|flow_cache| {
            let mut config = config((1..=TERMINALS).map(|n| tunnel(n, suite(SUITE))).collect());
            config.gateway.flow_cache = flow_cache;
            let mut world = World::with(config, 512);
            world.meet_neighbours();
            world
        });
        let terminals = (1..=TERMINALS).map(|n| Terminal::new(n, suite(SUITE), &format!("192.0.2.{n}")));
        Self { worlds, terminals: terminals.collect(), random: Random(seed) }
    }

    /// Draws a terminal, by its number.
    fn draw_terminal(&mut self) -> u32 {
        1 + self.random.below(TERMINALS.into()) as u32
    }

    /// Draws an address and a UDP port of a terminal; 0 is no port.
    fn draw_address(&mut self) -> SocketAddr {
        let network = ["192.0.2", "198.51.100"][self.random.index(2)];
        let port = [0, 4500, 40_000, 40_001][self.random.index(4)];
        SocketAddr::new(ip(&format!("{network}.{}", 1 + self.random.below(100))), port)
    }

    /// Changes something at both gateways.
    fn change(&mut self) {
        let n = self.draw_terminal();
        match self.random.below(8) {
            0..3 => {
                let address = self.draw_address();
                self.terminals[n as usize - 1].send_from(address);
            }
            3 => {
                let mac = [2, 0, 0, 0, 3, self.random.next() as u8];
                let (port, station) =
                    [(OUTSIDE, [203, 0, 113, 254]), (INSIDE, [10, 99, 0, 7])][self.random.index(2)];
                self.worlds.iter_mut().for_each(|world| announce(world, port, station, mac));
            }
            4 => {
                let name = format!("t{n}");
                for world in &mut self.worlds {
                    world.assembly.slow_path.remove_tunnel(&name);
                }
            }
            5 => {
                let name = format!("t{n}");
                for world in &mut self.worlds {
                    if world.assembly.slow_path.tunnels().named(&name).is_none() {
                        world.assembly.slow_path.install_tunnel(&tunnel(n, suite(SUITE))).unwrap();
                        self.terminals[n as usize - 1].seq = 0;
                    }
                }
            }
            6 => {
                let (tunnel, address) = (format!("t{n}"), self.draw_address());
                for world in &mut self.worlds {
                    let port = Some(address.port()).filter(|port| *port > 0);
                    world.ask(Command::SaMove { tunnel: tunnel.clone(), remote: address.ip(), port });
                }
            }
            _ => {
                let (port, is_down) = (self.random.index(2), self.random.percent(30));
                self.worlds.iter().for_each(|world| world.assembly.handles[0].rings.set_down(port, is_down));
            }
        }
    }

    /// Sends the same packets to both gateways, in one burst. Returns those that come out of each.
    fn burst(&mut self) -> [Vec<Vec<u8>>; 2] {
        for serial in 0..BURST {
            let n = self.draw_terminal();
            let (server, is_v6) = (7 + self.random.below(3), self.random.percent(30));
            // IPv6 packets of each length fit into one outer packet too.
            let (inner, server, longest) = match is_v6 {
                true => (format!("fd00:98::{n:x}"), format!("fd00:99::{server:x}"), 1200),
                false => (format!("10.98.0.{n}"), format!("10.99.0.{server}"), 1400),
            };
            let payload = [&serial.to_be_bytes()[..], &vec![7; self.random.index(longest)][..]].concat();
            let (port, packet) = match self.random.below(10) {
                0..4 => (INSIDE, datagram(&server, &inner, (53, 1000 + n as u16), &payload)),
                4..8 => {
                    let packet = datagram(&inner, &server, (1000 + n as u16, 53), &payload);
                    (OUTSIDE, self.terminals[n as usize - 1].seal(&packet))
                }
                8 => (INSIDE, ip_packet(ip(&server), ip(&inner), 47, &payload)),
                _ => {
                    let packet = ip_packet(ip(&inner), ip(&server), 47, &payload);
                    (OUTSIDE, self.terminals[n as usize - 1].seal(&packet))
                }
            };
            self.worlds.iter_mut().for_each(|world| world.put(port, &packet));
        }
        self.settle()
    }

    /// Lets both gateways come to rest. Returns what has come out of each, in order of its bytes.
    fn settle(&mut self) -> [Vec<Vec<u8>>; 2] {
        let Self { worlds, terminals, .. } = self;
        let terminals: &[Terminal] = terminals;
        worlds.each_mut().map(|world| {
            world.settle();
            let mut all: Vec<_> = [OUTSIDE, INSIDE]
                .into_iter()
                .flat_map(|port| std::mem::take(&mut world.out[port]))
                .map(|frame| opened(&frame, terminals))
                .collect();
            all.sort_unstable();
            all
        })
    }

    /// Asserts that the same has come out of both gateways, and that both have counted the same.
    fn assert_same(&self, [without, with]: [Vec<Vec<u8>>; 2], what: &str) {
        assert!(without == with, "{what}:\n{without:02x?}, not\n{with:02x?}");
        let [a, b] = self.worlds.each_ref().map(|world| {
            let counters = world.counters();
            let counts = [&counters.sealed, &counters.opened, &counters.sent, &counters.punted];
            (world.all_drops(), counts.map(|counter| counter.value()))
        });
        assert_eq!(a, b, "{what}");
    }
}

/// Returns a frame of the gateway, with its ESP packet opened if it has one.
fn opened(frame: &[u8], terminals: &[Terminal]) -> Vec<u8> {
    let (head, packet) = frame.split_at(ethernet::HEADER);
    match terminals.iter().find_map(|terminal| terminal.try_open(packet)) {
        Some((_, _, plain, next_header)) => {
            let (ends, _) = endpoints(packet).expect("an IP packet");
            [head, format!("{ends:?} {next_header}").as_bytes(), &plain[..]].concat()
        }
        None => frame.to_vec(),
    }
}

/// Has a station tell the gateway its MAC address.
fn announce(world: &mut World, port: usize, station: [u8; 4], mac: Mac) {
    let own = if port == OUTSIDE { [203, 0, 113, 1] } else { [10, 99, 0, 1] };
    let request = Arp {
        operation: Operation::Request,
        sender_mac: mac,
        sender: station.into(),
        target_mac: [0; 6],
        target: own.into(),
    };
    assert!(world.wires[port].send(&request.frame(ethernet::BROADCAST)));
}

#[test]
fn whole_gateways_send_the_same_with_and_without_remembered_flows() {
    for seed in 1..=3 {
        let mut twins = Twins::new(seed);
        for round in 0..200 {
            if round % 2 == 0 && round % 40 < 20 {
                twins.change();
                // So that peers may move again.
                twins.worlds.iter_mut().for_each(|world| world.pass(Duration::from_millis(250)));
                let out = twins.settle();
                twins.assert_same(out, &format!("seed {seed}, change {round}"));
            }
            let out = twins.burst();
            twins.assert_same(out, &format!("seed {seed}, burst {round}"));
        }
        let sealed = twins.worlds[1].counters().sealed.value();
        assert!(sealed > 200, "only {sealed} packets were sealed");
        let [without, with] = twins.worlds.each_ref().map(|world| world.counters().flow_hits.value());
        assert!(without == 0 && with > 0, "{without} and {with} hits");
    }
}

#[test]
fn neighbours_that_fall_silent_and_come_back_are_noticed_alike() {
    let mut twins = Twins::new(4);
    for round in 0..3 {
        for _ in 0..4 {
            let out = twins.burst();
            twins.assert_same(out, &format!("round {round}"));
        }
        // Neighbours are asked again after 30 seconds, and given up 3 seconds later.
        for world in &mut twins.worlds {
            world.answer_neighbours = false;
            world.pass(Duration::from_secs(40));
        }
        let out = twins.burst();
        twins.assert_same(out, &format!("silent, round {round}"));
        twins.worlds.iter_mut().for_each(|world| world.pass(Duration::from_secs(10)));
        let out = twins.settle();
        twins.assert_same(out, &format!("given up, round {round}"));
        twins.worlds.iter_mut().for_each(|world| world.answer_neighbours = true);
    }
    let out = twins.burst();
    assert!(out[1].len() > 1, "{:?}", twins.worlds[1].all_drops());
    twins.assert_same(out, "at the end");
}
