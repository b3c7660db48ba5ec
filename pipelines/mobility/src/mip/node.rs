//! The mobile node's half of registration (RFC 5944 §3.6).
//!
//! [`MobileNode::register`] begins to register a care-of address. The driver sends what
//! [`poll_transmit`](MobileNode::poll_transmit) returns, passes replies to
//! [`handle_reply`](MobileNode::handle_reply) and the time to
//! [`handle_timeout`](MobileNode::handle_timeout), and takes what [`poll_event`](MobileNode::poll_event)
//! returns, after each call.

use super::{
    association::{Association, Replay},
    wire::{
        Body, Code, Extension, Flags, Identification, LIFETIME_INFINITE, Malformed, Message, Parties, Reply,
        Request, UdpTunnelReply, UdpTunnelRequest, push,
    },
};
use crate::{crypto::Random, retransmission::MAX_BACK_OFF};
use alloc::{boxed::Box, vec::Vec};
use core::{fmt, net::Ipv4Addr, time::Duration};

#[cfg(test)]
mod tests;

/// What a node wants of its home agent.
#[derive(Debug)]
pub struct Settings {
    /// The home address; zero if the node knows only its name.
    pub home: Ipv4Addr,
    /// The node's network access identifier, if it has one; 1 to 255 bytes.
    pub name: Option<Vec<u8>>,
    /// The home agent's address.
    pub agent: Ipv4Addr,
    /// What both share.
    pub association: Association,
    /// How the home agent tells old requests from new ones.
    pub replay: Replay,
    /// Lifetime of a binding in seconds, at least 1.
    pub lifetime: u16,
    /// The wishes in each request.
    pub flags: Flags,
    /// The node can have its tunnel in UDP; `true` in it demands that.
    pub udp_tunnel: Option<bool>,
    /// The time after which a request is sent again: a second or more, and twice as long each time (RFC 5944
    /// §3.6.3).
    pub first_wait: Duration,
    /// The number of times that a request is sent again before the home agent is given up.
    pub tries: u32,
}

/// The time by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since any fixed point, by a clock that nobody sets and that runs on while the device sleeps: for waits.
    pub steady: Duration,
    /// Since 1970: for timestamps.
    pub since_1970: Duration,
}

/// What has become of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The home agent sends to this care-of address, or nowhere if that is the home address.
    Registered {
        /// The address that was registered.
        care_of: Ipv4Addr,
        /// The home address.
        home: Ipv4Addr,
        /// The lifetime that was granted, in seconds.
        lifetime: u16,
        /// What the home agent says of a tunnel in UDP.
        udp_tunnel: Option<UdpTunnelReply>,
    },
    /// The home agent denied the registration. It is tried again.
    Denied(Code),
    /// There was no success after all tries. Nothing more is sent.
    GivenUp {
        /// The last reply's code, if there was a reply.
        code: Option<Code>,
    },
}

/// Why a datagram does not count as the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// It is no message, or has an extension that is not known and must be.
    Malformed(Malformed),
    /// It is no reply, or one to another request.
    Other,
    /// It was not made with the shared secret.
    Forged,
    /// It has a vendor's extension that must be understood (RFC 3115 §2.1).
    Vendor,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Other => f.write_str("no reply to the pending request"),
            Self::Forged => f.write_str("not made with the shared secret"),
            Self::Vendor => f.write_str("unknown vendor extension, which must not be skipped"),
        }
    }
}

impl core::error::Error for ReplyError {}

/// A request without a reply.
#[derive(Clone, Debug)]
struct Pending {
    care_of: Ipv4Addr,
    /// The lifetime that is asked for; 0 to end all bindings.
    lifetime: u16,
    identification: Identification,
    /// As it was sent last.
    request: Vec<u8>,
    /// Clock or nonce were learnt from a denial, and the request was sent again for that.
    is_synchronised: bool,
    /// Number of times that a request has been sent again.
    tries: u32,
    /// When one is sent next.
    next: Duration,
    /// The last reply's code.
    code: Option<Code>,
}

