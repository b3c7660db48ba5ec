//! Connections that we make, and repeat when they end.

use super::{
    connection::Connection,
    event::PeerId,
    nat::{IKE_PORT, NAT_T_PORT},
};
use crate::{
    path::Addresses,
    retransmission::{MAX_BACK_OFF, back_off},
};
use alloc::vec::Vec;
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Returns the addresses between which we connect to a peer.
pub(super) fn addresses(local: IpAddr, remote: SocketAddr) -> Addresses {
    // On any other port, messages have the non-ESP marker from the first on (RFC 7296 §2.23).
    let port = if remote.port() == IKE_PORT { IKE_PORT } else { NAT_T_PORT };
    Addresses { local: SocketAddr::new(local, port), remote }
}

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

    /// Makes `connection`, with index `index`, from the next attempt on, which is due now if it has
    /// no peer. Returns false if we do not make it.
    fn renew(&mut self, now: Duration, index: usize, connection: &Connection) -> bool {
        let Some(remote) = connection.remote else { return false };
        let current = self.addresses.local.ip();
        let fits = |own: &IpAddr| own.is_ipv4() == remote.is_ipv4() && connection.is_local(*own);
        let mut all = [current].into_iter().chain(connection.local.iter().copied());
        let Some(local) = all.find(fits) else { return false };
        self.connection = index;
        self.addresses = addresses(local, remote);
        if self.peer.is_none() {
            self.failures = 0;
            self.at = Some(now);
        }
        true
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

    /// Returns true if we make the connection with this index.
    pub(super) fn has(&self, connection: usize) -> bool {
        self.0.iter().any(|dial| dial.connection == connection)
    }

    /// Replaces each connection, given by its index, by the one that `renewed` returns. Those
    /// without one are not made again. Those that are not up are due now.
    pub(super) fn renew<'a>(
        &mut self,
        now: Duration,
        renewed: impl Fn(usize) -> Option<(usize, &'a Connection)>,
    ) {
        self.0.retain_mut(|dial| {
            renewed(dial.connection).is_some_and(|(index, connection)| dial.renew(now, index, connection))
        });
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

    /// Notes that `new` replaces `old`, if that is the peer of a connection.
    pub(super) fn hand_over(&mut self, old: PeerId, new: PeerId) {
        if let Some(dial) = self.of(old) {
            dial.peer = Some(new);
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
