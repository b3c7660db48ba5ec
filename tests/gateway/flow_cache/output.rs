//! Everything that comes out of a gateway, and its comparison with that of another.
//!
//! Both may number the packets of an SA in another order. So sealed packets are compared by what is in
//! them and around them, and their numbers apart from them.

use super::{
    gateway::{GATEWAY6, TestGateway},
    traffic::Peer,
};
use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};
use wayfarer::{
    gateway::{counters::WorkerCounters, rings::Event},
    sim::{
        fixtures::*,
        frames::{ip_packet, joined},
        lone_worker::Punted,
        terminal::{Terminal, esp_in},
    },
};
use wayfarer_dataplane::{
    crypto::{self, OpenJob},
    drop::DropReason,
    sa::Mode,
    wire::{
        esp, ethernet,
        fragment::Part,
        ip::{self, Fragment, IpHeader, protocol},
        udp,
    },
};

/// Everything that came out of a gateway after one burst, and its counts.
pub(super) struct Output {
    /// By port.
    frames: Vec<Vec<Vec<u8>>>,
    punted: Vec<Punted>,
    events: Vec<Event>,
    counts: Vec<(String, u64)>,
}

impl Output {
    /// Takes everything that has come out of `gateway`.
    pub(super) fn take(gateway: &mut TestGateway) -> Self {
        let frames = gateway.all_ports().map(|port| gateway.take(port)).collect();
        let worker = &mut gateway.worker;
        let (punted, events) = (worker.take_punted(), worker.take_events());
        for event in &events {
            if let Event::NewPath { tunnel, .. } = event {
                gateway.pairs[&tunnel.0].inbound.report_taken();
            }
        }
        Self { frames, punted, events, counts: counts(gateway) }
    }
}

/// Returns the counts of a worker and of all SAs.
fn counts(gateway: &TestGateway) -> Vec<(String, u64)> {
    let WorkerCounters { received, opened, opened_bytes, sealed, sealed_bytes, sent, .. } =
        &*gateway.worker.counters;
    let WorkerCounters { punted, injected, made, consumed, faults, drops, .. } = &*gateway.worker.counters;
    let mut counts: Vec<_> = [
        ("received", received),
        ("opened", opened),
        ("opened bytes", opened_bytes),
        ("sealed", sealed),
        ("sealed bytes", sealed_bytes),
        ("sent", sent),
        ("punted", punted),
        ("injected", injected),
        ("made", made),
        ("consumed", consumed),
        ("faults", faults),
    ]
    .map(|(name, counter)| (name.to_owned(), counter.value()))
    .into();
    counts.extend(DropReason::ALL.iter().map(|&reason| (format!("{reason:?}"), drops.of(reason))));
    for (n, pair) in &gateway.pairs {
        let (out_packets, out_bytes) = pair.outbound.life.carried();
        let (in_packets, in_bytes) = pair.inbound.life.carried();
        let refused = &pair.inbound.refused;
        let all = [
            ("sequence", pair.outbound.sequence()),
            ("packets out", out_packets),
            ("bytes out", out_bytes),
            ("window", pair.inbound.window.top()),
            ("packets in", in_packets),
            ("bytes in", in_bytes),
            ("replayed", refused.replayed.load(Relaxed)),
            ("forged", refused.forged.load(Relaxed)),
            ("selector", refused.selector.load(Relaxed)),
        ];
        counts.extend(all.map(|(name, count)| (format!("{name} of {n}"), count)));
    }
    counts
}

/// Compares what came out of two gateways that got the same, and whose terminals are `peers`. If it
/// `is_strict`, sealed packets must be the same to the last byte. Returns whether packets of different
/// flows came in another order.
///
/// # Errors
/// The first difference.
pub(super) fn compare([a, b]: [&Output; 2], peers: &[Peer], is_strict: bool) -> Result<bool, String> {
    if let Some((a, b)) = a.counts.iter().zip(&b.counts).find(|(a, b)| a != b) {
        return Err(format!("{a:?}, not {b:?}"));
    }
    let sorted_events = |output: &Output| {
        let mut events: Vec<_> = output.events.iter().map(|event| format!("{event:?}")).collect();
        events.sort_unstable();
        events
    };
    let (events_a, events_b) = (sorted_events(a), sorted_events(b));
    if events_a != events_b {
        return Err(format!("events {events_a:?}, not {events_b:?}"));
    }
    if a.frames == b.frames && a.punted == b.punted {
        return Ok(false);
    }
    if is_strict && sorted(a) != sorted(b) {
        return Err("sealed packets differ".to_owned());
    }
    let (a, b) = (Flows::of(a, peers)?, Flows::of(b, peers)?);
    for label in a.packets.keys().chain(b.packets.keys()) {
        let (a, b) = (a.packets.get(label), b.packets.get(label));
        if a != b {
            return Err(format!("{label:?}:\n{a:02x?}, not\n{b:02x?}"));
        }
    }
    if a.numbers != b.numbers {
        return Err(format!("numbers {:?}, not {:?}", a.numbers, b.numbers));
    }
    Ok(true)
}

