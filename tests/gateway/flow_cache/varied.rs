//! Tunnels of every kind.

use super::gateway::{SERVERS, SERVERS6, Spec, inner, inner6, path};
use wayfarer::sim::fixtures::*;
use wayfarer_dataplane::{
    sa::{Df, Encap, Limits, PortRange, Rank, Selector},
    sharing::Sharing,
    table::Prefix,
    wire::ip::protocol,
};

/// The number of terminals.
pub(super) const TERMINALS: u32 = 24;

/// Returns the parameters of terminal `n`'s tunnel at the start. All kinds of tunnels occur.
pub(super) fn varied(n: u32) -> Spec {
    let usual = Spec::new(n);
    let suites =
        ["aes128gcm16", "aes256gcm16", "aes128gcm16", "chacha20poly1305", "aes128-sha256", "null-sha1"];
    let encap = match n % 2 {
        0 => Encap::None,
        _ => Encap::Udp { local: if n % 4 == 1 { 4500 } else { 14_500 }, remote: 40_000 + n as u16 },
    };
    let path = path(n, if n % 5 == 4 { 2 } else { n % 2 }, encap);
    let own = inner(n).to_string();
    let first = match n % 8 {
        1 => {
            let rank = Rank { local: 0, remote: 0, is_narrowed: true };
            Selector { rank, ..selector(SERVERS, &own) }
        }
        2 => selector("10.0.0.0/8", &own),
        3 | 7 => Selector::configured(
            SERVERS.parse().expect("a prefix"),
            Prefix::new(inner(n), 30).expect("a length of IPv4"),
        ),
        5 => {
            let remote_ports = PortRange { first: 1000, last: 1999 };
            Selector { protocol: Some(protocol::UDP), remote_ports, ..selector(SERVERS, &own) }
        }
        _ => selector(SERVERS, &own),
    };
    let limits = match n % 12 {
        6 => Limits { soft_packets: 40, hard_packets: 60, ..Limits::NONE },
        10 => Limits { soft_bytes: 20_000, hard_bytes: 30_000, ..Limits::NONE },
        _ => Limits::NONE,
    };
    let mut spec = Spec {
        suite: suite(suites[n as usize % suites.len()]),
        esn: n % 3 == 1,
        path,
        selectors: vec![first, selector(SERVERS6, &inner6(n).to_string())],
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
    if n.is_multiple_of(6) {
        spec.local = spec.path.local;
    }
    spec
}

/// Returns whether it matters which packets of a tunnel come first: it carries only so many.
pub(super) fn is_counted(spec: &Spec) -> bool {
    spec.limits != Limits::NONE || (!spec.esn && spec.sequence > 0)
}
