//! Requests of RADIUS servers about peers that are connected: to disconnect them, or to change what
//! was granted to them (RFC 5176).

use super::{
    account::Account,
    attributes::{HEADER, MAX_PACKET_LEN, Received, attribute, message_authenticator, push, seal},
    names::{self, Name, Subject},
};
use crate::{aaa::origin::Origin, crypto::Secret, rate::Rate};
use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const DISCONNECT_REQUEST: u8 = 40;
const COA_REQUEST: u8 = 43;
/// The service type Authorize Only.
const AUTHORIZE_ONLY: [u8; 4] = [0, 0, 0, 17];
/// Most seconds between a request's own time and ours (RFC 5176 §6.3).
pub const MAX_SKEW: u64 = 300;
/// Packets from one client's address that are checked at once, and the time until one more: what
/// somebody who forges that address can cost.
const CHECKED: u32 = 256;
const CHECK_REFILL: Duration = Duration::from_millis(1);
/// Requests of one client that are carried out at once, and the time until one more.
const BURST: u32 = 64;
const REFILL: Duration = Duration::from_millis(50);
/// Time for which a request with Event-Timestamp is remembered: as long as a copy of it could pass for
/// fresh.
const DATED: Duration = Duration::from_secs(2 * MAX_SKEW);
/// Time for which any other is remembered: as long as a client may repeat it, for its next request
/// may look the same (RFC 5176 §2.3 has "a short span of time").
const UNDATED: Duration = Duration::from_secs(30);
/// Most requests of one client that are remembered: more than it can make in that time.
const MAX_REMEMBERED: usize = 16_384;
/// Most bytes of an answer besides Proxy-State: Message-Authenticator and Error-Cause.
const MAX_ANSWER: usize = 18 + 6;

/// Why a request is refused (Error-Cause, RFC 5176 §3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCause {
    /// An attribute cannot be changed, or names no peer.
    UnsupportedAttribute = 401,
    /// The request names no peer, or changes nothing.
    MissingAttribute = 402,
    /// The request is for another gateway.
    NasMismatch = 403,
    /// The server wants to be asked again, which we do not do.
    UnsupportedService = 405,
    /// An attribute has a value that is none.
    InvalidValue = 407,
    /// There is no such peer.
    SessionNotFound = 503,
}

/// The peers that a request is about: those that fit all that it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Attributes that name the gateway.
    gateway: Vec<(u8, Vec<u8>)>,
    /// Attributes that name peers.
    peers: Vec<(u8, Vec<u8>)>,
    /// True if not all peers of a connection or an address are meant.
    is_particular: bool,
}

impl Named {
    /// Returns true if the request is for a gateway with this name and address.
    pub fn is_for(&self, nas_identifier: &str, local: IpAddr) -> bool {
        let own = names::of_gateway(nas_identifier, local);
        self.gateway.iter().all(|wanted| own.into_iter().any(|own| is_same(wanted, own)))
    }

    /// Returns true if the peer of this account is one of those meant. `told` is where servers were
    /// told that it comes from, since they know it by that (RFC 5176 §3).
    pub fn fits<'a>(&self, account: &'a Account, told: impl Iterator<Item = &'a Origin> + Clone) -> bool {
        self.peers.iter().all(|wanted| {
            let origins = told.clone().flat_map(names::of_origin);
            let own = names::of_session(account).into_iter().chain(names::of_inside(account));
            own.chain(origins).any(|own| is_same(wanted, own))
        })
    }
}

fn is_same((kind, wanted): &(u8, Vec<u8>), (own, value): Name<'_>) -> bool {
    *kind == own && **wanted == *value.encode()
}

/// What becomes of the peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// They are disconnected.
    Disconnect,
    /// What was granted to them changes.
    Grant {
        /// Seconds from now on until each is closed; zero: never.
        session_timeout: Option<u32>,
        /// Names of the child SAs that each may have, if that changes.
        filters: Option<Vec<Vec<u8>>>,
    },
}

/// What a server wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The peers.
    pub named: Named,
    /// What becomes of them.
    pub change: Change,
}

/// A request that a client of ours made just now.
#[derive(Clone, Debug)]
pub struct Request {
    client: usize,
    code: u8,
    id: u8,
    authenticator: [u8; 16],
    /// The UDP port from which it came, unless it says when it was made.
    port: Option<u16>,
    /// Attributes that the answer repeats.
    proxy_state: Vec<u8>,
    /// What it wants, or why that cannot be.
    pub demand: Result<Demand, ErrorCause>,
}

