//! ESP from peers: finds the SA, opens and checks the packet, and forwards the inner one.
//!
//! ```text
//! arrivals ─► look up ─► check ─► open (crypto, whole burst) ─► window, decapsulate, selectors ─► forward
//! ```

use super::{
    admission::{self, charge, may_come_alone},
    batch::Batch,
    decapsulate::decapsulate,
    departure::Departures,
    dummy,
    inner_packet::{forward_inner, keep_fragment},
    io::Io,
    profile::Stage,
    rings::{Event, Punt},
    tables::Tables,
};
use arrayvec::ArrayVec;
use std::sync::atomic::Ordering::Relaxed;
use wayfarer_dataplane::{
    crypto::{self, OpenJob},
    drop::DropReason,
    packet::{BURST, Packet},
    prefetch,
    sa::{Encap, Flow, InboundSa, Selector, Spi},
    table::{Bucket, Reader},
    window::{self, Replay},
    wire::{
        esp,
        ip::{Fragment, IpHeader},
    },
};

/// A note on an ESP packet to the gateway. The packet's data is the outer IP packet.
#[derive(Debug)]
pub struct Arrival<'r> {
    header: &'r IpHeader,
    esp_at: u16,
    spi: Spi,
    /// The hash bucket of the SPI.
    bucket: Bucket,
    /// The full sequence number, which is authentic only after the packet was opened.
    pub(super) seq: u64,
    /// `true` if the number was the highest so far.
    newest: bool,
    pub(super) sa: Option<&'r InboundSa>,
    /// The reason for a drop, if the packet is to be dropped.
    fate: Result<(), DropReason>,
}

/// A burst of arrivals.
pub type Arrivals<'r> = Batch<Arrival<'r>>;

impl<'r> Arrival<'r> {
    /// Notes the ESP packet at `esp_at` of `packet`, which begins with `header`.
    #[inline(always)]
    pub fn new(packet: &Packet, header: &'r IpHeader, esp_at: u16, tables: &Tables) -> Self {
        let esp = esp::header(&packet.data()[usize::from(esp_at)..]);
        // A reserved SPI stands for a missing header.
        let (spi, seq) = esp.unwrap_or_default();
        let bucket = tables.inbound.bucket(&Spi(spi));
        tables.inbound.prefetch_bucket(bucket);
        let fate = match (esp, spi) {
            (None, _) => Err(DropReason::EspTruncated),
            (_, 0..=255) => Err(DropReason::SpiReserved),
            _ => Ok(()),
        };
        Self { header, esp_at, spi: Spi(spi), bucket, seq: seq.into(), newest: false, sa: None, fate }
    }

    #[inline]
    fn esp_at(&self) -> usize {
        usize::from(self.esp_at)
    }

    /// Returns whether the packet was opened with `sa`.
    #[inline]
    fn is_authentic_of(&self, sa: &InboundSa) -> bool {
        self.fate.is_ok() && self.sa.is_some_and(|own| std::ptr::eq(own, sa))
    }

    /// Returns the encapsulation of the packet.
    #[inline]
    fn encap(&self, packet: &Packet) -> Encap {
        match packet.data()[self.header.header_len()..self.esp_at()] {
            [] => Encap::None,
            [a, b, c, d, ..] => {
                Encap::Udp { local: u16::from_be_bytes([c, d]), remote: u16::from_be_bytes([a, b]) }
            }
            // Unreachable: a whole UDP header or nothing precedes ESP.
            _ => Encap::None,
        }
    }
}

/// Processes a burst of arrivals up to sending, and reads their inner headers into `inner`. Packets
/// for another tunnel are appended to `departures`, which must have room for the whole burst.
///
/// Each pass prefetches the memory that the next one reads, so that the cache misses of a burst
/// overlap.
pub fn run<'r>(
    arrivals: &mut Arrivals<'r>,
    inner: &'r mut [IpHeader; BURST],
    departures: &mut Departures<'r>,
    tables: &'r Tables,
    reader: &'r Reader,
    io: &mut Io,
) {
    if arrivals.is_empty() {
        return;
    }
    admit(arrivals, tables, reader, io);
    let (mut opened, mut bytes) = (0, 0);
    let mut tally = Tally::default();
    for ((mut packet, arrival), header) in arrivals.drain().zip(inner) {
        match finish(&mut packet, &arrival, header, tables, reader, io) {
            Ok((sa, admitted, flow)) => {
                opened += 1;
                bytes += header.total_len() as u64;
                tally.add(sa, header.total_len() as u64);
                forward_inner(packet, header, &flow, sa, admitted, departures, tables, reader, io);
            }
            Err(DropReason::UnknownSpi) => unknown(packet, &arrival, tables, reader, io),
            Err(DropReason::Dummy) => dummy::receive(packet, arrival.sa, arrival.esp_at(), io),
            Err(DropReason::FragmentPorts) => {
                keep_fragment(packet, header, arrival.sa, departures, tables, reader, io);
            }
            Err(reason) => io.drop(packet, reason),
        }
    }
    tally.flush();
    io.counters().opened.add(opened);
    io.counters().opened_bytes.add(bytes);
    io.mark(Stage::Decapsulate);
}

