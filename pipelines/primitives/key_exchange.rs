//! Key exchange by elliptic curves (RFC 5903, RFC 8031) and ML-KEM (FIPS 203).

use aws_lc_rs::{
    agreement::{self, PrivateKey, UnparsedPublicKey},
    kem::{self, DecapsulationKey, EncapsulationKey},
};
use std::fmt;
use wayfarer_mobility::crypto::{Kex, KexSecret, Refused, Secret};

/// The first byte of an uncompressed point (SEC 1 §2.3.3), which IKE does not send (RFC 5903 §6).
const UNCOMPRESSED: u8 = 4;

pub(super) struct Curve(pub(super) PrivateKey);

pub(super) fn begin_curve(kex: Kex) -> Result<(Box<dyn KexSecret>, Vec<u8>), Refused> {
    let algorithm = match kex {
        Kex::Ecp256 => &agreement::ECDH_P256,
        Kex::Ecp384 => &agreement::ECDH_P384,
        Kex::Ecp521 => &agreement::ECDH_P521,
        Kex::X25519 => &agreement::X25519,
        _ => return Err(Refused),
    };
    let private = PrivateKey::generate(algorithm).map_err(|_| Refused)?;
    let public = private.compute_public_key().map_err(|_| Refused)?;
    let data = match is_weierstrass(&private) {
        true => public.as_ref().get(1..).unwrap_or_default(),
        false => public.as_ref(),
    };
    Ok((Box::new(Curve(private)), data.to_vec()))
}

fn is_weierstrass(private: &PrivateKey) -> bool {
    private.algorithm() != &agreement::X25519
}

/// Returns the number of bytes of a point on the wire.
fn point_len(private: &PrivateKey) -> usize {
    match private.algorithm() {
        a if a == &agreement::ECDH_P256 => 64,
        a if a == &agreement::ECDH_P384 => 96,
        a if a == &agreement::ECDH_P521 => 132,
        _ => 32,
    }
}

impl KexSecret for Curve {
    fn finish(self: Box<Self>, data: &[u8]) -> Result<Secret, Refused> {
        // The library would also take other encodings of a point.
        if data.len() != point_len(&self.0) {
            return Err(Refused);
        }
        let mut point = Vec::with_capacity(1 + data.len());
        if is_weierstrass(&self.0) {
            point.push(UNCOMPRESSED);
        }
        point.extend_from_slice(data);
        let peer = UnparsedPublicKey::new(self.0.algorithm(), point);
        agreement::agree(&self.0, peer, Refused, |secret| Ok(Secret::new(secret.to_vec())))
    }
}

impl fmt::Debug for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.algorithm())
    }
}

pub(super) struct Kem(pub(super) DecapsulationKey);

fn kem(kex: Kex) -> Result<&'static kem::Algorithm, Refused> {
    match kex {
        Kex::MlKem768 => Ok(&kem::ML_KEM_768),
        Kex::MlKem1024 => Ok(&kem::ML_KEM_1024),
        _ => Err(Refused),
    }
}

/// Generates a key pair. The initiator sends the encapsulation key.
pub(super) fn begin_kem(kex: Kex) -> Result<(Box<dyn KexSecret>, Vec<u8>), Refused> {
    let private = DecapsulationKey::generate(kem(kex)?).map_err(|_| Refused)?;
    let public = private.encapsulation_key().and_then(|key| Ok(key.key_bytes()?.as_ref().to_vec()));
    Ok((Box::new(Kem(private)), public.map_err(|_| Refused)?))
}

/// Encapsulates a secret for the initiator's key. The responder sends the ciphertext.
pub(super) fn answer_kem(kex: Kex, data: &[u8]) -> Result<(Vec<u8>, Secret), Refused> {
    let key = EncapsulationKey::new(kem(kex)?, data).map_err(|_| Refused)?;
    let (ciphertext, secret) = key.encapsulate().map_err(|_| Refused)?;
    Ok((ciphertext.as_ref().to_vec(), Secret::new(secret.as_ref().to_vec())))
}

impl KexSecret for Kem {
    fn finish(self: Box<Self>, data: &[u8]) -> Result<Secret, Refused> {
        let secret = self.0.decapsulate(data.into()).map_err(|_| Refused)?;
        Ok(Secret::new(secret.as_ref().to_vec()))
    }
}

impl fmt::Debug for Kem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.algorithm().id())
    }
}
