//! The messages as bytes.

use super::super::association::hmac_sha256;
use crate::{
    crypto::Secret,
    fields::{Fields, Truncated},
};
use alloc::vec::Vec;
use core::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};
use subtle::ConstantTimeEq;

/// The UDP port of gateways, if the operator chooses no other. None is registered for this protocol.
pub const UDP_PORT: u16 = 4434;

const MAGIC: [u8; 3] = *b"SIU";
const VERSION: u8 = 1;
const UPDATE: u8 = 1;
const ACKNOWLEDGEMENT: u8 = 2;
/// Length in bytes of what all messages begin with.
const HEAD: usize = 36;
/// Length of the body of an update without the link's identity and the reply.
const UPDATE_BODY: usize = 56;
/// Length of the authenticator that all messages end with.
const AUTHENTICATOR: usize = 32;
/// Length of the longest datagram of UDP over IPv4 without its headers.
const LONGEST: usize = 65_507;

/// The secret that a home agent and a gateway share, for HMAC-SHA-256.
#[derive(Clone)]
pub struct SharedKey {
    /// Its number, by which either side knows which one it is.
    pub number: u32,
    /// The secret.
    pub secret: Secret,
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKey").field("number", &self.number).finish_non_exhaustive()
    }
}

impl SharedKey {
    /// Appends the authenticator of everything before it to a message.
    pub fn authenticate(&self, message: &mut Vec<u8>) {
        let authenticator = hmac_sha256(&self.secret, message);
        message.extend(authenticator);
    }
}

/// What names an update, and so its acknowledgement too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The series of numbers, which the gateway has named; 0 before it has.
    pub epoch: u64,
    /// The number of the update in the run, from 1. It goes on in other series.
    pub sequence: u64,
    /// A random number that the home agent has chosen for its run.
    pub run: u64,
}

/// A terminal's new care-of address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Lifetime of the registration in seconds; 0 if it has ended, [`u32::MAX`] if it has no end.
    pub lifetime: u32,
    /// The home address.
    pub home: IpAddr,
    /// The care-of address before; unspecified if there was none.
    pub old: IpAddr,
    /// The care-of address now; unspecified if the registration has ended.
    pub new: IpAddr,
    /// The identity of the link, if the home agent knows it; at most 255 bytes.
    pub link: Vec<u8>,
    /// The IP packet with the reply to the registration, for the terminal; it may be empty.
    pub reply: Vec<u8>,
}

/// What has become of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The link has moved, and then the reply was forwarded.
    Done,
    /// It is not of the present series of numbers, or its number is too old to be known. Nothing was changed.
    Renumber,
    /// There is no such link here.
    UnknownLink,
    /// The link or the address is not this terminal's, or the link does not follow this home agent.
    Refused,
    /// A later update for this terminal was here before. Nothing was changed, and the reply not forwarded.
    Superseded,
    /// No authentic packet of the link has come from the new address, or nothing can be sent there.
    Unreachable,
    /// Another refusal, which this program does not know.
    Other(u8),
}

impl From<u8> for Status {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Done,
            1 => Self::Renumber,
            2 => Self::UnknownLink,
            3 => Self::Refused,
            4 => Self::Superseded,
            5 => Self::Unreachable,
            other => Self::Other(other),
        }
    }
}

impl From<Status> for u8 {
    fn from(status: Status) -> Self {
        match status {
            Status::Done => 0,
            Status::Renumber => 1,
            Status::UnknownLink => 2,
            Status::Refused => 3,
            Status::Superseded => 4,
            Status::Unreachable => 5,
            Status::Other(other) => other,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Renumber => f.write_str("not of the present series of numbers"),
            Self::UnknownLink => f.write_str("no such link"),
            Self::Refused => f.write_str("not this terminal's link or address"),
            Self::Superseded => f.write_str("a later update came first"),
            Self::Unreachable => f.write_str("the terminal is not at the new address"),
            Self::Other(other) => write!(f, "status {other}"),
        }
    }
}

/// The gateway's answer to an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// What has become of the update.
    pub status: Status,
    /// The series of numbers that the home agent is to begin, if the status is [`Status::Renumber`]; else 0.
    pub next_epoch: u64,
}

/// Why bytes are not a message, or not one of whoever has the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The message is shorter than its fields, its length is not the one that it says, or no datagram is so long.
    Length,
    /// An update has a lifetime and no address, or an address and no lifetime.
    Lifetime,
    /// It is no security information update.
    Magic,
    /// It is of another version of this protocol, or of a kind that the receiver does not get.
    Version(u8, u8),
    /// It was made with another key, or none.
    Forged,
}

impl From<Truncated> for Malformed {
    fn from(Truncated: Truncated) -> Self {
        Self::Length
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("a length is wrong"),
            Self::Lifetime => f.write_str("lifetime and care-of address contradict each other"),
            Self::Magic => f.write_str("no security information update"),
            Self::Version(version, kind) => write!(f, "unexpected message, version {version}, type {kind}"),
            Self::Forged => f.write_str("not made with the shared key"),
        }
    }
}

