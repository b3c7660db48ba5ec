//! Packets from this side: find the policy, and seal what it wants protected.
//!
//! ```text
//! departures ─► policy ─┬─► size, hop limit, encapsulate ─► number ─► seal (crypto, whole burst) ─► route
//!                       └─► forward in clear, or drop
//! ```

use super::{
    encapsulate::{self, Layout, encapsulate, payload_limit},
    exchange::Event,
    forward,
    fragment::fragment,
    io::Io,
    profile::Stage,
    tables::{Action, Tables, Verdict},
};
use arrayvec::ArrayVec;
use std::net::IpAddr;
use wayfarer_dataplane::{
    crypto::{self, SealJob},
    drop::DropReason,
    packet::{BURST, Packet},
    prefetch,
    sa::{Due, Endpoint, Flow, Mode, OutboundSa},
    table::Reader,
    wire::{
        icmp::Problem,
        ip::{self, Fragment, IpHeader},
    },
};

/// A packet to be forwarded by policy.
#[derive(Debug)]
pub struct Departure {
    /// Its data is the IP packet.
    pub packet: Packet,
    /// Its header.
    pub header: IpHeader,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a packet came from, and so what it must show before it is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A wire, in clear: anybody may have sent it.
    Wire,
    /// A tunnel, whose selectors have admitted it.
    Tunnel,
    /// This host: its own stack, or the slow path.
    Host,
}

/// A packet that policy wants protected.
struct Protection<'r> {
    packet: Packet,
    header: IpHeader,
    sa: &'r OutboundSa,
}

/// A packet on its way into ESP.
struct Sealing<'r> {
    packet: Packet,
    layout: Layout,
    /// Bytes before encapsulation.
    inner_len: u16,
    sa: &'r OutboundSa,
    seq: u64,
    /// Where the outer header sends it.
    outer_dst: IpAddr,
    /// Why it is dropped, or that it is not.
    verdict: Result<(), DropReason>,
}

type Sealings<'r> = ArrayVec<Sealing<'r>, BURST>;

/// Carries a burst of departures through to their way out. Each pass asks the cache for what the next one reads, so that
/// the misses of a burst overlap.
pub fn run(departures: &mut ArrayVec<Departure, BURST>, tables: &Tables, reader: &Reader, io: &mut Io) {
    for departure in departures.iter() {
        tables.policies.prefetch_node(departure.header.dst);
    }
    let mut protections: ArrayVec<Protection<'_>, BURST> = ArrayVec::new();
    for departure in departures.drain(..) {
        let decision = decide(&departure, tables, reader);
        let Departure { packet, header, .. } = departure;
        match decision {
            Ok(Decision::Protect(sa)) => {
                prefetch::whole(sa);
                protections.push(Protection { packet, header, sa });
            }
            Ok(Decision::Clear) => forward::clear(packet, header, tables, reader, io),
            Err(reason) => io.drop(packet, reason),
        }
    }
    io.mark(Stage::Policy);
    for protection in &protections {
        protection.sa.prefetch_parts(protection.header.total_len());
    }
    let mut sealings = Sealings::new();
    for Protection { packet, header, sa } in protections.drain(..) {
        match sa.endpoint(reader) {
            Some(endpoint) => protect(packet, header, sa, endpoint, &mut sealings, tables, reader, io),
            None => io.drop(packet, DropReason::NoEndpoint),
        }
    }
    seal(&mut sealings, tables, reader, io);
    io.mark(Stage::Route);
}

enum Decision<'r> {
    Protect(&'r OutboundSa),
    Clear,
}

/// What policy wants for a packet (RFC 4301 §5.1). One that came in in clear must not be one that a tunnel should have
/// brought (§5.2), nor pretend to come from elsewhere to get into a tunnel (RFC 3704 §2.2).
#[inline]
fn decide<'r>(
    departure: &Departure,
    tables: &'r Tables,
    reader: &'r Reader,
) -> Result<Decision<'r>, DropReason> {
    let Departure { packet, header, origin } = departure;
    let from_wire = *origin == Origin::Wire;
    let flow = Flow::of(header, packet.data());
    if from_wire && !header.is_forwardable() {
        return Err(DropReason::Martian);
    }
    let verdict = tables.verdict(&flow, reader);
    let rule = match verdict {
        Verdict::Rule(rule) => rule,
        Verdict::Hidden(_) => return Err(DropReason::FragmentPorts),
        Verdict::None if tables.is_unprotected(&flow, None, reader) => return Err(DropReason::Unprotected),
        Verdict::None => return Err(DropReason::NoPolicy),
    };
    let may_come_in_clear = || !from_wire || !tables.is_unprotected(&flow, Some(rule), reader);
    match &rule.action {
        Action::Discard => Err(DropReason::Discard),
        Action::Ended(_) => Err(DropReason::SaExpired),
        _ if !may_come_in_clear() => Err(DropReason::Unprotected),
        Action::Bypass => Ok(Decision::Clear),
        Action::Protect(_) if from_wire && !tables.leads_to(header.src, packet.port(), reader) => {
            Err(DropReason::SourcePort)
        }
        Action::Protect(sa) => Ok(Decision::Protect(sa)),
    }
}

