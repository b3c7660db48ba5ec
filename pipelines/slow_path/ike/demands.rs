//! Requests of RADIUS servers about connected peers: to disconnect them, or to change what was
//! granted to them (RFC 5176).

use super::{
    driver::Ike,
    log::{self, About},
};
use std::{net::SocketAddr, time::Duration};
use tracing::info;
use wayfarer_mobility::aaa::radius::dynamic::{Change, Demand, ErrorCause};

impl Ike {
    /// Carries out the requests that have come. Returns true if there were any.
    pub(super) fn handle_demands(&mut self, now: Duration) -> bool {
        let mut busy = false;
        while let Some((server, request)) = self.dynamic.as_mut().and_then(|socket| socket.poll(now)) {
            busy = true;
            let demand = request.demand.as_ref().map_err(|cause| *cause);
            let result = demand.and_then(|demand| self.carry_out_demand(now, server, demand));
            if let Err(cause) = result {
                info!(name: "radius_refused", %server, ?cause, "a request of a RADIUS server is refused");
            }
            if let Some(socket) = &mut self.dynamic {
                socket.answer(now, server, &request, result);
            }
        }
        busy
    }

    fn carry_out_demand(
        &mut self,
        now: Duration,
        server: SocketAddr,
        demand: &Demand,
    ) -> Result<(), ErrorCause> {
        let peers = self.accounts.find(server.ip().to_canonical(), &demand.named)?;
        match &demand.change {
            Change::Disconnect => {
                for peer in peers {
                    log::disconnected(About::of(&self.endpoint, peer), server);
                    self.endpoint.disconnect(now, peer);
                }
            }
            Change::Grant { session_timeout, filters } => {
                let names = filters.as_deref().unwrap_or_default();
                // All or none (RFC 5176 §2.2).
                if !peers.iter().all(|peer| self.endpoint.has_filters(*peer, names)) {
                    return Err(ErrorCause::InvalidValue);
                }
                let shown: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
                for peer in peers {
                    log::regranted(About::of(&self.endpoint, peer), server, *session_timeout, &shown);
                    self.endpoint.change_grant(now, peer, *session_timeout, filters.clone());
                }
            }
        }
        Ok(())
    }
}
