//! Connections of the configuration: who may connect, and on which terms.

use super::{proposal::Offer, wire::TrafficSelector};
use crate::{
    aaa::eap::Authenticator,
    crypto::{Secret, Signer, Verifier},
    identity::{Forms, Identity, kind},
    path_mtu::PathProbing,
    roaming::Policy,
};
use alloc::{collections::BTreeSet, string::String, sync::Arc, vec::Vec};
use core::{
    fmt, iter,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// A connection of the configuration.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The name.
    pub name: String,
    /// Where the peer is if we connect to it, in the order in which we try; empty if we do not. We
    /// answer as well.
    pub remote: Vec<Remote>,
    /// Our addresses that it may use, best first.
    pub local: Vec<IpAddr>,
    /// Our identity.
    pub local_id: Identity,
    /// Further identities of ours, which a peer may ask for.
    pub other_local_ids: Vec<Identity>,
    /// The identities that the peer may have.
    pub remote_id: IdentityPattern,
    /// Our authentication method and credentials.
    pub local_auth: LocalAuth,
    /// The authentication method that the peer must use.
    pub remote_auth: RemoteAuth,
    /// Algorithms of IKE, best first.
    pub ike: Vec<Offer>,
    /// Algorithms of child SAs, best first.
    pub esp: Vec<Offer>,
    /// The policies of its child SAs, at least one.
    pub children: Vec<ChildPolicy>,
    /// The pools, by index, of inner addresses for peers that request one.
    pub pools: Vec<usize>,
    /// True if we request an inner address.
    pub ask_address: bool,
    /// DNS servers for a peer that requests them.
    pub dns: Vec<IpAddr>,
    /// Domains that these servers answer for (RFC 8598); all domains if empty.
    pub domains: Vec<String>,
    /// When keys are replaced.
    pub lifetimes: Lifetimes,
    /// The time without a packet after which a liveness check is sent.
    pub liveness: Option<Duration>,
    /// True if addresses may change (RFC 4555).
    pub mobike: bool,
    /// The policy for new paths that the data plane reports.
    pub roam: Policy,
    /// True if NATs are refused (RFC 4555 §3.9).
    pub no_nats: bool,
    /// True if ESP is encapsulated in UDP even without a NAT.
    pub force_udp: bool,
    /// Largest IP packet, in bytes, of an IKE message to a peer that supports fragmentation (RFC
    /// 7383).
    pub fragment: Option<usize>,
    /// When the MTU of the path is looked for by probes.
    pub path_probing: PathProbing,
    /// The post-quantum pre-shared key (RFC 8784).
    pub ppk: Option<Ppk>,
    /// True if a new IKE SA of a peer replaces its older one.
    pub unique: bool,
}

/// Where a peer is that we connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// At this address and port.
    At(SocketAddr),
    /// At this port of the addresses that a host name has when we connect.
    Named(String, u16),
}

/// The traffic that one child SA may carry.
#[derive(Clone, Debug)]
pub struct ChildPolicy {
    /// The name.
    pub name: String,
    /// Our side of the traffic.
    pub local: Vec<TrafficSelector>,
    /// The peer's side of the traffic; if empty, the inner addresses leased to it, or its outer
    /// one.
    pub remote: Vec<TrafficSelector>,
    /// True for transport mode.
    pub transport: bool,
}

/// When keys are replaced. Each lifetime is randomly shortened by up to a tenth, so that the two
/// sides do not rekey at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// From the creation of an IKE SA until it is rekeyed.
    pub ike_sa: Duration,
    /// From the creation of a child SA until it is rekeyed.
    pub child: Duration,
    /// Time from the rekey until the SA expires if the rekey fails.
    pub grace: Duration,
    /// Time for which a peer's authentication counts, and ours to a peer that we connect to. A peer
    /// that connects to us is told, and closed if it has not authenticated again.
    pub authentication: Option<Duration>,
}

/// Our authentication method and credentials.
#[derive(Clone, Debug)]
pub enum LocalAuth {
    /// By a shared key.
    Psk(SharedKey),
    /// By a private key.
    Key(Arc<dyn Signer>),
    /// By EAP, as a client.
    Eap(Arc<dyn Authenticator>),
}

/// The authentication method that a peer must use.
#[derive(Clone, Debug)]
pub enum RemoteAuth {
    /// By a shared key.
    Psk(SharedKey),
    /// By a certificate. Connections that trust the same authorities share the verifier: all names
    /// in a peer's certificate take part in the choice among these connections.
    Key(Arc<dyn Verifier>),
    /// By EAP. Connections whose peers are known to the same server share the authenticator: the
    /// name that EAP proves takes part in the choice among these connections.
    Eap(Arc<dyn Authenticator>),
}

