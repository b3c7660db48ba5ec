//! AES-GCM (NIST SP 800-38D) on bursts of unrelated packets.
//!
//! | module | what |
//! |---|---|
//! | [`isa`] | which instructions the processor has |
//! | [`vector`] | one, two or four blocks, and what is done with them |
//! | [`ghash`] | multiplication in GHASH's field |
//! | [`key`] | a key as the kernels load it |
//! | [`lanes`] | kernel for short packets: one packet a lane |
//! | [`long`] | kernel for long packets: one packet in all lanes |
//! | [`burst`] | which packets go to which kernel, together |
//!
//! Nothing here depends on a secret but the values computed: neither branches nor addresses do. Nonces are of 96 bits
//! and tags of 128; the text may be up to 64 KiB.

mod burst;
mod ghash;
mod isa;
mod key;
mod lanes;
mod long;
mod packet;
mod vector;

pub(crate) use burst::Burst;
pub(crate) use isa::{AesNi, Vaes256, Vaes512};
pub(crate) use packet::{Isa, Key, Packet};
