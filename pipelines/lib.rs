//! Wayfarer: a mobile security gateway on poll-mode workers.
//!
//! | module | contents |
//! |---|---|
//! | [`gateway`] | the fast path: workers and the stages that a packet passes |
//! | [`slow_path`] | the one thread that changes what workers read |
//! | [`launch`] | opens a gateway's devices and files, puts it together and starts it |
//! | [`clock`] | the clock by which everything ends that ends by time |
//! | `device_lock` | keeps a second gateway off a device |
//! | [`barrier`] | keeps the host's kernel from forwarding past the gateway's policy |
//! | `rtnetlink` | asks the kernel for its devices, addresses and routes |
//! | [`config`] | the configuration of a gateway |
//! | [`demo`] | a whole gateway in one process, with a simulated fleet |
//! | [`mod@bench`] | performance measurements |
//! | [`primitives`] | the cryptography of IKE: ciphers, hashes, key exchanges |
//! | [`credentials`] | certificates and their files, EAP-TLS, RADIUS |
//! | [`control`] | the control socket of a running gateway |
//! | [`pki`] | makes certificates of gateways and users |
//! | [`log`] | the log's lines, as text or as JSON |
//! | [`profile`] | profiles for clients, from a gateway's configuration |

#![forbid(unsafe_code)]

pub mod barrier;
#[cfg(feature = "bench")]
pub mod bench;
pub mod clock;
pub mod config;
pub mod control;
pub mod credentials;
#[cfg(feature = "bench")]
pub mod demo;
mod device_lock;
mod folder;
pub mod gateway;
pub mod launch;
pub mod log;
#[cfg(test)]
mod namespace;
pub mod pki;
pub mod primitives;
pub mod profile;
mod rtnetlink;
mod secrets;
#[cfg(feature = "bench")]
pub mod sim;
pub mod slow_path;
