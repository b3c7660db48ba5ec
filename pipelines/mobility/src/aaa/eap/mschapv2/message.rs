//! Messages of EAP-MSCHAPv2 as bytes (draft-kamath-pppext-eap-mschapv2 §2).

use alloc::vec::Vec;

const CHALLENGE: u8 = 1;
const RESPONSE: u8 = 2;
const SUCCESS: u8 = 3;
const FAILURE: u8 = 4;

/// A message: the Type-Data of an EAP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// The server's challenge.
    Challenge { id: u8, challenge: [u8; 16], name: &'a [u8] },
    /// The client's own challenge and its proof.
    Response { id: u8, challenge: [u8; 16], proof: [u8; 24], name: &'a [u8] },
    /// The server's proof: [`proof_text`], then any text.
    Success { id: u8, text: &'a [u8] },
    /// The server's refusal, as in RFC 2759 §6.
    Failure { id: u8, text: &'a [u8] },
    /// The client accepts the server's proof.
    SuccessResponse,
    /// The client acknowledges the refusal.
    FailureResponse,
}

impl<'a> Message<'a> {
    /// Parses Type-Data. Ignores MS-Length, because EAP's length says the same.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        match *data {
            [SUCCESS] => return Some(Self::SuccessResponse),
            [FAILURE] => return Some(Self::FailureResponse),
            _ => {}
        }
        let (&[code, id, _, _], rest) = data.split_first_chunk()?;
        match code {
            CHALLENGE => {
                let (&[16], rest) = rest.split_first_chunk()? else { return None };
                let (&challenge, name) = rest.split_first_chunk()?;
                Some(Self::Challenge { id, challenge, name })
            }
            RESPONSE => {
                let (&[49], rest) = rest.split_first_chunk()? else { return None };
                let (&challenge, rest) = rest.split_first_chunk()?;
                let (_reserved, rest) = rest.split_first_chunk::<8>()?;
                let (&proof, rest) = rest.split_first_chunk()?;
                let (_flags, name) = rest.split_first()?;
                Some(Self::Response { id, challenge, proof, name })
            }
            SUCCESS => Some(Self::Success { id, text: rest }),
            FAILURE => Some(Self::Failure { id, text: rest }),
            _ => None,
        }
    }

    /// Encodes the message as Type-Data.
    pub(super) fn emit(&self) -> Vec<u8> {
        let (code, id, parts): (u8, u8, [&[u8]; 6]) = match self {
            Self::Challenge { id, challenge, name } => {
                (CHALLENGE, *id, [&[16], challenge, name, &[], &[], &[]])
            }
            Self::Response { id, challenge, proof, name } => {
                (RESPONSE, *id, [&[49], challenge, &[0; 8], proof, &[0], name])
            }
            Self::Success { id, text } => (SUCCESS, *id, [text, &[], &[], &[], &[], &[]]),
            Self::Failure { id, text } => (FAILURE, *id, [text, &[], &[], &[], &[], &[]]),
            Self::SuccessResponse => return [SUCCESS].into(),
            Self::FailureResponse => return [FAILURE].into(),
        };
        let body = parts.concat();
        let len = u16::try_from(body.len() + 4).unwrap_or(u16::MAX);
        let [high, low] = len.to_be_bytes();
        [&[code, id, high, low], &body[..]].concat()
    }
}

/// Formats the server's proof as text (RFC 2759 §5).
pub(super) fn proof_text(proof: &[u8; 20]) -> Vec<u8> {
    let digit =
        |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default().to_ascii_uppercase() as u8;
    let digits = proof.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    b"S=".iter().copied().chain(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_as_in_the_draft() {
        let challenge = Message::Challenge { id: 1, challenge: [7; 16], name: b"gw" };
        assert_eq!(challenge.emit(), [&[1, 1, 0, 23, 16][..], &[7; 16], b"gw"].concat());
        let response = Message::Response { id: 1, challenge: [8; 16], proof: [9; 24], name: b"al" };
        let bytes = [&[2, 1, 0, 56, 49][..], &[8; 16], &[0; 8], &[9; 24], &[0], b"al"].concat();
        assert_eq!(response.emit(), bytes);
        let all = [
            challenge,
            response,
            Message::Success { id: 2, text: b"S=" },
            Message::Failure { id: 2, text: b"E=691 R=0" },
            Message::SuccessResponse,
            Message::FailureResponse,
        ];
        for message in all {
            assert_eq!(Message::parse(&message.emit()), Some(message));
        }
    }

    #[test]
    fn the_proof_is_forty_upper_case_digits() {
        assert_eq!(proof_text(&[0x4f; 20]), *b"S=4F4F4F4F4F4F4F4F4F4F4F4F4F4F4F4F4F4F4F4F");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..96), code in 0u8..8) {
            Message::parse(&data);
            let mut data = data;
            if let Some(first) = data.first_mut() {
                *first = code;
            }
            if let Some(message) = Message::parse(&data) {
                let again = message.emit();
                prop_assert_eq!(Message::parse(&again), Some(message));
            }
        }
    }
}
