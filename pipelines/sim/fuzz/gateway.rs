//! Fuzzes a whole gateway: workers, and the slow path with IKE enabled. It has a NAT outside, a port in a
//! VLAN of the device outside, and a home agent inside.

use super::mobile;
use crate::config::model::{Config, Ike, Nat, Policy, PolicyAction, Remote};
use crate::launch::OpenPort;
use crate::sim::{fixtures::*, frames::*, ike::configured::for_terminals, terminal::Terminal, world::World};
use std::{cell::RefCell, sync::OnceLock, time::Duration};
use wayfarer_dataplane::{
    port::{
        memory::Wire,
        vlan::{self, Priority, Tagging},
    },
    sa::Mode,
    wire::{
        checksum, esp,
        ip::{IpHeader, V4_HEADER, protocol},
        udp,
        vlan::Vlan,
    },
};

/// The maximum number of steps of one input.
const STEPS: usize = 32;
/// The number of fuzzer inputs that one gateway gets.
const INPUTS: u32 = 100;
/// The maximum length of a frame or payload.
const MAX_LENGTH: usize = 1900;
/// The maximum length of what is put on the wire in fragments.
const MAX_WHOLE: usize = 9000;
/// The address outside of the NAT.
const OUTER: &str = "203.0.113.1";
/// The first port outside of the NAT.
const FIRST: u16 = 20_000;
/// The VLAN of the third port.
const VLAN: u8 = 100;

/// Checks that another tunnel's traffic still passes, whatever the gateway has received in frames
/// or in authentic ESP.
///
/// The input is a list of steps: a byte for the kind of the step, two for the length of its bytes,
/// and the bytes.
pub fn gateway(data: &[u8]) {
    run(data, || World::on(settings(), with_vlan(open_ports(1, 512))));
}

/// Checks the same if the inside is the host's own stack.
pub fn gateway_host(data: &[u8]) {
    run(data, || World::on(settings(), with_vlan(open_host_ports(512))));
}

/// A gateway and its terminals, reused by several inputs.
struct Setup {
    world: World,
    terminals: [Terminal; 4],
    /// Inputs that the gateway has had.
    inputs: u32,
}

impl Setup {
    fn new(mut world: World) -> Self {
        world.meet_neighbours();
        let suites = suites();
        let terminal =
            |n: u8| Terminal::new(n.into(), suites[usize::from(n - 1) % 3], &format!("192.0.2.{n}"));
        Self { world, terminals: [1, 2, 3, 4].map(terminal), inputs: 0 }
    }
}

thread_local! {
    /// A gateway for several inputs of the fuzzer: making one takes longer than most inputs.
    static SETUP: RefCell<Option<Setup>> = const { RefCell::new(None) };
}

