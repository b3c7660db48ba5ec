//! The bench: a gateway with its workers in threads, fed a batch at a time.

use super::{
    BenchError, Direction, Options, Size,
    hand::{Done, Hand, Task},
    load::Load,
    port::{Batch, Plug},
    report::Row,
    unrest::Unrest,
    world,
};
use crate::{
    bench::{core_of, resident},
    gateway::{
        counters::WorkerCounters,
        profile::{Stage, StageTicks},
    },
    launch::{Assembly, WorkerResources},
    sim::fixtures::{INSIDE, OUTSIDE},
    slow_path::SlowPath,
};
use crossbeam::channel::TryRecvError;
use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};
use wayfarer_dataplane::{clock::ticks, crypto::Suite, drop::DropReason, pool::Pool};

/// Slices of a run, of which the median counts.
const SLICES: usize = 10;
/// Bytes of frames in a batch: more than a core's own caches hold, less than the shared one.
const BATCH: usize = 4 << 20;
/// Bytes of a cache line.
const LINE: usize = 64;

/// A batch for each port.
pub(super) type Batches = [Arc<Batch>; 2];

/// What a batch took.
struct Played {
    packets: u64,
    cpu: Duration,
    ticks: StageTicks,
    instructions: Option<u64>,
}

/// Packets so far.
#[derive(Clone, Default)]
struct Account {
    /// By the port that they came by.
    offered: [u64; 2],
    /// By the port that they left by.
    delivered: [u64; 2],
    missed: u64,
    drops: Vec<u64>,
    checked: u64,
    moves: u64,
    followed: u64,
    changes: u64,
}

/// A gateway to be measured.
pub(super) struct Rig {
    slow_path: SlowPath,
    hands: Vec<Hand>,
    plugs: [Vec<Arc<Plug>>; 2],
    counters: Vec<Arc<WorkerCounters>>,
    load: Load,
    unrest: Unrest,
    has_unrest: bool,
    offered: [u64; 2],
    checked: u64,
    start: Instant,
    cipher: Suite,
    sas: u32,
    setup: Duration,
    bytes_per_tunnel: u64,
}

impl Rig {
    /// A gateway with `sas` tunnels, its workers waiting.
    pub(super) fn new(options: &Options, cipher: Suite, sas: u32) -> Result<Self, BenchError> {
        let largest = options.sizes.iter().map(|size| size.largest()).max().unwrap_or(0);
        let config = world::config(sas, cipher, options.window, largest);
        let (ports, plugs) = world::ports(options.workers, largest);
        let resources = (0..options.workers).map(|worker| {
            let pool = Pool::new(config.gateway.frames, config.gateway.frame_size);
            Ok(WorkerResources { pool: pool.map_err(BenchError::Memory)?, core: core_of(worker) })
        });
        let resources = resources.collect::<Result<Vec<_>, _>>()?;
        let (start, before) = (Instant::now(), resident());
        let assembly = Assembly::new(&config, resources, ports).map_err(BenchError::Start)?;
        let (setup, after) = (start.elapsed(), resident());
        let counters = assembly.handles.iter().map(|worker| worker.counters.clone()).collect();
        let threads = assembly.workers.into_iter().enumerate().map(|(index, (worker, core))| {
            let own = [plugs[OUTSIDE][index].clone(), plugs[INSIDE][index].clone()];
            Hand::new(worker, core, own, options.workers)
        });
        Ok(Self {
            slow_path: assembly.slow_path,
            hands: threads.collect::<Result<_, _>>()?,
            plugs,
            counters,
            load: Load::new(sas, cipher).map_err(BenchError::Key)?,
            unrest: Unrest::new(cipher, options.window, options.roam, options.churn),
            has_unrest: options.roam > 0 || options.churn > 0,
            offered: [0; 2],
            checked: 0,
            start,
            cipher,
            sas,
            setup,
            bytes_per_tunnel: after.saturating_sub(before) / u64::from(sas),
        })
    }

