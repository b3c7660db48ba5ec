//! Compares every instruction set of the machine with RustCrypto's AES-GCM.

#![allow(unsafe_code, reason = "pages that must not be touched")]

use super::*;
use aes_gcm::{
    Aes128Gcm, Aes256Gcm, AesGcm,
    aead::{AeadInOut, KeyInit, consts::U12},
};

/// Key, salt, IV, additional data and text of one packet.
#[derive(Clone)]
struct Case {
    key: Vec<u8>,
    salt: [u8; 4],
    iv: [u8; 8],
    aad: Vec<u8>,
    text: Vec<u8>,
}

impl Case {
    fn new(random: &mut Random, key: usize, aad: usize, text: usize) -> Self {
        Self {
            key: random.bytes(key),
            salt: random.bytes(4).try_into().unwrap(),
            iv: random.bytes(8).try_into().unwrap(),
            aad: random.bytes(aad),
            text: random.bytes(text),
        }
    }

    /// Returns text and tag as RustCrypto seals them.
    fn sealed(&self) -> Vec<u8> {
        let nonce = [&self.salt[..], &self.iv].concat().try_into().unwrap();
        let mut text = self.text.clone();
        let tag = match self.key.len() {
            16 => seal::<Aes128Gcm>(&self.key, &nonce, &self.aad, &mut text),
            24 => seal::<AesGcm<aes_gcm::aes::Aes192, U12>>(&self.key, &nonce, &self.aad, &mut text),
            _ => seal::<Aes256Gcm>(&self.key, &nonce, &self.aad, &mut text),
        };
        [text, tag].concat()
    }

    fn key(&self, isa: Isa) -> Key {
        Key::new(isa, &self.key, self.salt).unwrap()
    }

    fn input<'a>(&self, key: &Key, text: &'a mut [u8]) -> Input<'a> {
        Input { iv: self.iv, aad: key.absorb(None, &self.aad), aad_len: self.aad.len(), text }
    }

    /// Passes one packet through the kernels. Returns whether it is authentic.
    fn run<const SEAL: bool>(&self, isa: Isa, text: &mut [u8]) -> bool {
        let key = self.key(isa);
        let mut burst = Burst::<SEAL>::new();
        burst.push(0, &key, self.input(&key, text));
        burst.finish() == 1
    }

    /// Seals and opens in `place`, which is as long as text and tag.
    fn check(&self, isa: Isa, place: &mut [u8]) {
        let len = self.text.len();
        let what = || format!("{isa:?}, key {}, text {len}", self.key.len());
        place[..len].copy_from_slice(&self.text);
        place[len..].fill(0xbb);
        assert!(self.run::<true>(isa, place));
        let sealed = self.sealed();
        assert!(place == sealed, "{}", what());
        assert!(self.run::<false>(isa, place), "{}", what());
        assert!(place[..len] == self.text && place[len..] == sealed[len..], "{}", what());
        place[len] ^= 0x80;
        assert!(!self.run::<false>(isa, place), "{}", what());
        assert!(place[..len].iter().all(|&byte| byte == 0), "{}", what());
    }
}

fn seal<C: AeadInOut<NonceSize = U12> + KeyInit>(
    key: &[u8],
    nonce: &[u8; 12],
    aad: &[u8],
    text: &mut [u8],
) -> Vec<u8> {
    let cipher = C::new_from_slice(key).unwrap();
    cipher.encrypt_inout_detached(nonce.into(), aad, text.into()).unwrap().to_vec()
}

/// The random number generator SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

fn isas() -> Vec<Isa> {
    let all = [
        Vaes512::detect().map(Isa::Vaes512),
        Vaes256::detect().map(Isa::Vaes256),
        AesNi::detect().map(Isa::AesNi),
    ];
    let here: Vec<_> = all.into_iter().flatten().collect();
    assert!(!here.is_empty(), "without AES-NI these tests test nothing");
    here
}

#[test]
fn every_length() {
    let mut random = Random(1);
    let mut place = vec![0; 9216 + 16];
    for len in 0..=9216 {
        let case = Case::new(&mut random, [16, 24, 32][len % 3], [8, 12][len % 2], len);
        for isa in isas() {
            case.check(isa, &mut place[..len + 16]);
        }
    }
}

#[test]
fn every_short_length_with_every_size_of_key_and_additional_data() {
    let mut random = Random(2);
    let mut place = vec![0; 600 + 16];
    for len in 0..=600 {
        for key in [16, 24, 32] {
            let case = Case::new(&mut random, key, len % 47, len);
            for isa in isas() {
                case.check(isa, &mut place[..len + 16]);
            }
        }
    }
}

/// Tests the longest text that is allowed for: its counters are of two bytes.
#[test]
fn the_longest_texts() {
    let mut random = Random(6);
    let mut place = vec![0; 65_536 + 16];
    for len in [4063, 4064, 4065, 65_519, 65_535, 65_536] {
        let case = Case::new(&mut random, [16, 24, 32][len % 3], 8, len);
        for isa in isas() {
            case.check(isa, &mut place[..len + 16]);
        }
    }
}

