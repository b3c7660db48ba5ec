//! The child SAs of a peer.

use crate::{
    crypto::Secret,
    ike::{
        event::{ChildId, ChildSa},
        suite::EspSuite,
        wire::TrafficSelector,
    },
    path::Path,
};
use alloc::{string::String, vec::Vec};
use core::time::Duration;

/// A pair of child SAs.
#[derive(Debug)]
pub(in crate::ike) struct Child {
    pub(in crate::ike) id: ChildId,
    pub(in crate::ike) spi_in: u32,
    pub(in crate::ike) spi_out: u32,
    /// The connection's policy that it follows.
    pub(in crate::ike) policy: usize,
    pub(in crate::ike) suite: EspSuite,
    pub(in crate::ike) local: Vec<TrafficSelector>,
    pub(in crate::ike) remote: Vec<TrafficSelector>,
    /// What its selectors cost the data plane.
    pub(in crate::ike) rules: usize,
    pub(in crate::ike) transport: bool,
    /// When its keys are to be changed, and when they end.
    pub(in crate::ike) rekey_at: Duration,
    pub(in crate::ike) expire_at: Duration,
    pub(in crate::ike) state: ChildState,
    /// The pair that takes its place.
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

/// What both sides agreed on, before it has keys.
#[derive(Clone, Debug)]
pub(in crate::ike) struct AgreedChild {
    pub(in crate::ike) name: String,
    pub(in crate::ike) policy: usize,
    pub(in crate::ike) suite: EspSuite,
    pub(in crate::ike) number: u8,
    pub(in crate::ike) spi_in: u32,
    pub(in crate::ike) spi_out: u32,
    pub(in crate::ike) local: Vec<TrafficSelector>,
    pub(in crate::ike) remote: Vec<TrafficSelector>,
    pub(in crate::ike) transport: bool,
    pub(in crate::ike) replaces: Option<ChildId>,
}

impl AgreedChild {
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
