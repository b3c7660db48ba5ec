//! A terminal that connects to the whole gateway by IKE, with its own copy of the protocol.

use super::{GATEWAY, OUTSIDE, STATION, Terminal, World, frame, ip};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use wayfarer::{
    config::{self, model::Ike},
    primitives::Primitives,
};
use wayfarer_dataplane::{
    crypto::{Backend, Key},
    wire::{
        esp,
        ethernet::HEADER,
        ip::{IpHeader, emit, protocol},
        udp,
    },
};
use wayfarer_mobility::ike::{
    address::Addresses,
    endpoint::{Endpoint, Settings},
    event::{ChildSa, Event, Payload, Reason},
    pool::Pool,
};

/// Reads `[[pool]]` and `[[connection]]` of a gateway or a terminal at `address`; `$PSK` is the file of a shared key.
pub fn ike(text: &str, address: &str) -> Ike {
    let ports = format!(
        r#"
[[port]]
name = "outside"
kind = "sink"
addresses = ["{address}/24"]
[[port]]
name = "inside"
kind = "sink"
addresses = ["10.99.0.1/24"]
"#
    );
    let folder = TempDir::new().unwrap();
    let key: PathBuf = folder.path().join("psk");
    fs::write(&key, "a secret of both").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!("{ports}{}", text.replace("$PSK", key.to_str().unwrap()));
    config::parse(&text, &folder.path().join("gateway.toml")).unwrap_or_else(|why| panic!("{why}")).ike
}

/// A terminal.
pub struct Peer {
    endpoint: Endpoint,
    address: IpAddr,
    /// Its child SAs, the newest last.
    pub children: Vec<ChildSa>,
    /// The inner addresses that it was given.
    pub inner: Vec<IpAddr>,
    /// Its name for its IKE SA, once it is connected.
    pub is_up: bool,
    /// Why its connections ended; `None` where none may end.
    pub ends: Option<Vec<Reason>>,
}

impl Peer {
    /// The terminal of the first connection of `text` (see [`ike`]), at `address`.
    pub fn new(text: &str, address: &str) -> Self {
        let ike = ike(text, address);
        let connections = ike.connections.into_iter().map(|c| c.protocol).collect();
        let pools = ike.pools.iter().map(|pool| Pool::new(pool.first, pool.last)).collect();
        let endpoint = Endpoint::new(Arc::new(Primitives), connections, pools, Settings::default());
        Self { endpoint, address: ip(address), children: vec![], inner: vec![], is_up: false, ends: None }
    }

    /// Connects, and waits until its child SA is there.
    pub fn connect(&mut self, world: &mut World) {
        self.endpoint.dial(world.now, 0, self.address);
        self.until(world, |peer| !peer.children.is_empty());
    }

    /// Carries messages until `done`: the gateway's public-key work is done by threads of its own. If nothing comes for long,
    /// the time of the world goes on, so that what was lost before is sent again.
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
        let header = IpHeader::parse(packet).unwrap();
        let datagram = header.payload(packet);
        let Ok(udp) = udp::Udp::parse(datagram) else { return };
        let payload = &datagram[udp::HEADER..udp.length];
        let message = if udp.src_port == esp::IKE_PORT { payload } else { &payload[4..] };
        let addresses = Addresses {
            local: SocketAddr::new(header.dst.into(), udp.dst_port),
            remote: SocketAddr::new(header.src.into(), udp.src_port),
        };
        self.endpoint.handle_datagram(now, addresses, message);
    }

    fn work(&mut self, world: &mut World) {
        while let Some((id, _, task)) = self.endpoint.poll_task() {
            let outcome = task.run(&Primitives);
            self.endpoint.handle_outcome(world.now, id, outcome);
        }
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
            let Payload::Message(message) = &transmit.payload else { continue };
            let Addresses { local, remote } = transmit.addresses;
            let marker: &[u8] = if local.port() == esp::IKE_PORT { &[] } else { &esp::NON_ESP_MARKER };
            let length = udp::HEADER + marker.len() + message.len();
            let mut packet = vec![0; 40];
            let ip_len = emit(&mut packet, local.ip(), remote.ip(), protocol::UDP, length);
            packet.truncate(ip_len);
            packet.resize(ip_len + udp::HEADER, 0);
            let header = udp::Udp { src_port: local.port(), dst_port: remote.port(), length, checksum: 0 };
            header.emit(&mut packet[ip_len..]);
            packet.extend_from_slice(marker);
            packet.extend_from_slice(message);
            assert!(world.wires[OUTSIDE].send(&frame(GATEWAY[OUTSIDE], STATION[OUTSIDE], &packet)));
        }
    }

    /// Its end of its newest tunnel.
    pub fn tunnel(&self) -> Terminal {
        let sa = self.children.last().expect("a tunnel");
        let suite = super::suite("aes256gcm16");
        let key = |key: &[u8]| Key::new(suite, key, Backend::Portable).unwrap();
        Terminal {
            spi_out: sa.spi_out,
            seal: key(&sa.key_out),
            open: key(&sa.key_in),
            esn: sa.suite.esn,
            seq: 0,
            address: self.address,
            port: sa.path.udp.map(|(own, _)| own),
            gateway: sa.path.remote,
            gateway_port: sa.path.udp.map_or(4500, |(_, gateway)| gateway),
        }
    }
}

/// What follows the Ethernet header of each frame.
pub fn packets(frames: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    frames.iter().map(|frame| &frame[HEADER..])
}
