//! The identity of a link.

use crate::slow_path::parts::Owner;
use wayfarer_dataplane::sa::TunnelId;
use wayfarer_mobility::ike::event::PeerId;

/// The identity of a link. It says whose link it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::slow_path) enum LinkId {
    /// A manually keyed link, which is one tunnel.
    Manual(TunnelId),
    /// The link of an IKE peer.
    Ike(PeerId),
}

impl LinkId {
    /// Returns the link of tunnel `id` of `owner`.
    pub(super) fn of(owner: Owner, id: TunnelId) -> Self {
        match owner {
            Owner::Manual => Self::Manual(id),
            Owner::Ike(peer, _) => Self::Ike(peer),
        }
    }
}
