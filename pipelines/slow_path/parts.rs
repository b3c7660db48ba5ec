//! The parameters of a tunnel before it is installed, from configuration or from IKE.

use crate::config::model::{self, Encapsulation, Home, Remote};
use std::{hash::BuildHasher, net::IpAddr, sync::Arc, time::Duration};
use wayfarer_dataplane::{
    crypto::Suite,
    sa::{Encap, Limits, Marking, Mode, Path, Selector, Spi, TunnelId},
};
use wayfarer_mobility::{
    identity::Identity,
    ike::event::{ChildId, PeerId},
    path_mtu::PathProbing,
    roaming::Policy,
};
use zeroize::Zeroizing;

/// The owner of a tunnel, which decides about its path and its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The operator, for a manually keyed tunnel, which is a link of its own.
    Manual,
    /// IKE, for a child SA of a peer.
    Ike(PeerId, ChildId),
}

impl Owner {
    /// Returns the owner of a tunnel that is this peer's, or of a manually keyed one.
    pub(super) fn of(peer: Option<&OfPeer>) -> Self {
        peer.map_or(Self::Manual, |of| Self::Ike(of.peer, of.child))
    }

    /// Returns the number of the link of tunnel `id`, by which workers tell it from most others.
    pub(super) fn link_number(self, id: TunnelId, secret: &impl BuildHasher) -> u16 {
        match self {
            Self::Manual => id.0 as u16,
            // Peers are counted, and whoever begins to connect often enough could choose a number.
            Self::Ike(peer, _) => secret.hash_one(peer) as u16,
        }
    }
}

/// Whoever has the inner addresses of a tunnel. A peer that connects again is the same holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    name: HolderName,
    /// Whoever is charged for what the holder uses up: the same for all holders that could be one peer
    /// under several names.
    pub(super) principal: HolderName,
}

/// The name of a holder or a principal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HolderName {
    /// The name of a manually keyed tunnel.
    Manual(Arc<str>),
    /// The name of a peer's connection, and an identity in canonical form.
    Peer(Arc<(String, Identity)>),
}

impl Holder {
    /// Returns the holder that a manually keyed tunnel of this name has.
    pub(super) fn manual(tunnel: Arc<str>) -> Self {
        let name = HolderName::Manual(tunnel);
        Self { principal: name.clone(), name }
    }

    /// Returns the holder that a peer of `connection` is, by its identity in canonical form and its
    /// principal's.
    pub(super) fn peer(connection: &str, identity: Identity, principal: Identity) -> Self {
        let [name, principal] =
            [identity, principal].map(|name| HolderName::Peer(Arc::new((connection.to_owned(), name))));
        Self { name, principal }
    }
}

/// Whose a tunnel is that is an IKE peer's.
#[derive(Debug)]
pub(super) struct OfPeer {
    /// The peer.
    pub(super) peer: PeerId,
    /// Its child SA.
    pub(super) child: ChildId,
    /// Whoever has the inner addresses.
    pub(super) holder: Holder,
}

/// A tunnel to install.
#[derive(Debug)]
pub(super) struct TunnelParts {
    /// The name, for people.
    pub(super) name: Arc<str>,
    /// The peer that it is for; `None` if it is manually keyed. Boxed, for there may be a million of those.
    pub(super) peer: Option<Box<OfPeer>>,
    /// Tunnel or transport mode.
    pub(super) mode: Mode,
    /// The gateway's outer address at first.
    pub(super) local: IpAddr,
    /// True if packets to the gateway's other addresses are accepted too.
    pub(super) any_local: bool,
    /// The path to the peer; `None` if the peer's first packet decides it.
    pub(super) path: Option<Path>,
    /// The only source address that is accepted; `None` for any.
    pub(super) pin: Option<IpAddr>,
    /// The traffic that the tunnel carries.
    pub(super) selectors: Vec<Selector>,
    /// True if the configuration does not name the peer's addresses, so that the barrier must hear of
    /// them.
    pub(super) tells_barrier: bool,
    /// The policy for moves of the peer, the same for all tunnels of a link.
    pub(super) roam: Policy,
    /// Which home agent says where the peer is, with [`Policy::HomeAgent`].
    pub(super) home: Option<Home>,
    /// Size of the anti-replay window in sequence numbers.
    pub(super) window: u32,
    /// True for extended sequence numbers (RFC 4303 §2.2.1).
    pub(super) esn: bool,
    /// True if outer packets may be sent in fragments.
    pub(super) outer_fragments: bool,
    /// When the MTU of the path is looked for by dummy packets. IKE looks for that of its peers' paths itself.
    pub(super) path_probing: PathProbing,
    /// The rules for fields of outer headers.
    pub(super) marking: Marking,
    /// Length in bytes to which inner packets are padded; 0 for no padding.
    pub(super) tfc: usize,
    /// Largest outer packet in bytes; `None` for the port's MTU.
    pub(super) mtu: Option<usize>,
    /// Time between NAT keepalives; `None` for none.
    pub(super) keepalive: Option<Duration>,
    /// Limits in packets and bytes, for each direction.
    pub(super) limits: Limits,
    /// Age at which a warning about the SAs is logged.
    pub(super) soft_time: Option<Duration>,
    /// Age at which the SAs expire.
    pub(super) hard_time: Option<Duration>,
    /// The SA of packets from the peer.
    pub(super) inbound: SaParts,
    /// The SA of packets to the peer.
    pub(super) outbound: SaParts,
    /// True if traffic is sent by it at once. If not, its first inbound packet is reported, on any
    /// path.
    pub(super) send: bool,
}

