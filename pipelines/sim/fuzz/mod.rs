//! What is fuzzed: every parser of bytes that others made. Each target takes any bytes and panics
//! if a promise is broken. The fuzzer runs them without end, and `tests/gateway/fuzz_corpus.rs`
//! over the corpus and mutations of it.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz wire` fuzzes one. What it finds becomes a file of
//! the corpus.

pub mod gateway;
pub mod ike_peer;
pub mod parsers;

use gateway::{gateway, gateway_host};
use ike_peer::ike_peer;
use parsers::{capture, config, control, ike_message, neighbours, open, wire};

/// A target: its name, which is that of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 10] = [
    ("wire", wire),
    ("neighbours", neighbours),
    ("capture", capture),
    ("config", config),
    ("control", control),
    ("open", open),
    ("gateway", gateway),
    ("gateway_host", gateway_host),
    ("ike_message", ike_message),
    ("ike_peer", ike_peer),
];

/// Runs the target of this name.
///
/// # Panics
/// If it breaks a promise, or there is none of the name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(data);
}
