//! The gateway's ports in a benchmark: they receive from a prepared batch, and count, sample and
//! free the frames that they send.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
};
use wayfarer_dataplane::{
    packet::Burst,
    pool::{HEADROOM, Pool},
    port::{Port, PortStats},
};

/// Packets from one sample to the next: a prime, so that samples do not keep step with bursts.
const SAMPLE_EVERY: u32 = 509;
/// The maximum number of samples that wait to be checked.
const SAMPLES: usize = 64;

/// Frames for one port of all workers. Each goes to the first worker that asks, as from a device
/// that spreads the packets of one flow over its queues.
#[derive(Debug)]
pub(super) struct Batch {
    /// Frames, one every `stride` bytes.
    bytes: Vec<u8>,
    stride: usize,
    lengths: Vec<u16>,
    next: AtomicUsize,
}

impl Batch {
    /// Makes room for `count` frames of up to `stride` bytes.
    pub(super) fn new(count: usize, stride: usize) -> Self {
        Self { bytes: vec![0; count * stride], stride, lengths: vec![0; count], next: AtomicUsize::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Iterates over groups of `size` frames and their lengths, to be written anew; afterwards none
    /// is taken.
    pub(super) fn refill(&mut self, size: usize) -> impl Iterator<Item = (&mut [u8], &mut [u16])> {
        self.next = AtomicUsize::new(0);
        self.bytes.chunks_mut(self.stride * size).zip(self.lengths.chunks_mut(size))
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Returns whether every frame was taken.
    pub(super) fn is_exhausted(&self) -> bool {
        self.next.load(Relaxed) >= self.len()
    }
}

/// The benchmark's access to one queue of a port.
#[derive(Debug, Default)]
pub(super) struct Tap {
    is_waiting: AtomicBool,
    waiting: Mutex<Option<Arc<Batch>>>,
    delivered: AtomicU64,
    missed: AtomicU64,
    samples: Mutex<Vec<Vec<u8>>>,
}

impl Tap {
    /// Has the port receive `batch` next.
    pub(super) fn insert(&self, batch: Arc<Batch>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(batch);
        self.is_waiting.store(true, Release);
    }

    fn take(&self) -> Option<Arc<Batch>> {
        self.is_waiting.store(false, Relaxed);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns how many frames the gateway has sent.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    /// Returns how many frames were lost because the gateway's pool was empty.
    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    /// Takes the sampled frames.
    pub(super) fn samples(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[cold]
    fn keep(&self, frame: &[u8]) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() < SAMPLES {
            samples.push(frame.to_vec());
        }
    }
}

/// One queue of a port.
#[derive(Debug)]
pub(super) struct LoadPort {
    tap: Arc<Tap>,
    batch: Option<Arc<Batch>>,
    until_sample: u32,
    stats: PortStats,
}

impl LoadPort {
    pub(super) fn new(tap: Arc<Tap>) -> Self {
        Self { tap, batch: None, until_sample: SAMPLE_EVERY, stats: PortStats::default() }
    }

    /// Counts a frame that leaves, and keeps a copy of every [`SAMPLE_EVERY`]th.
    #[inline]
    fn sink(&mut self, frame: &[u8]) {
        self.stats.tx_packets += 1;
        self.stats.tx_bytes += frame.len() as u64;
        self.until_sample -= 1;
        if self.until_sample == 0 {
            self.until_sample = SAMPLE_EVERY;
            self.tap.keep(frame);
        }
    }
}

impl Port for LoadPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        if self.batch.is_none() && self.tap.is_waiting.load(Acquire) {
            self.batch = self.tap.take();
        }
        let Some(batch) = &self.batch else { return };
        let room = burst.room();
        let first = batch.next.fetch_add(room, Relaxed);
        let range = first.min(batch.len())..(first + room).min(batch.len());
        if range.is_empty() {
            self.batch = None;
            return;
        }
        let frames = batch.bytes[range.start * batch.stride..].chunks(batch.stride);
        for (frame, &length) in frames.zip(&batch.lengths[range]) {
            // Copies the whole packet into a fresh frame, as a device does.
            let Some(mut packet) = pool.take() else {
                self.tap.missed.fetch_add(1, Relaxed);
                continue;
            };
            if packet.fill(HEADROOM, &frame[..usize::from(length)]).is_none() {
                self.tap.missed.fetch_add(1, Relaxed);
                pool.give(packet);
                continue;
            }
            self.stats.rx_packets += 1;
            self.stats.rx_bytes += u64::from(length);
            burst.push(packet);
        }
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        burst.iter().for_each(|packet| self.sink(packet.data()));
        pool.give_all(burst);
        self.tap.delivered.store(self.stats.tx_packets, Relaxed);
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}
