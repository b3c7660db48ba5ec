//! The child SAs of a peer.

use crate::{
    crypto::Secret,
    ike::{
        event::{ChildId, ChildSa},
        selector,
        suite::EspSuite,
        wire::{Malformed, Payload, Proposal, TrafficSelector, kind, notify},
    },
    path::Path,
};
use alloc::{string::String, vec, vec::Vec};
use core::time::Duration;

/// An installed child SA: the two ESP SAs of a tunnel.
#[derive(Debug)]
pub(in crate::ike) struct Child {
    pub(in crate::ike) id: ChildId,
    pub(in crate::ike) sa: AgreedChild,
    /// What its selectors count for; see [`selector::cost`].
    pub(in crate::ike) cost: usize,
    state: ChildState,
    /// The limit of its traffic that it has reached.
    pub(in crate::ike) limit: TrafficLimit,
    /// The child SA that replaces it.
    pub(in crate::ike) successor: Option<ChildId>,
    /// The child SA of the peer's successor that takes over its traffic.
    pub(in crate::ike) follower: Option<ChildId>,
}

/// The limits in packets and bytes that a child SA has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::ike) enum TrafficLimit {
    None,
    /// It must be rekeyed soon.
    Soft,
    /// It carries nothing more in one direction.
    Hard,
}

/// The life of a child SA, usually in this order. Each transition consumes a state, and returns the
/// next one or `None` if it does not apply to that state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum ChildState {
    /// Carries traffic.
    Installed { rekey_at: Duration, expire_at: Duration },
    /// We asked for a successor.
    Rekeying { expire_at: Duration },
    /// A successor replaced it; it still receives.
    Replaced { expire_at: Duration },
    /// We asked the peer to delete it.
    Deleting { expire_at: Duration },
    /// It is deleted, but still receives packets that were in flight until this time.
    Lingering { until: Duration },
}

impl Child {
    /// Returns a child SA that is rekeyed at `rekey_at`, or ends the IKE SA at `expire_at` if that
    /// fails.
    pub(in crate::ike) fn new(id: ChildId, sa: AgreedChild, rekey_at: Duration, expire_at: Duration) -> Self {
        let cost = selector::cost(&sa.local, &sa.remote);
        let state = ChildState::Installed { rekey_at, expire_at };
        Self { id, sa, cost, state, limit: TrafficLimit::None, successor: None, follower: None }
    }

    pub(in crate::ike) fn state(&self) -> ChildState {
        self.state
    }

    pub(in crate::ike) fn is_installed(&self) -> bool {
        matches!(self.state, ChildState::Installed { .. })
    }

    /// Changes the state. Returns false if `transition` does not apply to it.
    pub(in crate::ike) fn change(
        &mut self,
        transition: impl FnOnce(ChildState) -> Option<ChildState>,
    ) -> bool {
        let next = transition(self.state);
        self.state = next.unwrap_or(self.state);
        next.is_some()
    }
}

impl ChildState {
    /// Notes that a rekey is due at `now`. A rekey that is never begun lets the child SA expire.
    pub(in crate::ike) fn rekey_due(self, now: Duration) -> Option<Self> {
        match self {
            Self::Installed { rekey_at, expire_at } if rekey_at <= now => {
                Some(Self::Installed { rekey_at: expire_at, expire_at })
            }
            _ => None,
        }
    }

    /// Rekeys later, because the peer is not ready for it.
    pub(in crate::ike) fn postpone_rekey(self, rekey_at: Duration) -> Option<Self> {
        match self {
            Self::Installed { expire_at, .. } => Some(Self::Installed { rekey_at, expire_at }),
            _ => None,
        }
    }

    /// Begins a rekey of ours.
    pub(in crate::ike) fn rekey(self) -> Option<Self> {
        match self {
            Self::Installed { expire_at, .. } => Some(Self::Rekeying { expire_at }),
            _ => None,
        }
    }

    /// Ends a rekey of ours that failed. The next one is at `retry_at`, if it is given.
    pub(in crate::ike) fn abandon_rekey(self, retry_at: Option<Duration>) -> Option<Self> {
        match self {
            Self::Rekeying { expire_at } => {
                Some(Self::Installed { rekey_at: retry_at.unwrap_or(expire_at), expire_at })
            }
            _ => None,
        }
    }

