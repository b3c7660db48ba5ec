//! A thread that sends and receives by polling, on its own queues of both devices.

use super::{
    error::RateError,
    interrupt::Interrupt,
    schedule::{Demand, Schedule},
    source::{Batch, Source},
    stamp::{Signature, Stamp},
    tally::{Sent, Tally},
    tunnels::Openers,
};
use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use wayfarer_dataplane::{packet::Burst, pool::Pool, port::Port, wire::ethernet};

/// How long a device may take no frame at all before a burst is given up.
const STUCK: Duration = Duration::from_secs(2);

/// What a thread works with.
pub(super) struct Equipment {
    /// One or two: forward frames go out by the first and come back by the last.
    pub(super) ports: Vec<Box<dyn Port>>,
    pub(super) pool: Pool,
    /// What it sends, by direction: forward, back.
    pub(super) sources: [Option<Source>; 2],
    /// Opens what comes back by the first port; `None` if that is in clear.
    pub(super) openers: Option<Arc<Openers>>,
    /// `true` if frames have no stamps.
    pub(super) is_capture: bool,
}

/// The state of a trial, for all threads.
#[derive(Debug)]
pub(super) struct Progress {
    threads: usize,
    ready: AtomicUsize,
    /// Threads that have sent all their frames.
    finished: AtomicUsize,
    sent: AtomicU64,
    received: AtomicU64,
    /// `true` if a thread has failed, so that the others need not wait for it.
    is_cancelled: AtomicBool,
    /// Cancels the trial too.
    interrupt: Interrupt,
}

impl Progress {
    /// Makes the state of a trial of so many threads, which `interrupt` may cancel.
    pub(super) fn new(threads: usize, interrupt: Interrupt) -> Self {
        let [sent, received] = [0; 2].map(AtomicU64::new);
        let [ready, finished] = [0; 2].map(AtomicUsize::new);
        let is_cancelled = AtomicBool::new(false);
        Self { threads, ready, finished, sent, received, is_cancelled, interrupt }
    }

    /// Waits until all threads are here, so that they begin together.
    fn meet(&self) {
        self.ready.fetch_add(1, AcqRel);
        while self.ready.load(Acquire) < self.threads && !self.is_cancelled() {
            thread::yield_now();
        }
    }

    /// Ends the trial for all threads that wait for others.
    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Relaxed);
    }

    /// Notes that a thread has sent all its frames.
    fn finish(&self, sent: u64) {
        self.sent.fetch_add(sent, Relaxed);
        self.finished.fetch_add(1, Release);
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Relaxed) || self.interrupt.signal().is_some()
    }

    fn is_finished(&self) -> bool {
        self.finished.load(Acquire) == self.threads
    }

    /// Returns whether there is nothing to wait for: everything came back, or the trial was cancelled.
    fn is_over(&self) -> bool {
        let is_complete = || self.received.load(Relaxed) >= self.sent.load(Relaxed);
        self.is_cancelled() || self.is_finished() && is_complete()
    }
}

/// Cancels a trial if its thread panics, so that the others do not wait for it.
struct CancelOnPanic<'a>(&'a Progress);

impl Drop for CancelOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.cancel();
        }
    }
}

/// A trial for a thread.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) trial: u16,
    /// Whether frames go forward, and whether they go back.
    pub(super) ways: [bool; 2],
    /// The frames of all streams together.
    pub(super) demand: Demand,
    /// Lengths of IP packets, in the order of sending.
    pub(super) lengths: Arc<[usize]>,
    /// How long to wait for late frames.
    pub(super) late: Duration,
    pub(super) progress: Arc<Progress>,
}

/// A thread's part of a trial.
#[derive(Debug)]
pub(super) struct Part {
    /// What it sent, by direction.
    pub(super) sent: [Sent; 2],
    pub(super) tally: Tally,
    /// The index of a tunnel of this thread that has no sequence number left.
    pub(super) exhausted: Option<usize>,
}

