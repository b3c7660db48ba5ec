//! Questions to RADIUS servers. The owner of this value polls for answers.

use super::sockets::ServerSockets;
use crate::primitives::OsRandom;
use std::{net::IpAddr, sync::Arc, time::Duration};
use wayfarer_mobility::aaa::radius::{
    client::Client,
    question::{Question, Reply},
};

/// Requests that wait for a RADIUS server, and the sockets on which answers come.
#[derive(Debug)]
pub struct RadiusSockets {
    client: Client,
    sockets: ServerSockets,
}

impl Default for RadiusSockets {
    fn default() -> Self {
        Self { client: Client::new(Arc::new(OsRandom)), sockets: ServerSockets::default() }
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
        self.sockets.receive(|server, number, packet| {
            self.client.handle_datagram(server, number as u8, packet);
        });
        if self.client.poll_timeout().is_some_and(|at| at <= now) {
            self.client.handle_timeout(now);
        }
        while let Some(transmit) = self.client.poll_transmit() {
            self.sockets.send(transmit.server, transmit.socket.into(), &transmit.packet);
        }
    }

    /// Returns the next answer with the `id` of its question. The answer is `None` if no server
    /// answered.
    pub fn poll(&mut self) -> Option<(u64, Option<Reply>)> {
        self.client.poll_answer()
    }
}
