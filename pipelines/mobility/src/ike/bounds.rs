//! Limits of what one peer, however well authenticated, can make us keep. Requests beyond them are
//! refused and counted. `wire` has limits for lists within one message;
//! [`Settings`](super::settings::Settings) has the limits for all peers together.

use crate::crypto::Kex;
use core::time::Duration;

/// Child SAs of a peer. There may be twice as many while they are rekeyed.
pub const CHILDREN: usize = 64;
/// Selectors of one side of a child SA: what a payload can carry (RFC 7296 §3.13).
pub const SELECTORS: usize = u8::MAX as usize;
/// Prefixes that cover the addresses of one traffic selector: as many as any range of IPv4
/// addresses needs. A range of IPv6 addresses could need four times as many, with as many lengths,
/// each of which adds a probe to every look-up.
pub const PREFIXES: usize = 62;
/// Pairs of prefixes that cover a child SA's selectors in the data plane. A selector that is in no pair
/// counts as one.
pub const CHILD_RULES: usize = 256;
/// The same of all child SAs of a peer. There may be twice as many during rekeying.
pub const RULES: usize = 512;
/// Different lists of algorithms that are compared for a first message.
pub const LISTS: usize = 16;
/// IKE SAs of a peer: the one in use, and those that it replaced or that will replace it.
pub const IKE_SAS: usize = 4;
/// Bytes of a message's plaintext, whether it is fragmented or not.
pub const MESSAGE: usize = 16_384;
/// Bytes of the response to IKE_SA_INIT, which cannot be fragmented (RFC 7383 §1): what fits into the
/// smallest IPv6 packet that every path carries, behind the headers of IPv6 and UDP and the non-ESP
/// marker.
pub(super) const INIT_RESPONSE: usize = 1280 - 40 - 8 - 4;
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
/// Number of times that a request is sent again to a peer that the other side has replaced: some eight
/// seconds.
pub const REPLACED_TRIES: u32 = 4;

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

/// Returns how many authorities the response to IKE_SA_INIT has room for in any case, with this key
/// exchange. It names the first ones of the first connections.
pub fn authorities(kex: Kex) -> usize {
    let key = match kex {
        Kex::X25519 => 32,
        Kex::Ecp256 => 64,
        Kex::Ecp384 => 96,
        Kex::Ecp521 => 132,
        Kex::Modp2048 => 256,
        Kex::Modp3072 => 384,
        Kex::Modp4096 => 512,
        // No key exchange of IKE_SA_INIT.
        Kex::MlKem768 | Kex::MlKem1024 => 1568,
    };
    INIT_RESPONSE.saturating_sub(OTHER_PAYLOADS + key) / 20
}

/// Most bytes of the header and all payloads of a response to IKE_SA_INIT, without the key and the
/// authorities.
const OTHER_PAYLOADS: usize = 300;
