//! Protected messages: the Encrypted payload (RFC 7296 §3.14, RFC 5282) and its fragments (RFC
//! 7383).

use super::{
    bounds,
    schedule::IkeSaKeys,
    suite::IkeSuite,
    wire::{self, Header, Malformed, Payload},
};
use crate::crypto::{Crypto, Integ, Random, Refused};
use alloc::{collections::BTreeMap, vec, vec::Vec};

/// Most fragments of one message.
const MAX_FRAGMENTS: u16 = 128;
/// Most bytes before a message: IP and UDP headers, and the non-ESP marker.
const MAX_OUTER_LEN: usize = 40 + 8 + 4;
/// Bytes of a fragment before its IV.
const BEFORE_IV: usize = wire::HEADER + 8;

/// Why a message could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// It is malformed.
    Malformed(Malformed),
    /// Its ICV is wrong.
    Forged,
}

impl From<Malformed> for OpenError {
    fn from(why: Malformed) -> Self {
        Self::Malformed(why)
    }
}

impl From<Refused> for OpenError {
    fn from(_: Refused) -> Self {
        Self::Forged
    }
}

/// The plaintext of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plaintext {
    /// Type of the first payload.
    pub first: u8,
    /// The payloads.
    pub body: Vec<u8>,
    /// Type of an unknown critical payload before the encrypted one, for which the message must be
    /// rejected (RFC 7296 §2.5).
    pub unsupported: Option<u8>,
}

impl Plaintext {
    /// Parses the payloads, and converts them with `read` into a typed message.
    ///
    /// # Errors
    /// Fails if there is an unknown critical payload, or the body is not a chain of payloads, or not
    /// that message.
    pub fn read<T>(&self, read: impl FnOnce(&[Payload<'_>]) -> Result<T, Malformed>) -> Result<T, Malformed> {
        match self.unsupported {
            Some(kind) => Err(Malformed::Critical(kind)),
            None => read(&wire::parse(self.first, &self.body)?),
        }
    }
}

/// One direction of an IKE SA's protection.
#[derive(Clone, Copy, Debug)]
pub struct Protection<'a> {
    /// The cryptographic primitives.
    pub crypto: &'a dyn Crypto,
    /// The algorithms.
    pub suite: &'a IkeSuite,
    /// The keys of both directions.
    pub keys: &'a IkeSaKeys,
    /// True if the sender is the original initiator of the IKE SA.
    pub from_initiator: bool,
}

impl Protection<'_> {
    fn encr_key(&self) -> &[u8] {
        if self.from_initiator { &self.keys.ei } else { &self.keys.er }
    }

    fn integ_key(&self) -> Option<(Integ, &[u8])> {
        let key = if self.from_initiator { &self.keys.ai } else { &self.keys.ar };
        self.suite.integ.map(|integ| (integ, &key[..]))
    }

    /// Returns the number of bytes that protection adds after those before the IV, without padding.
    fn overhead(&self) -> usize {
        self.suite.encr.iv_len() + 1 + self.suite.integ.map_or(16, Integ::icv_len)
    }

    /// Returns the longest body, in bytes, that [`Protection::seal`] makes a message of at most `length`
    /// bytes of, if there is no limit.
    pub fn longest_body(&self, length: usize) -> usize {
        let blocks = self.suite.encr.block_len();
        let text = (length + 1).saturating_sub(wire::HEADER + 4 + self.overhead());
        (text / blocks * blocks).saturating_sub(1)
    }

    /// Seals a message with these payloads, in as many datagrams as it takes to keep each IP packet
    /// within `limit` bytes; without a limit, in one. IVs of AEADs come from `counter`, which is
    /// advanced so that none is used twice. Those of CBC must be unpredictable and come from
    /// `random`.
    pub fn seal(
        &self,
        random: &dyn Random,
        header: Header,
        first: u8,
        body: Vec<u8>,
        limit: Option<usize>,
        counter: &mut u64,
    ) -> Vec<Vec<u8>> {
        let whole =
            MAX_OUTER_LEN + wire::HEADER + 4 + self.overhead() + self.suite.encr.block_len() + body.len();
        let Some(limit) = limit.filter(|limit| whole > *limit) else {
            return vec![self.seal_one(random, header, first, None, body, counter)];
        };
        let room = limit.saturating_sub(MAX_OUTER_LEN + BEFORE_IV + self.overhead());
        let blocks = self.suite.encr.block_len();
        let room = (room / blocks * blocks).saturating_sub(usize::from(blocks > 1)).max(64);
        let total = body.len().div_ceil(room) as u16;
        let fragment = |(number, part): (u16, &[u8]), counter: &mut u64| {
            let first = if number == 1 { first } else { 0 };
            self.seal_one(random, header, first, Some((number, total)), part.to_vec(), counter)
        };
        (1..).zip(body.chunks(room)).map(|part| fragment(part, counter)).collect()
    }

