//! Wayfarer: a mobile security gateway on poll-mode workers.
//!
//! | module | what |
//! |---|---|
//! | [`gateway`] | the way of a packet: workers and their stages |
//! | [`config`] | what a gateway is told to do |

#![forbid(unsafe_code)]

pub mod config;
pub mod gateway;
