//! Connects to peers, and finds the addresses of those that have host names.

use super::{driver::Ike, resolver::Answer};
use crate::slow_path::network::Network;
use std::time::Duration;
use wayfarer_mobility::ike::event::{Found, LookUpId};

/// Says why none of the addresses of a host name is tried.
const NO_ROUTE: &str = "no address of ours and no route leads to an address that it has";

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
