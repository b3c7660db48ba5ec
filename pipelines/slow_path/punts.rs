//! Handles frames that workers pass to the slow path: neighbour discovery, packets that wait for
//! it, control messages, and packets whose senders must be told of an error.

use super::{
    SlowPath,
    handles::PortHandle,
    nat::Answers,
    neighbours::{Action, Waiting},
    table_writer::TableWriter,
};
use crate::gateway::{
    input_port::is_from_tunnel,
    nat::restore::restore,
    policy::{Action as RuleAction, Decision, Rule},
    rings::{Inject, Punt},
    tables::Tables,
};
use std::{io, net::IpAddr, time::Duration};
use wayfarer_dataplane::{
    drop::DropReason,
    sa::{Flow, Mode},
    wire::{
        Address, FormatError,
        encapsulation::Encapsulation,
        icmp::{self, Problem},
        ip::{self, Fragment, IpHeader},
        translate::{End, Side},
    },
};

/// Most frames that are taken from one ring in one turn.
const MAX_PUNTS: usize = 64;
/// Longest neighbour discovery frame that is read, in bytes.
const MAX_FRAME_LEN: usize = 2048;

impl SlowPath {
    pub(super) fn handle_punts(&mut self, now: Duration) -> bool {
        let mut busy = false;
        for worker in 0..self.workers.len() {
            let rings = self.workers[worker].rings.clone();
            for ring in rings.punts() {
                for _ in 0..MAX_PUNTS {
                    if ring
                        .pop(|(port, punt), frame| self.take_punt(now, worker, port, punt, frame))
                        .is_none()
                    {
                        break;
                    }
                    busy = true;
                }
            }
        }
        busy |= self.handle_neighbour_frames(now);
        busy | self.handle_too_big_frames(now)
    }

    /// Handles neighbour discovery frames of devices that are shared with the kernel.
    fn handle_neighbour_frames(&mut self, now: Duration) -> bool {
        let mut busy = false;
        let mut frame = [0; MAX_FRAME_LEN];
        for (index, port) in self.network.ports.iter().enumerate() {
            let Some(neighbours) = port.neighbour_socket() else { continue };
            for _ in 0..MAX_PUNTS {
                let Some(length) = neighbours.recv(&mut frame) else { break };
                busy = true;
                self.counters.received.add(1);
                let handled = self.neighbours.handle_frame(now, index as u16, &frame[..length]);
                self.counters.count_end(handled.map_err(|_| DropReason::ControlFormat));
            }
        }
        busy
    }

    /// Handles ICMP errors about packets that were too big, to the host on devices that are shared
    /// with the kernel. The kernel handles them too.
    fn handle_too_big_frames(&mut self, now: Duration) -> bool {
        let mut busy = false;
        let mut frame = [0; MAX_FRAME_LEN];
        for port in &self.network.ports {
            let Some(shared) = &port.shared else { continue };
            for _ in 0..MAX_PUNTS {
                let Some(packet) = shared.too_big.recv(&mut frame) else { break };
                busy = true;
                self.counters.received.add(1);
                self.counters.count_end(self.links.handle_kernels_too_big(now, packet));
            }
        }
        busy
    }

    /// Takes a frame from a worker.
    fn take_punt(&mut self, now: Duration, worker: usize, port: u16, punt: Punt, frame: &[u8]) {
        self.counters.punted.add(1);
        match self.handle_punt(now, worker, port, punt, frame) {
            Ok(()) if goes_on(punt) => {}
            handled => self.counters.count_end(handled),
        }
    }

    /// Handles a frame of a worker.
    ///
    /// # Errors
    /// The reason to drop it.
    fn handle_punt(
        &mut self,
        now: Duration,
        worker: usize,
        port: u16,
        punt: Punt,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        match punt {
            Punt::Neighbour => {
                self.neighbours.handle_frame(now, port, frame).map_err(|_| DropReason::ControlFormat)
            }
            Punt::Resolve { port: to, .. } if self.devices.is_gone(to) => Err(DropReason::PortGone),
            Punt::Resolve { port: to, next } => {
                let waiting = Waiting { from: port, packet: frame.to_vec() };
                let is_kept = self.neighbours.resolve(now, to, next, Some(waiting));
                if is_kept { Ok(()) } else { Err(DropReason::SlowPathLimit) }
            }
            Punt::Problem(problem) => {
                self.answer_problem(now, port, problem, frame);
                Ok(())
            }
            Punt::Unmapped { nat } => self.handle_unmapped(now, worker, port, nat, frame),
            Punt::PathMtu => self.links.handle_too_big(now, frame),
            Punt::Update => self.handle_update(now, frame),
            Punt::Registration => self.handle_registration(now, port, frame),
            Punt::Probe { tunnel, probe } => self.links.handle_probe(now, tunnel, probe),
            Punt::Early { spi, esp_at } => {
                self.links.handle_early(now, spi, esp_at, frame);
                Ok(())
            }
            Punt::Control | Punt::Peer => match &mut self.ike {
                Some(ike) => ike.handle_message(now, frame),
                None => Err(DropReason::NoKeyExchange),
            },
        }
    }

