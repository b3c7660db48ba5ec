//! What all packets of RADIUS have: a header with an authenticator, and attributes (RFC 2865 §3,
//! §5).

use alloc::vec::Vec;
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// Types of attributes.
pub(super) mod attribute {
    pub(in crate::aaa::radius) const USER_NAME: u8 = 1;
    pub(in crate::aaa::radius) const NAS_IP_ADDRESS: u8 = 4;
    pub(in crate::aaa::radius) const SERVICE_TYPE: u8 = 6;
    pub(in crate::aaa::radius) const FRAMED_IP_ADDRESS: u8 = 8;
    pub(in crate::aaa::radius) const FILTER_ID: u8 = 11;
    pub(in crate::aaa::radius) const REPLY_MESSAGE: u8 = 18;
    pub(in crate::aaa::radius) const STATE: u8 = 24;
    pub(in crate::aaa::radius) const CLASS: u8 = 25;
    pub(in crate::aaa::radius) const VENDOR_SPECIFIC: u8 = 26;
    pub(in crate::aaa::radius) const SESSION_TIMEOUT: u8 = 27;
    pub(in crate::aaa::radius) const CALLED_STATION_ID: u8 = 30;
    pub(in crate::aaa::radius) const CALLING_STATION_ID: u8 = 31;
    pub(in crate::aaa::radius) const NAS_IDENTIFIER: u8 = 32;
    pub(in crate::aaa::radius) const PROXY_STATE: u8 = 33;
    pub(in crate::aaa::radius) const ACCT_STATUS_TYPE: u8 = 40;
    pub(in crate::aaa::radius) const ACCT_DELAY_TIME: u8 = 41;
    pub(in crate::aaa::radius) const ACCT_INPUT_OCTETS: u8 = 42;
    pub(in crate::aaa::radius) const ACCT_OUTPUT_OCTETS: u8 = 43;
    pub(in crate::aaa::radius) const ACCT_SESSION_ID: u8 = 44;
    pub(in crate::aaa::radius) const ACCT_AUTHENTIC: u8 = 45;
    pub(in crate::aaa::radius) const ACCT_SESSION_TIME: u8 = 46;
    pub(in crate::aaa::radius) const ACCT_INPUT_PACKETS: u8 = 47;
    pub(in crate::aaa::radius) const ACCT_OUTPUT_PACKETS: u8 = 48;
    pub(in crate::aaa::radius) const ACCT_TERMINATE_CAUSE: u8 = 49;
    pub(in crate::aaa::radius) const ACCT_INPUT_GIGAWORDS: u8 = 52;
    pub(in crate::aaa::radius) const ACCT_OUTPUT_GIGAWORDS: u8 = 53;
    pub(in crate::aaa::radius) const EVENT_TIMESTAMP: u8 = 55;
    pub(in crate::aaa::radius) const NAS_PORT_TYPE: u8 = 61;
    pub(in crate::aaa::radius) const EAP_MESSAGE: u8 = 79;
    pub(in crate::aaa::radius) const MESSAGE_AUTHENTICATOR: u8 = 80;
    pub(in crate::aaa::radius) const ACCT_INTERIM_INTERVAL: u8 = 85;
    pub(in crate::aaa::radius) const NAS_PORT_ID: u8 = 87;
    pub(in crate::aaa::radius) const FRAMED_POOL: u8 = 88;
    pub(in crate::aaa::radius) const NAS_IPV6_ADDRESS: u8 = 95;
    pub(in crate::aaa::radius) const FRAMED_INTERFACE_ID: u8 = 96;
    pub(in crate::aaa::radius) const FRAMED_IPV6_PREFIX: u8 = 97;
    pub(in crate::aaa::radius) const FRAMED_IPV6_POOL: u8 = 100;
    pub(in crate::aaa::radius) const ERROR_CAUSE: u8 = 101;
    pub(in crate::aaa::radius) const FRAMED_IPV6_ADDRESS: u8 = 168;
}

/// Microsoft's number (RFC 2548 §2).
pub(super) const MICROSOFT: [u8; 4] = [0, 0, 1, 0x37];

/// Length of code, identifier, length and authenticator, in bytes.
pub(super) const HEADER: usize = 20;
/// Most bytes of an attribute's value.
pub(super) const MAX_VALUE_LEN: usize = 253;
/// Most bytes of a packet, sent or received.
pub const MAX_PACKET_LEN: usize = 4096;

/// A packet is cut short, or an attribute has a wrong length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A packet that was received, with its padding removed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    /// Code, identifier and length.
    start: &'a [u8; 4],
    pub(super) authenticator: &'a [u8; 16],
    pub(super) attributes: Attributes<'a>,
}

