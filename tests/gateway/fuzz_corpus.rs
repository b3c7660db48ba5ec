//! Every fuzz target over its corpus, and over mutations of it that are the same in every run.

use std::{fs, path::Path};
use wayfarer::sim::{fuzz, mutation::mutated, random::Random};

/// Runs the target `name` over its corpus, and over `mutations` mutations of it.
fn replay(name: &str, mutations: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus for {name}");
    let seeds: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    seeds.iter().for_each(|seed| fuzz::run(name, seed));
    let mut random = Random(1);
    for seed in seeds.iter().cycle().take(mutations) {
        let other = random.index(seeds.len());
        fuzz::run(name, &mutated(seed, &seeds[other], &mut random));
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
fn mip() {
    replay("mip", 40_000);
}

#[test]
fn siu() {
    replay("siu", 60_000);
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
