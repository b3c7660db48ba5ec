//! Every fuzz target over its corpus and over mutations of it that are the same in every run.

#[allow(unreachable_pub, reason = "public where it is a library")]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::{fs, path::Path};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % end.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        [0, 1, 0x7f, 0x80, 0xff, self.below(256) as u8][self.below(6)]
    }
}

/// `seed` with some bytes changed, cut out, cut off, put in, or taken from `other`.
fn mutated(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len());
        match random.below(6) {
            0 | 1 if !data.is_empty() => data[at] = random.byte(),
            2 if !data.is_empty() => data[at] ^= 1 << random.below(8),
            3 => drop(data.drain(at..data.len().min(at + 1 + random.below(8)))),
            4 => data.insert(at, random.byte()),
            _ if random.below(4) == 0 => data.truncate(at),
            _ => {
                let from = random.below(other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
        }
    }
    data
}

/// Runs `target` over its corpus, and over so many `mutations` of its files.
fn replay(name: &str, mutations: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus for {name}");
    let seeds: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let (_, target) = fuzz::TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    seeds.iter().for_each(|seed| target(seed));
    let mut random = Random(1);
    for seed in seeds.iter().cycle().take(mutations) {
        let other = random.below(seeds.len());
        target(&mutated(seed, &seeds[other], &mut random));
    }
}

#[test]
fn wire() {
    replay("wire", 95_000);
}

#[test]
fn neighbours() {
    replay("neighbours", 30_000);
}

#[test]
fn capture() {
    replay("capture", 24_000);
}

#[test]
fn config() {
    replay("config", 12_000);
}

#[test]
fn control() {
    replay("control", 55_000);
}

#[test]
fn open() {
    replay("open", 20_000);
}

#[test]
fn gateway() {
    replay("gateway", 2_500);
}

#[test]
fn gateway_host() {
    replay("gateway_host", 1_200);
}

#[test]
fn ike_message() {
    replay("ike_message", 50_000);
}

#[test]
fn ike_peer() {
    replay("ike_peer", 1_000);
}