    /// Makes a mapping for a packet from inside of a NAT, and hands the packet back to its worker, which
    /// gets all fragments of a packet in their order.
    fn handle_unmapped(
        &mut self,
        now: Duration,
        worker: usize,
        port: u16,
        nat: u8,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let header = IpHeader::parse(packet).map_err(|_| DropReason::NatProtocol)?;
        let answers = match is_from_tunnel(port) {
            true => {
                let flow = Flow::of(&header, packet).reversed();
                // Its tunnel may have ended since, and the mapping would be the next peer's.
                let holder = self.links.holder_of(&flow).ok_or(DropReason::SourcePort)?;
                Some(Answers { flow, holder })
            }
            false => None,
        };
        if header.fragment != Fragment::Later {
            let end = End::of(&header, packet, Side::Source).map_err(|_| DropReason::NatProtocol)?;
            self.nats.map(now, nat, &end, answers, &mut self.links)?;
        }
        self.inject_to(worker, Inject::Mapped { port }, packet)
    }

    /// Carries out the actions of neighbour discovery.
    pub(super) fn handle_neighbours(&mut self, now: Duration) {
        while let Some(action) = self.neighbours.poll_action() {
            let (routes, tables) = (&mut self.network.routes, &mut self.links.tables);
            match action {
                Action::Send { port, frame } => self.send_neighbour_frame(port, &frame),
                Action::Resolved { port, address, mac } => {
                    routes.resolved(tables, port, address, mac);
                }
                Action::Release(packet) => self.inject_all([(Inject::Route, &packet[..])]),
                Action::Failed { port, address, lost } => {
                    routes.failed(tables, port, address);
                    for Waiting { from, packet } in lost {
                        self.counters.drops.count(DropReason::NeighbourFailed);
                        self.answer_problem(now, from, Problem::HostUnreachable, &packet);
                    }
                }
            }
        }
    }

    fn send_neighbour_frame(&mut self, port: u16, frame: &[u8]) {
        match self.network.ports.get(usize::from(port)).and_then(PortHandle::neighbour_socket) {
            None => self.inject_made(Inject::Frame { port }, frame),
            Some(neighbours) => {
                self.counters.made.add(1);
                let Err(why) = neighbours.send(frame) else { return self.counters.sent.add(1) };
                // Neighbour discovery retries by itself.
                let is_down = self.devices.is_down(port) || why.kind() == io::ErrorKind::NetworkDown;
                let reason = if is_down { DropReason::PortDown } else { DropReason::TxRingFull };
                self.counters.drops.count(reason);
            }
        }
    }

