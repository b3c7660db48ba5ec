//! Ports of a gateway under full traffic. Packets to terminals are made and counted where the
//! worker runs; what terminals send, and what they must see, crosses to the bench's thread.
//!
//! One terminal is watched at a time: every other packet is its, so that what the gateway does is
//! seen at once.

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

/// Frames that may wait either way.
const DEPTH: usize = 1024;
/// Turns of the worker from one reading of its clock to the next.
const READING: u32 = 256;
/// Bytes of a packet to a terminal, IP header included.
const INNER: usize = 64;

/// The terminal that is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// Number of its packet among those that are sent to terminals.
    pub(super) index: u32,
    /// Where it was.
    pub(super) before: IpAddr,
    /// Where it is.
    pub(super) place: IpAddr,
}

/// What the bench tells its ports.
#[derive(Debug, Default)]
struct Script {
    /// A packet to each terminal.
    packets: Arc<Vec<Vec<u8>>>,
    watch: Option<Watch>,
    /// First messages of strangers in a second, and what they are made of.
    flood: (u32, Arc<Vec<u8>>),
}

/// What the worker has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    /// Its processor time.
    pub(super) cpu: Duration,
    /// ESP packets that it sent.
    pub(super) sealed: u64,
    /// First messages of strangers that it was given.
    pub(super) flooded: u64,
}

/// What the bench shares with its ports.
#[derive(Debug)]
pub(super) struct Line {
    /// Frames to the gateway, and whether the clock starts when it takes them.
    pub(super) up: FrameRing<bool>,
    /// Key exchange messages, and of the watched terminal the first packet of each SA.
    pub(super) down: FrameRing<()>,
    script: Mutex<Script>,
    /// Counts changes of the script.
    revision: AtomicU32,
    /// Nanoseconds from the start of the clock to the first ESP packet to where the watched
    /// terminal is; 0: not yet.
    pub(super) latency: AtomicU64,
    /// ESP packets to where it was, since the clock started.
    pub(super) meanwhile: AtomicU64,
    /// Those of them behind the first one to where it is.
    pub(super) late: AtomicU64,
    /// Packets for the server.
    pub(super) arrived: AtomicU64,
    /// What did not fit `down`.
    pub(super) overflow: AtomicU64,
    meter: Mutex<Meter>,
}

impl Line {
    /// Both ports of a gateway with so many terminals, and what they share with the bench.
    pub(super) fn new(terminals: u32) -> (Arc<Self>, [Box<dyn Port>; 2]) {
        let line = Arc::new(Self {
            up: FrameRing::new(DEPTH, 2048),
            down: FrameRing::new(DEPTH, 2048),
            script: Mutex::default(),
            revision: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            meanwhile: AtomicU64::new(0),
            late: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            overflow: AtomicU64::new(0),
            meter: Mutex::default(),
        });
        let outside = Outside {
            prompt: Prompt::new(line.clone()),
            stats: PortStats::default(),
            terminals,
            started: None,
            is_there: true,
            last_spi: 0,
            meter: Meter::default(),
            until_reading: READING,
            strangers: Strangers { since: None, sent: 0, random: Random(1) },
        };
        let inside = Inside { prompt: Prompt::new(line.clone()), stats: PortStats::default(), next: 0 };
        (line, [Box::new(outside), Box::new(inside)])
    }

    fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner));
        self.revision.fetch_add(1, Release);
    }

    /// From now on packets come for terminals at these inner addresses.
    pub(super) fn send_to(&self, terminals: impl Iterator<Item = IpAddr>) {
        let packets = Arc::new(terminals.map(packet_to).collect());
        self.change(|script| script.packets = packets);
    }

    /// Looks at another terminal.
    pub(super) fn watch(&self, watch: Watch) {
        for counter in [&self.latency, &self.meanwhile] {
            counter.store(0, Relaxed);
        }
        self.change(|script| script.watch = Some(watch));
    }

    /// From now on so many first messages like `message`, a frame, come in a second, each of
    /// another stranger.
    pub(super) fn flood(&self, rate: u32, message: &Arc<Vec<u8>>) {
        self.change(|script| script.flood = (rate, message.clone()));
    }

    /// What the worker has done so far, a moment ago.
    pub(super) fn meter(&self) -> Meter {
        *self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port's own copy of the script.
#[derive(Debug)]
struct Prompt {
    line: Arc<Line>,
    revision: u32,
    packets: Arc<Vec<Vec<u8>>>,
    watch: Option<Watch>,
    flood: (u32, Arc<Vec<u8>>),
}

impl Prompt {
    fn new(line: Arc<Line>) -> Self {
        Self { line, revision: 0, packets: Arc::default(), watch: None, flood: Default::default() }
    }

    /// Takes what changed; answers whether anything did.
    fn follow(&mut self) -> bool {
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

/// Where terminals and strangers are.
#[derive(Debug)]
struct Outside {
    prompt: Prompt,
    stats: PortStats,
    /// Others are strangers, who do not listen.
    terminals: u32,
    /// Since when the watched terminal is waited for.
    started: Option<Instant>,
    /// Whether a packet went to where it is.
    is_there: bool,
    last_spi: u32,
    meter: Meter,
    until_reading: u32,
    strangers: Strangers,
}

impl Outside {
    fn read_clock(&mut self) {
        self.until_reading -= 1;
        if self.until_reading == 0 {
            self.until_reading = READING;
            self.meter.cpu = processor_time();
            *self.prompt.line.meter.lock().unwrap_or_else(PoisonError::into_inner) = self.meter;
        }
    }

    /// A packet that the gateway sends.
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
        let Some(watch) = self.prompt.watch.filter(|watch| to == watch.place || to == watch.before) else {
            return;
        };
        if to == watch.place {
            if let (false, Some(started)) = (self.is_there, self.started) {
                self.is_there = true;
                self.prompt.line.latency.store(started.elapsed().as_nanos().max(1) as u64, Release);
            }
        } else if self.started.is_some() {
            self.prompt.line.meanwhile.fetch_add(1, Relaxed);
            self.prompt.line.late.fetch_add(u64::from(self.is_there), Relaxed);
        }
        let spi = packet.get(ip::V4_HEADER..).and_then(esp::header).map_or(0, |(spi, _)| spi);
        if spi != self.last_spi {
            self.last_spi = spi;
            self.hand_down(frame);
        }
    }

    #[cold]
    fn hand_down(&self, frame: &[u8]) {
        if !self.prompt.line.down.push((), frame) {
            self.prompt.line.overflow.fetch_add(1, Relaxed);
        }
    }
}

impl Port for Outside {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        // What is there already was put there after what the script says.
        let waiting = self.prompt.line.up.len();
        if self.prompt.follow() {
            (self.started, self.is_there, self.last_spi) = (None, false, 0);
        }
        self.read_clock();
        for _ in 0..waiting.min(burst.room()) {
            let Some(mut packet) = pool.take() else { return };
            match self.prompt.line.up.pop(|starts, frame| (starts, packet.fill(HEADROOM, frame))) {
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
        let (rate, message) = &self.prompt.flood;
        for _ in 0..self.strangers.due(*rate).min(burst.room() as u64) {
            let Some(mut packet) = pool.take() else { return };
            if packet.fill(HEADROOM, message).is_none() {
                return pool.give(packet);
            }
            self.strangers.disguise(packet.data_mut());
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

/// Those who flood.
#[derive(Debug)]
struct Strangers {
    since: Option<(Instant, u32)>,
    sent: u64,
    random: Random,
}

impl Strangers {
    /// How many of them send now, at `rate` a second.
    fn due(&mut self, rate: u32) -> u64 {
        let now = Instant::now();
        match self.since {
            Some((since, known)) if known == rate => {
                let wanted = (now - since).as_secs_f64() * f64::from(rate);
                let due = (wanted as u64).saturating_sub(self.sent);
                self.sent += due;
                due
            }
            _ => {
                (self.since, self.sent) = (Some((now, rate)), 0);
                0
            }
        }
    }

    /// Makes a first message another stranger's: another address, another SPI.
    fn disguise(&mut self, frame: &mut [u8]) {
        let draw = self.random.next().to_be_bytes();
        let Some(packet) = frame.get_mut(ethernet::HEADER..) else { return };
        let total = packet.len();
        if let Some(low) = packet.get_mut(13..16) {
            // Any address that packets are routed to.
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
            // None (RFC 768).
            checksum.fill(0);
        }
    }
}

/// Where the server is.
#[derive(Debug)]
struct Inside {
    prompt: Prompt,
    stats: PortStats,
    next: usize,
}

impl Port for Inside {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.prompt.follow();
        let packets = &self.prompt.packets;
        if packets.is_empty() {
            return;
        }
        while burst.room() > 0 {
            self.next = self.next.wrapping_add(1);
            let watched = self.prompt.watch.filter(|_| self.next.is_multiple_of(2));
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
        self.prompt.line.arrived.fetch_add(arrived as u64, Release);
        burst.drain(..).for_each(|packet| pool.give(packet));
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}

/// The frame by which the server sends to a terminal.
fn packet_to(terminal: IpAddr) -> Vec<u8> {
    let mut frame = vec![0; ethernet::HEADER + INNER];
    emit_ethernet(&mut frame, INSIDE);
    emit_udp(&mut frame[ethernet::HEADER..], SERVER, terminal);
    frame
}

/// A packet of a terminal's for the server.
pub(super) fn packet_from(terminal: IpAddr) -> Vec<u8> {
    let mut packet = vec![0; INNER];
    emit_udp(&mut packet, terminal, SERVER);
    packet
}
