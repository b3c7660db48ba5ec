//! The fleet: terminals that send through the gateway to an echo server, check the echoes, and keep
//! moving.

use super::{
    Options,
    roaming::{Delivery, Roaming},
};
use crate::{
    bench::latencies,
    config::model::Tunnel,
    sim::{
        addresses, esp,
        fixtures::{INSIDE, SERVER},
        frames::{emit_ethernet, emit_udp, endpoints},
        random::Random,
        terminal,
    },
};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};
use wayfarer_dataplane::{
    crypto::Backend,
    port::memory::Wire,
    wire::{ethernet, ip, udp},
};

/// Packets on their way at a time: enough that the gateway works in bursts, few enough that no ring
/// overflows.
const OUTSTANDING: u64 = 256;
/// Packets sent in one turn.
const BURST: usize = 32;
/// Bytes of an inner packet before its own payload: IP and UDP headers.
const INNER_HEADERS: usize = ip::V4_HEADER + udp::HEADER;

struct Terminal {
    /// The terminal's end of the tunnel, which sends from the current mapping.
    end: terminal::Terminal,
    /// When the terminal moves next.
    next_move: Instant,
    /// `true` once a packet has reached it at its present mapping, so that no later one may go to
    /// an earlier mapping. It stays until then.
    is_reached: bool,
}

/// The fleet's counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Inner packets sent.
    pub(super) sent: u64,
    /// Echoes received, opened and found correct.
    pub(super) echoed: u64,
    /// Moves made.
    pub(super) moves: u64,
    /// Packets in flight to a mapping that their terminal had just left.
    pub(super) in_flight: u64,
    /// Packets to a mapping that their terminal had left long before, or for one at which it had
    /// been reached already.
    pub(super) lost_to_moves: u64,
    /// Packets that did not open, were another terminal's, or went to a mapping that never existed.
    pub(super) wrong: u64,
}

/// All terminals, their networks, and the server that they talk to.
pub(super) struct Fleet {
    terminals: Vec<Terminal>,
    pub(super) roaming: Roaming,
    internet: Wire,
    server: Wire,
    next: usize,
    random: Random,
    start: Instant,
    move_every: Duration,
    in_flight: Duration,
    inner: Vec<u8>,
    scratch: Vec<u8>,
    pub(super) tally: Tally,
    /// Round trips in nanoseconds, up to a minute.
    pub(super) latency: Histogram<u64>,
}

impl Fleet {
    pub(super) fn new(
        tunnels: &[Tunnel],
        roaming: Roaming,
        internet: Wire,
        server: Wire,
        options: &Options,
    ) -> Self {
        let start = Instant::now();
        let backend = Backend::detect();
        let mut this = Self {
            terminals: Vec::with_capacity(tunnels.len()),
            roaming,
            internet,
            server,
            next: 0,
            random: Random(1),
            start,
            move_every: options.move_every,
            in_flight: options.in_flight,
            inner: inner_packet(options.size),
            scratch: Vec::with_capacity(2048),
            tally: Tally::default(),
            latency: latencies(),
        };
        for (index, tunnel) in tunnels.iter().enumerate() {
            let (sas, mapping) = ([&tunnel.inbound, &tunnel.outbound], this.roaming.mapping(index));
            let mut end = terminal::Terminal::of(sas, mapping.ip(), backend);
            end.send_from(mapping);
            let next_move = start + this.pause();
            this.terminals.push(Terminal { end, next_move, is_reached: false });
        }
        this
    }

    /// Returns how many packets were sent and are neither back nor known to be lost.
    pub(super) fn outstanding(&self) -> u64 {
        let t = &self.tally;
        t.sent - t.echoed - t.in_flight - t.lost_to_moves - t.wrong
    }

    /// Takes a turn at time `now`: sends if `sending`, echoes, and receives. Returns whether a
    /// packet had come for the server or a terminal.
    pub(super) fn turn(&mut self, now: Instant, sending: bool) -> bool {
        if sending {
            for _ in 0..BURST {
                if self.outstanding() >= OUTSTANDING.min(4 * self.terminals.len() as u64) || !self.send(now) {
                    break;
                }
            }
        }
        self.echo() | self.receive()
    }

    /// Sends a packet from the next terminal, which first moves if that is due and it has been
    /// reached; returns `false` if the wire is full.
    fn send(&mut self, now: Instant) -> bool {
        let index = self.next % self.terminals.len();
        self.next += 1;
        if now >= self.terminals[index].next_move && self.terminals[index].is_reached {
            let pick = self.random.next() as u32;
            let pause = self.pause();
            let terminal = &mut self.terminals[index];
            terminal.end.send_from(self.roaming.move_on(now, index, pick));
            terminal.next_move = now + pause;
            terminal.is_reached = false;
            self.tally.moves += 1;
        }
        let stamp = now.duration_since(self.start).as_nanos() as u64;
        let terminal = &mut self.terminals[index];
        stamp_inner(&mut self.inner, index, stamp);
        terminal.end.seal_frame(&self.inner, &mut self.scratch);
        let sent = self.internet.send(&self.scratch);
        self.tally.sent += u64::from(sent);
        sent
    }

