//! The child SAs of a peer.

use crate::{
    crypto::Secret,
    ike::{
        event::{ChildId, ChildSa},
        suite::EspSuite,
        wire::{Malformed, Payload, Proposal, TrafficSelector, kind, notify},
    },
    path::Path,
};
use alloc::{string::String, vec, vec::Vec};
use core::time::Duration;

/// A child SA that has keys: the two ESP SAs of a tunnel.
#[derive(Debug)]
pub(in crate::ike) struct Child {
    pub(in crate::ike) id: ChildId,
    pub(in crate::ike) sa: AgreedChild,
    /// What its selectors cost the data plane.
    pub(in crate::ike) rules: usize,
    /// When its keys are to be changed, and when they end.
    pub(in crate::ike) rekey_at: Duration,
    pub(in crate::ike) expire_at: Duration,
    pub(in crate::ike) state: ChildState,
    /// The child SA that takes its place.
    pub(in crate::ike) successor: Option<ChildId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum ChildState {
    /// Carries traffic.
    Installed,
    /// We asked for another in its place.
    Rekeying,
    /// Another has taken its place; it is still received from.
    Replaced,
    /// We asked to delete it.
    Deleting,
    /// It is deleted; what was on its way still comes in until this time.
    Lingering(Duration),
}

/// What both sides agreed on for a child SA.
#[derive(Clone, Debug)]
pub(in crate::ike) struct AgreedChild {
    pub(in crate::ike) name: String,
    /// The connection's policy that it follows.
    pub(in crate::ike) policy: usize,
    pub(in crate::ike) suite: EspSuite,
    /// The number of the proposal.
    pub(in crate::ike) number: u8,
    pub(in crate::ike) spi_in: u32,
    pub(in crate::ike) spi_out: u32,
    pub(in crate::ike) local: Vec<TrafficSelector>,
    pub(in crate::ike) remote: Vec<TrafficSelector>,
    pub(in crate::ike) transport: bool,
    pub(in crate::ike) replaces: Option<ChildId>,
}

impl AgreedChild {
    /// Returns what the data plane is told.
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

/// What IKE_AUTH and CREATE_CHILD_SA say of a child SA, in a request or its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) struct ChildOffer {
    pub(in crate::ike) proposals: Vec<Proposal>,
    /// Traffic at the side of the exchange's initiator.
    pub(in crate::ike) ts_i: Vec<TrafficSelector>,
    /// Traffic at the side of its responder.
    pub(in crate::ike) ts_r: Vec<TrafficSelector>,
    /// Whether it is to be in transport mode.
    pub(in crate::ike) transport: bool,
}

impl ChildOffer {
    /// Reads what a message says of a child SA.
    ///
    /// # Errors
    /// If the SA, TSi or TSr payload is missing.
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

    /// Returns the payloads of an answer.
    pub(in crate::ike) fn payloads(self) -> Vec<Payload<'static>> {
        let mode = self.transport.then(|| Payload::notify(notify::USE_TRANSPORT_MODE, &[]));
        let payloads = [Payload::Sa(self.proposals), Payload::TsI(self.ts_i), Payload::TsR(self.ts_r)];
        payloads.into_iter().chain(mode).collect()
    }

    /// Returns the bytes of memory beside its own.
    pub(in crate::ike) fn memory(&self) -> usize {
        let transforms = self.proposals.iter().map(|p| size_of_val(&p.transforms[..]) + p.spi.capacity());
        let selectors = self.ts_i.capacity() + self.ts_r.capacity();
        self.proposals.capacity() * size_of::<Proposal>()
            + transforms.sum::<usize>()
            + selectors * size_of::<TrafficSelector>()
    }
}

impl From<&AgreedChild> for ChildOffer {
    /// Returns what the responder answers.
    fn from(agreed: &AgreedChild) -> Self {
        Self {
            proposals: vec![agreed.suite.proposal(agreed.number, agreed.spi_in)],
            ts_i: agreed.remote.clone(),
            ts_r: agreed.local.clone(),
            transport: agreed.transport,
        }
    }
}