/// A mobile node.
#[derive(Debug)]
pub struct MobileNode {
    settings: Settings,
    /// The home address, which the home agent may have told.
    home: Ipv4Addr,
    pending: Option<Pending>,
    /// The care-of address that is registered, and when it is to be registered again.
    registered: Option<(Ipv4Addr, Option<Duration>)>,
    /// What is to be added to our clock's seconds for the home agent's.
    clock_offset: u32,
    /// The Identification of the last request.
    last: Identification,
    /// The home agent's nonce for the next request.
    nonce: u32,
    to_send: Option<Vec<u8>>,
    event: Option<Event>,
    random: Box<dyn Random>,
}

impl MobileNode {
    /// Creates a node that is not registered.
    pub fn new(settings: Settings, random: Box<dyn Random>) -> Self {
        Self {
            home: settings.home,
            settings,
            pending: None,
            registered: None,
            clock_offset: 0,
            last: Identification(0),
            nonce: 0,
            to_send: None,
            event: None,
            random,
        }
    }

    /// Begins to register `care_of`, in place of what is pending. The home address ends all bindings.
    pub fn register(&mut self, now: Now, care_of: Ipv4Addr) {
        self.send(
            now,
            Pending {
                care_of,
                lifetime: if care_of == self.home { 0 } else { self.settings.lifetime },
                identification: Identification(0),
                request: Vec::new(),
                is_synchronised: false,
                tries: 0,
                next: now.steady,
                code: None,
            },
        );
    }

