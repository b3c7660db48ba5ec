//! Key exchanges.

use super::*;

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
        if !kex.is_kem() {
            refused(&vec![0; begun.len()], &vec![0; answer.len()]);
            // Beyond the prime of every group but X25519, whose values are all taken.
            if kex != Kex::X25519 {
                refused(&vec![0xff; begun.len()], &vec![0xff; answer.len()]);
            }
        }
    }
}
