//! What home agents cause: updates of those elsewhere, and registrations at the gateway's own.

use super::{
    SlowPath,
    home_agent::{HomeAgent, Registered},
};
use crate::{
    config::model,
    gateway::{classify::REGISTRATION_PORT, input_port::is_from_tunnel, rings::Inject},
};
use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    time::Duration,
};
use wayfarer_dataplane::{
    drop::DropReason,
    wire::datagram::{self, Datagram},
};

impl SlowPath {
    /// Returns the way of an IP packet of ours that must not leave in clear if a tunnel carries it.
    pub(super) fn way_of(&self, packet: &[u8]) -> Inject {
        if self.links.carries(packet) { Inject::Policy } else { Inject::Route }
    }

    /// Handles the IP packet `packet`, which may be a home agent's update.
    ///
    /// # Errors
    /// `NoHomeAgent` if none has this address, `ControlFormat` if it is no update of its.
    pub(super) fn handle_update(&mut self, now: Duration, packet: &[u8]) -> Result<(), DropReason> {
        let Datagram { src, dst, payload } = Datagram::parse(packet).ok_or(DropReason::ControlFormat)?;
        if self.home_agents.knows(src.ip()) {
            // A packet from the new address may have come with the request, right before the update.
            self.handle_events(now);
        }
        let (forwarded, answer) = self.home_agents.receive(now, src.ip(), payload, &mut self.links)?;
        self.handle_links(now);
        let answer = datagram::emit(dst, src, &[&answer]).map(|answer| (self.way_of(&answer), answer));
        let reply = (!forwarded.is_empty()).then_some((Inject::Policy, forwarded));
        // By one worker, so that the reply is not behind what the answer causes.
        let packets: Vec<_> = reply.into_iter().chain(answer).collect();
        self.counters.made.add(packets.len() as u64);
        self.inject_all(packets.iter().map(|(way, packet)| (way.clone(), &packet[..])));
        Ok(())
    }

    /// Starts the home agent of a configuration, if it has one.
    ///
    /// # Errors
    /// Those of its store.
    pub fn start_home_agent(&mut self, config: Option<&model::HomeAgent>) -> io::Result<()> {
        self.home_agent = config.map(|config| HomeAgent::start(config, &mut self.links)).transpose()?;
        Ok(())
    }

    /// Handles the IP packet `packet`, which may be a registration, and came by `port`.
    ///
    /// # Errors
    /// `NoRegistration` if it is none, or not to be answered.
    pub(super) fn handle_registration(
        &mut self,
        now: Duration,
        port: u16,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        if self.home_agent.is_some() {
            // A packet from the new address may have come with the registration.
            self.handle_events(now);
        }
        let Self { home_agent, links, .. } = self;
        let agent = home_agent.as_mut().ok_or(DropReason::NoRegistration)?;
        let Datagram { src, payload, .. } = Datagram::parse(packet).ok_or(DropReason::NoRegistration)?;
        let SocketAddr::V4(source) = src else { return Err(DropReason::NoRegistration) };
        let Registered { home, to, reply, .. } =
            agent.register(now, payload, source, links).map_err(|_| DropReason::NoRegistration)?;
        let from = SocketAddrV4::new(agent.address(), REGISTRATION_PORT);
        self.handle_links(now);
        if let Some(reply) = datagram::emit(from.into(), to.into(), &[&reply]) {
            // Also a denial goes by the link, which has no rule for an address that was not accepted; but not to
            // where a request came from in clear.
            let sa = self.links.sa_of_follower(IpAddr::from(*from.ip()), home.into());
            let sa = sa.filter(|_| is_from_tunnel(port));
            self.inject_made(sa.map_or_else(|| self.way_of(&reply), Inject::By), &reply);
        }
        Ok(())
    }

    /// Ends bindings whose lifetime is over.
    pub(super) fn expire_bindings(&mut self, now: Duration) -> bool {
        let Self { home_agent, links, .. } = self;
        home_agent.as_mut().is_some_and(|agent| agent.expire(now, links))
    }
}
