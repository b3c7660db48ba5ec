//! Dummy packets of ESP (RFC 4303 §2.6), which carry probes of the path's MTU.

use super::{
    departure::{Departure, Departures, Origin},
    encapsulate,
    input_port::from_link,
    io::Io,
    rings::Punt,
    seal::seal,
    tables::Tables,
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::{InboundSa, OutboundSa},
    table::Reader,
    wire::{esp, ip::IpHeader, probe::Probe},
};

/// Hands a dummy packet, whose ESP at `esp_at` was opened with `sa`, to the slow path if it is a probe.
/// Drops any other.
#[cold]
pub(super) fn receive(mut packet: Packet, sa: Option<&InboundSa>, esp_at: usize, io: &mut Io) {
    match sa.and_then(|sa| Some((sa, probe_in(&packet, sa, esp_at)?))) {
        Some((sa, probe)) => {
            packet.set_port(from_link(sa.link));
            io.punt_probe(packet, Punt::Probe { tunnel: sa.tunnel, probe });
        }
        None => io.drop(packet, DropReason::Dummy),
    }
}

fn probe_in(packet: &Packet, sa: &InboundSa, esp_at: usize) -> Option<Probe> {
    let (start, end) =
        (esp_at + esp::HEADER + sa.overhead.iv(), packet.len().checked_sub(sa.overhead.icv())?);
    let plain = packet.data().get(start..end)?;
    let (length, _) = esp::trailer(plain)?;
    Probe::parse(plain.get(..length)?)
}

/// Seals an IP packet without next header as a dummy packet, and sends it. It may be longer than what the
/// path is known to take.
#[cold]
pub(super) fn send(
    mut packet: Packet,
    header: &IpHeader,
    sa: &OutboundSa,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let Some(endpoint) = sa.endpoint(reader) else { return io.drop(packet, DropReason::NoEndpoint) };
    let layout = match encapsulate::dummy(&mut packet, header, sa, endpoint) {
        Ok(layout) => layout,
        Err(reason) => return io.drop(packet, reason),
    };
    // It has no bytes of an inner packet, which limits of SAs count.
    let mut departure = Departure::new(header, Origin::Host, tables);
    (departure.layout, departure.sa, departure.endpoint) = (layout, Some(sa), Some(endpoint));
    let mut departures = Departures::default();
    departures.push(packet, departure);
    seal(&mut departures, tables, reader, io);
}
