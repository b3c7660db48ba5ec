//! Bounded rings of frames between threads: punt rings, inject rings, and the wires of memory
//! ports.
//!
//! Frames are copied into buffers that were allocated at the start and are reused. A full ring
//! refuses frames.
//!
//! A buffer always has one of four owners: the queue of empty ones, the thread that fills it, the
//! queue of full ones, the thread that reads it. The borrow checker proves that, and crossbeam is
//! responsible for its queues. There is no atomic of our own here to model.

use crossbeam::queue::ArrayQueue;

/// A ring of frames, each with a note of type `M`. Any number of threads may push and pop.
#[derive(Debug)]
pub struct FrameRing<M> {
    full: ArrayQueue<(M, Vec<u8>)>,
    empty: ArrayQueue<Vec<u8>>,
    largest: usize,
}

impl<M> FrameRing<M> {
    /// Returns a ring of `depth` frames, at least 1, of up to `largest` bytes.
    pub fn new(depth: usize, largest: usize) -> Self {
        let empty = ArrayQueue::new(depth.max(1));
        while empty.push(Vec::with_capacity(largest)).is_ok() {}
        Self { full: ArrayQueue::new(depth.max(1)), empty, largest }
    }

    /// Copies a frame into the ring. Returns `false` if the ring is full or the frame too large.
    #[inline]
    pub fn push(&self, note: M, bytes: &[u8]) -> bool {
        if bytes.len() > self.largest {
            return false;
        }
        let Some(mut frame) = self.empty.pop() else { return false };
        frame.clear();
        frame.extend_from_slice(bytes);
        self.full.push((note, frame)).is_ok()
    }

    /// Passes the oldest frame to `take`. Returns `None` if there is none.
    #[inline]
    pub fn pop<R>(&self, take: impl FnOnce(M, &[u8]) -> R) -> Option<R> {
        let (note, frame) = self.full.pop()?;
        let result = take(note, &frame);
        // There are as many buffers as slots, so there is always room for this one.
        let _ = self.empty.push(frame);
        Some(result)
    }

    /// Returns the length of the longest frame, in bytes.
    pub fn largest(&self) -> usize {
        self.largest
    }

    /// Returns the number of frames that wait.
    pub fn len(&self) -> usize {
        self.full.len()
    }

    /// Returns whether the ring is at least half full.
    pub fn is_half_full(&self) -> bool {
        self.full.len() * 2 >= self.full.capacity()
    }

    /// Returns whether no frame waits.
    pub fn is_empty(&self) -> bool {
        self.full.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        thread,
    };

    #[test]
    fn a_full_ring_and_a_large_frame_are_refused() {
        let ring = FrameRing::new(2, 4);
        assert!(!ring.push(0, b"large"));
        assert!(ring.push(1, b"a") && ring.is_half_full());
        assert!(ring.push(2, b"b") && !ring.push(3, b"c"));
        assert_eq!(ring.pop(|n, f| (n, f.to_vec())), Some((1, b"a".to_vec())));
        assert!(ring.push(4, b"dddd"));
        assert_eq!(ring.pop(|n, _| n), Some(2));
        assert_eq!(ring.pop(|n, f| (n, f.len())), Some((4, 4)));
        assert_eq!(ring.pop(|n, _| n), None);
    }

    /// Returns a frame whose bytes and length identify its sender and its number.
    fn frame(sender: usize, number: usize) -> Vec<u8> {
        vec![(sender * 101 + number * 7) as u8; 1 + (sender + number) % 64]
    }

    #[test]
    fn frames_cross_threads_whole_and_exactly_once() {
        const SENDERS: usize = 2;
        const FRAMES: usize = 100_000;
        const DEPTH: usize = 8;
        let ring = FrameRing::new(DEPTH, 64);
        let times = Mutex::new(vec![0u8; SENDERS * FRAMES]);
        let left = AtomicUsize::new(SENDERS * FRAMES);
        thread::scope(|s| {
            let (ring, times, left) = (&ring, &times, &left);
            for sender in 0..SENDERS {
                s.spawn(move || {
                    for number in 0..FRAMES {
                        while !ring.push((sender, number), &frame(sender, number)) {
                            thread::yield_now();
                        }
                    }
                });
            }
            for _ in 0..2 {
                s.spawn(move || {
                    let mut got = Vec::new();
                    while left.load(Relaxed) > 0 {
                        let popped = ring.pop(|(sender, number), bytes| {
                            assert_eq!(bytes, frame(sender, number), "frame {number} of {sender} is torn");
                            got.push((sender, number));
                        });
                        match popped {
                            Some(()) => _ = left.fetch_sub(1, Relaxed),
                            None => thread::yield_now(),
                        }
                    }
                    for sender in 0..SENDERS {
                        assert!(got.iter().filter(|note| note.0 == sender).is_sorted(), "out of order");
                    }
                    let mut times = times.lock().unwrap();
                    got.iter().for_each(|(sender, number)| times[sender * FRAMES + number] += 1);
                });
            }
        });
        assert!(times.into_inner().unwrap().iter().all(|&times| times == 1));
        // No buffer is missing either.
        assert!((0..DEPTH).all(|number| ring.push((0, number), b"again")) && !ring.push((0, 0), b"full"));
    }
}
