//! Checks of a request, in the order of RFC 5944 §3.8.2 and §3.8.3.

use super::{
    HomeAgent, ReverseTunnel,
    decision::{Decision, Discarded},
    node::Node,
};
use crate::mip::{
    association::Replay,
    binding::{Binding, Bindings},
    wire::{
        Authentication, Body, Code, Encapsulation, Extension, Extensions, Identification, LIFETIME_INFINITE,
        Message, Parties, Request, UdpTunnelReply, UdpTunnelRequest,
    },
};
use core::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

/// What the extensions of a request say. Those behind the node's authenticator are a foreign agent's.
#[derive(Default)]
struct Wishes<'a> {
    /// The node's authenticator, if there is exactly one.
    node: Option<Authentication<'a>>,
    /// The foreign agent's.
    foreign: Option<Authentication<'a>>,
    name: Option<&'a [u8]>,
    udp_tunnel: Option<UdpTunnelRequest>,
    /// Somebody sent a vendor's extension that must be understood.
    vendor: Option<Code>,
}

impl<'a> Wishes<'a> {
    fn of(extensions: &Extensions<'a>) -> Self {
        let (mut wishes, mut by_node, mut by_foreign) = (Self::default(), 0, 0);
        for extension in extensions.iter() {
            let is_nodes = by_node == 0;
            match extension {
                Extension::Authentication(own) if own.parties == Parties::MobileHome => {
                    by_node += 1;
                    wishes.node = Some(own).filter(|_| by_node == 1);
                }
                Extension::Authentication(own) if own.parties == Parties::ForeignHome => {
                    by_foreign += 1;
                    wishes.foreign = Some(own).filter(|_| by_foreign == 1);
                }
                Extension::Nai(name) if is_nodes => wishes.name = Some(name),
                Extension::UdpTunnelRequest(wish) if is_nodes => wishes.udp_tunnel = Some(wish),
                Extension::CriticalVendor => {
                    let code = if is_nodes { Code::NODE_VENDOR } else { Code::FOREIGN_VENDOR };
                    wishes.vendor = wishes.vendor.or(Some(code));
                }
                _ => {}
            }
        }
        wishes
    }
}

impl HomeAgent {
    /// Decides about a datagram from `source`, at a time since 1970. Nothing changes yet.
    ///
    /// # Errors
    /// [`Discarded`] if it is not to be answered.
    pub fn decide(
        &self,
        now: Duration,
        datagram: &[u8],
        source: SocketAddrV4,
    ) -> Result<Decision, Discarded> {
        let message = Message::parse(datagram).map_err(Discarded::Malformed)?;
        let Body::Request(request) = message.body else { return Err(Discarded::Other) };
        let wishes = Wishes::of(&message.extensions);
        let node = match (request.home, wishes.name) {
            (Ipv4Addr::UNSPECIFIED, name) => name.and_then(|name| self.nodes.named(name)),
            (home, _) => self.nodes.get(home),
        };
        let denied = Decision {
            to: source,
            home: node.map_or(request.home, |node| node.home),
            code: Code::NODE_AUTHENTICATION,
            lifetime: 0,
            after: None,
            identification: request.identification,
            spi: wishes.node.map(|own| own.spi),
            name: wishes.name.map(<[u8]>::to_vec),
            udp_tunnel: None,
        };
        let authentic = node.zip(wishes.node).and_then(|(node, own)| {
            let association = node.association(own.spi)?;
            association.has_made(&own).then_some((node, association))
        });
        let Some((node, association)) = authentic else { return Ok(denied) };
        let known = self.bindings.get(&node.home).cloned().unwrap_or_default();
        let (is_next, identification) =
            self.check_identification(now, association.replay, node.home, request.identification, known.last);
        let denied = Decision { code: Code::IDENTIFICATION, identification, ..denied };
        if !is_next {
            return Ok(denied);
        }
        // From here on, the same request is an old one.
        let after = Bindings { last: Some(request.identification), ..known };
        let decided = self.check(now, &request, &wishes, node, &after, source);
        Ok(match decided {
            Ok(Granted { code, lifetime, tunnels, udp_tunnel }) => {
                Decision { code, lifetime, udp_tunnel, after: Some(Bindings { tunnels, ..after }), ..denied }
            }
            Err(code) => Decision { code, after: Some(after), ..denied },
        })
    }