impl core::error::Error for Malformed {}

impl Update {
    /// Encodes the update.
    ///
    /// # Errors
    /// [`Malformed::Length`] if the link's identity or the reply is too long, or [`Malformed::Lifetime`].
    pub fn emit(&self, head: Head, key: &SharedKey) -> Result<Vec<u8>, Malformed> {
        self.check()?;
        Ok(emit(UPDATE, head, key, |out| {
            out.extend(self.lifetime.to_be_bytes());
            for address in [self.home, self.old, self.new] {
                out.extend(mapped(address).octets());
            }
            out.extend([0, self.link.len() as u8]);
            out.extend((self.reply.len() as u16).to_be_bytes());
            out.extend(&self.link);
            out.extend(&self.reply);
        }))
    }

    /// Reads an update that was made with `key`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(datagram: &[u8], key: &SharedKey) -> Result<(Head, Self), Malformed> {
        let (head, mut body) = open(datagram, UPDATE, key)?;
        let lifetime = body.u32()?;
        let mut address = || body.array::<16>().map(|octets| Ipv6Addr::from(octets).to_canonical());
        let (home, old, new) = (address()?, address()?, address()?);
        let [_, link] = body.array()?;
        let reply = body.u16()?;
        let (link, reply) = (body.take(link.into())?.to_vec(), body.take(reply.into())?.to_vec());
        if !body.is_empty() {
            return Err(Malformed::Length);
        }
        let update = Self { lifetime, home, old, new, link, reply };
        update.check()?;
        Ok((head, update))
    }

    /// Checks that the update fits into a message and does not contradict itself.
    pub(super) fn check(&self) -> Result<(), Malformed> {
        let length = HEAD + UPDATE_BODY + self.link.len() + self.reply.len() + AUTHENTICATOR;
        let is_over = self.lifetime == 0;
        if length > LONGEST || self.link.len() > usize::from(u8::MAX) {
            Err(Malformed::Length)
        } else if is_over != self.new.is_unspecified() {
            Err(Malformed::Lifetime)
        } else {
            Ok(())
        }
    }
}

impl Acknowledgement {
    /// Encodes the acknowledgement of the update with this `head`.
    pub fn emit(&self, head: Head, key: &SharedKey) -> Vec<u8> {
        let body = |out: &mut Vec<u8>| {
            out.extend([self.status.into(), 0, 0, 0]);
            out.extend(self.next_epoch.to_be_bytes());
        };
        emit(ACKNOWLEDGEMENT, head, key, body)
    }

    /// Reads an acknowledgement that was made with `key`. Bytes behind it are not read.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(datagram: &[u8], key: &SharedKey) -> Result<(Head, Self), Malformed> {
        let (head, mut body) = open(datagram, ACKNOWLEDGEMENT, key)?;
        let [status, ..] = body.array::<4>()?;
        Ok((head, Self { status: status.into(), next_epoch: body.u64()? }))
    }
}

/// Encodes a message whose body is written by `body`, and which fits into a datagram.
fn emit(kind: u8, head: Head, key: &SharedKey, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend(MAGIC);
    out.extend([VERSION, kind, 0, 0, 0]);
    out.extend(key.number.to_be_bytes());
    for number in [head.epoch, head.sequence, head.run] {
        out.extend(number.to_be_bytes());
    }
    body(&mut out);
    let length = (out.len() + AUTHENTICATOR) as u16;
    out[6..8].copy_from_slice(&length.to_be_bytes());
    key.authenticate(&mut out);
    out
}

/// Returns the head and the body of a message of this kind that was made with `key`.
fn open<'a>(datagram: &'a [u8], kind: u8, key: &SharedKey) -> Result<(Head, Fields<'a>), Malformed> {
    let mut fields = Fields(datagram);
    if fields.array()? != MAGIC {
        return Err(Malformed::Magic);
    }
    let [version, found, _] = fields.array()?;
    if (version, found) != (VERSION, kind) {
        return Err(Malformed::Version(version, found));
    }
    let (length, number) = (usize::from(fields.u16()?), fields.u32()?);
    if length != datagram.len() || length < HEAD + AUTHENTICATOR {
        return Err(Malformed::Length);
    }
    let (covered, authenticator) = datagram.split_at(length - AUTHENTICATOR);
    // The number is no secret, and comes first because it costs nothing.
    if number != key.number || !bool::from(hmac_sha256(&key.secret, covered).ct_eq(authenticator)) {
        return Err(Malformed::Forged);
    }
    let head = Head { epoch: fields.u64()?, sequence: fields.u64()?, run: fields.u64()? };
    let body = fields.take(length - HEAD - AUTHENTICATOR)?;
    Ok((head, Fields(body)))
}

/// Returns the address with 16 bytes, IPv4 as an IPv4-mapped one (RFC 4291 §2.5.5.2).
fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
