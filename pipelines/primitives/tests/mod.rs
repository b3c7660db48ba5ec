//! Known answers, and inputs that must be refused.

mod cipher;
mod key_exchange;

use super::*;

/// Returns the bytes of these hexadecimal digits. Other characters between the digits are skipped.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let text = std::str::from_utf8(&digits).unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// RFC 4231 §4.3 (test case 2), in two parts.
#[test]
fn prf_is_hmac() {
    let expected = [
        (Prf::HmacSha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            Prf::HmacSha384,
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        ),
        (
            Prf::HmacSha512,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd\
             caeab1a34d4a6b4b636e070a38bce737",
        ),
    ];
    for (prf, digits) in expected {
        let output = Primitives.prf(prf, b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(*output, hex(digits), "{prf:?}");
        assert_eq!(output.len(), prf.output_len());
    }
}

/// FIPS 180-2 appendix A.1, in two parts.
#[test]
fn sha1_of_parts_is_of_the_whole() {
    assert_eq!(Primitives.sha1(&[b"a", b"bc"]).to_vec(), hex("a9993e364706816aba3e25717850c26c9cd0d89d"));
}

#[test]
fn random_bytes_differ() {
    let (mut a, mut b) = ([0; 32], [0; 32]);
    OsRandom.fill(&mut a);
    OsRandom.fill(&mut b);
    assert_ne!(a, b);
    assert_ne!(a, [0; 32]);
}
