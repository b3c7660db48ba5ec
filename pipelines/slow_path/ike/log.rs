//! The log's lines about peers: one for each link that comes up, ends or fails, in plain words.

use super::peers::{Ended, Traffic};
use std::{collections::VecDeque, net::SocketAddr, time::Duration};
use tracing::{info, warn};
use wayfarer_mobility::{identity::Identity, ike::event::Reason, rate::NetworkRates};

/// Logged for an authenticated peer without a name.
const UNNAMED: &str = "the RADIUS server accepted a peer, but reported no name for it, or only the one that the peer itself \
                       claimed: the peer has no name and matches no connection with a remote_id; see trust_identity";
/// Lines about failed connections that one network may cause at once, and the time until one more.
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_secs(10);
/// Failed peers that are remembered.
const MAX_FAILED: usize = 100;

/// Writes the lines. Anybody can fail to connect, so these lines are limited for each network, and
/// those that were left out are counted.
#[derive(Debug, Default)]
pub(super) struct PeerLog {
    networks: NetworkRates,
    left_out: u64,
    /// The last peers of which a line says that they did not connect, the newest first.
    failed: VecDeque<FailedPeer>,
}

/// A peer that did not connect.
#[derive(Debug)]
pub(super) struct FailedPeer {
    /// When it failed, since the start.
    pub(super) at: Duration,
    /// Its address.
    pub(super) remote: SocketAddr,
    /// What it called itself, if it got that far.
    pub(super) claimed: Option<String>,
    /// The name of its connection, if it got that far.
    pub(super) connection: Option<String>,
    /// Why it did not connect.
    pub(super) reason: Reason,
}

impl PeerLog {
    /// Logs that a peer connected by this connection. `claimed` is its own name for itself, if it
    /// proved another one.
    pub(super) fn connected(
        &self,
        connection: &str,
        identity: &Identity,
        claimed: Option<&Identity>,
        remote: SocketAddr,
    ) {
        let claimed = claimed.map(tracing::field::display);
        info!(connection, %identity, claimed, %remote, "peer connected");
        if identity.is_unnamed() {
            warn!(%remote, "{UNNAMED}");
        }
    }

    /// Logs that a connected peer's link ended.
    pub(super) fn ended(
        &self,
        now: Duration,
        peer: Ended,
        connection: &str,
        remote: SocketAddr,
        reason: Reason,
    ) {
        let Ended { name: identity, since, traffic, .. } = peer;
        let Traffic { received_packets, received_bytes, sent_packets, sent_bytes } = traffic;
        let seconds = now.saturating_sub(since).as_secs();
        info!(
            identity, connection, %remote, %reason, seconds,
            received_packets, received_bytes, sent_packets, sent_bytes, "peer gone"
        );
    }

    /// Logs that a peer did not connect. `claimed` is what it called itself, if it got that far.
    pub(super) fn failed(
        &mut self,
        now: Duration,
        connection: Option<&str>,
        claimed: Option<&Identity>,
        remote: SocketAddr,
        reason: Reason,
    ) {
        if !self.networks.admits(now, remote.ip(), BURST, REFILL) {
            self.left_out += 1;
            return;
        }
        let left_out = Some(std::mem::take(&mut self.left_out)).filter(|count| *count > 0);
        let claimed = claimed.map(Identity::to_string);
        info!(claimed, connection, %remote, %reason, left_out, "peer not connected");
        if reason == Reason::Unnamed {
            warn!(%remote, "{UNNAMED}");
        }
        self.failed.truncate(MAX_FAILED - 1);
        let connection = connection.map(str::to_owned);
        self.failed.push_front(FailedPeer { at: now, remote, claimed, connection, reason });
    }

    /// Returns the last peers that did not connect, the newest first.
    pub(super) fn failures(&self) -> impl Iterator<Item = &FailedPeer> {
        self.failed.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_does_not_silence_another() {
        let mut log = PeerLog::default();
        let now = Duration::from_secs(100);
        for host in 0..100 {
            log.failed(now, None, None, ([192, 0, 2, host], 500).into(), Reason::NoProposal);
        }
        log.failed(now, None, None, ([198, 51, 100, 1], 500).into(), Reason::NoProposal);
        assert_eq!(log.failures().count(), BURST as usize + 1);
    }

    #[test]
    fn remembers_the_last_hundred_failures() {
        let mut log = PeerLog::default();
        for n in 0..300u32 {
            let remote = SocketAddr::from(((n << 8).to_be_bytes(), 500));
            log.failed(Duration::from_secs(1), Some("office"), None, remote, Reason::NoProposal);
        }
        let all: Vec<_> = log.failures().collect();
        assert_eq!((all.len(), all[0].remote), (MAX_FAILED, ([0, 1, 43, 0], 500).into()));
        assert_eq!(all[0].reason.to_string(), "no common algorithms");
    }
}
