//! Half-open peers, and the answers to unknown senders: cookies, error notifies and refusals, all
//! of them without state.

use super::{
    cookie::{CookieInput, Cookies},
    event::PeerId,
    exchange::init::message::InitMessage,
    settings::Settings,
    wire::{self, Header, Notify, Payload, flags},
};
use crate::{
    crypto::{Crypto, Random},
    fair_queue::FairQueue,
    rate::{NetworkRates, Rate},
};
use alloc::{collections::BTreeMap, vec::Vec};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Answers in one second to messages with unknown SPIs or versions.
const HINTS: u32 = 100;
/// Answers with crash tokens in one second. Each costs one HMAC.
const TOKENS: u32 = 4096;
/// Those of them to one network, which may be a carrier's NAT with all peers.
const NETWORK_TOKENS: u32 = TOKENS / 8;
/// First messages refused in one second before cookies are required.
const REFUSALS: u32 = 256;

/// The result of checking the cookie in a first message.
pub(super) enum CookieCheck {
    Valid,
    /// The cookie is missing or not ours. The peer must return this one.
    Required(Vec<u8>),
}

/// Half-open peers, and the rates at which unknown senders are answered.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Half-open peers by the source and SPI of their first message.
    inits: BTreeMap<(SocketAddr, u64), PeerId>,
    init_of: BTreeMap<PeerId, (SocketAddr, u64)>,
    half_open: FairQueue<PeerId>,
    cookies: Cookies,
    /// Answers to unknown SPIs and versions.
    hints: Rate,
    /// Answers with crash tokens.
    tokens: Rate,
    network_tokens: NetworkRates,
    /// First messages that were refused without a cookie.
    refusals: Rate,
}

impl Admission {
    /// Returns the number of half-open peers.
    pub(super) fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// Returns the half-open peer whose first message came from `remote` with this SPI.
    pub(super) fn find(&self, remote: SocketAddr, spi: u64) -> Option<PeerId> {
        self.inits.get(&(remote, spi)).copied()
    }

    /// Adds a half-open peer, whose first message came from `remote` with this SPI.
    pub(super) fn insert(&mut self, peer: PeerId, remote: SocketAddr, spi: u64) {
        self.inits.insert((remote, spi), peer);
        self.init_of.insert(peer, (remote, spi));
        self.half_open.insert(peer, remote.ip());
    }

    /// Removes a peer that is no longer half-open.
    pub(super) fn remove(&mut self, peer: PeerId) {
        self.half_open.remove(peer);
        if let Some(key) = self.init_of.remove(&peer) {
            self.inits.remove(&key);
        }
    }

    /// Returns the half-open peer that has to make room for another one.
    pub(super) fn most_crowded(&self) -> Option<PeerId> {
        self.half_open.most_crowded()
    }

    /// Returns true if a first message must have a cookie (RFC 7296 §2.6). Refusals count too,
    /// although they keep no state: with many of them, senders must prove their address just as
    /// with many half-open peers.
    pub(super) fn wants_cookie(&self, now: Duration, settings: &Settings) -> bool {
        self.half_open.len() >= settings.cookie_threshold
            || self.refusals.is_empty(now, REFUSALS, Duration::from_secs(1) / REFUSALS)
    }

    /// Checks the cookie in a first message from `from`.
    pub(super) fn check_cookie(
        &mut self,
        now: Duration,
        crypto: &dyn Crypto,
        random: &dyn Random,
        from: IpAddr,
        header: &Header,
        request: &InitMessage,
    ) -> CookieCheck {
        let InitMessage { nonce, cookie, .. } = request;
        let initiator = CookieInput { nonce, from, spi: header.spi_i };
        let cookies = &mut self.cookies;
        if cookie.as_ref().is_some_and(|c| cookies.is_valid(now, crypto, random, c, initiator)) {
            return CookieCheck::Valid;
        }
        CookieCheck::Required(cookies.make(now, crypto, random, initiator))
    }

    /// Counts a refused first message.
    pub(super) fn note_refusal(&mut self, now: Duration) {
        self.refusals.admits(now, REFUSALS, Duration::from_secs(1) / REFUSALS);
    }

    /// Returns true if one more message with an unknown SPI or version may be answered.
    pub(super) fn admits_hint(&mut self, now: Duration) -> bool {
        self.hints.admits(now, HINTS, Duration::from_secs(1) / HINTS)
    }

    /// Returns true if one more message may be answered with a crash token. After a crash all peers
    /// ask at once, and a flood from one network must not keep the others from their answers.
    pub(super) fn admits_token(&mut self, now: Duration, from: IpAddr) -> bool {
        let refill = |rate| Duration::from_secs(1) / rate;
        // At once, as many may go out as in a quarter of a second.
        self.network_tokens.admits(now, from, NETWORK_TOKENS / 4, refill(NETWORK_TOKENS))
            && self.tokens.admits(now, TOKENS / 4, refill(TOKENS))
    }
}

/// Returns an unencrypted response to the message with this header.
pub(super) fn refusal<'a>(header: &Header, notifies: impl IntoIterator<Item = Notify<'a>>) -> Vec<u8> {
    let from_initiator = header.flags & flags::INITIATOR;
    let flags = flags::RESPONSE | (from_initiator ^ flags::INITIATOR);
    let header = Header { next: 0, version: wire::VERSION, flags, length: 0, ..*header };
    let payloads: Vec<_> = notifies.into_iter().map(Payload::Notify).collect();
    wire::emit_message(header, &payloads)
}