/// What becomes of a packet.
#[derive(Debug)]
pub enum Arrival {
    /// It must be carried out, and answered by [`Clients::answer`].
    New(Box<Request>),
    /// It repeats an earlier request, which has this answer.
    Repeated(Vec<u8>),
    /// It is no request of a client, or one of too many.
    Ignored,
    /// It was not made just now, by our clock, or does not say when.
    Stale,
    /// It is not made with the client's secret.
    Forged,
    /// Its Proxy-State leaves no room for an answer.
    TooLong,
}

/// A server that may send requests.
#[derive(Debug)]
struct Client {
    address: IpAddr,
    secret: Secret,
    /// Packets that are checked.
    checks: Rate,
    /// Requests that are carried out.
    requests: Rate,
    /// The last requests with Event-Timestamp, and the last ones without.
    dated: Memory,
    undated: Memory,
}

impl Client {
    /// Returns the memory of requests like this one.
    fn memory(&mut self, request: &Request) -> &mut Memory {
        if request.port.is_none() { &mut self.dated } else { &mut self.undated }
    }
}

/// What tells a request from others: its authenticator, which depends on all that it says, and the
/// port from which it came if it does not say when it was made. Two such requests may be the same,
/// byte by byte, if their client takes another port for each (RFC 5176 §2.3).
type Key = (Option<u16>, [u8; 16]);

/// The requests that were carried out lately.
#[derive(Debug)]
struct Memory {
    /// Time for which each is remembered.
    time: Duration,
    /// The requests, the oldest first, and when each came.
    last: VecDeque<(Duration, Key)>,
    /// What became of each of them.
    results: BTreeMap<Key, Result<(), ErrorCause>>,
}

impl Memory {
    fn new(time: Duration) -> Self {
        Self { time, last: VecDeque::new(), results: BTreeMap::new() }
    }

    /// Returns what became of a request that is remembered.
    fn result(&mut self, now: Duration, request: &Request) -> Option<Result<(), ErrorCause>> {
        self.forget(now);
        self.results.get(&request.key()).copied()
    }

    fn remember(&mut self, now: Duration, request: &Request, result: Result<(), ErrorCause>) {
        self.last.push_back((now, request.key()));
        self.results.insert(request.key(), result);
    }

    /// Forgets requests whose time is over, and so many that there is room for one more.
    fn forget(&mut self, now: Duration) {
        while let Some((at, oldest)) = self.last.front()
            && (*at + self.time <= now || self.last.len() >= MAX_REMEMBERED)
        {
            self.results.remove(oldest);
            self.last.pop_front();
        }
    }
}

/// The servers that may send requests, and the requests that they sent lately.
#[derive(Debug)]
pub struct Clients {
    clients: Vec<Client>,
    /// True if a request must say when it was made.
    needs_time: bool,
}

impl Clients {
    /// Creates clients of these addresses and secrets. If `needs_time` is true, requests without
    /// Event-Timestamp are stale.
    pub fn new(clients: impl IntoIterator<Item = (IpAddr, Secret)>, needs_time: bool) -> Self {
        let client = |(address, secret)| Client {
            address,
            secret,
            checks: Rate::default(),
            requests: Rate::default(),
            dated: Memory::new(DATED),
            undated: Memory::new(UNDATED),
        };
        Self { clients: clients.into_iter().map(client).collect(), needs_time }
    }

