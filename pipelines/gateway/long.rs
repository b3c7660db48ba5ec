//! ESP and IKE to the gateway that came in IP fragments and are longer than a frame.
//!
//! Such a packet is opened in the worker's room for one. Its inner packet goes on in a frame if it fits,
//! and otherwise in fragments, if it may be cut.

use super::{
    classify::{self, Class},
    deliver::{Long, punt_control},
    departure::{Departure, Departures, Origin},
    encapsulate::whole_limit,
    fragment::{fragment, fragment_outer},
    inbound::{Arrival, Arrivals, admit, finish, forward_inner, permits, ruled},
    input_port::from_link,
    io::Io,
    outbound::{self, treat_in},
    policy::Decision,
    tables::{Hop, Tables},
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::{Flow, InboundSa, Mode, Selector},
    table::Reader,
    wire::{
        icmp::Problem,
        ip::{Fragment, IpHeader},
    },
};

/// Handles a packet to the gateway. Its header is read into `header`.
#[cold]
#[inline(never)]
pub(super) fn receive(long: Long, header: &mut IpHeader, tables: &Tables, reader: &Reader, io: &mut Io) {
    let Long { mut packet, frame } = long;
    let class = match header.read(packet.data()) {
        Ok(()) => classify::whole(&mut packet, header, tables, reader),
        Err(why) => Err(classify::ip_format(why)),
    };
    let done = match class {
        Ok(Class::Esp(esp_at)) => return open(Long { packet, frame }, header, esp_at, tables, reader, io),
        Ok(Class::Control) => punt_control(frame.port(), packet.data(), header, tables, reader, io),
        // Unreachable: its first fragment showed that it is ESP or IKE.
        Ok(_) => Err(DropReason::NotForUs),
        Err(reason) => Err(reason),
    };
    io.give_room(packet);
    match done {
        Ok(()) => io.free(frame),
        Err(reason) => io.drop(frame, reason),
    }
}

/// Opens an ESP packet, and forwards the inner one.
fn open(
    Long { packet, frame }: Long,
    header: &IpHeader,
    esp_at: u16,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let mut arrivals = Arrivals::default();
    let arrival = Arrival::new(&packet, header, esp_at, tables);
    arrivals.push(packet, arrival);
    admit(&mut arrivals, tables, reader, io);
    let Some((mut packet, arrival)) = arrivals.drain().next() else { return io.free(frame) };
    let mut header = IpHeader::default();
    match finish(&mut packet, &arrival, &mut header, tables, reader, io) {
        Ok((sa, admitted, flow)) => {
            let bytes = header.total_len() as u64;
            io.counters().opened.add(1);
            io.counters().opened_bytes.add(bytes);
            // With limits, it was charged before.
            let _ = sa.life.charge_run(1, bytes);
            let inner = Inner { header: &header, flow: &flow, sa, admitted, number: arrival.seq };
            inner.forward(&mut packet, frame, tables, reader, io);
        }
        Err(reason) => io.drop(frame, reason),
    }
    io.give_room(packet);
}

/// An inner packet, and what let it in.
struct Inner<'a> {
    header: &'a IpHeader,
    flow: &'a Flow,
    sa: &'a InboundSa,
    admitted: &'a Selector,
    /// Its number in the SA.
    number: u64,
}

/// The ways of an inner packet that fits no frame.
struct Way {
    /// The length of the longest packet that passes, in bytes.
    mtu: usize,
    /// `true` if the host's own stack joins the packet, so that it may be cut in any case.
    ends_here: bool,
}

