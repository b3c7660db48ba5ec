//! The home agent's half of registration (RFC 5944 §3.8).
//!
//! [`HomeAgent::decide`] says what becomes of a request, and changes nothing. The driver then stores what
//! the [`Decision`] would change, and has it carried out, or denied if it cannot be stored. So no binding is
//! confirmed that a restart would forget. There is one decision at a time, so each is made with the last one's
//! effect.

mod checks;
mod decision;
mod node;

#[cfg(test)]
mod tests;

pub use decision::RequestError;
pub use node::{Node, Nodes};

use super::{
    association::{Association, NumberKey},
    binding::{Binding, Bindings},
    wire::{Body, Code, Encapsulation, Extension, Identification, Parties, Reply, push},
};
use crate::{crypto::Random, timers::Timers};
use alloc::{collections::BTreeMap, vec::Vec};
use core::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};
use decision::Draft;

/// Whether packets from nodes come by their tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReverseTunnel {
    /// Never.
    Refused,
    /// If the node wants it.
    #[default]
    Allowed,
    /// Always.
    Required,
}

/// Tunnels in UDP (RFC 3519).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpTunnels {
    /// The time between a node's keepalives in seconds; 0 leaves it to the node.
    pub keepalive: u16,
    /// Nodes may have one although there is no NAT.
    pub may_be_forced: bool,
}

/// What a home agent does.
#[derive(Debug)]
pub struct Settings {
    /// Its address.
    pub address: Ipv4Addr,
    /// The longest lifetime of a binding in seconds; [`u16::MAX`] allows those without an end.
    pub max_lifetime: u16,
    /// The most bindings of a node; at least one.
    pub max_bindings: usize,
    /// Whether packets from nodes come by their tunnels.
    pub reverse_tunnel: ReverseTunnel,
    /// The encapsulations besides IP in IP, which is always possible.
    pub encapsulations: Vec<Encapsulation>,
    /// Tunnels in UDP; `None` for none.
    pub udp_tunnels: Option<UdpTunnels>,
    /// The foreign agents with which it shares an association, by their addresses.
    pub foreign_agents: BTreeMap<Ipv4Addr, Association>,
}

/// What has changed for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its home address.
    pub home: Ipv4Addr,
    /// The tunnels to it before.
    pub before: Vec<Binding>,
    /// The tunnels to it now.
    pub after: Vec<Binding>,
}

/// A home agent.
#[derive(Debug)]
pub struct HomeAgent {
    settings: Settings,
    nodes: Nodes,
    bindings: BTreeMap<Ipv4Addr, Bindings>,
    /// When the next binding of a node ends, since 1970.
    ends: Timers<Ipv4Addr>,
    /// Makes nonces. Another one in each run, after which nodes are told their nonces again.
    nonces: NumberKey,
}

impl HomeAgent {
    /// Creates a home agent of `nodes` that has `bindings`, of an earlier run, as far as they are still allowed.
    pub fn new(
        settings: Settings,
        nodes: Nodes,
        bindings: BTreeMap<Ipv4Addr, Bindings>,
        random: &dyn Random,
    ) -> Self {
        let (ends, nonces) = (Timers::default(), NumberKey::new(random));
        let mut this = Self { settings, nodes, bindings: BTreeMap::new(), ends, nonces };
        for (home, mut known) in bindings {
            if this.nodes.get(home).is_some() {
                known.tunnels.retain(|binding| this.may_go_on(home, binding));
                this.bindings.insert(home, known);
                this.set_timer(home);
            }
        }
        this
    }

    /// Returns what is known of a node that has registered.
    pub fn bindings(&self, home: Ipv4Addr) -> Option<&Bindings> {
        self.bindings.get(&home)
    }

    /// Returns the nodes that have registered, and what is known of them, in the order of their addresses.
    pub fn all(&self) -> impl Iterator<Item = (Ipv4Addr, &Bindings)> {
        self.bindings.iter().map(|(home, bindings)| (*home, bindings))
    }

