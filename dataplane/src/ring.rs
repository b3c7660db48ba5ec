//! Bounded rings of frames between threads: punt, inject, and the wires of memory ports.
//!
//! Frames cross by value, in buffers that were allocated at the start and go round: a full ring refuses.

use crossbeam::queue::ArrayQueue;

/// A ring of frames, each with a note of type `M`. Any number of threads may push and pop.
#[derive(Debug)]
pub struct FrameRing<M> {
    full: ArrayQueue<(M, Vec<u8>)>,
    empty: ArrayQueue<Vec<u8>>,
    largest: usize,
}

impl<M> FrameRing<M> {
    /// A ring of `depth` frames, at least 1, of up to `largest` bytes.
    pub fn new(depth: usize, largest: usize) -> Self {
        let empty = ArrayQueue::new(depth.max(1));
        while empty.push(Vec::with_capacity(largest)).is_ok() {}
        Self { full: ArrayQueue::new(depth.max(1)), empty, largest }
    }

    /// Copies a frame into the ring; `false` where the ring is full or the frame too large.
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

    /// Hands the oldest frame to `take`; `None` where there is none.
    #[inline]
    pub fn pop<R>(&self, take: impl FnOnce(M, &[u8]) -> R) -> Option<R> {
        let (note, frame) = self.full.pop()?;
        let result = take(note, &frame);
        // As many buffers as places: there is always room for this one.
        let _ = self.empty.push(frame);
        Some(result)
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.full.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.full.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_and_a_large_frame_are_refused() {
        let ring = FrameRing::new(2, 4);
        assert!(!ring.push(0, b"large"));
        assert!(ring.push(1, b"a") && ring.push(2, b"b") && !ring.push(3, b"c"));
        assert_eq!(ring.pop(|n, f| (n, f.to_vec())), Some((1, b"a".to_vec())));
        assert!(ring.push(4, b"dddd"));
        assert_eq!(ring.pop(|n, _| n), Some(2));
        assert_eq!(ring.pop(|n, f| (n, f.len())), Some((4, 4)));
        assert_eq!(ring.pop(|n, _| n), None);
    }
}
