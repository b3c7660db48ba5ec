//! Counts of the frames that came back.

use super::{
    options::Direction,
    stamp::{Stamp, since},
};
use crate::bench::latencies;
use hdrhistogram::Histogram;
use std::time::Duration;

/// Words of a page of [`Seen`]: half a million frames.
const WORDS: usize = 8192;
/// Frames of a page.
const PAGE: u64 = 64 * WORDS as u64;

/// A bit for each frame of a stream. Pages are made when their first frame comes, and never move.
#[derive(Debug, Default)]
pub(super) struct Seen(Vec<Option<Box<[u64]>>>);

impl Seen {
    /// Notes frame `number`; returns `false` if it came before.
    fn insert(&mut self, number: u64) -> bool {
        let page = (number / PAGE) as usize;
        if self.0.len() <= page {
            self.0.resize_with(page + 1, || None);
        }
        let words = self.0[page].get_or_insert_with(|| vec![0; WORDS].into_boxed_slice());
        let (word, bit) = (&mut words[(number % PAGE / 64) as usize], 1 << (number % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Adds the frames of another set. Returns how many are in both.
    fn merge(&mut self, other: Self) -> u64 {
        let mut both = 0;
        if self.0.len() < other.0.len() {
            self.0.resize_with(other.0.len(), || None);
        }
        for (own, other) in self.0.iter_mut().zip(other.0) {
            let Some(other) = other else { continue };
            match own {
                None => *own = Some(other),
                Some(own) => {
                    for (own, other) in own.iter_mut().zip(&other) {
                        both += u64::from((*own & *other).count_ones());
                        *own |= *other;
                    }
                }
            }
        }
        both
    }

    /// Returns how many frames with numbers below `end` came.
    fn below(&self, end: u64) -> u64 {
        let pages = self.0.iter().zip(0..).filter_map(|(page, index)| Some((page.as_ref()?, index * PAGE)));
        let words = pages.flat_map(|(words, first)| words.iter().zip((first..).step_by(64)));
        let bits = |(word, first): (&u64, u64)| {
            let wanted = end.saturating_sub(first).min(64) as u32;
            u64::from((word & !u64::MAX.checked_shl(wanted).unwrap_or(0)).count_ones())
        };
        words.map(bits).sum()
    }
}

/// What came back of one stream.
#[derive(Debug, Default)]
struct Arrivals {
    seen: Seen,
    duplicates: u64,
}

/// What one thread received in a trial.
#[derive(Debug)]
pub(super) struct Tally {
    trial: u16,
    streams: Vec<Arrivals>,
    /// Frames received so far, each once.
    received: u64,
    /// Frames of a capture, by direction. They have no numbers.
    unstamped: [u64; 2],
    /// ESP packets that did not authenticate.
    forged: u64,
    /// Nanoseconds from sending to receiving.
    latency: Histogram<u64>,
    /// When the trial began, in nanoseconds.
    start: u64,
    /// The time after `start`, in nanoseconds, from which on latencies of sent frames count.
    settled: u64,
}

impl Tally {
    /// Makes an empty tally of a trial with so many streams that begins at `start`.
    pub(super) fn new(trial: u16, streams: usize, start: u64, settled: Duration) -> Self {
        Self {
            trial,
            streams: (0..streams).map(|_| Arrivals::default()).collect(),
            received: 0,
            unstamped: [0; 2],
            forged: 0,
            latency: latencies(),
            start,
            settled: settled.as_nanos() as u64,
        }
    }

    /// Notes a frame that came back at `now`, for direction `way`: 0 forward, 1 back.
    pub(super) fn note(&mut self, stamp: &Stamp, way: usize, now: u64) {
        let stream = usize::from(stamp.stream);
        // A frame of an earlier trial, or one that came back where it was sent.
        if stamp.trial != self.trial || stream >= self.streams.len() || way_of(stream) != way {
            return;
        }
        let arrivals = &mut self.streams[stream];
        if !arrivals.seen.insert(stamp.number) {
            arrivals.duplicates += 1;
            return;
        }
        self.received += 1;
        // Counted back from now: another thread may have sent the frame before this one began.
        let flight = since(now, stamp.time);
        if self.settled == 0 || flight + self.settled <= now.saturating_sub(self.start) {
            self.latency.saturating_record(flight);
        }
    }

    /// Notes a frame of a capture.
    pub(super) fn note_unstamped(&mut self, way: usize) {
        self.received += 1;
        self.unstamped[way] += 1;
    }

    /// Notes ESP packets that did not authenticate.
    pub(super) fn note_forged(&mut self, packets: u64) {
        self.forged += packets;
    }

    /// Returns the number of frames received so far, each counted once.
    pub(super) fn received(&self) -> u64 {
        self.received
    }
}

/// Returns the direction of a stream: 0 forward, 1 back. Threads have one for either direction.
pub(super) fn way_of(stream: usize) -> usize {
    stream % 2
}

/// What one stream sent in a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) frames: u64,
    /// How long it sent.
    pub(super) time: Duration,
    /// Frames that were left out because the sender was held up.
    pub(super) skipped: u64,
}

/// The figures of one trial.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    /// Frames that the devices took.
    pub(super) sent: u64,
    /// The same, by direction.
    pub(super) sent_ways: [u64; 2],
    /// Frames that came back, each counted once.
    pub(super) received: u64,
    /// The same, by direction.
    pub(super) received_ways: [u64; 2],
    /// How often a frame came again.
    pub(super) duplicates: u64,
    /// ESP packets that did not authenticate.
    pub(super) forged: u64,
    /// Frames that were left out because the sender was held up.
    pub(super) skipped: u64,
    /// Frames per second that were really sent.
    pub(super) fps: f64,
    /// Nanoseconds from sending to receiving.
    pub(super) latency: Histogram<u64>,
}

impl Trial {
    /// Adds up what each stream sent, in their order, and what all threads received.
    pub(super) fn new(sent: &[Sent], tallies: Vec<Tally>) -> Self {
        let mut trial = Self {
            sent: sent.iter().map(|sent| sent.frames).sum(),
            sent_ways: [0; 2],
            received: 0,
            received_ways: [0; 2],
            duplicates: 0,
            forged: tallies.iter().map(|tally| tally.forged).sum(),
            skipped: sent.iter().map(|sent| sent.skipped).sum(),
            fps: sent.iter().map(rate).sum(),
            latency: latencies(),
        };
        let mut all: Vec<Arrivals> = sent.iter().map(|_| Arrivals::default()).collect();
        for tally in tallies {
            for (way, frames) in tally.unstamped.into_iter().enumerate() {
                trial.received_ways[way] += frames;
            }
            // Both have the same bounds.
            let _ = trial.latency.add(tally.latency);
            for (sum, arrivals) in all.iter_mut().zip(tally.streams) {
                sum.duplicates += arrivals.duplicates + sum.seen.merge(arrivals.seen);
            }
        }
        for (stream, (arrivals, sent)) in all.iter().zip(sent).enumerate() {
            trial.sent_ways[way_of(stream)] += sent.frames;
            // Only numbers that were used: any other one is not ours.
            trial.received_ways[way_of(stream)] += arrivals.seen.below(sent.frames);
            trial.duplicates += arrivals.duplicates;
        }
        trial.received = trial.received_ways.iter().sum();
        trial
    }

