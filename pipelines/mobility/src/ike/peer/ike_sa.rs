//! An IKE SA: its keys, and its window of one request in each direction (RFC 7296 §2.1 to §2.3).

use super::request::Request;
use crate::{
    crypto::Crypto,
    ike::{
        bounds,
        context::Context,
        crash::CrashToken,
        protection::{Fragments, OpenError, Plaintext, Protection},
        schedule::IkeSaKeys,
        suite::IkeSuite,
        wire::{self, ExchangeType, Header, Malformed, Payload, flags},
    },
    path::Addresses,
    rate::Rate,
};
use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

/// An IKE SA.
#[derive(Debug)]
pub(in crate::ike) struct IkeSa {
    /// True if we began it.
    pub(in crate::ike) is_initiator: bool,
    /// True if a rekey made it.
    pub(in crate::ike) is_rekeyed: bool,
    pub(in crate::ike) spi_i: u64,
    pub(in crate::ike) spi_r: u64,
    pub(in crate::ike) suite: IkeSuite,
    pub(in crate::ike) keys: IkeSaKeys,
    /// The keys that protected the peer's last request, if they have changed since (RFC 9370
    /// §2.2.2).
    keys_before: Option<IkeSaKeys>,
    counter: u64,
    requests: Fragments,
    responses: Fragments,
    /// The message ID of the peer's next request.
    pub(in crate::ike) expected: u32,
    /// True while the response to the peer's request waits for a task.
    is_busy: bool,
    /// Our last response.
    last_response: Vec<Vec<u8>>,
    /// Repeated requests that are answered: from the peer's address, and from others.
    repeats: [Rate; 2],
    /// The message ID of our next request.
    pub(in crate::ike) next: u32,
    /// Our request that the peer has not answered.
    pub(in crate::ike) outstanding: Option<Box<Outstanding>>,
    /// The token by which the peer can prove that it has lost this IKE SA (RFC 6290).
    pub(in crate::ike) crash_token: Option<Box<CrashToken>>,
    /// Largest IP packet of a message in bytes, if the peer supports fragmentation.
    pub(in crate::ike) limit: Option<usize>,
    /// The largest IP packet that the path takes, in bytes, if that is known and less than the port's.
    pub(in crate::ike) path_mtu: Option<u16>,
    life: IkeSaLife,
}

/// The life of an IKE SA. Each transition consumes a state and returns the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum IkeSaLife {
    /// New requests may use it.
    InUse,
    /// We delete it as soon as its outstanding request is answered, because the window is one
    /// request (RFC 7296 §2.3).
    DeleteNext,
    /// We asked the peer to delete it.
    Deleting,
    /// It is replaced, and the peer should delete it. It makes nothing new (RFC 7296 §2.8), and is
    /// removed at this time.
    Replaced { until: Duration },
    /// The peer deleted it, or does not answer. Only the peer's last request is answered again, until
    /// this time.
    Ended { until: Duration },
}

impl IkeSaLife {
    /// Puts another IKE SA in its place, which either side created.
    pub(in crate::ike) fn replace(self, until: Duration) -> Self {
        match self {
            Self::Replaced { .. } | Self::Ended { .. } => self,
            Self::InUse | Self::DeleteNext | Self::Deleting => Self::Replaced { until },
        }
    }

    /// Ends it for the peer, which has deleted it. If we wait to delete it too, we still do.
    pub(in crate::ike) fn end(self, until: Duration) -> Self {
        match self {
            Self::DeleteNext => self,
            Self::InUse | Self::Deleting | Self::Replaced { .. } | Self::Ended { .. } => {
                Self::Ended { until }
            }
        }
    }

    /// Ends it for us: our request to delete it is sent, or waits for the answer to another.
    fn delete(self, is_sent: bool) -> Self {
        match self {
            Self::Replaced { .. } | Self::Ended { .. } => self,
            Self::InUse | Self::DeleteNext | Self::Deleting if is_sent => Self::Deleting,
            Self::InUse | Self::DeleteNext | Self::Deleting => Self::DeleteNext,
        }
    }

