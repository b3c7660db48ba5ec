//! A terminal that connects to the whole gateway by IKE.

use super::{configured::ike, seeded::Seeded, side::run_tasks};
use crate::{
    primitives::Primitives,
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
    sync::Arc,
    time::{Duration, Instant},
};
use wayfarer_dataplane::crypto::Backend;
use wayfarer_mobility::ike::{
    endpoint::Endpoint,
    event::{ChildSa, Event, Reason},
    pool::Pool,
    settings::Settings,
};

/// A terminal.
#[derive(Debug)]
pub struct Peer {
    endpoint: Endpoint,
    address: IpAddr,
    /// Its child SAs, the newest last.
    pub children: Vec<ChildSa>,
    /// The inner addresses that it was given.
    pub inner: Vec<IpAddr>,
    /// Whether it is connected.
    pub is_up: bool,
    /// Why its connections ended; `None` where none may end.
    pub ends: Option<Vec<Reason>>,
}

impl Peer {
    /// Makes the terminal of the first connection of `text` (see [`ike`]), at `address`.
    pub fn new(text: &str, address: &str) -> Self {
        let ike = ike(text, address);
        let connections = ike.connections.into_iter().map(|c| c.protocol).collect();
        let pools = ike.pools.iter().map(|pool| Pool::new(pool.first, pool.last)).collect();
        let random = Arc::new(Seeded::new(1));
        let endpoint = Endpoint::new(Arc::new(Primitives), random, connections, pools, Settings::default());
        Self { endpoint, address: ip(address), children: vec![], inner: vec![], is_up: false, ends: None }
    }

    /// Connects, and waits until its child SA is there.
    pub fn connect(&mut self, world: &mut World) {
        self.endpoint.dial(world.now, 0, self.address);
        self.until(world, |peer| !peer.children.is_empty());
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
                self.take(world.now, &packet);
                silent_since = Instant::now();
            }
            std::thread::yield_now();
        }
    }

    fn take(&mut self, now: Duration, packet: &[u8]) {
        if let Some((addresses, message)) = datagram::parse(packet) {
            self.endpoint.handle_datagram(now, addresses, message);
        }
    }

    fn work(&mut self, world: &mut World) {
        run_tasks(&mut self.endpoint, world.now);
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::PeerUp { .. } => self.is_up = true,
                Event::PeerDown { reason, .. } => match &mut self.ends {
                    Some(ends) => ends.push(reason),
                    None => panic!("the terminal is refused: {reason:?}"),
                },
                Event::ChildUp { sa, .. } => self.children.push(sa),
                Event::Configured { addresses, .. } => self.inner = addresses,
                _ => {}
            }
        }
        while let Some(transmit) = self.endpoint.poll_transmit() {
            if let Some(packet) = datagram::emit(&transmit) {
                assert!(world.wires[OUTSIDE].send(&to_gateway(OUTSIDE, &packet)));
            }
        }
    }

    /// Returns its end of its newest tunnel.
    pub fn tunnel(&self) -> Terminal {
        Terminal::negotiated(self.children.last().expect("a tunnel"), Backend::Portable)
    }
}
