//! The moves of terminals between networks, some behind NATs of all kinds, some direct. A move is a
//! new mapping; the old one no longer works.
//!
//! A mapping is a terminal's address and UDP port as the Internet sees them. Terminals without a
//! NAT send plain ESP, so their port is 0.

use crate::{
    control::protocol::SaView,
    sim::{
        disturbance::{Attachment, Disturbance, Link, Model},
        fixtures::GATEWAY,
        nat::{Endpoints, Kind, Nat},
        networks::Networks,
    },
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};
use wayfarer_dataplane::wire::esp::NAT_T_PORT;

/// The fate of a packet that the gateway sent to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The packet reached this terminal.
    To(usize),
    /// This terminal left the mapping at this time.
    Left(usize, Instant),
    /// The mapping never existed.
    Unknown,
}

/// All networks, the model of their terminals, and the mappings that terminals left.
#[derive(Debug)]
pub(super) struct Roaming {
    networks: Networks,
    model: Model,
    /// The terminal that left each former mapping, and when.
    left: HashMap<SocketAddr, (usize, Instant)>,
}

/// Number of networks with a NAT.
const NATS: usize = 64;
/// The NATs' time. It stands still: terminals send all the time, so no mapping would expire.
const NOW: Duration = Duration::ZERO;

impl Roaming {
    /// Makes networks with NATs of every kind, and attaches `count` terminals.
    pub(super) fn new(count: u32) -> Self {
        let kinds = Kind::ALL.into_iter().cycle().take(NATS);
        let networks = Networks::new(kinds.map(|kind| Nat::new(GATEWAY, kind)));
        let mut this = Self { networks, model: Model::default(), left: HashMap::new() };
        for terminal in 0..count {
            // 29 is coprime to the number of networks and of choices, so terminals spread over all
            // of them.
            let at = this.attachment(None, terminal.wrapping_mul(29));
            this.networks.attach(at);
            this.model.add(at);
        }
        this
    }

    /// Returns a free attachment, chosen by `pick`, for a terminal behind this NAT or without one.
    fn attachment(&mut self, nat: Option<usize>, pick: u32) -> Attachment {
        let nat = match (pick % 4, nat) {
            (0, _) => None,
            // The same NAT, so the same external address, but another port.
            (1, Some(nat)) => Some(nat),
            _ => Some(pick as usize / 4 % NATS),
        };
        self.networks.vacancy(nat)
    }

    /// Returns the mapping of a terminal.
    pub(super) fn mapping(&mut self, terminal: usize) -> SocketAddr {
        let at = self.networks.attachment(terminal);
        mapping_at(&mut self.networks, terminal, at).expect("a terminal reaches the gateway")
    }

    /// Moves a terminal to another network, or only to another port of its NAT, chosen by `pick`.
    /// Returns its new mapping.
    pub(super) fn move_on(&mut self, now: Instant, terminal: usize, pick: u32) -> SocketAddr {
        let old = self.mapping(terminal);
        let to = self.attachment(self.networks.attachment(terminal).nat, pick);
        let disturbance = Disturbance::Move { terminal, to };
        self.model.apply(&disturbance, |_, _| Link::default());
        self.networks.apply(&disturbance);
        let new = self.mapping(terminal);
        self.left.insert(old, (terminal, now));
        self.left.remove(&new);
        new
    }

    /// Delivers a packet from the gateway to `mapping`, and returns its fate.
    pub(super) fn deliver(&self, mapping: SocketAddr) -> Delivery {
        let from = SocketAddr::new(GATEWAY, if mapping.port() > 0 { NAT_T_PORT } else { 0 });
        match self.networks.inward(NOW, Endpoints { from, to: mapping }) {
            Some((terminal, _)) => Delivery::To(terminal),
            None => match self.left.get(&mapping) {
                Some((terminal, since)) => Delivery::Left(*terminal, *since),
                None => Delivery::Unknown,
            },
        }
    }

    /// Counts the terminals that the gateway does not reach where the model says, if `sas` are
    /// their tunnels.
    pub(super) fn astray(&mut self, sas: &[SaView]) -> usize {
        let Self { networks, model, .. } = self;
        let mut is_followed = |terminal: usize, at: Attachment| {
            let mapping = mapping_at(networks, terminal, at)?;
            let text = if mapping.port() == 0 { mapping.ip().to_string() } else { mapping.to_string() };
            Some(*sas.get(terminal)?.remote.as_ref()? == text)
        };
        model
            .reachable()
            .filter(|(terminal, expected)| is_followed(*terminal, expected.at) != Some(true))
            .count()
    }
}

/// Returns the mapping of a terminal with this attachment; `None` if it has another one.
fn mapping_at(networks: &mut Networks, terminal: usize, at: Attachment) -> Option<SocketAddr> {
    let port = if at.nat.is_some() { NAT_T_PORT } else { 0 };
    let [from, to] = [at.address, GATEWAY].map(|address| SocketAddr::new(address, port));
    Some(networks.outward(NOW, terminal, Endpoints { from, to })?.from)
}
