//! The port on which RADIUS servers send requests about connected peers.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tracing::warn;
use wayfarer_mobility::{
    aaa::radius::{
        dynamic::{Arrival, Clients, ErrorCause, Request},
        packet::MAX_PACKET_LEN,
    },
    crypto::Secret,
    rate::Rate,
};

/// Time from one look at the socket to the next, and packets read each time: the most that a flood
/// can cost.
const LOOK: Duration = Duration::from_millis(10);
const PACKETS: usize = 16;
/// Time from one line about useless requests to the next.
const WARNING: Duration = Duration::from_secs(60);

/// The socket, and the servers that may send to it.
#[derive(Debug)]
pub struct DynamicSocket {
    socket: UdpSocket,
    clients: Clients,
    next_look: Duration,
    /// Packets that may still be read in this look.
    left: usize,
    warnings: Rate,
}

impl DynamicSocket {
    /// Listens at this address of the host for clients with these addresses and secrets.
    ///
    /// # Errors
    /// The system's error.
    pub fn listen(
        address: SocketAddr,
        clients: impl IntoIterator<Item = (IpAddr, Secret)>,
    ) -> io::Result<Self> {
        let listen = || {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let named = |why: io::Error| {
            io::Error::new(why.kind(), format!("cannot listen at {address} for RADIUS servers: {why}"))
        };
        let (socket, clients) = (listen().map_err(named)?, Clients::new(clients));
        Ok(Self { socket, clients, next_look: Duration::ZERO, left: PACKETS, warnings: Rate::default() })
    }

    /// Returns the next request, and where its answer goes. Answers repeated requests itself.
    pub fn poll(&mut self, now: Duration) -> Option<(SocketAddr, Request)> {
        let mut buffer = [0; MAX_PACKET_LEN];
        while self.next_look <= now {
            let received = self.socket.recv_from(&mut buffer);
            self.left -= 1;
            if received.is_err() || self.left == 0 {
                (self.left, self.next_look) = (PACKETS, now + LOOK);
            }
            let (length, from) = received.ok()?;
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let packet = buffer.get(..length).unwrap_or_default();
            match self.clients.handle(now, seconds, from.ip(), packet) {
                Arrival::New(request) => return Some((from, *request)),
                Arrival::Repeated(answer) => self.send(from, &answer),
                Arrival::Ignored => {}
                Arrival::Stale => self.warn(now, from, "its time is not ours: compare the clocks"),
                Arrival::Forged => self.warn(now, from, "it was not made with the secret of this client"),
            }
        }
        None
    }

    /// Answers a request from `to` that was carried out, or refused for a reason.
    pub fn answer(
        &mut self,
        now: Duration,
        to: SocketAddr,
        request: Request,
        result: Result<(), ErrorCause>,
    ) {
        let answer = self.clients.answer(now, request, result);
        self.send(to, &answer);
    }

    /// Sends an answer. If it is lost, the server repeats its request.
    fn send(&self, to: SocketAddr, answer: &[u8]) {
        let _ = self.socket.send_to(answer, to);
    }

    /// Logs why a request is ignored. Anybody can send such a request, so lines are few.
    fn warn(&mut self, now: Duration, from: SocketAddr, why: &str) {
        if self.warnings.admits(now, 1, WARNING) {
            warn!(name: "radius_ignored", %from, "a request of a RADIUS server is ignored: {why}");
        }
    }
}
