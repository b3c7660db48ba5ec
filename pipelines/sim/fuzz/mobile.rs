//! Messages and tunnels of Mobile IP for a whole gateway that is fuzzed.

use crate::{
    config::model::{
        Config, Home, HomeAgent, HomeTerminal, Policy, PolicyAction, Roam, SharedKey, Siu, Tunnel,
    },
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, SystemTime},
};
use wayfarer_dataplane::{
    crypto::Suite,
    wire::{
        encapsulation::{Encapsulation, Ends},
        ip::IpHeader,
    },
};
use wayfarer_mobility::mip::{
    agent::ReverseTunnel,
    association::{Algorithm, Association, Replay},
    siu::UDP_PORT,
    wire::{self, Body, Flags, Identification, Parties, Request},
};

/// The home agent of the gateway.
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// A home agent elsewhere.
const OTHER: &str = "10.99.0.8";
/// The terminal's home address.
const HOME: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 4);
const SECRET: [u8; 32] = [7; 32];

/// Returns the tunnel of the fourth terminal, which follows the gateway's home agent.
pub(super) fn follower(suite: Suite) -> Tunnel {
    let home = Home { agent: AGENT.into(), address: HOME.into() };
    let selectors = vec![selector("10.99.0.1", "0.0.0.0/0")];
    Tunnel { selectors, roam: Roam::HomeAgent, home: Some(home), ..tunnel(4, suite) }
}

/// Adds the home agents of a gateway.
pub(super) fn add_home_agents(config: &mut Config) {
    let terminal = HomeTerminal {
        home: HOME,
        nai: None,
        spi: 300,
        algorithm: Algorithm::HmacSha256,
        secret: SECRET.to_vec().into(),
        replay: Replay::Timestamps(Duration::from_secs(1 << 30)),
    };
    config.home_agent = Some(HomeAgent {
        address: AGENT,
        network: "10.96.0.0/24".parse().expect("a prefix"),
        store: None,
        lifetime: u16::MAX,
        reverse_tunnel: ReverseTunnel::Allowed,
        encapsulations: vec![wire::Encapsulation::Gre, wire::Encapsulation::Minimal],
        terminals: vec![terminal],
    });
    let bypass = |local, remote| Policy { selector: selector(local, remote), action: PolicyAction::Bypass };
    config.policies.extend([bypass("10.99.0.0/24", "10.96.0.0/24"), bypass("10.96.0.0/24", "10.99.0.0/24")]);
    let key = SharedKey { number: 1, secret: SECRET.to_vec().into() };
    config.siu = vec![Siu { name: "other".into(), address: ip(OTHER), key }];
}

/// Sends a registration, an update or a packet of a tunnel. The first byte says which and how.
pub(super) fn send(world: &mut World, shape: u8, terminal: &mut Terminal, bytes: &[u8]) {
    let [how, rest @ ..] = bytes else { return };
    let care_of = Ipv4Addr::new(192, 0, 2, 4 + how % 4);
    if how & 0x80 == 0 {
        terminal.address = care_of.into();
    }
    terminal.port = (how & 0x40 != 0).then_some(4500);
    match shape {
        4 => {
            let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let flag = |bit: u8| how & bit != 0;
            let request = Request {
                flags: Flags {
                    gre: flag(8),
                    minimal: flag(16),
                    reverse_tunnel: flag(32),
                    ..Flags::default()
                },
                lifetime: rest.first().map_or(300, |seconds| u16::from(*seconds)),
                home: HOME,
                agent: AGENT,
                care_of,
                identification: Identification::at(since_1970),
            };
            let mut message = Body::Request(request).emit();
            message.extend(rest.get(1..).unwrap_or_default());
            register(world, terminal, care_of, message);
        }
        5 => register(world, terminal, care_of, rest.to_vec()),
        6 => {
            let mut message = [b"SIU\x01\x01\0\0\0\0\0\0\x01", rest].concat();
            let length = (message.len() + 32) as u16;
            message[6..8].copy_from_slice(&length.to_be_bytes());
            SharedKey { number: 1, secret: SECRET.to_vec().into() }.authenticate(&mut message);
            world.put(INSIDE, &udp_packet(ip(OTHER), AGENT.into(), (9, UDP_PORT), &message));
        }
        _ => {
            let encapsulation =
                [Encapsulation::IpInIp, Encapsulation::Gre, Encapsulation::Minimal][usize::from(how / 8 % 3)];
            let inner = datagram(&HOME.to_string(), "10.99.0.7", (1, 2), rest);
            let Ok(header) = IpHeader::parse(&inner) else { return };
            let Some(overhead) = encapsulation.overhead(&header, care_of) else { return };
            let mut packet = [vec![0; overhead], inner].concat();
            encapsulation.wrap(&mut packet, &header, Ends { src: care_of, dst: AGENT }, 1);
            if how & 0x20 != 0 {
                // Any bytes where the tunnel's inside is.
                let at = packet.len() - rest.len().min(packet.len() - 20);
                let room = packet.len() - at;
                packet[at..].copy_from_slice(&rest[..room]);
            }
            let sealed = terminal.seal(&packet);
            world.put(OUTSIDE, &sealed);
            world.put(INSIDE, &datagram("10.99.0.7", &HOME.to_string(), (2, 1), rest));
        }
    }
}

/// Sends a message to the home agent, with a true authenticator.
fn register(world: &mut World, terminal: &mut Terminal, care_of: Ipv4Addr, mut message: Vec<u8>) {
    let association = Association { spi: 300, algorithm: Algorithm::HmacSha256, key: SECRET.to_vec().into() };
    association.authenticate(&mut message, Parties::MobileHome);
    let packet = udp_packet(IpAddr::from(care_of), AGENT.into(), (40_000, 434), &message);
    let sealed = terminal.seal(&packet);
    world.put(OUTSIDE, &sealed);
}
