//! Tunnels of every kind.

use super::gateway::{GATEWAY6, SERVERS, SERVERS6, Spec, inner, inner6, path};
use wayfarer::sim::fixtures::*;
use wayfarer_dataplane::{
    sa::{Df, Encap, Limits, Mode, PortRange, Rank, Selector},
    sharing::Sharing,
    table::Prefix,
    wire::ip::protocol,
};

/// The number of terminals.
pub(super) const TERMINALS: u32 = 24;

/// Returns whether the tunnel of terminal `n` is in transport mode.
fn is_transport(n: u32) -> bool {
    matches!(n, 7 | 12 | 17 | 18 | 20)
}

/// Returns the parameters of terminal `n`'s tunnel at the start. All kinds of tunnels occur.
pub(super) fn varied(n: u32) -> Spec {
    let suites =
        ["aes128gcm16", "aes256gcm16", "aes128gcm16", "chacha20poly1305", "aes128-sha256", "null-sha1"];
    let (address, has_udp) = match n {
        12 => (1, true),
        17 => (2, false),
        20 => (2, true),
        7 | 18 => (0, false),
        _ if n % 5 == 4 => (2, n % 2 == 1),
        _ => (n % 2, n % 2 == 1),
    };
    let local = if n % 4 == 1 { 4500 } else { 14_500 };
    let encap = if has_udp { Encap::Udp { local, remote: 40_000 + n as u16 } } else { Encap::None };
    let path = path(n, address, encap);
    let usual = if is_transport(n) { Spec::transport(n, path) } else { Spec::new(n) };
    let limits = match n % 12 {
        6 => Limits { soft_packets: 40, hard_packets: 60, ..Limits::NONE },
        10 => Limits { soft_bytes: 20_000, hard_bytes: 30_000, ..Limits::NONE },
        _ => Limits::NONE,
    };
    let mut spec = Spec {
        suite: suite(suites[n as usize % suites.len()]),
        esn: n % 3 == 1,
        path,
        limits,
        sequence: if matches!(n % 12, 1 | 8) { u64::from(u32::MAX) - 40 } else { 0 },
        tfc: if n % 12 == 9 { 300 } else { 0 },
        outer_fragments: n % 12 == 4,
        is_pinned: n % 12 == 11,
        sharing: if n.is_multiple_of(4) { Sharing::Many } else { Sharing::One },
        ..usual
    };
    spec.marking.dscp = (n % 4 == 1).then_some(46);
    spec.marking.df = [Df::Copy, Df::Set, Df::Clear][n as usize / 3 % 3];
    spec.marking.udp6_checksum = n != 19;
    if n.is_multiple_of(6) {
        spec.local = spec.path.local;
    }
    if spec.mode == Mode::Tunnel {
        spec.selectors = selectors(n);
    }
    spec
}

/// Returns the selectors of terminal `n` in tunnel mode. The first one is for IPv4.
fn selectors(n: u32) -> Vec<Selector> {
    let (own, own6) = (inner(n).to_string(), inner6(n).to_string());
    let usual = [selector(SERVERS, &own), selector(SERVERS6, &own6)];
    match n % 8 {
        1 => {
            let rank = Rank { local: 0, remote: 0, is_narrowed: true };
            usual.map(|selector| Selector { rank, ..selector }).into()
        }
        2 => vec![selector("10.0.0.0/8", &own), selector("fd00::/16", &own6)],
        3 | 7 => [(SERVERS, inner(n), 30), (SERVERS6, inner6(n), 112)]
            .map(|(servers, own, length)| {
                let remote = Prefix::new(own, length).expect("a length of its family");
                Selector::configured(servers.parse().expect("a prefix"), remote)
            })
            .into(),
        5 => {
            let remote_ports = PortRange { first: 1000, last: 1999 };
            let protocol = Some(protocol::UDP);
            usual.map(|selector| Selector { protocol, remote_ports, ..selector }).into()
        }
        // The host's own stack too.
        6 => {
            let host = [selector(&GATEWAY.to_string(), &own), selector(&GATEWAY6.to_string(), &own6)];
            usual.into_iter().chain(host).collect()
        }
        _ => usual.into(),
    }
}

/// Returns whether it matters which packets of a tunnel come first: it carries only so many.
pub(super) fn is_counted(spec: &Spec) -> bool {
    spec.limits != Limits::NONE || (!spec.esn && spec.sequence > 0)
}