/// Returns all bytes that came out, sorted.
fn sorted(output: &Output) -> Vec<(String, &[u8])> {
    let frames = output.frames.iter().enumerate();
    let frames =
        frames.flat_map(|(port, frames)| frames.iter().map(move |frame| (port.to_string(), &frame[..])));
    let punted = output.punted.iter().map(|(port, punt, bytes)| (format!("{port} {punt:?}"), &bytes[..]));
    let mut all: Vec<_> = frames.chain(punted).collect();
    all.sort_unstable();
    all
}

/// The place where a packet came out, its addresses, its protocol, and its ports or what else tells it from
/// other packets.
type Label = (String, u128, u128, u8, u64);

/// Packets by flow, each in their order, without what depends on their numbers.
#[derive(Default)]
struct Flows {
    packets: BTreeMap<Label, Vec<Vec<u8>>>,
    /// Numbers of sealed packets by SPI, sorted.
    numbers: BTreeMap<u32, Vec<u64>>,
    /// The last number of each flow.
    last: BTreeMap<Label, u64>,
}

impl Flows {
    fn of(output: &Output, peers: &[Peer]) -> Result<Self, String> {
        let mut this = Self::default();
        for (port, frames) in output.frames.iter().enumerate() {
            let split = |frame: &Vec<u8>| {
                let (head, packet) = frame.split_at(ethernet::HEADER);
                (head.to_vec(), packet.to_vec())
            };
            for (head, packet) in whole(frames.iter().map(split)) {
                this.add(format!("port {port}"), &head, &packet, peers)?;
            }
        }
        let punted = output.punted.iter();
        for (place, packet) in
            whole(punted.map(|(port, punt, bytes)| (format!("{port} {punt:?}"), bytes.clone())))
        {
            this.add(place, &[], &packet, peers)?;
        }
        this.numbers.values_mut().for_each(|numbers| numbers.sort_unstable());
        Ok(this)
    }

    /// Adds a packet that came out at `place`, behind `head`.
    fn add(&mut self, place: String, head: &[u8], packet: &[u8], peers: &[Peer]) -> Result<(), String> {
        if !is_sealed(packet) {
            self.packets.entry(label(place, packet)).or_default().push([head, packet].concat());
            return Ok(());
        }
        let sealed = Sealed::open(packet, peers).ok_or_else(|| format!("nobody can open {packet:02x?}"))?;
        let label = label(place, &sealed.inner);
        self.numbers.entry(sealed.spi).or_default().push(sealed.seq);
        if let Some(last) = self.last.insert(label.clone(), sealed.seq)
            && last >= sealed.seq
        {
            return Err(format!("{label:?}: number {} after {last}", sealed.seq));
        }
        self.packets.entry(label).or_default().push([head, &sealed.outer[..], &sealed.plain[..]].concat());
        Ok(())
    }
}

/// An ESP packet of the gateway, opened.
struct Sealed {
    spi: u32,
    seq: u64,
    /// The headers up to ESP, without what depends on the number.
    outer: Vec<u8>,
    /// The plaintext with its trailer.
    plain: Vec<u8>,
    /// The packet that was sealed.
    inner: Vec<u8>,
}

