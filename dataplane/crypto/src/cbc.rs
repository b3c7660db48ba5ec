//! AES-CBC (RFC 3602) or no encryption (RFC 2410), then an HMAC over all of it (RFC 4303 §3.3.2.1).

use super::{
    HEADER,
    aes::{Aes, Block},
    hmac::Mac,
    layout::high,
};
use ::cbc::{
    Decryptor, Encryptor,
    cipher::{Array, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit},
};

pub(super) struct CbcHmac {
    pub(super) cipher: Option<Aes>,
    pub(super) mac: Mac,
    pub(super) icv_len: usize,
}

impl CbcHmac {
    #[inline]
    pub(super) fn seal(&self, seq: u64, unique: u64, esn: bool, esp: &mut [u8]) {
        let (data, icv) = esp.split_at_mut(esp.len() - self.icv_len);
        if let Some(aes) = &self.cipher {
            let (iv, text) = Block::slice_as_chunks_mut(&mut data[HEADER..]).0.split_at_mut(1);
            // CBC needs an IV that is unpredictable and never repeated: a number encrypted with the
            // key itself (NIST SP 800-38A, appendix C).
            iv[0] = Array(u128::from(unique).to_be_bytes());
            aes.encrypt_block(&mut iv[0]);
            encrypt(aes, &iv[0], text);
        }
        self.mac.sign(data, &high(seq)[..tail(esn)], icv);
    }

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

/// Returns the number of bytes of the high half of the sequence number, which the HMAC covers
/// although they are not sent (RFC 4303 §2.2.1).
#[inline]
fn tail(esn: bool) -> usize {
    if esn { 4 } else { 0 }
}

#[inline]
pub(super) fn encrypt(aes: &Aes, iv: &Block, text: &mut [Block]) {
    Encryptor::inner_iv_init(aes, iv).encrypt_blocks(text);
}

#[inline]
pub(super) fn decrypt(aes: &Aes, iv: &Block, text: &mut [Block]) {
    Decryptor::inner_iv_init(aes, iv).decrypt_blocks(text);
}
