//! Connections that we make, and repeat when they end.

use super::event::PeerId;
use crate::{
    path::Addresses,
    retransmission::{MAX_BACK_OFF, back_off},
};
use alloc::vec::Vec;
use core::{net::IpAddr, time::Duration};

/// A connection that we make, and repeat when it ends.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) connection: usize,
    pub(super) addresses: Addresses,
    pub(super) peer: Option<PeerId>,
    failures: u32,
    at: Option<Duration>,
}

impl Dial {
    /// Postpones the next attempt by the longest wait, because the peer has connected to us
    /// meanwhile.
    pub(super) fn postpone(&mut self, now: Duration) {
        self.at = Some(now + MAX_BACK_OFF);
    }
}

/// All connections that we make.
#[derive(Debug, Default)]
pub(super) struct Dials(Vec<Dial>);

impl Dials {
    /// Adds a connection that is due at once.
    pub(super) fn push(&mut self, now: Duration, connection: usize, addresses: Addresses) {
        self.0.push(Dial { connection, addresses, peer: None, failures: 0, at: Some(now) });
    }

    /// Returns a connection that is due. Each is returned once.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<&mut Dial> {
        let dial = self.0.iter_mut().find(|dial| dial.at.is_some_and(|at| at <= now))?;
        dial.at = None;
        Some(dial)
    }

    /// Returns when the next connection is due.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.0.iter().filter_map(|dial| dial.at).min()
    }

    /// Notes that `peer` is established.
    pub(super) fn peer_established(&mut self, peer: PeerId) {
        if let Some(dial) = self.of(peer) {
            dial.failures = 0;
        }
    }

    /// Schedules the connection of `peer`, which has ended, again. The wait doubles with each
    /// failure.
    pub(super) fn peer_ended(&mut self, now: Duration, peer: PeerId) {
        if let Some(dial) = self.of(peer) {
            dial.peer = None;
            dial.at = Some(now + back_off(dial.failures));
            dial.failures += 1;
        }
    }

    /// Changes the local address that the connection of `peer` uses from its next attempt on.
    pub(super) fn set_local(&mut self, peer: PeerId, local: IpAddr) {
        if let Some(dial) = self.of(peer) {
            dial.addresses.local.set_ip(local);
        }
    }

    fn of(&mut self, peer: PeerId) -> Option<&mut Dial> {
        self.0.iter_mut().find(|dial| dial.peer == Some(peer))
    }
}
