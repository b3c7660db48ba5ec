//! The cryptography that IKE needs (`wayfarer_mobility::crypto::Crypto`), on top of libraries.
//!
//! | module | contents |
//! |---|---|
//! | [`Primitives`] | hashes, ciphers, key exchanges |
//! | [`OsRandom`] | random bytes |
//! | `cipher` | the protection of the Encrypted payload |
//! | `key_exchange` | elliptic curves and ML-KEM |
//! | `mac` | HMAC |
//! | `modp` | the groups of RFC 3526 |

mod cipher;
mod key_exchange;
mod mac;
mod modp;

use aws_lc_rs::{digest, hmac};
use wayfarer_mobility::crypto::{Crypto, Encr, Integ, Kex, KexSecret, Prf, Random, Refused, Secret};

/// The operating system's random bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    /// # Panics
    /// If the system has no random bytes: nothing can go on safely without them.
    fn fill(&self, out: &mut [u8]) {
        aws_lc_rs::rand::fill(out).expect("the system gives random bytes");
    }
}

/// The cryptographic functions of `aws-lc-rs` and `crypto-bigint`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Primitives;

impl Crypto for Primitives {
    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Secret {
        let algorithm = match prf {
            Prf::HmacSha256 => hmac::HMAC_SHA256,
            Prf::HmacSha384 => hmac::HMAC_SHA384,
            Prf::HmacSha512 => hmac::HMAC_SHA512,
        };
        Secret::new(mac::sign(algorithm, key, parts).as_ref().to_vec())
    }

    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        parts.iter().for_each(|part| context.update(part));
        let mut hash = [0; 20];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }

    /// # Panics
    /// If the key, IV or text has a length that its algorithm does not take.
    fn seal(
        &self,
        encr: Encr,
        key: &[u8],
        integ: Option<(Integ, &[u8])>,
        iv: &[u8],
        aad: &[u8],
        text: &mut Vec<u8>,
    ) {
        let sealed = match integ {
            None => cipher::seal_aead(encr, key, iv, aad, text),
            Some(integ) => cipher::seal_cbc(encr, key, integ, iv, aad, text),
        };
        sealed.expect("key, IV and text have the lengths of their algorithms");
    }

    fn open(
        &self,
        encr: Encr,
        key: &[u8],
        integ: Option<(Integ, &[u8])>,
        iv: &[u8],
        aad: &[u8],
        text: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        match integ {
            None => cipher::open_aead(encr, key, iv, aad, text),
            Some(integ) => cipher::open_cbc(encr, key, integ, iv, aad, text),
        }
    }

    fn kex_begin(&self, kex: Kex) -> Result<(Box<dyn KexSecret>, Vec<u8>), Refused> {
        match kex {
            Kex::Modp2048 => modp::MODP_2048.begin(),
            Kex::Modp3072 => modp::MODP_3072.begin(),
            Kex::Modp4096 => modp::MODP_4096.begin(),
            Kex::MlKem768 | Kex::MlKem1024 => key_exchange::begin_kem(kex),
            Kex::Ecp256 | Kex::Ecp384 | Kex::Ecp521 | Kex::X25519 => key_exchange::begin_curve(kex),
        }
    }

    fn kex_answer(&self, kex: Kex, data: &[u8]) -> Result<(Vec<u8>, Secret), Refused> {
        match kex {
            Kex::MlKem768 | Kex::MlKem1024 => key_exchange::answer_kem(kex, data),
            _ => {
                let (private, public) = self.kex_begin(kex)?;
                Ok((public, private.finish(data)?))
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
