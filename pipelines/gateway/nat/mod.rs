//! NAT44 for inner hosts that leave in clear (RFC 3022 §2.2): endpoint-independent mapping and
//! filtering (RFC 4787 §4.1, §5).
//!
//! ```text
//! from inside ─► forward ─► outward ─┬─► port
//!                              ▲     └─► no mapping: punt ring ─► slow path, which makes one
//!                              └─────────────────── inject ring ◄────┘
//! to the NAT's address ─► classify ─► inward ─► policy ─► tunnel or port
//! out of a tunnel, to the NAT's address ─► inward (hairpin) ─► policy
//! ```
//!
//! Workers only look mappings up. Fragments wait until their packet is complete, since only the first
//! one shows the ports. Then they are translated one by one, and leave as they came.

pub mod inward;
pub mod mapping;
pub mod outward;
pub mod restore;
pub mod source;
pub mod table;
