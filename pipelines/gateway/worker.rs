//! A poll-mode worker: one thread, one core, one queue of every port.

use super::{
    care_of,
    classify::{self, Class, Unclassified, classify},
    deliver::{Defragmented, control, defragment, deliver, neighbour},
    departure::{Departure, Departures, Origin},
    dummy, exception,
    flows::{Flows, Rest},
    forward,
    inbound::{self, Arrival, Arrivals},
    input_port::{FROM_SLOW_PATH, is_from_tunnel},
    io::Io,
    long, nat, outbound, policy_fragments,
    profile::{Profile, Stage},
    reassembly::{Fragments, Sender},
    rings::Inject,
    tables::{Hop, Tables},
};
use crate::clock::{SimulatedClock, WorkerClock};
use nix::time::{ClockId, clock_gettime};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tracing::error;
use wayfarer_dataplane::{
    drop::DropReason,
    packet::{BURST, Burst, Packet, Taken},
    table::Reader,
    wire::{
        ethernet,
        ip::{Fragment, IpHeader},
    },
};

/// The number of packets received from one port in one turn, fewer than a burst holds, so that
/// fragments have room.
const RECEIVE: usize = BURST / 2;
/// The number of frames taken from the slow path in one turn.
const INJECT: usize = 16;
/// Turns between two reports of counters: rare enough to be cheap, often enough for people.
const REPORT: u64 = 1 << 12;
/// Idle turns after which a worker that may sleep does so.
const PATIENCE: u32 = 1 << 10;
/// Turns of a busy worker between two reads of a TAP of the exception path, which are system calls.
const TAP_TURNS: u64 = 16;
/// How long a worker that stops waits for its ports to drain.
const DRAIN: Duration = Duration::from_millis(500);
/// How long a worker whose ports are exhausted waits for the slow path's frames about the last
/// packets.
const LINGER: Duration = Duration::from_millis(50);

/// One worker.
#[derive(Debug)]
pub struct Worker {
    io: Io,
    tables: Arc<Tables>,
    reader: Reader,
    idle_sleep: Option<Duration>,
    headers: Box<Headers>,
    flows: Flows,
}

impl Worker {
    /// Makes a worker over `io` that reads `tables` by `reader` and remembers flows in `flows`. An idle
    /// worker sleeps `idle_sleep` between polls, or never if that is `None`.
    pub fn new(
        io: Io,
        tables: Arc<Tables>,
        reader: Reader,
        idle_sleep: Option<Duration>,
        flows: Flows,
    ) -> Self {
        Self { io, tables, reader, idle_sleep, headers: Box::default(), flows }
    }

    /// Works until `stop`, or until no port will ever receive again; then sends the rest. After a
    /// panic, the packets in hand and those to be sent are dropped, and the worker goes on with its
    /// ports, frames and tables. Other workers do not notice.
    pub fn run(&mut self, stop: &AtomicBool) {
        self.io.attach();
        // State that workers share is atomic, and the worker's own state is consistent or dropped.
        while catch_unwind(AssertUnwindSafe(|| self.work(stop))).is_err() {
            self.io.recover();
            self.reader.quiescent();
            let faults = self.io.counters().faults.value();
            // The panic itself has been reported. The count may grow as fast as somebody sends
            // packets that cause it.
            if faults.is_power_of_two() {
                error!(
                    name: "worker_failed", faults,
                    "a worker failed, dropped what it had in hand, and goes on: please report this"
                );
            }
            if stop.load(Relaxed) {
                // A packet that fails now may fail again.
                break;
            }
        }
        debug_assert_eq!(self.unaccounted(), 0, "packets whose end was not counted, or counted twice");
    }

    fn work(&mut self, stop: &AtomicBool) {
        // Clears the leftovers of a failed turn.
        self.io.flush();
        let mut idle = 0;
        let mut exhausted = None;
        while !stop.load(Relaxed) {
            if self.turn() {
                (idle, exhausted) = (0, None);
                continue;
            }
            idle += 1;
            if self.io.is_exhausted() && exhausted.get_or_insert_with(Instant::now).elapsed() > LINGER {
                break;
            }
            if let Some(sleep) = self.idle_sleep.filter(|_| idle > PATIENCE) {
                self.report();
                std::thread::sleep(sleep);
            }
        }
        self.drain();
    }