impl Inner<'_> {
    /// Forwards `packet`: in `frame` if it fits, otherwise in fragments. If it must not be cut, its sender
    /// hears of the size that passes.
    fn forward(&self, packet: &mut Packet, mut frame: Packet, tables: &Tables, reader: &Reader, io: &mut Io) {
        let room = frame.len() + frame.tailroom();
        let start = &packet.data()[..packet.len().min(room)];
        let is_whole = start.len() == packet.len();
        if frame.fill(frame.headroom(), start).is_some() && is_whole {
            return self.pass(frame, tables, reader, io);
        }
        packet.set_port(frame.port());
        if let Some(time) = frame.time() {
            packet.set_time(time);
        }
        let done = match self.way(packet, tables, reader) {
            Ok(way) => self.cut(packet, &way, room, tables, reader, io),
            Err(DropReason::HopLimit) => Err((Some(Problem::TimeExceeded), DropReason::HopLimit)),
            Err(DropReason::NoRoute) => Err((Some(Problem::Unreachable), DropReason::NoRoute)),
            Err(reason) => Err((None, reason)),
        };
        match done {
            Ok(()) => io.free(frame),
            Err((None, reason)) => io.drop(frame, reason),
            Err((Some(problem), reason)) => {
                // The start of the packet is enough for the report.
                frame.set_port(from_link(self.sa.link));
                io.refuse(frame, problem, reason);
            }
        }
    }

    /// Forwards the packet or a fragment of it.
    fn pass(&self, packet: Packet, tables: &Tables, reader: &Reader, io: &mut Io) {
        let header = match IpHeader::parse(packet.data()) {
            Ok(header) => header,
            Err(_) => return io.drop(packet, DropReason::InnerMalformed),
        };
        let mut out = Departures::default();
        forward_inner(packet, &header, self.flow, self.sa, self.admitted, &mut out, tables, reader, io);
        outbound::run(&mut out, tables, reader, io);
    }

    /// Returns the way of `packet`, by the same rules as for one that fits a frame.
    ///
    /// # Errors
    /// The reason why it does not pass, whatever its length.
    fn way(&self, packet: &Packet, tables: &Tables, reader: &Reader) -> Result<Way, DropReason> {
        let hop = tables.routes.find(self.header.dst, reader);
        let decision = ruled(tables.decide(self.flow, reader), self.sa, self.admitted);
        if self.sa.mode == Mode::Transport || matches!(hop, Some(Hop::Local | Hop::Host)) {
            permits(decision)?;
            let host = tables.settings.host.as_ref();
            let mtu = host.map_or(usize::MAX, |host| tables.settings.ports[usize::from(host.port)].mtu());
            let is_nats = self.sa.mode == Mode::Tunnel && tables.nat.has_address(self.header.dst);
            return Ok(Way { mtu, ends_here: !is_nats });
        }
        if !self.header.is_forwardable() {
            return Err(DropReason::Martian);
        }
        let out = match decision {
            Decision::None => None,
            _ => {
                let departure = Departure::new(self.header, Origin::Tunnel, tables);
                treat_in(&mut None, packet, &departure, tables, reader)?
            }
        };
        if self.header.hop_limit <= 1 {
            return Err(DropReason::HopLimit);
        }
        let mtu = match (out, hop) {
            (Some(out), _) => {
                let endpoint = out.endpoint(reader).ok_or(DropReason::NoEndpoint)?;
                let later = Flow { ports: None, is_later_fragment: true, ..*self.flow };
                if !self.header.dont_fragment && matches!(tables.decide(&later, reader), Decision::Hidden(_))
                {
                    return Err(DropReason::FragmentPorts);
                }
                whole_limit(out, endpoint, self.header)
            }
            (None, Some(Hop::Port { port, .. } | Hop::Resolve { port, .. })) => {
                tables.settings.ports[usize::from(*port)].mtu()
            }
            (None, _) => return Err(DropReason::NoRoute),
        };
        Ok(Way { mtu, ends_here: false })
    }

    /// Forwards `packet` in fragments of at most `room` bytes.
    ///
    /// # Errors
    /// The reason why the rest is dropped, and the problem that its sender is told of.
    fn cut(
        &self,
        packet: &mut Packet,
        way: &Way,
        room: usize,
        tables: &Tables,
        reader: &Reader,
        io: &mut Io,
    ) -> Result<(), (Option<Problem>, DropReason)> {
        let mtu = way.mtu.min(room);
        let header = self.header;
        let is_plain = header.fragment == Fragment::Whole && (header.is_ipv4() || !header.has_options());
        let done = if !header.dont_fragment {
            fragment(packet, header, mtu, io, |io, piece, _| self.pass(piece, tables, reader, io))
        } else if way.ends_here && is_plain {
            let id = io.identification(self.sa.spi, self.number);
            fragment_outer(packet, mtu, id, io, |io, piece| self.pass(piece, tables, reader, io))
        } else {
            return Err((Some(Problem::TooBig { mtu: mtu as u16 }), DropReason::TooBig));
        };
        done.map_err(|reason| (None, reason))
    }
}
