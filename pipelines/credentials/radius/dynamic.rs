//! The port on which RADIUS servers send requests about connected peers.

use super::sockets::unix_seconds;
use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};
use tracing::{info, warn};
use wayfarer_mobility::{
    aaa::radius::{
        dynamic::{Arrival, Clients, ErrorCause, Request},
        packet::MAX_PACKET_LEN,
    },
    crypto::Secret,
    rate::Rate,
};

/// Time from one look at the socket to the next, and packets read each time: the most that a flood
/// can cost. They are as many as the host usually keeps for a socket. Those of unknown senders are
/// dropped unread, and those of each client have a rate.
const LOOK: Duration = Duration::from_millis(10);
const PACKETS: usize = 256;
/// Time from one line about useless requests to the next, and from one about repeated ones.
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
    notes: Rate,
}

impl DynamicSocket {
    /// Listens at this address of the host for clients with these addresses and secrets. If
    /// `needs_time` is true, requests without Event-Timestamp do not count.
    ///
    /// # Errors
    /// The system's error.
    pub fn listen(
        address: SocketAddr,
        clients: impl IntoIterator<Item = (IpAddr, Secret)>,
        needs_time: bool,
    ) -> io::Result<Self> {
        let listen = || {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let named = |why: io::Error| {
            io::Error::new(why.kind(), format!("cannot listen at {address} for RADIUS servers: {why}"))
        };
        let (socket, clients) = (listen().map_err(named)?, Clients::new(clients, needs_time));
        let (warnings, notes) = Default::default();
        Ok(Self { socket, clients, next_look: Duration::ZERO, left: PACKETS, warnings, notes })
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
            let packet = buffer.get(..length).unwrap_or_default();
            match self.clients.handle(now, unix_seconds(), from, packet) {
                Arrival::New(request) => return Some((from, *request)),
                Arrival::Repeated(answer) => {
                    self.note_repeated(now, from);
                    self.send(from, &answer);
                }
                Arrival::Ignored => {}
                Arrival::Stale => {
                    self.warn(
                        now,
                        from,
                        "its Event-Timestamp is missing, or not our time: compare the clocks",
                    );
                }
                Arrival::TooLong => self.warn(now, from, "its Proxy-State leaves no room for an answer"),
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
        request: &Request,
        result: Result<(), ErrorCause>,
    ) {
        let answer = self.clients.answer(now, request, result);
        self.send(to, &answer);
    }

    /// Sends an answer. If it is lost, the server repeats its request.
    fn send(&self, to: SocketAddr, answer: &[u8]) {
        let _ = self.socket.send_to(answer, to);
    }

    /// Logs that a request is not carried out again. Whoever has seen one may repeat it, so lines are
    /// few.
    fn note_repeated(&mut self, now: Duration, from: SocketAddr) {
        if self.notes.admits(now, 1, WARNING) {
            info!(
                name: "radius_repeated",
                server = %from, "a RADIUS server repeats a request, and gets the same answer"
            );
        }
    }

    /// Logs why a request is ignored. Anybody can send such a request, so lines are few.
    fn warn(&mut self, now: Duration, from: SocketAddr, why: &str) {
        if self.warnings.admits(now, 1, WARNING) {
            warn!(name: "radius_ignored", server = %from, "a request of a RADIUS server is ignored: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Format, recorded};
    use md5::{Digest, Md5};

    const SECRET: &[u8] = b"xyzzy5461";

    /// Returns a request to disconnect a user.
    fn request() -> Vec<u8> {
        let attributes = b"\x01\x07alice";
        let head = [40, 9, 0, 20 + attributes.len() as u8];
        let authenticator = Md5::digest([&head[..], &[0; 16], attributes, SECRET].concat());
        [&head[..], &authenticator, attributes].concat()
    }

    /// Opens a socket for requests of one client, and returns it with its address.
    fn listen() -> (DynamicSocket, SocketAddr) {
        let clients = [([127, 0, 0, 1].into(), Secret::new(SECRET.to_vec()))];
        let socket = DynamicSocket::listen(([127, 0, 0, 1], 0).into(), clients, false).unwrap();
        let address = socket.socket.local_addr().unwrap();
        (socket, address)
    }

    fn sender(from: [u8; 4]) -> UdpSocket {
        UdpSocket::bind((IpAddr::from(from), 0)).unwrap()
    }

    #[test]
    fn packets_of_strangers_delay_no_client() {
        let (mut socket, address) = listen();
        let [stranger, client] = [[127, 0, 0, 2], [127, 0, 0, 1]].map(sender);
        for _ in 0..100 {
            stranger.send_to(&request(), address).unwrap();
        }
        client.send_to(&request(), address).unwrap();
        let from = socket.poll(Duration::ZERO).map(|(from, _)| from);
        assert_eq!(from, Some(client.local_addr().unwrap()));
    }

    #[test]
    fn a_repeated_request_has_a_line_a_minute_and_one_from_another_port_is_new() {
        let (mut socket, address) = listen();
        let [first, second] = [[127, 0, 0, 1]; 2].map(sender);
        let mut send = |now, client: &UdpSocket| {
            let now = Duration::from_secs(now);
            client.send_to(&request(), address).unwrap();
            let mut is_new = false;
            let lines = recorded(Format::Text(false), || {
                if let Some((from, request)) = socket.poll(now) {
                    is_new = true;
                    socket.answer(now, from, &request, Ok(()));
                }
            });
            assert_eq!(client.recv(&mut [0; 100]).unwrap(), 38, "it is answered in any case");
            (is_new, lines.matches("repeats a request").count())
        };
        assert_eq!([send(1, &first), send(2, &first), send(3, &first)], [(true, 0), (false, 1), (false, 0)]);
        assert_eq!([send(4, &second), send(70, &second)], [(true, 0), (true, 0)]);
        assert_eq!(send(71, &second), (false, 1));
    }
}
