//! A simulated terminal: an endpoint of its own that connects and moves.

use super::world::World;
use crate::{
    primitives::{OsRandom, Primitives},
    sim::{
        ike::side::{reversed, run_tasks},
        terminal,
    },
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use wayfarer_dataplane::{crypto::Backend, wire::esp};
use wayfarer_mobility::{
    ike::{
        endpoint::Endpoint,
        event::{ChildId, Event, PeerId},
        settings::Settings,
    },
    transmit::Transmit,
};

/// A terminal's side of a pair of child SAs.
#[derive(Debug)]
pub(super) struct Child {
    id: ChildId,
    /// The SPI of packets to the terminal.
    spi_in: u32,
    /// The terminal's end of the tunnel.
    pub(super) end: terminal::Terminal,
    /// `true` if the terminal sends by it.
    pub(super) is_used: bool,
    /// `true` if a packet of the gateway came by it.
    pub(super) has_received: bool,
}

/// A terminal, with its own endpoint.
#[derive(Debug)]
pub(super) struct Terminal {
    endpoint: Endpoint,
    /// The gateway, once connected.
    peer: Option<PeerId>,
    /// Pairs of child SAs, the newest last.
    pub(super) children: Vec<Child>,
    /// The terminal's inner address.
    pub(super) inner: Option<IpAddr>,
    /// Answers of the gateway to moves, since the last one began.
    pub(super) confirmed: u32,
    /// Pairs of child SAs made so far, including the first one.
    pub(super) children_made: u32,
}

impl Terminal {
    /// Makes terminal number `index`.
    pub(super) fn new(world: &World, index: u32) -> Self {
        let connection = world.terminal(index);
        Self {
            endpoint: Endpoint::new(
                Arc::new(Primitives),
                Arc::new(OsRandom),
                vec![connection],
                vec![],
                Settings::default(),
            ),
            peer: None,
            children: vec![],
            inner: None,
            confirmed: 0,
            children_made: 0,
        }
    }

    /// Begins to connect from this outer address.
    pub(super) fn connect(&mut self, now: Duration, address: IpAddr) {
        self.endpoint.dial(now, 0, address);
    }

    /// Returns whether the terminal can send and receive.
    pub(super) fn is_connected(&self) -> bool {
        self.peer.is_some() && !self.children.is_empty()
    }

    /// Moves to this outer address, and tells the gateway.
    pub(super) fn move_to(&mut self, now: Duration, address: IpAddr) {
        if let Some(peer) = self.peer {
            self.endpoint.handle_local(now, peer, address, None).expect("all addresses are of one family");
        }
        // The terminal's own report of its move comes out first, before the gateway knows.
        self.work(now);
        self.confirmed = 0;
    }

    /// Runs due timers.
    pub(super) fn pass(&mut self, now: Duration) {
        self.endpoint.handle_timeout(now);
        self.work(now);
    }

    /// Opens an ESP packet from the gateway; returns `None` on failure.
    pub(super) fn open(&mut self, now: Duration, packet: &[u8]) -> Option<()> {
        let (spi, _) = esp::header(terminal::esp_in(packet)?.1)?;
        let child = self.children.iter_mut().find(|child| child.spi_in == spi)?;
        child.end.try_open(packet)?;
        if let (false, Some(peer)) = (child.has_received, self.peer) {
            child.has_received = true;
            self.endpoint.handle_child_used(now, peer, child.id);
            self.work(now);
        }
        Some(())
    }

    /// Changes the keys of its child SAs.
    pub(super) fn rekey(&mut self, now: Duration) {
        if let Some(peer) = self.peer {
            self.endpoint.rekey(now, peer, false);
        }
    }

    /// Returns the terminal's identity, as the gateway displays it.
    pub(super) fn name(&self) -> String {
        self.endpoint.connections().next().map_or_else(String::new, |(_, own)| own.local_id.to_string())
    }

    /// Handles a message from the gateway.
    pub(super) fn handle(&mut self, now: Duration, from_gateway: &Transmit) {
        if let wayfarer_mobility::transmit::Payload::Message(message) = &from_gateway.payload {
            self.endpoint.handle_datagram(now, reversed(from_gateway.addresses), message);
        }
    }

    /// Returns the messages that the terminal sends.
    pub(super) fn send(&mut self, now: Duration) -> impl Iterator<Item = Transmit> {
        self.work(now);
        std::iter::from_fn(|| self.endpoint.poll_transmit())
    }

    fn work(&mut self, now: Duration) {
        run_tasks(&mut self.endpoint, now);
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::PeerUp { peer, .. } => self.peer = Some(peer),
                Event::PeerDown { .. } => self.peer = None,
                Event::ChildUp { child, sa, .. } => {
                    let end = terminal::Terminal::negotiated(&sa, Backend::detect());
                    let (spi_in, is_used) = (sa.spi_in, sa.send);
                    self.children.push(Child { id: child, spi_in, end, is_used, has_received: false });
                    self.children_made += 1;
                }
                Event::ChildUse { child } => {
                    self.children
                        .iter_mut()
                        .filter(|known| known.id == child)
                        .for_each(|child| child.is_used = true);
                }
                Event::ChildDown { child } => self.children.retain(|known| known.id != child),
                Event::Configured { addresses, .. } => self.inner = addresses.first().copied(),
                Event::PeerMoved { .. } => self.confirmed += 1,
                _ => {}
            }
        }
    }
}
