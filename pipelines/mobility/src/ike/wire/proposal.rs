//! SA payloads: proposals and their transforms (RFC 7296 §3.3).

use super::{
    malformed::Malformed,
    part::{emit_part, part, within_u8},
};
use crate::fields::Fields;
use alloc::vec::Vec;

/// An SPI in a proposal: none, 4 bytes for ESP and AH, 8 for IKE.
pub type SpiBytes = Vec<u8>;

/// Most proposals of an SA payload.
const MAX_PROPOSALS: usize = 64;
/// Most transforms of all proposals together.
const MAX_TRANSFORMS: usize = 256;
/// Type of the key length attribute, and the bit of attributes with a value in place of their
/// length.
const KEY_LENGTH: u16 = SHORT | 14;
const SHORT: u16 = 0x8000;
/// Markers of a proposal and a transform that others follow.
const MORE_PROPOSALS: u8 = 2;
const MORE_TRANSFORMS: u8 = 3;

/// Algorithms of which one of each type is to be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The number: from 1 in an offer; a choice repeats that of the offer.
    pub number: u8,
    /// 1 IKE, 2 AH, 3 ESP.
    pub protocol: u8,
    /// The SPI by which the sender will receive.
    pub spi: SpiBytes,
    /// The algorithms, at most 255.
    pub transforms: Vec<Transform>,
}

/// An algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transform {
    /// 1 encryption, 2 PRF, 3 integrity, 4 key exchange, 5 ESN, 6 to 12 additional key exchanges
    /// (RFC 9370).
    pub kind: u8,
    /// Number of the algorithm, or [`Transform::UNKNOWN`].
    pub id: u16,
    /// Length of the key in bits, if it is given.
    pub key_bits: Option<u16>,
}

impl Transform {
    /// Replaces the number of a transform with unknown attributes: it must not be chosen, though
    /// another of its type may be (§3.3.6). No algorithm has this number, which is for private use.
    pub const UNKNOWN: u16 = u16::MAX;

    fn parse(mut body: Fields<'_>) -> Result<Self, Malformed> {
        let ([kind, _], id) = (body.array()?, body.u16()?);
        let mut transform = Self { kind, id, key_bits: None };
        while !body.is_empty() {
            let (attribute, value) = (body.u16()?, body.u16()?);
            if attribute == KEY_LENGTH && transform.key_bits.is_none() {
                transform.key_bits = Some(value);
            } else {
                if attribute & SHORT == 0 {
                    body.take(usize::from(value))?;
                }
                transform.id = Self::UNKNOWN;
            }
        }
        Ok(transform)
    }

    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([self.kind, 0]);
        out.extend(self.id.to_be_bytes());
        if let Some(bits) = self.key_bits {
            out.extend(KEY_LENGTH.to_be_bytes());
            out.extend(bits.to_be_bytes());
        }
    }
}

impl Proposal {
    fn parse(mut body: Fields<'_>) -> Result<Self, Malformed> {
        let [number, protocol, spi_len, count] = body.array()?;
        if !matches!(spi_len, 0 | 4 | 8) {
            return Err(Malformed::Length);
        }
        let spi = body.take(usize::from(spi_len))?.to_vec();
        let mut transforms = Vec::new();
        for left in (0..count).rev() {
            let ([mark, _], transform) = part(&mut body)?;
            if mark != if left == 0 { 0 } else { MORE_TRANSFORMS } {
                return Err(Malformed::Count);
            }
            transforms.push(Transform::parse(transform)?);
        }
        if body.is_empty() { Ok(Self { number, protocol, spi, transforms }) } else { Err(Malformed::Count) }
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let count = within_u8(self.transforms.len());
        out.extend([self.number, self.protocol, within_u8(self.spi.len()), count]);
        out.extend_from_slice(&self.spi);
        for (transform, left) in self.transforms.iter().zip((0..count).rev()) {
            let mark = if left == 0 { 0 } else { MORE_TRANSFORMS };
            emit_part(out, [mark, 0], |out| transform.emit(out));
        }
    }
}

/// Parses the proposals of an SA payload: at most [`MAX_PROPOSALS`] with [`MAX_TRANSFORMS`].
pub(super) fn parse(mut body: Fields<'_>) -> Result<Vec<Proposal>, Malformed> {
    let mut proposals = Vec::new();
    let mut transforms = 0;
    while !body.is_empty() {
        let ([mark, _], proposal) = part(&mut body)?;
        if mark != if body.is_empty() { 0 } else { MORE_PROPOSALS } {
            return Err(Malformed::Count);
        }
        let proposal = Proposal::parse(proposal)?;
        transforms += proposal.transforms.len();
        if proposals.len() == MAX_PROPOSALS || transforms > MAX_TRANSFORMS {
            return Err(Malformed::TooMany);
        }
        proposals.push(proposal);
    }
    Ok(proposals)
}

/// Appends proposals.
pub(super) fn emit(proposals: &[Proposal], out: &mut Vec<u8>) {
    for (proposal, left) in proposals.iter().zip((0..proposals.len()).rev()) {
        let mark = if left == 0 { 0 } else { MORE_PROPOSALS };
        emit_part(out, [mark, 0], |out| proposal.emit(out));
    }
}
