//! Packets of RADIUS as bytes (RFC 2865, RFC 3579).
//!
//! Every answer must have a Message-Authenticator. Without it, an attacker who can change packets
//! could turn a refusal into an acceptance (CVE-2024-3596).

use super::{
    attributes::{
        Attributes, HEADER, MAX_VALUE_LEN, Malformed, Received, attribute, message_authenticator, push,
        set_len,
    },
    names::{push_nas_address, push_origin},
};
use crate::{
    aaa::{
        grant::{Grant, Ip6Prefix},
        origin::Origin,
    },
    crypto::Secret,
};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use md5::{Digest, Md5};
use zeroize::Zeroizing;

pub use super::attributes::MAX_PACKET_LEN;

const ACCESS_REQUEST: u8 = 1;
/// Types of Microsoft's attributes (RFC 2548 §2.4).
const MPPE_SEND_KEY: u8 = 16;
const MPPE_RECV_KEY: u8 = 17;

/// Addresses that leave the choice to the peer or to us (RFC 2865 §5.8).
const ANY_ADDRESS: [u32; 2] = [u32::MAX, u32::MAX - 1];

/// Length of an MSK in bytes.
const MSK: usize = 64;

/// An Access-Request.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// The peer's EAP identity.
    pub user_name: &'a [u8],
    /// Our own name.
    pub nas_identifier: &'a str,
    /// Where the peer comes from.
    pub origin: &'a Origin,
    /// The state of the server's last challenge.
    pub state: Option<&'a [u8]>,
    /// An EAP packet.
    pub eap: &'a [u8],
}

impl AccessRequest<'_> {
    /// Encodes the request. `authenticator` is random; `secret` is shared with the server. Returns
    /// `None` if an attribute or the packet is too long, or a name is empty.
    pub fn emit(&self, id: u8, authenticator: &[u8; 16], secret: &[u8]) -> Option<Vec<u8>> {
        let mut packet = [&[ACCESS_REQUEST, id, 0, 0][..], authenticator].concat();
        // First, so that an attacker controls nothing before it.
        push(&mut packet, attribute::MESSAGE_AUTHENTICATOR, &[0; 16])?;
        push(&mut packet, attribute::USER_NAME, self.user_name)?;
        push_origin(&mut packet, self.nas_identifier, self.origin)?;
        self.state.map_or(Some(()), |state| push(&mut packet, attribute::STATE, state))?;
        push_nas_address(&mut packet, self.origin.local)?;
        for part in self.eap.chunks(MAX_VALUE_LEN) {
            push(&mut packet, attribute::EAP_MESSAGE, part)?;
        }
        set_len(&mut packet)?;
        let tag = message_authenticator(&[&packet], secret);
        packet.get_mut(HEADER + 2..HEADER + 18)?.copy_from_slice(&tag);
        Some(packet)
    }
}

/// The server's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The peer proved its identity.
    Accept,
    /// The peer did not prove its identity.
    Reject,
    /// The server needs another response from the peer.
    Challenge,
}

/// Why a packet is not accepted as an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// The packet is cut short, or is no answer.
    Malformed,
    /// The packet answers another request.
    Other,
    /// The packet has no Message-Authenticator.
    Unauthenticated,
    /// The packet was not made with the shared secret.
    Forged,
}

impl From<Malformed> for AnswerError {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// A server's answer.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The server's decision.
    pub code: Code,
    attributes: Attributes<'a>,
}

impl<'a> Answer<'a> {
    /// Parses the answer to the request with this identifier and authenticator.
    ///
    /// # Errors
    /// Returns why the packet is not an answer to it.
    pub fn parse(packet: &'a [u8], id: u8, request: &[u8; 16], secret: &[u8]) -> Result<Self, AnswerError> {
        let answer = Received::parse(packet)?;
        let code = match answer.code() {
            2 => Code::Accept,
            3 => Code::Reject,
            11 => Code::Challenge,
            _ => return Err(AnswerError::Malformed),
        };
        if answer.id() != id {
            return Err(AnswerError::Other);
        }
        if !answer.is_made_with(request, secret) {
            return Err(AnswerError::Forged);
        }
        match answer.has_valid_tag(request, secret) {
            Some(true) => Ok(Self { code, attributes: answer.attributes }),
            Some(false) => Err(AnswerError::Forged),
            None => Err(AnswerError::Unauthenticated),
        }
    }

    /// Returns the EAP packet, if the answer has one.
    pub fn eap(&self) -> Option<Vec<u8>> {
        let parts: Vec<&[u8]> = self.attributes.all(attribute::EAP_MESSAGE).collect();
        (!parts.is_empty()).then(|| parts.concat())
    }

