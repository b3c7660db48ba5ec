//! Half-open peers, and how strangers are answered: cookies, hints and refusals, for none of which
//! anything is kept.

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
    rate::Rate,
};
use alloc::{collections::BTreeMap, vec::Vec};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Answers in one second to messages of SPIs and versions that are not known.
const HINTS: u32 = 100;
/// First messages in one second that are refused before a cookie is asked for.
const REFUSALS: u32 = 256;

/// Whether a first message shows a cookie of ours.
pub(super) enum Cookie {
    Shown,
    /// None of ours: it is to show this one.
    Wanted(Vec<u8>),
}

/// Half-open peers, and the rates at which strangers are answered.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Half-open peers by where their first message came from, and its SPI.
    inits: BTreeMap<(SocketAddr, u64), PeerId>,
    init_of: BTreeMap<PeerId, (SocketAddr, u64)>,
    half_open: FairQueue<PeerId>,
    cookies: Cookies,
    /// Hints about unknown SPIs and versions.
    hints: Rate,
    /// First messages refused without a cookie.
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

    /// Forgets a peer that is half-open no more.
    pub(super) fn remove(&mut self, peer: PeerId) {
        self.half_open.remove(peer);
        if let Some(key) = self.init_of.remove(&peer) {
            self.inits.remove(&key);
        }
    }

    /// Returns the half-open peer that is to make room for another one.
    pub(super) fn most_crowded(&self) -> Option<PeerId> {
        self.half_open.most_crowded()
    }

    /// Returns whether who begins must first show a cookie (RFC 7296 §2.6). Who is refused leaves
    /// nothing behind: many of them must show where they are, as many who begin.
    pub(super) fn wants_cookie(&self, now: Duration, settings: &Settings) -> bool {
        self.half_open.len() >= settings.cookie_threshold
            || self.refusals.is_empty(now, REFUSALS, Duration::from_secs(1) / REFUSALS)
    }

    /// Returns whether a first message from `from` shows a cookie of ours.
    pub(super) fn check_cookie(
        &mut self,
        now: Duration,
        crypto: &dyn Crypto,
        random: &dyn Random,
        from: IpAddr,
        header: &Header,
        request: &InitMessage,
    ) -> Cookie {
        let InitMessage { nonce, cookie, .. } = request;
        let initiator = CookieInput { nonce, from, spi: header.spi_i };
        if cookie.as_ref().is_some_and(|shown| self.cookies.is_ours(now, crypto, random, shown, initiator)) {
            return Cookie::Shown;
        }
        Cookie::Wanted(self.cookies.make(now, crypto, random, initiator))
    }

    /// Notes that a first message is refused.
    pub(super) fn note_refusal(&mut self, now: Duration) {
        self.refusals.admits(now, REFUSALS, Duration::from_secs(1) / REFUSALS);
    }

    /// Returns whether one more message of an unknown SPI or version may be answered.
    pub(super) fn admits_hint(&mut self, now: Duration) -> bool {
        self.hints.admits(now, HINTS, Duration::from_secs(1) / HINTS)
    }
}

/// Returns an answer in clear to the message with this header. Nothing is kept of what it answers.
pub(super) fn refusal(header: &Header, notify: &Notify<'_>) -> Vec<u8> {
    let from_initiator = header.flags & flags::INITIATOR;
    let flags = flags::RESPONSE | (from_initiator ^ flags::INITIATOR);
    let header = Header { next: 0, version: wire::VERSION, flags, length: 0, ..*header };
    wire::emit_message(header, &[Payload::Notify(*notify)])
}
