//! The names of algorithms, parsed and printed.

use super::*;
use crate::config::algorithms;
use wayfarer_mobility::{
    crypto::{Encr, Integ, Kex, Prf},
    ike::suite::{EspSuite, IkeSuite},
};

#[test]
fn proposals_use_the_names_of_strongswan() {
    let keys = "proposals = [\"aes256gcm16-chacha20poly1305-prfsha384-x25519-ecp256-ke1_mlkem768\", \
                \"aes128-sha256-modp2048\", \"aes128gcm16-sha512-ecp384\"]\nesp = [\"aes256gcm16\", \
                \"aes256-sha512-x25519-ke1_mlkem768\"]";
    let ike = parsed(&connection(keys));
    let p = &ike.connections[0].protocol;
    let [a, b, c] = &p.ike[..] else { panic!("{:?}", p.ike) };
    assert_eq!(a.encr, [Encr::AesGcm(256), Encr::ChaCha20Poly1305]);
    assert_eq!((&a.prf[..], &a.integ[..]), (&[Prf::HmacSha384][..], &[][..]));
    assert_eq!((&a.kex[..], &a.more_kex[..]), (&[Kex::X25519, Kex::Ecp256][..], &[vec![Kex::MlKem768]][..]));
    assert_eq!((&b.encr[..], &b.integ[..]), (&[Encr::AesCbc(128)][..], &[Integ::HmacSha256][..]));
    assert_eq!(b.prf, [Prf::HmacSha256]);
    assert_eq!((&c.integ[..], &c.prf[..]), (&[][..], &[Prf::HmacSha512][..]));
    assert_eq!((p.esp.len(), p.esp[0].kex.len(), &p.esp[1].kex[..]), (2, 0, &[Kex::X25519][..]));
    assert_eq!(p.esp[1].more_kex, [[Kex::MlKem768]]);
    let named = parsed(&connection("proposals = \"default\"\nesp = \"default\""));
    let left_out = parsed(&connection(""));
    let [named, left_out] = [&named, &left_out].map(|ike| &ike.connections[0].protocol);
    assert_eq!((&named.ike, &named.esp), (&left_out.ike, &left_out.esp));
    assert_eq!(left_out.ike[0].kex[0], Kex::X25519);
}

#[test]
fn refuses_incomplete_proposals() {
    for (keys, why) in [
        ("proposals = []", "must not be empty"),
        (
            "proposals = \"aes256gcm-x25519\"",
            "no such algorithm: \"aes256gcm\"; did you mean \"aes256gcm16\"?",
        ),
        (
            "proposals = \"aes256gcm16-x25519\"",
            "names no pseudo-random function (prfsha256, prfsha384, prfsha512)",
        ),
        ("proposals = \"aes256gcm16-sha256\"", "names no key exchange, such as x25519 or ecp256"),
        ("proposals = \"sha256-x25519\"", "names no cipher"),
        (
            "proposals = \"aes256-x25519-prfsha256\"",
            "names no HMAC (sha256, sha384, sha512), which its cipher needs",
        ),
        (
            "proposals = \"aes256-aes256gcm16-sha256-x25519\"",
            "mixes AEADs with other ciphers: write two proposals instead",
        ),
        ("proposals = \"aes256gcm16-sha256-prfsha256-x25519\"", "names an HMAC, which an AEAD does not use"),
        (
            "proposals = \"aes256gcm16-prfsha256-x25519-ke2_mlkem768\"",
            "names an additional key exchange without the ones before it",
        ),
        ("proposals = \"aes256gcm16-prfsha256-x25519-ke8_mlkem768\"", "no such algorithm: \"ke8_mlkem768\""),
        ("proposals = \"aes256gcm16-prfsha256-x25519-ke0_mlkem768\"", "no such algorithm: \"ke0_mlkem768\""),
        ("esp = \"aes256gcm16-sha256\"", "names an HMAC, which an AEAD does not use"),
        ("esp = \"aes256gcm16-prfsha256\"", "names a pseudo-random function, which ESP does not use"),
        ("esp = \"aes256\"", "names no HMAC (sha256, sha384, sha512), which its cipher needs"),
        ("esp = \"\"", "no such algorithm: \"\""),
    ] {
        let error = error_of(keys);
        assert!(error.contains(why), "{keys}: {error}");
    }
}

#[test]
fn suites_are_shown_as_they_are_configured() {
    let more_kex = vec![Kex::MlKem768, Kex::Ecp384];
    let suite =
        |encr, integ, more_kex| IkeSuite { encr, integ, prf: Prf::HmacSha384, kex: Kex::X25519, more_kex };
    let shown = algorithms::ike(&suite(Encr::AesGcm(256), None, more_kex));
    assert_eq!(shown, "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_ecp384");
    let shown = algorithms::ike(&suite(Encr::AesCbc(128), Some(Integ::HmacSha256), vec![]));
    assert_eq!(shown, "aes128-sha256-prfsha384-x25519");
    let suite = |integ, kex| EspSuite { encr: Encr::AesCbc(192), integ, kex, esn: true };
    assert_eq!(algorithms::esp(&suite(Some(Integ::HmacSha512), vec![])), "aes192-sha512");
    let shown = algorithms::esp(&suite(Some(Integ::HmacSha512), vec![Kex::Ecp256, Kex::MlKem768]));
    assert_eq!(shown, "aes192-sha512-ecp256-ke1_mlkem768");
    let ike = parsed(&connection(&format!("proposals = \"{}\"", "chacha20poly1305-prfsha256-ecp521")));
    let offer = &ike.connections[0].protocol.ike[0];
    assert_eq!((&offer.encr[..], &offer.kex[..]), (&[Encr::ChaCha20Poly1305][..], &[Kex::Ecp521][..]));
}
