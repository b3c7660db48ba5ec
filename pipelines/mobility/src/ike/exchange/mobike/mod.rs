//! MOBIKE: address changes (RFC 4555), within INFORMATIONAL.
//!
//! | module | contents |
//! |---|---|
//! | `addresses` | addresses that both sides announce, and our answers |
//! | `update` | our own updates of addresses |
//! | `mapping` | how the peer sees us through the NAT in front of us |
//! | `routability` | checks that a peer is at its new address |

pub(in crate::ike) mod addresses;
mod mapping;
mod routability;
mod update;
