//! From what IKE agreed on to what the data plane installs.

use super::DataPlane;
use crate::config::model::{self, Encapsulation, Remote, Roam};
use std::net::IpAddr;
use wayfarer_dataplane::{
    crypto::Suite,
    sa::{Df, Encap, Mode, Path, PortRange, Selector, Spi},
    table::Prefix,
    wire::ip::protocol,
};
use wayfarer_mobility::{
    ike::{
        self, bounds,
        event::ChildSa,
        suite::{Encr, EspSuite, Integ},
        wire::TrafficSelector,
    },
    roaming::Policy,
};

/// The tunnel of a pair of child SAs, called `name`; `None` where the data plane cannot do what was agreed on.
pub(super) fn tunnel(name: String, sa: &ChildSa, connection: &DataPlane) -> Option<model::Tunnel> {
    let cipher = suite(&sa.suite)?;
    let path = path(sa.path);
    let (encap, remote_port) = match path.encap {
        Encap::None => (Encapsulation::None, 0),
        Encap::Udp { local, remote } => (Encapsulation::Udp(local), remote),
    };
    let mut limits = connection.limits;
    if !sa.suite.esn {
        // New keys are wanted well before the numbers end.
        limits.soft_packets = limits.soft_packets.min(3 << 30);
    }
    let end = |spi, key: &_| model::Sa { spi: Spi(spi), cipher, key: Clone::clone(key), sequence: 0 };
    Some(model::Tunnel {
        name,
        mode: if sa.transport { Mode::Transport } else { Mode::Tunnel },
        local: path.local,
        any_local: !sa.transport,
        remote: Remote::At(path.remote, remote_port),
        encap,
        selectors: selectors(sa)?,
        roam: match connection.roam {
            Policy::Follow => Roam::Follow,
            Policy::Notify => Roam::Notify,
            Policy::Ignore => Roam::Ignore,
        },
        pin_source: false,
        window: connection.window,
        esn: sa.suite.esn,
        dscp: None,
        df: Df::Copy,
        tfc: 0,
        mtu: connection.mtu,
        udp6_checksum: true,
        keepalive: None,
        limits,
        soft_time: None,
        hard_time: None,
        inbound: end(sa.spi_in, &sa.key_in),
        outbound: end(sa.spi_out, &sa.key_out),
    })
}

/// How the data plane calls a path.
pub(super) fn path(path: ike::address::Path) -> Path {
    let encap = path.udp.map_or(Encap::None, |(local, remote)| Encap::Udp { local, remote });
    Path { local: path.local, remote: path.remote, encap }
}

/// How IKE calls one.
pub(super) fn ike_path(path: Path) -> ike::address::Path {
    let udp = match path.encap {
        Encap::None => None,
        Encap::Udp { local, remote } => Some((local, remote)),
    };
    ike::address::Path { local: path.local, remote: path.remote, udp }
}

fn suite(suite: &EspSuite) -> Option<Suite> {
    let integ = match suite.integ {
        None => "",
        Some(Integ::HmacSha256) => "-sha256",
        Some(Integ::HmacSha384) => "-sha384",
        Some(Integ::HmacSha512) => "-sha512",
    };
    let name = match suite.encr {
        Encr::AesGcm(bits) => format!("aes{bits}gcm16"),
        Encr::AesCbc(bits) => format!("aes{bits}{integ}"),
        Encr::ChaCha20Poly1305 => "chacha20poly1305".to_owned(),
    };
    name.parse().ok()
}

fn selectors(sa: &ChildSa) -> Option<Vec<Selector>> {
    let mut all = Vec::new();
    for local in &sa.local {
        for remote in &sa.remote {
            if local.start.is_ipv4() != remote.start.is_ipv4() {
                continue;
            }
            let protocol = match (local.protocol, remote.protocol) {
                (0, other) | (other, 0) => other,
                (one, other) if one == other => one,
                _ => continue,
            };
            let (local_ports, remote_ports) = (ports(local), ports(remote));
            let has_ports = matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
            if !has_ports && (local_ports, remote_ports) != (PortRange::ANY, PortRange::ANY) {
                // The type of an ICMP message, and the like: what cannot be checked is not let through.
                continue;
            }
            let protocol = (protocol != 0).then_some(protocol);
            for local in prefixes(local.start, local.end) {
                for remote in prefixes(remote.start, remote.end) {
                    if all.len() == bounds::CHILD_RULES {
                        return None;
                    }
                    all.push(Selector { local, remote, protocol, local_ports, remote_ports });
                }
            }
        }
    }
    (!all.is_empty()).then_some(all)
}

fn ports(selector: &TrafficSelector) -> PortRange {
    PortRange { first: selector.start_port, last: selector.end_port }
}

/// The fewest prefixes that cover the addresses from `first` to `last`, and no others.
pub(super) fn prefixes(first: IpAddr, last: IpAddr) -> Vec<Prefix> {
    let (width, mut from, to) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (32u32, u128::from(a.to_bits()), u128::from(b.to_bits())),
        (IpAddr::V6(a), IpAddr::V6(b)) => (128, a.to_bits(), b.to_bits()),
        _ => return vec![],
    };
    let mut all = Vec::new();
    while from <= to {
        let aligned = from.trailing_zeros().min(width);
        let span = to - from;
        // The largest power of two that is no more than what is left.
        let fits = if span == u128::MAX { 128 } else { (span + 1).ilog2() };
        let bits = aligned.min(fits);
        let address: IpAddr = match width {
            32 => std::net::Ipv4Addr::from_bits(from as u32).into(),
            _ => std::net::Ipv6Addr::from_bits(from).into(),
        };
        all.extend(Prefix::new(address, (width - bits) as u8));
        match 1u128.checked_shl(bits).and_then(|size| from.checked_add(size)) {
            Some(next) => from = next,
            None => break,
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(first: &str, last: &str) -> Vec<String> {
        let all = prefixes(first.parse().unwrap(), last.parse().unwrap());
        all.iter().map(|p| format!("{}/{}", p.address(), p.length())).collect()
    }

    #[test]
    fn a_range_is_the_fewest_prefixes() {
        assert_eq!(texts("10.0.0.0", "10.0.0.255"), ["10.0.0.0/24"]);
        assert_eq!(
            texts("10.0.0.1", "10.0.0.6"),
            ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]
        );
        assert_eq!(texts("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(texts("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["::/0"]);
        assert_eq!(texts("255.255.255.254", "255.255.255.255"), ["255.255.255.254/31"]);
        assert_eq!(texts("2001:db8::", "2001:db8::ffff"), ["2001:db8::/112"]);
    }
}
