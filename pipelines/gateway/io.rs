//! A worker's ports, pool, counters and rings. Stages take packets from them and give them back.

mod identification;
mod joined;
mod probes;

use super::{
    counters::WorkerCounters,
    kernel_side::{Role, Traffic},
    profile::{Profile, Stage},
    reassembly::Reassembly,
    rings::{Event, PUNT_KINDS, PUNTS_PER_TURN, Punt, Rings},
    share::{ProblemShares, SenderShares, Share, Shares, network, source},
    tables::{Hop, Tables},
};
use crate::clock::{Moment, WorkerClock};
use std::{io, sync::Arc};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::{Burst, Packet},
    pool::{MAX_FRAME, Pool},
    port::{Mac, Port, PortStats},
    prefetch,
    table::Reader,
    wire::{
        Address,
        ethernet::{self, Ethernet},
        icmp::Problem,
    },
};

/// The number of shares of a ring that a message longer than a frame takes.
const LONG_SHARE: u32 = 8;

/// The resources that one worker owns.
#[derive(Debug)]
pub struct Io {
    ports: Vec<Box<dyn Port>>,
    /// The counters of each port's earlier queues.
    earlier: Vec<PortStats>,
    outgoing: Vec<Burst>,
    pool: Pool,
    counters: Arc<WorkerCounters>,
    rings: Arc<Rings>,
    /// The rest of this turn's share of punts, by kind.
    punts_left: [u32; PUNT_KINDS],
    /// The shares that networks of unauthenticated senders have of their ring.
    unauthenticated: Shares,
    /// The shares that links and inner hosts have of the rings of packets that wait for a mapping or for
    /// the MAC address of their next hop.
    waiting: SenderShares,
    /// The shares that links, ports and senders have of the rings of packets whose senders are told of a
    /// problem, and of the ring of probes.
    refused: ProblemShares,
    /// The fragments of packets to the gateway that are not complete yet.
    reassembly: Reassembly,
    /// Room for a packet that is longer than a frame.
    room: Pool,
    /// Whether each port's device is down, if the port was asked in this turn.
    found_down: Box<[Option<bool>]>,
    /// Each port's role in the exception path.
    roles: Vec<Role>,
    clock: WorkerClock,
    /// The time, if it was read in this turn.
    now: Option<Moment>,
    /// The identification of the next packet of ours that may be cut.
    identification: u16,
    profile: Profile,
}

impl Io {
    /// Makes the resources of a worker with one queue of each port, and the ports' roles in the
    /// exception path.
    ///
    /// # Errors
    /// Those of [`Pool::new`] for the room of a long packet.
    pub fn new(
        ports: Vec<Box<dyn Port>>,
        roles: Vec<Role>,
        pool: Pool,
        counters: Arc<WorkerCounters>,
        rings: Arc<Rings>,
    ) -> io::Result<Self> {
        let outgoing = ports.iter().map(|_| Burst::new()).collect();
        let earlier = vec![PortStats::default(); ports.len()];
        let refused = ProblemShares::new(Moment::now(), ports.len());
        let punts_left = [PUNTS_PER_TURN; PUNT_KINDS];
        let found_down = vec![None; ports.len()].into_boxed_slice();
        let reassembly = Reassembly::new(pool.capacity());
        Ok(Self {
            ports,
            earlier,
            outgoing,
            pool,
            counters,
            rings,
            punts_left,
            unauthenticated: Shares::new(Moment::now()),
            waiting: SenderShares::new(Moment::now()),
            refused,
            reassembly,
            room: Pool::new(1, MAX_FRAME)?,
            found_down,
            roles,
            clock: WorkerClock::default(),
            now: None,
            identification: 0,
            profile: Profile::default(),
        })
    }

    /// Prepares the ports for use by the calling thread.
    pub fn attach(&mut self) {
        self.ports.iter_mut().for_each(|port| port.attach());
    }

    /// Takes the ports that the slow path has opened in place of others, and the frames of those that
    /// it has closed.
    #[inline]
    pub fn take_changes(&mut self) {
        if self.rings.has_changes() {
            self.replace_ports();
        }
    }

    #[cold]
    fn replace_ports(&mut self) {
        let rings = self.rings.clone();
        // The slow path soon makes room for more. Until then there are changes.
        while !rings.old_ports.is_full()
            && let Some((index, mut port)) = rings.take_new_port()
        {
            port.attach();
            let old = std::mem::replace(&mut self.ports[index], port);
            self.earlier[index] = self.earlier[index].plus(old.stats());
            if let Err((_, old)) = rings.old_ports.push((index, old)) {
                self.pool.give_returned(old.close());
            }
        }
        while let Some(frames) = rings.take_returned() {
            self.pool.give_returned(frames);
        }
    }

