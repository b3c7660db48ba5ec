//! Limits the share that one sender may have of a ring to the slow path, so that a flood leaves
//! room for others.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use wayfarer_dataplane::wire::Address;

/// The number of messages that an IKE SA may have at once while many wait: the most fragments of a
/// message (RFC 7383), and a quarter of the ring of peers.
const PEER: u32 = 128;
/// The same for a network of unauthenticated senders, or an inner host: a quarter of their ring.
const NETWORK: u32 = 64;
const REFILL: Duration = Duration::from_millis(2);
/// The number of buckets for all senders of a ring. Senders share a bucket by chance, and none can
/// choose with whom.
const NETWORKS: usize = 1024;

/// A bucket that refills by one each `REFILL`. Any number of workers may take from it.
#[derive(Debug)]
pub struct Share {
    depth: u32,
    since: Instant,
    /// When the bucket will be full again, in nanoseconds after `since`.
    full_at: AtomicU64,
}

impl Share {
    /// Makes the full bucket of an IKE SA.
    pub fn new(now: Instant) -> Self {
        Self::with_depth(now, PEER)
    }

    fn with_depth(now: Instant, depth: u32) -> Self {
        Self { depth, since: now, full_at: AtomicU64::new(0) }
    }

    /// Takes `count`, and returns whether as many were left.
    pub fn admits(&self, now: Instant, count: u32) -> bool {
        let now = now.saturating_duration_since(self.since).as_nanos() as u64;
        let refill = REFILL.as_nanos() as u64;
        let take = |full_at: u64| {
            let full_at = full_at.max(now) + u64::from(count) * refill;
            (full_at <= now + u64::from(self.depth) * refill).then_some(full_at)
        };
        self.full_at.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

/// Shares of the senders of a ring: networks, or single hosts.
#[derive(Debug)]
pub struct Shares {
    seed: RandomState,
    networks: Box<[Share]>,
}

impl Shares {
    /// Makes full buckets.
    pub fn new(now: Instant) -> Self {
        Self {
            seed: RandomState::new(),
            networks: (0..NETWORKS).map(|_| Share::with_depth(now, NETWORK)).collect(),
        }
    }

    /// Returns the share of the sender with this number.
    pub fn of(&self, sender: u128) -> &Share {
        &self.networks[self.seed.hash_one(sender) as usize % NETWORKS]
    }
}

/// Returns the number of the network of `address`: an IPv4 /24 or an IPv6 /48.
pub(super) fn network(address: Address) -> u128 {
    match IpAddr::from(address) {
        IpAddr::V4(a) => u128::from(a.to_bits() >> 8),
        IpAddr::V6(a) => a.to_bits() >> 80 | 1 << 64,
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
            let share = shares.of(network(IpAddr::from(from).into()));
            (0..1000).filter(|_| share.admits(now, 1)).count()
        };
        assert_eq!(admitted([192, 0, 2, 1], start), NETWORK as usize);
        assert_eq!(admitted([192, 0, 2, 200], start), 0, "the same network");
        assert_eq!(admitted([192, 0, 2, 1], start + 10 * REFILL), 10);
        let others = (0..64).filter(|n| admitted([198, 51, *n, 1], start + 10 * REFILL) > 0).count();
        assert!(others > 48, "{others} of 64 other networks");
    }

    /// Returns how many messages of one sender get into the rings of peers and of unauthenticated
    /// senders while the slow path is busy, and whether a message of another sender does.
    fn flooded(known: [Option<&Share>; 2], networks: [[u8; 4]; 2]) -> ([usize; 2], bool) {
        let rings = Arc::new(Rings::new(2048, 1));
        let pool = Pool::new(64, 2048).unwrap();
        let counters = Arc::new(WorkerCounters::new(0));
        let mut io = Io::new(vec![], vec![], pool, counters, rings.clone()).unwrap();
        let waiting = || [Punt::Peer, Punt::Control].map(|punt| rings.of(punt, 100).len());
        let mut send = |of: usize| {
            let before = waiting();
            let mut packet = io.take().unwrap();
            packet.fill(64, &[0; 100]).unwrap();
            let sent = io.punt_message(0, packet.data(), IpAddr::from(networks[of]).into(), known[of]);
            io.free(packet);
            io.flush();
            assert_eq!(sent.is_ok(), waiting() != before);
            sent.is_ok()
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
