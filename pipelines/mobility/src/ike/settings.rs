//! Limits and times that apply to all peers.

use super::connection::SharedKey;
use crate::retransmission::Retransmission;
use core::time::Duration;

/// Limits and times that apply to all peers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of half-open peers from which on cookies are required (RFC 7296 §2.6).
    pub cookie_threshold: usize,
    /// Most half-open peers.
    pub half_open_limit: usize,
    /// Most established peers. A peer and the one that replaces it when it authenticates again count as
    /// one, here and for `device_limit`.
    pub peer_limit: usize,
    /// Most peers of one identity of a connection; beyond that, the oldest makes room. Peers
    /// without an identity have a limit of their own,
    /// [`bounds::NAMELESS_SHARE`](super::bounds::NAMELESS_SHARE).
    pub device_limit: usize,
    /// Most child SAs of all peers. There may be twice as many while they are rekeyed and peers
    /// authenticate again.
    pub child_limit: usize,
    /// Time that a peer may take to authenticate. It does not run while a RADIUS server is asked.
    pub half_open: Duration,
    /// Most time that RADIUS servers may add to that.
    pub server_time: Duration,
    /// Most tasks that may wait for unauthenticated peers.
    pub task_limit: usize,
    /// When requests are sent again.
    pub retransmission: Retransmission,
    /// Time for which replaced or deleted SAs still receive, and responses are repeated.
    pub linger: Duration,
    /// Time between two NAT keepalives (RFC 3948 §4).
    pub keepalive: Duration,
    /// Time for which a new path is used without the peer's confirmation.
    pub routability: Duration,
    /// The secret from which peers' crash tokens derive, at least 32 bytes; `None` to give them none.
    /// No other endpoint may have it (RFC 6290 §9.2).
    pub crash_secret: Option<SharedKey>,
    /// False for an endpoint without NAT traversal, which sends no NAT_DETECTION (RFC 7296 §2.23).
    /// Simulated peers may be like that.
    pub nat_traversal: bool,
    /// False for an endpoint that does not say that it is Wayfarer. Simulated peers may be like that.
    pub vendor_id: bool,
    /// True if [`super::event::Event::IkeSaKeys`] must be reported.
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
            server_time: Duration::from_secs(300),
            task_limit: 512,
            retransmission: Retransmission::default(),
            linger: Duration::from_secs(4),
            keepalive: Duration::from_secs(20),
            routability: Duration::from_secs(10),
            crash_secret: None,
            nat_traversal: true,
            vendor_id: true,
            log_keys: false,
        }
    }
}
