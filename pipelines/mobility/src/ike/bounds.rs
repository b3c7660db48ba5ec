//! Limits of what one peer, however well authenticated, can make us keep. Requests beyond them are
//! refused and counted. `wire` has limits for lists within one message;
//! [`Settings`](super::settings::Settings) has the limits for all peers together.

use core::time::Duration;

/// Child SAs of a peer. There may be twice as many while they are rekeyed.
pub const CHILDREN: usize = 64;
/// Prefixes that cover the addresses of one traffic selector: as many as any range of IPv4
/// addresses needs. A range of IPv6 addresses could need four times as many, with as many lengths,
/// each of which adds a probe to every look-up.
pub const PREFIXES: usize = 62;
/// Pairs of prefixes that cover a child SA's selectors in the data plane.
pub const CHILD_RULES: usize = 256;
/// Pairs of prefixes of all child SAs of a peer. There may be twice as many during rekeying.
pub const RULES: usize = 512;
/// IKE SAs of a peer: the one in use, and those that it replaced or that will replace it.
pub const IKE_SAS: usize = 4;
/// Bytes of a message's plaintext, whether it is fragmented or not.
pub const MESSAGE: usize = 16_384;
/// Addresses in each pool whose former owners are remembered.
pub const REMEMBERED: usize = 1 << 16;
/// The share of all peers that peers without a name may be in one connection: one in so many. They
/// may all be the same one.
pub const NAMELESS_SHARE: usize = 8;

/// Time that a peer may take from one key exchange to the next, of several that create one SA (RFC
/// 9370 §2.2.4). Only one such SA per peer is kept.
pub const FOLLOWUP_WAIT: Duration = Duration::from_secs(20);

/// Time for which a peer that another one replaces is kept if it does not end before, so that its
/// device can move its traffic (RFC 7296 §2.8.3).
pub const REPLACED_WAIT: Duration = Duration::from_secs(30);

/// Repeated requests that are answered at once, and the time until one more is: what a peer on a
/// lossy path needs.
pub(super) const REPEAT_BURST: u32 = 8;
pub(super) const REPEAT_REFILL: Duration = Duration::from_millis(250);

/// The same for all requests of an unauthenticated peer from an address that it has not proved:
/// enough for a peer behind a NAT with several addresses.
pub(super) const STRAY_BURST: u32 = 2;
pub(super) const STRAY_REFILL: Duration = Duration::from_secs(1);

/// Requests for SAs and new keys that a peer, or all peers of one principal together, may make at
/// once, and the time until one more: what a gateway with many child SAs needs. Each request
/// occupies the thread that maintains the tables.
pub(super) const CREATE_BURST: u32 = 256;
pub(super) const CREATE_REFILL: Duration = Duration::from_millis(250);
