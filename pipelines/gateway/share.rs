//! Limits the share that one sender may have of a ring to the slow path, so that a flood leaves
//! room for others.

use super::input_port::is_from_tunnel;
use crate::clock::Moment;
use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use wayfarer_dataplane::{
    packet::Packet,
    wire::{Address, ip::IpHeader},
};

/// The number of messages that an IKE SA may have at once while many wait: the most fragments of a
/// message (RFC 7383), and a quarter of the ring of peers.
const PEER: u32 = 128;
/// The same for a network of unauthenticated senders, a link or an inner host: a quarter of their ring.
const NETWORK: u32 = 64;
/// The same for a port, and for a link or a sender by a port, in the rings of packets with problems,
/// which have a quarter of that size.
const PORT: u32 = NETWORK / 4;
const SENDER: u32 = PORT / 4;
const REFILL: Duration = Duration::from_millis(2);
/// The number of buckets for all senders of a ring. Senders share a bucket by chance, and none can
/// choose with whom.
const NETWORKS: usize = 1024;

/// A bucket that refills by one each `REFILL`. Any number of workers may take from it.
#[derive(Debug)]
pub struct Share {
    depth: u32,
    since: Moment,
    /// When the bucket will be full again, in nanoseconds after `since`.
    full_at: AtomicU64,
}

impl Share {
    /// Makes the full bucket of an IKE SA.
    pub fn new(now: Moment) -> Self {
        Self::with_depth(now, PEER)
    }

    fn with_depth(now: Moment, depth: u32) -> Self {
        Self { depth, since: now, full_at: AtomicU64::new(0) }
    }

