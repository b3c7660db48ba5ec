//! Fuzzes a whole IKE endpoint from an authenticated peer.

use crate::sim::ike::{
    carrier,
    configured::ike,
    keys::LoggedKeys,
    side::{Side, to_gateway},
};
use std::{slice, sync::OnceLock, time::Duration};
use wayfarer_mobility::ike::{connection::Connection, event::Event, settings::Settings, wire::flags};

/// The maximum number of steps of one input.
const STEPS: usize = 48;
/// The maximum length of a message's body.
const MAX_LENGTH: usize = 4000;

/// Returns the connections of the gateway, the honest and the hostile terminal. They are read once,
/// because that needs files.
fn connections() -> &'static [Connection; 3] {
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
    CONNECTIONS.get_or_init(|| {
        let gateway = "remote_id = \"*.test\"\nlocal_id = \"gw.test\"\ninner_local = [\"10.99.0.0/24\"]\n\
                       inner_remote = [\"10.98.0.0/16\"]";
        [
            read(gateway, "203.0.113.1"),
            terminal("one.test", "10.98.1.0/24"),
            terminal("two.test", "10.98.2.0/24"),
        ]
    })
}

fn settings() -> Settings {
    Settings { log_keys: true, ..Settings::default() }
}

/// Carries messages between the gateway and a terminal until there are none. The gateway's messages
/// to other addresses are lost.
fn settle(now: Duration, gateway: &mut Side, terminal: &mut Side) {
    carrier::settle(now, gateway, slice::from_mut(terminal), carrier::straight);
}

/// Checks that another peer can still rekey, whatever an authenticated peer has sent within its IKE
/// SA and in clear.
///
/// The input is a list of steps: a byte for the kind of the step, two for the length of its bytes,
/// and the bytes.
pub fn ike_peer(mut data: &[u8]) {
    let mut now = Duration::from_secs(1000);
    let connections = connections();
    let [mut gateway, mut honest, mut hostile] =
        [0, 1, 2].map(|n| Side::new(vec![connections[n].clone()], settings(), n as u64));
    let addresses = [[192, 0, 2, 1], [192, 0, 2, 2]];
    for (side, address) in [(&mut honest, addresses[0]), (&mut hostile, addresses[1])] {
        side.at = Some(address.into());
        side.endpoint.dial(now, 0, address.into());
        settle(now, &mut gateway, side);
    }
    let mut keys = LoggedKeys::newest(&hostile.events);
    let (mut message_id, mut steps) = (2, 0);
    // The gateway accepts the peer's messages: an empty request is answered.
    let header = keys.header(37, flags::INITIATOR, message_id);
    for message in keys.seal(header, 0, vec![], None) {
        gateway.endpoint.handle_datagram(now, to_gateway(addresses[1], 4500), &message);
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
        let from = match kind & 16 {
            0 => addresses[1],
            _ => [192, 0, 2, bytes.first().copied().unwrap_or_default()],
        };
        let at = to_gateway(from, 4500);
        if kind & 64 != 0 {
            now += Duration::from_millis(100) * u32::from(bytes.first().copied().unwrap_or_default());
            gateway.endpoint.handle_timeout(now);
        } else if kind & 32 != 0 {
            gateway.endpoint.handle_datagram(now, at, bytes);
        } else {
            let (first, body) = bytes.split_first().map_or((0, bytes), |(first, body)| (*first, body));
            let (flags, id) =
                if is_response { (flags::RESPONSE, u32::from(kind >> 7)) } else { (0, message_id) };
            let header = keys.header(34 + (kind & 3), flags::INITIATOR | flags, id);
            let size = (kind & 8 != 0).then_some(600);
            for message in keys.seal(header, first, body.to_vec(), size) {
                gateway.endpoint.handle_datagram(now, at, &message);
            }
            message_id += u32::from(!is_response);
        }
        settle(now, &mut gateway, &mut honest);
    }
    let peer = honest.endpoint.peers().next().expect("the honest peer is still connected").id();
    honest.events.clear();
    honest.endpoint.rekey(now, peer, false);
    settle(now, &mut gateway, &mut honest);
    let has_new_keys = honest.events.iter().any(|event| matches!(event, Event::ChildUp { .. }));
    assert!(has_new_keys, "an honest peer cannot rekey: {:?}", honest.events);
}
