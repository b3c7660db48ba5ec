//! A whole gateway: workers, and the slow path behind them with key exchange on.

use crate::config::model::{Config, Ike, Policy, PolicyAction, Remote};
use crate::sim::{fixtures::*, frames::*, ike::configured::for_terminals, terminal::Terminal, world::World};
use std::{cell::RefCell, sync::OnceLock, time::Duration};
use wayfarer_dataplane::{
    sa::Mode,
    wire::{
        checksum, esp,
        ip::{IpHeader, V4_HEADER, protocol},
        udp,
    },
};

/// Most steps of one input.
const STEPS: usize = 32;
/// Inputs of the fuzzer for one gateway.
const INPUTS: u32 = 100;
/// Longest frame or payload.
const LONGEST: usize = 1900;

/// A gateway between its ports: whatever comes in, in a frame or within authentic ESP, the traffic
/// of another tunnel passes afterwards.
///
/// The input is a list of steps: a byte that says what its bytes are, two of their length, and
/// they.
pub fn gateway(data: &[u8]) {
    run(data, || World::with(settings(), 512));
}

/// The same where the inside is the host's own stack.
pub fn gateway_host(data: &[u8]) {
    run(data, || World::on(settings(), open_host_ports(512)));
}

/// A gateway and its terminals.
struct Scene {
    world: World,
    terminals: [Terminal; 3],
    /// Inputs that it has seen.
    inputs: u32,
}

impl Scene {
    fn new(mut world: World) -> Self {
        world.meet_neighbours();
        let suites = suites();
        let terminal = |n: u8| Terminal::new(n.into(), suites[usize::from(n) - 1], &format!("192.0.2.{n}"));
        Self { world, terminals: [1, 2, 3].map(terminal), inputs: 0 }
    }
}

thread_local! {
    /// To make a gateway takes longer than most inputs do, so that the fuzzer gives each some of
    /// them.
    static SCENE: RefCell<Option<Scene>> = const { RefCell::new(None) };
}

fn run(data: &[u8], world: impl FnOnce() -> World) {
    let mut scene = SCENE.take().unwrap_or_else(|| Scene::new(world()));
    play(data, &mut scene.world, &mut scene.terminals);
    scene.inputs += 1;
    if cfg!(fuzzing) && scene.inputs < INPUTS {
        SCENE.set(Some(scene));
    }
}

fn settings() -> Config {
    let suites = suites();
    let mut transport = tunnel(2, suites[1]);
    transport.mode = Mode::Transport;
    transport.remote = Remote::At(ip("192.0.2.2"), 4500);
    transport.selectors = vec![selector("203.0.113.1", "192.0.2.2")];
    let mut wide = tunnel(1, suites[0]);
    wide.selectors.push(selector("0.0.0.0/0", "10.98.0.1"));
    let mut config = config(vec![wide, transport, tunnel(3, suites[2])]);
    let policy = |action, local, remote| Policy { action, selector: selector(local, remote) };
    config.policies = vec![
        policy(PolicyAction::Bypass, "0.0.0.0/0", "198.51.100.0/24"),
        policy(PolicyAction::Discard, "0.0.0.0/0", "203.0.113.0/28"),
        policy(PolicyAction::Bypass, "::/0", "2001:db8:7::/48"),
    ];
    config.ike = key_exchange();
    config
}

/// Terminals may connect with a shared key. Read once: it needs files.
fn key_exchange() -> Ike {
    static CONNECTIONS: OnceLock<Ike> = OnceLock::new();
    let read = CONNECTIONS.get_or_init(|| {
        for_terminals("10.97.0.0/24", "inner_local = [\"10.99.0.0/24\"]\npool = \"terminals\"")
    });
    Ike {
        connections: read
            .connections
            .iter()
            .map(|c| crate::config::model::Connection { protocol: c.protocol.clone(), ..*c })
            .collect(),
        pools: read.pools.clone(),
        ..Ike::default()
    }
}

fn suites() -> [wayfarer_dataplane::crypto::Suite; 3] {
    ["aes128gcm16", "aes256-sha256", "null-sha1"].map(suite)
}