    /// Takes `count`, and returns whether as many were left.
    pub fn admits(&self, now: Moment, count: u32) -> bool {
        let now = (now - self.since).as_nanos() as u64;
        let refill = REFILL.as_nanos() as u64;
        let take = |full_at: u64| {
            let full_at = full_at.max(now) + u64::from(count) * refill;
            (full_at <= now + u64::from(self.depth) * refill).then_some(full_at)
        };
        self.full_at.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

/// Shares of the senders of a ring: networks, links or single hosts.
#[derive(Debug)]
pub struct Shares {
    seed: RandomState,
    networks: Box<[Share]>,
}

impl Shares {
    /// Makes full buckets.
    pub fn new(now: Moment) -> Self {
        Self::with_depth(now, NETWORK)
    }

    fn with_depth(now: Moment, depth: u32) -> Self {
        let networks = (0..NETWORKS).map(|_| Share::with_depth(now, depth)).collect();
        Self { seed: RandomState::new(), networks }
    }

    /// Returns the share of the sender with this number.
    pub fn of(&self, sender: u128) -> &Share {
        &self.networks[self.seed.hash_one(sender) as usize % NETWORKS]
    }

    /// Returns the share of the sender with this number, which no sender can choose.
    fn numbered(&self, sender: u16) -> &Share {
        &self.networks[usize::from(sender) % NETWORKS]
    }
}

/// Shares of the senders of packets that the gateway forwards. A link has one for all hosts behind it,
/// because it may have as many of these as it likes.
#[derive(Debug)]
pub struct SenderShares {
    links: Shares,
    hosts: Shares,
}

impl SenderShares {
    /// Makes full buckets.
    pub fn new(now: Moment) -> Self {
        Self::with_depth(now, NETWORK)
    }

    fn with_depth(now: Moment, depth: u32) -> Self {
        Self { links: Shares::with_depth(now, depth), hosts: Shares::with_depth(now, depth) }
    }

    /// Returns the share of a packet of `host` that came by `port`: that of its link if it came out of
    /// a tunnel.
    pub fn of(&self, port: u16, host: u128) -> &Share {
        if is_from_tunnel(port) { self.links.numbered(port) } else { self.hosts.of(host) }
    }
}

/// The shares of the rings of packets whose senders are told of a problem.
#[derive(Debug)]
pub struct ProblemShares {
    ports: Box<[Share]>,
    senders: SenderShares,
}

impl ProblemShares {
    /// Makes full buckets for so many ports.
    pub fn new(now: Moment, ports: usize) -> Self {
        let ports = (0..ports).map(|_| Share::with_depth(now, PORT)).collect();
        Self { ports, senders: SenderShares::with_depth(now, SENDER) }
    }

    /// Returns true if a packet of `host` that came by `port` is within its sender's share and, if it
    /// came in clear, within that of the port.
    pub fn admits(&self, now: Moment, port: u16, host: u128) -> bool {
        let by_port = self.ports.get(usize::from(port));
        self.senders.of(port, host).admits(now, 1) && by_port.is_none_or(|share| share.admits(now, 1))
    }
}

/// Returns the number of the network of `address`: an IPv4 /24 or an IPv6 /48.
pub(super) fn network(address: Address) -> u128 {
    match IpAddr::from(address) {
        IpAddr::V4(a) => u128::from(a.to_bits() >> 8),
        IpAddr::V6(a) => a.to_bits() >> 80 | 1 << 64,
    }
}

/// Returns the number of the sender of an IP packet among all senders.
pub(super) fn source(packet: &Packet) -> u128 {
    IpHeader::parse(packet.data()).map_or(Address::UNSPECIFIED, |header| header.src).bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::{
        counters::WorkerCounters,
        input_port::from_link,
        io::Io,
        rings::{Punt, Rings},
    };
    use std::sync::Arc;
    use wayfarer_dataplane::{
        drop::DropReason,
        pool::Pool,
        wire::{
            icmp::Problem,
            ip::{self, protocol},
        },
    };

    const PROBLEM: Punt = Punt::Problem(Problem::Unreachable);

    #[test]
    fn shares_refill_with_time_and_are_separate_for_each_network() {
        let start = Moment::now();
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
        let waiting = || [Punt::Peer, Punt::Control].map(|punt| rings.of(punt, 0, 100).len());
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
    fn senders_of_packets_with_problems_leave_room_for_others() {
        let start = Moment::now();
        let shares = ProblemShares::new(start, 2);
        let admitted = |port, senders: std::ops::Range<u128>, each| {
            let sent = senders.flat_map(|sender| std::iter::repeat_n(sender, each));
            sent.filter(|sender| shares.admits(start, port, *sender)).count()
        };
        assert_eq!(admitted(0, 0..1, 1000), SENDER as usize, "one sender");
        assert_eq!(admitted(0, 100..110, 10), (PORT - SENDER) as usize, "all of its port");
        assert!(admitted(1, 1000..1008, 1) > 4, "another port");
        admitted(0, 0..100_000, 1);
        assert_eq!(admitted(from_link(0), 0..1000, 1), SENDER as usize, "one link, whoever sends");
        assert!((1..9).all(|link| admitted(from_link(link), 0..1, 1) == 1), "other links");
    }

    #[test]
    fn packets_with_problems_pass_their_shares_only_while_the_ring_is_crowded() {
        let rings = Arc::new(Rings::new(2048, 1));
        let mut io = io(&rings);
        for _ in 0..100 {
            let mut packet = io.take().unwrap();
            packet.fill(64, &[0; 20]).unwrap();
            io.refuse(packet, Problem::Unreachable, DropReason::NoRoute);
        }
        let waiting = rings.of(PROBLEM, 0, 20).len();
        assert!((32..64).contains(&waiting), "{waiting} of 64");
    }

    #[test]
    fn no_flood_of_problems_takes_the_room_of_a_link() {
        let rings = Arc::new(Rings::new(2048, 1));
        let mut io = io(&rings);
        let mut refuse = |port: u16, host: u8| {
            let mut packet = io.take().unwrap();
            packet.fill(64, &[0; ip::V4_HEADER]).unwrap();
            ip::emit(packet.data_mut(), [10, 0, 0, host], [192, 0, 2, 1], protocol::UDP, 0);
            packet.set_port(port);
            // All in one turn, which has one time, so that no share refills.
            io.refuse(packet, Problem::Unreachable, DropReason::NoRoute);
        };
        let waiting = |port| rings.of(PROBLEM, port, ip::V4_HEADER).len();
        (0..=255).for_each(|host| refuse(0, host));
        assert_eq!(waiting(0), 64, "all of the ring");
        (0..=255).for_each(|host| refuse(from_link(0), host));
        let one = waiting(from_link(0));
        assert_eq!(one, 32 + SENDER as usize, "half of the ring, and its share");
        (1..9).for_each(|link| refuse(from_link(link), 0));
        assert_eq!(waiting(from_link(0)) - one, 8, "other links");
    }

    #[test]
    fn sender_with_a_known_spi_fills_only_its_share_of_the_ring() {
        let now = Moment::now();
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
            |length: usize| io.punt_message(0, &vec![0; length], from, Some(&Share::new(Moment::now())));
        assert!((0..16).all(|_| send(4000).is_ok()));
        assert_eq!(send(4000), Err(DropReason::PuntRingFull));
        assert_eq!(send(2048), Ok(()), "those that fit a frame have their own ring");
    }
}
