//! Connects to peers from the address of the right port, and finds the addresses of those that have host
//! names.

use super::{driver::Ike, resolver::Answer};
use crate::slow_path::network::Network;
use std::{net::IpAddr, time::Duration};
use tracing::debug;
use wayfarer_dataplane::table::Prefix;
use wayfarer_mobility::{
    ike::{
        connection::RemoteAuth,
        event::{Found, LookUpId, PeerId},
        view::View,
    },
    path::Addresses,
};

/// Says why none of the addresses of a host name is tried.
const NO_ROUTE: &str = "no address of ours and no route leads to an address that it has";

/// Returns the local address to use instead of the current one towards a peer, if there is a better one:
/// the first of the port's `own` addresses that is `permitted`. A peer that cannot move keeps any
/// address that the port has.
fn better_local(
    own: &[(IpAddr, Prefix)],
    permitted: &[IpAddr],
    current: Addresses,
    can_move: bool,
) -> Option<IpAddr> {
    let own = || own.iter().map(|(address, _)| *address);
    let fits = |own: &IpAddr| own.is_ipv4() == current.remote.is_ipv4() && permitted.contains(own);
    let stays = !can_move && own().any(|address| address == current.local.ip());
    own().find(fits).filter(|best| *best != current.local.ip() && !stays)
}

impl Ike {
    /// Connects to those peers of these connections that the configuration has addresses of.
    pub(super) fn dial(&mut self, now: Duration, connections: impl IntoIterator<Item = usize>) {
        for connection in connections {
            let dialled = self.endpoint.connection(connection).filter(|dialled| dialled.is_dialled());
            if let Some(&local) = dialled.and_then(|dialled| dialled.local.first()) {
                self.endpoint.dial(now, connection, local);
            }
        }
    }

    /// Has the first message to a peer leave from the address of its port.
    pub(super) fn choose_source(&mut self, now: Duration, peer: PeerId, network: &Network) {
        let view = self.endpoint.peer(peer);
        if let Some(local) = view.and_then(|view| self.better_local(view, network)) {
            self.endpoint.handle_source(now, peer, local);
        }
    }

    /// Handles changed routes and addresses: for each peer that we connected to, uses the local
    /// address of the port that its packets leave by. A link without MOBIKE ends if that port does not
    /// have its address, and is made anew; otherwise it stays.
    pub(in crate::slow_path) fn handle_routes(&mut self, now: Duration, network: &Network) {
        // Only a RADIUS server can choose addresses outside of the pools.
        if self.endpoint.connections().any(|(_, c)| matches!(c.remote_auth, RemoteAuth::Eap(_))) {
            self.endpoint.reserve_addresses(network.routes.taken().collect());
        }
        let moved = |view: View<'_>| Some((view.id(), self.better_local(view, network)?));
        let moved: Vec<_> = self.endpoint.peers().filter_map(moved).collect();
        for (peer, local) in moved {
            if let Err(why) = self.endpoint.handle_local(now, peer, local, None) {
                debug!(peer = peer.0, %why, "a peer is not reached from another address");
            }
        }
    }

    /// Returns the local address to use instead of the current one towards a peer that we connect to.
    fn better_local(&self, view: View<'_>, network: &Network) -> Option<IpAddr> {
        let connection = self.endpoint.connection(view.connection()?).filter(|c| c.is_dialled())?;
        let current = view.addresses();
        let port = network.port_towards(current.remote.ip())?;
        better_local(&port.segment.addresses, &connection.local, current, view.mobike())
    }

    /// Looks up a host name for the protocol.
    pub(super) fn look_up(&mut self, now: Duration, id: LookUpId, name: String) {
        if let Err(why) = self.resolver.look_up(now, id, name.clone()) {
            self.resolver.complain(now, &name, &why);
            self.endpoint.handle_addresses(now, id, &[]);
        }
    }

    /// Notes that the protocol waits no longer for the addresses of a host name.
    pub(super) fn look_up_timed_out(&mut self, now: Duration, name: &str) {
        self.resolver.complain(now, name, &"the system's resolver gave no answer within 10 seconds");
    }

    /// Takes the addresses of host names that have been looked up, and passes on those to which a
    /// route leads. Returns true if there were any.
    pub(super) fn handle_addresses(&mut self, now: Duration, network: &Network) -> bool {
        let mut busy = false;
        while let Some(Answer { ids, name, addresses }) = self.resolver.poll(now) {
            busy = true;
            let mut routed = addresses.as_deref().unwrap_or_default().to_vec();
            routed.retain(|address| network.port_towards(*address).is_some());
            for id in ids {
                match (self.endpoint.handle_addresses(now, id, &routed), &addresses) {
                    (Found::TooLate, _) => {}
                    (_, Err(why)) => self.resolver.complain(now, &name, why),
                    (Found::Unreachable, Ok(_)) => self.resolver.complain(now, &name, &NO_ROUTE),
                    (Found::New(_) | Found::Known, Ok(_)) => {}
                }
            }
        }
        busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_peer_that_can_move_leaves_an_address_that_its_port_has() {
        let [first, second, gone] = [[192, 0, 2, 1], [192, 0, 2, 2], [198, 51, 100, 1]].map(IpAddr::from);
        let six: IpAddr = "2001:db8::1".parse().unwrap();
        let own = [six, first, second].map(|address| (address, Prefix::host(address)));
        for (local, permitted, can_move, better) in [
            (second, &[six, first, second][..], true, Some(first)),
            (second, &[first, second], false, None),
            (gone, &[second, first], true, Some(first)),
            (gone, &[second, first], false, Some(first)),
            (gone, &[gone, second], false, Some(second)),
            (gone, &[gone, six], true, None),
            (first, &[first, second], true, None),
        ] {
            let current = Addresses { local: (local, 500).into(), remote: ([203, 0, 113, 1], 500).into() };
            assert_eq!(better_local(&own, permitted, current, can_move), better, "{local} {permitted:?}");
        }
    }
}
