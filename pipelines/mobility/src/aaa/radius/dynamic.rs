//! Requests of RADIUS servers about peers that are connected: to disconnect them, or to change what
//! was granted to them (RFC 5176).

use super::{
    attributes::{HEADER, Received, attribute, message_authenticator, push, seal},
    record::Account,
};
use crate::{crypto::Secret, rate::Rate};
use alloc::{boxed::Box, collections::VecDeque, string::ToString, vec::Vec};
use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

const DISCONNECT_REQUEST: u8 = 40;
const COA_REQUEST: u8 = 43;
/// The service type Authorize Only.
const AUTHORIZE_ONLY: [u8; 4] = [0, 0, 0, 17];
/// Most seconds between a request's own time and ours (RFC 5176 §6.3).
pub const MAX_SKEW: u64 = 300;
/// Requests of one client that are carried out at once, and the time until one more.
const BURST: u32 = 64;
const REFILL: Duration = Duration::from_millis(50);
/// Time for which a request is remembered: as long as a copy of it could pass for fresh.
const MEMORY: Duration = Duration::from_secs(2 * MAX_SKEW);
/// Most requests of one client that are remembered: more than it can make in that time.
const MAX_REMEMBERED: usize = 16_384;

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
    session: Vec<Vec<u8>>,
    user: Vec<Vec<u8>>,
    inner: Vec<IpAddr>,
    called: Vec<Vec<u8>>,
    calling: Vec<Vec<u8>>,
    port: Vec<Vec<u8>>,
    nas_identifier: Vec<Vec<u8>>,
    nas: Vec<IpAddr>,
}

impl Named {
    /// Returns true if the request is for a gateway with this name and address.
    pub fn is_for(&self, nas_identifier: &str, local: IpAddr) -> bool {
        self.nas_identifier.iter().all(|name| name == nas_identifier.as_bytes())
            && self.nas.iter().all(|address| *address == local)
    }

    /// Returns true if the peer of this account is one of those meant, at a gateway that is meant.
    pub fn fits(&self, account: &Account) -> bool {
        let (called, calling) = (account.origin.local.to_string(), account.origin.remote.to_string());
        [
            (&self.session, account.id.as_bytes()),
            (&self.user, &account.user_name),
            (&self.called, called.as_bytes()),
            (&self.calling, calling.as_bytes()),
            (&self.port, account.origin.connection.as_bytes()),
        ]
        .into_iter()
        .all(|(wanted, own)| wanted.iter().all(|one| one == own))
            && self.inner.iter().all(|address| account.inner.contains(address))
    }

    /// Returns true if it names no peer in particular.
    fn is_empty(&self) -> bool {
        let lists = [&self.session, &self.user, &self.calling];
        lists.into_iter().all(Vec::is_empty) && self.inner.is_empty()
    }
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
    /// It was not made just now, by our clock.
    Stale,
    /// It is not made with the client's secret.
    Forged,
}

/// A server that may send requests.
#[derive(Debug)]
struct Client {
    address: IpAddr,
    secret: Secret,
    rate: Rate,
    /// The last requests: when each came, its authenticator, and the answer.
    last: VecDeque<(Duration, [u8; 16], Vec<u8>)>,
}

/// The servers that may send requests, and the requests that they sent lately.
#[derive(Debug)]
pub struct Clients(Vec<Client>);

impl Clients {
    /// Creates clients of these addresses and secrets.
    pub fn new(clients: impl IntoIterator<Item = (IpAddr, Secret)>) -> Self {
        let client = |(address, secret)| {
            let (rate, last) = (Rate::default(), VecDeque::new());
            Client { address, secret, rate, last }
        };
        Self(clients.into_iter().map(client).collect())
    }

