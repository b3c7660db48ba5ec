//! Makes the frames of one sender.

use super::{
    flows::{Flows, Order},
    stamp::{Signature, Stamp},
    tunnels::Sealers,
};
use arrayvec::ArrayVec;
use wayfarer_dataplane::{
    packet::{BURST, Burst, Packet},
    pool::{HEADROOM, Pool},
    port::Mac,
    wire::{
        ethernet::{self, Ethernet},
        ip::protocol,
    },
};

/// Makes the Ethernet header of IP packets.
pub(super) fn ethernet_header(dst: Mac, src: Mac, is_ipv6: bool) -> [u8; ethernet::HEADER] {
    let mut header = [0; ethernet::HEADER];
    let ethertype = if is_ipv6 { ethernet::IPV6 } else { ethernet::IPV4 };
    Ethernet { dst, src, ethertype }.emit(&mut header);
    header
}

/// The frames that a sender makes next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    /// Stream, trial, number of the first frame, time of sending.
    pub(super) stamp: Stamp,
    pub(super) signature: Signature,
    /// Number of frames, at most [`BURST`].
    pub(super) count: u64,
    /// The lengths of IP packets, before they are sealed, in the order of sending.
    pub(super) lengths: &'a [usize],
}

/// What a sender's frames carry.
#[derive(Debug)]
pub(super) enum Source {
    /// Numbered, time-stamped datagrams.
    Clear { ethernet: [u8; ethernet::HEADER], flows: Flows },
    /// The same in ESP: flow n goes through sealer n, modulo their number.
    Sealed {
        /// For IPv4 and for IPv6 outside.
        ethernet: [[u8; ethernet::HEADER]; 2],
        flows: Flows,
        sealers: Sealers,
    },
    /// Whole frames, again and again.
    Capture(Vec<Vec<u8>>),
}

impl Source {
    /// Adds frames to an empty `burst`, as many as the batch asks for unless the pool is empty or a tunnel
    /// has no sequence number left.
    pub(super) fn fill(&mut self, pool: &mut Pool, burst: &mut Burst, batch: &Batch<'_>) {
        match self {
            Self::Clear { ethernet, flows } => {
                let order = Order::new(flows.len(), batch.lengths.len());
                for number in batch.numbers() {
                    let (flow, size) = order.of(number);
                    let length = ethernet::HEADER + batch.lengths[size];
                    let Some(mut packet) = take(pool, ethernet, length) else { return };
                    let stamp = batch.stamp(number);
                    flows.emit(flow, &stamp, &mut packet.data_mut()[ethernet::HEADER..]);
                    burst.push(packet);
                }
            }
            Self::Sealed { ethernet, flows, sealers } => {
                let order = Order::new(flows.len(), batch.lengths.len());
                let next_header = if flows.is_ipv6() { protocol::IPV6 } else { protocol::IPV4 };
                let mut seals = ArrayVec::<_, BURST>::new();
                for number in batch.numbers() {
                    let (flow, size) = order.of(number);
                    let (sealer, inner) = (flow % sealers.len(), batch.lengths[size]);
                    let outside = sealers.get(sealer);
                    let length = ethernet::HEADER + outside.packet_len(inner);
                    let header = &ethernet[usize::from(outside.is_ipv6())];
                    let Some(mut packet) = take(pool, header, length) else { break };
                    let Some((seal, place)) = sealers.begin(sealer, inner, next_header, packet.data_mut())
                    else {
                        pool.give(packet);
                        break;
                    };
                    let stamp = batch.stamp(number);
                    flows.emit(flow, &stamp, &mut packet.data_mut()[place]);
                    seals.push(seal);
                    burst.push(packet);
                }
                sealers.seal(burst, &seals);
            }
            Self::Capture(frames) => {
                for number in batch.numbers() {
                    let frame = &frames[(number % frames.len() as u64) as usize];
                    let Some(packet) = take(pool, frame, frame.len()) else { return };
                    burst.push(packet);
                }
            }
        }
    }

    /// Returns the index of a sealer that has no sequence number left, if there is one.
    pub(super) fn exhausted(&self) -> Option<usize> {
        match self {
            Self::Sealed { sealers, .. } => sealers.exhausted(),
            _ => None,
        }
    }
}

