//! What traffic notices of key exchange: a gateway whose worker and slow path have threads of their
//! own, and forward at full rate while terminals connect, move and change keys.

mod measure;
mod port;

pub(super) use measure::measure;

use super::{
    BenchError, fleet,
    gateway::{frame, parse},
    terminal::Terminal,
    world::World,
};
use crate::{
    bench::core_of,
    control::protocol::Command,
    launch::{Assembly, Gateway, WorkerResources},
    sim::{addresses, fixtures::ports_on_links},
};
use port::{Line, Watch};
use std::{
    sync::{Arc, atomic::Ordering::*},
    thread,
    time::{Duration, Instant},
};
use wayfarer_dataplane::{drop::DropReason, pool::Pool, wire::ethernet};

/// How long the bench's thread sleeps where there is nothing to do: it shares its core with the
/// slow path.
const NAP: Duration = Duration::from_micros(20);
/// How long a move or a change of keys may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pairs of SAs that a terminal may have at a time.
const PAIRS: u32 = 32;

/// What was lost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    /// Packets that the gateway dropped.
    dropped: u64,
    /// Packets to where a terminal was, behind one to where it is.
    late: u64,
    /// Packets to a terminal by an SA that it does not have, or that did not open.
    unopened: u64,
    /// Packets of terminals that did not arrive.
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
pub(super) struct Live {
    gateway: Gateway,
    line: Arc<Line>,
    terminals: Vec<Terminal>,
    start: Instant,
    /// Packets of terminals so far.
    sent: u64,
    unopened: u64,
    next: usize,
    /// The terminal whose packets are looked at.
    watched: Option<usize>,
}

impl Live {
    /// A gateway with so many terminals connected, and packets for all of them.
    pub(super) fn new(world: &World, terminals: u32) -> Result<Self, BenchError> {
        // Pairs that were replaced stay for a while.
        let config = world.config(PAIRS * terminals, None);
        let (line, queues) = Line::new(terminals);
        let pool = Pool::new(config.gateway.frames, config.gateway.frame_size).map_err(BenchError::Memory)?;
        let assembly = Assembly::new(
            &config,
            vec![WorkerResources { pool, core: core_of(0) }],
            ports_on_links(queues.map(|queue| vec![queue])),
        );
        let gateway = assembly.and_then(Gateway::start).map_err(BenchError::Start)?;
        let terminals = (0..terminals).map(|index| Terminal::new(world, index)).collect();
        let mut this = Self {
            gateway,
            line,
            terminals,
            start: Instant::now(),
            sent: 0,
            unopened: 0,
            next: 0,
            watched: None,
        };
        for first in (0..this.terminals.len()).step_by(fleet::GROUP) {
            let last = this.terminals.len().min(first + fleet::GROUP);
            let now = this.start.elapsed();
            for index in first..last {
                this.terminals[index].connect(now);
                this.send(index, false);
            }
            this.wait("peers do not connect", |this| {
                this.terminals[first..last].iter().all(Terminal::is_connected)
            })?;
        }
        this.line.send_to(this.terminals.iter().filter_map(|terminal| terminal.inner));
        Ok(this)
    }

    /// Puts what terminal `index` has to say on the wire. The clock may start with the last of it.
    fn send(&mut self, index: usize, starts_clock: bool) {
        let now = self.start.elapsed();
        let frames: Vec<Vec<u8>> =
            self.terminals[index].send(now).filter_map(|transmit| frame(&transmit)).collect();
        for (left, frame) in (0..frames.len()).rev().zip(&frames) {
            self.line.up.push(starts_clock && left == 0, frame);
        }
    }

    /// Takes what came for terminals; answers whether anything did.
    fn pump(&mut self) -> bool {
        let mut busy = false;
        let line = self.line.clone();
        while let Some(frame) = line.down.pop(|(), frame| frame.to_vec()) {
            busy = true;
            match parse(&frame) {
                Some(transmit) => {
                    let to = transmit.addresses.remote.ip();
                    let index = addresses::at_outer(to).map_or(usize::MAX, |index| index as usize);
                    let Some(terminal) = self.terminals.get_mut(index) else { continue };
                    if terminal.place() == to {
                        terminal.handle(self.start.elapsed(), &transmit);
                        self.send(index, false);
                    }
                }
                None => {
                    let esp = frame.get(ethernet::HEADER..).unwrap_or_default();
                    let now = self.start.elapsed();
                    let opened = self.watched.and_then(|index| self.terminals.get_mut(index)?.open(now, esp));
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

    /// The next terminal in turn.
    fn turn(&mut self) -> usize {
        self.next = (self.next + 1) % self.terminals.len();
        self.next
    }

    /// A terminal moves: from when its message came to the first packet that went after it, and how
    /// many went where it was in the meantime.
    pub(super) fn move_one(&mut self) -> Result<(Duration, u64), BenchError> {
        let index = self.turn();
        let terminal = &mut self.terminals[index];
        terminal.pass(self.start.elapsed());
        let before = terminal.place();
        terminal.depart(self.start.elapsed());
        terminal.confirmed = 0;
        self.watched = Some(index);
        self.line.watch(Watch { index: index as u32, before, place: terminal.place() });
        self.send(index, true);
        self.wait("no packet follows a move", |this| {
            this.line.latency.load(Acquire) > 0 && this.terminals[index].confirmed > 0
        })?;
        self.send_packet(index);
        Ok((Duration::from_nanos(self.line.latency.load(Acquire)), self.line.meanwhile.load(Relaxed)))
    }

    /// A terminal changes the keys of its child SA, or has the gateway do so, and sends all the
    /// while.
    pub(super) fn rekey_one(&mut self, by_gateway: bool) -> Result<(), BenchError> {
        let index = self.turn();
        let terminal = &mut self.terminals[index];
        let place = terminal.place();
        terminal.pass(self.start.elapsed());
        self.watched = Some(index);
        self.line.watch(Watch { index: index as u32, before: place, place });
        let (made, deadline) = (terminal.made, Instant::now() + PATIENCE);
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
            let terminal = &self.terminals[index];
            let newest = terminal.children.last().filter(|_| terminal.made > made);
            if newest.is_some_and(|child| child.is_used && child.is_seen) {
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

    /// Terminal `index` sends a packet to the server.
    fn send_packet(&mut self, index: usize) {
        let terminal = &mut self.terminals[index];
        let (place, inner) = (terminal.place(), terminal.inner);
        let child = terminal.children.iter_mut().rev().find(|child| child.is_used);
        let (Some(child), Some(inner)) = (child, inner) else { return };
        let mut frame = vec![];
        child.end.address = place;
        child.end.seal_frame(&port::packet_from(inner), &mut frame);
        self.sent += u64::from(self.line.up.push(false, &frame));
    }

    /// What was lost so far. Waits until what terminals sent has arrived, a second at most.
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
