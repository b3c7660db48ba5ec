//! Mechanism of Wayfarer's fast path. What happens to a packet is decided in the `wayfarer`
//! package; here is what it is done with.
//!
//! | module | what |
//! |---|---|
//! | [`packet`], [`pool`] | frames and bursts of them; a worker's own arena |
//! | [`port`] | where packets come from and go to |
//! | [`wire`] | header formats as pure functions over bytes |
//! | [`crypto`] | ESP's algorithms, sealed and opened a burst at a time |
//! | [`window`] | the anti-replay window, shared by all workers |
//! | [`sa`] | security associations, paths, selectors, lifetimes |
//! | [`table`] | what workers read without locks while one writer changes it |
//! | [`sharing`] | counters of one worker or several |
//! | [`prefetch`], [`few`] | hints to the cache; lists that fit beside what has them |
//! | [`ring`] | bounded rings of frames between threads |
//! | [`mod@drop`] | why packets are dropped |
//! | [`clock`] | how long things take |

#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]

pub mod clock;
pub mod crypto;
pub mod drop;
pub mod few;
pub mod packet;
pub mod pool;
pub mod port;
pub mod prefetch;
pub mod ring;
pub mod sa;
pub mod sharing;
mod sync;
pub mod table;
pub mod window;
pub mod wire;
