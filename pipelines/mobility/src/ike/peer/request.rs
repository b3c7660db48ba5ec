//! Requests of ours: those that wait for their turn, and what is remembered of the one on its way.

use super::creation::CreateSent;
use crate::{ike::event::ChildId, path::Addresses};
use alloc::boxed::Box;
use core::time::Duration;

/// What a request on its way asks for.
#[derive(Debug)]
pub(in crate::ike) enum Request {
    /// IKE_INTERMEDIATE or IKE_AUTH: the state of the handshake waits for the answer.
    Handshake,
    /// New keys, or a new child SA.
    Create(Box<CreateSent>),
    /// The end of this child SA.
    Delete(ChildId),
    /// The end of the IKE SA.
    DeleteIkeSa,
    /// A sign of life.
    Liveness,
    /// Our new addresses.
    Update(Box<Update>),
    /// Whether the peer is where it was said to be: what it is to send back.
    Routability([u8; 16]),
    /// Nothing any more: it keeps its message ID, but its answer no longer matters.
    Withdrawn,
}

/// An update of addresses on its way.
#[derive(Debug)]
pub(in crate::ike) struct Update {
    /// What the peer is to send back.
    pub(in crate::ike) cookie: [u8; 16],
    /// The addresses at the time.
    pub(in crate::ike) addresses: Addresses,
    /// How often it was refused because of a NAT.
    pub(in crate::ike) tries: u32,
}

/// An update of addresses that is to be tried again.
#[derive(Clone, Copy, Debug)]
pub(in crate::ike) struct Retry {
    /// When; none: as soon as the window is free.
    pub(in crate::ike) at: Option<Duration>,
    /// How often it was refused.
    pub(in crate::ike) tries: u32,
}

/// A request that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) enum QueuedRequest {
    /// Another child SA, by this policy of the connection.
    Child(usize),
    /// New keys of a child SA.
    RekeyChild(ChildId),
    /// New keys of the IKE SA.
    RekeyIkeSa,
    /// The end of a child SA.
    Delete(ChildId),
    /// A sign of life.
    Liveness,
    /// Tell our new addresses.
    Update,
    /// Ask whether the peer is there.
    Routability(Addresses),
}
