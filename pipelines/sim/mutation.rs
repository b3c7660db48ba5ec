//! Mutations of valid input.

use super::random::Random;

/// Returns `seed` with some bytes changed, removed, truncated, inserted, or taken from `other`.
pub fn mutated(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=random.index(4) {
        let at = random.index(data.len());
        match random.index(6) {
            0 | 1 if !data.is_empty() => data[at] = random.byte(),
            2 if !data.is_empty() => data[at] ^= 1 << random.index(8),
            3 => drop(data.drain(at..data.len().min(at + 1 + random.index(8)))),
            4 => data.insert(at, random.byte()),
            _ if random.index(4) == 0 => data.truncate(at),
            _ => {
                let from = random.index(other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
        }
    }
    data
}
