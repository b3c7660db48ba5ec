//! MOBIKE: addresses that change (RFC 4555), within INFORMATIONAL.
//!
//! | module | what |
//! |---|---|
//! | `addresses` | what both sides say of their addresses, and what we answer |
//! | `update` | our own updates of addresses |
//! | `routability` | whether a peer is where it is said to be |

pub(in crate::ike) mod addresses;
mod routability;
mod update;
