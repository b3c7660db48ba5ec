//! Answers to messages that belong to no peer. They are not encrypted, and keep no state.

use super::{
    admission::{self, CookieCheck},
    context::Environment,
    counter::Counter,
    crash::CrashToken,
    endpoint::Endpoint,
    event::Event,
    exchange::init::message::InitMessage,
    reason::Reason,
    wire::{ErrorNotify, Header, Notify, notify},
};
use crate::{
    path::Addresses,
    transmit::{Payload, Transmit},
};
use core::time::Duration;

impl Endpoint {
    /// Answers a request by an IKE SA that we do not have. If we may have lost it, the answer has its
    /// token (RFC 6290 §4.5).
    pub(super) fn answer_unknown_spi(&mut self, now: Duration, addresses: Addresses, header: &Header) {
        let gives_token =
            self.environment.settings.crash_secret.is_some() && CrashToken::may_be_asked_by(header);
        if !gives_token {
            return self.hint(now, addresses, header, notify::INVALID_IKE_SPI);
        }
        if !self.admission.admits_token(now, addresses.remote.ip()) {
            return self.shared.count(Counter::TooOften);
        }
        let Environment { crypto, settings, .. } = &self.environment;
        let token = CrashToken::of_request(&**crypto, settings, header);
        let unknown = Notify::new(notify::INVALID_IKE_SPI, &[]);
        self.refuse(addresses, header, [unknown].into_iter().chain(token.as_ref().map(CrashToken::notify)));
    }

    /// Answers a message with an unknown SPI or version, whose sender may want to know. The answer
    /// is not authenticated (RFC 7296 §2.21.4).
    pub(super) fn hint(&mut self, now: Duration, addresses: Addresses, header: &Header, kind: u16) {
        if header.is_response() {
            return;
        }
        if !self.admission.admits_hint(now) {
            return self.shared.count(Counter::TooOften);
        }
        self.refuse(addresses, header, [Notify::new(kind, &[])]);
    }

    /// Sends an unencrypted answer.
    fn refuse<'a>(
        &mut self,
        addresses: Addresses,
        header: &Header,
        notifies: impl IntoIterator<Item = Notify<'a>>,
    ) {
        let payload = Payload::Message(admission::refusal(header, notifies));
        self.shared.transmits.push_back(Transmit { addresses, payload });
    }

    /// Refuses a first message, and keeps no state (RFC 7296 §2.21.1).
    pub(super) fn refuse_init(
        &mut self,
        now: Duration,
        addresses: Addresses,
        header: &Header,
        why: &ErrorNotify,
    ) {
        self.shared.count(Counter::InitRefused);
        self.admission.note_refusal(now);
        self.refuse(addresses, header, [Notify::new(why.kind, &why.data)]);
        let reason = match why.kind {
            // The peer begins again with the group that the answer names (RFC 7296 §1.2).
            notify::INVALID_KE_PAYLOAD => return,
            notify::NO_PROPOSAL_CHOSEN if self.environment.connections.at(addresses).next().is_none() => {
                Reason::Addresses
            }
            notify::NO_PROPOSAL_CHOSEN => Reason::NoProposal,
            _ => Reason::Protocol,
        };
        self.shared.events.push_back(Event::InitRefused { remote: addresses.remote, reason });
    }

    /// Returns true if a first message has a valid cookie; otherwise asks for one.
    pub(super) fn has_cookie(
        &mut self,
        now: Duration,
        addresses: Addresses,
        header: &Header,
        request: &InitMessage,
    ) -> bool {
        let (crypto, random, from) =
            (&*self.environment.crypto, &*self.environment.random, addresses.remote.ip());
        match self.admission.check_cookie(now, crypto, random, from, header, request) {
            CookieCheck::Valid => return true,
            CookieCheck::Required(cookie) => {
                self.shared.count(Counter::Cookie);
                self.refuse(addresses, header, [Notify::new(notify::COOKIE, &cookie)]);
            }
        }
        false
    }
}