#[test]
fn every_alignment() {
    let mut random = Random(3);
    let mut place = vec![0; 2048];
    for len in [1, 15, 16, 17, 64, 68, 132, 144, 145, 255, 256, 257, 516, 1424] {
        for offset in 0..64 {
            let case = Case::new(&mut random, [16, 24, 32][offset % 3], 8, len);
            for isa in isas() {
                case.check(isa, &mut place[offset..][..len + 16]);
            }
        }
    }
}

/// Tests bursts of any size, lengths and keys. Some share a key. Some packets are forged: in the
/// tag, the text, the additional data or the IV.
#[test]
fn bursts_of_all_sizes_lengths_and_keys() {
    let mut random = Random(4);
    for round in 0..1500 {
        let count = if round <= 64 { round } else { random.below(65) };
        let longest = [20, 144, 300, 1500, 3000][random.below(5)];
        // Many lengths, or only a few. With few, a packet may be some bytes longer and still have
        // as many blocks.
        let lengths: Vec<usize> = (0..1 + random.below(4)).map(|_| random.below(longest + 1)).collect();
        let cases: Vec<Case> = (0..count)
            .map(|i| {
                let len = if round % 2 == 0 {
                    random.below(longest + 1)
                } else {
                    lengths[i % lengths.len()] + random.below(3)
                };
                Case::new(&mut random, [16, 24, 32][len % 3], [8, 12][len / 3 % 2], len)
            })
            .collect();
        // Some cases take the key of another one.
        let owner: Vec<usize> = (0..count).map(|i| if i % 4 == 3 { i - 2 } else { i }).collect();
        let cases: Vec<Case> = cases
            .iter()
            .zip(&owner)
            .map(|(case, &owner)| Case {
                key: cases[owner].key.clone(),
                salt: cases[owner].salt,
                ..case.clone()
            })
            .collect();
        for isa in isas() {
            let keys: Vec<Key> = cases.iter().map(|case| case.key(isa)).collect();
            let mut places: Vec<Vec<u8>> =
                cases.iter().map(|case| [&case.text[..], &[0xbb; 16]].concat()).collect();
            let mut burst = Burst::<true>::new();
            for (i, place) in places.iter_mut().enumerate() {
                burst.push(i, &keys[owner[i]], cases[i].input(&keys[owner[i]], place));
            }
            let all = if count == 64 { !0 } else { (1 << count) - 1 };
            assert_eq!(burst.finish(), all);
            let sealed: Vec<Vec<u8>> = cases.iter().map(Case::sealed).collect();
            assert!(places == sealed, "{isa:?} {count} {longest}");

            let mut received = cases.clone();
            let mut forged = 0_u64;
            for (i, place) in places.iter_mut().enumerate() {
                let bit = 1 << random.below(8);
                let len = cases[i].text.len();
                match random.below(12) {
                    0 => place[len + random.below(16)] ^= bit,
                    1 if len > 0 => place[random.below(len)] ^= bit,
                    2 => received[i].iv[random.below(8)] ^= bit,
                    3 => {
                        let at = random.below(received[i].aad.len());
                        received[i].aad[at] ^= bit;
                    }
                    _ => continue,
                }
                forged |= 1 << i;
            }
            let tags: Vec<Vec<u8>> = places.iter().map(|place| place[place.len() - 16..].to_vec()).collect();
            let mut burst = Burst::<false>::new();
            for (i, place) in places.iter_mut().enumerate() {
                burst.push(i, &keys[owner[i]], received[i].input(&keys[owner[i]], place));
            }
            assert_eq!(burst.finish(), all & !forged, "{isa:?}");
            for (i, place) in places.iter().enumerate() {
                let (text, tag) = place.split_at(place.len() - 16);
                assert_eq!(tag, tags[i]);
                if forged >> i & 1 == 1 {
                    assert!(text.iter().all(|&byte| byte == 0));
                } else {
                    assert!(text == cases[i].text);
                }
            }
        }
    }
}

/// Tests packets that begin or end where the memory does: not a byte beyond is read or written.
#[test]
fn nothing_beyond_a_packet_is_touched() {
    const PAGE: usize = 4096;
    const PAGES: usize = 4;
    // SAFETY: a fresh mapping; its first and last page become inaccessible and are not used.
    let inside = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let at = libc::mmap(
            std::ptr::null_mut(),
            (PAGES + 2) * PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        );
        assert_ne!(at, libc::MAP_FAILED);
        assert_eq!(libc::mprotect(at, PAGE, libc::PROT_NONE), 0);
        assert_eq!(libc::mprotect(at.byte_add((PAGES + 1) * PAGE), PAGE, libc::PROT_NONE), 0);
        std::slice::from_raw_parts_mut(at.byte_add(PAGE).cast::<u8>(), PAGES * PAGE)
    };
    let mut random = Random(5);
    for len in (0..=320).chain([512, 516, 1023, 1024, 1025, 1420, 1424, 4095, 4096, 9000, 9216]) {
        let case = Case::new(&mut random, [16, 24, 32][len % 3], 8, len);
        for isa in isas() {
            case.check(isa, &mut inside[..len + 16]);
            case.check(isa, &mut inside[PAGES * PAGE - len - 16..]);
        }
    }
    // SAFETY: the mapping made above, which is used no more.
    unsafe { libc::munmap(inside.as_mut_ptr().byte_sub(PAGE).cast(), (PAGES + 2) * PAGE) };
}