/// One SA of a tunnel to install.
pub(super) struct SaParts {
    /// The SPI.
    pub(super) spi: Spi,
    /// The algorithms.
    pub(super) cipher: Suite,
    /// Keying material, [`Suite::key_len`] bytes.
    pub(super) key: Zeroizing<Vec<u8>>,
    /// The last sequence number that was used with this key; 0 for a new key.
    pub(super) sequence: u64,
}

impl std::fmt::Debug for SaParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SaParts {{ spi: {}, cipher: {}, key: … }}", self.spi, self.cipher)
    }
}

impl From<&model::Sa> for SaParts {
    fn from(sa: &model::Sa) -> Self {
        Self { spi: sa.spi, cipher: sa.cipher, key: sa.key.clone(), sequence: sa.sequence }
    }
}

impl From<&model::Tunnel> for TunnelParts {
    fn from(tunnel: &model::Tunnel) -> Self {
        let remote = match tunnel.remote {
            Remote::Any => None,
            Remote::At(address, udp_port) => Some((address, udp_port)),
        };
        let path = remote.map(|(address, udp_port)| Path {
            local: tunnel.local,
            remote: address,
            encap: match tunnel.encap {
                Encapsulation::None => Encap::None,
                Encapsulation::Udp(local) => Encap::Udp { local, remote: udp_port },
            },
        });
        Self {
            name: tunnel.name.as_str().into(),
            peer: None,
            mode: tunnel.mode,
            local: tunnel.local,
            any_local: false,
            path,
            pin: remote.map(|(address, _)| address).filter(|_| tunnel.pin_source),
            selectors: tunnel.selectors.clone(),
            tells_barrier: false,
            roam: tunnel.roam,
            home: tunnel.home,
            window: tunnel.window,
            esn: tunnel.esn,
            outer_fragments: tunnel.outer_fragments,
            path_probing: tunnel.path_probing,
            marking: Marking { dscp: tunnel.dscp, df: tunnel.df, udp6_checksum: tunnel.udp6_checksum },
            tfc: tunnel.tfc,
            mtu: tunnel.mtu,
            keepalive: tunnel.keepalive,
            limits: tunnel.limits,
            soft_time: tunnel.soft_time,
            hard_time: tunnel.hard_time,
            inbound: (&tunnel.inbound).into(),
            outbound: (&tunnel.outbound).into(),
            send: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::input_port::from_link;
    use std::{collections::BTreeSet, hash::RandomState};

    #[test]
    fn tunnels_of_a_peer_share_a_number_that_no_peer_can_choose() {
        let secrets = [RandomState::new(), RandomState::new()];
        let child = |peer, child| Owner::Ike(PeerId(peer), ChildId(child));
        let number = |secret: &RandomState, owner: Owner, tunnel| {
            from_link(owner.link_number(TunnelId(tunnel), secret))
        };
        let [one, other] = &secrets;
        assert_eq!(number(one, child(1, 1), 7), number(one, child(1, 2), 8));
        let manual: BTreeSet<_> = (0..100).map(|n| number(one, Owner::Manual, n)).collect();
        assert_eq!(manual.len(), 100);
        let peers: BTreeSet<_> = (0..100).map(|n| number(one, child(n, 0), 0)).collect();
        assert!(peers.len() > 90, "{} numbers of 100 peers", peers.len());
        // What a peer may know is the order in which it connects.
        let same =
            (0..100).filter(|n| number(one, child(*n, 0), 0) == number(other, child(*n, 0), 0)).count();
        assert!(same < 10, "{same} of 100 peers have the same number after another start");
    }
}