impl<'a> Received<'a> {
    /// Reads a packet whose attributes end where it does.
    ///
    /// # Errors
    /// [`Malformed`] if it is cut short.
    pub(super) fn parse(packet: &'a [u8]) -> Result<Self, Malformed> {
        let &[_, _, high, low] = packet.first_chunk().ok_or(Malformed)?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let packet = packet.get(..len).filter(|_| len <= MAX_PACKET_LEN).ok_or(Malformed)?;
        let (start, rest) = packet.split_first_chunk().ok_or(Malformed)?;
        let (authenticator, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let attributes = Attributes(rest);
        attributes.check()?;
        Ok(Self { start, authenticator, attributes })
    }

    pub(super) fn code(&self) -> u8 {
        self.start[0]
    }

    pub(super) fn id(&self) -> u8 {
        self.start[1]
    }

    /// Returns true if the authenticator was made with this secret. `request` is the authenticator
    /// of the request that an answer is for, or zero for a request (RFC 2865 §3, RFC 2866 §3).
    pub(super) fn is_made_with(&self, request: &[u8; 16], secret: &[u8]) -> bool {
        let expected = Md5::new().chain_update(self.start).chain_update(request);
        let expected = expected.chain_update(self.attributes.0).chain_update(secret).finalize();
        expected[..].ct_eq(&self.authenticator[..]).into()
    }

    /// Returns true if the Message-Authenticator was made with this secret; `None` if there is none
    /// (RFC 3579 §3.2).
    pub(super) fn has_valid_tag(&self, request: &[u8; 16], secret: &[u8]) -> Option<bool> {
        let tag = self.attributes.first(attribute::MESSAGE_AUTHENTICATOR)?;
        let expected = self.attributes.message_authenticator(self.start, request, secret);
        Some(expected[..].ct_eq(tag).into())
    }
}

/// Appends an attribute; returns `None` if it is empty or too long.
pub(super) fn push(packet: &mut Vec<u8>, kind: u8, value: &[u8]) -> Option<()> {
    let len = u8::try_from(value.len() + 2).ok().filter(|_| !value.is_empty())?;
    packet.extend([kind, len]);
    packet.extend(value);
    Some(())
}

/// Writes the length into a packet; returns `None` if the packet is too long.
pub(super) fn set_len(packet: &mut [u8]) -> Option<()> {
    let len = u16::try_from(packet.len()).ok().filter(|&len| usize::from(len) <= MAX_PACKET_LEN)?;
    packet.get_mut(2..4)?.copy_from_slice(&len.to_be_bytes());
    Some(())
}

/// Returns a whole packet with an authenticator made of all that it contains: an answer to the
/// request with authenticator `request`, or a request itself if that is zero.
pub(super) fn seal(
    [code, id]: [u8; 2],
    request: &[u8; 16],
    attributes: &[u8],
    secret: &[u8],
) -> Option<Vec<u8>> {
    let mut packet = [&[code, id, 0, 0][..], request, attributes].concat();
    set_len(&mut packet)?;
    let authenticator = Md5::new().chain_update(&packet).chain_update(secret).finalize();
    packet.get_mut(4..HEADER)?.copy_from_slice(&authenticator);
    Some(packet)
}

/// Returns the HMAC-MD5 of the concatenated parts of a packet whose Message-Authenticator is zero.
pub(super) fn message_authenticator(parts: &[&[u8]], secret: &[u8]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(secret).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Attributes one after another, each with type, length and value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Checks that the last attribute ends where the packet does.
    pub(super) fn check(self) -> Result<(), Malformed> {
        let read: usize = self.map(|(_, value)| value.len() + 2).sum();
        if read == self.0.len() { Ok(()) } else { Err(Malformed) }
    }

    /// Returns the values of all attributes of this type.
    pub(super) fn all(self, kind: u8) -> impl Iterator<Item = &'a [u8]> {
        self.filter(move |(k, _)| *k == kind).map(|(_, value)| value)
    }

    pub(super) fn first(self, kind: u8) -> Option<&'a [u8]> {
        self.all(kind).next()
    }

    /// Returns the value of the first attribute of this type, which has `N` bytes.
    ///
    /// # Errors
    /// [`Malformed`] if it has another length.
    pub(super) fn array<const N: usize>(self, kind: u8) -> Result<Option<[u8; N]>, Malformed> {
        let value = self.first(kind).map(<[u8; N]>::try_from).transpose();
        value.map_err(|_| Malformed)
    }

    /// Returns the number in the first attribute of this type.
    ///
    /// # Errors
    /// [`Malformed`] if it does not have four bytes.
    pub(super) fn number(self, kind: u8) -> Result<Option<u32>, Malformed> {
        Ok(self.array(kind)?.map(u32::from_be_bytes))
    }

    /// Returns the value of Microsoft's attribute of this type.
    pub(super) fn microsoft(self, kind: u8) -> Option<&'a [u8]> {
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
