//! The mobile node's half of registration (RFC 5944 §3.6).
//!
//! [`MobileNode::register`] begins to register a care-of address. The driver sends what
//! [`poll_transmit`](MobileNode::poll_transmit) returns, passes replies to
//! [`handle_reply`](MobileNode::handle_reply) and the time to
//! [`handle_timeout`](MobileNode::handle_timeout), and takes what [`poll_event`](MobileNode::poll_event)
//! returns, after each call. All times are since 1970.

use super::{
    association::{Association, Replay},
    wire::{
        Body, Code, Extension, Flags, Identification, LIFETIME_INFINITE, Malformed, Message, Parties, Reply,
        Request, UdpTunnelReply, UdpTunnelRequest, push,
    },
};
use crate::{crypto::Random, retransmission::Retransmission};
use alloc::{boxed::Box, vec::Vec};
use core::{net::Ipv4Addr, time::Duration};

#[cfg(test)]
mod tests;

/// What a node wants of its home agent.
#[derive(Debug)]
pub struct Settings {
    /// The home address; zero if the node knows only its name.
    pub home: Ipv4Addr,
    /// The node's network access identifier, if it has one; at most 255 bytes.
    pub name: Option<Vec<u8>>,
    /// The home agent's address.
    pub agent: Ipv4Addr,
    /// What both share.
    pub association: Association,
    /// Lifetime of a binding in seconds, at least 1.
    pub lifetime: u16,
    /// The wishes in each request.
    pub flags: Flags,
    /// The node can have its tunnel in UDP; `true` in it demands that.
    pub udp_tunnel: Option<bool>,
    /// When a request is sent again, and after how many tries the agent is given up. A second at first, or
    /// more (RFC 5944 §3.6.3).
    pub retransmission: Retransmission,
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

/// Why a datagram is no reply to the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It is no message, or has an extension that is not known and must be.
    Malformed(Malformed),
    /// It is no reply, or one to another request.
    Other,
    /// It was not made with the shared secret.
    Forged,
}

