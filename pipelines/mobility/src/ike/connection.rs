//! Who may connect, or is to be connected to, and what holds for it then.

use super::{proposal::Offer, wire::TrafficSelector};
use crate::{
    aaa::eap::Authenticator,
    crypto::{Secret, Signer, Verifier},
    identity::{Identity, kind},
    roaming::Policy,
};
use alloc::{string::String, sync::Arc, vec::Vec};
use core::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// A connection of the configuration.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// Where the peer is, if we are to connect to it; we answer as well.
    pub remote: Option<SocketAddr>,
    /// Our addresses that it may use, best first.
    pub local: Vec<IpAddr>,
    /// Who we are.
    pub local_id: Identity,
    /// Who the peer may be.
    pub remote_id: IdentityPattern,
    /// How we prove it.
    pub local_auth: LocalAuth,
    /// How the peer proves it.
    pub remote_auth: RemoteAuth,
    /// Algorithms of IKE, best first.
    pub ike: Vec<Offer>,
    /// Algorithms of child SAs, best first.
    pub esp: Vec<Offer>,
    /// What child SAs may carry, at least one.
    pub children: Vec<ChildPolicy>,
    /// Pools that a peer that asks for addresses gets them from, by index.
    pub pools: Vec<usize>,
    /// Whether to ask for an address.
    pub ask_address: bool,
    /// DNS servers to tell a peer that asks.
    pub dns: Vec<IpAddr>,
    /// Domains that those servers answer for (RFC 8598); none: all.
    pub domains: Vec<String>,
    /// When keys are changed.
    pub lifetimes: Lifetimes,
    /// After how long a silence the peer is asked whether it is there.
    pub liveness: Option<Duration>,
    /// Whether addresses may change (RFC 4555).
    pub mobike: bool,
    /// Whether a path that the data plane reports is followed.
    pub roam: Policy,
    /// Whether a NAT on the way is refused (RFC 4555 §3.9).
    pub no_nats: bool,
    /// Whether ESP travels in UDP though there is no NAT.
    pub force_udp: bool,
    /// Largest IP packet of an IKE message if the peer takes fragments (RFC 7383).
    pub fragment: Option<usize>,
    /// Post-quantum pre-shared key (RFC 8784).
    pub ppk: Option<Ppk>,
    /// Whether a peer's second IKE SA ends its first.
    pub unique: bool,
}

/// What one child SA may carry.
#[derive(Clone, Debug)]
pub struct ChildPolicy {
    /// Its name.
    pub name: String,
    /// Our side.
    pub local: Vec<TrafficSelector>,
    /// The peer's side; none: the addresses that it was given, or its outer one.
    pub remote: Vec<TrafficSelector>,
    /// Transport mode.
    pub transport: bool,
}

/// When keys are changed. Each is made up to a tenth shorter, at random, so that both sides do not
/// begin at once.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Of an IKE SA, until it is rekeyed.
    pub ike_sa: Duration,
    /// Of a child SA, until it is rekeyed.
    pub child: Duration,
    /// How much longer a key lives that could not be changed.
    pub grace: Duration,
}

/// How we prove who we are.
#[derive(Clone, Debug)]
pub enum LocalAuth {
    /// By a shared key.
    Psk(SharedKey),
    /// By a private key.
    Key(Arc<dyn Signer>),
    /// By EAP, as a client.
    Eap(Arc<dyn Authenticator>),
}

/// How the peer must prove who it is.
#[derive(Clone, Debug)]
pub enum RemoteAuth {
    /// By a shared key.
    Psk(SharedKey),
    /// By a certificate. Connections that trust the same authorities share it: among them all that
    /// a peer's certificate calls it decides.
    Key(Arc<dyn Verifier>),
    /// By EAP. Connections whose peers the same one knows share it: among them who EAP proves a
    /// peer to be decides.
    Eap(Arc<dyn Authenticator>),
}

/// A secret that both sides know. It is not shown.
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
    /// Whether a peer without it is refused.
    pub required: bool,
}

/// Identities that a peer may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityPattern {
    /// Any.
    Any,
    /// One of these.
    Of(Vec<Identity>),
    /// A domain name or mail address that ends like this.
    Suffix(Vec<u8>),
}

impl IdentityPattern {
    /// Whether it names those whom it is for.
    pub fn is_named(&self) -> bool {
        *self != Self::Any
    }

    /// Whether a name that EAP proved is that of one of them: as text, or as the bytes of a key ID.
    pub fn matches_name(&self, name: &Identity) -> bool {
        let is_key = |identity: &Identity| identity.kind == kind::KEY_ID && identity.data == name.data;
        self.matches(name) || matches!(self, Self::Of(all) if all.iter().any(is_key))
    }

    /// Whether `identity` is one of them.
    pub fn matches(&self, identity: &Identity) -> bool {
        match self {
            Self::Any => true,
            Self::Of(all) => all.iter().any(|one| one.is_same(identity)),
            Self::Suffix(suffix) => {
                let at = identity.data.len().checked_sub(suffix.len());
                let end = at.and_then(|at| identity.data.get(at..));
                identity.is_name() && end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
        }
    }
}

impl Connection {
    /// Whether a message to `local` from `remote` may be for it.
    pub fn is_at(&self, local: IpAddr, remote: IpAddr) -> bool {
        let peer = self.remote.is_none_or(|peer| peer.ip() == remote);
        peer && self.is_local(local)
    }

    /// Whether a peer may use this address of ours.
    pub(super) fn is_local(&self, local: IpAddr) -> bool {
        self.local.is_empty() || self.local.contains(&local)
    }

    /// Whether we prove to a peer the same by both, and in the same way.
    pub(super) fn proves_the_same(&self, other: &Self) -> bool {
        let same_proof = match (&self.local_auth, &other.local_auth) {
            (LocalAuth::Key(a), LocalAuth::Key(b)) => a.certificates() == b.certificates(),
            (LocalAuth::Psk(a), LocalAuth::Psk(b)) => a.0 == b.0,
            _ => false,
        };
        same_proof && self.local_id == other.local_id
    }

    /// Whether peers prove themselves to the same by both.
    pub(super) fn asks_the_same(&self, other: &Self) -> bool {
        match (&self.remote_auth, &other.remote_auth) {
            (RemoteAuth::Key(a), RemoteAuth::Key(b)) => core::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            (RemoteAuth::Eap(a), RemoteAuth::Eap(b)) => core::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            _ => false,
        }
    }
}
