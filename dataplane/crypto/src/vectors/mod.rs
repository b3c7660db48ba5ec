//! Published test vectors, run through every backend.

mod nist;
mod rfc;
mod wycheproof;

#[cfg(target_arch = "x86_64")]
use super::gcm::{self, Burst, Input};
use super::{
    Backend,
    aead::Aead,
    aes::{Aes, Block},
    cbc,
    gmac::Gmac,
};
use arrayvec::ArrayVec;
use std::collections::BTreeMap;

/// Returns the backends that this machine has.
fn backends() -> impl Iterator<Item = Backend> + Clone {
    Backend::ALL.into_iter().filter(|backend| backend.is_available())
}

/// An AEAD as the backend implements it.
enum Cipher {
    #[cfg(target_arch = "x86_64")]
    Kernels(Vec<u8>, gcm::Isa),
    Library(Aead),
}

/// Returns the bytes of a hexadecimal number. White space is skipped.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.split_whitespace().flat_map(str::bytes).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// One vector of a file: values by lower-case name, and `fail` if the file says `FAIL`.
type Record = BTreeMap<String, Vec<u8>>;

/// Returns the vectors of a file of `name = value` lines with a blank line after each vector.
fn records(text: &str) -> Vec<Record> {
    let record = |paragraph: &str| -> Record {
        paragraph
            .lines()
            .filter(|line| !line.starts_with(['#', '[']))
            .filter_map(|line| match line.split_once('=') {
                Some((name, value)) => Some((name.trim().to_lowercase(), value)),
                None if line == "FAIL" => Some(("fail".into(), "")),
                None => None,
            })
            .filter(|(name, _)| !["count", "len"].contains(&name.as_str()))
            .map(|(name, value)| (name, hex(value)))
            .collect()
    };
    text.split("\n\n").map(record).filter(|record| record.contains_key("key")).collect()
}

fn gcm(key: &[u8], backend: Backend) -> Cipher {
    #[cfg(target_arch = "x86_64")]
    if let Some(isa) = backend.isa() {
        return Cipher::Kernels(key.to_vec(), isa);
    }
    Cipher::Library(Aead::gcm(key).unwrap())
}

fn chacha(key: &[u8], backend: Backend) -> Cipher {
    Cipher::Library(Aead::chacha(key, backend).unwrap())
}

/// Opens `ct`. Returns the text if it is authentic. If it is not, the kernels must have left none
/// of it.
fn opened(cipher: &Cipher, nonce: &[u8], aad: &[u8], ct: &[u8], tag: &[u8]) -> Option<Vec<u8>> {
    let nonce: [u8; 12] = nonce.try_into().unwrap();
    let tag: [u8; 16] = tag.try_into().unwrap();
    match cipher {
        #[cfg(target_arch = "x86_64")]
        Cipher::Kernels(key, isa) => {
            let mut text = [ct, &tag].concat();
            let authentic = through::<false>(key, *isa, &nonce, aad, &mut text);
            assert_eq!(text.split_off(ct.len()), tag);
            assert!(authentic || text.iter().all(|&byte| byte == 0));
            authentic.then_some(text)
        }
        Cipher::Library(aead) => {
            let mut text = ct.to_vec();
            aead.open(&nonce, aad, &mut text, &tag).then_some(text)
        }
    }
}

/// Seals `text`. Returns ciphertext and tag.
fn sealed(cipher: &Cipher, nonce: &[u8], aad: &[u8], text: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let nonce: [u8; 12] = nonce.try_into().unwrap();
    match cipher {
        #[cfg(target_arch = "x86_64")]
        Cipher::Kernels(key, isa) => {
            let mut text = [text, &[0xbb; 16]].concat();
            assert!(through::<true>(key, *isa, &nonce, aad, &mut text));
            let tag = text.split_off(text.len() - 16);
            (text, tag)
        }
        Cipher::Library(aead) => {
            let mut text = text.to_vec();
            let tag = aead.seal(&nonce, aad, &mut text).unwrap();
            (text, tag.to_vec())
        }
    }
}

/// Passes one packet of text and tag through the kernels. Returns whether it is authentic.
#[cfg(target_arch = "x86_64")]
fn through<const SEAL: bool>(
    key: &[u8],
    isa: gcm::Isa,
    nonce: &[u8; 12],
    aad: &[u8],
    text: &mut [u8],
) -> bool {
    let (salt, iv) = nonce.split_first_chunk().unwrap();
    let key = gcm::Key::new(isa, key, *salt).unwrap();
    let mut burst = Burst::<SEAL>::new();
    let aad_block = key.absorb(None, aad);
    burst.push(9, &key, Input { iv: iv.try_into().unwrap(), aad: aad_block, aad_len: aad.len(), text });
    burst.finish() == 1 << 9
}

/// Returns the tags of `msg` from the portable code: all at once, and with the first block apart.
fn gmac_tags(key: &[u8], nonce: &[u8], msg: &[u8]) -> Vec<[u8; 16]> {
    let gmac = Gmac::new(key, [0; 4].into()).unwrap();
    let nonce = nonce.try_into().unwrap();
    let apart = msg.split_first_chunk().map(|(first, rest)| gmac.mac(&nonce, Some(*first), rest));
    [gmac.mac(&nonce, None, msg)].into_iter().chain(apart).collect()
}

fn cbc_encrypted(key: &[u8], iv: &[u8], text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    let (aes, blocks) = (Aes::new(key).unwrap(), Block::slice_as_chunks_mut(&mut text).0);
    let lane = cbc::Lane { aes: &aes, last: iv.try_into().unwrap(), text: blocks.iter_mut() };
    cbc::encrypt(&mut ArrayVec::from_iter([lane]));
    text
}

fn cbc_decrypted(key: &[u8], iv: &[u8], text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    cbc::decrypt(&Aes::new(key).unwrap(), iv.try_into().unwrap(), Block::slice_as_chunks_mut(&mut text).0);
    text
}
