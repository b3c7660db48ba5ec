//! The computations of MS-CHAPv2 (RFC 2759 §8) and of its keys (RFC 3079 §3).

use crate::crypto::Secret;
use alloc::vec::Vec;
use core::fmt;
use des::{
    Des,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use md4::{Digest, Md4};
use sha1::Sha1;
use zeroize::Zeroizing;

/// Length of an MSK in bytes: 16 of each direction's key, then zeros.
const MSK: usize = 64;

const AUTHENTICATOR_1: &[u8] = b"Magic server to client signing constant";
const AUTHENTICATOR_2: &[u8] = b"Pad to make it do more than one iteration";
const MASTER: &[u8] = b"This is the MPPE Master Key";
const TO_SERVER: &[u8] =
    b"On the client side, this is the send key; on the server side, it is the receive key.";
const TO_CLIENT: &[u8] =
    b"On the client side, this is the receive key; on the server side, it is the send key.";

/// The hash of a password that MS-CHAPv2 works with (`NtPasswordHash`). Whoever steals it can use
/// it like the password, so it is never shown.
#[derive(Clone)]
pub struct NtHash(Zeroizing<[u8; 16]>);

impl NtHash {
    /// Hashes this password.
    pub fn of(password: &str) -> Self {
        let mut hash = Md4::new();
        password.encode_utf16().for_each(|unit| hash.update(unit.to_le_bytes()));
        Self(Zeroizing::new(hash.finalize().into()))
    }

    /// Returns a hash that belongs to no known password. The bytes must be random.
    pub(super) fn from_random(random: Zeroizing<[u8; 16]>) -> Self {
        Self(random)
    }
}

impl fmt::Debug for NtHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NtHash")
    }
}

/// The proofs of one exchange, and the key that follows from it.
pub(super) struct Proofs {
    /// The client's proof: `NT-Response`.
    pub(super) client: [u8; 24],
    /// The server's proof: `AuthenticatorResponse`, not yet as text.
    pub(super) server: [u8; 20],
    /// The shared MSK: the server's receive key, then its send key, then zeros.
    pub(super) msk: Secret,
}

impl Proofs {
    /// Computes the proofs from both challenges, the user's `name` without its domain, and the
    /// password.
    pub(super) fn new(server: &[u8; 16], client: &[u8; 16], name: &[u8], password: &NtHash) -> Self {
        let challenge: [u8; 8] = head(&sha1(&[client, server, name])[..]);
        let response = challenge_response(&challenge, password);
        let hash_hash = Zeroizing::new(<[u8; 16]>::from(Md4::digest(&password.0[..])));
        let digest = sha1(&[&hash_hash[..], &response, AUTHENTICATOR_1]);
        let authenticator = sha1(&[&digest[..], &challenge, AUTHENTICATOR_2]);
        Self { client: response, server: *authenticator, msk: msk(&hash_hash, &response) }
    }
}

/// Computes `ChallengeResponse`: the challenge, encrypted with DES by each third of the hash.
fn challenge_response(challenge: &[u8; 8], password: &NtHash) -> [u8; 24] {
    let mut padded = Zeroizing::new([0; 21]);
    padded.iter_mut().zip(password.0.iter()).for_each(|(to, from)| *to = *from);
    let mut response = [0; 24];
    for (key, out) in padded.chunks(7).zip(response.chunks_mut(8)) {
        let mut block = (*challenge).into();
        Des::new(&(*des_key(key)).into()).encrypt_block(&mut block);
        out.copy_from_slice(&block);
    }
    response
}

/// Spreads 56 bits over the upper seven bits of eight bytes. The lowest bit, parity, does not
/// matter.
fn des_key(bits: &[u8]) -> Zeroizing<[u8; 8]> {
    let all = bits.iter().fold(0, |all: u64, byte| all << 8 | u64::from(*byte));
    Zeroizing::new(core::array::from_fn(|i| (all >> (49 - 7 * i) << 1 & 0xfe) as u8))
}

/// Derives the MSK (RFC 3079 §3.4) from keys of 128 bits.
fn msk(hash_hash: &[u8; 16], response: &[u8; 24]) -> Secret {
    let master = sha1(&[hash_hash, response, MASTER]);
    let (master, _) = master.split_at(16);
    let mut msk = Zeroizing::new(Vec::with_capacity(MSK));
    for direction in [TO_SERVER, TO_CLIENT] {
        let key = sha1(&[master, &[0; 40], direction, &[0xf2; 40]]);
        msk.extend(key.iter().take(16));
    }
    msk.resize(MSK, 0);
    msk
}

fn sha1(parts: &[&[u8]]) -> Zeroizing<[u8; 20]> {
    let mut hash = Sha1::new();
    parts.iter().for_each(|part| hash.update(part));
    Zeroizing::new(hash.finalize().into())
}

/// Returns the first `N` bytes, or zeros if there are fewer.
fn head<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// Returns a name without its Windows domain, `DOMAIN\name`: the form that is proved (RFC 2759 §4).
pub(super) fn without_domain(name: &[u8]) -> &[u8] {
    name.iter().rposition(|&c| c == b'\\').and_then(|at| name.get(at + 1..)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// RFC 2759 §9.2 and RFC 3079 §3.5.3.
    #[test]
    fn proofs_and_keys_are_those_of_the_rfcs() {
        let server = head(&hex("5B 5D 7C 7D 7B 3F 2F 3E 3C 2C 60 21 32 26 26 28"));
        let client = head(&hex("21 40 23 24 25 5E 26 2A 28 29 5F 2B 3A 33 7C 7E"));
        let password = NtHash::of("clientPass");
        assert_eq!(password.0[..], hex("44 EB BA 8D 53 12 B8 D6 11 47 44 11 F5 69 89 AE"));
        let proofs = Proofs::new(&server, &client, b"User", &password);
        let response = "82 30 9E CD 8D 70 8B 5E A0 8F AA 39 81 CD 83 54 42 33 11 4A 3D 85 D6 DF";
        assert_eq!(proofs.client[..], hex(response));
        assert_eq!(proofs.server[..], hex("407A5589115FD0D6209F510FE9C04566932CDA56"));
        assert_eq!(proofs.msk[16..32], hex("8B 7C DC 14 9B 99 3A 1B A1 18 CB 15 3F 56 DC CB"));
        assert_eq!((proofs.msk.len(), &proofs.msk[32..]), (64, &[0; 32][..]));
    }

    #[test]
    fn passwords_are_utf_16() {
        // MD4 of "é€" in UTF-16LE: e9 00 ac 20.
        assert_eq!(NtHash::of("é€").0[..], *Md4::digest([0xe9, 0, 0xac, 0x20]));
    }

    #[test]
    fn a_domain_is_no_part_of_a_name() {
        assert_eq!(without_domain(b"BIGCO\\johndoe"), b"johndoe");
        assert_eq!(without_domain(b"johndoe"), b"johndoe");
        assert_eq!(without_domain(b"BIGCO\\"), b"");
    }
}