    /// Measures one row.
    pub(super) fn measure(
        &mut self,
        options: &Options,
        direction: Direction,
        size: Size,
    ) -> Result<Row, BenchError> {
        let mut batches = self.batches(direction, size);
        let before = self.account();
        let slice = options.duration / SLICES as u32;
        self.play_for(slice, &mut batches, size, false)?;
        let (mut slices, mut packets, mut instructions) = (Vec::new(), 0, Some(0));
        for _ in 0..SLICES {
            let played = self.play_for(slice, &mut batches, size, false)?;
            let (count, cpu) =
                played.iter().fold((0, Duration::ZERO), |(n, t), p| (n + p.packets, t + p.cpu));
            packets += count;
            let executed = played.iter().map(|p| p.instructions).sum::<Option<u64>>();
            instructions = instructions.zip(executed).map(|(a, b)| a + b);
            slices.push(cpu.as_nanos() as f64 / count as f64);
        }
        let profiles = self.play_for(2 * slice, &mut batches, size, true)?;
        let after = self.account();
        let (lost, drops) = settle(&before, &after, self.hands.len() > 1)?;
        let of =
            |wanted: DropReason| drops.iter().find(|(reason, _)| *reason == wanted).map_or(0, |(_, n)| *n);
        let checked = after.checked - before.checked;
        if checked == 0 {
            return Err(BenchError::Unchecked);
        }
        Ok(Row {
            direction,
            size,
            sas: self.sas,
            cipher: self.cipher.to_string(),
            workers: options.workers,
            packets,
            instructions_per_packet: instructions.map(|executed| executed as f64 / packets as f64),
            lost,
            replay_drops: of(DropReason::ReplayStale),
            drops: drops.into_iter().map(|(reason, n)| (reason.name().to_owned(), n)).collect(),
            checked,
            moves: after.moves - before.moves,
            moves_followed: after.followed - before.followed,
            astray: self.astray(),
            churns: after.changes - before.changes,
            window: options.window,
            setup_seconds: self.setup.as_secs_f64(),
            bytes_per_tunnel: self.bytes_per_tunnel,
            ..Row::timed(slices, options.workers, size.mean(|size| size), stages(&profiles))
        })
    }

    /// Empty batches for the ports that packets come in by.
    pub(super) fn batches(&self, direction: Direction, size: Size) -> Batches {
        let ports: &[usize] = match direction {
            Direction::Out => &[INSIDE],
            Direction::In => &[OUTSIDE],
            Direction::Both => &[OUTSIDE, INSIDE],
        };
        let share = BATCH * self.hands.len() / ports.len();
        // As many packets each way, though one has longer frames.
        let mean = size.mean(|size| self.load.frame_len(OUTSIDE, size).next_multiple_of(LINE));
        let count = (share / mean).max(1);
        let stride = self.load.frame_len(OUTSIDE, size.largest()).next_multiple_of(LINE);
        std::array::from_fn(|port| {
            let count = if ports.contains(&port) { count } else { 0 };
            Arc::new(Batch::new(count, stride))
        })
    }

    /// Carries `packets` packets at least, and answers the processor time for just so many.
    pub(super) fn carry(
        &mut self,
        packets: u64,
        batches: &mut Batches,
        size: Size,
    ) -> Result<Duration, BenchError> {
        let before = self.account();
        let (mut carried, mut cpu) = (0, Duration::ZERO);
        while carried < packets {
            let played = self.play(batches, size, false)?;
            carried += played.packets;
            cpu += played.cpu;
        }
        settle(&before, &self.account(), self.hands.len() > 1)?;
        Ok(cpu.mul_f64(packets as f64 / carried.max(1) as f64))
    }

    /// Plays batch after batch until each worker has spent `time` on them.
    fn play_for(
        &mut self,
        time: Duration,
        batches: &mut Batches,
        size: Size,
        profile: bool,
    ) -> Result<Vec<Played>, BenchError> {
        let (mut all, mut spent) = (Vec::new(), Duration::ZERO);
        while spent < time * self.hands.len() as u32 || all.is_empty() {
            let played = self.play(batches, size, profile)?;
            spent += played.cpu;
            all.push(played);
        }
        Ok(all)
    }

    fn play(&mut self, batches: &mut Batches, size: Size, profile: bool) -> Result<Played, BenchError> {
        let mut packets = 0;
        let moves_by_hand = batches[OUTSIDE].len() == 0;
        for (port, batch) in batches.iter_mut().enumerate() {
            let batch = Arc::get_mut(batch).ok_or(BenchError::Worker)?;
            let moves = if port == OUTSIDE && !moves_by_hand { self.unrest.moves_ahead() } else { 0 };
            self.load.fill(batch, port, size, moves);
            packets += batch.len() as u64;
            self.offered[port] += batch.len() as u64;
        }
        let ready = Arc::new(AtomicUsize::new(0));
        for hand in &self.hands {
            let task = Task { batches: batches.clone(), profile, ready: ready.clone() };
            hand.start(task)?;
        }
        let played = self.wait(packets, moves_by_hand)?;
        while self.slow_path.turn(self.start.elapsed()) {}
        for port in [OUTSIDE, INSIDE] {
            for frame in self.plugs[port].iter().flat_map(|plug| plug.samples()) {
                self.load.check(port, &frame, size).map_err(BenchError::Wrong)?;
                self.checked += 1;
            }
        }
        Ok(played)
    }