    /// Handles a packet from `from`. `seconds` is the time since 1970.
    pub fn handle(&mut self, now: Duration, seconds: u64, from: SocketAddr, packet: &[u8]) -> Arrival {
        let address = from.ip().to_canonical();
        let Some(number) = self.clients.iter().position(|client| client.address == address) else {
            return Arrival::Ignored;
        };
        let Some(client) = self.clients.get_mut(number) else { return Arrival::Ignored };
        if !client.checks.admits(now, CHECKED, CHECK_REFILL) {
            return Arrival::Ignored;
        }
        let Ok(received) = Received::parse(packet) else { return Arrival::Ignored };
        if !matches!(received.code(), DISCONNECT_REQUEST | COA_REQUEST) {
            return Arrival::Ignored;
        }
        let zero = [0; 16];
        if !received.is_made_with(&zero, &client.secret)
            || received.has_valid_tag(&zero, &client.secret) == Some(false)
        {
            return Arrival::Forged;
        }
        let time = received.attributes.number(attribute::EVENT_TIMESTAMP);
        let is_fresh = match time {
            Ok(Some(at)) => seconds.abs_diff(at.into()) <= MAX_SKEW,
            Ok(None) => !self.needs_time,
            Err(_) => false,
        };
        if !is_fresh {
            return Arrival::Stale;
        }
        let mut proxy_state = Vec::new();
        for state in received.attributes.all(attribute::PROXY_STATE) {
            push(&mut proxy_state, attribute::PROXY_STATE, state);
        }
        if HEADER + MAX_ANSWER + proxy_state.len() > MAX_PACKET_LEN {
            return Arrival::TooLong;
        }
        let demand = demand(&received);
        let (code, id, authenticator) = (received.code(), received.id(), *received.authenticator);
        let port = (time == Ok(None)).then_some(from.port());
        let request = Request { client: number, code, id, authenticator, port, proxy_state, demand };
        if let Some(result) = client.memory(&request).result(now, &request) {
            return Arrival::Repeated(request.answer(result, &client.secret));
        }
        match client.requests.admits(now, BURST, REFILL) {
            true => Arrival::New(Box::new(request)),
            false => Arrival::Ignored,
        }
    }

    /// Returns the answer to a request that was carried out, or refused for a reason.
    pub fn answer(&mut self, now: Duration, request: &Request, result: Result<(), ErrorCause>) -> Vec<u8> {
        let Some(client) = self.clients.get_mut(request.client) else { return Vec::new() };
        client.memory(request).remember(now, request, result);
        request.answer(result, &client.secret)
    }
}

impl Request {
    fn key(&self) -> Key {
        (self.port, self.authenticator)
    }

    fn answer(&self, result: Result<(), ErrorCause>, secret: &[u8]) -> Vec<u8> {
        // ACK and NAK follow the request's code.
        let code = self.code + if result.is_ok() { 1 } else { 2 };
        let mut attributes = Vec::new();
        push(&mut attributes, attribute::MESSAGE_AUTHENTICATOR, &[0; 16]);
        if let Err(cause) = result {
            push(&mut attributes, attribute::ERROR_CAUSE, &(cause as u32).to_be_bytes());
        }
        attributes.extend(&self.proxy_state);
        let [high, low] = ((HEADER + attributes.len()) as u16).to_be_bytes();
        let start = [code, self.id, high, low];
        let tag = message_authenticator(&[&start, &self.authenticator, &attributes], secret);
        if let Some(field) = attributes.get_mut(2..18) {
            field.copy_from_slice(&tag);
        }
        seal([code, self.id], &self.authenticator, &attributes, secret).unwrap_or_default()
    }
}

/// Reads what a request wants.
fn demand(request: &Received<'_>) -> Result<Demand, ErrorCause> {
    let is_change = request.code() == COA_REQUEST;
    let mut named = Named::default();
    let (mut session_timeout, mut filters) = (None, Vec::new());
    for (kind, value) in request.attributes {
        if let Some((subject, len)) = names::named_by(kind) {
            if len.is_some_and(|len| len != value.len()) {
                return Err(ErrorCause::InvalidValue);
            }
            let list = if subject == Subject::Gateway { &mut named.gateway } else { &mut named.peers };
            list.push((kind, value.to_vec()));
            named.is_particular |= subject == Subject::Peer;
            continue;
        }
        match kind {
            attribute::FILTER_ID if is_change => filters.push(value.to_vec()),
            attribute::SESSION_TIMEOUT if is_change => {
                let seconds = value.try_into().map_err(|_| ErrorCause::InvalidValue)?;
                session_timeout = Some(u32::from_be_bytes(seconds));
            }
            attribute::SERVICE_TYPE if value == AUTHORIZE_ONLY => return Err(ErrorCause::UnsupportedService),
            attribute::ACCT_TERMINATE_CAUSE if !is_change => {}
            attribute::EVENT_TIMESTAMP
            | attribute::MESSAGE_AUTHENTICATOR
            | attribute::PROXY_STATE
            | attribute::REPLY_MESSAGE => {}
            _ => return Err(ErrorCause::UnsupportedAttribute),
        }
    }
    let filters = (!filters.is_empty()).then_some(filters);
    if !named.is_particular || (is_change && session_timeout.is_none() && filters.is_none()) {
        return Err(ErrorCause::MissingAttribute);
    }
    let change = if is_change { Change::Grant { session_timeout, filters } } else { Change::Disconnect };
    Ok(Demand { named, change })
}

#[cfg(test)]
mod tests;