/// Finds the SAs of arrivals, checks and opens them, and marks their numbers in the windows.
#[inline(always)]
pub(super) fn admit<'r>(arrivals: &mut Arrivals<'r>, tables: &'r Tables, reader: &'r Reader, io: &mut Io) {
    for (_, arrival) in arrivals.iter_mut() {
        tables.inbound.prefetch_node(arrival.bucket);
    }
    for (_, arrival) in arrivals.iter_mut() {
        arrival.sa = tables.inbound.get_at(arrival.bucket, &arrival.spi, reader).map(|sa| &**sa);
        if let Some(sa) = arrival.sa {
            prefetch::whole(sa);
        }
    }
    for (packet, arrival) in arrivals.iter_mut() {
        if arrival.fate.is_ok() {
            arrival.fate = check(packet, arrival);
        }
    }
    io.mark(Stage::LookUp);
    open(arrivals);
    io.mark(Stage::Open);
    accept(arrivals);
}

/// Recent traffic of one SA without limits.
#[derive(Default)]
struct Tally<'r> {
    sa: Option<&'r InboundSa>,
    packets: u64,
    bytes: u64,
}

impl<'r> Tally<'r> {
    #[inline]
    fn add(&mut self, sa: &'r InboundSa, bytes: u64) {
        if !self.sa.is_some_and(|last| std::ptr::eq(last, sa)) {
            self.flush();
            *self = Self { sa: Some(sa), packets: 0, bytes: 0 };
        }
        self.packets += 1;
        self.bytes += bytes;
    }

    #[inline]
    fn flush(&self) {
        if let Some(sa) = self.sa {
            // With limits, each packet was charged separately, and this does nothing.
            let _ = sa.life.charge_run(self.packets, self.bytes);
        }
    }
}

/// Checks a packet against its SA, before it is opened.
#[inline(always)]
fn check(packet: &Packet, arrival: &mut Arrival<'_>) -> Result<(), DropReason> {
    let sa = arrival.sa.ok_or(DropReason::UnknownSpi)?;
    if !sa.is_at(arrival.header.dst) {
        return Err(DropReason::WrongDestination);
    }
    if sa.pin.as_ref().is_some_and(|pin| **pin != arrival.header.src) {
        return Err(DropReason::PinnedSource);
    }
    let length = packet.len() - arrival.esp_at();
    if length < esp::HEADER + sa.overhead.iv() + esp::TRAILER + sa.overhead.icv() {
        return Err(DropReason::EspTruncated);
    }
    if sa.esn {
        arrival.seq = sa.window.infer(arrival.seq as u32);
    }
    sa.prefetch_parts(arrival.seq);
    Ok(())
}

/// Opens the whole burst at once, except for packets that the window already refuses.
#[inline(always)]
fn open(arrivals: &mut Arrivals<'_>) {
    let mut jobs: ArrayVec<OpenJob<'_>, BURST> = ArrayVec::new();
    for (packet, arrival) in arrivals.iter_mut() {
        let (Ok(()), Some(sa)) = (arrival.fate, arrival.sa) else { continue };
        match sa.window.check(arrival.seq) {
            Ok(()) => {
                let esp = &mut packet.data_mut()[arrival.esp_at()..];
                jobs.push(OpenJob { key: &sa.key, seq: arrival.seq, esn: sa.esn, esp, authentic: false });
            }
            Err(why) => arrival.fate = Err(replayed(sa, why)),
        }
    }
    crypto::open(&mut jobs);
    let authentic: ArrayVec<bool, BURST> = jobs.iter().map(|job| job.authentic).collect();
    drop(jobs);
    let tried = arrivals.iter_mut().filter(|(_, arrival)| arrival.fate.is_ok());
    for ((_, arrival), authentic) in tried.zip(authentic) {
        if !authentic {
            arrival.fate = Err(forged(arrival.sa));
        }
    }
}

