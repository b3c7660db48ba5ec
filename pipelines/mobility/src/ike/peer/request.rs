//! Our requests: those in the queue, and the one that is outstanding.

use super::creation::CreateSent;
use crate::{ike::event::ChildId, path::Addresses};
use alloc::boxed::Box;
use core::time::Duration;

/// The purpose of an outstanding request.
#[derive(Debug)]
pub(in crate::ike) enum Request {
    /// IKE_INTERMEDIATE or IKE_AUTH; the state of the handshake waits for the response.
    Handshake,
    /// A rekey, or a new child SA.
    Create(Box<CreateSent>),
    /// Deletion of this child SA.
    Delete(ChildId),
    /// Deletion of the IKE SA.
    DeleteIkeSa,
    /// A liveness check.
    Liveness,
    /// An update of our addresses.
    Update(Box<Update>),
    /// A probe of the peer's address, with the COOKIE2 that the peer must return.
    Routability([u8; 16]),
    /// No longer needed: it keeps its message ID, but its response does not matter.
    Withdrawn,
}

/// An outstanding update of our addresses.
#[derive(Debug)]
pub(in crate::ike) struct Update {
    /// The COOKIE2 that the peer must return.
    pub(in crate::ike) cookie: [u8; 16],
    /// The addresses that it announced.
    pub(in crate::ike) addresses: Addresses,
    /// Number of updates that were refused before.
    pub(in crate::ike) tries: u32,
}

/// An update of our addresses that must be repeated.
#[derive(Clone, Copy, Debug)]
pub(in crate::ike) struct Retry {
    /// When to repeat it; `None` once it is queued.
    pub(in crate::ike) at: Option<Duration>,
    /// Number of updates that were refused so far.
    pub(in crate::ike) tries: u32,
}

/// A request in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) enum QueuedRequest {
    /// A child SA with this policy of the connection.
    Child(usize),
    /// A rekey of a child SA.
    RekeyChild(ChildId),
    /// A rekey of the IKE SA.
    RekeyIkeSa,
    /// Deletion of a child SA.
    Delete(ChildId),
    /// A liveness check.
    Liveness,
    /// An update of our addresses.
    Update,
    /// A probe of the peer at these addresses.
    Routability(Addresses),
}