    /// Returns when a binding ends next, since 1970.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.ends.first()
    }

    /// Ends the bindings whose lifetime is over. Returns what has changed.
    pub fn handle_timeout(&mut self, now: Duration) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(home) = self.ends.take_due(now) {
            if let Some(bindings) = self.bindings.get_mut(&home) {
                let before = bindings.tunnels.clone();
                if bindings.expire(now) {
                    changes.push(Change { home, before, after: bindings.tunnels.clone() });
                }
            }
            self.set_timer(home);
        }
        changes
    }

    /// Ends the bindings of a node, which others have replaced. Returns what has changed.
    pub fn end(&mut self, home: Ipv4Addr) -> Option<Change> {
        let before = core::mem::take(&mut self.bindings.get_mut(&home)?.tunnels);
        self.set_timer(home);
        (!before.is_empty()).then_some(Change { home, before, after: Vec::new() })
    }

    fn set_timer(&mut self, home: Ipv4Addr) {
        let bindings = self.bindings.get(&home);
        match bindings.and_then(|all| all.tunnels.iter().filter_map(|binding| binding.ends).min()) {
            Some(first) => self.ends.set(home, first),
            None => self.ends.remove(home),
        }
    }

    /// Encodes the reply to a request.
    fn reply(&self, draft: &Draft) -> Vec<u8> {
        let Draft { code, lifetime, home, identification, .. } = *draft;
        let lifetime = if code.is_accepted() { lifetime } else { 0 };
        let reply = Reply { code, lifetime, home, agent: self.settings.address, identification };
        let mut message = Body::Reply(reply).emit();
        // A name that has come in an extension fits into one.
        draft.name.iter().for_each(|name| _ = push(&mut message, &Extension::Nai(name)));
        if let Some(udp_tunnel) = draft.udp_tunnel {
            push(&mut message, &Extension::UdpTunnelReply(udp_tunnel));
        }
        if let Some(own) = self.nodes.get(home).and_then(|node| node.association(draft.spi)) {
            own.authenticate(&mut message, Parties::MobileHome);
        }
        if let Some(foreign) = self.settings.foreign_agents.get(draft.to.ip()) {
            foreign.authenticate(&mut message, Parties::ForeignHome);
        }
        message
    }

    /// Returns the upper half that the next request of a node must have if it is by nonces: another one after
    /// each request that was the next one. So it need not be remembered, and old requests use none up.
    fn nonce(&self, home: Ipv4Addr, last: Option<Identification>) -> u32 {
        let last = last.map_or(0, |last| last.0);
        self.nonces.number(&[&home.octets(), &last.to_be_bytes()]) as u32
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub struct Decision<'a> {
    agent: &'a mut HomeAgent,
    draft: Draft,
}

impl Decision<'_> {
    /// Returns where the reply goes.
    pub fn to(&self) -> SocketAddrV4 {
        self.draft.to
    }

    /// Returns the node's home address.
    pub fn home(&self) -> Ipv4Addr {
        self.draft.home
    }

    /// Returns what the reply says.
    pub fn code(&self) -> Code {
        self.draft.code
    }

    /// Returns the node's home address, and what is to be stored of it before it is told; `None` if that stays
    /// as it is.
    pub fn to_store(&self) -> Option<(Ipv4Addr, &Bindings)> {
        self.draft.after.as_ref().map(|after| (self.draft.home, after))
    }

    /// Carries it out, be it a denial. Returns the reply, and what has changed.
    pub fn carry_out(self) -> (Vec<u8>, Option<Change>) {
        let Self { agent, draft } = self;
        let (reply, home) = (agent.reply(&draft), draft.home);
        let Some(after) = draft.after else { return (reply, None) };
        let known = agent.bindings.entry(home).or_default();
        let before = core::mem::replace(known, after.clone()).tunnels;
        agent.set_timer(home);
        let change = Change { home, before, after: after.tunnels };
        (reply, (change.before != change.after).then_some(change))
    }

    /// Denies what was to be accepted. Returns the reply.
    pub fn deny(self, code: Code) -> Vec<u8> {
        let Self { agent, draft } = self;
        let denied = Draft { code, udp_tunnel: None, ..draft };
        if let Some(after) = &denied.after {
            agent.bindings.entry(denied.home).or_default().last = after.last;
        }
        agent.reply(&denied)
    }
}
