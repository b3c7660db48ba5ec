//! Ends the links of an identity and refuses it for a time, as the operator wishes.

use super::{
    bars::{Bar, BarError},
    endpoint::Endpoint,
    event::PeerId,
    peer::Peer,
    reason::Reason,
};
use crate::identity::Identity;
use alloc::vec::Vec;
use core::time::Duration;

impl Endpoint {
    /// Closes all peers that have a name of `peer`, and refuses all its names for `time`, by whichever
    /// connection they come. A connection that we make to this identity alone waits too.
    ///
    /// # Errors
    /// [`BarError`]; nothing changes then.
    pub fn bar(&mut self, now: Duration, peer: PeerId, time: Duration) -> Result<(), BarError> {
        let barred = self.peers.get(&peer).filter(|peer| peer.is_established());
        let barred = barred.ok_or(BarError::Unproved)?;
        let identity = barred.name().filter(|name| !name.is_unnamed()).ok_or(BarError::Unnamed)?.clone();
        let connections = &self.environment.connections;
        // Other ends of one connection may have other identities.
        let is_alone = |index: &usize| connections.get(*index).is_some_and(|c| c.remote.len() == 1);
        let dialled = barred.connection.filter(is_alone).and_then(|index| connections.number(index));
        let crypto = &*self.environment.crypto;
        let names = barred.names(crypto);
        let bar = Bar { identity, names: names.clone(), until: now.saturating_add(time), dialled };
        self.shared.bars.insert(now, bar)?;
        let has_name = |peer: &&Peer| !peer.names(crypto).is_disjoint(&names);
        let established = self.peers.values().filter(|peer| peer.is_established());
        let all: Vec<PeerId> = established.filter(has_name).map(|peer| peer.id).collect();
        for peer in all {
            self.with(now, peer, |peer, cx| peer.close(cx, Reason::Barred));
        }
        Ok(())
    }

    /// Lifts the bars of the identities that `is_it` accepts, and returns these. Connections that
    /// waited are made at once.
    pub fn unbar(&mut self, now: Duration, is_it: impl Fn(&Identity) -> bool) -> Vec<Identity> {
        let lifted = self.shared.bars.lift(now, is_it);
        let connections = &self.environment.connections;
        for number in lifted.iter().filter_map(|bar| bar.dialled) {
            self.dials.wake(now, |index| connections.number(index) == Some(number));
        }
        lifted.into_iter().map(|bar| bar.identity).collect()
    }

    /// Returns the barred identities, and the time until each is admitted again.
    pub fn bars(&self, now: Duration) -> impl Iterator<Item = (&Identity, Duration)> {
        self.shared.bars.iter(now).map(move |bar| (&bar.identity, bar.until.saturating_sub(now)))
    }
}
