//! Packets of RADIUS as bytes (RFC 2865, RFC 3579).
//!
//! Every answer must have a Message-Authenticator. Without it, an attacker who can change packets
//! could turn a refusal into an acceptance (CVE-2024-3596).

use crate::{
    aaa::{grant::Grant, origin::Origin},
    crypto::Secret,
};
use alloc::{string::ToString, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Types of attributes.
mod attribute {
    pub(super) const USER_NAME: u8 = 1;
    pub(super) const NAS_IP_ADDRESS: u8 = 4;
    pub(super) const SERVICE_TYPE: u8 = 6;
    pub(super) const FRAMED_IP_ADDRESS: u8 = 8;
    pub(super) const STATE: u8 = 24;
    pub(super) const VENDOR_SPECIFIC: u8 = 26;
    pub(super) const SESSION_TIMEOUT: u8 = 27;
    pub(super) const CALLED_STATION_ID: u8 = 30;
    pub(super) const CALLING_STATION_ID: u8 = 31;
    pub(super) const NAS_IDENTIFIER: u8 = 32;
    pub(super) const NAS_PORT_TYPE: u8 = 61;
    pub(super) const EAP_MESSAGE: u8 = 79;
    pub(super) const MESSAGE_AUTHENTICATOR: u8 = 80;
    pub(super) const NAS_PORT_ID: u8 = 87;
    pub(super) const FRAMED_POOL: u8 = 88;
    pub(super) const NAS_IPV6_ADDRESS: u8 = 95;
    pub(super) const FRAMED_IPV6_PREFIX: u8 = 97;
    pub(super) const FRAMED_IPV6_POOL: u8 = 100;
    pub(super) const FRAMED_IPV6_ADDRESS: u8 = 168;
}

const ACCESS_REQUEST: u8 = 1;
/// The service type Framed.
const SERVICE_TYPE: [u8; 4] = [0, 0, 0, 2];
/// The port type Virtual.
const NAS_PORT_TYPE: [u8; 4] = [0, 0, 0, 5];
/// Microsoft's number, and the types of its attributes (RFC 2548 §2.4).
const MICROSOFT: [u8; 4] = [0, 0, 1, 0x37];
const MPPE_SEND_KEY: u8 = 16;
const MPPE_RECV_KEY: u8 = 17;

/// Addresses that leave the choice to the peer or to us (RFC 2865 §5.8).
const ANY_ADDRESS: [u32; 2] = [u32::MAX, u32::MAX - 1];

/// Length of code, identifier, length and authenticator, in bytes.
const HEADER: usize = 20;
/// Most bytes of an attribute's value.
const MAX_VALUE_LEN: usize = 253;
/// Most bytes of a packet, sent or received.
pub const MAX_PACKET_LEN: usize = 4096;
/// Length of an MSK in bytes.
const MSK: usize = 64;

/// An Access-Request.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// The peer's EAP identity.
    pub user_name: &'a [u8],
    /// Our own name.
    pub nas_identifier: &'a [u8],
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
        let Origin { connection, local, remote } = self.origin;
        let (called, calling) = (local.to_string(), remote.to_string());
        for (kind, value) in [
            (attribute::USER_NAME, Some(self.user_name)),
            (attribute::NAS_IDENTIFIER, Some(self.nas_identifier)),
            (attribute::SERVICE_TYPE, Some(&SERVICE_TYPE[..])),
            (attribute::NAS_PORT_TYPE, Some(&NAS_PORT_TYPE[..])),
            (attribute::NAS_PORT_ID, Some(connection.as_bytes())),
            (attribute::CALLED_STATION_ID, Some(called.as_bytes())),
            (attribute::CALLING_STATION_ID, Some(calling.as_bytes())),
            (attribute::STATE, self.state),
        ] {
            value.map_or(Some(()), |value| push(&mut packet, kind, value))?;
        }
        match local {
            IpAddr::V4(own) => push(&mut packet, attribute::NAS_IP_ADDRESS, &own.octets()),
            IpAddr::V6(own) => push(&mut packet, attribute::NAS_IPV6_ADDRESS, &own.octets()),
        }?;
        for part in self.eap.chunks(MAX_VALUE_LEN) {
            push(&mut packet, attribute::EAP_MESSAGE, part)?;
        }
        let len = u16::try_from(packet.len()).ok().filter(|&len| usize::from(len) <= MAX_PACKET_LEN)?;
        packet.get_mut(2..4)?.copy_from_slice(&len.to_be_bytes());
        let tag = message_authenticator(&[&packet], secret);
        packet.get_mut(HEADER + 2..HEADER + 18)?.copy_from_slice(&tag);
        Some(packet)
    }
}

