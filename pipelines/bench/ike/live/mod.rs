//! Measures the effect of key exchange on traffic: the gateway's worker and slow path run in
//! threads of their own, and packets flow at full rate while terminals connect, move and rekey.

mod measure;
mod port;

pub(super) use measure::measure;

use super::{
    BenchError,
    fleet::{GROUP, Group},
    gateway::{frame, parse},
    terminal::Terminal,
    world::World,
};
use crate::{
    bench::core_of,
    config::frame_size,
    control::protocol::Command,
    launch::{Assembly, Gateway, WorkerResources},
    sim::fixtures::two_ports,
};
use port::{Line, Watch};
use std::{
    sync::{Arc, atomic::Ordering::*},
    thread,
    time::{Duration, Instant},
};
use wayfarer_dataplane::{drop::DropReason, pool::Pool, wire::ethernet};

/// How long the benchmark's thread sleeps if there is nothing to do: it shares its core with the
/// slow path.
const NAP: Duration = Duration::from_micros(20);
/// How long a move or a rekey may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pairs of SAs that a terminal may have at a time: replaced ones stay for a while.
const PAIRS: u32 = 32;

/// Counts of lost packets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    /// Packets that the gateway dropped.
    dropped: u64,
    /// Packets to a terminal's old address after the first one to the new address.
    late: u64,
    /// Packets that a terminal could not open, or for which it has no SA.
    unopened: u64,
    /// Packets from terminals that did not arrive.
    missing: u64,
}

impl Losses {
    fn sum(self) -> u64 {
        self.dropped + self.late + self.unopened + self.missing
    }

    fn since(self, before: Self) -> Self {
        Self {
            dropped: self.dropped - before.dropped,
            late: self.late - before.late,
            unopened: self.unopened - before.unopened,
            missing: self.missing.saturating_sub(before.missing),
        }
    }
}

/// A gateway under traffic, and its terminals.
#[derive(Debug)]
pub(super) struct LiveGateway {
    gateway: Gateway,
    line: Arc<Line>,
    group: Group,
    start: Instant,
    /// Packets that terminals sent so far.
    sent: u64,
    unopened: u64,
    next: usize,
    /// The index of the terminal whose packets are looked at.
    watched: Option<usize>,
}

impl LiveGateway {
    /// Starts a gateway, connects `terminals` terminals, and has packets flow to all of them.
    pub(super) fn new(world: &World, terminals: u32) -> Result<Self, BenchError> {
        let config = world.config(PAIRS * terminals, None);
        let (line, queues) = Line::new(terminals);
        let pool = Pool::new(config.gateway.frames, frame_size(&config)).map_err(BenchError::Memory)?;
        let assembly = Assembly::new(
            &config,
            vec![WorkerResources { pool, core: core_of(0) }],
            two_ports(queues.map(|queue| vec![queue])),
        );
        let gateway = assembly.and_then(Gateway::start).map_err(BenchError::Start)?;
        let mut this = Self {
            gateway,
            line,
            group: Group::new(world, 0..terminals),
            start: Instant::now(),
            sent: 0,
            unopened: 0,
            next: 0,
            watched: None,
        };
        for first in (0..this.group.terminals.len()).step_by(GROUP) {
            let last = this.group.terminals.len().min(first + GROUP);
            let now = this.start.elapsed();
            for index in first..last {
                this.group.dial(now, index);
                this.send(index, false);
            }
            this.wait("peers do not connect", |this| {
                this.group.terminals[first..last].iter().all(Terminal::is_connected)
            })?;
        }
        this.line.send_to(this.group.terminals.iter().filter_map(|terminal| terminal.inner));
        Ok(this)
    }

    /// Puts the messages of terminal `index` on the wire. With `starts_clock`, the last one starts
    /// the clock.
    fn send(&mut self, index: usize, starts_clock: bool) {
        let now = self.start.elapsed();
        let frames: Vec<Vec<u8>> =
            self.group.terminals[index].send(now).filter_map(|transmit| frame(&transmit)).collect();
        for (left, frame) in (0..frames.len()).rev().zip(&frames) {
            self.line.up.push(starts_clock && left == 0, frame);
        }
    }

