//! A new configuration for a running endpoint.

use super::{
    connection::Connection,
    connections::Connections,
    endpoint::Endpoint,
    event::PeerId,
    peer::{
        Peer, Phase,
        choose::Candidates,
        responder::{InitKex, ResponderState},
    },
    pool::Pool,
    reason::Reason,
    settings::Settings,
};
use crate::path::Addresses;
use alloc::vec::Vec;
use core::{net::SocketAddr, ops::Range, time::Duration};

impl Endpoint {
    /// Replaces the configuration, except for the secret of crash tokens and the key log. Returns
    /// the indices of the new connections, in their order.
    ///
    /// - Connected peers keep what they agreed to, and their addresses. All that connect from now
    ///   on get the new connections.
    /// - Peers that have claimed an identity, and are not established yet, are refused at their
    ///   next step: nobody gets in by earlier credentials.
    /// - A connection that we make is made again as the new configuration has it, at once if it is
    ///   not up, or not at all if the configuration has none of this name. New ones need a call of
    ///   [`Endpoint::dial`].
    pub fn reconfigure(
        &mut self,
        now: Duration,
        connections: Vec<Connection>,
        pools: Vec<Pool>,
        settings: Settings,
    ) -> Range<usize> {
        let connecting = self.peers.values().filter(|peer| matches!(peer.phase, Phase::Initiator(_)));
        let connecting: Vec<PeerId> = connecting.map(|peer| peer.id).collect();
        for peer in connecting {
            self.with(now, peer, |peer, cx| peer.fail(cx, Reason::Reconfigured));
        }

        let environment = &mut self.environment;
        let crash_secret = environment.settings.crash_secret.take();
        let log_keys = environment.settings.log_keys;
        environment.settings = Settings { crash_secret, log_keys, ..settings };
        self.shared.leases.replace(pools);
        let all = &mut environment.connections;
        let indices = all.replace(connections);
        for peer in self.peers.values_mut() {
            peer.renew_candidates(all);
        }
        self.dials.renew(now, |index| {
            let new = all.successor(index)?;
            Some((new, all.get(new)?))
        });
        all.remove_unused();
        indices
    }

    /// Returns true if we make this connection.
    pub fn is_dialled(&self, connection: usize) -> bool {
        self.dials.has(connection)
    }
}

impl Peer {
    /// Chooses anew which connections the peer's first message may belong to.
    fn renew_candidates(&mut self, connections: &Connections) {
        let Phase::Responder(responder) = &mut self.phase else { return };
        let suite = match &responder.state {
            ResponderState::InitKex(InitKex { chosen }) => Some(&chosen.suite),
            _ => self.ike_sas.first().map(|ike_sa| &ike_sa.suite),
        };
        let Some(suite) = suite else { return };
        // The peer may have changed its port and its address since its first message.
        let remote = SocketAddr::new(self.from, self.addresses.remote.port());
        let addresses = Addresses { remote, ..self.addresses };
        responder.handshake.candidates = Candidates::new(connections, addresses, suite);
    }
}
