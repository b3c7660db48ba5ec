//! Converts child SAs that IKE negotiated into tunnels for the data plane.

use super::prefixes::{pool_ranks, prefixes};
use crate::{
    config::model,
    slow_path::parts::{Holder, OfPeer, SaParts, TunnelParts},
};
use wayfarer_dataplane::{
    crypto::Suite,
    sa::{Df, Encap, Limits, Marking, Mode, Path, PortRange, Rank, Selector, Spi},
    table::Prefix,
};
use wayfarer_mobility::{
    crypto::{Encr, Integ},
    ike::{
        bounds,
        connection::{ChildPolicy, Connection},
        event::{ChildId, ChildSa, PeerId},
        selector,
        suite::EspSuite,
        wire::TrafficSelector,
    },
    path,
    path_mtu::PathProbing,
    roaming::Policy,
};

/// Packets after which an SA without extended sequence numbers must be rekeyed: well before its
/// sequence numbers run out.
const SOFT_PACKETS: u64 = 3 << 30;

/// The data plane's parameters of a connection.
#[derive(Debug)]
pub(super) struct ConnectionParts {
    window: u32,
    mtu: Option<usize>,
    outer_fragments: bool,
    limits: Limits,
    roam: Policy,
    children: Vec<ChildPrefixes>,
}

/// The configured prefixes of one of a connection's children. Its tunnels' rules are ranked by
/// them, however far a peer narrowed the selectors (RFC 4301 §4.4.1, RFC 7296 §2.9).
#[derive(Debug)]
struct ChildPrefixes {
    name: String,
    local: Vec<Prefix>,
    remote: Vec<Prefix>,
    /// True if the operator has configured the peers' addresses.
    names_remote: bool,
    /// True if we connect to the peers; the operator has then also configured their addresses.
    is_dialled: bool,
}

impl ConnectionParts {
    /// Takes the parameters from `connection`. Its peers lease addresses from `pools`.
    pub(super) fn new(connection: &model::Connection, pools: &[model::PoolRange]) -> Self {
        let protocol = &connection.protocol;
        let children = protocol.children.iter().map(|child| ChildPrefixes::new(protocol, child, pools));
        Self {
            window: connection.window,
            mtu: connection.mtu,
            outer_fragments: connection.outer_fragments,
            limits: connection.limits,
            roam: protocol.roam,
            children: children.collect(),
        }
    }

    /// Returns the tunnel for a peer's `child` with this `name`, whose inner addresses are the `holder`'s;
    /// `None` if the data plane does not support what was negotiated.
    pub(super) fn tunnel(
        &self,
        name: String,
        (peer, child): (PeerId, ChildId),
        holder: Holder,
        sa: ChildSa,
    ) -> Option<TunnelParts> {
        let cipher = suite(&sa.suite)?;
        let path = Some(path(sa.path)).filter(Path::is_consistent)?;
        let mut limits = self.limits;
        if !sa.suite.esn {
            limits.soft_packets = limits.soft_packets.min(SOFT_PACKETS);
        }
        let prefixes = self.children.iter().find(|child| child.name == sa.name)?;
        let selectors = selectors(&sa, prefixes)?;
        let part = |spi, key| SaParts { spi: Spi(spi), cipher, key, sequence: 0 };
        Some(TunnelParts {
            name: name.into(),
            peer: Some(Box::new(OfPeer { peer, child, holder })),
            mode: if sa.transport { Mode::Transport } else { Mode::Tunnel },
            local: path.local,
            any_local: !sa.transport,
            path: Some(path),
            pin: None,
            tells_barrier: prefixes.tells_barrier(),
            selectors,
            roam: self.roam,
            home: None,
            window: self.window,
            esn: sa.suite.esn,
            outer_fragments: self.outer_fragments,
            path_probing: PathProbing::Off,
            marking: Marking { dscp: None, df: Df::default_for(self.outer_fragments), udp6_checksum: true },
            tfc: 0,
            mtu: self.mtu,
            keepalive: None,
            limits,
            soft_time: None,
            hard_time: None,
            inbound: part(sa.spi_in, sa.key_in),
            outbound: part(sa.spi_out, sa.key_out),
            send: sa.send,
        })
    }
}