    /// Hands terminals the frames that came for them; returns whether any came.
    fn pump(&mut self) -> bool {
        let mut busy = false;
        let line = self.line.clone();
        while let Some(frame) = line.down.pop(|(), frame| frame.to_vec()) {
            busy = true;
            match parse(&frame) {
                Some(transmit) => {
                    if let Some(index) = self.group.deliver(self.start.elapsed(), &transmit) {
                        self.send(index, false);
                    }
                }
                None => {
                    let esp = frame.get(ethernet::HEADER..).unwrap_or_default();
                    let now = self.start.elapsed();
                    let opened =
                        self.watched.and_then(|index| self.group.terminals.get_mut(index)?.open(now, esp));
                    self.unopened += u64::from(opened.is_none());
                }
            }
        }
        busy
    }

    /// Carries messages until `is_done`.
    fn wait(&mut self, otherwise: &'static str, is_done: impl Fn(&Self) -> bool) -> Result<(), BenchError> {
        let start = Instant::now();
        loop {
            let busy = self.pump();
            if is_done(self) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE || self.gateway.is_broken() {
                return Err(BenchError::Stuck(otherwise));
            }
            if !busy {
                thread::sleep(NAP);
            }
        }
    }

    /// Returns the index of the next terminal in turn.
    fn next_terminal(&mut self) -> usize {
        self.next = (self.next + 1) % self.group.terminals.len();
        self.next
    }

    /// Moves the next terminal; returns the time from its message to the first packet to the new
    /// address, and how many packets went to the old one in the meantime.
    pub(super) fn move_one(&mut self) -> Result<(Duration, u64), BenchError> {
        let index = self.next_terminal();
        self.group.terminals[index].pass(self.start.elapsed());
        let previous = self.group.address_of(index);
        self.group.move_on(self.start.elapsed(), index);
        self.watched = Some(index);
        self.line.watch(Watch { index: index as u32, previous, current: self.group.address_of(index) });
        self.send(index, true);
        self.wait("no packet follows a move", |this| {
            this.line.latency.load(Acquire) > 0 && this.group.terminals[index].confirmed > 0
        })?;
        self.send_packet(index);
        Ok((Duration::from_nanos(self.line.latency.load(Acquire)), self.line.to_old_address.load(Relaxed)))
    }

    /// Rekeys the child SA of the next terminal, from either side; the terminal sends all the
    /// while.
    pub(super) fn rekey_one(&mut self, by_gateway: bool) -> Result<(), BenchError> {
        let index = self.next_terminal();
        let address = self.group.address_of(index);
        let terminal = &mut self.group.terminals[index];
        terminal.pass(self.start.elapsed());
        self.watched = Some(index);
        self.line.watch(Watch { index: index as u32, previous: address, current: address });
        let (children_before, deadline) = (terminal.children_made, Instant::now() + PATIENCE);
        if by_gateway {
            let peer = terminal.name();
            self.gateway.ask(Command::PeerRekey { peer, ike: false });
        } else {
            terminal.rekey(self.start.elapsed());
            self.send(index, false);
        }
        loop {
            let busy = self.pump();
            self.send_packet(index);
            let terminal = &self.group.terminals[index];
            let newest = terminal.children.last().filter(|_| terminal.children_made > children_before);
            if newest.is_some_and(|child| child.is_used && child.has_received) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(BenchError::Stuck("keys do not change"));
            }
            if !busy {
                thread::sleep(NAP);
            }
        }
    }

    /// Sends a packet from terminal `index` to the server.
    fn send_packet(&mut self, index: usize) {
        let address = self.group.address_of(index);
        let terminal = &mut self.group.terminals[index];
        let inner = terminal.inner;
        let child = terminal.children.iter_mut().rev().find(|child| child.is_used);
        let (Some(child), Some(inner)) = (child, inner) else { return };
        let mut frame = vec![];
        child.end.address = address;
        child.end.seal_frame(&port::packet_from(inner), &mut frame);
        self.sent += u64::from(self.line.up.push(false, &frame));
    }

    /// Counts the packets lost so far. First waits, at most a second, for terminals' packets to
    /// arrive.
    pub(super) fn losses(&mut self) -> Losses {
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.line.arrived.load(Acquire) < self.sent && Instant::now() < deadline {
            self.pump();
            thread::sleep(NAP);
        }
        let dropped = |reason: &DropReason| self.gateway.counters().map(|c| c.drops.of(*reason)).sum::<u64>();
        Losses {
            dropped: DropReason::ALL.iter().map(dropped).sum::<u64>() + self.line.overflow.load(Relaxed),
            late: self.line.late.load(Relaxed),
            unopened: self.unopened,
            missing: self.sent.saturating_sub(self.line.arrived.load(Acquire)),
        }
    }
}
