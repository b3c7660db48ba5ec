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
    /// The low half of the sequence number.
    low: u32,
    /// The slot of the full sequence number in the window of the SA. The number is authentic only after the
    /// packet was opened.
    slot: window::Slot,
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
        let (spi, low) = esp.unwrap_or_default();
        let bucket = tables.inbound.bucket(&Spi(spi));
        tables.inbound.prefetch_bucket(bucket);
        let fate = match (esp, spi) {
            (None, _) => Err(DropReason::EspTruncated),
            (_, 0..=255) => Err(DropReason::SpiReserved),
            _ => Ok(()),
        };
        let (spi, slot) = (Spi(spi), window::Slot::default());
        Self { header, esp_at, spi, bucket, low, slot, newest: false, sa: None, fate }
    }

    /// Notes an opened packet of `sa` whose ESP is at `esp_at`, and which `fate` may want dropped. Its
    /// number is marked, and its source was seen.
    pub(super) fn opened(
        header: &'r IpHeader,
        esp_at: u16,
        sa: &'r InboundSa,
        fate: Result<(), DropReason>,
    ) -> Self {
        let (spi, bucket, slot) = (sa.spi, Bucket::default(), window::Slot::default());
        Self { header, esp_at, spi, bucket, low: 0, slot, newest: false, sa: Some(sa), fate }
    }

    /// Returns the full sequence number.
    pub(super) fn number(&self) -> u64 {
        self.slot.seq()
    }

    #[inline]
    fn esp_at(&self) -> usize {
        usize::from(self.esp_at)
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

/// A note on an ESP packet that is to be opened, and whose number is to be marked in the window of its SA.
pub(super) trait Numbered<'r> {
    /// Returns the SA of the packet and the slot of its number there, if nothing was found wrong with it so
    /// far.
    fn authentic(&self) -> Option<(&'r InboundSa, &window::Slot)>;

    /// Returns the ESP packet within `packet`, or `None` if that is too short.
    fn esp_in<'p>(&self, packet: &'p mut Packet) -> Option<&'p mut [u8]>;

    /// Notes that the packet is to be dropped for `reason`.
    fn refuse(&mut self, reason: DropReason);

    /// Notes whether the number, now marked, was the highest so far.
    fn set_newest(&mut self, newest: window::Newest);
}

impl<'r> Numbered<'r> for Arrival<'r> {
    #[inline(always)]
    fn authentic(&self) -> Option<(&'r InboundSa, &window::Slot)> {
        match (self.sa, self.fate) {
            (Some(sa), Ok(())) => Some((sa, &self.slot)),
            _ => None,
        }
    }

    #[inline(always)]
    fn esp_in<'p>(&self, packet: &'p mut Packet) -> Option<&'p mut [u8]> {
        packet.data_mut().get_mut(self.esp_at()..)
    }

    #[inline(always)]
    fn refuse(&mut self, reason: DropReason) {
        self.fate = Err(reason);
    }

    #[inline(always)]
    fn set_newest(&mut self, newest: window::Newest) {
        self.newest = newest;
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
    for ((packet, arrival), header) in arrivals.drain().zip(inner) {
        if let Some(length) = conclude(packet, &arrival, header, departures, tables, reader, io)
            && let Some(sa) = arrival.sa
        {
            opened += 1;
            bytes += length;
            tally.add(sa, length);
        }
    }
    tally.flush();
    io.counters().opened.add(opened);
    io.counters().opened_bytes.add(bytes);
    io.mark(Stage::Decapsulate);
}

/// Decapsulates and forwards one opened packet, or drops it. Reads its inner header into `inner`. Returns
/// its inner length in bytes if it was forwarded.
#[inline(always)]
pub(super) fn conclude<'r>(
    mut packet: Packet,
    arrival: &Arrival<'_>,
    inner: &'r mut IpHeader,
    departures: &mut Departures<'r>,
    tables: &'r Tables,
    reader: &'r Reader,
    io: &mut Io,
) -> Option<u64> {
    match finish(&mut packet, arrival, inner, tables, reader, io) {
        Ok((sa, admitted, flow)) => {
            forward_inner(packet, inner, &flow, sa, admitted, departures, tables, reader, io);
            return Some(inner.total_len() as u64);
        }
        Err(DropReason::UnknownSpi) => unknown(packet, arrival, tables, reader, io),
        Err(DropReason::Dummy) => dummy::receive(packet, arrival.sa, arrival.esp_at(), io),
        Err(DropReason::FragmentPorts) => {
            keep_fragment(packet, inner, arrival.sa, departures, tables, reader, io);
        }
        Err(reason) => io.drop(packet, reason),
    }
    None
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
}