    /// Returns the number of frames that did not come back.
    pub(super) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// Returns whether frames were sent and no more than this fraction of them was lost.
    pub(super) fn passes(&self, tolerance: f64) -> bool {
        self.sent > 0 && self.lost() as f64 <= self.sent as f64 * tolerance
    }

    /// Returns whether a device took frames of each of these directions.
    pub(super) fn offers(&self, direction: Direction) -> bool {
        direction.ways().into_iter().zip(self.sent_ways).all(|(goes, sent)| !goes || sent > 0)
    }

    /// Returns whether frames of each of these directions came back.
    pub(super) fn answers(&self, direction: Direction) -> bool {
        direction.ways().into_iter().zip(self.received_ways).all(|(goes, received)| !goes || received > 0)
    }
}

/// Returns the frames that a stream sent in a second.
fn rate(sent: &Sent) -> f64 {
    sent.frames as f64 / sent.time.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(stream: u8, number: u64) -> Stamp {
        Stamp { stream, trial: 7, number, time: 1000 }
    }

    fn sent(frames: u64, seconds: u64) -> Sent {
        Sent { frames, time: Duration::from_secs(seconds), skipped: 3 }
    }

    #[test]
    fn frames_count_once_wherever_they_come_back() {
        let tally = || Tally::new(7, 4, 0, Duration::ZERO);
        let (mut first, mut second) = (tally(), tally());
        let far = 3 * PAGE + 5;
        for number in [0, 1, 63, 64, far] {
            first.note(&stamp(0, number), 0, 5000);
        }
        // Twice here, and once more in the other thread.
        first.note(&stamp(0, 64), 0, 5000);
        second.note(&stamp(0, 64), 0, 5000);
        second.note(&stamp(0, PAGE), 0, 5000);
        second.note(&stamp(3, 2), 1, 9000);
        // Never sent, on the wrong port, of another trial, of no stream.
        second.note(&stamp(0, far + 1), 0, 5000);
        second.note(&stamp(3, 1), 0, 5000);
        second.note(&Stamp { trial: 6, ..stamp(0, 2) }, 0, 5000);
        second.note(&stamp(4, 0), 0, 5000);
        second.note_forged(2);
        assert_eq!((first.received(), second.received()), (5, 4));
        let streams = [sent(far + 1, 2), sent(0, 1), sent(0, 1), sent(10, 1)];
        let trial = Trial::new(&streams, vec![first, second]);
        assert_eq!((trial.sent, trial.received, trial.duplicates), (far + 11, 7, 2));
        assert_eq!((trial.received_ways, trial.lost()), ([6, 1], far + 4));
        assert_eq!((trial.forged, trial.skipped), (2, 12));
        assert_eq!(trial.fps, (far + 1) as f64 / 2.0 + 10.0);
        assert!((7990..8010).contains(&trial.latency.max()), "{}", trial.latency.max());
        assert!(trial.answers(Direction::Both));
    }

    #[test]
    fn only_frames_of_the_settled_part_show_latencies() {
        let mut tally = Tally::new(7, 2, 500, Duration::from_nanos(1000));
        // The first was sent by a thread that began before this one.
        for (number, time) in [(4, 400), (0, 500), (1, 1499), (2, 1500), (3, 4000)] {
            tally.note(&Stamp { time, ..stamp(0, number) }, 0, 10_000);
        }
        let trial = Trial::new(&[sent(5, 1), sent(0, 1)], vec![tally]);
        assert_eq!((trial.received, trial.latency.len()), (5, 2));
        assert!(trial.passes(0.0) && !trial.answers(Direction::Both) && trial.answers(Direction::Forward));
    }

    #[test]
    fn frames_of_a_capture_are_only_counted() {
        let mut tally = Tally::new(1, 2, 0, Duration::ZERO);
        (0..12).for_each(|_| tally.note_unstamped(0));
        let trial = Trial::new(&[sent(10, 1), sent(0, 1)], vec![tally]);
        assert_eq!((trial.received, trial.lost(), trial.latency.len()), (12, 0, 0));
        let nothing = Trial::new(&[sent(0, 1)], vec![]);
        assert!(!nothing.passes(1.0));
    }
}
