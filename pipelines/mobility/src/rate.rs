//! Rate limits: token buckets that refill with time, one alone or one for each network.

use crate::path::{Network, network};
use alloc::collections::BTreeMap;
use core::{net::IpAddr, time::Duration};

/// Most networks whose buckets are kept.
const MAX_NETWORKS: usize = 1024;

/// A token bucket. It starts full.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// When the bucket will be full again.
    full_at: Duration,
}

impl Rate {
    /// Takes a token out of a bucket of `burst`, which regains one every `refill`. Returns false if
    /// the bucket is empty.
    pub fn admits(&mut self, now: Duration, burst: u32, refill: Duration) -> bool {
        let full_at = self.full_at.max(now) + refill;
        let admits = full_at <= now + refill * burst;
        if admits {
            self.full_at = full_at;
        }
        admits
    }

    /// Returns when the bucket is full again if nothing else is taken out.
    pub fn full_at(self) -> Duration {
        self.full_at
    }

    /// Returns true if the bucket is empty.
    pub(crate) fn is_empty(mut self, now: Duration, burst: u32, refill: Duration) -> bool {
        !self.admits(now, burst, refill)
    }
}

/// A token bucket for each network, so that a flood from one leaves the others theirs.
#[derive(Debug, Default)]
pub struct NetworkRates {
    rates: BTreeMap<Network, Rate>,
}

impl NetworkRates {
    /// Takes a token out of the bucket of the network of `address`. Returns false if that is empty, or
    /// too many other networks have used theirs lately.
    pub fn admits(&mut self, now: Duration, address: IpAddr, burst: u32, refill: Duration) -> bool {
        self.take(now, network(address), burst, refill)
    }

    /// Does the same with a bucket for `address` alone, or for its /64 if it is an IPv6 address.
    pub fn admits_host(&mut self, now: Duration, address: IpAddr, burst: u32, refill: Duration) -> bool {
        let host = match address {
            IpAddr::V4(address) => (true, address.to_bits().into()),
            IpAddr::V6(address) => (false, address.to_bits() >> 64),
        };
        self.take(now, host, burst, refill)
    }

    /// Forgets the networks whose buckets are full again, because a full bucket is like none. Returns
    /// true if no network is left.
    pub fn forget_full(&mut self, now: Duration) -> bool {
        self.rates.retain(|_, rate| rate.full_at() > now);
        self.rates.is_empty()
    }

    fn take(&mut self, now: Duration, network: Network, burst: u32, refill: Duration) -> bool {
        if self.rates.len() >= MAX_NETWORKS && !self.rates.contains_key(&network) {
            self.forget_full(now);
            if self.rates.len() >= MAX_NETWORKS {
                return false;
            }
        }
        self.rates.entry(network).or_default().admits(now, burst, refill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_does_not_use_up_another_and_memory_is_bounded() {
        let mut rates = NetworkRates::default();
        let second = Duration::from_secs(1);
        let mut admits = |now, network: u32, host: u32| {
            let address = IpAddr::from((network << 8 | host).to_be_bytes());
            let admits = rates.admits(now, address, 10, second);
            assert!(rates.rates.len() <= MAX_NETWORKS);
            admits
        };
        assert_eq!((0..100).filter(|host| admits(second, 1, *host)).count(), 10);
        assert!(admits(second, 2, 1));
        let others = (10..100_000).filter(|network| admits(second, *network, 1)).count();
        assert_eq!(others, MAX_NETWORKS - 2);
        assert!(admits(3 * second, 99_999, 1), "those that are silent make room");
    }

    #[test]
    fn a_bucket_refills_with_time() {
        let second = Duration::from_secs(1);
        let mut rate = Rate::default();
        let mut admitted = |now| (0..10).filter(|_| rate.admits(now, 4, second)).count();
        assert_eq!(admitted(second), 4);
        assert_eq!(admitted(second), 0);
        assert_eq!(admitted(3 * second), 2);
        assert_eq!(admitted(100 * second), 4);
        assert!(rate.is_empty(100 * second, 4, second) && !rate.is_empty(101 * second, 4, second));
    }
}