fn push(packet: &mut Vec<u8>, kind: u8, value: &[u8]) -> Option<()> {
    let len = u8::try_from(value.len() + 2).ok().filter(|_| !value.is_empty())?;
    packet.extend([kind, len]);
    packet.extend(value);
    Some(())
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
        let (&[code, answer_id, high, low], _) = packet.split_first_chunk().ok_or(AnswerError::Malformed)?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let packet = packet.get(..len).filter(|_| len <= MAX_PACKET_LEN).ok_or(AnswerError::Malformed)?;
        let code = match code {
            2 => Code::Accept,
            3 => Code::Reject,
            11 => Code::Challenge,
            _ => return Err(AnswerError::Malformed),
        };
        let (start, rest) = packet.split_first_chunk::<4>().ok_or(AnswerError::Malformed)?;
        let (authenticator, rest) = rest.split_first_chunk::<16>().ok_or(AnswerError::Malformed)?;
        if answer_id != id {
            return Err(AnswerError::Other);
        }
        let attributes = Attributes(rest);
        attributes.check()?;
        let expected = Md5::new().chain_update(start).chain_update(request).chain_update(rest);
        if !bool::from(expected.chain_update(secret).finalize()[..].ct_eq(&authenticator[..])) {
            return Err(AnswerError::Forged);
        }
        let tag = attributes.first(attribute::MESSAGE_AUTHENTICATOR).ok_or(AnswerError::Unauthenticated)?;
        if !bool::from(attributes.message_authenticator(start, request, secret)[..].ct_eq(tag)) {
            return Err(AnswerError::Forged);
        }
        Ok(Self { code, attributes })
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
        let address = self.number(attribute::FRAMED_IP_ADDRESS)?;
        let ip6 = self.array(attribute::FRAMED_IPV6_ADDRESS)?.map(Ipv6Addr::from);
        let session = self.number(attribute::SESSION_TIMEOUT)?;
        Ok(Grant {
            ip4: address.filter(|address| !ANY_ADDRESS.contains(address)).map(Ipv4Addr::from_bits),
            ip6: ip6.or(self.whole_prefix()?),
            pools: pools.iter().filter_map(|kind| self.attributes.first(*kind)).map(<[u8]>::to_vec).collect(),
            // None at all is how servers say that there is no limit.
            session_timeout: session.filter(|seconds| *seconds > 0),
        })
    }

    /// Returns the address of a Framed-IPv6-Prefix with all its bits: a reserved byte, the length,
    /// and as many bytes as that needs (RFC 3162 §2.3).
    fn whole_prefix(&self) -> Result<Option<Ipv6Addr>, AnswerError> {
        match self.attributes.first(attribute::FRAMED_IPV6_PREFIX) {
            Some([_, 128, address @ ..]) => {
                let octets: [u8; 16] = address.try_into().map_err(|_| AnswerError::Malformed)?;
                Ok(Some(octets.into()))
            }
            _ => Ok(None),
        }
    }

    fn array<const N: usize>(&self, kind: u8) -> Result<Option<[u8; N]>, AnswerError> {
        let value = self.attributes.first(kind).map(<[u8; N]>::try_from).transpose();
        value.map_err(|_| AnswerError::Malformed)
    }

    fn number(&self, kind: u8) -> Result<Option<u32>, AnswerError> {
        Ok(self.array(kind)?.map(u32::from_be_bytes))
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

/// Returns the HMAC-MD5 of the concatenated parts of a packet whose Message-Authenticator is zero.
fn message_authenticator(parts: &[&[u8]], secret: &[u8]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(secret).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Attributes one after another, each with type, length and value.
#[derive(Clone, Copy, Debug)]
struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Checks that the last attribute ends where the packet does.
    fn check(self) -> Result<(), AnswerError> {
        let read: usize = self.map(|(_, value)| value.len() + 2).sum();
        if read == self.0.len() { Ok(()) } else { Err(AnswerError::Malformed) }
    }

    /// Returns the values of all attributes of this type.
    fn all(self, kind: u8) -> impl Iterator<Item = &'a [u8]> {
        self.filter(move |(k, _)| *k == kind).map(|(_, value)| value)
    }

    fn first(self, kind: u8) -> Option<&'a [u8]> {
        self.all(kind).next()
    }

    /// Returns the value of Microsoft's attribute of this type.
    fn microsoft(self, kind: u8) -> Option<&'a [u8]> {
        let ours = self.all(attribute::VENDOR_SPECIFIC).filter_map(|value| value.strip_prefix(&MICROSOFT));
        ours.flat_map(Self).find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// Returns the Message-Authenticator that an answer with these attributes must have (RFC 3579
    /// §3.2).
    fn message_authenticator(self, start: &[u8; 4], request: &[u8; 16], secret: &[u8]) -> [u8; 16] {
        let mut rest = self.0.to_vec();
        let before: usize = self
            .take_while(|(kind, _)| *kind != attribute::MESSAGE_AUTHENTICATOR)
            .map(|(_, value)| value.len() + 2)
            .sum();
        if let Some(field) = rest.get_mut(before + 2..before + 18) {
            field.fill(0);
        }
        message_authenticator(&[start, request, &rest], secret)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, len], _) = self.0.split_first_chunk()?;
        let value = self.0.get(2..usize::from(len))?;
        self.0 = self.0.get(usize::from(len)..)?;
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests;