    /// Removes it at once, because the peer does not answer our request to delete it.
    pub(in crate::ike) fn give_up(self, now: Duration) -> Self {
        Self::Ended { until: now }
    }

    /// Returns when it is removed, if it is replaced or has ended.
    pub(in crate::ike) fn removed_at(self) -> Option<Duration> {
        match self {
            Self::Replaced { until } | Self::Ended { until } => Some(until),
            Self::InUse | Self::DeleteNext | Self::Deleting => None,
        }
    }
}

/// A request of ours that is not answered yet.
#[derive(Debug)]
pub(in crate::ike) struct Outstanding {
    pub(in crate::ike) exchange: ExchangeType,
    pub(in crate::ike) message_id: u32,
    pub(in crate::ike) request: Request,
    /// The destination, if it is not the peer's current path.
    pub(in crate::ike) addresses: Option<Addresses>,
    pub(in crate::ike) datagrams: Vec<Vec<u8>>,
    pub(in crate::ike) tries: u32,
    /// When it was last sent.
    pub(in crate::ike) sent_at: Duration,
    pub(in crate::ike) resend_at: Duration,
}

/// The result of opening a request of the peer.
pub(in crate::ike) enum Arrival {
    /// A new request.
    New(Plaintext),
    /// A repetition of the last request, which was answered already.
    Repeated,
    /// Nothing to do: a fragment, a repetition of a request in progress, or an old message.
    Nothing,
}

impl IkeSa {
    pub(in crate::ike) fn new(is_initiator: bool, spis: [u64; 2], suite: IkeSuite, keys: IkeSaKeys) -> Self {
        let [spi_i, spi_r] = spis;
        Self {
            is_initiator,
            is_rekeyed: false,
            spi_i,
            spi_r,
            suite,
            keys,
            keys_before: None,
            counter: 0,
            requests: Fragments::default(),
            responses: Fragments::default(),
            expected: 0,
            is_busy: false,
            last_response: Vec::new(),
            repeats: [Rate::default(); 2],
            next: 0,
            outstanding: None,
            crash_token: None,
            limit: None,
            path_mtu: None,
            life: IkeSaLife::InUse,
        }
    }

    /// Uses other keys from now on, after the exchange that was just answered.
    pub(in crate::ike) fn change_keys(&mut self, keys: IkeSaKeys) {
        self.keys_before = Some(core::mem::replace(&mut self.keys, keys));
    }

    /// Returns the SPI by which the peer addresses us.
    pub(in crate::ike) fn local_spi(&self) -> u64 {
        if self.is_initiator { self.spi_i } else { self.spi_r }
    }

    /// Returns our token for this IKE SA, if we give one to peers.
    pub(in crate::ike) fn own_crash_token(&self, cx: &Context<'_>) -> Option<CrashToken> {
        CrashToken::own(cx.crypto, cx.settings, [self.spi_i, self.spi_r], self.is_initiator)
    }

    /// Returns true if this unprotected answer proves that the peer has lost the IKE SA.
    pub(in crate::ike) fn is_lost_by(&self, header: &Header, message: &[u8]) -> bool {
        let is_about_this = [header.spi_i, header.spi_r] == [self.spi_i, self.spi_r];
        let Some(token) = self.crash_token.as_deref().filter(|_| is_about_this) else { return false };
        let payloads = message.get(wire::HEADER..).and_then(|body| wire::parse(header.next, body).ok());
        payloads.is_some_and(|payloads| token.is_proved_by(&payloads))
    }

    /// Returns true if a request can be sent by this IKE SA.
    pub(in crate::ike) fn is_free(&self) -> bool {
        self.outstanding.is_none() && self.life == IkeSaLife::InUse
    }