fn play(mut data: &[u8], world: &mut World, peers: &mut [Terminal; 3]) {
    let mut steps = 0;
    while let [what, high, low, rest @ ..] = data
        && steps < STEPS
    {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()).min(LONGEST);
        let (bytes, rest) = rest.split_at(length);
        (data, steps) = (rest, steps + 1);
        let peer = &mut peers[usize::from(what / 8 % 2)];
        peer.port = (what & 0x40 != 0).then_some(4500);
        match (what >> 4 & 3, what % 8) {
            (1, kind) => shaped(world, kind, bytes),
            (_, 0) => drop(world.wires[OUTSIDE].send(bytes)),
            (_, 1) => drop(world.wires[INSIDE].send(bytes)),
            (_, 2) => world.put(OUTSIDE, bytes),
            (_, 3) => world.put(INSIDE, bytes),
            (_, 4) => world.put(OUTSIDE, &peer.wrap(bytes)),
            (_, next) => {
                peer.seq += 1;
                let next = [4, 41, bytes.first().copied().unwrap_or(59)][usize::from(next) - 5];
                let sealed = peer.seal_as(bytes, next, peer.seq);
                world.put(OUTSIDE, &sealed);
            }
        }
        // Some steps share a burst.
        if what & 0x80 == 0 {
            world.settle();
        }
    }
    world.settle();
    world.out = Default::default();
    let good = datagram("10.98.0.3", "10.99.0.7", (1, 2), b"good");
    let sealed = peers[2].seal(&good);
    world.send(OUTSIDE, &sealed);
    let out = world.take(INSIDE);
    assert!(out.contains(&forwarded(&good)), "a good packet is lost: {:?}", world.all_drops());
}

/// Puts on a wire what has sound outer headers, so that the bytes get further.
fn shaped(world: &mut World, kind: u8, bytes: &[u8]) {
    let (from, gateway) = ("192.0.2.9", "203.0.113.1");
    match kind {
        0 => world.put(OUTSIDE, &datagram(from, gateway, (500, esp::IKE_PORT), &true_length(bytes))),
        1 => {
            let marked = [&esp::NON_ESP_MARKER[..], &true_length(bytes)].concat();
            world.put(OUTSIDE, &datagram(from, gateway, (4500, esp::NAT_T_PORT), &marked));
        }
        // A datagram whose own length is what its first two bytes say.
        2 | 3 => {
            let [high, low, rest @ ..] = bytes else { return };
            let port = if kind == 2 { esp::IKE_PORT } else { esp::NAT_T_PORT };
            let mut packet = datagram(from, gateway, (port, port), rest);
            packet[V4_HEADER + 4..V4_HEADER + 6].copy_from_slice(&[*high, *low]);
            packet[V4_HEADER + 6..V4_HEADER + udp::HEADER].fill(0);
            world.put(OUTSIDE, &packet);
        }
        4 => world.put(OUTSIDE, &sound(bytes)),
        5 => world.put(INSIDE, &sound(bytes)),
        6 => world.put(OUTSIDE, &datagram("2001:db8::9", "2001:db8:1::1", (9, esp::IKE_PORT), bytes)),
        _ => {
            let length = bytes.first().copied().unwrap_or_default();
            world.pass(Duration::from_millis(u64::from(length) * 16));
        }
    }
}

/// An IKE message whose header says its true length, or little else would be seen.
fn true_length(bytes: &[u8]) -> Vec<u8> {
    let mut message = bytes.to_vec();
    if let Some(length) = message.get_mut(24..28) {
        length.copy_from_slice(&(bytes.len() as u32).to_be_bytes());
    }
    message
}

/// An IPv4 packet with true length and checksum, if it can have them.
fn sound(bytes: &[u8]) -> Vec<u8> {
    let mut packet = bytes.to_vec();
    let header = usize::from(packet.first().copied().unwrap_or_default() & 0xf) * 4;
    if packet.first().is_some_and(|first| first >> 4 == 4) && (V4_HEADER..=packet.len()).contains(&header) {
        let total = packet.len() as u16;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[10..12].fill(0);
        let sum = checksum::of(&packet[..header]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        if let Ok(outer) = IpHeader::parse(&packet)
            && outer.protocol == protocol::UDP
        {
            // None over IPv4 is as good as a right one.
            packet[header..].get_mut(6..8).into_iter().for_each(|sum| sum.fill(0));
        }
    }
    packet
}
