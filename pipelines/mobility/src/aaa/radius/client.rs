//! A RADIUS client (RFC 2865 §2.5, §3): identifiers, retransmission, and a fair share for each
//! network of peers. Its driver sends and receives the packets.

use super::{
    packet::{AccessRequest, Answer},
    question::{Question, Reply, Server},
};
use crate::{crypto::Random, fair_queue::FairQueue, timers::Timers};
use alloc::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::Arc,
    vec::Vec,
};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Sockets for each server; each has as many identifiers as fit in a byte. This is twice the number
/// of requests at a time, so that an identifier is not reused soon.
pub const SOCKETS: u8 = 4;
/// Requests that may wait for one server. Beyond that, a network with more than its share makes
/// room.
pub const WAITING: usize = 512;

/// The number of a socket, and the identifier of a request that it sent.
type Slot = (u8, u8);

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The server's address.
    pub server: SocketAddr,
    /// Number of the socket to send by, which is used for this server only.
    pub socket: u8,
    /// The packet.
    pub packet: Vec<u8>,
}

/// A question that waits for its answer.
#[derive(Debug)]
struct Pending {
    question: Question,
    /// Address of the peer that the question is about.
    from: IpAddr,
    /// The servers that have not been asked yet.
    servers: VecDeque<usize>,
    request: Option<Request>,
}

/// The request by which a question was sent to a server.
#[derive(Debug)]
struct Request {
    server: usize,
    address: SocketAddr,
    slot: Slot,
    authenticator: [u8; 16],
    packet: Vec<u8>,
    /// Number of times that it may still be sent.
    left: u32,
    /// Time to wait for an answer after each transmission.
    timeout: Duration,
}

/// The requests that wait for one server.
#[derive(Debug, Default)]
struct ServerQueue {
    queue: FairQueue<u64>,
    slots: BTreeMap<Slot, u64>,
    next: u16,
}

impl ServerQueue {
    /// Reserves an identifier that is not in use.
    fn take_slot(&mut self, id: u64) -> Slot {
        loop {
            let number = self.next;
            self.next = (number + 1) % (u16::from(SOCKETS) << 8);
            let slot = ((number >> 8) as u8, number as u8);
            if let Entry::Vacant(free) = self.slots.entry(slot) {
                free.insert(id);
                return slot;
            }
        }
    }
}

/// All requests. Call order: any of [`Client::ask`], [`Client::handle_datagram`] and
/// [`Client::handle_timeout`], then [`Client::poll_transmit`] and [`Client::poll_answer`] until
/// `None`, then [`Client::poll_timeout`].
#[derive(Debug)]
pub struct Client {
    random: Arc<dyn Random>,
    pending: BTreeMap<u64, Pending>,
    servers: BTreeMap<SocketAddr, ServerQueue>,
    /// When each question is to be sent again.
    timers: Timers<u64>,
    transmits: VecDeque<Transmit>,
    answers: VecDeque<(u64, Option<Reply>)>,
}