    /// Does one turn: a burst from every port, then the slow path's frames. Returns whether there
    /// was any work.
    pub fn turn(&mut self) -> bool {
        let mut busy = false;
        // What is remembered is not used after a change that was complete before this turn.
        self.reader.quiescent();
        let Self { io, tables, reader, headers, flows, .. } = self;
        io.take_changes();
        for port in 0..io.ports() {
            let wire = io.wire_of(port);
            if wire.is_some() && busy && !io.counters().turns.value().is_multiple_of(TAP_TURNS) {
                continue;
            }
            let mut burst = Burst::new();
            io.receive(port, &mut burst);
            io.mark(Stage::Receive);
            busy |= !burst.is_empty();
            if let Some(wire) = wire {
                exception::to_wire(&mut burst, wire, tables, reader, io);
                continue;
            }
            while !burst.is_empty() {
                let some = burst.len().min(RECEIVE);
                let mut room = Rest::default();
                let rest = if flows.begin() {
                    let (burst, at) = (burst.take(some), (&**tables, &*reader));
                    flows.run(burst, port as u16, &mut room, &mut headers.inner, at, io);
                    room.in_order()
                } else {
                    burst.take(some)
                };
                whole_way(rest, headers, tables, reader, io);
                flows.learn(tables, reader);
            }
        }
        busy |= self.inject();
        self.io.mark(Stage::Turn);
        self.io.flush();
        self.io.mark(Stage::Transmit);
        self.reader.quiescent();
        let counters = self.io.counters();
        counters.turns.add(1);
        counters.idle_turns.add(u64::from(!busy));
        if counters.turns.value().is_multiple_of(REPORT) {
            self.io.expire_fragments();
            self.report();
        }
        self.io.mark(Stage::Turn);
        busy
    }

    /// Has the worker go by a simulation's clock from now on.
    pub fn use_clock(&mut self, clock: SimulatedClock) {
        self.io.use_clock(WorkerClock::Simulated(clock));
    }

    /// Returns the worker's stopwatch.
    pub fn profile(&mut self) -> &mut Profile {
        self.io.profile()
    }

    /// Returns how many packets the ports took, came from the slow path or were made, less those whose
    /// end was counted and the fragments that wait. It is zero between turns.
    pub fn unaccounted(&self) -> i64 {
        self.io.unaccounted()
    }

    /// Takes frames from the slow path; returns whether there were any.
    fn inject(&mut self) -> bool {
        let rings = self.io.rings().clone();
        let waiting = rings.inject.len().min(INJECT);
        if waiting == 0 {
            return false;
        }
        let Self { io, tables, reader, headers, .. } = self;
        let mut sorted = SortedBurst::default();
        for header in headers.outer.iter_mut().take(waiting) {
            let Ok(mut packet) = io.take() else {
                // Without a free frame, the rest waits in its ring.
                break;
            };
            packet.set_port(FROM_SLOW_PATH);
            let headroom = packet.headroom();
            let popped = rings.inject.pop(|what, frame| packet.fill(headroom, frame).map(|()| what));
            io.counters().injected.add(popped.is_some().into());
            match popped {
                Some(Some(what)) => sorted.inject(packet, header, what, tables, reader, io),
                Some(None) => io.drop(packet, DropReason::NoHeadroom),
                None => io.give_back(packet),
            }
        }
        sorted.process(&mut headers.inner, tables, reader, io);
        true
    }

    /// Sends packets that were accepted before the stop, and waits a bounded time for them to
    /// leave.
    fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN;
        loop {
            let more = self.inject();
            self.io.flush();
            if (!more && self.io.is_drained()) || Instant::now() > deadline {
                break;
            }
            std::thread::yield_now();
        }
        self.report();
    }

    fn report(&self) {
        self.io.report();
        if let Ok(cpu) = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) {
            let cpu: Duration = cpu.into();
            self.io.counters().cpu_ns.set(cpu.as_nanos() as u64);
        }
    }
}

/// Storage for the headers of a turn's packets, which are parsed once, in place, and referred to
/// afterwards.
#[derive(Debug)]
struct Headers {
    outer: [IpHeader; BURST],
    /// Headers of inner packets.
    inner: [IpHeader; BURST],
}

impl Default for Headers {
    fn default() -> Self {
        Self { outer: [IpHeader::default(); BURST], inner: [IpHeader::default(); BURST] }
    }
}

/// Takes packets all the way through all tables.
#[inline(always)]
fn whole_way(packets: Taken<'_>, headers: &mut Headers, tables: &Tables, reader: &Reader, io: &mut Io) {
    let mut sorted = SortedBurst::default();
    for (packet, header) in packets.zip(&mut headers.outer) {
        sorted.sort(packet, header, tables, reader, io);
    }
    io.mark(Stage::Classify);
    sorted.process(&mut headers.inner, tables, reader, io);
}