/// Recent traffic of one SA without limits, if several workers count it: one operation for a run of packets.
#[derive(Default)]
pub(super) struct Tally<'r> {
    sa: Option<&'r InboundSa>,
    packets: u64,
    bytes: u64,
}

impl<'r> Tally<'r> {
    #[inline]
    pub(super) fn add(&mut self, sa: &'r InboundSa, bytes: u64) {
        if !sa.window.is_shared() {
            // With limits, each packet is charged separately, and this does nothing.
            let _ = sa.life.charge_run(1, bytes);
            return;
        }
        if !self.sa.is_some_and(|last| std::ptr::eq(last, sa)) {
            self.flush();
            *self = Self { sa: Some(sa), packets: 0, bytes: 0 };
        }
        self.packets += 1;
        self.bytes += bytes;
    }

    #[inline]
    pub(super) fn flush(&self) {
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
    let seq = if sa.esn { sa.window.infer(arrival.low) } else { arrival.low.into() };
    arrival.slot = sa.window.slot(seq);
    sa.prefetch_parts(&arrival.slot);
    Ok(())
}

/// Opens the whole burst at once, except for packets that the window already refuses. Marks the numbers of
/// authentic packets in the windows. This comes before any other refusal, so that a refused packet cannot
/// be replayed.
#[inline(never)]
pub(super) fn open<'r, N: Numbered<'r>>(burst: &mut Batch<N>) {
    let authentic = crypto::open_burst(burst.iter_mut().filter_map(|(packet, note)| {
        let (sa, slot) = note.authentic()?;
        if let Err(why) = sa.window.check_at(slot) {
            note.refuse(replayed(sa, why));
            return None;
        }
        let seq = slot.seq();
        match note.esp_in(packet) {
            Some(esp) => Some(OpenJob { key: &sa.key, seq, esn: sa.esn, esp, authentic: false }),
            None => {
                note.refuse(DropReason::EspTruncated);
                None
            }
        }
    }));
    let (mut tried, mut is_shared) = (0, false);
    for (_, note) in burst.iter_mut() {
        let Some((sa, slot)) = note.authentic() else { continue };
        if authentic >> tried & 1 == 0 {
            note.refuse(forged(sa));
        } else if sa.window.is_shared() {
            is_shared = true;
        } else {
            let result = sa.window.accept_at(slot);
            accepted(note, sa, result);
        }
        tried += 1;
    }
    if is_shared {
        accept_shared(burst.columns().1);
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
    // Without limits, the packet is counted by a tally.
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

/// Marks the numbers of authentic packets in the windows that several workers use, by one operation for each
/// run of packets of one SA.
#[inline(never)]
fn accept_shared<'r, N: Numbered<'r>>(notes: &mut [N]) {
    let shared = |note: &N| note.authentic().map(|(sa, _)| sa).filter(|sa| sa.window.is_shared());
    let is_same = |a: &N, b: &N| shared(a).map(std::ptr::from_ref) == shared(b).map(std::ptr::from_ref);
    for run in notes.chunk_by_mut(is_same) {
        let Some(sa) = shared(&run[0]) else { continue };
        match run {
            [one] => {
                if let Some((_, slot)) = one.authentic() {
                    let result = sa.window.accept_at(slot);
                    accepted(one, sa, result);
                }
            }
            several => accept_run(several),
        }
    }
}

/// Marks a run of packets in the window of an SA that several workers use.
fn accept_run<'r, N: Numbered<'r>>(run: &mut [N]) {
    let Some((sa, _)) = run[0].authentic() else { return };
    let slots: ArrayVec<window::Slot, BURST> =
        run.iter().filter_map(|note| Some(*note.authentic()?.1)).collect();
    let mut results = [Ok(false); BURST];
    sa.window.accept_run(&slots, &mut results[..slots.len()]);
    for (note, result) in run.iter_mut().zip(results) {
        accepted(note, sa, result);
    }
}

/// Notes what the window of `sa` says about the number of a packet.
#[inline(always)]
fn accepted<'r>(note: &mut impl Numbered<'r>, sa: &InboundSa, result: Result<window::Newest, Replay>) {
    match result {
        Ok(newest) => note.set_newest(newest),
        Err(why) => note.refuse(replayed(sa, why)),
    }
}

#[cold]
fn forged(sa: &InboundSa) -> DropReason {
    sa.refused.forged.fetch_add(1, Relaxed);
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
