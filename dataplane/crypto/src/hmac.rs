//! The HMACs that authenticate ESP (RFC 2404, RFC 4868). The two blocks of the key are hashed once
//! for all packets.

use super::suite::Hash;
use ::hmac::{Hmac, KeyInit};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

pub(super) enum Mac {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl Mac {
    pub(super) fn new(hash: Hash, key: &[u8]) -> Option<Self> {
        match hash {
            Hash::Sha1 => Hmac::new_from_slice(key).ok().map(Self::Sha1),
            Hash::Sha256 => Hmac::new_from_slice(key).ok().map(Self::Sha256),
            Hash::Sha384 => Hmac::new_from_slice(key).ok().map(Self::Sha384),
            Hash::Sha512 => Hmac::new_from_slice(key).ok().map(Self::Sha512),
        }
    }

    /// Writes the leading bytes of the HMAC of `data` and `tail` to `icv`, which is no longer than
    /// the hash.
    #[inline]
    pub(super) fn sign(&self, data: &[u8], tail: &[u8], icv: &mut [u8]) {
        match self {
            Self::Sha1(mac) => sign(mac, data, tail, icv),
            Self::Sha256(mac) => sign(mac, data, tail, icv),
            Self::Sha384(mac) => sign(mac, data, tail, icv),
            Self::Sha512(mac) => sign(mac, data, tail, icv),
        }
    }

    /// Returns whether `icv` is the beginning of the HMAC of `data` and `tail`, in constant time.
    #[inline]
    pub(super) fn verify(&self, data: &[u8], tail: &[u8], icv: &[u8]) -> bool {
        match self {
            Self::Sha1(mac) => verify(mac, data, tail, icv),
            Self::Sha256(mac) => verify(mac, data, tail, icv),
            Self::Sha384(mac) => verify(mac, data, tail, icv),
            Self::Sha512(mac) => verify(mac, data, tail, icv),
        }
    }
}

#[inline]
fn sign<M: ::hmac::Mac + Clone>(mac: &M, data: &[u8], tail: &[u8], icv: &mut [u8]) {
    let code = mac.clone().chain_update(data).chain_update(tail).finalize().into_bytes();
    icv.copy_from_slice(&code[..icv.len()]);
}

#[inline]
fn verify<M: ::hmac::Mac + Clone>(mac: &M, data: &[u8], tail: &[u8], icv: &[u8]) -> bool {
    mac.clone().chain_update(data).chain_update(tail).verify_truncated_left(icv).is_ok()
}