/// A burst, divided by the class of its packets.
#[derive(Default)]
struct SortedBurst<'r> {
    arrivals: Arrivals<'r>,
    departures: Departures<'r>,
}

impl<'r> SortedBurst<'r> {
    /// Classifies a received packet, and puts it into the part for its class.
    #[inline(always)]
    fn sort(
        &mut self,
        mut packet: Packet,
        header: &'r mut IpHeader,
        tables: &'r Tables,
        reader: &'r Reader,
        io: &mut Io,
    ) {
        match classify(&mut packet, header, tables, reader) {
            Ok(Class::Esp(esp_at)) => {
                let arrival = Arrival::new(&packet, header, esp_at, tables);
                self.arrivals.push(packet, arrival);
            }
            Ok(Class::Forward) => {
                let origin = if tables.is_host_port(packet.port()) { Origin::Host } else { Origin::Wire };
                if header.fragment != Fragment::Whole {
                    return self.forward_fragment(packet, header, origin, tables, reader, io);
                }
                self.departures.push(packet, Departure::new(header, origin, tables));
            }
            Ok(Class::Home) => self.send_home(packet, header, tables, reader, io),
            Ok(Class::Nat) => self.translate(packet, header, tables, reader, io),
            Ok(Class::Host(padding)) => deliver(packet, padding, header, tables, reader, io),
            Ok(Class::Neighbour) => neighbour(packet, io),
            Ok(Class::Control) => control(packet, header, tables, reader, io),
            Err(Unclassified::Drop(reason)) => self.refused(packet, header, reason, tables, reader, io),
            Err(Unclassified::Fragment) => self.fragment(packet, header, tables, reader, io),
        }
    }

    /// Wraps a packet to a home address, which then goes on by policy.
    #[inline(never)]
    fn send_home(
        &mut self,
        packet: Packet,
        header: &'r mut IpHeader,
        tables: &'r Tables,
        reader: &'r Reader,
        io: &mut Io,
    ) {
        let origin = if tables.is_host_port(packet.port()) { Origin::Host } else { Origin::Wire };
        if let Some(packet) = care_of::wrap(packet, header, origin, tables, reader, io) {
            self.departures.push(packet, Departure::new(header, Origin::Host, tables));
        }
    }

    /// Translates a packet to a port of a NAT, which then goes on by policy.
    #[inline(never)]
    fn translate(
        &mut self,
        mut packet: Packet,
        header: &'r mut IpHeader,
        tables: &'r Tables,
        reader: &'r Reader,
        io: &mut Io,
    ) {
        let packets = std::slice::from_mut(&mut packet);
        match nat::inward::translate(header, packets, Origin::Wire, tables, reader) {
            Ok(origin) => match header.read(packet.data()) {
                Ok(()) => self.departures.push(packet, Departure::new(header, origin, tables)),
                Err(why) => io.drop(packet, classify::ip_format(why)),
            },
            Err(refusal) => refusal.apply(packet, io),
        }
    }

    /// Keeps a fragment of a packet to the gateway or its NAT until the packet is complete, then sorts the
    /// packet.
    #[cold]
    #[inline(never)]
    fn fragment(
        &mut self,
        packet: Packet,
        header: &'r mut IpHeader,
        tables: &'r Tables,
        reader: &'r Reader,
        io: &mut Io,
    ) {
        let mut fragments = Fragments::new();
        let mut packet = match defragment(packet, header, &mut fragments, tables, reader, io) {
            Some(Defragmented::Whole(packet)) => packet,
            Some(Defragmented::Long(long)) => {
                self.process_at_once(tables, reader, io);
                return long::receive(long, header, tables, reader, io);
            }
            Some(Defragmented::Nat(whole)) => {
                return nat::inward::pass(Some(whole), &mut fragments, Origin::Wire, tables, reader, io);
            }
            None => return,
        };
        let class = header.read(packet.data()).map_err(classify::ip_format);
        match class.and_then(|()| classify::whole(&mut packet, header, tables, reader)) {
            Ok(Class::Esp(esp_at)) => {
                let arrival = Arrival::new(&packet, header, esp_at, tables);
                self.arrivals.push(packet, arrival);
            }
            Ok(Class::Control) => control(packet, header, tables, reader, io),
            Ok(_) => deliver(packet, 0, header, tables, reader, io),
            Err(reason) => io.drop(packet, reason),
        }
    }

