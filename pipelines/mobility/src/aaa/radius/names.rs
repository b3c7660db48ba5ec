//! Attributes by which servers know the gateway and a peer: in requests for access, in records, and
//! in the servers' own requests (RFC 5176 §3).

use super::{
    account::Account,
    attributes::{attribute, push},
};
use crate::aaa::origin::Origin;
use alloc::{borrow::Cow, string::ToString, vec::Vec};
use core::net::IpAddr;

/// The service type Framed.
const SERVICE_TYPE: [u8; 4] = [0, 0, 0, 2];
/// The port type Virtual.
const NAS_PORT_TYPE: [u8; 4] = [0, 0, 0, 5];

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Bytes(&'a [u8]),
    Address(IpAddr),
    /// An address in its usual spelling.
    Text(IpAddr),
}

impl<'a> Value<'a> {
    /// Returns the value as it stands in a packet.
    pub(super) fn encode(self) -> Cow<'a, [u8]> {
        match self {
            Self::Bytes(bytes) => bytes.into(),
            Self::Address(IpAddr::V4(address)) => address.octets().to_vec().into(),
            Self::Address(IpAddr::V6(address)) => address.octets().to_vec().into(),
            Self::Text(address) => address.to_string().into_bytes().into(),
        }
    }
}

/// An attribute's type and value.
pub(super) type Name<'a> = (u8, Value<'a>);

/// Returns the gateway's name and address.
pub(super) fn of_gateway(nas_identifier: &str, local: IpAddr) -> [Name<'_>; 2] {
    let kind = if local.is_ipv4() { attribute::NAS_IP_ADDRESS } else { attribute::NAS_IPV6_ADDRESS };
    [(attribute::NAS_IDENTIFIER, Value::Bytes(nas_identifier.as_bytes())), (kind, Value::Address(local))]
}

/// Returns where a peer comes from.
pub(super) fn of_origin(origin: &Origin) -> [Name<'_>; 3] {
    [
        (attribute::NAS_PORT_ID, Value::Bytes(origin.connection.as_bytes())),
        (attribute::CALLED_STATION_ID, Value::Text(origin.local)),
        (attribute::CALLING_STATION_ID, Value::Text(origin.remote)),
    ]
}

/// Returns the name of a peer's session, and its user's.
pub(super) fn of_session(account: &Account) -> [Name<'_>; 2] {
    [
        (attribute::ACCT_SESSION_ID, Value::Bytes(account.id.as_bytes())),
        (attribute::USER_NAME, Value::Bytes(&account.user_name)),
    ]
}

/// Returns a peer's inner addresses.
pub(super) fn of_inside(account: &Account) -> impl Iterator<Item = Name<'_>> {
    account.inner.iter().map(|inner| match inner {
        IpAddr::V4(_) => (attribute::FRAMED_IP_ADDRESS, Value::Address(*inner)),
        IpAddr::V6(_) => (attribute::FRAMED_IPV6_ADDRESS, Value::Address(*inner)),
    })
}

/// Appends an attribute by which servers know us or a peer.
pub(super) fn push_name(packet: &mut Vec<u8>, (kind, value): Name<'_>) -> Option<()> {
    push(packet, kind, &value.encode())
}

/// Appends who we are and where the peer comes from, except for our address.
pub(super) fn push_origin(packet: &mut Vec<u8>, nas_identifier: &str, origin: &Origin) -> Option<()> {
    let [identifier, _] = of_gateway(nas_identifier, origin.local);
    push_name(packet, identifier)?;
    push(packet, attribute::SERVICE_TYPE, &SERVICE_TYPE)?;
    push(packet, attribute::NAS_PORT_TYPE, &NAS_PORT_TYPE)?;
    of_origin(origin).into_iter().try_for_each(|name| push_name(packet, name))
}

/// Appends our address.
pub(super) fn push_nas_address(packet: &mut Vec<u8>, own: IpAddr) -> Option<()> {
    let [_, address] = of_gateway("", own);
    push_name(packet, address)
}

/// What an attribute of a server's request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The gateway.
    Gateway,
    /// Peers among those of the gateway.
    Peer,
    /// What many peers have in common.
    Place,
}

/// Returns what an attribute of this type names, and the length of its value, if that is fixed.
pub(super) fn named_by(kind: u8) -> Option<(Subject, Option<usize>)> {
    Some(match kind {
        attribute::NAS_IDENTIFIER => (Subject::Gateway, None),
        attribute::NAS_IP_ADDRESS => (Subject::Gateway, Some(4)),
        attribute::NAS_IPV6_ADDRESS => (Subject::Gateway, Some(16)),
        attribute::ACCT_SESSION_ID | attribute::USER_NAME | attribute::CALLING_STATION_ID => {
            (Subject::Peer, None)
        }
        attribute::FRAMED_IP_ADDRESS => (Subject::Peer, Some(4)),
        attribute::FRAMED_IPV6_ADDRESS => (Subject::Peer, Some(16)),
        attribute::NAS_PORT_ID | attribute::CALLED_STATION_ID => (Subject::Place, None),
        _ => return None,
    })
}
