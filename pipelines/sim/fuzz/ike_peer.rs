//! A whole IKE endpoint and an authenticated peer that sends it anything.

use crate::{
    primitives::{OsRandom, Primitives},
    sim::ike::{
        configured::ike,
        connections::GATEWAY,
        side::{Side, reversed},
    },
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
    time::Duration,
};
use wayfarer_mobility::{
    crypto::Secret,
    ike::{
        connection::Connection,
        event::Event,
        protection::Protection,
        schedule::IkeSaKeys,
        settings::Settings,
        suite::IkeSuite,
        wire::{self, Header, flags},
    },
    path::Addresses,
};

/// Most steps of one input.
const STEPS: usize = 48;
/// Longest body of a message.
const LONGEST: usize = 4000;

/// The gateway's connection and those of the honest and the hostile terminal. Read once: it needs
/// files.
fn connections() -> [Connection; 3] {
    static CONNECTIONS: OnceLock<[Connection; 3]> = OnceLock::new();
    let read = |keys: &str, address: &str| {
        let text = format!("[[connection]]\nname = \"x\"\nauth = \"psk\"\npsk_file = \"$PSK\"\n{keys}");
        ike(&text, address).connections.remove(0).protocol
    };
    let terminal = |name: &str, inner: &str| {
        let keys = format!(
            "remote = \"203.0.113.1\"\nremote_id = \"gw.test\"\nlocal_id = \"{name}\"\n\
             inner_local = [\"{inner}\"]\ninner_remote = [\"10.99.0.0/24\"]"
        );
        read(&keys, "192.0.2.250")
    };
    let all = CONNECTIONS.get_or_init(|| {
        let gateway = "remote_id = \"*.test\"\nlocal_id = \"gw.test\"\ninner_local = [\"10.99.0.0/24\"]\n\
                       inner_remote = [\"10.98.0.0/16\"]";
        [
            read(gateway, "203.0.113.1"),
            terminal("one.test", "10.98.1.0/24"),
            terminal("two.test", "10.98.2.0/24"),
        ]
    });
    all.clone()
}

fn settings() -> Settings {
    Settings { log_keys: true, ..Settings::default() }
}

/// Carries messages between the gateway and a terminal until there are none; what the gateway sends
/// elsewhere is lost.
fn settle(now: Duration, gateway: &mut Side, terminal: &mut Side, address: [u8; 4]) {
    for _ in 0..100 {
        let (up, down) = (terminal.work(now), gateway.work(now));
        if up.is_empty() && down.is_empty() {
            return;
        }
        for (addresses, message) in up {
            gateway.endpoint.handle_datagram(now, reversed(addresses), &message);
        }
        for (addresses, message) in down.into_iter().filter(|(a, _)| a.remote.ip() == IpAddr::from(address)) {
            terminal.endpoint.handle_datagram(now, reversed(addresses), &message);
        }
    }
    panic!("they talk without end");
}

/// Whatever an authenticated peer sends within its IKE SA, and in clear beside it, another peer
/// changes its keys afterwards.
///
/// The input is a list of steps: a byte that says what its bytes are, two of their length, and
/// they.
pub fn ike_peer(mut data: &[u8]) {
    let mut now = Duration::from_secs(1000);
    let [mut gateway, mut honest, mut hostile] =
        connections().map(|connection| Side::new(vec![connection], settings()));
    let addresses = [[192, 0, 2, 1], [192, 0, 2, 2]];
    for (side, address) in [(&mut honest, addresses[0]), (&mut hostile, addresses[1])] {
        side.endpoint.dial(now, 0, address.into());
        settle(now, &mut gateway, side, address);
    }
    let (spis, suite, keys) = hostile.events.iter().rev().find_map(keys_of).expect("it is connected");
    let (mut message_id, mut counter, mut steps) = (2, 1 << 40, 0);
    let header = |exchange, flags, message_id| Header {
        spi_i: spis[0],
        spi_r: spis[1],
        next: 0,
        version: wire::VERSION,
        exchange,
        flags: flags::INITIATOR | flags,
        message_id,
        length: 0,
    };
    let protection = Protection { crypto: &Primitives, suite: &suite, keys: &keys, from_initiator: true };
    // It is heard: an empty request is answered.
    let at = Addresses {
        local: SocketAddr::from((GATEWAY, 4500)),
        remote: SocketAddr::from((addresses[1], 4500)),
    };
    for message in protection.seal(&OsRandom, header(37, 0, message_id), 0, vec![], None, &mut counter) {
        gateway.endpoint.handle_datagram(now, at, &message);
    }
    assert_eq!(gateway.work(now).len(), 1);
    message_id += 1;
    while let [what, high, low, rest @ ..] = data
        && steps < STEPS
    {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()).min(LONGEST);
        let (bytes, rest) = rest.split_at(length);
        (data, steps) = (rest, steps + 1);
        let is_response = what & 4 != 0;
        let from = SocketAddr::from(match what & 16 {
            0 => (addresses[1], 4500),
            _ => ([192, 0, 2, bytes.first().copied().unwrap_or_default()], 4500),
        });
        let at = Addresses { local: SocketAddr::from((GATEWAY, 4500)), remote: from };
        if what & 64 != 0 {
            now += Duration::from_millis(100) * u32::from(bytes.first().copied().unwrap_or_default());
            gateway.endpoint.handle_timeout(now);
        } else if what & 32 != 0 {
            gateway.endpoint.handle_datagram(now, at, bytes);
        } else {
            let (first, body) = bytes.split_first().map_or((0, bytes), |(first, body)| (*first, body));
            let (flags, id) =
                if is_response { (flags::RESPONSE, u32::from(what >> 7)) } else { (0, message_id) };
            let header = header(34 + (what & 3), flags, id);
            let size = (what & 8 != 0).then_some(600);
            for message in protection.seal(&OsRandom, header, first, body.to_vec(), size, &mut counter) {
                gateway.endpoint.handle_datagram(now, at, &message);
            }
            message_id += u32::from(!is_response);
        }
        settle(now, &mut gateway, &mut honest, addresses[0]);
    }
    let peer = honest.endpoint.peers().next().expect("it is still connected").id();
    honest.events.clear();
    honest.endpoint.rekey(now, peer, false);
    settle(now, &mut gateway, &mut honest, addresses[0]);
    let has_new_keys = honest.events.iter().any(|event| matches!(event, Event::ChildUp { .. }));
    assert!(has_new_keys, "an honest peer cannot change its keys: {:?}", honest.events);
}

fn keys_of(event: &Event) -> Option<([u64; 2], IkeSuite, IkeSaKeys)> {
    let Event::IkeSaKeys { spis, suite, encr: [ei, er], integ: [ai, ar] } = event else { return None };
    let none = Secret::default;
    let (ei, er, ai, ar) = (ei.clone(), er.clone(), ai.clone(), ar.clone());
    Some((*spis, suite.clone(), IkeSaKeys { d: none(), ai, ar, ei, er, pi: none(), pr: none() }))
}