    /// Has the server send datagrams back to their sources. Returns whether there were any.
    fn echo(&mut self) -> bool {
        for count in 0..2 * BURST {
            let scratch = &mut self.scratch;
            let copied = self.server.receive(|frame| {
                scratch.clear();
                scratch.extend_from_slice(frame);
            });
            if copied.is_none() {
                return count > 0;
            }
            emit_ethernet(scratch, INSIDE);
            let packet = &mut scratch[ethernet::HEADER..];
            let (addresses, rest) = packet[12..].split_at_mut(8);
            addresses.rotate_left(4);
            rest[..4].rotate_left(2);
            // An answer starts with a fresh hop limit. Swapping addresses does not change the
            // checksum.
            packet[8] = 64;
            ip::set_total_len(packet, ip::V4_HEADER, packet.len());
            self.server.send(scratch);
        }
        true
    }

    /// Delivers the gateway's packets to terminals through their networks. Returns whether there
    /// were any.
    fn receive(&mut self) -> bool {
        for count in 0..2 * BURST {
            let scratch = &mut self.scratch;
            let copied = self.internet.receive(|frame| {
                scratch.clear();
                scratch.extend_from_slice(&frame[ethernet::HEADER..]);
            });
            if copied.is_none() {
                return count > 0;
            }
            let now = Instant::now();
            let Some((ends, esp_at)) = endpoints(scratch) else {
                self.tally.wrong += 1;
                continue;
            };
            match self.roaming.deliver(ends.to) {
                Delivery::To(index) => self.open(now, index, esp_at),
                Delivery::Left(index, since)
                    if !self.terminals[index].is_reached && now.duration_since(since) <= self.in_flight =>
                {
                    self.tally.in_flight += 1
                }
                Delivery::Left(..) => self.tally.lost_to_moves += 1,
                Delivery::Unknown => self.tally.wrong += 1,
            }
        }
        true
    }

    /// Opens the packet in `scratch` as terminal `index`, and counts it.
    fn open(&mut self, now: Instant, index: usize, esp_at: usize) {
        let terminal = &mut self.terminals[index];
        let bytes = &mut self.scratch[esp_at..];
        let plain = esp::open(&terminal.end.open, false, bytes);
        match plain.and_then(|plain| bytes[plain].get(..self.inner.len())) {
            Some(inner) if stamped_index(inner) == index => {
                let stamp = stamped_time(inner);
                let nanos = (now.duration_since(self.start).as_nanos() as u64).saturating_sub(stamp);
                self.latency.saturating_record(nanos);
                self.tally.echoed += 1;
                terminal.is_reached = true;
            }
            _ => self.tally.wrong += 1,
        }
    }

    /// Draws a pause between moves, of half to one and a half times the average.
    fn pause(&mut self) -> Duration {
        let fraction = self.random.below(1024) as f64 / 1024.0;
        self.move_every.mul_f64(0.5 + fraction)
    }
}

/// Makes a UDP packet of `size` bytes to the server, to be stamped by a terminal.
fn inner_packet(size: usize) -> Vec<u8> {
    let size = size.max(INNER_HEADERS + 16);
    let mut packet = vec![0; size];
    emit_udp(&mut packet, addresses::inner(0), SERVER);
    packet
}

/// Stamps `packet` as one that terminal `index` sends at `stamp`.
fn stamp_inner(packet: &mut [u8], index: usize, stamp: u64) {
    if let std::net::IpAddr::V4(address) = addresses::inner(index as u32) {
        packet[12..16].copy_from_slice(&address.octets());
    }
    ip::set_total_len(packet, ip::V4_HEADER, packet.len());
    packet[INNER_HEADERS..INNER_HEADERS + 8].copy_from_slice(&(index as u64).to_be_bytes());
    packet[INNER_HEADERS + 8..INNER_HEADERS + 16].copy_from_slice(&stamp.to_be_bytes());
}

fn stamped_index(packet: &[u8]) -> usize {
    number_at(packet, INNER_HEADERS) as usize
}

fn stamped_time(packet: &[u8]) -> u64 {
    number_at(packet, INNER_HEADERS + 8)
}

fn number_at(packet: &[u8], at: usize) -> u64 {
    packet[at..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
