//! A terminal that connects to the whole gateway by IKE.

use super::{configured::ike, side::run_tasks};
use crate::{
    primitives::{OsRandom, Primitives},
    sim::{
        fixtures::{OUTSIDE, ip, suite},
        frames::to_gateway,
        terminal::{Terminal, key},
        world::World,
    },
    slow_path::ike::datagram,
};
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use wayfarer_mobility::ike::{
    endpoint::Endpoint,
    event::{ChildSa, Event, Reason},
    pool::Pool,
    settings::Settings,
};

/// A terminal that connects by IKE.
#[derive(Debug)]
pub struct Peer {
    endpoint: Endpoint,
    address: IpAddr,
    /// Child SAs that came up, the newest last.
    pub children: Vec<ChildSa>,
    /// Inner addresses that the gateway assigned.
    pub inner: Vec<IpAddr>,
    /// `true` if the terminal has connected.
    pub is_up: bool,
    /// Reasons why connections ended; `None` if none may end.
    pub end_reasons: Option<Vec<Reason>>,
}

impl Peer {
    /// Makes a terminal at `address` with the connections of `text` (see [`ike`]).
    pub fn new(text: &str, address: &str) -> Self {
        let ike = ike(text, address);
        let connections = ike.connections.into_iter().map(|c| c.protocol).collect();
        let pools = ike.pools.iter().map(|pool| Pool::new(pool.first, pool.last)).collect();
        let endpoint =
            Endpoint::new(Arc::new(Primitives), Arc::new(OsRandom), connections, pools, Settings::default());
        Self {
            endpoint,
            address: ip(address),
            children: vec![],
            inner: vec![],
            is_up: false,
            end_reasons: None,
        }
    }

    /// Connects by the first connection, and waits for a child SA.
    pub fn connect(&mut self, world: &mut World) {
        self.endpoint.dial(world.now, 0, self.address);
        self.until(world, |peer| !peer.children.is_empty());
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
                Event::PeerDown { reason, .. } => match &mut self.end_reasons {
                    Some(reasons) => reasons.push(reason),
                    None => panic!("the terminal's connection ended: {reason:?}"),
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

    /// Returns the terminal's end of the newest tunnel.
    pub fn tunnel(&self) -> Terminal {
        let sa = self.children.last().expect("a child SA is up");
        let suite = suite("aes256gcm16");
        Terminal {
            spi_out: sa.spi_out,
            seal: key(suite, &sa.key_out),
            open: key(suite, &sa.key_in),
            esn: sa.suite.esn,
            seq: 0,
            address: self.address,
            port: sa.path.udp.map(|(own, _)| own),
            gateway: sa.path.remote,
            gateway_port: sa.path.udp.map_or(4500, |(_, gateway)| gateway),
        }
    }
}