fn run(data: &[u8], world: impl FnOnce() -> World) {
    let mut setup = SETUP.take().unwrap_or_else(|| Setup::new(world()));
    run_steps(data, &mut setup.world, &mut setup.terminals);
    setup.inputs += 1;
    if cfg!(fuzzing) && setup.inputs < INPUTS {
        SETUP.set(Some(setup));
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
    let mut config = config(vec![wide, transport, tunnel(3, suites[2]), mobile::follower(suites[0])]);
    mobile::add_home_agents(&mut config);
    let policy = |action, local, remote| Policy { action, selector: selector(local, remote) };
    config.policies = vec![
        policy(PolicyAction::Bypass, "0.0.0.0/0", "198.51.100.0/24"),
        policy(PolicyAction::Discard, "0.0.0.0/0", "203.0.113.0/28"),
        policy(PolicyAction::Bypass, "::/0", "2001:db8:7::/48"),
    ];
    config.ike = key_exchange();
    let timeout = Duration::from_secs(2);
    config.nats = vec![Nat {
        inside: vec!["10.98.0.0/16".parse().expect("a prefix")],
        port: OUTSIDE,
        address: OUTER.parse().expect("an address"),
        ports: FIRST..=FIRST + 31,
        mappings: 16,
        udp_timeout: timeout,
        tcp_timeout: timeout,
        tcp_transitory_timeout: timeout,
        icmp_timeout: timeout,
    }];
    config
}

/// Adds a port in a VLAN of the device outside.
fn with_vlan((mut ports, wires): (Vec<OpenPort>, [Vec<Wire>; 2])) -> (Vec<OpenPort>, [Vec<Wire>; 2]) {
    let vlan = Vlan::new(None, VLAN.into()).expect("a VLAN");
    let tagging = Tagging { vlan, priority: Priority::Fixed(0), sets_dscp: false };
    let mut tagged = bare_port(OUTSIDE, ports[OUTSIDE].stations, vec![]);
    tagged.name = "tagged".to_owned();
    tagged.addresses = vec![(ip("198.51.100.1"), "198.51.100.0/24".parse().expect("a prefix"))];
    let device = std::mem::take(&mut ports[OUTSIDE].queues);
    ports.push(tagged);
    for (port, part) in [OUTSIDE, 2].into_iter().zip(vlan::divide(device, None, &[None, Some(tagging)])) {
        ports[port].queues = part.queues;
    }
    (ports, wires)
}

/// Returns the configuration for terminals with a shared key. It is read once, because that needs
/// files.
fn key_exchange() -> Ike {
    static CONNECTIONS: OnceLock<Ike> = OnceLock::new();
    let read = CONNECTIONS.get_or_init(|| {
        for_terminals("10.97.0.0/24", "inner_local = [\"10.99.0.0/24\"]\npool = \"terminals\"")
    });
    Ike { connections: read.connections.clone(), pools: read.pools.clone(), ..Ike::default() }
}

fn suites() -> [wayfarer_dataplane::crypto::Suite; 3] {
    ["aes128gcm16", "aes256-sha256", "null-sha1"].map(suite)
}

fn run_steps(mut data: &[u8], world: &mut World, peers: &mut [Terminal; 4]) {
    let mut steps = 0;
    while let [kind, high, low, rest @ ..] = data
        && steps < STEPS
    {
        let most = if kind >> 4 & 3 == 3 { MAX_WHOLE } else { MAX_LENGTH };
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()).min(most);
        let (bytes, rest) = rest.split_at(length);
        (data, steps) = (rest, steps + 1);
        if let (2, shape @ 4..) = (kind >> 4 & 3, kind % 8) {
            mobile::send(world, shape, &mut peers[3], bytes);
            if kind & 0x80 == 0 {
                world.settle();
            }
            continue;
        }
        let peer = &mut peers[usize::from(kind / 8 % 2)];
        peer.port = (kind & 0x40 != 0).then_some(4500);
        match (kind >> 4 & 3, kind % 8) {
            (1, shape) => send_shaped(world, shape, bytes),
            (2, shape @ 0..=3) => send_translated(world, shape, peer, bytes),
            (3, shape) => send_fragments(world, shape, peer, bytes),
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
        if kind & 0x80 == 0 {
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

/// Puts the bytes on a wire with valid outer headers, so that they get further.
fn send_shaped(world: &mut World, shape: u8, bytes: &[u8]) {
    let (from, gateway) = ("192.0.2.9", "203.0.113.1");
    match shape {
        0 => world.put(OUTSIDE, &datagram(from, gateway, (500, esp::IKE_PORT), &with_true_length(bytes))),
        1 => {
            let marked = [&esp::NON_ESP_MARKER[..], &with_true_length(bytes)].concat();
            world.put(OUTSIDE, &datagram(from, gateway, (4500, esp::NAT_T_PORT), &marked));
        }
        // A datagram whose header has the length that the first two bytes say.
        2 | 3 => {
            let [high, low, rest @ ..] = bytes else { return };
            let port = if shape == 2 { esp::IKE_PORT } else { esp::NAT_T_PORT };
            let mut packet = datagram(from, gateway, (port, port), rest);
            packet[V4_HEADER + 4..V4_HEADER + 6].copy_from_slice(&[*high, *low]);
            packet[V4_HEADER + 6..V4_HEADER + udp::HEADER].fill(0);
            world.put(OUTSIDE, &packet);
        }
        4 => world.put(OUTSIDE, &with_valid_header(bytes)),
        5 => world.put(INSIDE, &with_valid_header(bytes)),
        6 => world.put(OUTSIDE, &datagram("2001:db8::9", "2001:db8:1::1", (9, esp::IKE_PORT), bytes)),
        _ => {
            let length = bytes.first().copied().unwrap_or_default();
            world.pass(Duration::from_millis(u64::from(length) * 16));
        }
    }
}

/// Puts a packet on the wire outside that the NAT may translate, or that is in a VLAN. It is between the
/// first terminal and a server, which is in that VLAN too or is not.
fn send_translated(world: &mut World, shape: u8, peer: &mut Terminal, bytes: &[u8]) {
    let [kind, number, rest @ ..] = bytes else { return };
    let (terminal, port) = ("10.98.0.1", FIRST + u16::from(number % 32));
    let server = if number & 0x20 == 0 { "192.0.2.200" } else { "198.51.100.9" };
    let [src, dst] = if shape == 0 { [terminal, server] } else { [server, OUTER] };
    // A datagram, or any other protocol with the rest as its payload.
    let packet = match kind {
        0..0x80 if shape == 0 => datagram(src, dst, (port, 53), rest),
        0..0x80 => datagram(src, dst, (53, port), rest),
        _ => ip_packet(ip(src), ip(dst), [protocol::ICMP, protocol::TCP][usize::from(kind % 2)], rest),
    };
    match shape {
        0 => {
            let sealed = peer.seal(&packet);
            world.put(OUTSIDE, &sealed);
        }
        1 => world.put(OUTSIDE, &packet),
        _ => {
            let packet = if shape == 2 { packet } else { with_valid_header(bytes) };
            let mut tagged = to_gateway(OUTSIDE, &packet);
            tagged.splice(12..12, [0x81, 0, 0, VLAN]);
            world.wires[OUTSIDE].send(&tagged);
        }
    }
}

/// Puts fragments on the wire outside: of authentic ESP, of IKE, or with any fields.
fn send_fragments(world: &mut World, shape: u8, peer: &mut Terminal, bytes: &[u8]) {
    let [size, order, rest @ ..] = bytes else { return };
    let (from, gateway) = ("192.0.2.9", "203.0.113.1");
    let whole = match shape {
        0 | 1 => {
            peer.seq += 1;
            peer.seal_as(rest, 4, peer.seq)
        }
        2 => datagram(from, gateway, (500, esp::IKE_PORT), &with_true_length(rest)),
        3 => datagram("2001:db8::9", "2001:db8:1::1", (500, esp::IKE_PORT), &with_true_length(rest)),
        4 => datagram(from, gateway, (53, 53), rest),
        5 => peer.wrap(rest),
        // Identification, field of the offset, and the rest.
        _ => {
            let [id, high, low, part @ ..] = rest else { return };
            let protocol = if shape == 6 { protocol::UDP } else { protocol::ESP };
            let packet = if order & 1 == 0 {
                let mut packet = ip_packet(ip(from), ip(gateway), protocol, part);
                packet[4..8].copy_from_slice(&[0, *id, *high, *low]);
                with_valid_header(&packet)
            } else {
                let part = [&[protocol, 0, *high, *low, 0, 0, 0, *id][..], part].concat();
                ip_packet(ip("2001:db8::9"), ip("2001:db8:1::1"), protocol::FRAGMENT, &part)
            };
            world.wires[OUTSIDE].send(&to_gateway(OUTSIDE, &packet));
            return;
        }
    };
    let mut pieces = fragments(&whole, 72 + usize::from(*size) * 8, u16::from(order / 8));
    let first = usize::from(*order) % pieces.len().max(1);
    pieces.rotate_left(first);
    if order & 0x80 != 0 {
        pieces.pop();
    }
    for piece in pieces {
        // What does not fit on the wire is lost.
        world.wires[OUTSIDE].send(&to_gateway(OUTSIDE, &piece));
    }
}

/// Writes the message's true length to its IKE header, because others are dropped early.
fn with_true_length(bytes: &[u8]) -> Vec<u8> {
    let mut message = bytes.to_vec();
    if let Some(length) = message.get_mut(24..28) {
        length.copy_from_slice(&(bytes.len() as u32).to_be_bytes());
    }
    message
}

/// Writes true length and checksum to an IPv4 header, if the bytes have room for one.
fn with_valid_header(bytes: &[u8]) -> Vec<u8> {
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
            // Over IPv4, no UDP checksum is as good as a valid one.
            packet[header..].get_mut(6..8).into_iter().for_each(|sum| sum.fill(0));
        }
    }
    packet
}
