//! Bounded rings of frames between threads: punt, inject, and the wires of memory ports.
//!
//! Frames cross by value, in buffers that were allocated at the start and go round: a full ring
//! refuses.
//!
//! A buffer is owned by one of four at any time: the queue of empty ones, who fills it, the queue
//! of full ones, who reads it. The borrow checker proves that, and crossbeam answers for its
//! queues; there is no atomic of our own here for a model to follow.

use crossbeam::queue::ArrayQueue;

/// A ring of frames, each with a note of type `M`. Any number of threads may push and pop.
#[derive(Debug)]
pub struct FrameRing<M> {
    full: ArrayQueue<(M, Vec<u8>)>,
    empty: ArrayQueue<Vec<u8>>,
    largest: usize,
}

impl<M> FrameRing<M> {
    /// Makes a ring of `depth` frames, at least 1, of up to `largest` bytes.
    pub fn new(depth: usize, largest: usize) -> Self {
        let empty = ArrayQueue::new(depth.max(1));
        while empty.push(Vec::with_capacity(largest)).is_ok() {}
        Self { full: ArrayQueue::new(depth.max(1)), empty, largest }
    }

    /// Copies a frame into the ring; `false` if the ring is full or the frame too large.
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

    /// Hands the oldest frame to `take`; `None` if there is none.
    #[inline]
    pub fn pop<R>(&self, take: impl FnOnce(M, &[u8]) -> R) -> Option<R> {
        let (note, frame) = self.full.pop()?;
        let result = take(note, &frame);
        // As many buffers as places: there is always room for this one.
        let _ = self.empty.push(frame);
        Some(result)
    }

    /// Returns how many frames wait.
    pub fn len(&self) -> usize {
        self.full.len()
    }

    /// Returns whether at least half of it is full.
    pub fn is_half_full(&self) -> bool {
        self.full.len() * 2 >= self.full.capacity()
    }

    /// Returns whether none waits.
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

    /// A frame whose bytes and length tell whose it is and which.
    fn frame(sender: usize, number: usize) -> Vec<u8> {
        vec![(sender * 101 + number * 7) as u8; 1 + (sender + number) % 64]
    }

    #[test]
    fn frames_between_threads_are_neither_lost_nor_doubled_nor_torn() {
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
        // No buffer went missing either.
        assert!((0..DEPTH).all(|number| ring.push((0, number), b"again")) && !ring.push((0, 0), b"full"));
    }
}
