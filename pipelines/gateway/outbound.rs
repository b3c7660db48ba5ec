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
use wayfarer_dataplane::{
    crypto::{self, SealJob},
    drop::DropReason,
    packet::{BURST, Packet},
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

/// A packet on its way into ESP.
struct Sealing<'r> {
    packet: Packet,
    layout: Layout,
    /// Bytes before encapsulation.
    inner_len: usize,
    sa: &'r OutboundSa,
    seq: u64,
}

type Sealings<'r> = ArrayVec<Sealing<'r>, BURST>;

/// Carries a burst of departures through to their way out.
pub fn run(departures: &mut ArrayVec<Departure, BURST>, tables: &Tables, reader: &Reader, io: &mut Io) {
    let mut sealings = Sealings::new();
    for departure in departures.drain(..) {
        match decide(&departure, tables, reader) {
            Ok(Decision::Protect(sa, endpoint)) => {
                protect(departure.packet, departure.header, sa, endpoint, &mut sealings, tables, reader, io);
            }
            Ok(Decision::Clear) => forward::clear(departure.packet, departure.header, tables, reader, io),
            Err(reason) => io.drop(departure.packet, reason),
        }
    }
    seal(&mut sealings, tables, reader, io);
    io.mark(Stage::Route);
}

enum Decision<'r> {
    Protect(&'r OutboundSa, &'r Endpoint),
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
        Action::Protect(sa) => match sa.endpoint(reader) {
            Some(endpoint) => Ok(Decision::Protect(sa, endpoint)),
            None => Err(DropReason::NoEndpoint),
        },
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
    let fits = header.total_len <= limit;
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
    let inner_len = packet.len();
    match encapsulate(&mut packet, header, sa, endpoint) {
        Ok(layout) => {
            if sealings.is_full() {
                seal(sealings, tables, reader, io);
            }
            sealings.push(Sealing { packet, layout, inner_len, sa, seq: 0 });
        }
        Err(reason) => io.drop(packet, reason),
    }
}

/// Numbers, seals and sends the burst, and leaves it empty.
fn seal(sealings: &mut Sealings<'_>, tables: &Tables, reader: &Reader, io: &mut Io) {
    io.mark(Stage::Encapsulate);
    charge(sealings, io);
    number(sealings, io);
    io.mark(Stage::Number);
    let mut jobs: ArrayVec<SealJob<'_>, BURST> = sealings
        .iter_mut()
        .map(|s| SealJob {
            key: &s.sa.key,
            seq: s.seq,
            iv: s.sa.iv(s.seq),
            esn: s.sa.esn,
            esp: &mut s.packet.data_mut()[s.layout.esp_at..],
        })
        .collect();
    crypto::seal(&mut jobs);
    drop(jobs);
    io.mark(Stage::Seal);
    for Sealing { mut packet, layout, inner_len, sa, .. } in sealings.drain(..) {
        encapsulate::checksum(&mut packet, layout, sa);
        io.counters().sealed.add(1);
        io.counters().sealed_bytes.add(inner_len as u64);
        match IpHeader::parse(packet.data()) {
            Ok(outer) => io.route(packet, &outer, tables, reader),
            Err(_) => io.drop(packet, DropReason::InnerMalformed),
        }
    }
}

/// Counts packets against lifetimes, and drops those of SAs that are over.
fn charge(sealings: &mut Sealings<'_>, io: &mut Io) {
    retain(sealings, io, |s, io| {
        let tunnel = s.sa.tunnel;
        let within = s.sa.life.charge(s.inner_len, |due| io.tell(Event::Due { tunnel, inbound: false, due }));
        if within { Ok(()) } else { Err(DropReason::SaExpired) }
    });
}

/// Gives each packet its sequence number: one atomic operation for each run of packets of one SA.
fn number(sealings: &mut Sealings<'_>, io: &mut Io) {
    for run in sealings.chunk_by_mut(|a, b| std::ptr::eq(a.sa, b.sa)) {
        let first = run[0].sa.take_sequence(run.len() as u64);
        for (s, seq) in run.iter_mut().zip(first..) {
            s.seq = seq;
            encapsulate::number(&mut s.packet, s.layout, s.sa, seq);
        }
    }
    retain(sealings, io, |s, io| {
        if s.seq <= s.sa.last_sequence() {
            return Ok(());
        }
        let (tunnel, due) = (s.sa.tunnel, Due::Sequence);
        s.sa.life.once(due, |due| io.tell(Event::Due { tunnel, inbound: false, due }));
        Err(DropReason::SequenceExhausted)
    });
}

/// Keeps the packets for which `check` answers `Ok`, in order, and drops the others.
fn retain<'r>(
    sealings: &mut Sealings<'r>,
    io: &mut Io,
    mut check: impl FnMut(&Sealing<'r>, &mut Io) -> Result<(), DropReason>,
) {
    let mut kept = Sealings::new();
    for sealing in sealings.drain(..) {
        match check(&sealing, io) {
            Ok(()) => kept.push(sealing),
            Err(reason) => io.drop(sealing.packet, reason),
        }
    }
    *sealings = kept;
}
