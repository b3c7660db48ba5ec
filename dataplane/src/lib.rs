//! The mechanism of Wayfarer's fast path. The `wayfarer` package decides what happens to a packet;
//! this crate has the tools for it.
//!
//! | module | what |
//! |---|---|
//! | [`packet`], [`pool`] | frames and bursts of them; the frames of one worker |
//! | [`port`] | where packets come from and go to |
//! | [`wire`] | header formats as pure functions over bytes |
//! | [`crypto`] | the algorithms of ESP, sealing and opening a burst at a time |
//! | [`window`] | the anti-replay window, shared by all workers |
//! | [`sa`] | security associations, paths, selectors, lifetimes |
//! | [`table`] | tables that workers read without locks while one writer changes them |
//! | [`sharing`] | counters of one worker or several |
//! | [`prefetch`], [`one_or_many`] | hints to the cache; lists that usually have one element |
//! | [`ring`] | bounded rings of frames between threads |
//! | [`mod@drop`] | the reasons why packets are dropped |
//! | [`clock`] | a clock for profiles |

#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]

pub mod clock;
pub mod drop;
pub mod one_or_many;
pub mod packet;
pub mod pool;
pub mod port;
pub mod prefetch;
pub mod ring;
#[cfg(not(loom))]
pub mod sa;
pub mod sharing;
mod sync;
pub mod table;
pub mod window;
pub mod wire;

// The models of the table and the window need no ciphers, whose build takes minutes.
#[cfg(not(loom))]
pub use wayfarer_crypto as crypto;

#[cfg(not(loom))]
const _: () = assert!(wire::esp::HEADER == crypto::HEADER);
