//! Our requests: those in the queue, and the one that is outstanding. Each outstanding one is a type
//! that its response consumes.

use super::creation::{CreateSent, FollowupSent};
use crate::{
    ike::{context::Context, event::ChildId},
    path::{Addresses, Path},
    path_mtu::Attempt,
};
use alloc::{boxed::Box, vec::Vec};
use core::{net::SocketAddr, time::Duration};

/// An outstanding request.
#[derive(Debug)]
pub(in crate::ike) enum Request {
    /// IKE_INTERMEDIATE or IKE_AUTH; the state of the handshake waits for the response.
    Handshake,
    /// A rekey, or a new child SA.
    Create(Box<CreateSent>),
    /// A further key exchange for one of these.
    Followup(Box<FollowupSent>),
    DeleteChild(ChildDeleteSent),
    DeleteUnused(UnusedDeleteSent),
    DeleteIkeSa(IkeSaDeleteSent),
    Liveness(LivenessSent),
    CrashToken(CrashTokenSent),
    AuthLifetime(AuthLifetimeSent),
    Update(Box<UpdateSent>),
    Probe(ProbeSent),
    PathProbe(PathProbeSent),
    Withdrawn(Withdrawn),
}

/// The deletion of a child SA.
#[derive(Debug)]
pub(in crate::ike) struct ChildDeleteSent {
    pub(in crate::ike) child: ChildId,
}

/// The deletion of a child SA that the peer created, and that we did not take.
#[derive(Debug)]
pub(in crate::ike) struct UnusedDeleteSent {
    /// Our SPI of the child SA.
    pub(in crate::ike) spi: u32,
}

/// The deletion of the IKE SA by which it was sent.
#[derive(Debug)]
pub(in crate::ike) struct IkeSaDeleteSent {
    /// Our SPI of the IKE SA.
    pub(in crate::ike) spi: u64,
}

/// A liveness check, or one of the mapping of the NAT in front of us.
#[derive(Debug)]
pub(in crate::ike) struct LivenessSent {
    /// Our SPI of the IKE SA by which it was sent.
    pub(in crate::ike) spi: u64,
    /// The addresses that it was first sent between.
    pub(in crate::ike) addresses: Addresses,
    /// The peer is not given up before this time, even if all repetitions are unanswered.
    pub(in crate::ike) until: Duration,
}

/// Our token for the IKE SA by which it was sent.
#[derive(Debug)]
pub(in crate::ike) struct CrashTokenSent;

/// How long the peer's authentication counts.
#[derive(Debug)]
pub(in crate::ike) struct AuthLifetimeSent;

/// A probe of the peer's address.
#[derive(Debug)]
pub(in crate::ike) struct ProbeSent {
    /// The COOKIE2 that the peer should return.
    pub(in crate::ike) cookie: [u8; 16],
    /// The address that it was sent to.
    pub(in crate::ike) remote: SocketAddr,
}

/// A probe of the path's MTU.
#[derive(Debug)]
pub(in crate::ike) struct PathProbeSent {
    /// The path.
    pub(in crate::ike) path: Path,
    /// The addresses that it was first sent between.
    pub(in crate::ike) addresses: Addresses,
    /// What is tried.
    pub(in crate::ike) attempt: Attempt,
    /// The length of the packet that was sent, which is less by part of a cipher's block.
    pub(in crate::ike) length: u16,
    /// When it was first sent.
    pub(in crate::ike) begun_at: Duration,
    /// The datagrams at that length, once it has been sent without its padding too. Until then, its
    /// answer shows that the path takes the length.
    pub(in crate::ike) whole: Option<Vec<Vec<u8>>>,
    /// True if its answer shows nothing: the path has changed, another request waits, or the request
    /// without its padding was not answered soon either.
    pub(in crate::ike) is_void: bool,
    /// True if another request waits for its answer. It is given up some time.
    pub(in crate::ike) is_in_the_way: bool,
    /// True if it was sent without its padding at once, because that request cannot wait.
    pub(in crate::ike) is_hurried: bool,
}

/// A request that is no longer needed: it keeps its message ID, but its response does not matter.
#[derive(Debug)]
pub(in crate::ike) struct Withdrawn;

/// An update of our addresses.
#[derive(Debug)]
pub(in crate::ike) struct UpdateSent {
    /// The SPIs of the IKE SA by which it was sent, which its NAT detection includes.
    pub(in crate::ike) spis: [u64; 2],
    /// The COOKIE2 that the peer must return.
    pub(in crate::ike) cookie: [u8; 16],
    /// The addresses that it announced.
    pub(in crate::ike) addresses: Addresses,
    /// Number of updates that were refused before.
    pub(in crate::ike) tries: u32,
}

impl Request {
    /// Withdraws the request because its peer has ended, and releases what was reserved for it. Only
    /// the deletion of the IKE SA still waits for its response.
    pub(in crate::ike) fn withdraw(self, cx: &mut Context<'_>) -> Self {
        match self {
            Self::DeleteIkeSa(sent) => return Self::DeleteIkeSa(sent),
            Self::Create(sent) => sent.create.withdraw(cx),
            Self::Followup(sent) => sent.agreed.create.withdraw(cx),
            Self::Handshake
            | Self::DeleteChild(_)
            | Self::DeleteUnused(_)
            | Self::Liveness(_)
            | Self::CrashToken(_)
            | Self::AuthLifetime(_)
            | Self::Update(_)
            | Self::Probe(_)
            | Self::PathProbe(_)
            | Self::Withdrawn(_) => {}
        }
        Self::Withdrawn(Withdrawn)
    }
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
    DeleteChild(ChildId),
    /// Deletion of a child SA that the peer created by our request, and that we did not take. Our
    /// SPI of it.
    DeleteUnused(u32),
    /// A liveness check.
    Liveness,
    /// A check of the mapping of the NAT in front of us.
    MappingCheck,
    /// Our token for the active IKE SA.
    CrashToken,
    /// How long the peer's authentication counts.
    AuthLifetime,
    /// An update of our addresses.
    Update,
    /// A probe of the peer at these addresses.
    Probe(Addresses),
}

impl QueuedRequest {
    /// Returns true if it only asks something, so that it can wait for the answer to another.
    pub(in crate::ike) fn is_check(&self) -> bool {
        matches!(self, Self::Liveness | Self::MappingCheck)
    }

    /// Returns true if it creates an SA.
    pub(in crate::ike) fn creates(&self) -> bool {
        matches!(self, Self::Child(_) | Self::RekeyChild(_) | Self::RekeyIkeSa)
    }
}
