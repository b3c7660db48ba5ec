//! From what IKE agreed on to what the data plane installs.

use super::DataPlane;
use crate::config::model::{self, Encapsulation, Remote, Roam};
use std::net::IpAddr;
use wayfarer_dataplane::{
    crypto::Suite,
    sa::{Df, Encap, Mode, Path, PortRange, Rank, Selector, Spi},
    table::Prefix,
    wire::{Address, ip::protocol},
};
use wayfarer_mobility::{
    crypto::{Encr, Integ},
    ike::{
        bounds,
        connection::{ChildPolicy, Connection},
        event::ChildSa,
        suite::EspSuite,
        wire::TrafficSelector,
    },
    path,
    roaming::Policy,
};

/// The prefixes that the configuration has for one of a connection's children: what rules of its tunnels are ranked by,
/// however much a peer narrowed them (RFC 4301 §4.4.1, RFC 7296 §2.9).
#[derive(Clone, Debug)]
pub(super) struct Configured {
    name: String,
    local: Vec<Prefix>,
    remote: Vec<Prefix>,
    /// Whether we connect to its peers: then the operator has named their own addresses too.
    is_dialled: bool,
}

impl Configured {
    /// What `connection` says of its `child`; addresses are given away from `pools`.
    pub(super) fn new(connection: &Connection, child: &ChildPolicy, pools: &[model::PoolRange]) -> Self {
        let all = |selectors: &[TrafficSelector]| {
            selectors.iter().flat_map(|selector| prefixes(selector.start, selector.end)).collect()
        };
        let pools = connection.pools.iter().filter_map(|pool| pools.get(*pool));
        let remote = match child.remote.is_empty() {
            true => pools.flat_map(|pool| pool_ranks(pool.first, pool.last)).collect(),
            false => all(&child.remote),
        };
        Self {
            name: child.name.clone(),
            local: all(&child.local),
            remote,
            is_dialled: connection.remote.is_some(),
        }
    }

    fn rank(&self, local: Prefix, remote: Prefix) -> Rank {
        let closest = |prefix: Prefix, configured: &[Prefix]| {
            let holds = |c: &&Prefix| c.length() <= prefix.length() && c.contains(prefix.address());
            configured.iter().filter(holds).map(|c| c.length()).max()
        };
        // Without a prefix it is the peer's own address, or ours.
        let own = if self.is_dialled { remote.length() } else { 0 };
        let rank = closest(remote, &self.remote).unwrap_or(own);
        Rank {
            local: closest(local, &self.local).unwrap_or(local.length()),
            remote: rank,
            is_narrowed: rank < remote.length(),
        }
    }
}

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
        selectors: selectors(sa, connection.children.iter().find(|child| child.name == sa.name)?)?,
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
pub(super) fn path(path: path::Path) -> Path {
    let encap = path.udp.map_or(Encap::None, |(local, remote)| Encap::Udp { local, remote });
    Path { local: path.local, remote: path.remote, encap }
}

/// How IKE calls one.
pub(super) fn ike_path(path: Path) -> path::Path {
    let udp = match path.encap {
        Encap::None => None,
        Encap::Udp { local, remote } => Some((local, remote)),
    };
    path::Path { local: path.local, remote: path.remote, udp }
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

fn selectors(sa: &ChildSa, configured: &Configured) -> Option<Vec<Selector>> {
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
            let [locals, remotes] = [local, remote].map(|side| prefixes(side.start, side.end));
            if locals.len().max(remotes.len()) > bounds::PREFIXES {
                return None;
            }
            for local in locals {
                for &remote in &remotes {
                    if all.len() == bounds::CHILD_RULES {
                        return None;
                    }
                    let rank = configured.rank(local, remote);
                    all.push(Selector { local, remote, protocol, local_ports, remote_ports, rank });
                }
            }
        }
    }
    (!all.is_empty()).then_some(all)
}

fn ports(selector: &TrafficSelector) -> PortRange {
    PortRange { first: selector.start_port, last: selector.end_port }
}

/// The prefixes that a pool of the addresses from `first` to `last` is ranked by: the one that the operator wrote, of which
/// the first and last address may be left out, or else the fewest that cover it.
pub(super) fn pool_ranks(first: IpAddr, last: IpAddr) -> Vec<Prefix> {
    let common = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return vec![],
    };
    let is_written = |around: &Prefix| {
        let (from, to) = around.span();
        Address::from(first).bits() - from <= 1 && to - Address::from(last).bits() <= 1
    };
    match Prefix::new(first, common as u8).filter(is_written) {
        Some(around) => vec![around],
        None => prefixes(first, last),
    }
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
    fn no_range_of_ipv4_addresses_needs_more_prefixes_than_a_selector_may() {
        assert_eq!(texts("0.0.0.1", "255.255.255.254").len(), bounds::PREFIXES);
        assert!(texts("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe").len() > bounds::PREFIXES);
    }

    #[test]
    fn a_pool_is_ranked_by_the_prefix_that_was_written_or_those_that_cover_it() {
        let texts = |first: &str, last: &str| {
            let all = pool_ranks(first.parse().unwrap(), last.parse().unwrap());
            all.iter().map(Prefix::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts("10.98.0.1", "10.98.0.254"), ["10.98.0.0/24"]);
        assert_eq!(texts("10.98.0.0", "10.98.0.255"), ["10.98.0.0/24"]);
        assert_eq!(texts("10.98.0.7", "10.98.0.7"), ["10.98.0.7/32"]);
        assert_eq!(texts("fd00::", "fd00::ffff"), ["fd00::/112"]);
        // Across a boundary of bits there is no prefix around it that says anything.
        assert_eq!(
            texts("10.127.255.252", "10.128.0.2"),
            ["10.127.255.252/30", "10.128.0.0/31", "10.128.0.2/32"]
        );
        assert!(texts("fd00::1", "10.0.0.1").is_empty());
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