/// A secret that both sides know. It is never shown.
#[derive(Clone)]
pub struct SharedKey(pub Secret);

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey")
    }
}

/// A post-quantum pre-shared key (RFC 8784).
#[derive(Clone, Debug)]
pub struct Ppk {
    /// The data of PPK_IDENTITY, with its type octet.
    pub id: Vec<u8>,
    /// The key.
    pub secret: SharedKey,
    /// True if a peer without the key is refused.
    pub required: bool,
}

/// The identities that a peer may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityPattern {
    /// Any identity.
    Any,
    /// One of these.
    Of {
        /// As they were written.
        written: Vec<Identity>,
        /// In the [canonical](Identity::canonical) form.
        canonical: BTreeSet<Identity>,
    },
    /// A domain name or mail address with this ending.
    Suffix(Vec<u8>),
}

impl IdentityPattern {
    /// Returns the pattern for peers that have one of these identities.
    pub fn of(written: Vec<Identity>) -> Self {
        Self::Of { canonical: written.iter().map(Identity::canonical).collect(), written }
    }

    /// Returns true if the pattern names particular peers.
    pub fn is_named(&self) -> bool {
        *self != Self::Any
    }

    /// Returns how closely the pattern names peers: that of particular ones most closely, and that of
    /// any peer least.
    pub(super) fn closeness(&self) -> usize {
        match self {
            Self::Any => 0,
            Self::Suffix(suffix) => suffix.len(),
            Self::Of { .. } => usize::MAX,
        }
    }

    /// Returns true if a name that EAP proved matches, as text or as the bytes of a key ID.
    pub fn matches_name(&self, name: &Identity) -> bool {
        let is_key = |one: &Identity| one.kind == kind::KEY_ID && one.data == name.data;
        self.matches(&Forms::of(name))
            || matches!(self, Self::Of { written, .. } if written.iter().any(is_key))
    }

    /// Returns true if the identity with these forms matches.
    pub fn matches(&self, forms: &Forms) -> bool {
        match self {
            Self::Any => true,
            Self::Of { canonical, .. } => forms.are_in(canonical),
            Self::Suffix(suffix) => {
                let identity = forms.canonical();
                let at = identity.data.len().checked_sub(suffix.len());
                let end = at.and_then(|at| identity.data.get(at..));
                identity.is_name() && end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
        }
    }
}

impl Connection {
    /// Returns true if we connect to the peer.
    pub fn is_dialled(&self) -> bool {
        !self.remote.is_empty()
    }

    /// Returns true if a message from `remote` to `local` may belong to this connection. A peer with
    /// a host name may be anywhere: the name says where to look for it, but its answer proves
    /// nothing and may be old.
    pub fn is_at(&self, local: IpAddr, remote: IpAddr) -> bool {
        let has_name = self.remote.iter().any(|end| matches!(end, Remote::Named(..)));
        self.is_local(local) && (!self.is_dialled() || has_name || self.expects(remote))
    }

    /// Returns true if the configuration says that the peer is at `remote`.
    pub(super) fn expects(&self, remote: IpAddr) -> bool {
        self.remote.iter().any(|end| matches!(end, Remote::At(end) if end.ip() == remote))
    }

    /// Returns true if a peer may use this address of ours.
    pub fn is_local(&self, local: IpAddr) -> bool {
        self.local.is_empty() || self.local.contains(&local)
    }

    /// Returns our identity for a peer that `asked` for one (RFC 7296 §1.2, IDr); `None` if it is not
    /// ours.
    pub(super) fn own_id(&self, asked: Option<&Forms>) -> Option<&Identity> {
        let mut own = iter::once(&self.local_id).chain(&self.other_local_ids);
        own.find(|own| asked.is_none_or(|asked| asked.are_of(own)))
    }

    /// Returns true if we authenticate in the same way in both, and with the same identity to a peer
    /// that `asked` for one.
    pub(super) fn has_same_local_auth(&self, other: &Self, asked: Option<&Forms>) -> bool {
        let same_proof = match (&self.local_auth, &other.local_auth) {
            (LocalAuth::Key(a), LocalAuth::Key(b)) => a.certificates() == b.certificates(),
            (LocalAuth::Psk(a), LocalAuth::Psk(b)) => a.0 == b.0,
            _ => false,
        };
        same_proof && self.own_id(asked) == other.own_id(asked)
    }

    /// Returns true if peers of both authenticate to the same verifier or server.
    pub(super) fn has_same_remote_auth(&self, other: &Self) -> bool {
        match (&self.remote_auth, &other.remote_auth) {
            (RemoteAuth::Key(a), RemoteAuth::Key(b)) => core::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            (RemoteAuth::Eap(a), RemoteAuth::Eap(b)) => core::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            _ => false,
        }
    }
}
