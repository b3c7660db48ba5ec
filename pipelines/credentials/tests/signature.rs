//! Signatures of AUTH payloads, verified by our own code and by the `openssl` program.

use super::{pki::*, *};
use std::fs;
use wayfarer_mobility::crypto::{
    PeerSignature, SignError, SignatureHashes, Signer, Verifier, VerifyError, VerifyErrorKind,
};

const OCTETS: &[u8] = b"message | nonce | prf(SK_p, ID)";

fn hashes(numbers: &[u16]) -> SignatureHashes {
    numbers.iter().fold(SignatureHashes::default(), |hashes, number| hashes.with(*number))
}

/// Verifies a signature of the owner of `signer`, who announced these hashes.
fn verify_by(
    authorities: &Authorities,
    signer: &CertificateSigner,
    hashes: SignatureHashes,
    (method, data): (u8, &[u8]),
    octets: &[u8],
) -> Result<(), VerifyError> {
    let signature = PeerSignature { method, data: data.to_vec(), octets: octets.to_vec(), hashes };
    authorities.verify(&fqdn(NAME), &sent(signer.certificates()), &signature)
}

/// Verifies a signature of the owner of `signer`, who knows all hashes.
fn verify(
    authorities: &Authorities,
    signer: &CertificateSigner,
    signature: (u8, &[u8]),
    octets: &[u8],
) -> Result<(), VerifyErrorKind> {
    verify_by(authorities, signer, SignatureHashes::ALL, signature, octets).map_err(|why| why.kind)
}

/// Returns the bytes before the signature in the data of method 14 (RFC 7427 appendix A, RFC 8410
/// §3).
fn identifier(algorithm: usize, hash: u16) -> Vec<u8> {
    let pss = |hash: u8, salt: u8| {
        hex(&format!(
            "43 3041 06092a864886f70d01010a 3034 a00f300d060960864801650304020{hash}0500\
             a11c301a06092a864886f70d010108300d060960864801650304020{hash}0500 a2030201{salt:02x}"
        ))
    };
    match (algorithm, hash) {
        (0, 2) => pss(1, 32),
        (0, 3) => pss(2, 48),
        (0, 4) => pss(3, 64),
        (1..=3, hash) => hex(&format!("0c 300a 06082a8648ce3d04030{hash}")),
        _ => hex("07 3005 06032b6570"),
    }
}

/// Returns the name of a scheme by which these keys sign.
fn scheme_name(algorithm: usize, method: u8, hash: u16) -> &'static str {
    match (algorithm, method, hash) {
        (0, _, 2) => "rsa-pss-sha256",
        (0, _, 3) => "rsa-pss-sha384",
        (0, ..) => "rsa-pss-sha512",
        (4, ..) => "ed25519",
        (_, 9, _) | (_, 14, 2) => "ecdsa-sha256",
        (_, 10, _) | (_, 14, 3) => "ecdsa-sha384",
        _ => "ecdsa-sha512",
    }
}

/// The key, the announced hashes, and the expected method with the hash of method 14, or why there is
/// none.
type Case<'a> = (usize, &'a [u16], Result<(u8, u16), SignError>);

