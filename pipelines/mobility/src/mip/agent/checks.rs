//! Checks of a request, in the order of RFC 5944 §3.8.2.

use super::{
    Decision, HomeAgent, ReverseTunnel,
    decision::{Draft, RequestError},
    node::Node,
};
use crate::mip::{
    association::Replay,
    binding::{Binding, Bindings, Last},
    wire::{
        Authentication, Body, Code, Encapsulation, Extension, Extensions, Identification, LIFETIME_INFINITE,
        Message, Parties, Request, UdpTunnelReply, UdpTunnelRequest,
    },
};
use alloc::vec::Vec;
use core::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

/// What the extensions of a request say. Those behind the node's authenticator are somebody else's, who may be
/// anybody on the way.
#[derive(Default)]
struct Wishes<'a> {
    /// The node's authenticator, if there is exactly one.
    node: Option<Authentication<'a>>,
    /// A foreign agent's authenticator, if there is one, and how many there are.
    foreign: (Option<Authentication<'a>>, usize),
    name: Option<&'a [u8]>,
    udp_tunnel: Option<UdpTunnelRequest>,
    /// The node, or somebody else, sent a vendor's extension that must be understood.
    vendors: [bool; 2],
}

impl<'a> Wishes<'a> {
    fn of(extensions: &Extensions<'a>) -> Self {
        let (mut wishes, mut by_node) = (Self::default(), 0);
        for extension in extensions.iter() {
            let is_nodes = by_node == 0;
            match extension {
                Extension::Authentication(own) if own.parties == Parties::MobileHome => {
                    by_node += 1;
                    wishes.node = Some(own).filter(|_| by_node == 1);
                }
                Extension::Authentication(own) if own.parties == Parties::ForeignHome => {
                    wishes.foreign = (Some(own), wishes.foreign.1 + 1);
                }
                Extension::Nai(name) if is_nodes => wishes.name = Some(name),
                Extension::UdpTunnelRequest(wish) if is_nodes => wishes.udp_tunnel = Some(wish),
                Extension::CriticalVendor => wishes.vendors[usize::from(!is_nodes)] = true,
                _ => {}
            }
        }
        wishes
    }
}

