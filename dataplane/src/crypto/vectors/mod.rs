//! Published test vectors, through every backend.

mod nist;
mod rfc;
mod wycheproof;

use super::{
    Backend,
    aead::Aead,
    aes::{Aes, Block},
    cbc,
    suite::AesKey,
};
use std::collections::BTreeMap;

const BACKENDS: [Backend; 2] = [Backend::Native, Backend::Portable];

/// Bytes of a hexadecimal number; white space is skipped.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.split_whitespace().flat_map(str::bytes).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// One vector of a file: values by lower-case name; `fail` where the file says `FAIL`.
type Record = BTreeMap<String, Vec<u8>>;

/// The vectors of a file of `name = value` lines with a blank line after each vector.
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

fn gcm(key: &[u8], backend: Backend) -> Aead {
    let size = match key.len() {
        16 => AesKey::Aes128,
        24 => AesKey::Aes192,
        _ => AesKey::Aes256,
    };
    Aead::gcm(size, key, backend).unwrap()
}

/// Opens `ct`; gives the text where it is authentic.
fn opened(aead: &Aead, nonce: &[u8], aad: &[u8], ct: &[u8], tag: &[u8]) -> Option<Vec<u8>> {
    let mut text = ct.to_vec();
    aead.open(nonce.try_into().unwrap(), aad, &mut text, tag.try_into().unwrap()).then_some(text)
}

/// Text and tag, sealed.
fn sealed(aead: &Aead, nonce: &[u8], aad: &[u8], text: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut text = text.to_vec();
    let tag = aead.seal(nonce.try_into().unwrap(), aad, &mut text).unwrap();
    (text, tag.to_vec())
}

fn cbc_encrypted(key: &[u8], iv: &[u8], text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    cbc::encrypt(&Aes::new(key).unwrap(), iv.try_into().unwrap(), Block::slice_as_chunks_mut(&mut text).0);
    text
}

fn cbc_decrypted(key: &[u8], iv: &[u8], text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    cbc::decrypt(&Aes::new(key).unwrap(), iv.try_into().unwrap(), Block::slice_as_chunks_mut(&mut text).0);
    text
}
