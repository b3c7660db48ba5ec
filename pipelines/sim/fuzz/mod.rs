//! Fuzz targets: every parser of untrusted bytes. Each target takes any bytes, and panics if an
//! invariant is broken. `tests/gateway/fuzz_corpus.rs` runs all of them over the corpus and
//! mutations of it.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz wire` fuzzes one target until it fails. A
//! crashing input becomes a file of the corpus.

pub mod gateway;
pub mod ike_peer;
pub mod mip;
mod mobile;
pub mod parsers;
pub mod siu;

use gateway::{gateway, gateway_host};
use ike_peer::ike_peer;
use mip::mip;
use parsers::{capture, config, control, ike_message, neighbours, open, wire};
use siu::siu;

/// A target: its name, which is also that of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 12] = [
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
    ("mip", mip),
    ("siu", siu),
];

/// Runs the target of this name.
///
/// # Panics
/// If the target fails, or does not exist.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("the target exists");
    target(data);
}
