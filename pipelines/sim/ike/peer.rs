//! A terminal that connects to the whole gateway by IKE.

use super::{
    configured::ike,
    side::{Message, Side},
};
use crate::{
    config::model::Ike,
    sim::{
        fixtures::{OUTSIDE, ip},
        frames::{fragments, joined, to_gateway},
        terminal::Terminal,
        world::World,
    },
    slow_path::ike::datagram,
};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};
use wayfarer_dataplane::{
    crypto::Backend,
    wire::ip::{Fragment, IpHeader},
};
use wayfarer_mobility::{
    ike::{event::Event, pool::Pool, settings::Settings},
    transmit::{Payload, Transmit},
};

/// A terminal that connects by IKE.
#[derive(Debug)]
pub struct Peer {
    /// The terminal's side of IKE.
    pub side: Side,
    address: IpAddr,
    /// The MTU of the path to the gateway.
    mtu: usize,
    /// The number of messages that were sent.
    sent: u16,
    /// The number of IP fragments from the gateway that arrived.
    pub fragments: u64,
    /// The length of the longest packet from the gateway that arrived, in bytes.
    pub longest: usize,
    /// `true` if connections may end.
    pub may_end: bool,
}

impl Peer {
    /// Makes a terminal at `address` with the connections of `text` (see [`ike`]). Its randomness
    /// depends on the address.
    pub fn new(text: &str, address: &str) -> Self {
        Self::with(ike(text, address), address)
    }

    /// Makes a terminal at `address` with these connections.
    pub fn with(ike: Ike, address: &str) -> Self {
        let connections = ike.connections.into_iter().map(|c| c.protocol).collect();
        let pools = ike.pools.iter().map(|pool| Pool::new(pool.first, pool.last).named(&pool.name)).collect();
        let seed = address.bytes().fold(0, |seed, byte| seed << 8 ^ seed >> 24 ^ u64::from(byte));
        let side = Side::with_pools(connections, pools, Settings::default(), seed);
        Self { side, address: ip(address), mtu: 1500, sent: 0, fragments: 0, longest: 0, may_end: false }
    }

    /// Puts a path with this MTU between the terminal and the gateway. Its routers cut packets that
    /// may be cut, and drop others.
    pub fn behind(self, mtu: usize) -> Self {
        Self { mtu, ..self }
    }

    /// Connects by the first connection, and waits for a child SA.
    pub fn connect(&mut self, world: &mut World) {
        self.side.endpoint.dial(world.now, 0, self.address);
        self.until(world, |peer| !peer.side.children().is_empty());
    }

    /// Carries messages until `done`. The gateway's helper threads do its public-key work in real
    /// time. If nothing comes for a second, virtual time advances, so that lost messages are sent
    /// again.
    pub fn until(&mut self, world: &mut World, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut silent_since = Instant::now();
        while !done(self) {
            if silent_since.elapsed() > Duration::from_secs(1) {
                world.pass(Duration::from_secs(1));
                silent_since = Instant::now();
            }
            assert!(Instant::now() < deadline, "the terminal cannot connect");
            let messages = self.side.work(world.now);
            self.send(world, messages);
            if self.receive(world) {
                silent_since = Instant::now();
            }
            std::thread::yield_now();
        }
    }

    /// Takes what the gateway sends, and returns whether that was anything.
    pub fn receive(&mut self, world: &mut World) -> bool {
        world.settle();
        let mut packets = world.take(OUTSIDE);
        let passes = |packet: &[u8]| {
            IpHeader::parse(packet).is_ok_and(|header| !header.dont_fragment || packet.len() <= self.mtu)
        };
        packets.retain(|packet| passes(packet));
        self.longest = packets.iter().map(Vec::len).fold(self.longest, usize::max);
        let is_fragment = |packet: &&Vec<u8>| {
            IpHeader::parse(packet).is_ok_and(|header| header.fragment != Fragment::Whole)
        };
        self.fragments += packets.iter().filter(is_fragment).count() as u64;
        let packets = joined(packets);
        for packet in &packets {
            if let Some((addresses, message)) = datagram::parse(packet) {
                self.side.endpoint.handle_datagram(world.now, addresses, message);
            }
        }
        !packets.is_empty()
    }

    /// Sends messages of the terminal.
    ///
    /// # Panics
    /// If a connection has ended that may not.
    pub fn send(&mut self, world: &mut World, messages: Vec<Message>) {
        for (addresses, message) in messages {
            let transmit = Transmit { addresses, payload: Payload::Message(message) };
            let Some(packet) = datagram::emit(&transmit) else { continue };
            self.sent = self.sent.wrapping_add(1);
            let packets =
                if packet.len() > self.mtu { fragments(&packet, self.mtu, self.sent) } else { vec![packet] };
            for packet in packets {
                assert!(world.wires[OUTSIDE].send(&to_gateway(OUTSIDE, &packet)));
            }
        }
        let reasons = self.side.end_reasons();
        assert!(self.may_end || reasons.is_empty(), "the terminal's connection ended: {reasons:?}");
    }

    /// Returns the first inner address that the gateway assigned.
    ///
    /// # Panics
    /// If it assigned none.
    pub fn inner(&self) -> IpAddr {
        let given = |event: &Event| match event {
            Event::Configured { addresses, .. } => addresses.first().copied(),
            _ => None,
        };
        self.side.events.iter().rev().find_map(given).expect("an inner address")
    }

    /// Returns the terminal's end of the newest tunnel.
    pub fn tunnel(&self) -> Terminal {
        Terminal::negotiated(self.side.newest_child(), Backend::Portable)
    }
}
