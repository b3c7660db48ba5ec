//! EAP packets as bytes (RFC 3748 §4).

use alloc::{vec, vec::Vec};

/// The types of requests and responses that we support (RFC 3748 §5).
pub mod kind {
    #![expect(missing_docs, reason = "names of the registry of EAP method types")]
    pub const IDENTITY: u8 = 1;
    pub const NOTIFICATION: u8 = 2;
    pub const NAK: u8 = 3;
    pub const TLS: u8 = 13;
    pub const MSCHAPV2: u8 = 26;

    /// Returns the name of a method of authentication, if it is one that RADIUS servers use with
    /// IKEv2.
    pub fn name(kind: u8) -> Option<&'static str> {
        Some(match kind {
            4 => "md5",
            6 => "gtc",
            TLS => "tls",
            18 => "sim",
            21 => "ttls",
            23 => "aka",
            25 => "peap",
            MSCHAPV2 => "mschapv2",
            43 => "fast",
            50 => "aka-prime",
            52 => "pwd",
            55 => "teap",
            _ => return None,
        })
    }
}

/// Codes, in the order of [`Packet`]'s variants.
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const SUCCESS: u8 = 3;
const FAILURE: u8 = 4;

/// Returns an EAP-Failure with the identifier of `packet` (RFC 3748 §4.2).
pub fn failure(packet: &[u8]) -> Vec<u8> {
    vec![FAILURE, packet.get(1).copied().unwrap_or_default(), 0, 4]
}

/// Length of code, identifier and length, in bytes.
const HEADER: usize = 4;

/// An EAP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A request of the server.
    Request(Message<'a>),
    /// The client's response.
    Response(Message<'a>),
    /// The server accepts the response with this identifier.
    Success(u8),
    /// The server rejects the response with this identifier.
    Failure(u8),
}

/// The contents of a request or a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The identifier; a response repeats that of its request.
    pub id: u8,
    /// The type, as in [`mod@kind`].
    pub kind: u8,
    /// Type-Data.
    pub data: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Parses a packet. Bytes after its length are padding. Returns `None` if it is shorter than
    /// its length says, or has an unknown code.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (&[code, id, high, low], _) = packet.split_first_chunk()?;
        let body = packet.get(HEADER..usize::from(u16::from_be_bytes([high, low])))?;
        let message = || body.split_first().map(|(&kind, data)| Message { id, kind, data });
        match code {
            REQUEST => message().map(Self::Request),
            RESPONSE => message().map(Self::Response),
            SUCCESS => Some(Self::Success(id)),
            FAILURE => Some(Self::Failure(id)),
            _ => None,
        }
    }

    /// Encodes the packet. Data that exceeds the length field is cut off.
    pub fn emit(&self) -> Vec<u8> {
        let (code, id, message) = match self {
            Self::Request(message) => (REQUEST, message.id, Some(message)),
            Self::Response(message) => (RESPONSE, message.id, Some(message)),
            Self::Success(id) => (SUCCESS, *id, None),
            Self::Failure(id) => (FAILURE, *id, None),
        };
        let mut packet = alloc::vec![code, id, 0, 0];
        if let Some(message) = message {
            packet.push(message.kind);
            packet.extend(message.data.iter().take(usize::from(u16::MAX) - HEADER - 1));
        }
        let len = u16::try_from(packet.len()).unwrap_or(u16::MAX);
        if let Some(field) = packet.get_mut(2..HEADER) {
            field.copy_from_slice(&len.to_be_bytes());
        }
        packet
    }

    /// Returns the request for the peer's identity, which begins most conversations (RFC 3748
    /// §5.1).
    pub fn identity_request(id: u8) -> Self {
        Self::Request(Message { id, kind: kind::IDENTITY, data: &[] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_are_as_in_the_rfc() {
        let identity = Message { id: 7, kind: kind::IDENTITY, data: b"al" };
        for (packet, bytes) in [
            (Packet::identity_request(7), &[1, 7, 0, 5, 1][..]),
            (Packet::Response(identity), &[2, 7, 0, 7, 1, b'a', b'l']),
            (Packet::Success(9), &[3, 9, 0, 4]),
            (Packet::Failure(9), &[4, 9, 0, 4]),
        ] {
            assert_eq!(packet.emit(), bytes);
            assert_eq!(Packet::parse(bytes), Some(packet));
        }
    }

    #[test]
    fn padding_is_ignored_and_nothing_is_read_beyond_the_end() {
        assert_eq!(Packet::parse(&[1, 7, 0, 5, 1, 99, 99]), Some(Packet::identity_request(7)));
        for bad in [&[][..], &[1, 7, 0], &[1, 7, 0, 4], &[1, 7, 0, 6, 1], &[1, 7, 0, 3, 1], &[5, 7, 0, 5, 1]]
        {
            assert_eq!(Packet::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn data_that_is_too_long_is_cut_off() {
        let data = [1; 70_000];
        let packet = Packet::Request(Message { id: 1, kind: kind::TLS, data: &data }).emit();
        assert_eq!(packet.len(), 65535);
        assert!(
            matches!(Packet::parse(&packet), Some(Packet::Request(message)) if message.data.len() == 65530)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(packet) = Packet::parse(&bytes) {
                let again = packet.emit();
                prop_assert_eq!(Packet::parse(&again), Some(packet));
            }
        }
    }
}