#[test]
fn each_key_signs_by_a_scheme_that_the_peer_supports() {
    let (folder, ca) = (Folder::new(), Ca::root("root"));
    let authorities = folder.authorities(&[&ca], &[], CrlPolicy::Relaxed, NOW);
    let every: &[u16] = &[2, 3, 4, 5];
    let cases: [Case<'_>; 15] = [
        (0, every, Ok((14, 2))),
        (0, &[3, 4], Ok((14, 3))),
        (0, &[4], Ok((14, 4))),
        (0, &[5], Err(SignError::NoHash)),
        (0, &[], Err(SignError::OnlySha1)),
        (1, every, Ok((14, 2))),
        (1, &[4], Ok((9, 0))),
        (1, &[], Ok((9, 0))),
        (2, every, Ok((14, 3))),
        (2, &[], Ok((10, 0))),
        (3, every, Ok((14, 4))),
        (3, &[], Ok((11, 0))),
        (4, every, Ok((14, 5))),
        (4, &[2, 3, 4], Err(SignError::NoHash)),
        (4, &[], Err(SignError::NoHash)),
    ];
    let signers = ALGORITHMS.map(|algorithm| folder.signer(&ca, algorithm).0);
    for (algorithm, announced, expected) in cases {
        let signer = &signers[algorithm];
        let signed = signer.sign(OCTETS, hashes(announced));
        let (method, hash) = match expected {
            Ok(expected) => expected,
            Err(why) => {
                assert_eq!(signed, Err(why), "{algorithm} {announced:?}");
                continue;
            }
        };
        let (signed_by, data) = signed.unwrap();
        assert_eq!(signed_by, method, "{algorithm} {announced:?}");
        if method == 14 {
            assert!(data.starts_with(&identifier(algorithm, hash)), "{algorithm} {announced:?}");
        }
        let verify =
            |method, data: &[u8], octets: &[u8]| verify(&authorities, signer, (method, data), octets);
        assert_eq!(verify(method, &data, OCTETS), Ok(()));
        let name = authorities.scheme(method, &data);
        assert_eq!(name, Some(scheme_name(algorithm, method, hash)), "{algorithm} {announced:?}");
        assert_eq!(verify(method, &data, &OCTETS[1..]), Err(VerifyErrorKind::Signature));
        for other in (0..=15).filter(|other| *other != method) {
            assert_eq!(verify(other, &data, OCTETS), Err(VerifyErrorKind::Signature), "as method {other}");
        }
        for len in 0..data.len() {
            assert_eq!(verify(method, &data[..len], OCTETS), Err(VerifyErrorKind::Signature), "{len} bytes");
        }
        for byte in 0..data.len() {
            let mut data = data.clone();
            data[byte] ^= 1;
            assert_eq!(verify(method, &data, OCTETS), Err(VerifyErrorKind::Signature), "byte {byte}");
        }
    }
}

#[test]
fn another_key_of_the_same_kind_does_not_sign_for_a_peer() {
    let (folder, ca) = (Folder::new(), Ca::root("root"));
    let authorities = folder.authorities(&[&ca], &[], CrlPolicy::Relaxed, NOW);
    for algorithm in ALGORITHMS {
        let (peer, other) = (folder.signer(&ca, algorithm).0, folder.signer(&ca, algorithm).0);
        let (method, data) = other.sign(OCTETS, SignatureHashes::ALL).unwrap();
        let verified = verify(&authorities, &peer, (method, &data), OCTETS);
        assert_eq!(verified, Err(VerifyErrorKind::Signature));
    }
}

#[test]
fn openssl_verifies_what_we_sign() {
    let (folder, ca) = (Folder::new(), Ca::root("root"));
    folder.write("octets", OCTETS);
    let here = folder.path("");
    for (number, algorithm) in ALGORITHMS.into_iter().enumerate() {
        let (signer, _) = folder.signer(&ca, algorithm);
        folder.write("public.pem", openssl(&here, "x509 -in own.pem -noout -pubkey").unwrap());
        let (method, data) = signer.sign(OCTETS, SignatureHashes::ALL).unwrap();
        assert_eq!(method, 14);
        folder.write("signature", &data[1 + usize::from(data[0])..]);
        let command = match number {
            0 => "dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -verify public.pem",
            1 => "dgst -sha256 -verify public.pem",
            2 => "dgst -sha384 -verify public.pem",
            3 => "dgst -sha512 -verify public.pem",
            _ => "pkeyutl -verify -pubin -inkey public.pem -rawin -in octets -sigfile signature",
        };
        let rest = if number < 4 { " -signature signature octets" } else { "" };
        assert_eq!(openssl(&here, &format!("{command}{rest}")).err(), None);
    }
}

