//! Accounting records as bytes (RFC 2866, RFC 2869).

use super::{
    account::Account,
    attributes::{HEADER, MAX_PACKET_LEN, Received, attribute, push, seal},
    names::{self, Name, push_name, push_nas_address, push_origin},
};
use alloc::{string::String, vec::Vec};
use core::{net::IpAddr, time::Duration};

const ACCOUNTING_REQUEST: u8 = 4;
const ACCOUNTING_RESPONSE: u8 = 5;
/// The peer was authenticated by RADIUS (RFC 2866 §5.6).
const BY_RADIUS: u32 = 1;
/// Bytes that the counters take, with Acct-Delay-Time, which is added when the record is sent.
const COUNTERS: usize = 8 * 6;
/// Most bytes of the other attributes of a record.
const MAX_ATTRIBUTES: usize = MAX_PACKET_LEN - HEADER - COUNTERS;

/// What a peer has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The time since it connected.
    pub time: Duration,
    /// Packets received from it, and their bytes.
    pub received: (u64, u64),
    /// Packets sent to it, and their bytes.
    pub sent: (u64, u64),
}

/// Why a peer is connected no more (Acct-Terminate-Cause, RFC 2866 §5.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The peer closed the connection.
    UserRequest = 1,
    /// The peer did not answer.
    LostCarrier = 2,
    /// The time that the server granted is over.
    SessionTimeout = 5,
    /// An administrator closed the connection.
    AdminReset = 6,
    /// The gateway's limits or its rules ended the connection.
    NasError = 9,
    /// The gateway stops.
    NasReboot = 11,
    /// A newer connection took its place.
    PortPreempted = 13,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Happening<'a> {
    /// A peer connected.
    Start(&'a Account),
    /// A peer is still connected.
    Interim(&'a Account, Usage),
    /// A peer's connection ended.
    Stop(&'a Account, Usage, Cause),
    /// The gateway starts.
    On(Gateway<'a>),
    /// The gateway stops.
    Off(Gateway<'a>),
}

/// What a record about the gateway itself says.
#[derive(Clone, Copy, Debug)]
pub struct Gateway<'a> {
    /// The name of this run.
    pub id: &'a str,
    /// The address at which peers reach it.
    pub local: IpAddr,
}

/// A record's place among those that wait with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Before all others: it ends all sessions that the server knows of.
    First,
    /// After those of its session. A later one of these makes it worthless.
    Interim,
    /// After those of its session.
    Ordinary,
    /// After all others: it too ends all sessions.
    Last,
}

/// A record on its way to a server.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// The session's name.
    pub(super) id: String,
    pub(super) order: Order,
    attributes: Vec<u8>,
}

impl Record {
    /// Creates the record of what happened `seconds` after 1970, for servers that call us
    /// `nas_identifier`. Leaves out what does not fit.
    pub(super) fn new(happening: Happening<'_>, seconds: u64, nas_identifier: &str) -> Self {
        let (status, id, order): (u32, &str, Order) = match happening {
            Happening::Start(account) => (1, &account.id, Order::Ordinary),
            Happening::Stop(account, ..) => (2, &account.id, Order::Ordinary),
            Happening::Interim(account, _) => (3, &account.id, Order::Interim),
            Happening::On(gateway) => (7, gateway.id, Order::First),
            Happening::Off(gateway) => (8, gateway.id, Order::Last),
        };
        let mut list = List(Vec::new());
        list.number(attribute::ACCT_STATUS_TYPE, status);
        list.add(attribute::ACCT_SESSION_ID, id.as_bytes());
        // Its 32 bits last until 2106 (RFC 2869 §5.3).
        list.number(attribute::EVENT_TIMESTAMP, seconds as u32);
        match happening {
            Happening::Start(account) => list.account(account, nas_identifier),
            Happening::Interim(account, usage) => {
                list.account(account, nas_identifier);
                list.usage(usage);
            }
            Happening::Stop(account, usage, cause) => {
                list.number(attribute::ACCT_TERMINATE_CAUSE, cause as u32);
                list.account(account, nas_identifier);
                list.usage(usage);
            }
            Happening::On(Gateway { local, .. }) | Happening::Off(Gateway { local, .. }) => {
                names::of_gateway(nas_identifier, local).into_iter().for_each(|name| list.name(name));
            }
        }
        Self { id: id.into(), order, attributes: list.0 }
    }

    /// Encodes the request with this identifier. `delay` is the time since it happened.
    pub(super) fn emit(&self, id: u8, delay: Duration, secret: &[u8]) -> Option<Vec<u8>> {
        let mut list = List(self.attributes.clone());
        list.number(attribute::ACCT_DELAY_TIME, delay.as_secs() as u32);
        seal([ACCOUNTING_REQUEST, id], &[0; 16], &list.0, secret)
    }
}

/// The attributes of a record.
struct List(Vec<u8>);

impl List {
    /// Appends an attribute, if it is not empty and there is room.
    fn add(&mut self, kind: u8, value: &[u8]) {
        if self.0.len() + 2 + value.len() <= MAX_ATTRIBUTES {
            push(&mut self.0, kind, value);
        }
    }

    fn name(&mut self, name: Name<'_>) {
        push_name(&mut self.0, name);
    }

    fn number(&mut self, kind: u8, value: u32) {
        push(&mut self.0, kind, &value.to_be_bytes());
    }

    /// Appends all about a peer but its session's name.
    fn account(&mut self, account: &Account, nas_identifier: &str) {
        let [_, user] = names::of_session(account);
        self.name(user);
        push_origin(&mut self.0, nas_identifier, &account.origin);
        push_nas_address(&mut self.0, account.origin.local);
        self.number(attribute::ACCT_AUTHENTIC, BY_RADIUS);
        names::of_inside(account).for_each(|name| self.name(name));
        for class in &account.class {
            self.add(attribute::CLASS, class);
        }
    }

    /// Appends the counters. Octets have 64 bits (RFC 2869 §5.1), packets the lower 32.
    fn usage(&mut self, usage: Usage) {
        let Usage { time, received, sent } = usage;
        self.number(attribute::ACCT_SESSION_TIME, time.as_secs() as u32);
        for (kind, value) in [
            (attribute::ACCT_INPUT_PACKETS, received.0),
            (attribute::ACCT_OUTPUT_PACKETS, sent.0),
            (attribute::ACCT_INPUT_OCTETS, received.1),
            (attribute::ACCT_OUTPUT_OCTETS, sent.1),
            (attribute::ACCT_INPUT_GIGAWORDS, received.1 >> 32),
            (attribute::ACCT_OUTPUT_GIGAWORDS, sent.1 >> 32),
        ] {
            self.number(kind, value as u32);
        }
    }
}

/// Returns true if a packet confirms the request with this authenticator.
pub(super) fn is_response(packet: &[u8], request: &[u8; 16], secret: &[u8]) -> bool {
    let parsed = Received::parse(packet);
    parsed.is_ok_and(|p| p.code() == ACCOUNTING_RESPONSE && p.is_made_with(request, secret))
}

#[cfg(test)]
mod tests;
