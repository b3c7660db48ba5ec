//! A gateway with its workers in threads, which is given a batch at a time.

use super::{
    BenchError, Direction, Options, Size,
    control_load::ControlLoad,
    load::Load,
    port::{Batch, Tap},
    report::Row,
    worker::{Cost, Task, WorkerThread},
    world,
};
use crate::{
    bench::{core_of, resident},
    config::{frame_size, model::Gateway},
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

/// Slices of a run, of which the median is taken.
const SLICES: usize = 10;
/// Bytes of frames in a batch: more than a core's own caches hold, less than the shared cache does.
const BATCH: usize = 4 << 20;
/// Bytes of a cache line.
const LINE: usize = 64;

/// A batch for each port.
pub(super) type Batches = [Arc<Batch>; 2];

/// The cost of a batch to all workers together.
struct BatchCost {
    packets: u64,
    cpu: Duration,
    ticks: StageTicks,
    instructions: Option<u64>,
}

/// Counts of packets and events since the start.
#[derive(Clone, Default)]
struct Totals {
    /// Packets that went in, by port.
    offered: [u64; 2],
    /// Packets that came out, by port.
    delivered: [u64; 2],
    /// Packets lost because a pool was empty.
    missed: u64,
    /// Dropped packets, in the order of [`DropReason::ALL`].
    drops: Vec<u64>,
    checked: u64,
    /// Moves of terminals.
    moves: u64,
    /// Moves that the gateway followed.
    followed: u64,
    /// Tunnels added or removed.
    tunnel_changes: u64,
}

impl Totals {
    /// Returns the number of strangers' fragments that were dropped.
    fn flood_drops(&self) -> u64 {
        self.drops[DropReason::FragmentCrowded as usize]
    }
}

/// A gateway to be measured.
pub(super) struct Rig {
    slow_path: SlowPath,
    workers: Vec<WorkerThread>,
    taps: [Vec<Arc<Tap>>; 2],
    counters: Vec<Arc<WorkerCounters>>,
    load: Load,
    control_load: ControlLoad,
    is_disturbed: bool,
    offered: [u64; 2],
    checked: u64,
    start: Instant,
    cipher: Suite,
    sas: u32,
    setup: Duration,
    bytes_per_tunnel: u64,
}

impl Rig {
    /// Starts a gateway with `sas` tunnels, whose workers wait for batches.
    pub(super) fn new(options: &Options, cipher: Suite, sas: u32) -> Result<Self, BenchError> {
        let largest = options.sizes.iter().map(|size| size.largest()).max().unwrap_or(0);
        let mut config = world::config(sas, cipher, options.window, largest);
        if let Some(entries) = options.flow_cache {
            config.gateway.flow_cache = Gateway::flow_cache_of(entries as usize);
        }
        let (ports, taps) = world::ports(options.workers, largest);
        let resources = (0..options.workers).map(|worker| {
            let pool = Pool::new(config.gateway.frames, frame_size(&config));
            Ok(WorkerResources { pool: pool.map_err(BenchError::Memory)?, core: core_of(worker) })
        });
        let resources = resources.collect::<Result<Vec<_>, _>>()?;
        let (start, before) = (Instant::now(), resident());
        let assembly = Assembly::new(&config, resources, ports).map_err(BenchError::Start)?;
        let (setup, after) = (start.elapsed(), resident());
        let counters = assembly.handles.iter().map(|worker| worker.counters.clone()).collect();
        let threads = assembly.workers.into_iter().enumerate().map(|(index, (worker, core))| {
            let own = [taps[OUTSIDE][index].clone(), taps[INSIDE][index].clone()];
            WorkerThread::new(worker, core, own, options.workers)
        });
        Ok(Self {
            slow_path: assembly.slow_path,
            workers: threads.collect::<Result<_, _>>()?,
            taps,
            counters,
            load: Load::new(sas, cipher, options.fragments).map_err(BenchError::Key)?,
            control_load: ControlLoad::new(cipher, options.window, options.roam, options.churn),
            is_disturbed: options.roam > 0 || options.churn > 0,
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
        let before = self.totals();
        let slice = options.duration / SLICES as u32;
        self.run_for(slice, &mut batches, size, false)?;
        let (mut slices, mut packets, mut instructions) = (Vec::new(), 0, Some(0));
        for _ in 0..SLICES {
            let costs = self.run_for(slice, &mut batches, size, false)?;
            let (count, cpu) =
                costs.iter().fold((0, Duration::ZERO), |(n, t), cost| (n + cost.packets, t + cost.cpu));
            packets += count;
            let executed = costs.iter().map(|cost| cost.instructions).sum::<Option<u64>>();
            instructions = instructions.zip(executed).map(|(a, b)| a + b);
            slices.push(cpu.as_nanos() as f64 / count as f64);
        }
        let profiles = self.run_for(2 * slice, &mut batches, size, true)?;
        let after = self.totals();
        let (lost, drops) = losses_between(&before, &after, self.workers.len() > 1)?;
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
            sent: self.counters.iter().map(|counters| counters.sent.value()).sum(),
            instructions_per_packet: instructions.map(|executed| executed as f64 / packets as f64),
            lost,
            replay_drops: of(DropReason::ReplayStale),
            drops: drops.into_iter().map(|(reason, n)| (reason.name().to_owned(), n)).collect(),
            checked,
            moves: after.moves - before.moves,
            moves_followed: after.followed - before.followed,
            astray: self.astray(),
            churns: after.tunnel_changes - before.tunnel_changes,
            window: options.window,
            fragments: options.fragments.together,
            flood: options.fragments.flood,
            flood_drops: after.flood_drops() - before.flood_drops(),
            setup_seconds: self.setup.as_secs_f64(),
            bytes_per_tunnel: self.bytes_per_tunnel,
            ..Row::timed(slices, options.workers, size.mean(|size| size), stages(&profiles))
        })
    }

    /// Makes empty batches for the ports that receive in this direction.
    pub(super) fn batches(&self, direction: Direction, size: Size) -> Batches {
        let ports: &[usize] = match direction {
            Direction::Out => &[INSIDE],
            Direction::In => &[OUTSIDE],
            Direction::Both => &[OUTSIDE, INSIDE],
        };
        let share = BATCH * self.workers.len() / ports.len();
        // Both directions get as many packets, although frames of one are longer.
        let mean = size.mean(|size| self.load.frame_len(OUTSIDE, size).next_multiple_of(LINE));
        let count = (share / mean).max(1);
        let stride = self.load.frame_len(OUTSIDE, size.largest()).next_multiple_of(LINE);
        std::array::from_fn(|port| {
            let frames = count * self.load.frames_per_packet(port);
            let count = if ports.contains(&port) { frames } else { 0 };
            Arc::new(Batch::new(count, stride))
        })
    }

    /// Carries at least `packets` packets, and returns the processor time for exactly that many.
    pub(super) fn carry(
        &mut self,
        packets: u64,
        batches: &mut Batches,
        size: Size,
    ) -> Result<Duration, BenchError> {
        let before = self.totals();
        let (mut carried, mut cpu) = (0, Duration::ZERO);
        while carried < packets {
            let cost = self.run_batch(batches, size, false)?;
            carried += cost.packets;
            cpu += cost.cpu;
        }
        losses_between(&before, &self.totals(), self.workers.len() > 1)?;
        Ok(cpu.mul_f64(packets as f64 / carried.max(1) as f64))
    }

    /// Runs batch after batch until each worker has spent `time` on them; returns each batch's
    /// cost.
    fn run_for(
        &mut self,
        time: Duration,
        batches: &mut Batches,
        size: Size,
        profile: bool,
    ) -> Result<Vec<BatchCost>, BenchError> {
        let (mut all, mut spent) = (Vec::new(), Duration::ZERO);
        while spent < time * self.workers.len() as u32 || all.is_empty() {
            let cost = self.run_batch(batches, size, profile)?;
            spent += cost.cpu;
            all.push(cost);
        }
        Ok(all)
    }

    /// Prepares a batch for each port, has the workers carry them, and checks the samples.
    fn run_batch(
        &mut self,
        batches: &mut Batches,
        size: Size,
        profile: bool,
    ) -> Result<BatchCost, BenchError> {
        let mut packets = 0;
        let moves_by_hand = batches[OUTSIDE].len() == 0;
        for (port, batch) in batches.iter_mut().enumerate() {
            let batch = Arc::get_mut(batch).ok_or(BenchError::Worker)?;
            let moves = if port == OUTSIDE && !moves_by_hand { self.control_load.moves_ahead() } else { 0 };
            let filled = self.load.fill(batch, port, size, moves);
            packets += filled;
            self.offered[port] += filled;
        }
        let ready = Arc::new(AtomicUsize::new(0));
        for worker in &self.workers {
            let task = Task { batches: batches.clone(), profile, ready: ready.clone() };
            worker.start(task)?;
        }
        let cost = self.wait(packets, moves_by_hand)?;
        while self.slow_path.turn(self.start.elapsed()) {}
        for port in [OUTSIDE, INSIDE] {
            for frame in self.taps[port].iter().flat_map(|tap| tap.samples()) {
                self.load.check(port, &frame, size).map_err(BenchError::Packet)?;
                self.checked += 1;
            }
        }
        Ok(cost)
    }

    /// Waits until all workers have finished, and adds up their costs. Without control load, the
    /// slow path has nothing to do and sleeps.
    fn wait(&mut self, packets: u64, moves_by_hand: bool) -> Result<BatchCost, BenchError> {
        let mut cost =
            BatchCost { packets, cpu: Duration::ZERO, ticks: StageTicks::default(), instructions: Some(0) };
        let mut add = |done: Cost| {
            cost.cpu += done.cpu;
            cost.instructions = cost.instructions.zip(done.instructions).map(|(a, b)| a + b);
            cost.ticks.iter_mut().zip(done.ticks).for_each(|(sum, ticks)| *sum += ticks);
        };
        let mut waiting = self.workers.iter();
        if self.is_disturbed {
            let mut next = waiting.next();
            let finished = || {
                while let Some(worker) = next {
                    match worker.done.try_recv() {
                        Ok(done) => add(done),
                        Err(TryRecvError::Empty) => return Ok(false),
                        Err(TryRecvError::Disconnected) => return Err(BenchError::Worker),
                    }
                    next = waiting.next();
                }
                Ok(true)
            };
            let Self { control_load, slow_path, load, start, .. } = self;
            control_load.watch(slow_path, load, *start, moves_by_hand, finished)?;
        } else {
            for worker in waiting {
                add(worker.done.recv().map_err(|_| BenchError::Worker)?);
            }
        }
        Ok(cost)
    }

    /// Counts the terminals whose address differs from the one that the gateway has.
    fn astray(&self) -> u64 {
        let known = self.slow_path.tunnels().iter().map(|(_, tunnel)| tunnel.path().map(|path| path.remote));
        (0..self.sas).zip(known).filter(|(index, known)| *known != Some(self.load.address_of(*index))).count()
            as u64
    }

    fn totals(&self) -> Totals {
        let sum = |taps: &[Arc<Tap>], of: fn(&Tap) -> u64| taps.iter().map(|tap| of(tap)).sum::<u64>();
        let drops = |&reason: &DropReason| self.counters.iter().map(|c| c.drops.of(reason)).sum();
        Totals {
            offered: self.offered,
            delivered: std::array::from_fn(|port| sum(&self.taps[port], Tap::delivered)),
            missed: self.taps.iter().map(|taps| sum(taps, Tap::missed)).sum(),
            drops: DropReason::ALL.iter().map(drops).collect(),
            checked: self.checked,
            moves: self.load.total_moves(),
            followed: self.slow_path.tunnels().iter().map(|(_, tunnel)| tunnel.moves()).sum(),
            tunnel_changes: self.control_load.tunnel_changes(),
        }
    }
}

/// Returns the number of packets lost between two totals, and the drops by reason. Only workers
/// that share windows may lose any, and only as stale.
fn losses_between(
    before: &Totals,
    after: &Totals,
    may_be_late: bool,
) -> Result<(u64, Vec<(DropReason, u64)>), BenchError> {
    let offered: u64 = after.offered.iter().sum::<u64>() - before.offered.iter().sum::<u64>();
    let delivered: u64 = after.delivered.iter().sum::<u64>() - before.delivered.iter().sum::<u64>();
    let counts = after.drops.iter().zip(&before.drops).map(|(after, before)| after - before);
    // Strangers' fragments were not offered. If a terminal's were dropped, its packet would be missing.
    let is_offered = |reason| reason != DropReason::FragmentCrowded;
    let all = DropReason::ALL.iter().copied().zip(counts);
    let drops: Vec<_> = all.filter(|(reason, packets)| *packets > 0 && is_offered(*reason)).collect();
    let dropped = drops.iter().map(|(_, n)| n).sum::<u64>() + after.missed - before.missed;
    if offered != delivered + dropped {
        return Err(BenchError::Unaccounted { offered, delivered, dropped });
    }
    // An interrupted worker may come too late for a window that another worker has moved.
    let is_late = |reason| may_be_late && reason == DropReason::ReplayStale;
    match drops.iter().find(|(reason, _)| !is_late(*reason)) {
        Some(&(reason, packets)) => Err(BenchError::Dropped(reason, packets)),
        None if after.missed > before.missed => {
            Err(BenchError::Dropped(DropReason::NoBuffer, after.missed - before.missed))
        }
        None => Ok((offered - delivered, drops)),
    }
}

/// Returns nanoseconds per packet by stage: the medians over all batches, so that interruptions do
/// not count.
fn stages(profiles: &[BatchCost]) -> Vec<(Stage, f64)> {
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
