//! Limits the share that one sender may have of a ring to the slow path, so that a flood leaves
//! room for others.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use wayfarer_dataplane::wire::Address;

/// The number of messages that a sender may have at once while many wait: a quarter of the ring of
/// unauthenticated senders, and several times as many as an IKE SA needs.
const BURST: u32 = 64;
const REFILL: Duration = Duration::from_millis(2);
/// The number of buckets for all networks of unauthenticated senders. Networks share a bucket by
/// chance, and none can choose with whom.
const NETWORKS: usize = 1024;

/// A bucket of `BURST` that refills by one each `REFILL`. Any number of workers may take from it.
#[derive(Debug)]
pub struct Share {
    since: Instant,
    /// When the bucket will be full again, in nanoseconds after `since`.
    full_at: AtomicU64,
}

impl Share {
    /// Makes a full bucket.
    pub fn new(now: Instant) -> Self {
        Self { since: now, full_at: AtomicU64::new(0) }
    }

    /// Takes one, and returns whether one was left.
    pub fn admits(&self, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.since).as_nanos() as u64;
        let refill = REFILL.as_nanos() as u64;
        let take = |full_at: u64| {
            let full_at = full_at.max(now) + refill;
            (full_at <= now + u64::from(BURST) * refill).then_some(full_at)
        };
        self.full_at.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

/// Shares of unauthenticated senders, by network.
#[derive(Debug)]
pub struct Shares {
    seed: RandomState,
    networks: Box<[Share]>,
}

impl Shares {
    /// Makes full buckets.
    pub fn new(now: Instant) -> Self {
        Self { seed: RandomState::new(), networks: (0..NETWORKS).map(|_| Share::new(now)).collect() }
    }

    /// Returns the share of the network of `from`: an IPv4 /24 or an IPv6 /48.
    pub fn of(&self, from: Address) -> &Share {
        let network = match IpAddr::from(from) {
            IpAddr::V4(a) => u128::from(a.to_bits() >> 8),
            IpAddr::V6(a) => a.to_bits() >> 80 | 1 << 64,
        };
        &self.networks[self.seed.hash_one(network) as usize % NETWORKS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::{
        counters::WorkerCounters,
        io::Io,
        rings::{Punt, Rings},
    };
    use std::sync::Arc;
    use wayfarer_dataplane::pool::Pool;

    #[test]
    fn shares_refill_with_time_and_are_separate_for_each_network() {
        let start = Instant::now();
        let shares = Shares::new(start);
        let admitted = |from: [u8; 4], now| {
            let share = shares.of(IpAddr::from(from).into());
            (0..1000).filter(|_| share.admits(now)).count()
        };
        assert_eq!(admitted([192, 0, 2, 1], start), BURST as usize);
        assert_eq!(admitted([192, 0, 2, 200], start), 0, "the same network");
        assert_eq!(admitted([192, 0, 2, 1], start + 10 * REFILL), 10);
        let others = (0..64).filter(|n| admitted([198, 51, *n, 1], start + 10 * REFILL) > 0).count();
        assert!(others > 48, "{others} of 64 other networks");
    }

    /// Returns how many messages of one sender get into the rings of peers and of unauthenticated
    /// senders while the slow path is busy, and whether a message of another sender does.
    fn flooded(known: [Option<&Share>; 2], networks: [[u8; 4]; 2]) -> ([usize; 2], bool) {
        let rings = Arc::new(Rings::new(2048));
        let pool = Pool::new(64, 2048).unwrap();
        let counters = Arc::new(WorkerCounters::new(0));
        let mut io = Io::new(vec![], vec![], pool, counters, rings.clone());
        let waiting = || [Punt::Peer, Punt::Control].map(|punt| rings.punts()[punt.kind()].len());
        let mut send = |of: usize| {
            let before = waiting();
            let mut packet = io.take().unwrap();
            packet.fill(64, &[0; 100]).unwrap();
            io.punt_message(packet, IpAddr::from(networks[of]).into(), known[of]);
            io.flush();
            waiting() != before
        };
        // More than the ring holds, and no more: shares refill while the test runs.
        (0..600).for_each(|_| _ = send(0));
        (waiting(), send(1))
    }

    #[test]
    fn sender_with_a_known_spi_fills_only_its_share_of_the_ring() {
        let now = Instant::now();
        let ([one, other], networks) = ([Share::new(now), Share::new(now)], [[192, 0, 2, 1], [192, 0, 2, 2]]);
        let ([peers, _], passes) = flooded([Some(&one), Some(&other)], networks);
        assert!((256..512).contains(&peers) && passes, "{peers} of 512");
        let ([_, unauthenticated], passes) = flooded([None, None], [[198, 51, 100, 66], [192, 0, 2, 1]]);
        assert!((128..256).contains(&unauthenticated) && passes, "{unauthenticated} of 256");
        let (_, passes) = flooded([Some(&one), None], [[198, 51, 100, 66], [192, 0, 2, 1]]);
        assert!(passes, "nor does what is beyond its share of that of unauthenticated senders");
    }
}