    /// Handles a packet from `from`. `seconds` is the time since 1970.
    pub fn handle(&mut self, now: Duration, seconds: u64, from: IpAddr, packet: &[u8]) -> Arrival {
        let from = from.to_canonical();
        let Some(number) = self.0.iter().position(|client| client.address == from) else {
            return Arrival::Ignored;
        };
        let (Some(client), Ok(received)) = (self.0.get_mut(number), Received::parse(packet)) else {
            return Arrival::Ignored;
        };
        if !matches!(received.code(), DISCONNECT_REQUEST | COA_REQUEST) {
            return Arrival::Ignored;
        }
        let zero = [0; 16];
        if !received.is_made_with(&zero, &client.secret)
            || received.has_valid_tag(&zero, &client.secret) == Some(false)
        {
            return Arrival::Forged;
        }
        let at = received.attributes.number(attribute::EVENT_TIMESTAMP);
        match at.map(|at| at.is_none_or(|at| seconds.abs_diff(at.into()) <= MAX_SKEW)) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Arrival::Stale,
        }
        while client.last.front().is_some_and(|(at, ..)| *at + MEMORY <= now)
            || client.last.len() >= MAX_REMEMBERED
        {
            client.last.pop_front();
        }
        let known = client.last.iter().find(|(_, authenticator, _)| authenticator == received.authenticator);
        if let Some((.., answer)) = known {
            return Arrival::Repeated(answer.clone());
        }
        if !client.rate.admits(now, BURST, REFILL) {
            return Arrival::Ignored;
        }
        let mut proxy_state = Vec::new();
        for state in received.attributes.all(attribute::PROXY_STATE) {
            push(&mut proxy_state, attribute::PROXY_STATE, state);
        }
        let (code, id, authenticator) = (received.code(), received.id(), *received.authenticator);
        let demand = demand(&received);
        Arrival::New(Box::new(Request { client: number, code, id, authenticator, proxy_state, demand }))
    }

    /// Returns the answer to a request that was carried out, or refused for a reason.
    pub fn answer(&mut self, now: Duration, request: Request, result: Result<(), ErrorCause>) -> Vec<u8> {
        let Request { client, code, id, authenticator, proxy_state, .. } = request;
        let Some(client) = self.0.get_mut(client) else { return Vec::new() };
        // ACK and NAK follow the request's code.
        let code = code + if result.is_ok() { 1 } else { 2 };
        let mut attributes = Vec::new();
        push(&mut attributes, attribute::MESSAGE_AUTHENTICATOR, &[0; 16]);
        if let Err(cause) = result {
            push(&mut attributes, attribute::ERROR_CAUSE, &(cause as u32).to_be_bytes());
        }
        attributes.extend(proxy_state);
        let [high, low] = ((HEADER + attributes.len()) as u16).to_be_bytes();
        let tag =
            message_authenticator(&[&[code, id, high, low], &authenticator, &attributes], &client.secret);
        if let Some(field) = attributes.get_mut(2..18) {
            field.copy_from_slice(&tag);
        }
        let answer = seal([code, id], &authenticator, &attributes, &client.secret).unwrap_or_default();
        client.last.push_back((now, authenticator, answer.clone()));
        answer
    }
}

/// Reads what a request wants.
fn demand(request: &Received<'_>) -> Result<Demand, ErrorCause> {
    let is_change = request.code() == COA_REQUEST;
    let mut named = Named::default();
    let (mut session_timeout, mut filters) = (None, Vec::new());
    for (kind, value) in request.attributes {
        let list = match kind {
            attribute::USER_NAME => &mut named.user,
            attribute::ACCT_SESSION_ID => &mut named.session,
            attribute::CALLED_STATION_ID => &mut named.called,
            attribute::CALLING_STATION_ID => &mut named.calling,
            attribute::NAS_PORT_ID => &mut named.port,
            attribute::NAS_IDENTIFIER => &mut named.nas_identifier,
            attribute::FILTER_ID if is_change => &mut filters,
            attribute::NAS_IP_ADDRESS => {
                named.nas.push(ip4(value)?);
                continue;
            }
            attribute::NAS_IPV6_ADDRESS => {
                named.nas.push(ip6(value)?);
                continue;
            }
            attribute::FRAMED_IP_ADDRESS => {
                named.inner.push(ip4(value)?);
                continue;
            }
            attribute::FRAMED_IPV6_ADDRESS => {
                named.inner.push(ip6(value)?);
                continue;
            }
            attribute::SESSION_TIMEOUT if is_change => {
                let seconds = value.try_into().map_err(|_| ErrorCause::InvalidValue)?;
                session_timeout = Some(u32::from_be_bytes(seconds));
                continue;
            }
            attribute::SERVICE_TYPE if value == AUTHORIZE_ONLY => return Err(ErrorCause::UnsupportedService),
            attribute::EVENT_TIMESTAMP
            | attribute::MESSAGE_AUTHENTICATOR
            | attribute::PROXY_STATE
            | attribute::REPLY_MESSAGE => continue,
            attribute::ACCT_TERMINATE_CAUSE if !is_change => continue,
            _ => return Err(ErrorCause::UnsupportedAttribute),
        };
        list.push(value.to_vec());
    }
    let filters = (!filters.is_empty()).then_some(filters);
    if named.is_empty() || (is_change && session_timeout.is_none() && filters.is_none()) {
        return Err(ErrorCause::MissingAttribute);
    }
    let change = if is_change { Change::Grant { session_timeout, filters } } else { Change::Disconnect };
    Ok(Demand { named, change })
}

fn ip4(value: &[u8]) -> Result<IpAddr, ErrorCause> {
    let octets: [u8; 4] = value.try_into().map_err(|_| ErrorCause::InvalidValue)?;
    Ok(Ipv4Addr::from(octets).into())
}

fn ip6(value: &[u8]) -> Result<IpAddr, ErrorCause> {
    let octets: [u8; 16] = value.try_into().map_err(|_| ErrorCause::InvalidValue)?;
    Ok(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests;
