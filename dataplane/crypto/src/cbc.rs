//! AES-CBC (RFC 3602) or no encryption (RFC 2410), then an HMAC over all of it (RFC 4303 §3.3.2.1).

use super::{
    HEADER,
    aes::{Aes, Block},
    hmac::Mac,
    layout::high,
};
use ::cbc::{
    Decryptor,
    cipher::{Array, BlockCipherEncrypt, BlockModeDecrypt, InnerIvInit},
};
use arrayvec::ArrayVec;
use std::slice;

/// The most packets that are encrypted together: what fits the first cache at full length.
const LANES: usize = 16;

pub(super) struct CbcHmac {
    pub(super) cipher: Option<Aes>,
    pub(super) mac: Mac,
    pub(super) icv_len: usize,
}

impl CbcHmac {
    #[inline]
    pub(super) fn open(&self, seq: u64, esn: bool, esp: &mut [u8]) -> bool {
        let (data, icv) = esp.split_at_mut(esp.len() - self.icv_len);
        if !self.mac.verify(data, &high(seq)[..tail(esn)], icv) {
            return false;
        }
        if let Some(aes) = &self.cipher {
            let (iv, text) = Block::slice_as_chunks_mut(&mut data[HEADER..]).0.split_at_mut(1);
            decrypt(aes, &iv[0], text);
        }
        true
    }
}

/// Packets that are sealed together. Within a packet each block waits for the one before, so blocks of
/// several packets are encrypted side by side.
pub(super) struct Run<'a>(ArrayVec<Packet<'a>, LANES>);

struct Packet<'a> {
    key: &'a CbcHmac,
    seq: u64,
    unique: u64,
    esn: bool,
    esp: &'a mut [u8],
}

impl<'a> Run<'a> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    /// Adds a packet. It is sealed by the next [`finish`](Self::finish) at the latest.
    pub(super) fn push(&mut self, key: &'a CbcHmac, seq: u64, unique: u64, esn: bool, esp: &'a mut [u8]) {
        self.0.push(Packet { key, seq, unique, esn, esp });
        if self.0.is_full() {
            self.finish();
        }
    }

    /// Seals the packets that were added.
    #[inline(always)]
    pub(super) fn finish(&mut self) {
        if !self.0.is_empty() {
            seal(&mut self.0);
        }
    }
}

#[inline(never)]
fn seal(packets: &mut ArrayVec<Packet<'_>, LANES>) {
    let lanes = packets.iter_mut().filter_map(|Packet { key, unique, esp, .. }| {
        let aes = key.cipher.as_ref()?;
        let end = esp.len() - key.icv_len;
        let (iv, text) = Block::slice_as_chunks_mut(&mut esp[HEADER..end]).0.split_at_mut(1);
        // CBC needs an IV that is unpredictable and never repeated: a number encrypted with the key
        // itself (NIST SP 800-38A, appendix C).
        iv[0] = Array(u128::from(*unique).to_be_bytes());
        aes.encrypt_block(&mut iv[0]);
        Some(Lane { aes, last: iv[0], text: text.iter_mut() })
    });
    encrypt(&mut lanes.collect());
    for Packet { key, seq, esn, esp, .. } in packets.drain(..) {
        let (data, icv) = esp.split_at_mut(esp.len() - key.icv_len);
        key.mac.sign(data, &high(seq)[..tail(esn)], icv);
    }
}

/// Returns the number of bytes of the high half of the sequence number, which the HMAC covers
/// although they are not sent (RFC 4303 §2.2.1).
#[inline]
fn tail(esn: bool) -> usize {
    if esn { 4 } else { 0 }
}

/// A text that is encrypted in place.
pub(super) struct Lane<'a> {
    pub(super) aes: &'a Aes,
    /// The last block that was encrypted; at first the IV.
    pub(super) last: Block,
    /// What is left of it.
    pub(super) text: slice::IterMut<'a, Block>,
}

/// Encrypts the texts side by side: the processor works on a block of each at the same time.
pub(super) fn encrypt(lanes: &mut ArrayVec<Lane<'_>, LANES>) {
    while !lanes.is_empty() {
        lanes.retain(|Lane { aes, last, text }| {
            let Some(block) = text.next() else { return false };
            let mixed = u128::from_ne_bytes(last.0) ^ u128::from_ne_bytes(block.0);
            *last = Array(mixed.to_ne_bytes());
            aes.encrypt_block(last);
            *block = *last;
            true
        });
    }
}

#[inline]
pub(super) fn decrypt(aes: &Aes, iv: &Block, text: &mut [Block]) {
    Decryptor::inner_iv_init(aes, iv).decrypt_blocks(text);
}
