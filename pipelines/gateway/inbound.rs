//! ESP from peers: find the SA, open, check, and forward what was inside.
//!
//! ```text
//! arrivals ─► look up ─► check ─► open (crypto, whole burst) ─► window, decapsulate, selectors ─► forward
//! ```

use super::{
    decapsulate::decapsulate, exchange::Event, forward, io::Io, outbound::Departure, profile::Stage,
    tables::Tables,
};
use arrayvec::ArrayVec;
use std::sync::atomic::Ordering::Relaxed;
use wayfarer_dataplane::{
    crypto::{self, OpenJob},
    drop::DropReason,
    packet::{BURST, Packet},
    prefetch,
    sa::{Encap, Flow, InboundSa, Path, Selector, Spi},
    table::Reader,
    window::Replay,
    wire::{esp, ip::IpHeader},
};

/// An ESP packet to the gateway.
#[derive(Debug)]
pub struct Arrival {
    /// Its data is the outer IP packet.
    packet: Packet,
    header: IpHeader,
    esp_at: u16,
    encap: Encap,
}

impl Arrival {
    /// The ESP packet at `esp_at` of `packet`, which came in `encap` behind `header`.
    #[inline]
    pub fn new(packet: Packet, header: IpHeader, esp_at: usize, encap: Encap, tables: &Tables) -> Self {
        let this = Self { packet, header, esp_at: esp_at as u16, encap };
        tables.inbound.prefetch_slot(&this.spi());
        this
    }

    #[inline]
    fn esp(&self) -> &[u8] {
        &self.packet.data()[usize::from(self.esp_at)..]
    }

    /// The SPI; a reserved one where there is none.
    #[inline]
    fn spi(&self) -> Spi {
        Spi(esp::header(self.esp()).map_or(0, |(spi, _)| spi))
    }

    /// How it came.
    #[inline]
    fn path(&self) -> Path {
        Path { local: self.header.dst, remote: self.header.src, encap: self.encap }
    }
}

/// A packet on its way out of ESP.
struct Opening<'r> {
    arrival: Arrival,
    sa: &'r InboundSa,
    /// The full sequence number, not yet proven.
    seq: u64,
    /// Why it is dropped, or that it is not.
    verdict: Result<(), DropReason>,
}

type Openings<'r> = ArrayVec<Opening<'r>, BURST>;

/// Carries a burst of arrivals through to their way out. What has to go into another tunnel is appended to `departures`,
/// which must have room for the whole burst.
///
/// Each pass asks the cache for what the next one reads, so that the misses of a burst overlap.
pub fn run(
    arrivals: &mut ArrayVec<Arrival, BURST>,
    departures: &mut ArrayVec<Departure, BURST>,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    for arrival in arrivals.iter() {
        tables.inbound.prefetch_node(&arrival.spi());
    }
    let mut openings = Openings::new();
    for arrival in arrivals.drain(..) {
        match look_up(&arrival, tables, reader) {
            Ok(sa) => openings.push(Opening { arrival, sa, seq: 0, verdict: Ok(()) }),
            Err(reason) => io.drop(arrival.packet, reason),
        }
    }
    for opening in &mut openings {
        match check(&opening.arrival, opening.sa) {
            Ok(seq) => {
                opening.seq = seq;
                opening.sa.prefetch_parts(seq, opening.arrival.esp().len());
            }
            Err(reason) => opening.verdict = Err(reason),
        }
    }
    io.mark(Stage::LookUp);
    open(&mut openings);
    io.mark(Stage::Open);
    let (mut opened, mut bytes) = (0, 0);
    for mut opening in openings.drain(..) {
        match finish(&mut opening, io) {
            Ok((header, admitted)) => {
                opened += 1;
                bytes += header.total_len() as u64;
                let Opening { arrival, sa, .. } = opening;
                forward::inbound(arrival.packet, header, sa, admitted, departures, tables, reader, io);
            }
            Err(reason) => io.drop(opening.arrival.packet, reason),
        }
    }
    io.counters().opened.add(opened);
    io.counters().opened_bytes.add(bytes);
    io.mark(Stage::Decapsulate);
}

