//! ESP from peers: find the SA, open, check, and forward what was inside.
//!
//! ```text
//! arrivals ─► look up, pre-check ─► open (crypto, whole burst) ─► window, decapsulate, selectors ─► forward
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
    sa::{Flow, InboundSa, Path, Selector, Spi},
    table::Reader,
    window::Replay,
    wire::{esp, ip::IpHeader},
};

/// An ESP packet to the gateway.
#[derive(Debug)]
pub struct Arrival {
    /// Its data is the outer IP packet.
    pub packet: Packet,
    /// The outer header.
    pub header: IpHeader,
    /// Offset of the ESP header.
    pub esp_at: usize,
    /// How it came.
    pub path: Path,
}

struct Opening<'r> {
    arrival: Arrival,
    sa: &'r InboundSa,
    seq: u64,
}

/// Carries a burst of arrivals through to their way out. What has to go into another tunnel is appended to `departures`,
/// which must have room for the whole burst.
pub fn run(
    arrivals: &mut ArrayVec<Arrival, BURST>,
    departures: &mut ArrayVec<Departure, BURST>,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let mut openings: ArrayVec<Opening<'_>, BURST> = ArrayVec::new();
    for arrival in arrivals.drain(..) {
        match look_up(&arrival, tables, reader) {
            Ok((sa, seq)) => openings.push(Opening { arrival, sa, seq }),
            Err(reason) => io.drop(arrival.packet, reason),
        }
    }
    io.mark(Stage::LookUp);
    let authentic = open(&mut openings);
    io.mark(Stage::Open);
    for (mut opening, authentic) in openings.drain(..).zip(authentic) {
        match finish(&mut opening, authentic, reader, io) {
            Ok((header, admitted)) => {
                io.counters().opened.add(1);
                io.counters().opened_bytes.add(header.total_len as u64);
                let Opening { arrival, sa, .. } = opening;
                forward::inbound(arrival.packet, header, sa, admitted, departures, tables, reader, io);
            }
            Err(reason) => io.drop(opening.arrival.packet, reason),
        }
    }
    io.mark(Stage::Decapsulate);
}

/// The SA of an arrival and its full sequence number, not yet proven.
#[inline]
fn look_up<'r>(
    arrival: &Arrival,
    tables: &'r Tables,
    reader: &'r Reader,
) -> Result<(&'r InboundSa, u64), DropReason> {
    let esp = &arrival.packet.data()[arrival.esp_at..];
    let (spi, low) = esp::header(esp).ok_or(DropReason::EspTruncated)?;
    if spi <= 255 {
        return Err(DropReason::SpiReserved);
    }
    let sa: &InboundSa = tables.inbound.get(&Spi(spi), reader).ok_or(DropReason::UnknownSpi)?;
    if sa.local != arrival.path.local {
        return Err(DropReason::WrongDestination);
    }
    if sa.pin.is_some_and(|pin| pin != arrival.path.remote) {
        return Err(DropReason::PinnedSource);
    }
    let suite = sa.key.suite();
    if esp.len() < esp::HEADER + suite.iv_len() + esp::TRAILER + suite.icv_len() {
        return Err(DropReason::EspTruncated);
    }
    let seq = if sa.esn { sa.window.infer(low) } else { u64::from(low) };
    sa.window.check(seq).map_err(|why| replayed(sa, why))?;
    Ok((sa, seq))
}

/// Opens the whole burst at once; answers which packets are authentic.
fn open(openings: &mut ArrayVec<Opening<'_>, BURST>) -> ArrayVec<bool, BURST> {
    let mut jobs: ArrayVec<OpenJob<'_>, BURST> = openings
        .iter_mut()
        .map(|o| OpenJob {
            key: &o.sa.key,
            seq: o.seq,
            esn: o.sa.esn,
            esp: &mut o.arrival.packet.data_mut()[o.arrival.esp_at..],
            authentic: false,
        })
        .collect();
    crypto::open(&mut jobs);
    jobs.iter().map(|job| job.authentic).collect()
}

/// All that may happen only after authentication. First the window, so that what is refused later cannot be sent
/// again.
#[inline]
fn finish<'r>(
    opening: &mut Opening<'r>,
    authentic: bool,
    reader: &Reader,
    io: &mut Io,
) -> Result<(IpHeader, &'r Selector), DropReason> {
    let Opening { arrival, sa, seq } = opening;
    if !authentic {
        sa.refused.forged.fetch_add(1, Relaxed);
        return Err(DropReason::NotAuthentic);
    }
    let newest = sa.window.accept(*seq).map_err(|why| replayed(sa, why))?;
    let tunnel = sa.tunnel;
    if newest {
        let path = arrival.path;
        sa.seen_from(&path, reader, || io.tell(Event::NewPath { tunnel, path }));
    }
    let inner = decapsulate(&mut arrival.packet, &arrival.header, arrival.esp_at, sa)?;
    let flow = Flow::of(&inner, arrival.packet.data()).reversed();
    let Some(admitted) = sa.selectors.iter().find(|s| s.covers(&flow)) else {
        sa.refused.selector.fetch_add(1, Relaxed);
        return Err(DropReason::InnerSelector);
    };
    if !sa.life.charge(inner.total_len, |due| io.tell(Event::Due { tunnel, inbound: true, due })) {
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