impl Batch<'_> {
    fn numbers(&self) -> std::ops::Range<u64> {
        self.stamp.number..self.stamp.number + self.count
    }

    /// Returns the bytes of the stamp of frame `number`.
    fn stamp(&self, number: u64) -> [u8; super::stamp::LEN] {
        Stamp { number, ..self.stamp }.emit(self.signature)
    }
}

/// Takes a packet of `length` bytes that begins with `start`. Returns `None` if the pool is empty, or if
/// its frames are too small, which nobody who knows the limits of sizes asks for.
fn take(pool: &mut Pool, start: &[u8], length: usize) -> Option<Packet> {
    let mut packet = pool.take()?;
    if packet.fill(HEADROOM, start).and_then(|()| packet.set_len(length)).is_none() {
        pool.give(packet);
        return None;
    }
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::{super::flows::Space, *};
    use wayfarer_dataplane::{sa::PortRange, wire::ip::IpHeader};

    const SIGNATURE: Signature = Signature(0x1234_5678);

    fn batch(number: u64, count: u64, lengths: &[usize]) -> Batch<'_> {
        let stamp = Stamp { stream: 2, trial: 9, number, time: 77 };
        Batch { stamp, signature: SIGNATURE, count, lengths }
    }

    fn flows(src: &str, dst: &str, count: u64) -> Flows {
        let prefix = |text: &str| text.parse().unwrap();
        let ports = PortRange::ANY;
        let space = Space { src: prefix(src), dst: prefix(dst), src_ports: ports, dst_ports: ports };
        Flows::new((0..count).map(|index| space.flow(index)))
    }

    #[test]
    fn frames_follow_their_order_and_show_their_numbers() {
        let mut pool = Pool::new(64, 2048).unwrap();
        for (src, dst, is_ipv6) in
            [("198.18.0.0/16", "198.19.0.0/16", false), ("2001:2::/64", "2001:2:0:8000::/64", true)]
        {
            let ethernet = ethernet_header([2; 6], [4; 6], is_ipv6);
            let mut source = Source::Clear { ethernet, flows: flows(src, dst, 5) };
            let lengths = [66, 100, 1500];
            let mut burst = Burst::new();
            source.fill(&mut pool, &mut burst, &batch(1000, 32, &lengths));
            assert_eq!(burst.len(), 32);
            let mut addresses = std::collections::HashSet::new();
            for (number, packet) in (1000..).zip(burst.iter()) {
                assert_eq!(packet.data()[..ethernet::HEADER], ethernet);
                let packet = &packet.data()[ethernet::HEADER..];
                assert_eq!(packet.len(), lengths[number as usize % 3]);
                let stamp = Stamp::find(packet, SIGNATURE).unwrap();
                assert_eq!(stamp, Stamp { number, ..batch(0, 0, &[]).stamp });
                let header = IpHeader::parse(packet).unwrap();
                addresses.insert((header.src, header.dst));
            }
            assert_eq!(addresses.len(), 5);
            pool.give_all(&mut burst);
        }
        assert_eq!(pool.available(), 64);
    }

    #[test]
    fn empty_pool_and_a_frame_that_does_not_fit_make_shorter_bursts() {
        let mut pool = Pool::new(3, 512).unwrap();
        let ethernet = ethernet_header([2; 6], [4; 6], false);
        let mut source = Source::Clear { ethernet, flows: flows("198.18.0.1", "198.19.0.1", 1) };
        let mut burst = Burst::new();
        source.fill(&mut pool, &mut burst, &batch(0, 32, &[46]));
        assert_eq!(burst.len(), 3);
        pool.give_all(&mut burst);
        source.fill(&mut pool, &mut burst, &batch(0, 32, &[46, 1500]));
        assert_eq!((burst.len(), pool.available()), (1, 2));
        pool.give_all(&mut burst);
    }

    #[test]
    fn capture_is_sent_again_and_again() {
        let mut pool = Pool::new(8, 512).unwrap();
        let frames = vec![b"one".to_vec(), b"two!".to_vec(), b"three".to_vec()];
        let mut source = Source::Capture(frames);
        let mut burst = Burst::new();
        source.fill(&mut pool, &mut burst, &batch(2, 5, &[]));
        let lengths: Vec<_> = burst.iter().map(|packet| packet.len()).collect();
        assert_eq!(lengths, [5, 3, 4, 5, 3]);
        pool.give_all(&mut burst);
    }
}
