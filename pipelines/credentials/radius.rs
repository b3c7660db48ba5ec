//! Sockets to RADIUS servers. They never block: the owner of this value polls for answers.

use crate::primitives::OsRandom;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};
use wayfarer_mobility::aaa::radius::{
    client::Client,
    packet::MAX_PACKET_LEN,
    question::{Question, Reply},
};

/// Packets read from one socket in one turn.
const PACKETS: usize = 64;

/// Requests that wait for a RADIUS server, and the sockets on which answers come.
#[derive(Debug)]
pub struct RadiusSockets {
    client: Client,
    sockets: BTreeMap<(SocketAddr, u8), UdpSocket>,
}

impl Default for RadiusSockets {
    fn default() -> Self {
        Self { client: Client::new(Arc::new(OsRandom)), sockets: BTreeMap::new() }
    }
}

impl RadiusSockets {
    /// Sends a question for the peer at address `from`. `id` must be unique among the open
    /// questions.
    pub fn ask(&mut self, now: Duration, id: u64, from: IpAddr, question: Question) {
        self.client.ask(now, id, from, question);
    }

    /// Sends and receives. Makes no system call if no question is open.
    pub fn turn(&mut self, now: Duration) {
        if self.client.is_idle() {
            return;
        }
        let mut buffer = [0; MAX_PACKET_LEN];
        for ((server, number), socket) in &self.sockets {
            for _ in 0..PACKETS {
                // A receive error counts as silence: the client's timeout decides when a server is
                // gone.
                let Ok(length) = socket.recv(&mut buffer) else { break };
                self.client.handle_datagram(*server, *number, buffer.get(..length).unwrap_or_default());
            }
        }
        if self.client.poll_timeout().is_some_and(|at| at <= now) {
            self.client.handle_timeout(now);
        }
        while let Some(transmit) = self.client.poll_transmit() {
            // A request that cannot be sent now is retransmitted later.
            if let Ok(socket) = self.socket(transmit.server, transmit.socket) {
                let _ = socket.send(&transmit.packet);
            }
        }
    }

    /// Returns the next answer with the `id` of its question. The answer is `None` if no server
    /// answered.
    pub fn poll(&mut self) -> Option<(u64, Option<Reply>)> {
        self.client.poll_answer()
    }

    fn socket(&mut self, server: SocketAddr, number: u8) -> io::Result<&UdpSocket> {
        match self.sockets.entry((server, number)) {
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