    pub(in crate::ike) fn life(&self) -> IkeSaLife {
        self.life
    }

    /// Changes the life by a transition.
    pub(in crate::ike) fn change(&mut self, transition: impl FnOnce(IkeSaLife) -> IkeSaLife) {
        self.life = transition(self.life);
    }

    /// Begins to delete it. Returns true if the request is to be sent now.
    pub(in crate::ike) fn begin_delete(&mut self) -> bool {
        let is_sent = self.outstanding.is_none();
        self.life = self.life.delete(is_sent);
        is_sent
    }

    /// Returns true if the request to delete it has waited, and is to be sent now.
    pub(in crate::ike) fn must_be_deleted(&self) -> bool {
        self.life == IkeSaLife::DeleteNext && self.outstanding.is_none()
    }

    /// Notes that the response to the peer's request has to wait for a task.
    pub(in crate::ike) fn defer_answer(&mut self) {
        self.is_busy = true;
    }

    pub(super) fn protection<'a>(&'a self, crypto: &'a dyn Crypto, ours: bool) -> Protection<'a> {
        let from_initiator = self.is_initiator == ours;
        Protection { crypto, suite: &self.suite, keys: &self.keys, from_initiator }
    }

    pub(super) fn seal(
        &mut self,
        cx: &Context<'_>,
        exchange: ExchangeType,
        message_id: u32,
        is_response: bool,
        payloads: &[Payload<'_>],
        limit: Option<usize>,
    ) -> Vec<Vec<u8>> {
        let mut flags = 0;
        if self.is_initiator {
            flags |= flags::INITIATOR;
        }
        if is_response {
            flags |= flags::RESPONSE;
        }
        let header = Header {
            spi_i: self.spi_i,
            spi_r: self.spi_r,
            next: 0,
            version: wire::VERSION,
            exchange: exchange.number(),
            flags,
            message_id,
            length: 0,
        };
        let mut body = Vec::new();
        let first = wire::emit(payloads, &mut body);
        let mut counter = self.counter;
        let datagrams =
            self.protection(cx.crypto, true).seal(cx.random, header, first, body, limit, &mut counter);
        self.counter = counter;
        datagrams
    }

    /// Returns the largest IP packet of a message in bytes, if it may be fragmented: none that the path is
    /// known to drop (RFC 7383 §2.5.1).
    pub(super) fn fragment_limit(&self) -> Option<usize> {
        let known = self.path_mtu.map_or(usize::MAX, usize::from);
        self.limit.map(|limit| limit.min(known))
    }

    /// Encodes a request. The caller must have checked [`IkeSa::is_free`].
    pub(in crate::ike) fn request(
        &mut self,
        cx: &Context<'_>,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
        request: Request,
        addresses: Option<Addresses>,
    ) -> &[Vec<u8>] {
        let datagrams = self.seal(cx, exchange, self.next, false, payloads, self.fragment_limit());
        let resend_at = cx.now + cx.settings.retransmission.after(0);
        self.await_answer(cx, exchange, datagrams, request, addresses, resend_at)
    }

    /// Makes a request outstanding that was encoded in `datagrams`.
    pub(super) fn await_answer(
        &mut self,
        cx: &Context<'_>,
        exchange: ExchangeType,
        datagrams: Vec<Vec<u8>>,
        request: Request,
        addresses: Option<Addresses>,
        resend_at: Duration,
    ) -> &[Vec<u8>] {
        let message_id = self.next;
        self.next = self.next.wrapping_add(1);
        let sent_at = cx.now;
        let outstanding =
            Outstanding { exchange, message_id, request, addresses, datagrams, tries: 0, sent_at, resend_at };
        &self.outstanding.insert(Box::new(outstanding)).datagrams
    }

    /// Encodes the response to the expected request.
    pub(in crate::ike) fn answer(
        &mut self,
        cx: &Context<'_>,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
    ) -> &[Vec<u8>] {
        let message_id = self.expected;
        self.expected = self.expected.wrapping_add(1);
        self.is_busy = false;
        self.last_response = self.seal(cx, exchange, message_id, true, payloads, self.fragment_limit());
        &self.last_response
    }

    /// Returns our last response if it may be sent again at `now`. Anybody can send a copy of the
    /// request from any address. So the answers to copies from `elsewhere` are limited, more
    /// strictly while the peer is not `proved`, and do not use up the limit of the peer's own
    /// address.
    pub(in crate::ike) fn repeat(
        &mut self,
        now: Duration,
        elsewhere: bool,
        proved: bool,
    ) -> Option<&[Vec<u8>]> {
        let [peer, others] = &mut self.repeats;
        let admits = match (elsewhere, proved) {
            (false, _) => peer.admits(now, bounds::REPEAT_BURST, bounds::REPEAT_REFILL),
            (true, true) => others.admits(now, bounds::REPEAT_BURST, bounds::REPEAT_REFILL),
            (true, false) => self.admits_stray(now),
        };
        admits.then_some(&self.last_response)
    }

    /// Returns true if a request of an unauthenticated peer may be answered at `now` although it
    /// came from an address that the peer has not proved.
    pub(in crate::ike) fn admits_stray(&mut self, now: Duration) -> bool {
        let [_, others] = &mut self.repeats;
        others.admits(now, bounds::STRAY_BURST, bounds::STRAY_REFILL)
    }

    /// Opens a request of the peer.
    pub(in crate::ike) fn open_request(
        &mut self,
        crypto: &dyn Crypto,
        header: &Header,
        message: &[u8],
    ) -> Result<Arrival, OpenError> {
        // The window is one request: the next, or the last once more, which gets the same answer
        // (RFC 7296 §2.1, §2.3).
        if header.message_id == self.expected {
            if self.is_busy {
                return Ok(Arrival::Nothing);
            }
            let mut parts = core::mem::take(&mut self.requests);
            let opened = self.protection(crypto, false).open(header, message, &mut parts);
            self.requests = parts;
            let Some(opened) = opened? else { return Ok(Arrival::Nothing) };
            self.keys_before = None;
            return Ok(Arrival::New(opened));
        }
        if header.message_id.wrapping_add(1) != self.expected || self.last_response.is_empty() {
            return Ok(Arrival::Nothing);
        }
        // If a message is fragmented, only its first fragment is answered again (RFC 7383 §2.6.1).
        if wire::protected(message)?.fragment.is_some_and(|(number, _)| number != 1) {
            return Ok(Arrival::Nothing);
        }
        let keys = self.keys_before.as_ref().unwrap_or(&self.keys);
        let protection = Protection { keys, ..self.protection(crypto, false) };
        protection.open(header, message, &mut Fragments::default())?;
        Ok(Arrival::Repeated)
    }

    /// Opens the response to our outstanding request; returns `None` if it is not one, or is not
    /// complete.
    pub(in crate::ike) fn open_response(
        &mut self,
        crypto: &dyn Crypto,
        header: &Header,
        message: &[u8],
    ) -> Result<Option<(Plaintext, Box<Outstanding>)>, OpenError> {
        let Some(outstanding) = self.outstanding.as_ref().filter(|o| o.message_id == header.message_id)
        else {
            return Ok(None);
        };
        // An answer is of the exchange that its request began (RFC 7296 §2.2).
        if header.exchange != outstanding.exchange.number() {
            return Err(Malformed::Exchange(header.exchange).into());
        }
        let mut parts = core::mem::take(&mut self.responses);
        let opened = self.protection(crypto, false).open(header, message, &mut parts);
        self.responses = parts;
        let Some(opened) = opened? else { return Ok(None) };
        Ok(self.outstanding.take().map(|outstanding| (opened, outstanding)))
    }
}
