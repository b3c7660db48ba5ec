//! The examples in the RFCs.

use super::{
    super::{Key, OpenJob, Suite, hmac::Mac, open, suite::Hash},
    *,
};

/// Opens an ESP packet. Returns the part between IV and ICV.
fn opened_esp(
    suite: Suite,
    key: &[u8],
    backend: Backend,
    seq: u64,
    esn: bool,
    esp: &[u8],
) -> Option<Vec<u8>> {
    let mut esp = esp.to_vec();
    let key = Key::new(suite, key, backend).unwrap();
    let mut jobs = [OpenJob { key: &key, seq, esn, esp: &mut esp, authentic: false }];
    open(&mut jobs);
    let authentic = jobs[0].authentic;
    authentic.then(|| esp[8 + suite.iv_len()..esp.len() - suite.icv_len()].to_vec())
}

/// Tests draft-mcgrew-gcm-test-01 §4, made for RFC 4106 and RFC 4543: whole ESP packets with and
/// without ESN.
#[test]
fn gcm_and_gmac_packets() {
    let vectors = records(include_str!("../../tests/vectors/mcgrew-gcm-test.txt"));
    assert_eq!(vectors.len(), 17);
    for (v, backend) in vectors.iter().flat_map(|v| backends().map(move |b| (v, b))) {
        let (key, aad, ct) = (&v["key"], &v["aad"], &v["ct"]);
        let bits = (key.len() - 4) * 8;
        if ct.is_empty() {
            let suite = format!("aes{bits}gmac").parse().unwrap();
            let esp = [&aad[..], &v["tag"]].concat();
            assert_eq!(opened_esp(suite, key, backend, 7, false, &esp).unwrap(), aad[16..]);
            continue;
        }
        let suite = format!("aes{bits}gcm16").parse().unwrap();
        let esn = aad.len() == 12;
        let seq = aad[4..].iter().fold(0, |seq, &byte| seq << 8 | u64::from(byte));
        let esp = [&aad[..4], &aad[aad.len() - 4..], &v["iv"], ct, &v["tag"]].concat();
        let text = opened_esp(suite, key, backend, seq, esn, &esp).expect("authentic");
        // RFC 4303 §2.4: padding is 1, 2, 3, ...; then its length and the next header.
        let pad = usize::from(text[text.len() - 2]);
        let padding = &text[text.len() - 2 - pad..text.len() - 2];
        assert!(padding.iter().zip(1..).all(|(&byte, i)| byte == i), "{text:02x?}");
        let nonce = [&key[key.len() - 4..], &v["iv"]].concat();
        let again = sealed(&gcm(&key[..key.len() - 4], backend), &nonce, aad, &text);
        assert_eq!(again, (ct.clone(), v["tag"].clone()));
    }
}