    fn seal_one(
        &self,
        random: &dyn Random,
        header: Header,
        first: u8,
        fragment: Option<(u16, u16)>,
        mut text: Vec<u8>,
        counter: &mut u64,
    ) -> Vec<u8> {
        let encr = self.suite.encr;
        let padding = (encr.block_len() - (text.len() + 1) % encr.block_len()) % encr.block_len();
        text.resize(text.len() + padding, 0);
        text.push(padding as u8);
        let mut iv = [0; 16];
        let iv = &mut iv[..encr.iv_len()];
        if encr.is_aead() {
            iv.copy_from_slice(&counter.to_be_bytes());
            *counter += 1;
        } else {
            random.fill(iv);
        }
        let icv = self.suite.integ.map_or(16, Integ::icv_len);
        let mut message = Vec::with_capacity(BEFORE_IV + iv.len() + text.len() + icv);
        wire::emit_protected(header, first, fragment, iv.len() + text.len() + icv, &mut message);
        self.crypto.seal(encr, self.encr_key(), self.integ_key(), iv, &message, &mut text);
        message.extend_from_slice(iv);
        message.extend_from_slice(&text);
        message
    }

    /// Opens a message. Returns its plaintext if it is complete, or if it is the last missing
    /// fragment.
    ///
    /// # Errors
    /// Returns why the message could not be opened.
    pub fn open(
        &self,
        header: &Header,
        message: &[u8],
        parts: &mut Fragments,
    ) -> Result<Option<Plaintext>, OpenError> {
        let protected = wire::protected(message)?;
        let encr = self.suite.encr;
        let (iv, text) = protected.rest.split_at_checked(encr.iv_len()).ok_or(Malformed::Truncated)?;
        if text.len() > bounds::MESSAGE {
            return Err(Malformed::TooMany.into());
        }
        let mut text = text.to_vec();
        if let Some((number, total)) = protected.fragment
            && !parts.wants(header.message_id, number, total)
        {
            return Ok(None);
        }
        self.crypto.open(encr, self.encr_key(), self.integ_key(), iv, protected.aad, &mut text)?;
        let padding = usize::from(text.pop().ok_or(Malformed::Truncated)?);
        let length = text.len().checked_sub(padding).ok_or(Malformed::Length)?;
        text.truncate(length);
        match protected.fragment {
            None => {
                parts.clear();
                let wire::ProtectedMessage { first, unsupported, .. } = protected;
                Ok(Some(Plaintext { first, body: text, unsupported }))
            }
            Some((number, total)) => Ok(parts.add(header.message_id, (number, total), &protected, text)),
        }
    }
}

/// The fragments of one message, until they are complete. They are authentic, so only the peer
/// itself can fill this up. But it may not have proved its identity, so the space is limited.
#[derive(Debug, Default)]
pub struct Fragments {
    message_id: u32,
    total: u16,
    first: u8,
    unsupported: Option<u8>,
    parts: BTreeMap<u16, Vec<u8>>,
}

impl Fragments {
    /// Returns true if a fragment is needed: it belongs to this message and is still missing (RFC
    /// 7383 §2.6).
    fn wants(&self, message_id: u32, number: u16, total: u16) -> bool {
        let is_other = self.parts.is_empty() || message_id != self.message_id;
        total <= MAX_FRAGMENTS
            && (is_other || total > self.total || (total == self.total && !self.parts.contains_key(&number)))
    }

    fn add(
        &mut self,
        message_id: u32,
        (number, total): (u16, u16),
        protected: &wire::ProtectedMessage<'_>,
        part: Vec<u8>,
    ) -> Option<Plaintext> {
        // The sender may fragment the message again, into more fragments, which replace the old
        // ones.
        if self.parts.is_empty() || message_id != self.message_id || total != self.total {
            *self = Self { message_id, total, ..Self::default() };
        }
        if self.parts.values().map(Vec::len).sum::<usize>() + part.len() > bounds::MESSAGE {
            self.clear();
            return None;
        }
        if number == 1 {
            self.first = protected.first;
        }
        self.unsupported = self.unsupported.or(protected.unsupported);
        self.parts.insert(number, part);
        if self.parts.len() < usize::from(total) {
            return None;
        }
        let body = self.parts.values().flatten().copied().collect();
        let Self { first, unsupported, .. } = *self;
        self.clear();
        Some(Plaintext { first, body, unsupported })
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}