impl ChildPrefixes {
    fn new(connection: &Connection, child: &ChildPolicy, pools: &[model::PoolRange]) -> Self {
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
            names_remote: !child.remote.is_empty(),
            is_dialled: connection.is_dialled(),
        }
    }

    /// Returns whether the barrier must hear of the tunnels: their far side is the address at which we
    /// connect to the peer. Nobody who connects to us decides what the host may send in clear.
    fn tells_barrier(&self) -> bool {
        self.is_dialled && !self.names_remote
    }

    fn rank(&self, local: Prefix, remote: Prefix) -> Rank {
        let closest = |prefix: Prefix, configured: &[Prefix]| {
            let holds = |c: &&Prefix| c.length() <= prefix.length() && c.contains(prefix.address());
            configured.iter().filter(holds).map(|c| c.length()).max()
        };
        // Without a configured prefix, this is the peer's own address, or ours.
        let own = if self.is_dialled { remote.length() } else { 0 };
        let rank = closest(remote, &self.remote).unwrap_or(own);
        Rank {
            local: closest(local, &self.local).unwrap_or(local.length()),
            remote: rank,
            is_narrowed: rank < remote.length(),
        }
    }
}

/// Converts a path to the data plane's form.
pub(super) fn path(path: path::Path) -> Path {
    let encap = path.udp.map_or(Encap::None, |(local, remote)| Encap::Udp { local, remote });
    Path { local: path.local, remote: path.remote, encap }
}

/// Converts a path to IKE's form.
pub(super) fn ike_path(path: Path) -> path::Path {
    let udp = match path.encap {
        Encap::None => None,
        Encap::Udp { local, remote } => Some((local, remote)),
    };
    path::Path { local: path.local, remote: path.remote, udp }
}

fn suite(suite: &EspSuite) -> Option<Suite> {
    match (suite.encr, suite.integ) {
        (Encr::AesGcm(bits), _) => Suite::aes_gcm(bits),
        (Encr::ChaCha20Poly1305, _) => Some(Suite::CHACHA20_POLY1305),
        (Encr::AesCbc(bits), Some(Integ::HmacSha256)) => Suite::aes_cbc(bits, 256),
        (Encr::AesCbc(bits), Some(Integ::HmacSha384)) => Suite::aes_cbc(bits, 384),
        (Encr::AesCbc(bits), Some(Integ::HmacSha512)) => Suite::aes_cbc(bits, 512),
        (Encr::AesCbc(_), None) => None,
    }
}

fn selectors(sa: &ChildSa, configured: &ChildPrefixes) -> Option<Vec<Selector>> {
    let mut all = Vec::new();
    for local in &sa.local {
        for remote in &sa.remote {
            let Some(protocol) = selector::protocol_between(local, remote) else { continue };
            let protocol = (protocol != 0).then_some(protocol);
            let (local_ports, remote_ports) = (ports(local), ports(remote));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_nobody_configured_ranks_below_every_prefix() {
        let prefix = |address: [u8; 4], length| Prefix::new(address.into(), length).unwrap();
        let (local, pool) = (prefix([10, 99, 0, 0], 24), prefix([10, 98, 0, 0], 24));
        let child = ChildPrefixes {
            name: "net".into(),
            local: vec![local],
            remote: vec![pool],
            names_remote: false,
            is_dialled: false,
        };
        for (address, rank) in [([10, 98, 0, 7], 24), ([10, 50, 0, 7], 0)] {
            assert_eq!(child.rank(local, prefix(address, 32)).remote, rank);
        }
    }

    #[test]
    fn barrier_hears_only_of_peers_that_we_connect_to() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        for (is_dialled, names_remote, tells) in
            [(true, false, true), (true, true, false), (false, false, false), (false, true, false)]
        {
            let (local, remote) = (vec![prefix("10.99.0.0/24")], vec![]);
            let child = ChildPrefixes { name: "net".into(), local, remote, names_remote, is_dialled };
            assert_eq!(child.tells_barrier(), tells, "{is_dialled} {names_remote}");
        }
    }

    #[test]
    fn every_agreed_cipher_has_its_suite() {
        let name = |encr, integ| {
            suite(&EspSuite { encr, integ, kex: vec![], esn: true }).map(|suite| suite.to_string())
        };
        assert_eq!(name(Encr::AesGcm(256), None).as_deref(), Some("aes256gcm16"));
        assert_eq!(name(Encr::ChaCha20Poly1305, None).as_deref(), Some("chacha20poly1305"));
        for (bits, integ, wanted) in [
            (128, Some(Integ::HmacSha256), Some("aes128-sha256")),
            (192, Some(Integ::HmacSha384), Some("aes192-sha384")),
            (256, Some(Integ::HmacSha512), Some("aes256-sha512")),
            (512, Some(Integ::HmacSha256), None),
            (128, None, None),
        ] {
            assert_eq!(name(Encr::AesCbc(bits), integ).as_deref(), wanted);
        }
    }
}
