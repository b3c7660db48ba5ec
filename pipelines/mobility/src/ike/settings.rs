//! Bounds and times that hold for all peers.

use crate::retransmission::Retransmission;
use core::time::Duration;

/// Bounds and times that hold for all peers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From how many half-open peers on a cookie is asked for (RFC 7296 §2.6).
    pub cookie_threshold: usize,
    /// Most half-open peers.
    pub half_open_limit: usize,
    /// Most established peers.
    pub peer_limit: usize,
    /// Most peers of one identity of a connection; beyond that the oldest makes room. Those without
    /// one have a bound of their own, [`bounds::NAMELESS`](super::bounds::NAMELESS).
    pub device_limit: usize,
    /// Most child SAs of all peers. While keys are changed, there may be twice as many.
    pub child_limit: usize,
    /// How long a peer may take to prove who it is.
    pub half_open: Duration,
    /// Most tasks that may wait for peers that are not established.
    pub task_limit: usize,
    /// When requests are sent again.
    pub retransmission: Retransmission,
    /// How long what is replaced or deleted is still received by, and answers are repeated.
    pub linger: Duration,
    /// How often a NAT's mapping is kept alive (RFC 3948 §4).
    pub keepalive: Duration,
    /// How long a new path may go without the peer's word.
    pub routability: Duration,
    /// Whether [`super::event::Event::IkeSaKeys`] is wanted.
    pub log_keys: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cookie_threshold: 256,
            half_open_limit: 8192,
            peer_limit: 65_536,
            device_limit: 16,
            child_limit: 131_072,
            half_open: Duration::from_secs(30),
            task_limit: 512,
            retransmission: Retransmission::default(),
            linger: Duration::from_secs(4),
            keepalive: Duration::from_secs(20),
            routability: Duration::from_secs(10),
            log_keys: false,
        }
    }
}