    /// Returns the number of ports.
    pub fn ports(&self) -> usize {
        self.ports.len()
    }

    /// Returns the worker's counters.
    pub fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// Returns the worker's rings.
    pub fn rings(&self) -> &Arc<Rings> {
        &self.rings
    }

    /// Returns the worker's stopwatch.
    pub fn profile(&mut self) -> &mut Profile {
        &mut self.profile
    }

    /// Charges the time since the last call to a stage of a burst that has ended.
    #[inline]
    pub fn mark(&mut self, stage: Stage) {
        self.profile.mark(stage);
    }

    /// Receives a burst from port `index`.
    #[inline]
    pub fn receive(&mut self, index: usize, burst: &mut Burst) {
        self.ports[index].rx(&mut self.pool, burst);
        for packet in burst.iter_mut() {
            packet.set_port(index as u16);
            prefetch::line(packet.data().as_ptr());
        }
        self.counters.received.add(burst.len() as u64);
    }

    /// Returns an empty packet.
    #[inline]
    pub fn take(&mut self) -> Result<Packet, DropReason> {
        self.pool.take().ok_or(DropReason::NoBuffer)
    }

    /// Frees a packet that was consumed, not dropped.
    #[inline]
    pub fn free(&mut self, packet: Packet) {
        self.counters.consumed.add(1);
        self.pool.give(packet);
    }

    /// Gives back an unused frame.
    pub fn give_back(&mut self, frame: Packet) {
        self.pool.give(frame);
    }

    /// Drops a packet.
    #[inline]
    pub fn drop(&mut self, packet: Packet, reason: DropReason) {
        self.counters.drops.count(reason);
        self.pool.give(packet);
    }

    /// Hands a copy of `bytes` to the slow path, within this turn's share.
    ///
    /// # Errors
    /// `PuntRingFull`.
    pub fn punt(&mut self, port: u16, punt: Punt, bytes: &[u8]) -> Result<(), DropReason> {
        let kind = punt.kind(port);
        if self.punts_left[kind] == 0 || !self.rings.of(punt, port, bytes.len()).push((port, punt), bytes) {
            return Err(DropReason::PuntRingFull);
        }
        self.punts_left[kind] -= 1;
        self.counters.punted.add(1);
        Ok(())
    }

