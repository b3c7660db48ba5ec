//! A private key and its certificates in one file (PKCS#12, RFC 7292), as phones import them.

use super::PkiError;
use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
};
use zeroize::Zeroizing;

/// Letters and digits that cannot be mistaken for one another.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Characters of a password: 100 bits.
const LENGTH: usize = 20;

/// Rounds of the functions that make keys of the password.
const ROUNDS: u32 = 10_000;

/// Returns a random password in groups of five characters.
pub(super) fn password() -> Result<Zeroizing<String>, PkiError> {
    let mut random = Zeroizing::new([0; LENGTH]);
    getrandom::fill(&mut *random).map_err(PkiError::library)?;
    let mut password = Zeroizing::new(String::with_capacity(LENGTH + LENGTH / 5));
    for (at, byte) in random.iter().enumerate() {
        if at > 0 && at % 5 == 0 {
            password.push('-');
        }
        password.push(LETTERS[usize::from(byte % 32)].into());
    }
    Ok(password)
}

/// Returns a PKCS#12 file with the private key in PKCS#8 and its certificates, the owner's first.
///
/// Many phones and computers read no other algorithms than 3DES and SHA-1 here (`openssl pkcs12
/// -legacy` is for them). The password has 100 random bits, so that these are strong enough.
pub(super) fn bundle(
    name: &str,
    key: &[u8],
    certificates: &[&[u8]],
    password: &str,
) -> Result<Vec<u8>, PkiError> {
    let key = PrivateKey::from_der(key).map_err(PkiError::library)?;
    let certificates = certificates.iter().map(|der| Certificate::from_der(der));
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(PkiError::library)?;
    let mut store = KeyStore::new();
    store.add_entry(name, KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(vec![1u8], key, certificates)));
    store
        .writer(password)
        .encryption_algorithm(EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc)
        .encryption_iterations(ROUNDS)
        .mac_algorithm(MacAlgorithm::HmacSha1)
        .mac_iterations(ROUNDS)
        .write()
        .map_err(PkiError::library)
}
