//! A terminal that connects to the whole gateway by IKE.

use super::{configured::ike, side::Side};
use crate::{
    sim::{
        fixtures::{OUTSIDE, ip},
        frames::to_gateway,
        terminal::Terminal,
        world::World,
    },
    slow_path::ike::datagram,
};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};
use wayfarer_dataplane::crypto::Backend;
use wayfarer_mobility::{
    ike::{event::Event, pool::Pool, settings::Settings},
    transmit::{Payload, Transmit},
};

/// A terminal.
#[derive(Debug)]
pub struct Peer {
    /// Its protocol.
    pub side: Side,
    address: IpAddr,
    /// Whether its connections may end.
    pub may_end: bool,
}

impl Peer {
    /// Makes the terminal of the first connection of `text` (see [`ike`]), at `address`, whose
    /// randomness depends on that.
    pub fn new(text: &str, address: &str) -> Self {
        let ike = ike(text, address);
        let connections = ike.connections.into_iter().map(|c| c.protocol).collect();
        let pools = ike.pools.iter().map(|pool| Pool::new(pool.first, pool.last)).collect();
        let seed = address.bytes().fold(0, |seed, byte| seed << 8 ^ seed >> 24 ^ u64::from(byte));
        let side = Side::with_pools(connections, pools, Settings::default(), seed);
        Self { side, address: ip(address), may_end: false }
    }

    /// Connects, and waits until its child SA is there.
    pub fn connect(&mut self, world: &mut World) {
        self.side.endpoint.dial(world.now, 0, self.address);
        self.until(world, |peer| !peer.side.children().is_empty());
    }

    /// Carries messages until `done`. The gateway's public-key work is done by threads of its own.
    /// If nothing comes for long, the time of the world goes on, so that what was lost before is
    /// sent again.
    pub fn until(&mut self, world: &mut World, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut silent_since = Instant::now();
        while !done(self) {
            if silent_since.elapsed() > Duration::from_secs(1) {
                world.pass(Duration::from_secs(1));
                silent_since = Instant::now();
            }
            assert!(Instant::now() < deadline, "the terminal cannot connect");
            self.work(world);
            world.settle();
            for packet in world.take(OUTSIDE) {
                if let Some((addresses, message)) = datagram::parse(&packet) {
                    self.side.endpoint.handle_datagram(world.now, addresses, message);
                }
                silent_since = Instant::now();
            }
            std::thread::yield_now();
        }
    }

    fn work(&mut self, world: &mut World) {
        for (addresses, message) in self.side.work(world.now) {
            let transmit = Transmit { addresses, payload: Payload::Message(message) };
            if let Some(packet) = datagram::emit(&transmit) {
                assert!(world.wires[OUTSIDE].send(&to_gateway(OUTSIDE, &packet)));
            }
        }
        assert!(self.may_end || self.side.ends().is_empty(), "it is refused: {:?}", self.side.ends());
    }

    /// Returns the first inner address that it was given.
    ///
    /// # Panics
    /// If it was given none.
    pub fn inner(&self) -> IpAddr {
        let given = |event: &Event| match event {
            Event::Configured { addresses, .. } => addresses.first().copied(),
            _ => None,
        };
        self.side.events.iter().rev().find_map(given).expect("an inner address")
    }

    /// Returns its end of its newest tunnel.
    pub fn tunnel(&self) -> Terminal {
        Terminal::negotiated(self.side.newest_child(), Backend::Portable)
    }
}