impl HomeAgent {
    /// Decides about a datagram from `source`, at a time since 1970. Nothing changes before the decision is carried
    /// out.
    ///
    /// # Errors
    /// [`RequestError`] if it is not to be answered.
    pub fn decide(
        &mut self,
        now: Duration,
        datagram: &[u8],
        source: SocketAddrV4,
    ) -> Result<Decision<'_>, RequestError> {
        let draft = self.draft(now, datagram, source)?;
        Ok(Decision { agent: self, draft })
    }

    fn draft(&self, now: Duration, datagram: &[u8], source: SocketAddrV4) -> Result<Draft, RequestError> {
        let message = Message::parse(datagram).map_err(RequestError::Malformed)?;
        let Body::Request(request) = message.body else { return Err(RequestError::Kind) };
        let wishes = Wishes::of(&message.extensions);
        let node = match (request.home, wishes.name) {
            (Ipv4Addr::UNSPECIFIED, name) => name.and_then(|name| self.nodes.named(name)),
            (home, _) => self.nodes.get(home),
        };
        let authentic = node.zip(wishes.node).filter(|(node, own)| {
            node.association(own.spi).is_some_and(|association| association.verifies(own))
        });
        let (node, own) = authentic.ok_or(RequestError::Unauthenticated)?;
        let mut known = self.bindings.get(&node.home).cloned().unwrap_or_default();
        known.expire(now);
        let last = known.last.and_then(|last| last.as_by(node.replay));
        let (is_next, identification) = self.check_identification(now, node, request.identification, last);
        let denied = |code, identification| Draft {
            to: source,
            home: node.home,
            code,
            lifetime: 0,
            after: None,
            identification,
            spi: own.spi,
            name: wishes.name.map(<[u8]>::to_vec),
            udp_tunnel: None,
        };
        if !is_next {
            return Ok(denied(Code::IDENTIFICATION, identification));
        }
        // What somebody on the way may have added does not make the node's request an old one.
        if let Err(code) = self.check_others(&wishes, source) {
            let next = match node.replay {
                Replay::Timestamps(_) => request.identification,
                Replay::Nonces => request.identification.with_high(self.nonce(node.home, last)),
            };
            return Ok(denied(code, next));
        }
        let after = Bindings { last: Some(Last::of(node.replay, request.identification)), ..known };
        Ok(match self.check(now, &request, &wishes, node, &after, source) {
            Ok(Grant { code, lifetime, tunnels, udp_tunnel }) => {
                let after = Some(Bindings { tunnels, ..after });
                Draft { lifetime, udp_tunnel, after, ..denied(code, identification) }
            }
            Err(code) => Draft { after: Some(after), ..denied(code, identification) },
        })
    }

    /// Returns whether a request may come now, and the Identification of its reply (RFC 5944 §5.7).
    fn check_identification(
        &self,
        now: Duration,
        node: &Node,
        request: Identification,
        last: Option<Identification>,
    ) -> (bool, Identification) {
        match node.replay {
            Replay::Timestamps(window) => {
                let clock = Identification::at(now);
                let is_new = last.is_none_or(|last| request.is_after(last));
                let is_next = is_new && request.distance(clock) <= window;
                (is_next, if is_next { request } else { request.with_high(clock.high()) })
            }
            Replay::Nonces => {
                let is_next = request.high() == self.nonce(node.home, last);
                let next = if is_next { Some(request) } else { last };
                (is_next, request.with_high(self.nonce(node.home, next)))
            }
        }
    }

    /// Checks the authenticator of a foreign agent, and what others than the node have added. A foreign agent with
    /// which we share nothing has no authenticator that could be checked.
    fn check_others(&self, wishes: &Wishes<'_>, source: SocketAddrV4) -> Result<(), Code> {
        let is_right = match (self.settings.foreign_agents.get(source.ip()), wishes.foreign) {
            (Some(shared), (Some(own), 1)) => shared.verifies(&own),
            (None, (None, 0)) => true,
            _ => false,
        };
        match wishes.vendors {
            _ if !is_right => Err(Code::FOREIGN_AUTHENTICATION),
            [_, true] => Err(Code::FOREIGN_VENDOR),
            _ => Ok(()),
        }
    }

    /// Checks an authentic request that is the node's next one.
    ///
    /// # Errors
    /// The code with which it is denied.
    fn check(
        &self,
        now: Duration,
        request: &Request,
        wishes: &Wishes<'_>,
        node: &Node,
        known: &Bindings,
        source: SocketAddrV4,
    ) -> Result<Grant, Code> {
        let settings = &self.settings;
        if let [true, _] = wishes.vendors {
            return Err(Code::NODE_VENDOR);
        }
        if let Some(name) = wishes.name {
            let other = self.nodes.named(name).is_some_and(|other| other.home != node.home);
            if other || node.name.as_deref().is_some_and(|own| own != name) {
                return Err(Code::POORLY_FORMED);
            }
        }
        if request.agent != settings.address {
            return Err(Code::UNKNOWN_AGENT);
        }
        if request.lifetime == 0 {
            if request.care_of.is_unspecified() {
                return Err(Code::POORLY_FORMED);
            }
            let tunnels =
                if request.care_of == node.home { Vec::new() } else { known.without(request.care_of) };
            return Ok(Grant { code: Code::ACCEPTED, lifetime: 0, tunnels, udp_tunnel: None });
        }
        self.check_end(request.care_of, node.home)?;
        let flags = request.flags;
        let udp_tunnel = self.check_udp_tunnel(wishes.udp_tunnel, request.care_of, node.home, source)?;
        let in_udp = udp_tunnel.is_some_and(|reply| reply.accepted);
        // A NAT lets nothing but UDP through in either direction.
        let reverse_tunnel = flags.reverse_tunnel || in_udp;
        match settings.reverse_tunnel {
            ReverseTunnel::Refused if reverse_tunnel => return Err(Code::NO_REVERSE_TUNNEL),
            ReverseTunnel::Required if !reverse_tunnel => return Err(Code::REVERSE_TUNNEL_NEEDED),
            _ => {}
        }
        let asked = wishes.udp_tunnel.filter(|_| in_udp).map(|wish| wish.encapsulation);
        let encapsulation = asked.unwrap_or_else(|| flags.encapsulation());
        if !self.offers(encapsulation) {
            return Err(Code::ENCAPSULATION);
        }
        let lifetime = request.lifetime.min(settings.max_lifetime.max(1));
        let is_endless = lifetime == LIFETIME_INFINITE;
        let binding = Binding {
            care_of: request.care_of,
            encapsulation,
            udp: in_udp.then_some(source),
            reverse_tunnel,
            broadcasts: flags.broadcasts,
            co_located: flags.co_located,
            ends: (!is_endless).then(|| now + Duration::from_secs(lifetime.into())),
        };
        let can_have_more = settings.max_bindings > 1;
        let tunnels = known.with(binding, flags.simultaneous && can_have_more);
        if tunnels.len() > settings.max_bindings.max(1) {
            return Err(Code::TOO_MANY_BINDINGS);
        }
        let is_alone = flags.simultaneous && !can_have_more;
        let code = if is_alone { Code::ACCEPTED_ALONE } else { Code::ACCEPTED };
        Ok(Grant { code, lifetime, tunnels, udp_tunnel })
    }

    fn offers(&self, encapsulation: Encapsulation) -> bool {
        encapsulation == Encapsulation::IpInIp || self.settings.encapsulations.contains(&encapsulation)
    }

    /// Checks that a tunnel to node `home` can end at an address, and does not lead back to us.
    fn check_end(&self, end: Ipv4Addr, home: Ipv4Addr) -> Result<(), Code> {
        let is_host =
            !end.is_unspecified() && !end.is_loopback() && !end.is_multicast() && !end.is_broadcast();
        if !is_host || end == home || end == self.settings.address {
            return Err(Code::POORLY_FORMED);
        }
        // Packets for it would come into another node's tunnel, which may lead here.
        if self.nodes.get(end).is_some() { Err(Code::PROHIBITED) } else { Ok(()) }
    }

    /// Returns whether a binding of an earlier run is one that a request could still get.
    pub(super) fn may_go_on(&self, home: Ipv4Addr, binding: &Binding) -> bool {
        let ends = [Some(binding.care_of), binding.udp.map(|udp| *udp.ip())];
        ends.into_iter().flatten().all(|end| self.check_end(end, home).is_ok())
            && self.offers(binding.encapsulation)
            && (binding.udp.is_none() || self.settings.udp_tunnels.is_some())
    }

    /// Returns the answer to a wish for a tunnel in UDP (RFC 3519 §4.4), if there is to be one.
    fn check_udp_tunnel(
        &self,
        wish: Option<UdpTunnelRequest>,
        care_of: Ipv4Addr,
        home: Ipv4Addr,
        source: SocketAddrV4,
    ) -> Result<Option<UdpTunnelReply>, Code> {
        let Some(wish) = wish else { return Ok(None) };
        let has_nat = *source.ip() != care_of;
        let Some(own) = self.settings.udp_tunnels else {
            let declined = UdpTunnelReply { accepted: false, forced: false, keepalive: 0 };
            return if wish.force { Err(Code::NO_UDP_TUNNEL) } else { Ok(has_nat.then_some(declined)) };
        };
        if !has_nat && !wish.force {
            return Ok(None);
        }
        if !has_nat && !own.may_be_forced {
            return Err(Code::NO_UDP_TUNNEL);
        }
        if source.port() == 0 {
            return Err(Code::POORLY_FORMED);
        }
        self.check_end(*source.ip(), home)?;
        Ok(Some(UdpTunnelReply { accepted: true, forced: !has_nat, keepalive: own.keepalive }))
    }
}

/// What a request is granted.
struct Grant {
    code: Code,
    lifetime: u16,
    tunnels: Vec<Binding>,
    udp_tunnel: Option<UdpTunnelReply>,
}