/// The SA of an arrival.
#[inline]
fn look_up<'r>(
    arrival: &Arrival,
    tables: &'r Tables,
    reader: &'r Reader,
) -> Result<&'r InboundSa, DropReason> {
    let (spi, _) = esp::header(arrival.esp()).ok_or(DropReason::EspTruncated)?;
    if spi <= 255 {
        return Err(DropReason::SpiReserved);
    }
    let sa = tables.inbound.get(&Spi(spi), reader).ok_or(DropReason::UnknownSpi)?;
    prefetch::whole(&raw const **sa);
    Ok(sa)
}

/// Whether an arrival may be for `sa`; answers its full sequence number.
#[inline]
fn check(arrival: &Arrival, sa: &InboundSa) -> Result<u64, DropReason> {
    if sa.local != arrival.header.dst {
        return Err(DropReason::WrongDestination);
    }
    if sa.pin.as_ref().is_some_and(|pin| **pin != arrival.header.src) {
        return Err(DropReason::PinnedSource);
    }
    let esp = arrival.esp();
    let suite = sa.key.suite();
    if esp.len() < esp::HEADER + suite.iv_len() + esp::TRAILER + suite.icv_len() {
        return Err(DropReason::EspTruncated);
    }
    let (_, low) = esp::header(esp).ok_or(DropReason::EspTruncated)?;
    Ok(if sa.esn { sa.window.infer(low) } else { u64::from(low) })
}

/// Opens the whole burst at once, but for what the window refuses already.
fn open(openings: &mut Openings<'_>) {
    let mut jobs: ArrayVec<OpenJob<'_>, BURST> = ArrayVec::new();
    for Opening { arrival, sa, seq, verdict } in openings.iter_mut() {
        if verdict.is_ok() {
            *verdict = sa.window.check(*seq).map_err(|why| replayed(sa, why));
        }
        if verdict.is_ok() {
            let esp = &mut arrival.packet.data_mut()[usize::from(arrival.esp_at)..];
            jobs.push(OpenJob { key: &sa.key, seq: *seq, esn: sa.esn, esp, authentic: false });
        }
    }
    crypto::open(&mut jobs);
    let authentic: ArrayVec<bool, BURST> = jobs.iter().map(|job| job.authentic).collect();
    drop(jobs);
    let tried = openings.iter_mut().filter(|opening| opening.verdict.is_ok());
    for (opening, authentic) in tried.zip(authentic) {
        if !authentic {
            opening.sa.refused.forged.fetch_add(1, Relaxed);
            opening.verdict = Err(DropReason::NotAuthentic);
        }
    }
}

/// All that may happen only after authentication. First the window, so that what is refused later cannot be sent
/// again.
#[inline]
fn finish<'r>(opening: &mut Opening<'r>, io: &mut Io) -> Result<(IpHeader, &'r Selector), DropReason> {
    let Opening { arrival, sa, seq, verdict } = opening;
    (*verdict)?;
    let newest = sa.window.accept(*seq).map_err(|why| replayed(sa, why))?;
    let tunnel = sa.tunnel;
    if newest {
        let path = arrival.path();
        sa.seen_from(&path, || io.tell(Event::NewPath { tunnel, path }));
    }
    let inner = decapsulate(&mut arrival.packet, &arrival.header, usize::from(arrival.esp_at), sa)?;
    let flow = Flow::of(&inner, arrival.packet.data()).reversed();
    let Some(admitted) = sa.selectors.iter().find(|s| s.covers(&flow)) else {
        sa.refused.selector.fetch_add(1, Relaxed);
        return Err(DropReason::InnerSelector);
    };
    if !sa.life.charge(inner.total_len(), |due| io.tell(Event::Due { tunnel, inbound: true, due })) {
        return Err(DropReason::SaExpired);
    }
    Ok((inner, admitted))
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