    /// Keeps a fragment of a packet to be forwarded until the packet is complete, if policy judges its
    /// fragments together.
    #[cold]
    #[inline(never)]
    fn forward_fragment(
        &mut self,
        packet: Packet,
        header: &'r mut IpHeader,
        origin: Origin,
        tables: &'r Tables,
        reader: &'r Reader,
        io: &mut Io,
    ) {
        if !policy_fragments::waits(header, origin, tables, reader) {
            return match policy_fragments::shows_ports(header, packet.data()) {
                Ok(()) => self.departures.push(packet, Departure::new(header, origin, tables)),
                Err(reason) => io.drop(packet, reason),
            };
        }
        // Policy asks by which port the first one came, so the others must come by that too.
        let sender = if origin == Origin::Host { Sender::Host } else { Sender::Port(packet.port()) };
        let mut fragments = Fragments::new();
        if let Some(whole) = io.reassemble_from(sender, packet, header, &mut fragments) {
            self.process_at_once(tables, reader, io);
            policy_fragments::pass(whole, &mut fragments, origin, tables, reader, io);
        }
    }

    /// Handles a frame that is not the gateway's for `reason`. A frame with tags of VLAN 0 is in no
    /// VLAN (IEEE 802.1Q), and so is classified again without them.
    #[cold]
    #[inline(never)]
    fn refused(
        &mut self,
        mut packet: Packet,
        header: &'r mut IpHeader,
        reason: DropReason,
        tables: &'r Tables,
        reader: &'r Reader,
        io: &mut Io,
    ) {
        let tags = match reason {
            DropReason::UnknownEthertype => ethernet::strip_priority(packet.data_mut()),
            _ => 0,
        };
        if tags > 0 && packet.pull_front(tags).is_some() {
            return self.sort(packet, header, tables, reader, io);
        }
        exception::refused(packet, reason, tables, reader, io);
    }

    /// Puts a packet from the slow path into the part that it belongs to.
    fn inject(
        &mut self,
        packet: Packet,
        header: &'r mut IpHeader,
        what: Inject,
        tables: &'r Tables,
        reader: &'r Reader,
        io: &mut Io,
    ) {
        if let Inject::Frame { port } = what {
            return io.send(packet, port);
        }
        match header.read(packet.data()) {
            Ok(()) => match what {
                Inject::Route => io.route(packet, header.dst, tables, reader),
                Inject::Mapped { port } => mapped(packet, header, port, tables, reader, io),
                Inject::Early { esp_at } => {
                    let arrival = Arrival::new(&packet, header, esp_at, tables);
                    self.arrivals.push(packet, arrival);
                }
                Inject::By(sa) => outbound::run_by(packet, header, &sa, tables, reader, io),
                Inject::Dummy(sa) => dummy::send(packet, header, &sa, tables, reader, io),
                _ => self.departures.push(packet, Departure::new(header, Origin::Host, tables)),
            },
            Err(_) => io.drop(packet, DropReason::InnerMalformed),
        }
    }

    /// Processes what has been sorted so far, so that nothing overtakes it.
    fn process_at_once(&mut self, tables: &Tables, reader: &Reader, io: &mut Io) {
        let mut inner = [IpHeader::default(); BURST];
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let mut departures = std::mem::take(&mut self.departures);
        inbound::run(&mut arrivals, &mut inner, &mut departures, tables, reader, io);
        outbound::run(&mut departures, tables, reader, io);
    }

    fn process(
        &mut self,
        inner: &'r mut [IpHeader; BURST],
        tables: &'r Tables,
        reader: &'r Reader,
        io: &mut Io,
    ) {
        inbound::run(&mut self.arrivals, inner, &mut self.departures, tables, reader, io);
        outbound::run(&mut self.departures, tables, reader, io);
    }
}

/// Goes on with a packet from inside of a NAT that came in by `port` and has a mapping now: to the
/// NAT's own address, or out.
fn mapped(mut packet: Packet, header: &IpHeader, port: u16, tables: &Tables, reader: &Reader, io: &mut Io) {
    packet.set_port(port);
    match tables.routes.find(header.dst, reader).copied() {
        Some(Hop::Local) => {
            let origin = if is_from_tunnel(port) { Origin::Tunnel } else { Origin::Wire };
            nat::inward::arrive(packet, header, origin, tables, reader, io);
        }
        hop => forward::clear_by(hop, packet, header, tables, reader, io),
    }
}