/// Prepares one packet for `sa`, in pieces where it is too big for one.
#[allow(clippy::too_many_arguments, reason = "the packet, where it goes, and the four that every stage has")]
fn protect<'r>(
    mut packet: Packet,
    header: IpHeader,
    sa: &'r OutboundSa,
    endpoint: &'r Endpoint,
    sealings: &mut Sealings<'r>,
    tables: &'r Tables,
    reader: &'r Reader,
    io: &mut Io,
) {
    let limit = payload_limit(sa, endpoint, &header);
    let is_hop = sa.mode == Mode::Tunnel;
    if !is_hop && header.fragment != Fragment::Whole {
        return io.drop(packet, DropReason::TransportFragment);
    }
    if is_hop && header.hop_limit <= 1 {
        return io.refuse(packet, Problem::TimeExceeded, DropReason::HopLimit);
    }
    let fits = header.total_len() <= limit;
    if !fits && (header.dont_fragment || sa.mode == Mode::Transport) {
        let mtu = limit.min(usize::from(u16::MAX)) as u16;
        return io.refuse(packet, Problem::TooBig { mtu }, DropReason::TooBig);
    }
    if is_hop {
        ip::decrement_hop_limit(packet.data_mut());
        forward::clamp_mss(&mut packet, &header, limit, tables);
    }
    if fits {
        return wrap(packet, &header, sa, endpoint, sealings, tables, reader, io);
    }
    fragment(packet, &header, limit, io, |io, piece, header| {
        wrap(piece, &header, sa, endpoint, sealings, tables, reader, io);
    });
}

#[allow(clippy::too_many_arguments, reason = "as `protect`")]
#[inline]
fn wrap<'r>(
    mut packet: Packet,
    header: &IpHeader,
    sa: &'r OutboundSa,
    endpoint: &'r Endpoint,
    sealings: &mut Sealings<'r>,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let inner_len = packet.len() as u16;
    match encapsulate(&mut packet, header, sa, endpoint) {
        Ok(layout) => {
            if sealings.is_full() {
                seal(sealings, tables, reader, io);
            }
            let outer_dst = if sa.mode == Mode::Tunnel { endpoint.remote() } else { header.dst };
            sealings.push(Sealing { packet, layout, inner_len, sa, seq: 0, outer_dst, verdict: Ok(()) });
        }
        Err(reason) => io.drop(packet, reason),
    }
}

/// Numbers, seals and sends the burst, and leaves it empty.
fn seal(sealings: &mut Sealings<'_>, tables: &Tables, reader: &Reader, io: &mut Io) {
    io.mark(Stage::Encapsulate);
    for run in sealings.chunk_by_mut(|a, b| std::ptr::eq(a.sa, b.sa)) {
        number(run, io);
    }
    io.mark(Stage::Number);
    let mut jobs: ArrayVec<SealJob<'_>, BURST> = ArrayVec::new();
    for Sealing { packet, layout, sa, seq, verdict, .. } in sealings.iter_mut() {
        if verdict.is_ok() {
            let esp = &mut packet.data_mut()[layout.esp_at()..];
            jobs.push(SealJob { key: &sa.key, seq: *seq, iv: sa.iv(*seq), esn: sa.esn, esp });
        }
    }
    crypto::seal(&mut jobs);
    drop(jobs);
    io.mark(Stage::Seal);
    let (mut sealed, mut bytes) = (0, 0);
    for Sealing { mut packet, layout, inner_len, sa, outer_dst, verdict, .. } in sealings.drain(..) {
        if let Err(reason) = verdict {
            io.drop(packet, reason);
            continue;
        }
        sealed += 1;
        bytes += u64::from(inner_len);
        encapsulate::checksum(&mut packet, layout, sa);
        io.route(packet, outer_dst, tables, reader);
    }
    io.counters().sealed.add(sealed);
    io.counters().sealed_bytes.add(bytes);
}

/// Counts a run of packets of one SA against its lifetime, and gives each that is within it its sequence number: one
/// atomic operation for all of them.
#[inline]
fn number(run: &mut [Sealing<'_>], io: &mut Io) {
    let sa = run[0].sa;
    let tunnel = sa.tunnel;
    for s in run.iter_mut() {
        let tell = |due| io.tell(Event::Due { tunnel, inbound: false, due });
        if !sa.life.charge(usize::from(s.inner_len), tell) {
            s.verdict = Err(DropReason::SaExpired);
        }
    }
    let within = run.iter().filter(|s| s.verdict.is_ok()).count() as u64;
    let first = sa.take_sequence(within);
    for (s, seq) in run.iter_mut().filter(|s| s.verdict.is_ok()).zip(first..) {
        s.seq = seq;
        if seq <= sa.last_sequence() {
            encapsulate::number(&mut s.packet, s.layout, sa, seq);
            continue;
        }
        sa.life.once(Due::Sequence, |due| io.tell(Event::Due { tunnel, inbound: false, due }));
        s.verdict = Err(DropReason::SequenceExhausted);
    }
}