/// A request without a reply.
#[derive(Clone, Copy, Debug)]
struct Pending {
    care_of: Ipv4Addr,
    identification: Identification,
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
    pending: Option<Pending>,
    /// The care-of address that is registered, and when it is to be registered again.
    registered: Option<(Ipv4Addr, Option<Duration>)>,
    /// What is to be added to our clock's seconds for the home agent's.
    clock_offset: u32,
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
            settings,
            pending: None,
            registered: None,
            clock_offset: 0,
            nonce: 0,
            to_send: None,
            event: None,
            random,
        }
    }

    /// Begins to register `care_of`, in place of what is pending. The home address ends all bindings.
    pub fn register(&mut self, now: Duration, care_of: Ipv4Addr) {
        self.send(
            now,
            Pending { care_of, identification: Identification(0), tries: 0, next: now, code: None },
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

    /// Returns when something is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.pending {
            Some(pending) => Some(pending.next),
            None => self.registered.and_then(|(_, again)| again),
        }
    }

    /// Sends again what had no reply, and registers again what would end.
    pub fn handle_timeout(&mut self, now: Duration) {
        match self.pending {
            Some(pending) if pending.next <= now => self.try_again(now, pending),
            Some(_) => {}
            None => {
                if let Some((care_of, Some(again))) = self.registered
                    && again <= now
                {
                    self.register(now, care_of);
                }
            }
        }
    }

    /// Handles a datagram from the home agent.
    ///
    /// # Errors
    /// [`Ignored`] if it is no reply to our request; nothing changes then.
    pub fn handle_reply(&mut self, now: Duration, datagram: &[u8]) -> Result<(), Ignored> {
        let message = Message::parse(datagram).map_err(Ignored::Malformed)?;
        let (Body::Reply(reply), Some(mut pending)) = (message.body, self.pending) else {
            return Err(Ignored::Other);
        };
        if reply.identification.low() != pending.identification.low() {
            return Err(Ignored::Other);
        }
        let (mut authenticators, mut is_authentic, mut udp_tunnel) = (0, false, None);
        for extension in message.extensions.iter() {
            match extension {
                Extension::Authentication(own) if own.parties == Parties::MobileHome => {
                    authenticators += 1;
                    is_authentic = self.settings.association.has_made(&own);
                }
                Extension::UdpTunnelReply(answer) if authenticators == 0 => udp_tunnel = Some(answer),
                _ => {}
            }
        }
        if authenticators != 1 || !is_authentic {
            return Err(Ignored::Forged);
        }
        self.learn(&reply, &pending);
        if reply.code.is_accepted() {
            self.pending = None;
            self.registered = self.next_registration(now, &reply, pending.care_of);
            let (care_of, home, lifetime) = (pending.care_of, reply.home, reply.lifetime);
            self.event = Some(Event::Registered { care_of, home, lifetime, udp_tunnel });
            return Ok(());
        }
        let is_first_mismatch = reply.code == Code::IDENTIFICATION && pending.code != Some(reply.code);
        pending.code = Some(reply.code);
        if is_first_mismatch {
            // Now that clock or nonce are known, there is nothing to wait for.
            self.send(now, pending);
        } else {
            self.pending = Some(pending);
            self.event = Some(Event::Denied(reply.code));
        }
        Ok(())
    }

    /// Learns the home agent's clock or next nonce from a reply.
    fn learn(&mut self, reply: &Reply, pending: &Pending) {
        match self.settings.association.replay {
            Replay::Timestamps(_) if reply.code == Code::IDENTIFICATION => {
                let ahead = reply.identification.high().wrapping_sub(pending.identification.high());
                self.clock_offset = self.clock_offset.wrapping_add(ahead);
            }
            Replay::Timestamps(_) => {}
            Replay::Nonces => self.nonce = reply.identification.high(),
        }
    }

    /// Returns what is registered, and when it is to be registered again: after three quarters of its lifetime.
    fn next_registration(
        &self,
        now: Duration,
        reply: &Reply,
        care_of: Ipv4Addr,
    ) -> Option<(Ipv4Addr, Option<Duration>)> {
        let is_home = care_of == self.settings.home;
        let is_endless = reply.lifetime == LIFETIME_INFINITE;
        let wait = Duration::from_secs(reply.lifetime.into()) * 3 / 4;
        (!is_home).then(|| (care_of, (!is_endless).then(|| now + self.random.jittered(wait))))
    }

    fn try_again(&mut self, now: Duration, mut pending: Pending) {
        if pending.tries >= self.settings.retransmission.tries {
            self.pending = None;
            self.registered = None;
            self.event = Some(Event::GivenUp { code: pending.code });
            return;
        }
        pending.tries += 1;
        self.send(now, pending);
    }

    fn send(&mut self, now: Duration, mut pending: Pending) {
        pending.identification = self.next_identification(now);
        pending.next = now + self.settings.retransmission.after(pending.tries);
        self.to_send = Some(self.request(&pending));
        self.pending = Some(pending);
    }

    /// Returns the Identification of a request. Each has another one, also if it is sent again (RFC 5944
    /// §3.6.3).
    fn next_identification(&self, now: Duration) -> Identification {
        match self.settings.association.replay {
            Replay::Timestamps(_) => {
                let clock = Identification::at(now);
                clock.with_high(clock.high().wrapping_add(self.clock_offset))
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
        let Settings { home, agent, lifetime, flags, association, .. } = &self.settings;
        let is_home = pending.care_of == *home;
        let request = Request {
            flags: *flags,
            lifetime: if is_home { 0 } else { *lifetime },
            home: *home,
            agent: *agent,
            care_of: pending.care_of,
            identification: pending.identification,
        };
        let mut message = Body::Request(request).emit();
        if let Some(name) = &self.settings.name {
            push(&mut message, &Extension::Nai(name));
        }
        if let Some(force) = self.settings.udp_tunnel.filter(|_| !is_home) {
            let wish =
                UdpTunnelRequest { force, by_foreign_agent: false, encapsulation: flags.encapsulation() };
            push(&mut message, &Extension::UdpTunnelRequest(wish));
        }
        association.authenticate(&mut message, Parties::MobileHome);
        message
    }
}