/// A running thread.
pub(super) struct TesterThread {
    tasks: Option<Sender<Task>>,
    parts: Receiver<Part>,
    thread: Option<JoinHandle<()>>,
}

impl TesterThread {
    /// Starts thread number `index`, on `core` if that is given. `clock` is that of all threads.
    ///
    /// # Errors
    /// [`RateError::Thread`].
    pub(super) fn start(
        equipment: Equipment,
        index: usize,
        core: Option<CoreId>,
        signature: Signature,
        clock: Instant,
    ) -> Result<Self, RateError> {
        let (tasks, received) = bounded::<Task>(1);
        let (finished, parts) = bounded(1);
        let mut lane = Lane { equipment, index, signature, clock };
        let thread = thread::Builder::new().name("wf-rate".to_owned()).spawn(move || {
            if let Some(core) = core {
                // Without pinning, figures are only less steady.
                let _ = core_affinity::set_for_current(core);
            }
            lane.equipment.ports.iter_mut().for_each(|port| port.attach());
            for task in received {
                if finished.send(lane.trial(&task)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { tasks: Some(tasks), parts, thread: Some(thread.map_err(RateError::Thread)?) })
    }

    /// Begins a trial.
    ///
    /// # Errors
    /// [`RateError::Ended`].
    pub(super) fn begin(&self, task: Task) -> Result<(), RateError> {
        let tasks = self.tasks.as_ref().ok_or(RateError::Ended)?;
        tasks.send(task).map_err(|_| RateError::Ended)
    }

    /// Waits for the thread's part of the trial.
    ///
    /// # Errors
    /// [`RateError::Ended`].
    pub(super) fn end(&self) -> Result<Part, RateError> {
        self.parts.recv().map_err(|_| RateError::Ended)
    }
}

impl Drop for TesterThread {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A thread's own part of the tester.
struct Lane {
    equipment: Equipment,
    index: usize,
    signature: Signature,
    clock: Instant,
}

/// A stream of this thread while it sends.
struct Stream {
    schedule: Schedule,
    sent: Sent,
    is_over: bool,
}

impl Lane {
    /// Sends this thread's share of the frames, and receives whatever comes to it until all threads have
    /// everything or nothing more is to be expected.
    fn trial(&mut self, task: &Task) -> Part {
        let _cancel = CancelOnPanic(&task.progress);
        let mut streams = self.streams(task);
        task.progress.meet();
        let start = self.now();
        let mut tally = Tally::new(task.trial, 2 * task.progress.threads, start, task.demand.settled);
        let mut last_sent = Duration::ZERO;
        loop {
            let passed = Duration::from_nanos(self.now() - start);
            let is_stuck = passed > last_sent + STUCK;
            let gives_up = is_stuck || self.exhausted().is_some() || task.progress.is_cancelled();
            for (way, stream) in streams.iter_mut().enumerate() {
                let Some(stream) = stream.as_mut().filter(|stream| !stream.is_over) else { continue };
                match stream.schedule.due(passed, stream.sent.frames) {
                    Some(count) if !gives_up => {
                        let frames = self.send(task, way, stream.sent.frames, count);
                        stream.sent.frames += frames;
                        if frames > 0 || count == 0 {
                            last_sent = passed;
                        }
                    }
                    _ => {
                        stream.is_over = true;
                        stream.sent.time = passed;
                        stream.sent.skipped = stream.schedule.skipped();
                    }
                }
            }
            self.receive(task, &mut tally);
            if streams.iter().flatten().all(|stream| stream.is_over) {
                break;
            }
        }
        let sent = streams.map(|stream| stream.map_or(Sent::default(), |stream| stream.sent));
        task.progress.finish(sent.iter().map(|sent| sent.frames).sum());
        self.receive_late(task, &mut tally);
        Part { sent, tally, exhausted: self.exhausted() }
    }

    /// Makes this thread's streams, by direction.
    fn streams(&self, task: &Task) -> [Option<Stream>; 2] {
        let ways = task.ways.iter().filter(|goes| **goes).count();
        let mut next = self.index * ways;
        task.ways.map(|goes| {
            goes.then(|| {
                let share = task.demand.share(next as u64, (ways * task.progress.threads) as u64);
                next += 1;
                Stream { schedule: Schedule::new(share), sent: Sent::default(), is_over: false }
            })
        })
    }

    /// Sends up to `count` frames of one direction from number `first` on. Returns how many the device
    /// took: the others were not offered to anyone.
    fn send(&mut self, task: &Task, way: usize, first: u64, count: u64) -> u64 {
        let time = self.now();
        let Equipment { ports, pool, sources, .. } = &mut self.equipment;
        let Some(source) = sources[way].as_mut().filter(|_| count > 0) else { return 0 };
        let port = if way == 0 { 0 } else { ports.len() - 1 };
        let stream = (2 * self.index + way) as u8;
        let stamp = Stamp { stream, trial: task.trial, number: first, time };
        let batch = Batch { stamp, signature: self.signature, count, lengths: &task.lengths };
        let mut burst = Burst::new();
        source.fill(pool, &mut burst, &batch);
        let before = burst.len();
        ports[port].tx(pool, &mut burst);
        let taken = before - burst.len();
        pool.give_all(&mut burst);
        ports[port].flush(pool);
        taken as u64
    }

    /// Takes what has come to this thread's queues.
    fn receive(&mut self, task: &Task, tally: &mut Tally) {
        let last = self.equipment.ports.len() - 1;
        for index in 0..=last {
            let way = usize::from(index != last);
            let mut burst = Burst::new();
            let Equipment { ports, pool, .. } = &mut self.equipment;
            ports[index].rx(pool, &mut burst);
            if !burst.is_empty() {
                let is_sealed = index == 0;
                self.note(&mut burst, is_sealed, way, task, tally);
            }
            let Equipment { ports, pool, .. } = &mut self.equipment;
            pool.give_all(&mut burst);
            ports[index].flush(pool);
        }
    }

    /// Counts the frames of a burst that came back for direction `way`.
    fn note(&self, burst: &mut Burst, may_be_sealed: bool, way: usize, task: &Task, tally: &mut Tally) {
        let (now, signature) = (self.now(), self.signature);
        let mut note = |packet: &[u8]| {
            if let Some(stamp) = Stamp::find(packet, signature) {
                tally.note(&stamp, way, now);
            }
        };
        match &self.equipment.openers {
            Some(openers) if may_be_sealed => {
                let forged = openers.open(burst, note);
                tally.note_forged(forged);
            }
            _ if self.equipment.is_capture => {
                let packets = burst.iter().filter(|packet| task.ways[way] && is_ip(packet.data()));
                packets.for_each(|_| tally.note_unstamped(way));
            }
            _ => {
                let packets = burst.iter().filter_map(|packet| packet.data().get(ethernet::HEADER..));
                packets.for_each(&mut note);
            }
        }
    }

    /// Receives until everything has come back, or for as long as late frames may take after the last
    /// thread has sent its last frame.
    fn receive_late(&mut self, task: &Task, tally: &mut Tally) {
        let progress = &task.progress;
        progress.received.fetch_add(tally.received(), Relaxed);
        let mut end = None;
        while !progress.is_over() {
            let before = tally.received();
            self.receive(task, tally);
            progress.received.fetch_add(tally.received() - before, Relaxed);
            if progress.is_finished() {
                let now = self.now();
                if now >= *end.get_or_insert(now + task.late.as_nanos() as u64) {
                    return;
                }
            }
        }
    }

    fn exhausted(&self) -> Option<usize> {
        self.equipment.sources.iter().flatten().find_map(Source::exhausted)
    }

    /// Returns the time in nanoseconds, which is the same in all threads.
    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }
}

/// Returns whether a frame carries an IP packet.
fn is_ip(frame: &[u8]) -> bool {
    let ethertype = frame.get(12..14).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
    matches!(ethertype, Some(ethernet::IPV4 | ethernet::IPV6))
}