impl Sealed {
    fn open(packet: &[u8], peers: &[Peer]) -> Option<Self> {
        let (header, sealed) = esp_in(packet)?;
        let (spi, _) = esp::header(sealed)?;
        let peer = peers.iter().find(|peer| peer.spec.spi(false).0 == spi)?;
        let (seq, plain) = open(&peer.terminal, sealed)?;
        let mut outer = packet[..packet.len() - sealed.len() + 4].to_vec();
        if header.is_ipv4() {
            // The identification, and the sum that covers it.
            outer[4..6].fill(0);
            outer[10..12].fill(0);
        } else if header.protocol == protocol::UDP {
            // The sum over the ciphertext.
            outer[ip::V6_HEADER + udp::HEADER - 2..ip::V6_HEADER + udp::HEADER].fill(0);
        }
        let inner = match peer.spec.mode {
            Mode::Tunnel => plain.clone(),
            Mode::Transport => {
                let (length, protocol) = esp::trailer(&plain)?;
                ip_packet(header.src.into(), header.dst.into(), protocol, &plain[..length])
            }
        };
        Some(Self { spi, seq, outer, plain, inner })
    }
}

/// Opens an ESP packet to a terminal. Returns its number and its plaintext with the trailer.
fn open(terminal: &Terminal, sealed: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (_, low) = esp::header(sealed)?;
    let (key, suite) = (&terminal.open, terminal.open.suite());
    // No test sends 2^32 packets more than it begins with.
    (0..=1).find_map(|high: u64| {
        let (seq, mut bytes) = (high << 32 | u64::from(low), sealed.to_vec());
        let mut job = [OpenJob { key, seq, esn: terminal.esn, esp: &mut bytes, authentic: false }];
        crypto::open(&mut job);
        let is_authentic = job[0].authentic;
        let plain = esp::HEADER + suite.iv_len()..bytes.len() - suite.icv_len();
        is_authentic.then(|| (seq, bytes[plain].to_vec()))
    })
}

/// Returns whether a packet is from one of the gateway's addresses, which the host has too.
fn is_own(header: &IpHeader) -> bool {
    header.src == GATEWAY || header.src == GATEWAY6
}

/// Returns whether a packet is ESP that the gateway has made. The host sends from other UDP ports.
fn is_sealed(packet: &[u8]) -> bool {
    let Some(header) = IpHeader::parse(packet).ok().filter(is_own) else { return false };
    match header.protocol {
        protocol::ESP => true,
        protocol::UDP => matches!(source_port(header.payload(packet)), Some(4500 | 14_500)),
        _ => false,
    }
}

/// Returns the source port at the start of a UDP datagram.
fn source_port(datagram: &[u8]) -> Option<u16> {
    datagram.first_chunk().map(|port| u16::from_be_bytes(*port))
}

/// Returns the label of a packet that came out at `place`.
fn label(place: String, packet: &[u8]) -> Label {
    let Ok(header) = IpHeader::parse(packet) else { return (place, 0, 0, 0, 0) };
    let has_ports = matches!(header.protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
        && header.fragment != Fragment::Later;
    let ports = header.payload(packet).first_chunk().filter(|_| has_ports);
    // The pieces of a packet have their identification in common.
    let id = u64::from(u16::from_be_bytes([packet[4], packet[5]])) | 1 << 32;
    // Errors about packets of several SAs may have one sender, but no order. They quote other addresses.
    let quoted = header.payload(packet).get(20..28).and_then(|addresses| addresses.first_chunk());
    let id = match quoted {
        Some(addresses) if header.protocol == protocol::ICMP => u64::from_be_bytes(*addresses),
        _ => id,
    };
    let last = ports.map_or(id, |ports| u32::from_be_bytes(*ports).into());
    (place, header.src.bits(), header.dst.bits(), header.protocol, last)
}

/// Joins the fragments of the gateway's own packets. Those of one packet follow one another, with the same
/// head.
fn whole<H: Clone>(packets: impl Iterator<Item = (H, Vec<u8>)>) -> Vec<(H, Vec<u8>)> {
    let (mut whole, mut parts) = (vec![], vec![]);
    for (head, packet) in packets {
        let fragment = IpHeader::parse(&packet).ok();
        let Some(header) = fragment.filter(|header| is_own(header) && header.fragment != Fragment::Whole)
        else {
            whole.push((head, packet));
            continue;
        };
        let is_last = Part::read(&header, &packet).is_none_or(|part| !part.more);
        parts.push(packet);
        if is_last {
            whole.extend(joined(parts.drain(..)).into_iter().map(|packet| (head.clone(), packet)));
        }
    }
    assert!(parts.is_empty(), "a packet lacks fragments");
    whole
}
