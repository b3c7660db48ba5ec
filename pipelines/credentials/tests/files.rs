//! Files of certificates and keys.

use super::{pki::*, *};
use std::fs;
use wayfarer_mobility::crypto::Signer;

#[test]
fn keys_are_taken_in_each_form() {
    let (folder, ca) = (Folder::new(), Ca::root("root"));
    let here = folder.path("");
    for algorithm in &ALGORITHMS[..4] {
        folder.signer(&ca, algorithm);
        openssl(&here, "pkey -in own.key -traditional -out old.key").unwrap();
        let text = fs::read_to_string(folder.path("old.key")).unwrap();
        assert!(text.contains("RSA PRIVATE KEY") || text.contains("EC PRIVATE KEY"), "{text}");
        CertificateSigner::load(&folder.path("own.pem"), &folder.path("old.key")).unwrap();
    }
    openssl(&here, "genpkey -algorithm ed25519 -out v1.key").unwrap();
    openssl(&here, "req -x509 -key v1.key -subj /CN=a -out v1.pem").unwrap();
    CertificateSigner::load(&folder.path("v1.pem"), &folder.path("v1.key")).unwrap();
}

/// A file with text around the certificate, the chain and the key.
#[test]
fn one_file_may_contain_chain_and_key() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let sub = root.sub(ca_params("sub"));
    let key = key_pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let (_, own) = folder.signer_of(&sub, &params(NAME, 2), &key);
    let all = folder.write("all.pem", format!("subject=\n{}\n{own}{}", key.serialize_pem(), sub.pem));
    let signer = CertificateSigner::load(&all, &all).unwrap();
    assert_eq!(signer.certificates().len(), 2);
    assert_eq!(signer.certificates()[1], sub.der);
}

#[test]
fn each_fault_of_a_file_has_its_message() {
    let (folder, ca) = (Folder::new(), Ca::root("root"));
    let here = folder.path("");
    folder.signer(&ca, &rcgen::PKCS_ECDSA_P256_SHA256);
    let (certificate, key) = (folder.path("own.pem"), folder.path("own.key"));
    let other = folder.write("other.key", key_pair(&rcgen::PKCS_ECDSA_P256_SHA256).serialize_pem());
    let empty = folder.write("empty", "");
    let broken = folder.write("broken", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let hollow = folder.write("hollow", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    let long = folder.write("long", vec![b'\n'; 65537]);
    openssl(&here, "genrsa -out short.key 1024").unwrap();
    openssl(&here, "genpkey -algorithm X448 -out x448.key").unwrap();
    openssl(&here, "pkcs8 -topk8 -in own.key -passout pass:secret -out encrypted.key").unwrap();
    let (short, x448, encrypted) =
        (folder.path("short.key"), folder.path("x448.key"), folder.path("encrypted.key"));
    let cases = [
        (
            &folder.path("none"),
            &key,
            &folder.path("none"),
            CredentialProblem::Unreadable(std::io::ErrorKind::NotFound),
        ),
        (
            &certificate,
            &folder.path("none"),
            &folder.path("none"),
            CredentialProblem::Unreadable(std::io::ErrorKind::NotFound),
        ),
        (&certificate, &here, &here, CredentialProblem::NotAFile),
        (&certificate, &long, &long, CredentialProblem::TooLong),
        (&empty, &key, &empty, CredentialProblem::NoCertificate),
        (&broken, &key, &broken, CredentialProblem::Syntax),
        (&hollow, &key, &hollow, CredentialProblem::BadCertificate),
        (&certificate, &certificate, &certificate, CredentialProblem::NoKey),
        (&certificate, &encrypted, &encrypted, CredentialProblem::NoKey),
        (&certificate, &short, &short, CredentialProblem::BadKey),
        (&certificate, &x448, &x448, CredentialProblem::BadKey),
        (&certificate, &other, &other, CredentialProblem::OtherKey),
    ];
    for (certificate, key, file, problem) in cases {
        let error = CertificateSigner::load(certificate, key).unwrap_err();
        assert_eq!((&*error.file, error.problem), (file.as_path(), problem));
        assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
    }
}

#[test]
fn each_fault_of_authorities_has_its_message() {
    let (folder, ca) = (Folder::new(), Ca::root("root"));
    let good = folder.write("ca.pem", &ca.pem);
    let empty = folder.write("empty", "");
    let hollow = folder.write("hollow", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    let short = folder.write("short.crl", [0x30, 0]);
    let load = |certificates: &[_], crls: &[_]| {
        let loaded = Authorities::load(certificates, crls, CrlPolicy::Relaxed, std::time::SystemTime::now);
        loaded.map_err(|error| (error.file.to_path_buf(), error.problem)).map(drop)
    };
    assert_eq!(load(&[&good], &[]), Ok(()));
    assert_eq!(load(&[&good, &empty], &[]), Err((empty.clone(), CredentialProblem::NoCertificate)));
    assert_eq!(load(&[&hollow], &[]), Err((hollow.clone(), CredentialProblem::BadCertificate)));
    assert_eq!(load(&[&good], &[&empty]), Err((empty.clone(), CredentialProblem::NoCrl)));
    assert_eq!(load(&[&good], &[&short]), Err((short.clone(), CredentialProblem::BadCrl)));
}

#[test]
fn secrets_are_not_in_debug_output() {
    let (folder, ca) = (Folder::new(), Ca::root("root"));
    let key = key_pair(&rcgen::PKCS_ED25519);
    let (signer, _) = folder.signer_of(&ca, &params(NAME, 2), &key);
    // The seed of a key in PKCS#8 version 1 or 2 follows 16 bytes of DER.
    let seed: String = key.serialized_der()[16..48].iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!format!("{signer:?}").contains(&seed));
    assert!(!format!("{signer:?}").contains(&format!("{:?}", &key.serialized_der()[16..48])));
}