    /// Hands a whole packet to the slow path, and drops it if that fails.
    pub fn punt_packet(&mut self, packet: Packet, punt: Punt) {
        match self.punt(packet.port(), punt, packet.data()) {
            Ok(()) => self.free(packet),
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// Does the same within the share of the link that the packet came by, or of its source if it came
    /// in clear. The share is limited while many packets wait.
    pub fn punt_shared(&mut self, packet: Packet, punt: Punt) {
        let (now, port) = (self.now(), packet.port());
        let is_crowded = self.is_crowded(punt, port, packet.len());
        if is_crowded && !self.waiting.of(port, source(&packet)).admits(now, 1) {
            return self.drop(packet, DropReason::PuntRingFull);
        }
        self.punt_packet(packet, punt);
    }

    /// Hands a copy of an IKE message, an IP packet from `from`, to the slow path. `known` is the
    /// share of its IKE SA, if the SPI is known. Because anybody may know an SPI, each IKE SA has only
    /// a share while many messages wait, and counts as unauthenticated beyond that. Each network of
    /// unauthenticated senders has a share too.
    ///
    /// # Errors
    /// `PuntRingFull`.
    pub fn punt_message(
        &mut self,
        port: u16,
        message: &[u8],
        from: Address,
        known: Option<&Share>,
    ) -> Result<(), DropReason> {
        let now = self.now();
        let length = message.len();
        let count = if self.rings.is_long(length) { LONG_SHARE } else { 1 };
        let has_room = |punt, share: &Share| !self.is_crowded(punt, port, length) || share.admits(now, count);
        // Long messages of both kinds wait in one ring. Half of it is for those of established peers.
        let is_kept = self.rings.is_long(length) && self.is_crowded(Punt::Control, port, length);
        if known.is_some_and(|share| has_room(Punt::Peer, share)) {
            self.punt(port, Punt::Peer, message)
        } else if !is_kept && has_room(Punt::Control, self.unauthenticated.of(network(from))) {
            self.punt(port, Punt::Control, message)
        } else {
            Err(DropReason::PuntRingFull)
        }
    }

    /// Returns whether half of the ring for messages of `length` bytes that came by `port`, or half of
    /// this turn's share of it, is used up.
    fn is_crowded(&self, punt: Punt, port: u16, length: usize) -> bool {
        self.punts_left[punt.kind(port)] <= PUNTS_PER_TURN / 2
            || self.rings.of(punt, port, length).is_half_full()
    }

    /// Returns the time, which is read once a turn at most.
    fn now(&mut self) -> Moment {
        *self.now.get_or_insert_with(|| self.clock.now())
    }

    /// Goes by this clock from now on.
    pub fn use_clock(&mut self, clock: WorkerClock) {
        self.clock = clock;
    }

    /// Drops a packet, and lets the slow path report `problem` to the sender if it has time. While many
    /// wait, each link, each port and each sender by a port has only a share.
    pub fn refuse(&mut self, packet: Packet, problem: Problem, reason: DropReason) {
        let (now, punt) = (self.now(), Punt::Problem(problem));
        let has_share = |packet: &Packet| self.refused.admits(now, packet.port(), source(packet));
        if !self.is_crowded(punt, packet.port(), packet.len()) || has_share(&packet) {
            // If the slow path is too busy, the sender gets a report for a later packet.
            let _ = self.punt(packet.port(), punt, packet.data());
        }
        self.drop(packet, reason);
    }

    /// Sends `event` to the slow path; returns `false` if the ring is full.
    pub fn tell(&self, event: Event) -> bool {
        self.rings.events.push(event).is_ok()
    }

    /// Sends an IP packet to `dst` by its route.
    #[inline]
    pub fn route(&mut self, packet: Packet, dst: Address, tables: &Tables, reader: &Reader) {
        self.route_by(tables.routes.find(dst, reader).copied(), packet, dst, tables);
    }

    /// Sends an IP packet to `dst` by a route that was found before.
    #[inline(always)]
    pub fn route_by(&mut self, hop: Option<Hop>, packet: Packet, dst: Address, tables: &Tables) {
        match hop {
            Some(Hop::Port { port, mac }) => self.emit(packet, port, mac, tables),
            Some(Hop::Resolve { port, via }) => {
                self.punt_shared(packet, Punt::Resolve { port, next: via.unwrap_or_else(|| dst.into()) });
            }
            Some(Hop::Local | Hop::Host) => self.to_host(packet, tables),
            None => self.refuse(packet, Problem::Unreachable, DropReason::NoRoute),
        }
    }

    /// Sends an IP packet to the host's own stack.
    #[inline]
    pub fn to_host(&mut self, packet: Packet, tables: &Tables) {
        match &tables.settings.host {
            // Packets from the host must not go back to it.
            Some(host) if host.port != packet.port() => self.emit(packet, host.port, host.mac.get(), tables),
            _ => self.drop(packet, DropReason::NotForUs),
        }
    }

    /// Returns the port of which port `index` is the kernel side.
    #[inline]
    pub fn wire_of(&self, index: usize) -> Option<u16> {
        match self.roles.get(index) {
            Some(Role::Tap(wire)) => Some(*wire),
            _ => None,
        }
    }

    /// Returns whether `port` has a kernel side.
    #[inline]
    pub fn has_kernel_side(&self, port: u16) -> bool {
        matches!(self.roles.get(usize::from(port)), Some(Role::Nic { .. }))
    }

    /// Hands a whole frame to the kernel side of its input port, within the rate for this kind of
    /// `traffic`. Frees the frame if there is no kernel side.
    pub fn to_kernel(&mut self, packet: Packet, traffic: Traffic) {
        let Some(Role::Nic { tap, limits }) = self.roles.get_mut(usize::from(packet.port())) else {
            return self.free(packet);
        };
        let (tap, now, clock) = (*tap, &mut self.now, &self.clock);
        if limits[traffic as usize].admits(|| *now.get_or_insert_with(|| clock.now())) {
            self.send(packet, tap);
        } else {
            self.drop(packet, DropReason::ExceptionLimit);
        }
    }

    /// Puts an Ethernet header before an IP packet and sends it to `dst` by `port`.
    #[inline]
    pub(super) fn emit(&mut self, mut packet: Packet, port: u16, dst: Mac, tables: &Tables) {
        let ethertype = if packet.data()[0] >> 4 == 4 { ethernet::IPV4 } else { ethernet::IPV6 };
        if packet.push_front(ethernet::HEADER).is_none() {
            return self.drop(packet, DropReason::NoHeadroom);
        }
        let src = tables.settings.ports[usize::from(port)].mac.get();
        Ethernet { dst, src, ethertype }.emit(packet.data_mut());
        self.send(packet, port);
    }

    /// Sends a whole frame by `port`.
    #[inline(always)]
    pub fn send(&mut self, packet: Packet, port: u16) {
        let port = usize::from(port);
        if let Err(full) = self.outgoing[port].try_push(packet) {
            self.transmit(port);
            self.outgoing[port].push(full.element());
        }
    }

    /// Sends whole frames by `port`, which leave `burst` empty.
    #[inline]
    pub fn send_all(&mut self, burst: &mut Burst, port: u16) {
        let port = usize::from(port);
        if self.outgoing[port].room() < burst.len() {
            self.transmit(port);
        }
        self.outgoing[port].append(burst);
    }

    fn transmit(&mut self, port: usize) {
        // Not every device that is down refuses what it gets.
        if self.rings.is_down(port) {
            return self.drop_unsent(port, 0);
        }
        let (burst, to) = (&mut self.outgoing[port], &mut self.ports[port]);
        let (before, refused_before) = (burst.len(), to.refused());
        to.tx(&mut self.pool, burst);
        let refused = to.refused() - refused_before;
        self.counters.sent.add((before - burst.len()) as u64 - refused);
        if refused > 0 || !burst.is_empty() {
            self.drop_unsent(port, refused);
        }
    }

    /// Drops the packets that a port did not take, and counts those that its device has refused.
    #[cold]
    fn drop_unsent(&mut self, port: usize, refused: u64) {
        let (ports, found_down) = (&self.ports, &mut self.found_down[port]);
        // The slow path takes its time before it says that a device is down.
        let is_down = self.rings.is_down(port) || *found_down.get_or_insert_with(|| ports[port].is_down());
        let [refusal, reason] = match is_down {
            _ if self.ports[port].is_absent() => [DropReason::DeviceRefused, DropReason::PortGone],
            true => [DropReason::PortDown; 2],
            false => [DropReason::DeviceRefused, DropReason::TxRingFull],
        };
        (0..refused).for_each(|_| self.counters.drops.count(refusal));
        for packet in self.outgoing[port].drain(..) {
            self.counters.drops.count(reason);
            self.pool.give(packet);
        }
    }

    /// Ends a turn: passes all packets that are to leave to their ports.
    pub fn flush(&mut self) {
        for port in 0..self.ports.len() {
            if !self.outgoing[port].is_empty() {
                self.transmit(port);
            }
            self.ports[port].flush(&mut self.pool);
            self.found_down[port] = None;
        }
        self.punts_left = [PUNTS_PER_TURN; PUNT_KINDS];
        self.now = None;
    }

    /// See [`super::worker::Worker::unaccounted`].
    pub fn unaccounted(&self) -> i64 {
        let c = &self.counters;
        let received: u64 = self
            .ports
            .iter()
            .zip(&self.earlier)
            .map(|(port, earlier)| earlier.plus(port.stats()).rx_packets)
            .sum();
        let came = received + c.injected.value() + c.made.value();
        let ended = c.sent.value() + c.dropped() + c.consumed.value();
        came as i64 - (ended + self.reassembly.waiting() as u64) as i64
    }

    /// Returns whether no port will ever receive again.
    pub fn is_exhausted(&self) -> bool {
        self.ports.iter().all(|p| p.is_exhausted())
    }

    /// Returns whether all sent packets have left.
    pub fn is_drained(&self) -> bool {
        self.ports.iter().all(|p| p.is_drained())
    }

    /// Prepares the worker to go on after a panic. Drops the packets in hand, and those that waited
    /// to be sent or to become complete, because one of them may have caused the panic.
    pub fn recover(&mut self) {
        let mut waiting: usize = self.outgoing.iter().map(|burst| burst.len()).sum();
        self.outgoing.iter_mut().for_each(|burst| self.pool.give_all(burst));
        waiting += self.free_fragments();
        for _ in 0..waiting + self.pool.adopt_orphans() {
            self.counters.drops.count(DropReason::WorkerFault);
        }
        self.room.adopt_orphans();
        self.counters.faults.add(1);
    }

    /// Frees all fragments that wait, and returns their number.
    fn free_fragments(&mut self) -> usize {
        let Self { reassembly, pool, .. } = self;
        reassembly.drain().map(|fragment| pool.give(fragment)).count()
    }

    /// Publishes the counters of ports and pool, and the number of fragments that wait.
    pub fn report(&self) {
        for ((counters, port), earlier) in self.counters.ports.iter().zip(&self.ports).zip(&self.earlier) {
            counters.set(&earlier.plus(port.stats()));
        }
        self.counters.free_frames.set(self.pool.available() as u64);
        self.counters.waiting.set(self.reassembly.waiting() as u64);
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.free_fragments();
    }
}

#[cfg(test)]
mod tests;
