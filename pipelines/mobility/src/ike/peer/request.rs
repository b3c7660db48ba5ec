//! Requests of ours: those that wait for their turn, and what is remembered of the one on its way.

use super::creation::Making;
use crate::{crypto::KexSecret, ike::event::ChildId, path::Addresses};
use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

/// What a request on its way asks for.
#[derive(Debug)]
pub(super) enum Request {
    /// IKE_INTERMEDIATE, with this private part.
    Intermediate(Box<dyn KexSecret>),
    /// IKE_AUTH.
    Auth,
    /// New keys, or a new child SA.
    Create(Box<Making>),
    /// The end of these child SAs.
    Delete(Vec<ChildId>),
    /// The end of the IKE SA.
    DeleteSession,
    /// A sign of life.
    Liveness,
    /// Our new addresses.
    Update(Box<Update>),
    /// Whether the peer is where it was said to be: what it is to send back; nothing once it is said to be elsewhere.
    Routability(Option<[u8; 16]>),
}

/// An update of addresses on its way.
#[derive(Debug)]
pub(super) struct Update {
    /// What the peer is to send back.
    pub(super) cookie: [u8; 16],
    /// The addresses at the time.
    pub(super) addresses: Addresses,
    /// How often it was refused because of a NAT.
    pub(super) tries: u32,
}

/// An update of addresses that is to be tried again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    /// When; none: as soon as the window is free.
    pub(super) at: Option<Duration>,
    /// How often it was refused.
    pub(super) tries: u32,
}

/// A request that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Another child SA, by this policy of the connection.
    Child(usize),
    /// New keys of a child SA.
    RekeyChild(ChildId),
    /// New keys of the IKE SA.
    RekeySession,
    /// The end of a child SA.
    Delete(ChildId),
    /// A sign of life.
    Liveness,
    /// Tell our new addresses.
    Update,
    /// Ask whether the peer is there.
    Routability(Addresses),
}