    /// Returns the request to send, if there is one.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.to_send.take()
    }

    /// Returns what has happened last, if it was not returned yet.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// Returns when something is due, by the steady clock.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match &self.pending {
            Some(pending) => Some(pending.next),
            None => self.registered.and_then(|(_, again)| again),
        }
    }

    /// Sends again what had no reply, and registers again what would end.
    pub fn handle_timeout(&mut self, now: Now) {
        if let Some(pending) = self.pending.take_if(|pending| pending.next <= now.steady) {
            self.try_again(now, pending);
        } else if let (None, Some((care_of, Some(again)))) = (&self.pending, self.registered)
            && again <= now.steady
        {
            self.register(now, care_of);
        }
    }

    /// Handles a datagram from the home agent.
    ///
    /// # Errors
    /// [`ReplyError`] if it is no reply to our request; nothing changes then.
    pub fn handle_reply(&mut self, now: Now, datagram: &[u8]) -> Result<(), ReplyError> {
        let message = Message::parse(datagram).map_err(ReplyError::Malformed)?;
        let (Body::Reply(reply), Some(pending)) = (message.body, &self.pending) else {
            return Err(ReplyError::Other);
        };
        if !self.is_answered(pending, &reply) {
            return Err(ReplyError::Other);
        }
        let (mut authenticators, mut own, mut udp_tunnel) = (0, None, None);
        for extension in message.extensions.iter() {
            match extension {
                Extension::Authentication(one) if one.parties == Parties::MobileHome => {
                    authenticators += 1;
                    own = Some(one);
                }
                Extension::UdpTunnelReply(answer) if authenticators == 0 => udp_tunnel = Some(answer),
                Extension::CriticalVendor => return Err(ReplyError::Vendor),
                _ => {}
            }
        }
        let association = &self.settings.association;
        if authenticators != 1 || !own.is_some_and(|own| association.verifies(&own)) {
            return Err(ReplyError::Forged);
        }
        let Some(mut pending) = self.pending.take() else { return Err(ReplyError::Other) };
        self.learn(&reply, &pending);
        if reply.code.is_accepted() {
            let (care_of, home) = (pending.care_of, reply.home);
            let lifetime = reply.lifetime.min(pending.lifetime);
            self.registered = self.next_registration(now.steady, lifetime, &pending);
            self.event = Some(Event::Registered { care_of, home, lifetime, udp_tunnel });
            return Ok(());
        }
        pending.code = Some(reply.code);
        if reply.code == Code::IDENTIFICATION && !pending.is_synchronised {
            // Now that clock or nonce are known, there is nothing to wait for.
            pending.is_synchronised = true;
            self.send(now, pending);
        } else {
            self.pending = Some(pending);
            self.event = Some(Event::Denied(reply.code));
        }
        Ok(())
    }

    /// Returns whether a reply is to the pending request, by its Identification (RFC 5944 §5.7). A timestamp comes
    /// back as it was, unless it was a wrong one.
    fn is_answered(&self, pending: &Pending, reply: &Reply) -> bool {
        let (sent, own) = (pending.identification, reply.identification);
        match self.settings.replay {
            Replay::Timestamps(_) if reply.code != Code::IDENTIFICATION => own == sent,
            _ => own.low() == sent.low(),
        }
    }

    /// Learns our home address and the home agent's clock or next nonce from a reply.
    fn learn(&mut self, reply: &Reply, pending: &Pending) {
        if self.home.is_unspecified() {
            self.home = reply.home;
        }
        match self.settings.replay {
            Replay::Timestamps(_) if reply.code == Code::IDENTIFICATION => {
                let ahead = reply.identification.high().wrapping_sub(pending.identification.high());
                self.clock_offset = self.clock_offset.wrapping_add(ahead);
            }
            Replay::Timestamps(_) => {}
            Replay::Nonces => self.nonce = reply.identification.high(),
        }
    }

    /// Returns what is registered, and when it is to be registered again: after three quarters of its lifetime in
    /// seconds, but not at once.
    fn next_registration(
        &self,
        now: Duration,
        lifetime: u16,
        pending: &Pending,
    ) -> Option<(Ipv4Addr, Option<Duration>)> {
        let is_endless = lifetime == LIFETIME_INFINITE;
        let wait = self.random.jittered(Duration::from_secs(lifetime.into()) * 3 / 4);
        let again = now + wait.max(self.settings.first_wait);
        (pending.lifetime > 0).then(|| (pending.care_of, (!is_endless).then_some(again)))
    }

    fn try_again(&mut self, now: Now, mut pending: Pending) {
        if pending.tries >= self.settings.tries {
            self.registered = None;
            self.event = Some(Event::GivenUp { code: pending.code });
            return;
        }
        pending.tries += 1;
        self.send(now, pending);
    }

    /// Sends a request, with another Identification than the one before, unless it has had no reply and is by
    /// nonces (RFC 5944 §3.6.3).
    fn send(&mut self, now: Now, mut pending: Pending) {
        let is_same = self.settings.replay == Replay::Nonces && pending.tries > 0 && pending.code.is_none();
        if !is_same {
            pending.identification = self.next_identification(now);
            pending.request = self.request(&pending);
            self.last = pending.identification;
        }
        let wait = self.settings.first_wait.saturating_mul(1 << pending.tries.min(6));
        pending.next = now.steady + wait.min(MAX_BACK_OFF.max(self.settings.first_wait));
        self.to_send = Some(pending.request.clone());
        self.pending = Some(pending);
    }

    fn next_identification(&self, now: Now) -> Identification {
        match self.settings.replay {
            Replay::Timestamps(_) => {
                let clock = Identification::at(now.since_1970);
                let clock = clock.with_high(clock.high().wrapping_add(self.clock_offset));
                // A coarse clock stands still for a while. One that was set back goes on from there, and the home
                // agent tells how far it is off.
                let ahead = self.last.0.wrapping_sub(clock.0);
                if ahead < 1 << 32 { Identification(self.last.0.wrapping_add(1)) } else { clock }
            }
            Replay::Nonces => {
                let mut low = [0; 4];
                self.random.fill(&mut low);
                Identification(u32::from_ne_bytes(low).into()).with_high(self.nonce)
            }
        }
    }

    /// Encodes a request.
    fn request(&self, pending: &Pending) -> Vec<u8> {
        let Settings { agent, flags, association, .. } = &self.settings;
        let request = Request {
            flags: *flags,
            lifetime: pending.lifetime,
            home: self.home,
            agent: *agent,
            care_of: pending.care_of,
            identification: pending.identification,
        };
        let mut message = Body::Request(request).emit();
        if let Some(name) = &self.settings.name {
            push(&mut message, &Extension::Nai(name));
        }
        if let Some(force) = self.settings.udp_tunnel.filter(|_| pending.lifetime > 0) {
            let wish =
                UdpTunnelRequest { force, by_foreign_agent: false, encapsulation: flags.encapsulation() };
            push(&mut message, &Extension::UdpTunnelRequest(wish));
        }
        association.authenticate(&mut message, Parties::MobileHome);
        message
    }
}
