//! The counter blocks of a packet, a few vectors at a time.

#![allow(unsafe_code, reason = "tables are read a vector at a time, by pointer")]

use super::vector::{Block, Vector};

/// The counter of the first block in [`BLOCKS`]. The slots before the first counter, 1, are not used.
const FIRST: i32 = -2;

/// The counter blocks with counters from [`FIRST`] to 255: those of most packets, at one
/// instruction a vector.
static BLOCKS: [Block; 258] = {
    let mut blocks = [[0; 16]; 258];
    let mut i = 0;
    while i < blocks.len() {
        blocks[i][15] = (i as u8).wrapping_add(FIRST as u8);
        i += 1;
    }
    blocks
};

/// Counters from 0 on, in the machine's byte order.
static LANES: [[u32; 4]; 4] = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 3]];

/// Shuffles the counter, which is added up in the machine's byte order, into that of the packet.
pub(super) static ORDER: Block = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 14, 13, 12];

/// The counter blocks that come next.
pub(super) struct Counters<V> {
    /// A counter block without the counter.
    start: V,
    counter: i32,
}

impl<V: Vector> Counters<V> {
    /// Returns the counter blocks from 1 on, after up to three that are not used.
    #[inline(always)]
    pub(super) fn new(start: V, unused: usize) -> Self {
        Self { start, counter: 1 - unused as i32 }
    }

    /// Returns the next `N` vectors.
    #[inline(always)]
    pub(super) fn next<const N: usize>(&mut self, isa: V::Isa) -> [V; N] {
        let first = self.counter;
        self.counter = first.wrapping_add((N * V::LANES) as i32);
        let mut vectors = [self.start; N];
        if first <= 256 - (N * V::LANES) as i32 {
            let table = BLOCKS.as_ptr().wrapping_add((first - FIRST) as usize).cast::<u8>();
            for (i, vector) in vectors.iter_mut().enumerate() {
                // SAFETY: the last block that is read has a counter of at most 255.
                *vector = vector.xor(unsafe { V::load(isa, table.wrapping_add(16 * V::LANES * i)) });
            }
        } else {
            // SAFETY: a vector has at most four blocks.
            let lanes = unsafe { V::load(isa, LANES.as_ptr().cast()) };
            for (i, vector) in vectors.iter_mut().enumerate() {
                let counter = u128::from(first.wrapping_add((i * V::LANES) as i32).cast_unsigned());
                let counters = lanes.add(V::splat(isa, &(counter << 96).to_le_bytes()));
                *vector = vector.xor(counters.shuffle(V::splat(isa, &ORDER)));
            }
        }
        vectors
    }
}