    /// Puts a successor in its place, which either side created.
    pub(in crate::ike) fn replace(self) -> Option<Self> {
        match self {
            Self::Installed { expire_at, .. } | Self::Rekeying { expire_at } => {
                Some(Self::Replaced { expire_at })
            }
            _ => None,
        }
    }

    /// Uses it again, because the peer has deleted its successor. It is rekeyed at `rekey_at`.
    pub(in crate::ike) fn restore(self, rekey_at: Duration) -> Option<Self> {
        match self {
            Self::Replaced { expire_at } => Some(Self::Installed { rekey_at, expire_at }),
            _ => None,
        }
    }

    /// Asks the peer to delete it.
    pub(in crate::ike) fn delete(self) -> Option<Self> {
        match self {
            Self::Installed { expire_at, .. }
            | Self::Rekeying { expire_at }
            | Self::Replaced { expire_at } => Some(Self::Deleting { expire_at }),
            Self::Deleting { .. } | Self::Lingering { .. } => None,
        }
    }

    /// Forgets that we asked the peer, because the IKE SA of the request ended.
    pub(in crate::ike) fn delete_again(self) -> Option<Self> {
        match self {
            Self::Deleting { expire_at } => Some(Self::Replaced { expire_at }),
            _ => None,
        }
    }

    /// Ends it for sending: either side has deleted it.
    pub(in crate::ike) fn linger(self, until: Duration) -> Option<Self> {
        Some(Self::Lingering { until })
    }

    /// Lets one expire that carries no traffic. If we have not asked the peer to delete it, there is
    /// time until `expire_at` for that; any other ends at once, so that there is no next state.
    pub(in crate::ike) fn expire(self, expire_at: Duration) -> Option<Self> {
        match self {
            Self::Replaced { .. } => Some(Self::Replaced { expire_at }),
            _ => None,
        }
    }

    /// Returns true unless it was replaced or deleted.
    pub(in crate::ike) fn carries_traffic(self) -> bool {
        matches!(self, Self::Installed { .. } | Self::Rekeying { .. })
    }

    /// Returns when it expires.
    pub(in crate::ike) fn expire_at(self) -> Duration {
        match self {
            Self::Installed { expire_at, .. }
            | Self::Rekeying { expire_at }
            | Self::Replaced { expire_at }
            | Self::Deleting { expire_at }
            | Self::Lingering { until: expire_at } => expire_at,
        }
    }

    /// Returns when a rekey is due or it expires.
    pub(in crate::ike) fn due_at(self) -> Duration {
        match self {
            Self::Installed { rekey_at, expire_at } => rekey_at.min(expire_at),
            _ => self.expire_at(),
        }
    }
}

/// A child SA that both sides agreed on.
#[derive(Clone, Debug)]
pub(in crate::ike) struct AgreedChild {
    pub(in crate::ike) name: String,
    /// Index of its policy in the connection.
    pub(in crate::ike) policy: usize,
    pub(in crate::ike) suite: EspSuite,
    /// Number of the chosen proposal.
    pub(in crate::ike) number: u8,
    pub(in crate::ike) spi_in: u32,
    pub(in crate::ike) spi_out: u32,
    pub(in crate::ike) local: Vec<TrafficSelector>,
    pub(in crate::ike) remote: Vec<TrafficSelector>,
    pub(in crate::ike) transport: bool,
    pub(in crate::ike) replaces: Option<ChildId>,
}

impl AgreedChild {
    /// Returns true if it may carry all traffic of `other`.
    pub(in crate::ike) fn covers(&self, other: &Self) -> bool {
        selector::is_within(&other.local, &self.local) && selector::is_within(&other.remote, &self.remote)
    }

    /// Returns the description of the child SA for the data plane.
    pub(in crate::ike) fn event(&self, keys: [Secret; 2], path: Path, send: bool) -> ChildSa {
        let [key_in, key_out] = keys;
        ChildSa {
            name: self.name.clone(),
            spi_in: self.spi_in,
            spi_out: self.spi_out,
            suite: self.suite.clone(),
            key_in,
            key_out,
            local: self.local.clone(),
            remote: self.remote.clone(),
            transport: self.transport,
            path,
            replaces: self.replaces,
            send,
        }
    }
}