    /// Returns the state to repeat in the next request of this conversation.
    pub fn state(&self) -> Option<&'a [u8]> {
        self.attributes.first(attribute::STATE)
    }

    /// Returns the user that the server has accepted, if it names one.
    pub fn user_name(&self) -> Option<&'a [u8]> {
        self.attributes.first(attribute::USER_NAME)
    }

    /// Returns what the server grants to the peer; of several attributes of a type, the first.
    ///
    /// # Errors
    /// [`AnswerError::Malformed`] if an attribute has a wrong length (RFC 2865 §5).
    pub fn grant(&self) -> Result<Grant, AnswerError> {
        let pools = [attribute::FRAMED_POOL, attribute::FRAMED_IPV6_POOL];
        let address = self.attributes.number(attribute::FRAMED_IP_ADDRESS)?;
        let (ip6, prefix) = self.ip6()?;
        let session = self.attributes.number(attribute::SESSION_TIMEOUT)?;
        Ok(Grant {
            ip4: address.filter(|address| !ANY_ADDRESS.contains(address)).map(Ipv4Addr::from_bits),
            ip6,
            ip6_prefix: prefix.filter(|prefix| !prefix.is_short()),
            ignored_prefix: prefix.filter(|prefix| prefix.is_short()),
            pools: pools.iter().filter_map(|kind| self.attributes.first(*kind)).map(<[u8]>::to_vec).collect(),
            // None at all is how servers say that there is no limit.
            session_timeout: session.filter(|seconds| *seconds > 0),
            user_name: self.user_name().unwrap_or_default().to_vec(),
            class: self.attributes.all(attribute::CLASS).take(Grant::CLASSES).map(<[u8]>::to_vec).collect(),
            origin: None,
            filters: self.attributes.all(attribute::FILTER_ID).map(<[u8]>::to_vec).collect(),
            interim_interval: self.attributes.number(attribute::ACCT_INTERIM_INTERVAL)?,
        })
    }

    /// Returns the inner IPv6 address, or the prefix of it if the server did not choose all of it.
    fn ip6(&self) -> Result<(Option<Ipv6Addr>, Option<Ip6Prefix>), AnswerError> {
        let address = self.attributes.array(attribute::FRAMED_IPV6_ADDRESS)?.map(Ipv6Addr::from);
        let interface = self.attributes.array(attribute::FRAMED_INTERFACE_ID)?.map(u64::from_be_bytes);
        let prefix = self.attributes.first(attribute::FRAMED_IPV6_PREFIX).map(read_prefix).transpose()?;
        Ok(match (address, prefix) {
            (None, Some(prefix)) => match prefix.host(interface).filter(|_| !prefix.is_short()) {
                Some(address) => (Some(address), None),
                None => (None, Some(prefix)),
            },
            (address, _) => (address, None),
        })
    }

    /// Returns the MSK: MS-MPPE-Recv-Key, then MS-MPPE-Send-Key, padded with zeros to 64 bytes.
    /// Returns `None` if the method makes no key.
    ///
    /// # Errors
    /// [`AnswerError::Malformed`] if only one key is present or one cannot be decrypted.
    pub fn msk(&self, request: &[u8; 16], secret: &[u8]) -> Result<Option<Secret>, AnswerError> {
        let keys = [MPPE_RECV_KEY, MPPE_SEND_KEY].map(|kind| self.attributes.microsoft(kind));
        let [Some(receive), Some(send)] = keys else {
            return if keys == [None, None] { Ok(None) } else { Err(AnswerError::Malformed) };
        };
        let mut msk = Zeroizing::new(Vec::with_capacity(2 * MAX_VALUE_LEN));
        for key in [receive, send] {
            msk.extend_from_slice(&open_key(key, request, secret).ok_or(AnswerError::Malformed)?);
        }
        let len = msk.len().max(MSK);
        msk.resize(len, 0);
        Ok(Some(msk))
    }
}

/// Reads a prefix: a reserved byte, the length, and at least as many bytes as that needs (RFC 3162
/// §2.3).
fn read_prefix(value: &[u8]) -> Result<Ip6Prefix, Malformed> {
    let (&[_, len], given) = value.split_first_chunk().ok_or(Malformed)?;
    let mut octets = [0; 16];
    let start = octets.get_mut(..given.len()).filter(|_| given.len() >= usize::from(len).div_ceil(8));
    start.ok_or(Malformed)?.copy_from_slice(given);
    Ip6Prefix::new(octets.into(), len).ok_or(Malformed)
}

/// Decrypts a key of RFC 2548 §2.4.2: a salt, then length, key and padding.
fn open_key(sealed: &[u8], request: &[u8; 16], secret: &[u8]) -> Option<Secret> {
    let (salt, text) = sealed.split_first_chunk::<2>()?;
    let mut pad = Md5::new().chain_update(secret).chain_update(request).chain_update(salt).finalize();
    let mut plain = Zeroizing::new(Vec::with_capacity(MAX_VALUE_LEN));
    if text.is_empty() || !text.len().is_multiple_of(16) {
        return None;
    }
    for block in text.chunks(16) {
        plain.extend(block.iter().zip(&pad).map(|(byte, pad)| byte ^ pad));
        pad = Md5::new().chain_update(secret).chain_update(block).finalize();
    }
    let (&len, rest) = plain.split_first()?;
    rest.get(..usize::from(len)).filter(|key| !key.is_empty()).map(|key| Zeroizing::new(key.to_vec()))
}

#[cfg(test)]
mod tests;
