//! Leaves out what is not worth showing of a reply.

use wayfarer::control::protocol::Reply;

/// Returns `reply` without counters that are zero, or all of it if `all`.
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
