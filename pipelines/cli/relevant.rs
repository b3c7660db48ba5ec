//! What of a gateway's reply is worth showing.

use wayfarer::control::protocol::Reply;

/// Returns `reply` with only what has happened, or with `all`.
pub(super) fn relevant(mut reply: Reply, all: bool) -> Reply {
    match &mut reply {
        _ if all => {}
        Reply::Drops(drops) => drops.retain(|drop| drop.packets > 0),
        Reply::Ports(ports) => {
            ports.iter_mut().for_each(|port| port.counters.retain(|counter| counter.value > 0));
        }
        _ => {}
    }
    reply
}
