//! ESP and IKE to the gateway that came in IP fragments and are longer than a frame.
//!
//! Such a packet is opened in the worker's room for one. Its inner packet goes on in a frame if it fits,
//! and otherwise in fragments, if it may be cut.

use super::{
    admission::{permits, ruled},
    classify::{self, Class},
    deliver::{Long, punt_control},
    departure::{Departure, Departures, Origin},
    encapsulate::whole_limit,
    fragment::{fragment, fragment_outer},
    inbound::{Arrival, Arrivals, admit, finish},
    inner_packet::{forward_one, keep_fragment},
    input_port::from_link,
    io::Io,
    outbound::treat_in,
    policy::Decision,
    policy_fragments,
    reassembly::{Fragments, GROUP, Whole},
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
    Long { packet, mut frame }: Long,
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
    let mut pieces = Fragments::new();
    match finish(&mut packet, &arrival, &mut header, tables, reader, io) {
        Ok((sa, admitted, flow)) => {
            let bytes = header.total_len() as u64;
            io.counters().opened.add(1);
            io.counters().opened_bytes.add(bytes);
            // With limits, it was charged before.
            let _ = sa.life.charge_run(1, bytes);
            let inner = Inner { header: &header, flow: &flow, sa, admitted, number: arrival.number() };
            inner.forward(&mut packet, frame, &mut pieces, tables, reader, io);
        }
        Err(DropReason::FragmentPorts) if copy(&packet, &mut frame) => {
            // Those that were here before have gone on.
            let mut none = Departures::default();
            io.give_room(packet);
            return keep_fragment(frame, &header, arrival.sa, &mut none, tables, reader, io);
        }
        Err(reason) => io.drop(frame, reason),
    }
    io.give_room(packet);
    policy_fragments::pass(Whole::cut_here(&header), &mut pieces, Origin::Tunnel, tables, reader, io);
}

/// Copies the start of a packet into a frame, in place of what is there. Returns whether that is all of
/// the packet.
fn copy(packet: &Packet, frame: &mut Packet) -> bool {
    let room = frame.len() + frame.tailroom();
    let start = &packet.data()[..packet.len().min(room)];
    frame.fill(frame.headroom(), start).is_some() && start.len() == packet.len()
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
    /// `true` if policy judges its fragments together.
    is_judged_whole: bool,
}

impl Inner<'_> {
    /// Forwards `packet`: in `frame` if it fits, otherwise in fragments. If policy judges these together,
    /// they go to `pieces`, which is empty. If the packet must not be cut, its sender hears of the size
    /// that passes.
    fn forward(
        &self,
        packet: &mut Packet,
        mut frame: Packet,
        pieces: &mut Fragments,
        tables: &Tables,
        reader: &Reader,
        io: &mut Io,
    ) {
        if copy(packet, &mut frame) {
            return self.pass(frame, tables, reader, io);
        }
        let room = frame.len() + frame.tailroom();
        packet.set_port(frame.port());
        if let Some(time) = frame.time() {
            packet.set_time(time);
        }
        let done = match self.way(packet, tables, reader) {
            Ok(way) => {
                let way = Way { mtu: way.mtu.min(room), ..way };
                self.cut(packet, &way, pieces, tables, reader, io)
            }
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
        forward_one(packet, self.flow, self.sa, self.admitted, tables, reader, io);
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
            return Ok(Way { mtu, ends_here: !is_nats, is_judged_whole: false });
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
        let later = Flow { ports: None, is_later_fragment: true, ..*self.flow };
        let is_hidden = matches!(tables.decide(&later, reader), Decision::Hidden(_));
        let is_judged_whole = is_hidden && !matches!(decision, Decision::None);
        let mtu = match (out, hop) {
            (Some(out), _) => {
                let endpoint = out.endpoint(reader).ok_or(DropReason::NoEndpoint)?;
                whole_limit(out, endpoint, self.header)
            }
            (None, Some(Hop::Port { port, .. } | Hop::Resolve { port, .. })) => {
                tables.settings.ports[usize::from(*port)].mtu()
            }
            (None, _) => return Err(DropReason::NoRoute),
        };
        Ok(Way { mtu, ends_here: false, is_judged_whole })
    }

    /// Forwards `packet` in fragments, or moves them to `pieces` if policy judges them together.
    ///
    /// # Errors
    /// The reason why the rest is dropped, and the problem that its sender is told of.
    fn cut(
        &self,
        packet: &mut Packet,
        way: &Way,
        pieces: &mut Fragments,
        tables: &Tables,
        reader: &Reader,
        io: &mut Io,
    ) -> Result<(), (Option<Problem>, DropReason)> {
        let (header, mtu) = (self.header, way.mtu);
        let is_plain = header.fragment == Fragment::Whole && (header.is_ipv4() || !header.has_options());
        let done = if !header.dont_fragment && way.is_judged_whole {
            self.cut_for_policy(packet, mtu, pieces, io)
        } else if !header.dont_fragment {
            fragment(packet, header, mtu, io, |io, piece, _| self.pass(piece, tables, reader, io))
        } else if way.ends_here && is_plain {
            let id = io.identification(self.sa.spi, self.number);
            fragment_outer(packet, mtu, id, io, |io, piece| self.pass(piece, tables, reader, io))
        } else {
            return Err((Some(Problem::TooBig { mtu: mtu as u16 }), DropReason::TooBig));
        };
        done.map_err(|reason| (None, reason))
    }

    /// Moves the fragments of `packet`, of at most `mtu` bytes, to `pieces`.
    ///
    /// # Errors
    /// The reason why the packet is dropped.
    fn cut_for_policy(
        &self,
        packet: &Packet,
        mtu: usize,
        pieces: &mut Fragments,
        io: &mut Io,
    ) -> Result<(), DropReason> {
        let part = mtu.saturating_sub(self.header.header_len()) & !7;
        if packet.len() > GROUP * part {
            return Err(DropReason::FragmentPorts);
        }
        let done = fragment(packet, self.header, mtu, io, |_, mut piece, _| {
            piece.set_port(from_link(self.sa.link));
            pieces.push(piece);
        });
        if let Err(reason) = done {
            pieces.drain(..).for_each(|piece| io.drop(piece, reason));
        }
        done
    }
}
