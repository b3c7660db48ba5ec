//! AES-GMAC: the packet is authenticated and not encrypted (RFC 4543).
//!
//! The high half of an extended sequence number is authenticated between the SPI and the low half,
//! although it is not in the packet there. So GHASH runs by itself, a block at a time; a whole GCM
//! would need a copy of the packet.

use super::{
    HEADER, aes,
    layout::{ICV, IV, high},
};
use cbc::cipher::BlockCipherEncrypt;
use ghash::{GHash, universal_hash::UniversalHash};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub(super) struct Gmac {
    aes: aes::Aes,
    ghash: GHash,
    salt: Zeroizing<[u8; 4]>,
}

impl Gmac {
    pub(super) fn new(key: &[u8], salt: Zeroizing<[u8; 4]>) -> Option<Self> {
        let aes = aes::Aes::new(key)?;
        let mut h = Zeroizing::new([0; 16]);
        aes.encrypt_block((&mut *h).into());
        Some(Self { aes, ghash: GHash::new((&*h).into()), salt })
    }

    #[inline]
    pub(super) fn seal(&self, seq: u64, iv: u64, esn: bool, esp: &mut [u8]) {
        esp[HEADER..HEADER + IV].copy_from_slice(&iv.to_be_bytes());
        let (data, icv) = esp.split_at_mut(esp.len() - ICV);
        icv.copy_from_slice(&self.icv(seq, esn, data));
    }

    #[inline]
    pub(super) fn open(&self, seq: u64, esn: bool, esp: &[u8]) -> bool {
        let (data, icv) = esp.split_at(esp.len() - ICV);
        self.icv(seq, esn, data).ct_eq(icv).into()
    }

    /// Returns the ICV over `data`: SPI, sequence number, IV and payload (RFC 4543 §3.3;
    /// draft-mcgrew-gcm-test-01 §3 makes clear that the IV is covered).
    #[inline]
    fn icv(&self, seq: u64, esn: bool, data: &[u8]) -> [u8; ICV] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&*self.salt);
        nonce[4..].copy_from_slice(&data[HEADER..HEADER + IV]);
        if !esn {
            return self.mac(&nonce, None, data);
        }
        let mut first = [0; 16];
        first[..4].copy_from_slice(&data[..4]);
        first[4..8].copy_from_slice(&high(seq));
        first[8..].copy_from_slice(&data[4..12]);
        self.mac(&nonce, Some(first), &data[12..])
    }

    /// Returns the GMAC of `first`, if there is one, and `rest` (NIST SP 800-38D §7.1, with a
    /// 96-bit IV and no plaintext).
    #[inline]
    pub(super) fn mac(&self, nonce: &[u8; 12], first: Option<[u8; 16]>, rest: &[u8]) -> [u8; ICV] {
        let mut ghash = self.ghash.clone();
        let mut bits = rest.len() as u128 * 8;
        if let Some(first) = first {
            ghash.update(&[first.into()]);
            bits += 128;
        }
        ghash.update_padded(rest);
        ghash.update(&[(bits << 64).to_be_bytes().into()]);
        let mut counter = aes::Block::default();
        counter[..12].copy_from_slice(nonce);
        counter[15] = 1;
        self.aes.encrypt_block(&mut counter);
        let hash: [u8; 16] = ghash.finalize().into();
        (u128::from_be_bytes(hash) ^ u128::from_be_bytes(counter.into())).to_be_bytes()
    }
}
