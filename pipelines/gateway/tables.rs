//! What workers read and the slow path changes.

use std::{net::IpAddr, sync::Arc};
use wayfarer_dataplane::{
    port::Mac,
    sa::{Flow, InboundSa, OutboundSa, Selector, Spi},
    table::{Lpm, Map, Reader, Writer},
};

/// All tables of a gateway.
#[derive(Debug)]
pub struct Tables {
    /// Inbound SAs. SPIs are the gateway's own choice, so one number is enough.
    pub inbound: Map<Spi, Arc<InboundSa>>,
    /// Rules by the peer's prefix. The longest prefix with a rule that covers the packet decides; within a prefix, the
    /// order of the configuration.
    pub policies: Lpm<Box<[Rule]>>,
    /// Next hops by destination. A resolved neighbour is a route to its own address.
    pub routes: Lpm<Hop>,
    /// What does not change while the gateway runs.
    pub settings: Settings,
}

/// One rule of the policy database (RFC 4301 §4.4.1).
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it covers.
    pub selector: Selector,
    /// What happens to it.
    pub action: Action,
}

/// What a rule does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sends it through this SA.
    Protect(Arc<OutboundSa>),
    /// Forwards it in clear.
    Bypass,
    /// Drops it.
    Discard,
}

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// It is the gateway's own address.
    Local,
    /// Out by a port to a station.
    Port {
        /// Index of the port.
        port: u16,
        /// The station.
        mac: Mac,
    },
    /// The station's MAC address is not known yet: the slow path must ask for it.
    Resolve {
        /// Index of the port.
        port: u16,
        /// The router to ask for; `None`: the destination itself.
        via: Option<IpAddr>,
    },
}

/// What a worker must know of a port, whoever owns its queues.
#[derive(Clone, Copy, Debug)]
pub struct PortSettings {
    /// The gateway's MAC address on it.
    pub mac: Mac,
    /// Largest IP packet.
    pub mtu: usize,
}

/// Fixed settings.
#[derive(Debug)]
pub struct Settings {
    /// The ports, by index.
    pub ports: Box<[PortSettings]>,
    /// UDP ports on which ESP is taken, sorted.
    pub encap_ports: Box<[u16]>,
    /// Where packets to the gateway's own addresses go that are neither ESP nor control: the port to the host's stack
    /// and the host's MAC address there.
    pub host: Option<(u16, Mac)>,
    /// Whether TCP's MSS is clamped.
    pub mss_clamp: bool,
}

impl Tables {
    /// Empty tables for about `tunnels` tunnels.
    pub fn new(writer: &Writer, tunnels: usize, settings: Settings) -> Self {
        Self {
            inbound: Map::new(writer, tunnels),
            policies: Lpm::new(writer, tunnels),
            routes: Lpm::new(writer, tunnels),
            settings,
        }
    }

    /// The rule that decides over a packet from this side to a peer's.
    #[inline]
    pub fn rule<'r>(&'r self, outbound: &Flow, reader: &'r Reader) -> Option<&'r Rule> {
        self.policies
            .matches(outbound.dst, reader)
            .find_map(|rules| rules.iter().find(|rule| rule.selector.covers(outbound)))
    }

    /// Whether `dst` is the gateway's own address.
    #[inline]
    pub fn is_local(&self, dst: IpAddr, reader: &Reader) -> bool {
        matches!(self.routes.find(dst, reader), Some(Hop::Local))
    }
}
