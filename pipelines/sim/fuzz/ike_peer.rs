//! Fuzzes a whole IKE endpoint from an authenticated peer.

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

/// The maximum number of steps of one input.
const STEPS: usize = 48;
/// The maximum length of a message's body.
const MAX_LENGTH: usize = 4000;

/// Returns the connections of the gateway, the honest and the hostile terminal. They are read once,
/// because that needs files.
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

/// Carries messages between the gateway and a terminal until there are none. The gateway's messages
/// to other addresses are lost.
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
    panic!("the exchange of messages does not end");
}

/// Checks that another peer can still rekey, whatever an authenticated peer has sent within its IKE
/// SA and in clear.
///
/// The input is a list of steps: a byte for the kind of the step, two for the length of its bytes,
/// and the bytes.
pub fn ike_peer(mut data: &[u8]) {
    let mut now = Duration::from_secs(1000);
    let [mut gateway, mut honest, mut hostile] =
        connections().map(|connection| Side::new(vec![connection], settings()));
    let addresses = [[192, 0, 2, 1], [192, 0, 2, 2]];
    for (side, address) in [(&mut honest, addresses[0]), (&mut hostile, addresses[1])] {
        side.endpoint.dial(now, 0, address.into());
        settle(now, &mut gateway, side, address);
    }
    let (spis, suite, keys) =
        hostile.events.iter().rev().find_map(keys_of).expect("the hostile peer is connected");
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
    // The gateway accepts the peer's messages: an empty request is answered.
    let at = Addresses {
        local: SocketAddr::from((GATEWAY, 4500)),
        remote: SocketAddr::from((addresses[1], 4500)),
    };
    for message in protection.seal(&OsRandom, header(37, 0, message_id), 0, vec![], None, &mut counter) {
        gateway.endpoint.handle_datagram(now, at, &message);
    }
    assert_eq!(gateway.work(now).len(), 1);
    message_id += 1;
    while let [kind, high, low, rest @ ..] = data
        && steps < STEPS
    {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()).min(MAX_LENGTH);
        let (bytes, rest) = rest.split_at(length);
        (data, steps) = (rest, steps + 1);
        let is_response = kind & 4 != 0;
        let from = SocketAddr::from(match kind & 16 {
            0 => (addresses[1], 4500),
            _ => ([192, 0, 2, bytes.first().copied().unwrap_or_default()], 4500),
        });
        let at = Addresses { local: SocketAddr::from((GATEWAY, 4500)), remote: from };
        if kind & 64 != 0 {
            now += Duration::from_millis(100) * u32::from(bytes.first().copied().unwrap_or_default());
            gateway.endpoint.handle_timeout(now);
        } else if kind & 32 != 0 {
            gateway.endpoint.handle_datagram(now, at, bytes);
        } else {
            let (first, body) = bytes.split_first().map_or((0, bytes), |(first, body)| (*first, body));
            let (flags, id) =
                if is_response { (flags::RESPONSE, u32::from(kind >> 7)) } else { (0, message_id) };
            let header = header(34 + (kind & 3), flags, id);
            let size = (kind & 8 != 0).then_some(600);
            for message in protection.seal(&OsRandom, header, first, body.to_vec(), size, &mut counter) {
                gateway.endpoint.handle_datagram(now, at, &message);
            }
            message_id += u32::from(!is_response);
        }
        settle(now, &mut gateway, &mut honest, addresses[0]);
    }
    let peer = honest.endpoint.peers().next().expect("the honest peer is still connected").id();
    honest.events.clear();
    honest.endpoint.rekey(now, peer, false);
    settle(now, &mut gateway, &mut honest, addresses[0]);
    let has_new_keys = honest.events.iter().any(|event| matches!(event, Event::ChildUp { .. }));
    assert!(has_new_keys, "an honest peer cannot rekey: {:?}", honest.events);
}

fn keys_of(event: &Event) -> Option<([u64; 2], IkeSuite, IkeSaKeys)> {
    let Event::IkeSaKeys { spis, suite, encr: [ei, er], integ: [ai, ar] } = event else { return None };
    let none = Secret::default;
    let (ei, er, ai, ar) = (ei.clone(), er.clone(), ai.clone(), ar.clone());
    Some((*spis, suite.clone(), IkeSaKeys { d: none(), ai, ar, ei, er, pi: none(), pr: none() }))
}
