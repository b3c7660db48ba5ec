//! A new configuration for a running endpoint.

use super::{
    connection::Connection,
    endpoint::Endpoint,
    event::{PeerId, Reason},
    peer::{Peer, Phase},
    pool::Pool,
    settings::Settings,
};
use alloc::{collections::BTreeSet, vec::Vec};
use core::time::Duration;

impl Endpoint {
    /// Replaces the configuration, except for the secret of crash tokens and the key log. Returns the
    /// index that each connection has from now on.
    ///
    /// - Connected peers keep what they agreed to, and their addresses. So do peers whose proof is
    ///   being checked. All others, and all that connect again, get the new connections.
    /// - A connection that we make is made again as the new configuration has it, or not at all if it
    ///   has none of this name; then it is not waited for either. New ones need a call of
    ///   [`Endpoint::dial`].
    pub fn reconfigure(
        &mut self,
        now: Duration,
        connections: Vec<Connection>,
        pools: Vec<Pool>,
        settings: Settings,
    ) -> Vec<usize> {
        let environment = &mut self.environment;
        let crash_secret = environment.settings.crash_secret.take();
        let log_keys = environment.settings.log_keys;
        environment.settings = Settings { crash_secret, log_keys, ..settings };
        let renumbered = self.shared.leases.replace(pools);
        environment.connections.renumber_pools(&renumbered);

        let in_use: BTreeSet<usize> = self.peers.values().flat_map(Peer::used_connections).collect();
        let (indices, renewed) = environment.connections.replace(connections, &in_use);
        let renewed = |index: usize| *renewed.get(index)?;
        let is_gone = |peer: &Peer| {
            let initiates = matches!(peer.phase, Phase::Initiator(_));
            initiates && peer.connection.is_none_or(|connection| renewed(connection).is_none())
        };
        let gone = self.peers.iter().filter(|(_, peer)| is_gone(peer));
        let gone: Vec<PeerId> = gone.map(|(id, _)| *id).collect();
        for peer in self.peers.values_mut() {
            peer.renew_candidates(renewed);
        }
        self.dials.renew(|index| {
            let new = renewed(index)?;
            Some((new, environment.connections.get(new)?))
        });
        for peer in gone {
            self.with(now, peer, |peer, cx| peer.fail(cx, Reason::Closed));
        }
        indices
    }

    /// Returns true if we make this connection.
    pub fn is_dialled(&self, connection: usize) -> bool {
        self.dials.has(connection)
    }
}

impl Peer {
    /// Returns the indices of the connections that the peer uses.
    fn used_connections(&self) -> impl Iterator<Item = usize> {
        let responder = match &self.phase {
            Phase::Responder(responder) => Some(responder),
            _ => None,
        };
        let claims = responder.filter(|responder| responder.state.claim().is_some());
        let candidates = claims.into_iter().flat_map(|responder| responder.handshake.candidates.indices());
        self.connection.into_iter().chain(candidates)
    }

    /// Replaces the connections that the peer may belong to by those that `renewed` returns, unless the
    /// peer has already claimed an identity.
    fn renew_candidates(&mut self, renewed: impl Fn(usize) -> Option<usize>) {
        if let Phase::Responder(responder) = &mut self.phase
            && responder.state.claim().is_none()
        {
            responder.handshake.candidates.renew(renewed);
        }
    }
}
