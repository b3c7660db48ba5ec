//! Limits the rate of ICMP errors.

use crate::gateway::io::FROM_TUNNEL;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use wayfarer_mobility::rate::{NetworkRates, Rate};

/// Most ICMP errors at once, and the time from one to the next, about packets that came by one port or
/// out of all tunnels (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).
const PORT: (u32, Duration) = (200, Duration::from_millis(1));
/// The same for the senders of one network, or for one sender behind a tunnel, since policy has proved
/// whose its address is.
const NETWORK: (u32, Duration) = (50, Duration::from_millis(4));

/// Limits the rate of ICMP errors, so that a flood by one port or from one network leaves the others
/// theirs.
#[derive(Debug, Default)]
pub(super) struct ProblemLimit {
    ports: BTreeMap<u16, (Rate, NetworkRates)>,
}

impl ProblemLimit {
    /// Counts one more error to `sender`, whose packet came by `port`. Returns true if it may be sent.
    pub(super) fn admits(&mut self, now: Duration, port: u16, sender: IpAddr) -> bool {
        let (all, networks) = self.ports.entry(port).or_default();
        let (burst, refill) = NETWORK;
        let has_share = match port {
            FROM_TUNNEL => networks.admits_host(now, sender, burst, refill),
            _ => networks.admits(now, sender, burst, refill),
        };
        has_share && all.admits(now, PORT.0, PORT.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_leaves_other_ports_and_networks_theirs() {
        let (mut limit, now) = (ProblemLimit::default(), Duration::from_secs(1000));
        let mut admitted = |now, port, network: u8, count: u32| {
            (0..count).filter(|n| limit.admits(now, port, [10, 0, network, *n as u8].into())).count()
        };
        assert_eq!(admitted(now, 0, 1, 10_000), 50, "one network");
        assert_eq!(admitted(now, 0, 2, 10), 10, "another one");
        let all: usize = (3..100).map(|network| admitted(now, 0, network, 50)).sum();
        assert_eq!(all, 200 - 60, "all of one port");
        assert_eq!(admitted(now, 1, 1, 10), 10, "another port");
        assert_eq!(admitted(now, FROM_TUNNEL, 1, 120), 120, "senders behind tunnels, each by itself");
        let one = [10, 0, 1, 1].into();
        assert!(!(0..60).all(|_| limit.admits(now, FROM_TUNNEL, one)));
        let mut admitted = |now, port, network: u8, count: u32| {
            (0..count).filter(|n| limit.admits(now, port, [10, 0, network, *n as u8].into())).count()
        };
        assert_eq!(admitted(now + Duration::from_secs(1), 0, 1, 10_000), 50, "later");
    }
}
