//! The program `wayfarer`.

#![forbid(unsafe_code)]

fn main() {}