impl Client {
    /// Creates a client without requests.
    pub fn new(random: Arc<dyn Random>) -> Self {
        Self {
            random,
            pending: BTreeMap::new(),
            servers: BTreeMap::new(),
            timers: Timers::default(),
            transmits: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    /// Returns true if no question waits for an answer.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Asks a question for a peer at `from`. Its answer will have the number `id`.
    pub fn ask(&mut self, now: Duration, id: u64, from: IpAddr, question: Question) {
        let servers = match question.server {
            Some(server) => [server].into(),
            None => question.realm.order().collect(),
        };
        self.pending.insert(id, Pending { question, from, servers, request: None });
        self.ask_next(now, id);
    }

    /// Asks the next server. If there is none, finishes the question without an answer.
    fn ask_next(&mut self, now: Duration, id: u64) {
        self.release_slot(id);
        let Some(pending) = self.pending.get_mut(&id) else { return };
        let (from, realm) = (pending.from, pending.question.realm.clone());
        let server = pending.servers.pop_front();
        let Some((number, server)) = server.and_then(|n| Some((n, realm.servers.get(n)?))) else {
            return self.finish(id, None);
        };
        while self.servers.get(&server.address).is_some_and(|waiting| waiting.queue.len() >= WAITING) {
            let waiting = self.servers.get(&server.address);
            let Some(other) = waiting.and_then(|waiting| waiting.queue.crowded_out_by(from)) else {
                return self.finish(id, None);
            };
            self.finish(other, None);
        }
        let waiting = self.servers.entry(server.address).or_default();
        let slot = waiting.take_slot(id);
        waiting.queue.insert(id, from);
        let mut authenticator = [0; 16];
        self.random.fill(&mut authenticator);
        let Some(pending) = self.pending.get_mut(&id) else { return };
        let packet = emit(&pending.question, slot.1, &authenticator, server);
        pending.request = Some(Request {
            server: number,
            address: server.address,
            slot,
            authenticator,
            packet: packet.clone().unwrap_or_default(),
            left: server.tries.saturating_sub(1),
            timeout: server.timeout,
        });
        let Some(packet) = packet else { return self.finish(id, None) };
        self.timers.set(id, now + server.timeout);
        self.transmits.push_back(Transmit { server: server.address, socket: slot.0, packet });
    }

    /// Frees the slot and the timer that a question holds at the server being asked.
    fn release_slot(&mut self, id: u64) {
        let request = self.pending.get_mut(&id).and_then(|pending| pending.request.take());
        let Some(request) = request else { return };
        self.timers.remove(id);
        if let Some(waiting) = self.servers.get_mut(&request.address) {
            waiting.slots.remove(&request.slot);
            waiting.queue.remove(id);
        }
    }

    fn finish(&mut self, id: u64, reply: Option<Reply>) {
        self.release_slot(id);
        if self.pending.remove(&id).is_some() {
            self.answers.push_back((id, reply));
        }
    }

    /// Handles a packet that a server sent to one of its sockets. Ignores it if it does not answer
    /// a request.
    pub fn handle_datagram(&mut self, server: SocketAddr, socket: u8, packet: &[u8]) {
        let Some(&identifier) = packet.get(1) else { return };
        let waiting = self.servers.get(&server).and_then(|waiting| waiting.slots.get(&(socket, identifier)));
        let Some((id, pending)) = waiting.and_then(|id| Some((*id, self.pending.get(id)?))) else { return };
        let Some(request) = &pending.request else { return };
        let realm = &pending.question.realm;
        let Some(Server { secret, .. }) = realm.servers.get(request.server) else { return };
        let Ok(answer) = Answer::parse(packet, identifier, &request.authenticator, secret) else { return };
        realm.prefer(request.server);
        let reply = Reply {
            server: request.server,
            code: answer.code,
            eap: answer.eap(),
            state: answer.state().map(<[u8]>::to_vec),
            user_name: answer.user_name().map(<[u8]>::to_vec),
            msk: answer.msk(&request.authenticator, secret).ok(),
            grant: answer.grant().ok(),
        };
        self.finish(id, Some(reply));
    }

    /// Handles the timers due at `now`: sends unanswered requests again, or asks the next server.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(id) = self.timers.take_due(now) {
            let Some(pending) = self.pending.get_mut(&id) else { continue };
            let Some(request) = &mut pending.request else { continue };
            if request.left == 0 {
                self.ask_next(now, id);
                continue;
            }
            request.left -= 1;
            self.timers.set(id, now + request.timeout);
            // The same bytes, by which a server recognises the same request (RFC 2865 §3).
            let (server, socket, packet) = (request.address, request.slot.0, request.packet.clone());
            self.transmits.push_back(Transmit { server, socket, packet });
        }
    }

    /// Returns when [`Client::handle_timeout`] must be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers.first()
    }

    /// Returns the next packet to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns the next answer with the number of its question; `None` in its place if no server
    /// answered.
    pub fn poll_answer(&mut self) -> Option<(u64, Option<Reply>)> {
        self.answers.pop_front()
    }
}

/// Encodes the question as a packet; `None` if it does not fit.
fn emit(question: &Question, identifier: u8, authenticator: &[u8; 16], server: &Server) -> Option<Vec<u8>> {
    let request = AccessRequest {
        user_name: &question.user_name,
        nas_identifier: &question.realm.nas_identifier,
        origin: &question.origin,
        state: question.state.as_deref(),
        eap: &question.eap,
    };
    request.emit(identifier, authenticator, &server.secret)
}
