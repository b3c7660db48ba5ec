//! ESP cryptography through its public interface: the properties that every suite must have.

use proptest::{collection::vec, prelude::*, sample::select};
use std::{env, process::Command};
use wayfarer_crypto::{Backend, BackendError, HEADER, Key, KeyError, OpenJob, SealJob, Suite, open, seal};

/// Returns the backends that this machine has.
fn backends() -> Vec<Backend> {
    Backend::ALL.into_iter().filter(|backend| backend.is_available()).collect()
}

fn key(suite: Suite, seed: u8, backend: Backend) -> Key {
    let material: Vec<u8> = (0..suite.key_len()).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
    Key::new(suite, &material, backend).unwrap()
}

/// Returns an ESP packet that is not yet sealed: `text` with the padding that the suite requires.
fn packet(suite: Suite, seq: u64, text: &[u8]) -> Vec<u8> {
    let mut esp = vec![0xde, 0xad, 0xbe, 0xef];
    esp.extend((seq as u32).to_be_bytes());
    esp.resize(HEADER + suite.iv_len(), 0xaa);
    esp.extend(text);
    let pad = (text.len() + 2).next_multiple_of(suite.align()) - text.len() - 2;
    esp.extend((1..=pad as u8).chain([pad as u8, 4]));
    esp.resize(esp.len() + suite.icv_len(), 0xbb);
    esp
}

fn sealed(key: &Key, seq: u64, esn: bool, text: &[u8]) -> Vec<u8> {
    let mut esp = packet(key.suite(), seq, text);
    seal(&mut [SealJob { key, seq, iv: seq, esn, esp: &mut esp }]);
    esp
}

fn opens(key: &Key, seq: u64, esn: bool, esp: &mut [u8]) -> bool {
    let mut job = [OpenJob { key, seq, esn, esp, authentic: true }];
    open(&mut job);
    job[0].authentic
}

/// Returns the part of a packet between IV and ICV.
fn text_of(suite: Suite, esp: &[u8]) -> &[u8] {
    &esp[HEADER + suite.iv_len()..esp.len() - suite.icv_len()]
}

