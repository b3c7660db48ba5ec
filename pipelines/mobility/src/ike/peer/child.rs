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
pub(super) struct Child {
    pub(super) id: ChildId,
    pub(super) spi_in: u32,
    pub(super) spi_out: u32,
    /// The connection's policy that it follows.
    pub(super) policy: usize,
    pub(super) suite: EspSuite,
    pub(super) local: Vec<TrafficSelector>,
    pub(super) remote: Vec<TrafficSelector>,
    /// What its selectors cost the data plane.
    pub(super) rules: usize,
    pub(super) transport: bool,
    /// When its keys are to be changed, and when they end.
    pub(super) rekey_at: Duration,
    pub(super) expire_at: Duration,
    pub(super) state: ChildState,
    /// The pair that takes its place.
    pub(super) successor: Option<ChildId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChildState {
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
pub(super) struct Agreed {
    pub(super) name: String,
    pub(super) policy: usize,
    pub(super) suite: EspSuite,
    pub(super) number: u8,
    pub(super) spi_in: u32,
    pub(super) spi_out: u32,
    pub(super) local: Vec<TrafficSelector>,
    pub(super) remote: Vec<TrafficSelector>,
    pub(super) transport: bool,
    pub(super) replaces: Option<ChildId>,
}

impl Agreed {
    pub(super) fn event(&self, keys: [Secret; 2], path: Path, send: bool) -> ChildSa {
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