/// The payloads that describe a child SA in IKE_AUTH and CREATE_CHILD_SA, in a request or its
/// response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) struct ChildOffer {
    pub(in crate::ike) proposals: Vec<Proposal>,
    /// Traffic of the exchange's initiator.
    pub(in crate::ike) ts_i: Vec<TrafficSelector>,
    /// Traffic of the exchange's responder.
    pub(in crate::ike) ts_r: Vec<TrafficSelector>,
    /// True for transport mode.
    pub(in crate::ike) transport: bool,
}

impl ChildOffer {
    /// Parses the offer for a child SA in a message.
    ///
    /// # Errors
    /// Fails if the SA, TSi or TSr payload is missing.
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        let find = |kind| payloads.iter().find(|p| p.kind() == kind);
        let Some(Payload::Sa(proposals)) = find(kind::SA) else { return Err(Malformed::Missing(kind::SA)) };
        let Some(Payload::TsI(ts_i)) = find(kind::TS_I) else { return Err(Malformed::Missing(kind::TS_I)) };
        let Some(Payload::TsR(ts_r)) = find(kind::TS_R) else { return Err(Malformed::Missing(kind::TS_R)) };
        let is_mode =
            |p: &Payload<'_>| matches!(p, Payload::Notify(n) if n.kind == notify::USE_TRANSPORT_MODE);
        Ok(Self {
            proposals: proposals.clone(),
            ts_i: ts_i.clone(),
            ts_r: ts_r.clone(),
            transport: payloads.iter().any(is_mode),
        })
    }

    /// Returns the payloads of a response.
    pub(in crate::ike) fn payloads(self) -> Vec<Payload<'static>> {
        let mode = self.transport.then(|| Payload::notify(notify::USE_TRANSPORT_MODE, &[]));
        let payloads = [Payload::Sa(self.proposals), Payload::TsI(self.ts_i), Payload::TsR(self.ts_r)];
        payloads.into_iter().chain(mode).collect()
    }

    /// Returns the heap memory in bytes.
    pub(in crate::ike) fn memory(&self) -> usize {
        let transforms = self.proposals.iter().map(|p| size_of_val(&p.transforms[..]) + p.spi.capacity());
        let selectors = self.ts_i.capacity() + self.ts_r.capacity();
        self.proposals.capacity() * size_of::<Proposal>()
            + transforms.sum::<usize>()
            + selectors * size_of::<TrafficSelector>()
    }
}

impl From<&AgreedChild> for ChildOffer {
    /// Returns the responder's answer.
    fn from(agreed: &AgreedChild) -> Self {
        Self {
            proposals: vec![agreed.suite.proposal(agreed.number, agreed.spi_in)],
            ts_i: agreed.remote.clone(),
            ts_r: agreed.local.clone(),
            transport: agreed.transport,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_apply_only_to_their_states() {
        let [rekey_at, expire_at, until] = [1, 2, 3].map(Duration::from_secs);
        let states = [
            ChildState::Installed { rekey_at, expire_at },
            ChildState::Rekeying { expire_at },
            ChildState::Replaced { expire_at },
            ChildState::Deleting { expire_at },
            ChildState::Lingering { until },
        ];
        let [installed, rekeying, replaced, deleting, lingering] = states.map(Some);
        assert_eq!(states.map(ChildState::rekey), [rekeying, None, None, None, None]);
        let abandoned = states.map(|state| state.abandon_rekey(Some(rekey_at)));
        assert_eq!(abandoned, [None, installed, None, None, None]);
        assert_eq!(states.map(ChildState::replace), [replaced, replaced, None, None, None]);
        assert_eq!(states.map(ChildState::delete), [deleting, deleting, deleting, None, None]);
        assert_eq!(states.map(ChildState::delete_again), [None, None, None, replaced, None]);
        assert_eq!(states.map(|state| state.linger(until)), [lingering; 5]);
        let restored = states.map(|state| state.restore(rekey_at));
        assert_eq!(restored, [None, None, installed, None, None]);
        // One that was replaced is deleted first. Once that is done, it ends.
        let expired = states.map(|state| state.expire(expire_at));
        assert_eq!(expired, [None, None, replaced, None, None]);
        let late = ChildState::Installed { rekey_at: until, expire_at };
        assert_eq!(late.due_at(), expire_at, "it expires even if the next rekey would be later");
    }
}
