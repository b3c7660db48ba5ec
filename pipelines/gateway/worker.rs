//! A poll-mode worker: one thread, one core, one queue of every port.

use super::{
    classify::{Class, classify},
    exchange::Inject,
    inbound::{self, Arrival},
    io::{FROM_SLOW_PATH, Io},
    outbound::{self, Departure, Origin},
    profile::{Profile, Stage},
    tables::Tables,
};
use arrayvec::ArrayVec;
use nix::time::{ClockId, clock_gettime};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::{BURST, Burst, Packet},
    sa::Flow,
    table::Reader,
    wire::ip::IpHeader,
};

/// Packets received from one port in one turn. Fewer than a burst holds, so that fragments have room.
const RECEIVE: usize = BURST / 2;
/// Frames taken from the slow path in one turn.
const INJECT: usize = 16;
/// Turns between two reports of counters: rare enough to cost nothing, often enough for people.
const REPORT: u64 = 1 << 12;
/// Idle turns before an idle worker that may sleep does so.
const PATIENCE: u32 = 1 << 10;
/// How long a worker that stops waits for its ports to drain.
const DRAIN: Duration = Duration::from_millis(500);
/// How long a worker whose ports are all read waits for what the slow path still has to say about the last packets.
const LINGER: Duration = Duration::from_millis(50);

/// One worker.
#[derive(Debug)]
pub struct Worker {
    io: Io,
    tables: Arc<Tables>,
    reader: Reader,
    idle_sleep: Option<Duration>,
    arrivals: ArrayVec<Arrival, BURST>,
    departures: ArrayVec<Departure, BURST>,
}

impl Worker {
    /// A worker over `io` that reads `tables` by `reader`. While nothing comes it sleeps `idle_sleep` between polls, or
    /// never where that is `None`.
    pub fn new(io: Io, tables: Arc<Tables>, reader: Reader, idle_sleep: Option<Duration>) -> Self {
        Self { io, tables, reader, idle_sleep, arrivals: ArrayVec::new(), departures: ArrayVec::new() }
    }

    /// Works until `stop`, or until no port will ever receive again; then sends what is left.
    pub fn run(&mut self, stop: &AtomicBool) {
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

    /// One turn: a burst from every port, then what the slow path wants sent. Answers whether there was anything.
    pub fn turn(&mut self) -> bool {
        let mut busy = false;
        for port in 0..self.io.ports() {
            let mut burst = Burst::new();
            self.io.receive(port, &mut burst);
            self.io.mark(Stage::Receive);
            busy |= !burst.is_empty();
            while !burst.is_empty() {
                let some = burst.len().min(RECEIVE);
                for packet in burst.drain(..some) {
                    self.sort(packet);
                }
                self.io.mark(Stage::Classify);
                self.process();
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
            self.report();
        }
        self.io.mark(Stage::Turn);
        busy
    }

    /// Where its time goes.
    pub fn profile(&mut self) -> &mut Profile {
        self.io.profile()
    }

    /// Puts a received packet where it belongs.
    fn sort(&mut self, mut packet: Packet) {
        match classify(&mut packet, &self.tables, &self.reader) {
            Ok(Class::Esp { header, esp_at, encap }) => {
                self.arrivals.push(Arrival::new(packet, header, esp_at, encap, &self.tables));
            }
            Ok(Class::Forward(header)) => {
                let from_host = self.tables.is_host_port(packet.port());
                let origin = if from_host { Origin::Host } else { Origin::Wire };
                self.tables.policies.prefetch_slot(header.dst);
                self.departures.push(Departure { packet, header, origin });
            }
            Ok(Class::Host(header)) => self.deliver(packet, &header),
            Ok(Class::Punt(punt)) => self.io.punt_packet(packet, punt),
            Err(reason) => self.io.drop(packet, reason),
        }
    }

    /// Hands a packet in clear to the host's own stack, unless it should have come through a tunnel (RFC 4301 §5.2).
    fn deliver(&mut self, packet: Packet, header: &IpHeader) {
        let flow = Flow::of(header, packet.data());
        if self.tables.is_unprotected(&flow, None, &self.reader) {
            return self.io.drop(packet, DropReason::Unprotected);
        }
        self.io.to_host(packet, &self.tables);
    }

    fn process(&mut self) {
        inbound::run(&mut self.arrivals, &mut self.departures, &self.tables, &self.reader, &mut self.io);
        outbound::run(&mut self.departures, &self.tables, &self.reader, &mut self.io);
    }

    /// Takes frames from the slow path; answers whether there were any.
    fn inject(&mut self) -> bool {
        let exchange = self.io.exchange().clone();
        let waiting = exchange.inject.len().min(INJECT);
        for _ in 0..waiting {
            let Ok(mut packet) = self.io.take() else {
                // No frame is free: the rest waits in its ring.
                break;
            };
            packet.set_port(FROM_SLOW_PATH);
            let headroom = packet.headroom();
            match exchange.inject.pop(|what, frame| packet.fill(headroom, frame).map(|()| what)) {
                Some(Some(what)) => self.dispatch(packet, what),
                Some(None) => self.io.drop(packet, DropReason::NoHeadroom),
                None => self.io.free(packet),
            }
        }
        self.process();
        waiting > 0
    }

    fn dispatch(&mut self, packet: Packet, what: Inject) {
        self.io.counters().injected.add(1);
        if let Inject::Frame { port } = what {
            return self.io.send(packet, port);
        }
        match IpHeader::parse(packet.data()) {
            Ok(header) if what == Inject::Route => {
                self.io.route(packet, header.dst, &self.tables, &self.reader);
            }
            Ok(header) => self.departures.push(Departure { packet, header, origin: Origin::Host }),
            Err(_) => self.io.drop(packet, DropReason::InnerMalformed),
        }
    }

    /// Sends what was accepted before the stop, and waits a bounded time for it to leave.
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
