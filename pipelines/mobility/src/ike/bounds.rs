//! What one peer, however well authenticated, can have us keep. What it asks for beyond is refused
//! and counted. Lists within one message have bounds of their own in `wire`;
//! [`Settings`](super::settings::Settings) has the bounds for all peers together.

use core::time::Duration;

/// Child SAs of a peer. While keys are changed, there may be twice as many.
pub const CHILDREN: usize = 64;
/// Prefixes that the addresses of one traffic selector may need: as many as any range of IPv4
/// addresses does. A range of IPv6 addresses could need four times as many, of as many lengths,
/// each of which costs every look-up a probe.
pub const PREFIXES: usize = 62;
/// Pairs of prefixes that a child SA's selectors come to in the data plane.
pub const CHILD_RULES: usize = 256;
/// Those of all child SAs of a peer. While keys are changed, there may be twice as many.
pub const RULES: usize = 512;
/// IKE SAs of a peer: the one in use, and those that it replaced or that are to replace it.
pub const IKE_SAS: usize = 4;
/// Bytes of a message's plaintext, in one piece or in fragments.
pub const MESSAGE: usize = 16_384;
/// Addresses that are remembered for who had them, in each pool.
pub const REMEMBERED: usize = 1 << 16;
/// Of all peers, the share that those of a connection may be whom EAP did not name: one in so many.
/// They may all be the same one.
pub const NAMELESS: usize = 8;

/// Repetitions of a request that are answered at once, and after how long one more is: what a peer
/// in bad weather needs.
pub(super) const REPEATS: u32 = 8;
pub(super) const REPEAT: Duration = Duration::from_millis(250);

/// As those, for all requests of a stranger from where it has not shown that it is: enough for a
/// peer whose NAT has several addresses.
pub(super) const STRAYS: u32 = 2;
pub(super) const STRAY: Duration = Duration::from_secs(1);

/// Child and IKE SAs that a peer, and all of one name together, have made or their keys changed at
/// once, and after how long one more: what a gateway with many child SAs needs. Each costs the one
/// who keeps the tables.
pub(super) const CREATES: u32 = 256;
pub(super) const CREATE: Duration = Duration::from_millis(250);