fn encrypts(suite: Suite) -> bool {
    let name = suite.to_string();
    !name.contains("gmac") && !name.starts_with("null")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn sealed_packets_open(
        suite in select(Suite::ALL), backends in (select(backends()), select(backends())),
        seed: u8, seq: u64, esn: bool, text in vec(any::<u8>(), 0..9216)
    ) {
        let mut esp = sealed(&key(suite, seed, backends.0), seq, esn, &text);
        let plain = packet(suite, seq, &text);
        prop_assert_eq!(encrypts(suite), text_of(suite, &esp) != text_of(suite, &plain));
        prop_assert!(opens(&key(suite, seed, backends.1), seq, esn, &mut esp));
        prop_assert_eq!(text_of(suite, &esp), text_of(suite, &plain));
        prop_assert_eq!(&esp[..HEADER], &plain[..HEADER]);
    }

    #[test]
    fn backends_agree(suite in select(Suite::ALL), seq: u64, esn: bool, text in vec(any::<u8>(), 0..2048)) {
        let portable = sealed(&key(suite, 7, Backend::Portable), seq, esn, &text);
        for backend in backends() {
            prop_assert_eq!(&sealed(&key(suite, 7, backend), seq, esn, &text), &portable, "{}", backend);
        }
    }

    #[test]
    fn a_burst_is_sealed_as_its_packets_are_one_by_one(
        keys in vec((select(Suite::ALL), select(backends())), 1..4),
        burst in vec((any::<prop::sample::Index>(), any::<bool>(), vec(any::<u8>(), 0..1500)), 1..130)
    ) {
        let keys: Vec<Key> = (0..).zip(&keys).map(|(seed, &(suite, backend))| key(suite, seed, backend)).collect();
        let of = |i: &prop::sample::Index| &keys[i.index(keys.len())];
        let mut packets: Vec<Vec<u8>> =
            (5..).zip(&burst).map(|(seq, b)| packet(of(&b.0).suite(), seq, &b.2)).collect();
        let mut jobs: Vec<_> = (5..).zip(&burst).zip(&mut packets)
            .map(|((seq, b), esp)| SealJob { key: of(&b.0), seq, iv: seq, esn: b.1, esp }).collect();
        seal(&mut jobs);
        for ((seq, b), esp) in (5..).zip(&burst).zip(&packets) {
            prop_assert_eq!(esp, &sealed(of(&b.0), seq, b.1, &b.2), "packet {}", seq);
        }
    }

    #[test]
    fn noise_is_never_authentic(
        suite in select(Suite::ALL), backend in select(backends()), esn: bool, noise in vec(any::<u8>(), 0..128)
    ) {
        prop_assert!(!opens(&key(suite, 0, backend), 1, esn, &mut noise.clone()));
    }

    #[test]
    fn forged_packet_does_not_affect_others_of_its_burst(
        backend in select(backends()),
        burst in vec((select(Suite::ALL), any::<bool>(), vec(any::<u8>(), 16..600)), 2..64),
        forged: prop::sample::Index, at: prop::sample::Index, bit in 0u8..8
    ) {
        let forged = forged.index(burst.len());
        let keys: Vec<Key> = (0u8..).zip(&burst).map(|(i, b)| key(b.0, i, backend)).collect();
        let seqs = (1u64 << 32) - 20..;
        let mut packets: Vec<Vec<u8>> = seqs.clone().zip(&burst).map(|(seq, b)| packet(b.0, seq, &b.2)).collect();
        let plain = packets.clone();
        let mut jobs: Vec<_> = keys.iter().zip(&burst).zip(seqs.clone().zip(&mut packets))
            .map(|((key, b), (seq, esp))| SealJob { key, seq, iv: seq, esn: b.1, esp }).collect();
        seal(&mut jobs);
        let at = at.index(packets[forged].len());
        packets[forged][at] ^= 1 << bit;

        let mut jobs: Vec<_> = keys.iter().zip(&burst).zip(seqs.zip(&mut packets))
            .map(|((key, b), (seq, esp))| OpenJob { key, seq, esn: b.1, esp, authentic: false }).collect();
        open(&mut jobs);
        for (i, job) in jobs.iter().enumerate() {
            let (suite, plain) = (job.key.suite(), &plain[i]);
            prop_assert_eq!(job.authentic, i != forged, "packet {} of {}", i, suite);
            if i != forged {
                prop_assert_eq!(text_of(suite, job.esp), text_of(suite, plain));
            } else if encrypts(suite) {
                let (shown, secret) = (text_of(suite, job.esp), text_of(suite, plain));
                let alike = |(a, b): (&[u8], &[u8])| a == b && a != [0; 8];
                prop_assert!(!shown.chunks_exact(8).zip(secret.chunks_exact(8)).any(alike));
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for (&suite, esn) in Suite::ALL.iter().flat_map(|s| [(s, false), (s, true)]) {
        for key in backends().into_iter().map(|b| key(suite, 1, b)) {
            let good = sealed(&key, 0x1_0000_0001, esn, b"some text to be protected");
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(!opens(&key, 0x1_0000_0001, esn, &mut bad), "{suite} esn {esn} bit {bit}");
            }
            assert!(opens(&key, 0x1_0000_0001, esn, &mut good.clone()), "{suite} esn {esn}");
        }
    }
}

#[test]
fn the_high_half_counts_only_with_extended_numbers() {
    for &suite in Suite::ALL {
        for key in backends().into_iter().map(|b| key(suite, 2, b)) {
            let esp = sealed(&key, 0x5_0000_0009, true, b"text");
            for wrong in [0x9, 0x4_0000_0009, 0x6_0000_0009, 0x0500_0000_0000_0009] {
                assert!(!opens(&key, wrong, true, &mut esp.clone()), "{suite}");
            }
            assert!(!opens(&key, 0x5_0000_0009, false, &mut esp.clone()), "{suite}");
            assert!(opens(&key, 0x5_0000_0009, true, &mut esp.clone()), "{suite}");

            let esp = sealed(&key, 9, false, b"text");
            assert!(opens(&key, 0x5_0000_0009, false, &mut esp.clone()), "{suite}");
            assert!(!opens(&key, 9, true, &mut esp.clone()), "{suite}");
        }
    }
}

#[test]
fn truncated_and_odd_lengths_are_not_authentic() {
    for &suite in Suite::ALL {
        for key in backends().into_iter().map(|b| key(suite, 3, b)) {
            let esp = sealed(&key, 1, true, &[7; 40]);
            for len in 0..esp.len() {
                assert!(!opens(&key, 1, true, &mut esp[..len].to_vec()), "{suite} {len}");
            }
            assert!(!opens(&key, 1, true, &mut [&esp[..], &[0]].concat()), "{suite}");
        }
    }
}

#[test]
fn another_key_does_not_give_the_text() {
    for &suite in Suite::ALL {
        for backend in backends() {
            let material = vec![0x42; suite.key_len()];
            let esp = sealed(&Key::new(suite, &material, backend).unwrap(), 1, false, &[7; 40]);
            let plain = packet(suite, 1, &[7; 40]);
            // The key of AES-CBC itself is not authenticated; every other bit is.
            let unchecked = if suite.iv_len() == 16 { suite.to_string()[3..6].parse().unwrap() } else { 0 };
            for bit in 0..material.len() * 8 {
                let mut other = material.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                let other = Key::new(suite, &other, backend).unwrap();
                let mut esp = esp.clone();
                assert_eq!(opens(&other, 1, false, &mut esp), bit < unchecked, "{suite} bit {bit}");
                assert!(
                    !encrypts(suite) || text_of(suite, &esp) != text_of(suite, &plain),
                    "{suite} bit {bit}"
                );
            }
        }
    }
}

#[test]
fn ivs_are_sequence_numbers_or_unpredictable() {
    for &suite in Suite::ALL {
        let key = key(suite, 4, Backend::detect());
        let iv = |seq| sealed(&key, seq, true, b"")[HEADER..HEADER + suite.iv_len()].to_vec();
        match suite.iv_len() {
            0 => (),
            8 => assert_eq!(iv(0x0102_0304_0506_0708), [1, 2, 3, 4, 5, 6, 7, 8]),
            _ => {
                let (a, b) = (iv(1), iv(2));
                let same = a.iter().zip(&b).map(|(a, b)| (a ^ b).count_zeros()).sum::<u32>();
                assert!((24..=104).contains(&same), "{suite}: {same} bits of 128 alike");
                assert_ne!(iv(1), iv(1 + (1 << 32)));
            }
        }
    }
}

#[test]
fn keys_of_another_length_are_refused() {
    for &suite in Suite::ALL {
        for got in (0..100).filter(|&got| got != suite.key_len()) {
            let wanted = KeyError::Length { wanted: suite.key_len(), got };
            assert_eq!(Key::new(suite, &vec![1; got], Backend::Portable).unwrap_err(), wanted);
        }
    }
}

#[test]
fn debug_shows_no_key() {
    let suite: Suite = "aes128gcm16".parse().unwrap();
    assert_eq!(format!("{:?}", Key::new(suite, &[0x5a; 20], Backend::Portable).unwrap()), "Key(aes128gcm16)");
}

#[test]
#[should_panic(expected = "an ESP packet of 35 bytes")]
fn a_packet_that_cannot_be_sealed_does_not_leave() {
    let suite: Suite = "aes128gcm16".parse().unwrap();
    seal(&mut [SealJob {
        key: &key(suite, 0, Backend::detect()),
        seq: 1,
        iv: 1,
        esn: false,
        esp: &mut [0; 35],
    }]);
}

#[test]
fn the_environment_chooses_the_backend() {
    // The environment belongs to the whole process, so this test runs again in a new process for
    // each choice.
    if let Ok(expected) = env::var("EXPECTED_BACKEND") {
        assert_eq!(format!("{:?}", Backend::from_env()), expected);
        return;
    }
    let chosen = Backend::ALL.map(|backend| {
        let here = if backend.is_available() { Ok(backend) } else { Err(BackendError::Unavailable(backend)) };
        (backend.to_string(), here)
    });
    let wrong = ["", "native", "VAES512"].map(|name| (name.into(), Err(BackendError::Unknown)));
    for (choice, expected) in chosen.into_iter().chain(wrong) {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_environment_chooses_the_backend"])
            .envs([("WAYFARER_CRYPTO", &choice), ("EXPECTED_BACKEND", &format!("{expected:?}"))])
            .output()
            .unwrap();
        assert!(child.status.success(), "{choice}");
    }
}

#[test]
fn keys_are_shared_by_workers() {
    fn shared<T: Send + Sync>() {}
    shared::<Key>();
}