#[test]
fn verifies_signatures_of_openssl_but_none_with_sha1() {
    let (folder, ca) = (Folder::new(), Ca::root("root"));
    folder.write("octets", OCTETS);
    let here = folder.path("");
    let authorities = folder.authorities(&[&ca], &[], CrlPolicy::Relaxed, NOW);
    // The key, the hash with options, and the AlgorithmIdentifier (RFC 7427 appendix A). All are
    // supported except SHA-1.
    let pkcs1 = |number: u8| format!("0f 300d 06092a864886f70d0101{number:02x} 0500");
    let pss = " -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest";
    let cases = [
        (0, "sha256".to_string(), pkcs1(11), true),
        (0, "sha384".to_string(), pkcs1(12), true),
        (0, "sha512".to_string(), pkcs1(13), true),
        (0, "sha1".to_string(), pkcs1(5), false),
        (0, format!("sha1{pss}"), "0f 300d 06092a864886f70d01010a 3000".to_string(), false),
        (1, "sha512".to_string(), "0c 300a 06082a8648ce3d040304".to_string(), true),
        (1, "sha1".to_string(), "0b 3009 06072a8648ce3d0401".to_string(), false),
        (2, "sha256".to_string(), "0c 300a 06082a8648ce3d040302".to_string(), true),
        (3, "sha384".to_string(), "0c 300a 06082a8648ce3d040303".to_string(), true),
    ];
    for (algorithm, how, identifier, is_known) in cases {
        let (signer, _) = folder.signer(&ca, ALGORITHMS[algorithm]);
        openssl(&here, &format!("dgst -{how} -sign own.key -out signature octets")).unwrap();
        let signature = fs::read(folder.path("signature")).unwrap();
        let verify = |method, data: &[u8]| verify(&authorities, &signer, (method, data), OCTETS);
        let expected = if is_known { Ok(()) } else { Err(VerifyErrorKind::Signature) };
        assert_eq!(
            verify(14, &[hex(&identifier), signature.clone()].concat()),
            expected,
            "{algorithm} {how}"
        );
        if algorithm == 0 {
            assert_eq!(verify(1, &signature), expected, "{how}");
        }
    }
}

#[test]
fn sha1_is_only_for_peers_that_announce_no_hashes_and_only_if_allowed() {
    let (folder, ca) = (Folder::new(), Ca::root("root"));
    let trusting = |allows| folder.authorities(&[&ca], &[], CrlPolicy::Relaxed, NOW).allow_sha1(allows);
    let (strict, old) = (trusting(false), trusting(true));
    let silent = SignatureHashes::default();

    let (signer, _) = folder.signer(&ca, ALGORITHMS[0]);
    assert_eq!(signer.sign(OCTETS, silent), Err(SignError::OnlySha1));
    let signer = signer.allow_sha1(&folder.path("own.key")).unwrap();
    let (method, data) = signer.sign(OCTETS, silent).unwrap();
    assert_eq!(method, 1);
    assert_eq!(signer.sign(OCTETS, SignatureHashes::UNKNOWN), Err(SignError::NoHash));
    assert_eq!(signer.sign(OCTETS, hashes(&[2])).unwrap().0, 14);

    folder.write("octets", OCTETS);
    folder.write("signature", &data);
    let here = folder.path("");
    folder.write("public.pem", openssl(&here, "x509 -in own.pem -noout -pubkey").unwrap());
    let command = "dgst -sha1 -verify public.pem -signature signature octets";
    assert_eq!(openssl(&here, command).err(), None, "openssl takes it");

    let verify = |authorities, hashes| verify_by(authorities, &signer, hashes, (1, &data), OCTETS);
    assert_eq!(verify(&old, silent), Ok(()));
    assert!(verify_by(&old, &signer, silent, (1, &data), b"other octets").is_err());
    for hashes in [SignatureHashes::ALL, SignatureHashes::UNKNOWN] {
        let why = verify(&old, hashes).unwrap_err().to_string();
        assert!(why.contains("although the peer announces better hashes"), "{why}");
    }
    let why = verify(&strict, silent).unwrap_err().to_string();
    assert!(why.contains("set legacy_signatures = true"), "{why}");

    // An ECDSA key needs no permission.
    let (signer, _) = folder.signer(&ca, ALGORITHMS[1]);
    let signer = signer.allow_sha1(&folder.path("own.key")).unwrap();
    assert_eq!(signer.sign(OCTETS, silent).unwrap().0, 9);
}