/// Tests RFC 7634, appendix A.
#[test]
fn chacha20_poly1305_packet() {
    let key = hex("808182838485868788898a8b8c8d8e8f 909192939495969798999a9b9c9d9e9f a0a1a2a3");
    let text = hex(
        "45000054a6f200004001e778c6336405 c000020508005b7a3a080000553bec10 0007362708090a0b0c0d0e0f10111213
         1415161718191a1b1c1d1e1f20212223 2425262728292a2b2c2d2e2f30313233 3435363701020204",
    );
    let esp = hex("0102030400000005 1011121314151617
         24039428b97f417e3c13753a4f05087b 67c352e6a7fab1b982d466ef407ae5c6 14ee8099d52844eb61aa95dfab4c02f7
         2aa71e7c4c4f64c9befe2facc638e8f3 cbec163fac469b502773f6fb94e664da 9165b82829f641e0
         76aaa8266b7fb0f7b11b369907e1ad43");
    let suite = "chacha20poly1305".parse().unwrap();
    for backend in backends() {
        assert_eq!(opened_esp(suite, &key, backend, 5, false, &esp).unwrap(), text);
        let nonce = [&key[32..], &esp[8..16]].concat();
        let (ct, tag) = sealed(&chacha(&key[..32], backend), &nonce, &esp[..8], &text);
        assert_eq!([&esp[..16], &ct, &tag].concat(), esp);
    }
}

/// Tests RFC 3602 §4, cases 5 to 8: the encrypted part of ESP packets in transport and tunnel mode.
#[test]
fn cbc_packets() {
    let ping =
        "08090a0b0c0d0e0f1011121314151617 18191a1b1c1d1e1f2021222324252627 28292a2b2c2d2e2f3031323334353637";
    let ones = "f".repeat(64);
    let (transport, tunnel) = ("90d382b410eeba7ad938c46cec1a82bf", "0123456789abcdef0123456789abcdef");
    let cases = [
        (
            transport,
            "e96e8c08ab465763fd098d45dd3ff893",
            format!("08000ebda70a00008e9c083db95b0700 {ping} 0102030405060708090a0b0c0d0e0e01"),
            "f663c25d325c18c6a9453e194e120849 a4870b66cc6b9965330013b4898dc856 a4699e523a55db080b59ec3a8e4b7e52
             775b07d1db34ed9c538ab50c551b874a a269add047ad2d5913ac19b7cfbad4a6",
        ),
        (
            transport,
            "69d08df7d203329db093fc4924e5bd80",
            "0800b5e8a80a0500a69c083d0b660e00 777777777777777777777777 01020201".into(),
            "f51995881ec4e0c4488987ce742e8109 689bb379d2d750c0d915dca346a89f75",
        ),
        (
            tunnel,
            "f4e765244f6407adf13dc1380f673f37",
            format!(
                "45000054090400004001f988c0a87b03 c0a87bc808009f76a90a0100b49c083d 02a20400 {ping}
                 0102030405060708090a0a04"
            ),
            "773b5241a4c449225e4f3ce5ed611b0c 237ca96cf74a93013c1b0ea1a0cf70f8 e4ecaec78ac53aad7a0f022b859243c6
             47752e94a859352b8a4d4d2decd136e5 c177f132ad3fbfb2201ac9904c74ee0a 109e0ca1e4dfe9d5a100b842f1c22f0d",
        ),
        (
            tunnel,
            "85d47224b5f3dd5d2101d4ea8dffab22",
            format!(
                "45000044090c00004001f990c0a87b03 c0a87bc80800d63caa0a0200c69c083d a3de0300 {ones}
                 0102030405060708090a0a04"
            ),
            "15b92683819596a8047232cc00f7048f e45318e11f8a0f62ede3c3fc61203bb5 0f980a08c9843fd3a1b06d5c07ff9639
             b7eb7dfb3512e5de435e7207ed971ef3 d2726d9b5ef6affc6d17a0decbb13892",
        ),
    ];
    for (key, iv, text, ct) in cases {
        let [key, iv, text, ct] = [key, iv, &text, ct].map(hex);
        assert_eq!(cbc_encrypted(&key, &iv, &text), ct);
        assert_eq!(cbc_decrypted(&key, &iv, &ct), text);
    }
}

/// Tests RFC 4868 §2.7.2: each hash with its four authentication vectors.
#[test]
fn hmac_sha2_icvs() {
    let vectors = [
        (
            Hash::Sha256,
            [
                "198a607eb44bfbc69903a0f1cf2bbdc5",
                "167f928588c5cc2eef8e3093caa0e87c",
                "cdcb1220d1ecccea91e53aba3092f962",
                "372efcf9b40b35c2115b1346903d2ef4",
            ],
        ),
        (
            Hash::Sha384,
            [
                "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
                "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d",
                "809f439be00274321d4a538652164b53554a508184a0c316",
                "5b540085c6e6358096532b2493609ed1cb298f774f87bb5c",
            ],
        ),
        (
            Hash::Sha512,
            [
                "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
                "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454",
                "2ee7acd783624ca9398710f3ee05ae41b9f9b0510c87e49e586cc9bf961733d8",
                "5e6688e5a3daec826ca32eaea224eff5e700628947470e13ad01302561bab108",
            ],
        ),
    ];
    for (hash, icvs) in vectors {
        let len = hash as usize;
        let counting: Vec<u8> = match hash {
            // The key of case 4 for SHA-384 starts again after 32 bytes, at 0x0a.
            Hash::Sha384 => (1..=0x20).chain(0x0a..=0x19).collect(),
            _ => (1..=len as u8).collect(),
        };
        let cases: [(Vec<u8>, Vec<u8>); 4] = [
            (vec![0x0b; len], b"Hi There".to_vec()),
            (b"Jefe".repeat(len / 4), b"what do ya want for nothing?".to_vec()),
            (vec![0xaa; len], vec![0xdd; 50]),
            (counting, vec![0xcd; 50]),
        ];
        for ((key, data), icv) in cases.into_iter().zip(icvs) {
            let mut found = vec![0; len / 2];
            Mac::new(hash, &key).unwrap().sign(&data, &[], &mut found);
            assert_eq!(found, hex(icv), "{hash:?}");
        }
    }
}

/// Tests RFC 2202 §3 and RFC 4231 §4.
#[test]
fn hmacs() {
    let files = [
        (Hash::Sha1, include_str!("../../tests/vectors/rfc-2202-sha1.txt"), 7),
        (Hash::Sha256, include_str!("../../tests/vectors/rfc-4231-sha256.txt"), 6),
        (Hash::Sha384, include_str!("../../tests/vectors/rfc-4231-sha384.txt"), 6),
        (Hash::Sha512, include_str!("../../tests/vectors/rfc-4231-sha512.txt"), 6),
    ];
    for (hash, file, count) in files {
        let vectors = records(file);
        assert_eq!(vectors.len(), count, "{hash:?}");
        for v in vectors {
            let mut md = vec![0; hash as usize];
            Mac::new(hash, &v["key"]).unwrap().sign(&v["msg"], &[], &mut md);
            assert_eq!(md, v["md"]);
        }
    }
}