    /// Returns whether a request may come now, and the Identification of its reply (RFC 5944 §5.7).
    fn check_identification(
        &self,
        now: Duration,
        replay: Replay,
        home: Ipv4Addr,
        request: Identification,
        last: Option<Identification>,
    ) -> (bool, Identification) {
        match replay {
            Replay::Timestamps(window) => {
                let clock = Identification::at(now);
                let is_new = last.is_none_or(|last| request.is_after(last));
                let is_next = is_new && request.distance(clock) <= window;
                (is_next, if is_next { request } else { request.with_high(clock.high()) })
            }
            Replay::Nonces => {
                let is_next = request.high() == self.nonce(home, last);
                let next = if is_next { Some(request) } else { last };
                (is_next, request.with_high(self.nonce(home, next)))
            }
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
    ) -> Result<Granted, Code> {
        let settings = &self.settings;
        self.check_foreign_agent(wishes, source)?;
        wishes.vendor.map_or(Ok(()), Err)?;
        let has_other_name = wishes.name.is_some() && wishes.name != node.name.as_deref();
        if request.flags.reserved || has_other_name {
            return Err(Code::POORLY_FORMED);
        }
        if request.agent != settings.address {
            return Err(Code::UNKNOWN_AGENT);
        }
        if request.lifetime == 0 {
            let all = request.care_of == node.home;
            let tunnels = if all { Default::default() } else { known.without(request.care_of) };
            return Ok(Granted { code: Code::ACCEPTED, lifetime: 0, tunnels, udp_tunnel: None });
        }
        self.check_care_of(request.care_of, node.home)?;
        let flags = request.flags;
        match settings.reverse_tunnel {
            ReverseTunnel::Refused if flags.reverse_tunnel => return Err(Code::NO_REVERSE_TUNNEL),
            ReverseTunnel::Required if !flags.reverse_tunnel => return Err(Code::REVERSE_TUNNEL_NEEDED),
            _ => {}
        }
        let udp_tunnel = self.check_udp_tunnel(wishes.udp_tunnel, request.care_of, source)?;
        let in_udp = udp_tunnel.is_some_and(|reply| reply.accepted);
        let asked = wishes.udp_tunnel.filter(|_| in_udp).map(|wish| wish.encapsulation);
        let encapsulation = asked.unwrap_or_else(|| flags.encapsulation());
        if encapsulation != Encapsulation::IpInIp && !settings.encapsulations.contains(&encapsulation) {
            return Err(Code::ENCAPSULATION);
        }
        let lifetime = request.lifetime.min(settings.max_lifetime);
        let is_endless = lifetime == LIFETIME_INFINITE;
        let binding = Binding {
            care_of: request.care_of,
            encapsulation,
            udp: in_udp.then_some(source),
            // A NAT lets nothing but UDP through in either direction.
            reverse_tunnel: flags.reverse_tunnel || in_udp,
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
        Ok(Granted { code, lifetime, tunnels, udp_tunnel })
    }

    /// Checks the authenticator of a foreign agent (RFC 5944 §3.8.2.1). One with which we share nothing has
    /// none that could be checked.
    fn check_foreign_agent(&self, wishes: &Wishes<'_>, source: SocketAddrV4) -> Result<(), Code> {
        let is_right = match self.settings.foreign_agents.get(source.ip()) {
            Some(shared) => wishes.foreign.is_some_and(|own| shared.has_made(&own)),
            None => wishes.foreign.is_none(),
        };
        if is_right { Ok(()) } else { Err(Code::FOREIGN_AUTHENTICATION) }
    }

    /// Checks that a tunnel can end at a care-of address, and does not lead back to us.
    fn check_care_of(&self, care_of: Ipv4Addr, home: Ipv4Addr) -> Result<(), Code> {
        let is_host = !care_of.is_unspecified()
            && !care_of.is_loopback()
            && !care_of.is_multicast()
            && !care_of.is_broadcast();
        if !is_host || care_of == home || care_of == self.settings.address {
            return Err(Code::POORLY_FORMED);
        }
        // Packets for it would come into another node's tunnel, which may lead here.
        if self.nodes.get(care_of).is_some() { Err(Code::PROHIBITED) } else { Ok(()) }
    }

    /// Returns the answer to a wish for a tunnel in UDP (RFC 3519 §4.4), if there is to be one.
    fn check_udp_tunnel(
        &self,
        wish: Option<UdpTunnelRequest>,
        care_of: Ipv4Addr,
        source: SocketAddrV4,
    ) -> Result<Option<UdpTunnelReply>, Code> {
        let Some(wish) = wish else { return Ok(None) };
        let has_nat = *source.ip() != care_of;
        let Some(own) = self.settings.udp_tunnels else {
            let declined = UdpTunnelReply { accepted: false, forced: false, keepalive: 0 };
            return if wish.force { Err(Code::NO_UDP_TUNNEL) } else { Ok(has_nat.then_some(declined)) };
        };
        if !has_nat && wish.force && !own.may_be_forced {
            return Err(Code::NO_UDP_TUNNEL);
        }
        let accepted = UdpTunnelReply { accepted: true, forced: !has_nat, keepalive: own.keepalive };
        Ok((has_nat || wish.force).then_some(accepted))
    }
}

/// What a request is granted.
struct Granted {
    code: Code,
    lifetime: u16,
    tunnels: alloc::vec::Vec<Binding>,
    udp_tunnel: Option<UdpTunnelReply>,
}
