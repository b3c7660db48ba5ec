//! What the endpoint tells whoever drives it.

use super::{
    suite::{EspSuite, IkeSuite},
    wire::TrafficSelector,
};
use crate::{
    crypto::{Distrust, Secret},
    identity::Identity,
    path::{Addresses, Nat, Path},
};
use alloc::{string::String, vec::Vec};
use core::net::{IpAddr, SocketAddr};

/// Number of a peer, for as long as it is connected: rekeys and moves do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// Number of a pair of child SAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u64);

/// A pair of child SAs.
#[derive(Debug)]
pub struct ChildSa {
    /// Name of the connection's child.
    pub name: String,
    /// SPI of packets to us.
    pub spi_in: u32,
    /// SPI of packets to the peer.
    pub spi_out: u32,
    /// Algorithms.
    pub suite: EspSuite,
    /// Keying material of packets to us: cipher, then integrity.
    pub key_in: Secret,
    /// Keying material of packets to the peer.
    pub key_out: Secret,
    /// Our side.
    pub local: Vec<TrafficSelector>,
    /// The peer's side.
    pub remote: Vec<TrafficSelector>,
    /// Transport mode.
    pub transport: bool,
    /// How packets go to the peer.
    pub path: Path,
    /// The pair that this one takes the place of.
    pub replaces: Option<ChildId>,
    /// Whether to send by it at once. If not, from its first inbound packet on, or when
    /// [`Event::ChildUse`] says so: the peer may not have the keys yet (RFC 7296 §2.8).
    pub send: bool,
}

/// Why a connection ended, or was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The peer said so.
    Deleted,
    /// We were asked to.
    Closed,
    /// The peer does not answer.
    Silent,
    /// It has a newer connection.
    Replaced,
    /// No common algorithms.
    NoProposal,
    /// The key exchange was refused.
    KeyExchange,
    /// No connection of the configuration is for this identity and way to prove it.
    NoConnection,
    /// The peer's proof is wrong: a shared key, a MSK.
    Authentication,
    /// The peer's certificate is not taken.
    Distrusted(Distrust),
    /// EAP failed.
    Eap,
    /// EAP succeeded, but nobody but the peer itself says who it is, and only connections with a
    /// `remote_id` are for it.
    Unnamed,
    /// The peer refused us, by this notification.
    Refused(u16),
    /// The peer broke the protocol.
    Protocol,
    /// Its keys are older than they may be, and could not be changed.
    Expired,
    /// Too many are connecting.
    Overload,
    /// A NAT is on the way where none is allowed.
    Nat,
    /// The gateway gave us this inner address, which none can be.
    InnerAddress(IpAddr),
}

/// News.
#[derive(Debug)]
pub enum Event {
    /// A peer proved who it is.
    PeerUp {
        /// Which.
        peer: PeerId,
        /// By this connection of the configuration.
        connection: usize,
        /// Who it has proved to be.
        identity: Identity,
        /// What it calls itself, where EAP proved another name.
        claimed: Option<Identity>,
        /// Where it is.
        addresses: Addresses,
    },
    /// A connection ended, or was not made. Its child SAs ended before.
    PeerDown {
        /// Which.
        peer: PeerId,
        /// Where it was.
        remote: SocketAddr,
        /// Why.
        reason: Reason,
    },
    /// The gateway gave us these.
    Configured {
        /// Which.
        peer: PeerId,
        /// Inner addresses.
        addresses: Vec<IpAddr>,
        /// DNS servers.
        dns: Vec<IpAddr>,
        /// Domains that they answer for.
        domains: Vec<String>,
    },
    /// A pair of child SAs is to be installed.
    ChildUp {
        /// Whose.
        peer: PeerId,
        /// Its number.
        child: ChildId,
        /// What.
        sa: ChildSa,
    },
    /// Send by this pair from now on.
    ChildUse {
        /// Which.
        child: ChildId,
    },
    /// A pair is to be removed.
    ChildDown {
        /// Which.
        child: ChildId,
    },
    /// The link moved: all pairs of the peer go by this path from now on.
    PeerMoved {
        /// Which.
        peer: PeerId,
        /// Its path.
        path: Path,
        /// Whether the peer has shown that it is there. If not, the driver bounds what is sent
        /// until it has.
        confirmed: bool,
        /// Translations on the way.
        nat: Nat,
    },
    /// The peer has shown that it is where it moved to.
    PathConfirmed {
        /// Which.
        peer: PeerId,
    },
    /// Nothing came from the peer for long. The driver answers with what its data plane saw.
    LivenessDue {
        /// Which.
        peer: PeerId,
    },
    /// Messages with this SPI of ours are a known peer's from now on, or no longer.
    Spi {
        /// Ours.
        spi: u64,
        /// Whether it is known.
        known: bool,
    },
    /// An IKE SA has keys, for who asked for a key log.
    IkeSaKeys {
        /// SPIs, the initiator's first.
        spis: [u64; 2],
        /// Algorithms.
        suite: IkeSuite,
        /// SK_ei and SK_er.
        encr: [Secret; 2],
        /// SK_ai and SK_ar.
        integ: [Secret; 2],
    },
}
