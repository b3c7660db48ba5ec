//! Wayfarer: a mobile security gateway on poll-mode workers.
//!
//! | module | what |
//! |---|---|
//! | [`gateway`] | the way of a packet: workers and their stages |
//! | [`slow_path`] | the one thread that changes what workers read |
//! | [`run`] | a gateway on real devices and files; `open` opens them |
//! | [`start`] | puts a gateway together and sets it going |
//! | `device_lock` | one gateway a device |
//! | [`barrier`] | what the host's kernel must not forward, whether the gateway runs or not |
//! | [`config`] | what a gateway is told to do |
//! | [`demo`] | the whole gateway in one process, with a simulated fleet |
//! | [`mod@bench`] | how fast all that is |
//! | [`keys`] | the cryptography of IKE: ciphers, key exchanges, certificates |
//! | [`control`] | how people and programs talk to a running gateway |

#![forbid(unsafe_code)]

pub mod barrier;
pub mod bench;
pub mod config;
pub mod control;
pub mod demo;
mod device_lock;
mod folder;
pub mod gateway;
pub mod keys;
mod open;
pub mod run;
mod secrets;
pub mod slow_path;
pub mod start;
