//! The parts of a configuration that cannot change while the gateway runs.

use super::model::{Config, Ike};

/// Returns the first part that differs between the two configurations and takes effect only at the
/// next start. Static neighbours, the connections, their credentials, the pools and the limits of IKE can
/// change.
pub fn needs_restart(old: &Config, new: &Config) -> Option<&'static str> {
    let Config { gateway, ports, dpdk, routes, neighbours: _, nats, home_agent, siu, tunnels, policies, ike } =
        old;
    let Ike { connections, coa, key_log, crash_secret_file, .. } = ike;
    let parts = [
        ("[gateway]", *gateway != new.gateway),
        ("a [[port]]", *ports != new.ports),
        ("[dpdk]", *dpdk != new.dpdk),
        ("a [[route]]", *routes != new.routes),
        ("a [[nat]]", *nats != new.nats),
        ("[home_agent]", *home_agent != new.home_agent),
        ("a [[siu]]", *siu != new.siu),
        ("a [[tunnel]]", *tunnels != new.tunnels),
        ("a [[policy]]", *policies != new.policies),
        ("[coa]", *coa != new.ike.coa),
        ("key_log of [ike]", *key_log != new.ike.key_log),
        ("crash_secret_file of [ike]", *crash_secret_file != new.ike.crash_secret_file),
        // IKE runs only if there are connections.
        ("the first or last [[connection]]", connections.is_empty() != new.ike.connections.is_empty()),
    ];
    parts.into_iter().find_map(|(part, differs)| differs.then_some(part))
}
