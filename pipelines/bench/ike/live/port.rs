//! Ports of a gateway under full traffic. Packets to terminals are made and counted in the worker's
//! thread. Only frames that terminals send or must see cross to the benchmark's thread.
//!
//! One terminal is watched at a time. It gets every second packet, so that the gateway's reaction
//! shows at once.

use crate::{
    bench::processor_time,
    sim::{
        addresses,
        fixtures::{INSIDE, SERVER},
        frames::{emit_ethernet, emit_udp},
        random::Random,
    },
};
use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::*},
    },
    time::{Duration, Instant},
};
use wayfarer_dataplane::{
    packet::Burst,
    pool::{HEADROOM, Pool},
    port::{Port, PortStats},
    ring::FrameRing,
    wire::{
        esp, ethernet,
        ip::{self, IpHeader, protocol},
        udp,
    },
};

/// Frames that may wait in either direction.
const DEPTH: usize = 1024;
/// Turns of the worker from one reading of its clock to the next.
const READING: u32 = 256;
/// Bytes of a packet to a terminal, IP header included.
const INNER: usize = 64;

/// The watched terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// The terminal's index, and that of its packet in the script.
    pub(super) index: u32,
    /// The outer address before the move.
    pub(super) previous: IpAddr,
    /// The outer address now.
    pub(super) current: IpAddr,
}

/// The benchmark's instructions to its ports.
#[derive(Debug, Default)]
struct Script {
    /// A packet to each terminal.
    packets: Arc<Vec<Vec<u8>>>,
    watch: Option<Watch>,
    /// IKE_SA_INIT requests per second, and the frame that they are made from.
    flood: (u32, Arc<Vec<u8>>),
}

/// Counts of the worker's work.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    /// The worker's processor time.
    pub(super) cpu: Duration,
    /// ESP packets that the worker sent.
    pub(super) sealed: u64,
    /// IKE_SA_INIT requests of the flood that the worker received.
    pub(super) flooded: u64,
}

/// State that the benchmark shares with its ports.
#[derive(Debug)]
pub(super) struct Line {
    /// Frames to the gateway, each with whether its reception starts the clock.
    pub(super) up: FrameRing<bool>,
    /// IKE messages to terminals, and the first packet of each SA of the watched terminal.
    pub(super) down: FrameRing<()>,
    script: Mutex<Script>,
    /// Counts changes of the script.
    revision: AtomicU32,
    /// Nanoseconds from the start of the clock to the first ESP packet to the watched terminal's
    /// current address; 0 before that.
    pub(super) latency: AtomicU64,
    /// ESP packets to the previous address since the clock started.
    pub(super) to_old_address: AtomicU64,
    /// ESP packets to the previous address after the first one to the current address.
    pub(super) late: AtomicU64,
    /// Packets that arrived at the server.
    pub(super) arrived: AtomicU64,
    /// Frames that did not fit into `down`.
    pub(super) overflow: AtomicU64,
    meter: Mutex<Meter>,
}

impl Line {
    /// Makes both ports of a gateway with `terminals` terminals, and the state that they share with
    /// the benchmark.
    pub(super) fn new(terminals: u32) -> (Arc<Self>, [Box<dyn Port>; 2]) {
        let line = Arc::new(Self {
            up: FrameRing::new(DEPTH, 2048),
            down: FrameRing::new(DEPTH, 2048),
            script: Mutex::default(),
            revision: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            to_old_address: AtomicU64::new(0),
            late: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            overflow: AtomicU64::new(0),
            meter: Mutex::default(),
        });
        let outside = OutsidePort {
            script: ScriptCopy::new(line.clone()),
            stats: PortStats::default(),
            terminals,
            started: None,
            has_arrived: true,
            last_spi: 0,
            meter: Meter::default(),
            until_reading: READING,
            flood_source: FloodSource { since: None, sent: 0, random: Random(1) },
        };
        let inside =
            InsidePort { script: ScriptCopy::new(line.clone()), stats: PortStats::default(), next: 0 };
        (line, [Box::new(outside), Box::new(inside)])
    }

    fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner));
        self.revision.fetch_add(1, Release);
    }

    /// Starts packets to terminals at these inner addresses.
    pub(super) fn send_to(&self, terminals: impl Iterator<Item = IpAddr>) {
        let packets = Arc::new(terminals.map(packet_to).collect());
        self.change(|script| script.packets = packets);
    }

    /// Watches another terminal.
    pub(super) fn watch(&self, watch: Watch) {
        for counter in [&self.latency, &self.to_old_address] {
            counter.store(0, Relaxed);
        }
        self.change(|script| script.watch = Some(watch));
    }

    /// Starts a flood of `rate` IKE_SA_INIT requests per second, each made from the frame `message`
    /// with another address and SPI.
    pub(super) fn flood(&self, rate: u32, message: &Arc<Vec<u8>>) {
        self.change(|script| script.flood = (rate, message.clone()));
    }

    /// Returns the latest reading of the worker's meter.
    pub(super) fn meter(&self) -> Meter {
        *self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port's own copy of the script.
#[derive(Debug)]
struct ScriptCopy {
    line: Arc<Line>,
    revision: u32,
    packets: Arc<Vec<Vec<u8>>>,
    watch: Option<Watch>,
    flood: (u32, Arc<Vec<u8>>),
}

impl ScriptCopy {
    fn new(line: Arc<Line>) -> Self {
        Self { line, revision: 0, packets: Arc::default(), watch: None, flood: Default::default() }
    }

    /// Copies the script if it changed; returns whether it did.
    fn refresh(&mut self) -> bool {
        let revision = self.line.revision.load(Acquire);
        if revision == self.revision {
            return false;
        }
        self.revision = revision;
        let script = self.line.script.lock().unwrap_or_else(PoisonError::into_inner);
        (self.packets, self.watch, self.flood) = (script.packets.clone(), script.watch, script.flood.clone());
        true
    }
}

/// The port that leads to terminals.
#[derive(Debug)]
struct OutsidePort {
    script: ScriptCopy,
    stats: PortStats,
    /// Terminals with lower indices receive; other addresses belong to the flood.
    terminals: u32,
    /// When the clock started.
    started: Option<Instant>,
    /// `true` if a packet went to the watched terminal's current address.
    has_arrived: bool,
    last_spi: u32,
    meter: Meter,
    until_reading: u32,
    flood_source: FloodSource,
}

impl OutsidePort {
    fn read_clock(&mut self) {
        self.until_reading -= 1;
        if self.until_reading == 0 {
            self.until_reading = READING;
            self.meter.cpu = processor_time();
            *self.script.line.meter.lock().unwrap_or_else(PoisonError::into_inner) = self.meter;
        }
    }

    /// Counts a packet that the gateway sends, and hands down those that a terminal must see.
    #[inline]
    fn sink(&mut self, frame: &[u8]) {
        self.stats.tx_packets += 1;
        self.stats.tx_bytes += frame.len() as u64;
        let packet = frame.get(ethernet::HEADER..).unwrap_or_default();
        let (Some(&kind), Some(to)) = (packet.get(9), packet.get(16..20).and_then(<[u8]>::first_chunk::<4>))
        else {
            return;
        };
        let to = IpAddr::from(*to);
        if kind == protocol::ESP {
            self.meter.sealed += 1;
            self.sink_esp(frame, packet, to);
        } else if addresses::at_outer(to).is_some_and(|index| index < self.terminals) {
            self.hand_down(frame);
        }
    }

    #[inline]
    fn sink_esp(&mut self, frame: &[u8], packet: &[u8], to: IpAddr) {
        let Some(watch) = self.script.watch.filter(|watch| to == watch.current || to == watch.previous)
        else {
            return;
        };
        if to == watch.current {
            if let (false, Some(started)) = (self.has_arrived, self.started) {
                self.has_arrived = true;
                self.script.line.latency.store(started.elapsed().as_nanos().max(1) as u64, Release);
            }
        } else if self.started.is_some() {
            self.script.line.to_old_address.fetch_add(1, Relaxed);
            self.script.line.late.fetch_add(u64::from(self.has_arrived), Relaxed);
        }
        let spi = packet.get(ip::V4_HEADER..).and_then(esp::header).map_or(0, |(spi, _)| spi);
        if spi != self.last_spi {
            self.last_spi = spi;
            self.hand_down(frame);
        }
    }

    #[cold]
    fn hand_down(&self, frame: &[u8]) {
        if !self.script.line.down.push((), frame) {
            self.script.line.overflow.fetch_add(1, Relaxed);
        }
    }
}

impl Port for OutsidePort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        // Frames that wait already were put there after the latest change of the script, and so fit
        // the script that is read next.
        let waiting = self.script.line.up.len();
        if self.script.refresh() {
            (self.started, self.has_arrived, self.last_spi) = (None, false, 0);
        }
        self.read_clock();
        for _ in 0..waiting.min(burst.room()) {
            let Some(mut packet) = pool.take() else { return };
            match self.script.line.up.pop(|starts, frame| (starts, packet.fill(HEADROOM, frame))) {
                Some((starts, Some(()))) => {
                    if starts {
                        self.started = Some(Instant::now());
                    }
                    self.stats.rx_packets += 1;
                    self.stats.rx_bytes += packet.len() as u64;
                    burst.push(packet);
                }
                _ => pool.give(packet),
            }
        }
        let (rate, message) = &self.script.flood;
        for _ in 0..self.flood_source.due(*rate).min(burst.room() as u64) {
            let Some(mut packet) = pool.take() else { return };
            if packet.fill(HEADROOM, message).is_none() {
                return pool.give(packet);
            }
            self.flood_source.randomize(packet.data_mut());
            self.meter.flooded += 1;
            burst.push(packet);
        }
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        for packet in burst.drain(..) {
            self.sink(packet.data());
            pool.give(packet);
        }
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}

