//! NIST CAVP: AES-GCM (its vectors without text are AES-GMAC too) and AES-CBC.

use super::*;

macro_rules! vectors {
    ($($name:literal),+) => {
        [$(records(include_str!(concat!("../../tests/vectors/", $name, ".rsp")))),+].concat()
    };
}

#[test]
fn gcm_encrypts() {
    let vectors = vectors!["gcmEncryptExtIV128", "gcmEncryptExtIV192", "gcmEncryptExtIV256"];
    assert_eq!(vectors.len(), 225);
    for (v, backend) in vectors.iter().flat_map(|v| backends().map(move |b| (v, b))) {
        let aead = gcm(&v["key"], backend);
        assert_eq!(sealed(&aead, &v["iv"], &v["aad"], &v["pt"]), (v["ct"].clone(), v["tag"].clone()));
        assert_eq!(opened(&aead, &v["iv"], &v["aad"], &v["ct"], &v["tag"]).as_ref(), Some(&v["pt"]));
    }
}

#[test]
fn gcm_decrypts() {
    let vectors = vectors!["gcmDecrypt128", "gcmDecrypt192", "gcmDecrypt256"];
    assert_eq!(vectors.len(), 225);
    assert!(vectors.iter().filter(|v| v.contains_key("fail")).count() > 50);
    for (v, backend) in vectors.iter().flat_map(|v| backends().map(move |b| (v, b))) {
        let text = opened(&gcm(&v["key"], backend), &v["iv"], &v["aad"], &v["ct"], &v["tag"]);
        assert_eq!(text.as_ref(), v.get("pt"));
        assert_eq!(text.is_none(), v.contains_key("fail"));
    }
}

#[test]
fn gmac() {
    let vectors = vectors!["gcmEncryptExtIV128", "gcmEncryptExtIV192", "gcmEncryptExtIV256"];
    let vectors: Vec<_> = vectors.iter().filter(|v| v["pt"].is_empty()).collect();
    assert_eq!(vectors.len(), 45);
    for v in vectors {
        for tag in gmac_tags(&v["key"], &v["iv"], &v["aad"]) {
            assert_eq!(tag[..], v["tag"][..]);
        }
    }
}

#[test]
fn cbc() {
    let vectors = vectors![
        "CBCMMT128",
        "CBCMMT192",
        "CBCMMT256",
        "CBCGFSbox128",
        "CBCGFSbox192",
        "CBCGFSbox256",
        "CBCKeySbox128",
        "CBCKeySbox192",
        "CBCKeySbox256"
    ];
    assert_eq!(vectors.len(), 2 * (30 + 18 + 61));
    for v in vectors {
        assert_eq!(cbc_encrypted(&v["key"], &v["iv"], &v["plaintext"]), v["ciphertext"]);
        assert_eq!(cbc_decrypted(&v["key"], &v["iv"], &v["ciphertext"]), v["plaintext"]);
    }
}
