//! The peers before and after a peer, when one side authenticates again.

use crate::ike::{
    event::{ChildId, PeerId},
    reason::Reason,
};
use alloc::vec::Vec;
use core::{net::IpAddr, time::Duration};

/// The peer that this one replaces, and the one that replaces it.
#[derive(Debug, Default)]
pub(in crate::ike) struct Succession {
    pub(in crate::ike) predecessor: Option<PeerId>,
    /// The inner addresses that the predecessor has from the gateway.
    pub(super) inner: Vec<IpAddr>,
    /// New child SAs, which may take over the traffic of the predecessor's.
    pub(super) new_children: Vec<ChildId>,
    pub(in crate::ike) successor: Option<PeerId>,
    /// When the other side made the successor, which may mean that it has restarted.
    pub(super) doubted_at: Option<Duration>,
    /// True if the data plane has said since whether packets come from the peer.
    pub(super) is_reported: bool,
    /// When the IKE SA is deleted in favour of the successor; then, when the peer ends at the latest.
    pub(super) retires_at: Option<Duration>,
    /// True once the IKE SA is being deleted for that.
    pub(super) is_retiring: bool,
    /// When we authenticate again.
    pub(super) renews_at: Option<Duration>,
    /// Number of attempts to do so that failed.
    pub(super) failures: u32,
    /// No other attempt is made before this time, whatever the peer wants.
    pub(super) retry_at: Duration,
    /// Why the peer has ended, once it has.
    pub(in crate::ike) ended_for: Option<Reason>,
}