/// The source of a flood.
#[derive(Debug)]
struct FloodSource {
    /// When the current rate began, and the rate.
    since: Option<(Instant, u32)>,
    sent: u64,
    random: Random,
}

impl FloodSource {
    /// Returns how many messages are due now, at `rate` per second.
    fn due(&mut self, rate: u32) -> u64 {
        let now = Instant::now();
        match self.since {
            Some((since, known)) if known == rate => {
                let total = (now - since).as_secs_f64() * f64::from(rate);
                let due = (total as u64).saturating_sub(self.sent);
                self.sent += due;
                due
            }
            _ => {
                (self.since, self.sent) = (Some((now, rate)), 0);
                0
            }
        }
    }

    /// Gives an IKE_SA_INIT request a random source address and SPI.
    fn randomize(&mut self, frame: &mut [u8]) {
        let draw = self.random.next().to_be_bytes();
        let Some(packet) = frame.get_mut(ethernet::HEADER..) else { return };
        let total = packet.len();
        if let Some(low) = packet.get_mut(13..16) {
            // Any outer address that the gateway has a route to.
            low.copy_from_slice(&[0x40 | draw[2] & 0x3f, draw[3], draw[4]]);
        }
        if total >= ip::V4_HEADER {
            ip::set_total_len(packet, ip::V4_HEADER, total);
        }
        if let Some(spi) = packet.get_mut(ip::V4_HEADER + udp::HEADER..).and_then(|m| m.get_mut(..8)) {
            spi.copy_from_slice(&draw);
            spi[0] |= 1;
        }
        if let Some(checksum) = packet.get_mut(ip::V4_HEADER + 6..ip::V4_HEADER + 8) {
            // No checksum (RFC 768).
            checksum.fill(0);
        }
    }
}

/// The port that leads to the server.
#[derive(Debug)]
struct InsidePort {
    script: ScriptCopy,
    stats: PortStats,
    next: usize,
}

impl Port for InsidePort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.script.refresh();
        let packets = &self.script.packets;
        if packets.is_empty() {
            return;
        }
        while burst.room() > 0 {
            self.next = self.next.wrapping_add(1);
            let watched = self.script.watch.filter(|_| self.next.is_multiple_of(2));
            let index = watched.map_or(self.next / 2 % packets.len(), |watch| watch.index as usize);
            let (Some(frame), Some(mut packet)) = (packets.get(index), pool.take()) else { return };
            if packet.fill(HEADROOM, frame).is_none() {
                return pool.give(packet);
            }
            self.stats.rx_packets += 1;
            self.stats.rx_bytes += packet.len() as u64;
            burst.push(packet);
        }
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.stats.tx_packets += burst.len() as u64;
        let is_whole = |frame: &[u8]| {
            let packet = frame.get(ethernet::HEADER..).unwrap_or_default();
            IpHeader::parse(packet).is_ok_and(|header| IpAddr::from(header.dst) == SERVER)
        };
        let arrived = burst.iter().filter(|packet| is_whole(packet.data())).count();
        self.script.line.arrived.fetch_add(arrived as u64, Release);
        burst.drain(..).for_each(|packet| pool.give(packet));
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}

/// Makes the frame that carries a packet from the server to a terminal.
fn packet_to(terminal: IpAddr) -> Vec<u8> {
    let mut frame = vec![0; ethernet::HEADER + INNER];
    emit_ethernet(&mut frame, INSIDE);
    emit_udp(&mut frame[ethernet::HEADER..], SERVER, terminal);
    frame
}

/// Makes a packet from a terminal to the server.
pub(super) fn packet_from(terminal: IpAddr) -> Vec<u8> {
    let mut packet = vec![0; INNER];
    emit_udp(&mut packet, terminal, SERVER);
    packet
}