    /// Waits until all workers have done their part. Beside quiet traffic the slow path has nothing
    /// to do, and sleeps.
    fn wait(&mut self, packets: u64, moves_by_hand: bool) -> Result<Played, BenchError> {
        let mut played =
            Played { packets, cpu: Duration::ZERO, ticks: StageTicks::default(), instructions: Some(0) };
        let mut add = |done: Done| {
            played.cpu += done.cpu;
            played.instructions = played.instructions.zip(done.instructions).map(|(a, b)| a + b);
            played.ticks.iter_mut().zip(done.ticks).for_each(|(sum, ticks)| *sum += ticks);
        };
        let mut waiting = self.hands.iter();
        if self.has_unrest {
            let mut next = waiting.next();
            let finished = || {
                while let Some(hand) = next {
                    match hand.done.try_recv() {
                        Ok(done) => add(done),
                        Err(TryRecvError::Empty) => return Ok(false),
                        Err(TryRecvError::Disconnected) => return Err(BenchError::Worker),
                    }
                    next = waiting.next();
                }
                Ok(true)
            };
            let Self { unrest, slow_path, load, start, .. } = self;
            unrest.watch(slow_path, load, *start, moves_by_hand, finished)?;
        } else {
            for hand in waiting {
                add(hand.done.recv().map_err(|_| BenchError::Worker)?);
            }
        }
        Ok(played)
    }

    /// Terminals that the gateway believes elsewhere than they are.
    fn astray(&self) -> u64 {
        let known = self.slow_path.tunnels().iter().map(|(_, tunnel)| tunnel.path.map(|path| path.remote));
        (0..self.sas).zip(known).filter(|(index, known)| *known != Some(self.load.place(*index))).count()
            as u64
    }

    fn account(&self) -> Account {
        let sum = |plugs: &[Arc<Plug>], of: fn(&Plug) -> u64| plugs.iter().map(|plug| of(plug)).sum::<u64>();
        let drops = |&reason: &DropReason| self.counters.iter().map(|c| c.drops.of(reason)).sum();
        Account {
            offered: self.offered,
            delivered: std::array::from_fn(|port| sum(&self.plugs[port], Plug::delivered)),
            missed: self.plugs.iter().map(|plugs| sum(plugs, Plug::missed)).sum(),
            drops: DropReason::ALL.iter().map(drops).collect(),
            checked: self.checked,
            moves: self.load.moved(),
            followed: self.slow_path.tunnels().iter().map(|(_, tunnel)| tunnel.moves).sum(),
            changes: self.unrest.changed(),
        }
    }
}

/// Returns how many packets went in and did not come out between two accounts, and what they were
/// dropped for: nothing; or if workers share windows, what these refuse as stale.
fn settle(
    before: &Account,
    after: &Account,
    may_be_late: bool,
) -> Result<(u64, Vec<(DropReason, u64)>), BenchError> {
    let offered: u64 = after.offered.iter().sum::<u64>() - before.offered.iter().sum::<u64>();
    let delivered: u64 = after.delivered.iter().sum::<u64>() - before.delivered.iter().sum::<u64>();
    let counts = after.drops.iter().zip(&before.drops).map(|(after, before)| after - before);
    let drops: Vec<_> =
        DropReason::ALL.iter().copied().zip(counts).filter(|(_, packets)| *packets > 0).collect();
    let dropped = drops.iter().map(|(_, n)| n).sum::<u64>() + after.missed - before.missed;
    if offered != delivered + dropped {
        return Err(BenchError::Unaccounted { offered, delivered, dropped });
    }
    // A worker that the system interrupted comes too late for a window that another moved on.
    let is_late = |reason| may_be_late && reason == DropReason::ReplayStale;
    match drops.iter().find(|(reason, _)| !is_late(*reason)) {
        Some(&(reason, packets)) => Err(BenchError::Dropped(reason, packets)),
        None if after.missed > before.missed => {
            Err(BenchError::Dropped(DropReason::NoBuffer, after.missed - before.missed))
        }
        None => Ok((offered - delivered, drops)),
    }
}

/// Nanoseconds a packet by stage: for each stage the median over all batches, so that an
/// interruption counts for none.
fn stages(profiles: &[Played]) -> Vec<(Stage, f64)> {
    let tick = nanoseconds_per_tick();
    let of = |stage: Stage| {
        let mut each: Vec<f64> =
            profiles.iter().map(|p| p.ticks[stage as usize] as f64 / p.packets as f64).collect();
        each.sort_by(f64::total_cmp);
        each[each.len() / 2] * tick
    };
    Stage::ALL.into_iter().map(|stage| (stage, of(stage))).collect()
}

fn nanoseconds_per_tick() -> f64 {
    let (start, first) = (Instant::now(), ticks());
    while start.elapsed() < Duration::from_millis(20) {
        std::hint::spin_loop();
    }
    start.elapsed().as_nanos() as f64 / (ticks() - first) as f64
}
