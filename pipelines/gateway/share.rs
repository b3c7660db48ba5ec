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
/// The same for a ring of a quarter of that size.
const OF_SMALL_RING: u32 = NETWORK / 4;
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
        Self::with_depth(now, NETWORK)
    }

    /// Makes full buckets for a small ring.
    pub fn of_small_ring(now: Instant) -> Self {
        Self::with_depth(now, OF_SMALL_RING)
    }

    fn with_depth(now: Instant, depth: u32) -> Self {
        let networks = (0..NETWORKS).map(|_| Share::with_depth(now, depth)).collect();
        Self { seed: RandomState::new(), networks }
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
    use wayfarer_dataplane::{
        drop::DropReason,
        pool::Pool,
        wire::{checksum, icmp::Problem},
    };

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

    /// Makes the resources of a worker without ports.
    fn io(rings: &Arc<Rings>) -> Io {
        let pool = Pool::new(64, 2048).unwrap();
        Io::new(vec![], vec![], pool, Arc::new(WorkerCounters::new(0)), rings.clone()).unwrap()
    }

    /// Returns how many messages of one sender get into the rings of peers and of unauthenticated
    /// senders while the slow path is busy, and whether a message of another sender does.
    fn flooded(known: [Option<&Share>; 2], networks: [[u8; 4]; 2]) -> ([usize; 2], bool) {
        let rings = Arc::new(Rings::new(2048, 1));
        let mut io = io(&rings);
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
    fn senders_of_packets_with_problems_leave_room_for_other_ports() {
        let rings = Arc::new(Rings::new(2048, 1));
        let (mut io, punt) = (io(&rings), Punt::Problem(Problem::Unreachable));
        let mut refuse = |port, from: [u8; 4]| {
            let mut packet = io.take().unwrap();
            let mut bytes = [0; 20];
            (bytes[0], bytes[3], bytes[8]) = (0x45, 20, 1);
            bytes[12..16].copy_from_slice(&from);
            let sum = checksum::of(&bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.fill(64, &bytes).unwrap();
            packet.set_port(port);
            let before = rings.of(punt, 20).len();
            io.refuse(packet, Problem::Unreachable, DropReason::NoRoute);
            io.flush();
            rings.of(punt, 20).len() != before
        };
        // Many senders behind one port, then one sender at another port.
        (0..100).for_each(|n| _ = refuse(1, [198, 51, 100, n]));
        assert!((0..8).all(|_| refuse(2, [192, 0, 2, 1])));
        assert!(!(0..100).all(|_| refuse(3, [192, 0, 2, 1])));
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

    #[test]
    fn seventeenth_message_longer_than_a_frame_is_dropped_whoever_sends_it() {
        let rings = Arc::new(Rings::new(2048, 1));
        let (mut io, from) = (io(&rings), IpAddr::from([192, 0, 2, 1]).into());
        // Each is of another peer, which has its whole share.
        let mut send =
            |length: usize| io.punt_message(0, &vec![0; length], from, Some(&Share::new(Instant::now())));
        assert!((0..16).all(|_| send(4000).is_ok()));
        assert_eq!(send(4000), Err(DropReason::PuntRingFull));
        assert_eq!(send(2048), Ok(()), "those that fit a frame have their own ring");
    }
}
