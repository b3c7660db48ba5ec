//! Connections that we make, and make again.

use super::event::PeerId;
use crate::path::Addresses;
use alloc::vec::Vec;
use core::{net::IpAddr, time::Duration};

/// Longest wait before a connection is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A connection that we make, and make again.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) connection: usize,
    pub(super) addresses: Addresses,
    pub(super) peer: Option<PeerId>,
    failures: u32,
    at: Option<Duration>,
}

impl Dial {
    /// Tries again after the longest wait: the peer has connected to us meanwhile.
    pub(super) fn postpone(&mut self, now: Duration) {
        self.at = Some(now + LONGEST_WAIT);
    }
}

/// All connections that we make.
#[derive(Debug, Default)]
pub(super) struct Dials(Vec<Dial>);

impl Dials {
    /// Adds a connection that is to be made now.
    pub(super) fn push(&mut self, now: Duration, connection: usize, addresses: Addresses) {
        self.0.push(Dial { connection, addresses, peer: None, failures: 0, at: Some(now) });
    }

    /// Returns a connection that is to be made now. It is returned once.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<&mut Dial> {
        let dial = self.0.iter_mut().find(|dial| dial.at.is_some_and(|at| at <= now))?;
        dial.at = None;
        Some(dial)
    }

    /// Returns when the next connection is to be made.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.0.iter().filter_map(|dial| dial.at).min()
    }

    /// Notes that `peer` is established.
    pub(super) fn peer_established(&mut self, peer: PeerId) {
        if let Some(dial) = self.of(peer) {
            dial.failures = 0;
        }
    }

    /// Has the connection of `peer`, which has ended, made again: each time that it fails after
    /// twice the wait.
    pub(super) fn peer_ended(&mut self, now: Duration, peer: PeerId) {
        if let Some(dial) = self.of(peer) {
            let wait = Duration::from_secs(1) * 2u32.saturating_pow(dial.failures.min(8));
            dial.peer = None;
            dial.at = Some(now + wait.min(LONGEST_WAIT));
            dial.failures += 1;
        }
    }

    /// Makes the connection of `peer` from `local` from the next time on.
    pub(super) fn set_local(&mut self, peer: PeerId, local: IpAddr) {
        if let Some(dial) = self.of(peer) {
            dial.addresses.local.set_ip(local);
        }
    }

    fn of(&mut self, peer: PeerId) -> Option<&mut Dial> {
        self.0.iter_mut().find(|dial| dial.peer == Some(peer))
    }
}