    /// Sends an ICMP error to the sender of a dropped packet: through the tunnel that the packet
    /// came out of, or unencrypted if the packet was. The error quotes the packet, so traffic that
    /// a tunnel protects is never answered unencrypted. The worker finds the tunnel by the addresses
    /// of the error, or by what it quotes.
    fn answer_problem(&mut self, now: Duration, port: u16, problem: Problem, packet: &[u8]) {
        let TableWriter { tables, reader, .. } = &self.links.tables;
        // The sender knows nothing of a translation since.
        let mut packet = packet.to_vec();
        restore(&mut packet, port, tables, reader);
        // A tunnel of the home agent is no sender: whoever sent the packet inside is told (RFC 2003 §5).
        let (problem, packet) = match unwrapped(&packet, tables) {
            Some((inner, added)) => (within(problem, added), inner),
            None => (problem, packet),
        };
        let packet = &packet[..];
        let Some(header) = header_of_start(packet) else { return };
        if !icmp::may_answer(&header, packet) {
            return;
        }
        let protecting = |flow: &Flow| match tables.decide(flow, reader) {
            Decision::Rule(Rule { action: RuleAction::Protect(sa), .. }) => Some(sa),
            _ => None,
        };
        let flow = Flow::of(&header, packet);
        let rule = tables.decide(&flow, reader).rule();
        let through_tunnel = is_from_tunnel(port) || tables.is_unprotected(&flow, rule, reader);
        let answer_from = |src: IpAddr| Flow {
            src: src.into(),
            dst: header.src,
            protocol: if header.src.is_ipv4() { ip::protocol::ICMP } else { ip::protocol::ICMPV6 },
            ports: None,
            is_later_fragment: false,
        };
        let ports = &self.network.ports;
        let of_port = || own_addresses(ports.get(usize::from(port)), header.src.into());
        let own = || of_port().chain(own_addresses(ports, header.src.into()));
        let from = if through_tunnel {
            let by_address = own().find(|own| protecting(&answer_from(*own)).is_some());
            let by_quote = protecting(&flow.reversed()).is_some_and(|sa| sa.mode == Mode::Tunnel);
            by_address.or_else(|| own().next().filter(|_| by_quote))
        } else if tables.is_local(header.src, reader) {
            // A host believes no packet from an address of its own. Among the packets that waited
            // for their next hop, those with such a source are mostly sealed ones.
            (problem != Problem::HostUnreachable).then(|| header.dst.into())
        } else if tables.is_host_port(port) {
            // The addresses on other ports are mostly the host's own too.
            of_port().next().or_else(|| Some(header.dst.into()))
        } else {
            own().next()
        };
        let Some(answer) = from.and_then(|from| icmp::error(problem, from, &header, packet)) else { return };
        if self.problems.admits(now, port, header.src.into()) {
            self.inject_made(if through_tunnel { Inject::Policy } else { Inject::Route }, &answer);
        }
    }
}

/// Returns whether a frame that was handled waits here or goes back to a worker, so that its end is counted
/// elsewhere.
fn goes_on(punt: Punt) -> bool {
    matches!(punt, Punt::Resolve { .. } | Punt::Unmapped { .. } | Punt::Early { .. })
}

/// Returns the gateway's addresses on `ports` in the family of `to`.
fn own_addresses<'a>(
    ports: impl IntoIterator<Item = &'a PortHandle>,
    to: IpAddr,
) -> impl Iterator<Item = IpAddr> {
    let all = ports.into_iter().flat_map(|port| port.segment.addresses.iter().map(|(own, _)| *own));
    all.filter(move |own| own.is_ipv4() == to.is_ipv4())
}

/// Returns the packet in one that the gateway's home agent has wrapped, and how many bytes that has added; `None`
/// if it is another one.
fn unwrapped(packet: &[u8], tables: &Tables) -> Option<(Vec<u8>, usize)> {
    let agent = tables.settings.home_agent.as_ref()?;
    let outer = header_of_start(packet)?;
    let encapsulation = Encapsulation::of_protocol(outer.protocol)?;
    if outer.src != Address::from(agent.address) {
        return None;
    }
    let mut bytes = packet.to_vec();
    let inner = encapsulation.unwrap(&mut bytes, &outer).ok()?;
    Some((bytes.get(inner.clone())?.to_vec(), inner.start))
}

/// Returns what a problem with a wrapped packet is to the sender of the one inside.
fn within(problem: Problem, added: usize) -> Problem {
    match problem {
        Problem::TooBig { mtu } => Problem::TooBig { mtu: mtu.saturating_sub(added as u16) },
        Problem::TimeExceeded => Problem::HostUnreachable,
        other => other,
    }
}

/// Reads the header of a packet of which `bytes` may be only the start. Its total length is theirs then.
fn header_of_start(bytes: &[u8]) -> Option<IpHeader> {
    match IpHeader::parse(bytes) {
        Err(FormatError::TotalLength) => {
            let mut start = bytes.to_vec();
            let header_len = if bytes[0] >> 4 == 4 { usize::from(bytes[0] & 0xf) * 4 } else { ip::V6_HEADER };
            ip::set_total_len(&mut start, header_len, bytes.len());
            IpHeader::parse(&start).ok()
        }
        parsed => parsed.ok(),
    }
}
