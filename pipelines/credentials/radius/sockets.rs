//! Sockets to RADIUS servers. They never block.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{SystemTime, UNIX_EPOCH},
};
use wayfarer_mobility::aaa::radius::packet::MAX_PACKET_LEN;

/// Packets read from one socket in one turn.
const PACKETS: usize = 64;

/// Returns the seconds since 1970, by the host's clock.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Sockets by the server that they are connected to, and by number.
#[derive(Debug, Default)]
pub(super) struct ServerSockets(BTreeMap<(SocketAddr, usize), UdpSocket>);

impl ServerSockets {
    /// Passes all packets that have arrived to `handle`, with server and number of their socket. A
    /// receive error counts as silence: a timeout decides when a server is gone.
    pub(super) fn receive(&self, mut handle: impl FnMut(SocketAddr, usize, &[u8])) {
        let mut buffer = [0; MAX_PACKET_LEN];
        for ((server, number), socket) in &self.0 {
            for _ in 0..PACKETS {
                let Ok(length) = socket.recv(&mut buffer) else { break };
                handle(*server, *number, buffer.get(..length).unwrap_or_default());
            }
        }
    }

    /// Closes all sockets but those of these numbers.
    pub(super) fn retain(&mut self, in_use: impl Fn(usize) -> bool) {
        self.0.retain(|(_, number), _| in_use(*number));
    }

    /// Sends a packet by the socket of this number, which is made if necessary. A packet that cannot
    /// be sent now is lost, as on the way: its sender repeats it.
    pub(super) fn send(&mut self, server: SocketAddr, number: usize, packet: &[u8]) {
        if let Ok(socket) = self.socket(server, number) {
            let _ = socket.send(packet);
        }
    }

    fn socket(&mut self, server: SocketAddr, number: usize) -> io::Result<&UdpSocket> {
        match self.0.entry((server, number)) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => {
                let any = match server {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(server)?;
                socket.set_nonblocking(true)?;
                Ok(new.insert(socket))
            }
        }
    }
}
