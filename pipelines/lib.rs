//! Wayfarer: a mobile security gateway on poll-mode workers.
//!
//! | module | what |
//! |---|---|
//! | [`gateway`] | the way of a packet: workers and their stages |
//! | [`slow_path`] | the one thread that changes what workers read |
//! | [`launch`] | opens the devices and files of a gateway, puts it together and sets it going |
//! | `device_lock` | one gateway a device |
//! | [`barrier`] | what the host's kernel must not forward, whether the gateway runs or not |
//! | [`config`] | what a gateway is told to do |
//! | [`demo`] | the whole gateway in one process, with a simulated fleet |
//! | [`mod@bench`] | how fast all that is |
//! | [`primitives`] | the cryptography of IKE: ciphers, hashes, key exchanges |
//! | [`credentials`] | certificates and their files, EAP-TLS, RADIUS |
//! | [`control`] | how people and programs talk to a running gateway |

#![forbid(unsafe_code)]

pub mod barrier;
#[cfg(feature = "bench")]
pub mod bench;
pub mod config;
pub mod control;
pub mod credentials;
#[cfg(feature = "bench")]
pub mod demo;
mod device_lock;
mod folder;
pub mod gateway;
pub mod launch;
#[cfg(test)]
mod namespace;
pub mod primitives;
mod secrets;
pub mod slow_path;
