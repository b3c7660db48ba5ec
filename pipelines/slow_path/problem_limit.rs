//! Limits the rate of ICMP errors.

use crate::gateway::input_port::is_from_tunnel;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use wayfarer_mobility::rate::{NetworkRates, Rate};

/// Most ICMP errors at once, and the time from one to the next, about packets that came by one port or
/// out of the tunnels of one link (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).
const PORT: (u32, Duration) = (200, Duration::from_millis(1));
/// The same for the senders of one network, or for one sender behind a tunnel, since policy has proved
/// whose its address is.
const NETWORK: (u32, Duration) = (50, Duration::from_millis(4));
/// The time after which those are forgotten that are silent.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);

/// Limits the rate of ICMP errors, so that a flood by one port, out of one link's tunnels or from one
/// network leaves the others theirs.
#[derive(Debug, Default)]
pub(super) struct ProblemLimit {
    /// By port, or by what stands for a link.
    ports: BTreeMap<u16, (Rate, NetworkRates)>,
    /// When those that are silent are next forgotten.
    forget_at: Duration,
}

impl ProblemLimit {
    /// Counts one more error to `sender`, whose packet came by `port`. Returns true if it may be sent.
    pub(super) fn admits(&mut self, now: Duration, port: u16, sender: IpAddr) -> bool {
        if now >= self.forget_at {
            self.forget_at = now + FORGET_INTERVAL;
            // A port is like none if both its bucket and those of all its senders are full.
            self.ports.retain(|_, (all, networks)| !networks.forget_full(now) || all.full_at() > now);
        }
        let (all, networks) = self.ports.entry(port).or_default();
        let (burst, refill) = NETWORK;
        let has_share = match is_from_tunnel(port) {
            true => networks.admits_host(now, sender, burst, refill),
            false => networks.admits(now, sender, burst, refill),
        };
        has_share && all.admits(now, PORT.0, PORT.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::input_port::from_link;

    #[test]
    fn flood_leaves_other_ports_links_and_networks_theirs() {
        let (mut limit, now) = (ProblemLimit::default(), Duration::from_secs(1000));
        let mut admitted = |now, port, network: u8, count: u32| {
            (0..count).filter(|n| limit.admits(now, port, [10, 0, network, *n as u8].into())).count()
        };
        assert_eq!(admitted(now, 0, 1, 10_000), 50, "one network");
        assert_eq!(admitted(now, 0, 2, 10), 10, "another one");
        let all: usize = (3..100).map(|network| admitted(now, 0, network, 50)).sum();
        assert_eq!(all, 200 - 60, "all of one port");
        assert_eq!(admitted(now, 1, 1, 10), 10, "another port");
        assert_eq!(admitted(now, from_link(1), 1, 10_000), 200, "all senders behind one link");
        assert_eq!(admitted(now, from_link(2), 1, 120), 120, "those behind another, each by itself");
        let one = (0..60).map(|_| admitted(now, from_link(3), 1, 1)).sum::<usize>();
        assert_eq!(one, 50, "one sender behind a link");
        assert_eq!(admitted(now + Duration::from_secs(1), 0, 1, 10_000), 50, "later");
    }

    #[test]
    fn silent_links_and_senders_are_forgotten() {
        let mut limit = ProblemLimit::default();
        for link in 0..10_000 {
            let now = Duration::from_millis(link.into());
            assert!(limit.admits(now, from_link(link), [10, 0, 0, 1].into()));
            assert!(limit.ports.len() <= 1024);
        }
        let mut refuse = |seconds, link, senders: u16| {
            for sender in 0..senders {
                let [a, b] = sender.to_be_bytes();
                limit.admits(Duration::from_secs(seconds), from_link(link), [10, 0, a, b].into());
            }
            limit.ports.len()
        };
        assert_eq!(
            [refuse(20, 1, 1000), refuse(30, 2, 1)],
            [1, 1],
            "the earlier link and its senders are gone"
        );
    }

    #[test]
    fn sender_gets_nothing_anew_when_silent_links_are_forgotten() {
        let mut limit = ProblemLimit::default();
        let mut admitted = |now, link, count: u32| {
            let now = Duration::from_millis(now);
            (0..count).filter(|_| limit.admits(now, from_link(link), [10, 0, 0, 1].into())).count()
        };
        assert_eq!(admitted(10_000, 1, 1), 1, "the others are forgotten now, and a second later");
        assert_eq!(admitted(10_900, 2, 1000), 50);
        assert_eq!(admitted(11_000, 2, 1000), 25, "what 100 ms bring, although the link has its own again");
    }
}