/// Decapsulates an admitted arrival and reads its inner header into `inner`. Returns its SA, and the
/// selector and the flow by which that lets it in.
///
/// # Errors
/// The reason why it must be dropped. With `FragmentPorts` it may wait for the rest of its packet
/// instead.
#[inline(always)]
pub(super) fn finish<'r>(
    packet: &mut Packet,
    arrival: &Arrival<'r>,
    inner: &mut IpHeader,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) -> Result<(&'r InboundSa, &'r Selector, Flow), DropReason> {
    arrival.fate?;
    let sa = arrival.sa.ok_or(DropReason::UnknownSpi)?;
    let tunnel = sa.tunnel;
    if arrival.newest {
        let (from, to) = (arrival.header.src, arrival.header.dst);
        sa.seen_from(from, to, arrival.encap(packet), |path| io.tell(Event::NewPath { tunnel, path }));
    }
    decapsulate(packet, inner, arrival.header, arrival.esp_at(), sa)?;
    if inner.fragment != Fragment::Whole {
        may_come_alone(inner, packet.data(), sa, tables, reader)?;
    }
    let (admitted, flow) = admission::admit(inner, packet.data(), sa, tables, reader)?;
    // Without limits, the packet is counted together with its neighbours.
    charge(sa, inner.total_len(), io)?;
    Ok((sa, admitted, flow))
}

/// Drops a packet whose SPI has no SA, or has the slow path keep it if that SA is being made.
#[cold]
fn unknown(packet: Packet, arrival: &Arrival<'_>, tables: &Tables, reader: &Reader, io: &mut Io) {
    let Arrival { spi, esp_at, .. } = *arrival;
    match tables.awaited.get(&spi, reader) {
        Some(awaited) if awaited.admits() => io.punt_packet(packet, Punt::Early { spi, esp_at }),
        _ => io.drop(packet, DropReason::UnknownSpi),
    }
}

/// Marks the numbers of authentic packets in the windows. This comes before any other refusal, so
/// that a refused packet cannot be replayed.
#[inline(always)]
fn accept(arrivals: &mut Arrivals<'_>) {
    let (_, mut notes) = arrivals.columns();
    while let Some(first) = notes.first() {
        let run = match first.sa {
            Some(sa) if sa.window.is_shared() => notes.iter().take_while(|a| a.is_authentic_of(sa)).count(),
            _ => 1,
        };
        let (these, rest) = notes.split_at_mut(run.max(1));
        notes = rest;
        match these {
            [one] => {
                if let (Ok(()), Some(sa)) = (one.fate, one.sa) {
                    accepted(one, sa, sa.window.accept(one.seq));
                }
            }
            several => accept_run(several),
        }
    }
}

/// Marks a run of packets in the window of an SA that several workers use.
fn accept_run(run: &mut [Arrival<'_>]) {
    let Some(sa) = run[0].sa else { return };
    let slots: ArrayVec<window::Slot, BURST> = run.iter().map(|a| sa.window.slot(a.seq)).collect();
    let mut results = [Ok(false); BURST];
    sa.window.accept_run(&slots, &mut results[..slots.len()]);
    for (arrival, result) in run.iter_mut().zip(results) {
        accepted(arrival, sa, result);
    }
}

#[inline]
fn accepted(arrival: &mut Arrival<'_>, sa: &InboundSa, result: Result<window::Newest, Replay>) {
    match result {
        Ok(newest) => arrival.newest = newest,
        Err(why) => arrival.fate = Err(replayed(sa, why)),
    }
}

#[cold]
fn forged(sa: Option<&InboundSa>) -> DropReason {
    if let Some(sa) = sa {
        sa.refused.forged.fetch_add(1, Relaxed);
    }
    DropReason::NotAuthentic
}

#[cold]
fn replayed(sa: &InboundSa, why: Replay) -> DropReason {
    sa.refused.replayed.fetch_add(1, Relaxed);
    match why {
        Replay::Zero => DropReason::SequenceZero,
        Replay::Stale => DropReason::ReplayStale,
        Replay::Duplicate => DropReason::ReplayDuplicate,
    }
}
