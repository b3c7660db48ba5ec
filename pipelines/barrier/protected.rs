//! The addresses that nobody but the gateway may forward from or to.

use super::{
    ranges::{self, Range, Ranges},
    sides::Side,
};
use crate::config::model::{Config, PolicyAction};

/// Returns the remote sides of tunnels, connections and discard policies, and all pools. Of a tunnel or
/// connection whose remote side is as wide as all addresses, the local side counts instead; also if the
/// remote side is too wide to name anybody, and the local one is not.
pub(super) fn protected(config: &Config) -> Ranges {
    let mut protected = Ranges::default();
    for tunnel in &config.tunnels {
        let sides = tunnel.selectors.iter().map(|selector| (selector.remote, selector.local));
        let (far, near) = sides.map(|(far, near)| (ranges::of_prefix(far), ranges::of_prefix(near))).unzip();
        add(&mut protected, far, near);
    }
    for policy in config.policies.iter().filter(|policy| policy.action == PolicyAction::Discard) {
        protected.add_pair([policy.selector.remote, policy.selector.local].map(ranges::of_prefix));
    }
    for pool in &config.ike.pools {
        protected.add((pool.first, pool.last));
    }
    for connection in &config.ike.connections {
        for child in &connection.protocol.children {
            // An address that the gateway will request from the peer is not known yet.
            let [far, near] = [&child.remote, &child.local]
                .map(|side| side.iter().map(|selector| (selector.start, selector.end)).collect());
            add(&mut protected, far, near);
        }
    }
    protected.merge();
    protected
}

/// Adds the networks of one tunnel's far side, or of its near side in place of those.
fn add(protected: &mut Ranges, far: Vec<Range>, near: Vec<Range>) {
    for is_ipv4 in [true, false] {
        let [far, near] = [&far, &near].map(|side| {
            let mut own: Vec<Range> =
                side.iter().filter(|(first, _)| first.is_ipv4() == is_ipv4).copied().collect();
            own.sort_unstable();
            own.dedup();
            own
        });
        let [far_side, near_side] = [&far, &near].map(|side| Side::new(side.iter().copied()));
        let is_near_named = !near.is_empty() && !near.iter().any(|network| near_side.is_wide(*network));
        let names_nobody = |network: &Range| {
            ranges::is_everywhere(far_side.whole_of(*network)) || is_near_named && far_side.is_wide(*network)
        };
        let (wide, named): (Vec<Range>, Vec<Range>) = far.into_iter().partition(names_nobody);
        named.into_iter().for_each(|network| protected.add(network));
        if !wide.is_empty() {
            near.into_iter().for_each(|network| protected.add(network));
        }
    }
}
