//! The authentication of both sides of a connection.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::sync::Arc;
use wayfarer_mobility::crypto::{PeerCertificates, PeerSignature, SignatureHashes, VerifyErrorKind};

/// Creates a folder with `ca.crt` and the certificates and keys of `gw` and `cl`.
pub(in crate::config::tests) fn pki() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    write("ca.crt", authority.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(authority, key);
    for (file, name) in [("gw", "gw.test"), ("cl", "cl.test")] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "Lab");
        write(&format!("{file}.crt"), params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{file}.key"), key.serialize_pem());
    }
    folder
}

/// Parses the connection with other keys in place of the shared key.
fn with(auth: &str) -> Result<Connection, String> {
    let pki = pki();
    let text = changed("remote_id = \"cl.test\"\nauth = \"psk\"\npsk_file = \"psk\"\n", auth);
    let folder = Folder::new();
    let path = folder.0.path().join("x.toml");
    let pki = pki.path().to_str().unwrap();
    let environment = |name: &str| (name == "PKI").then(|| pki.to_owned());
    let config = parse_with(&text, &path, &environment);
    config.map(|mut config| config.ike.connections.remove(0)).map_err(|why| {
        let shown = why.to_string().replace(&format!("{pki}/"), "");
        after_place(&shown.replace(&format!("{}/", folder.0.path().display()), ""))
    })
}

const OWN: &str = "certificate = \"$PKI/gw.crt\"\nprivate_key = \"${PKI}/gw.key\"\n";
const AUTHORITIES: &str = "authorities = [\"$PKI/ca.crt\"]\n";

#[test]
fn by_certificate() {
    let c = with(&format!("auth = \"certificate\"\n{OWN}{AUTHORITIES}")).unwrap().protocol;
    assert!(matches!((&c.local_auth, &c.remote_auth), (LocalAuth::Key(_), RemoteAuth::Key(_))));
    assert_eq!((&c.local_id, &c.remote_id), (&id("gw.test"), &IdentityPattern::Any));
    let dialled = "remote = [\"192.0.2.7\", \"office.test\"]";
    let dialled = with(&format!("auth = \"certificate\"\n{dialled}\n{OWN}{AUTHORITIES}")).unwrap().protocol;
    let ids = vec![id("192.0.2.7"), id("office.test")];
    assert_eq!(dialled.remote_id, IdentityPattern::of(ids), "not any that the authority knows");
    let named =
        |name: &str| with(&format!("auth = \"certificate\"\nlocal_id = \"{name}\"\n{OWN}{AUTHORITIES}"));
    let subject = named("certificate-subject").unwrap().protocol.local_id;
    assert_eq!(subject.to_string(), "\"O=Lab,CN=gw.test\"");
    assert_eq!(named("GW.test").unwrap().protocol.local_id, id("GW.test"));
    for written in ["CN=GW.test, O=Lab", "O=Lab, CN=gw.test"] {
        assert_eq!(named(written).unwrap().protocol.local_id, subject, "as in the certificate");
    }
    assert_eq!(c.other_local_ids, [subject], "without local_id, all names of the certificate");
    let several = with(&format!("auth = \"certificate\"\nlocal_id = [\"gw.test\"]\n{OWN}{AUTHORITIES}"));
    assert_eq!(several.unwrap().protocol.other_local_ids, []);
    assert_eq!(
        named("other.test").unwrap_err(),
        "connection.local_id = \"other.test\": the certificate is not for this identity"
    );
}

#[test]
fn certificates_need_a_revocation_list_if_configured() {
    let verified = |keys: &str| {
        let c = with(&format!("auth = \"certificate\"\n{OWN}{AUTHORITIES}{keys}\n")).unwrap().protocol;
        let (LocalAuth::Key(own), RemoteAuth::Key(authorities)) = (&c.local_auth, &c.remote_auth) else {
            panic!("{c:?}")
        };
        let (octets, hashes) = (b"octets".to_vec(), SignatureHashes::ALL);
        let (method, data) = own.sign(&octets, hashes).unwrap();
        let signature = PeerSignature { method, data, octets, hashes };
        let sent = PeerCertificates { chain: own.certificates().to_vec(), ocsp: vec![] };
        authorities.verify(&c.local_id, &sent, &signature).map_err(|why| why.kind)
    };
    for lax in ["", "crl_policy = \"relaxed\"", "revocation = \"if_available\""] {
        assert_eq!(verified(lax), Ok(()), "{lax}");
    }
    for strict in ["crl_policy = \"strict\"", "revocation = \"required\""] {
        assert_eq!(verified(strict), Err(VerifyErrorKind::Revoked), "{strict}");
    }
}

#[test]
fn by_eap() {
    let c = with(&format!("auth = \"eap-mschapv2\"\nusers_file = \"users\"\n{OWN}")).unwrap().protocol;
    assert!(matches!((&c.local_auth, &c.remote_auth), (LocalAuth::Key(_), RemoteAuth::Eap(_))));
    let c = with(&format!("auth = \"eap-tls\"\n{OWN}{AUTHORITIES}")).unwrap().protocol;
    assert!(matches!((&c.local_auth, &c.remote_auth), (LocalAuth::Key(_), RemoteAuth::Eap(_))));
    let radius = "radius = [{ server = \"10.0.0.5:1812\", secret_file = \"psk\" }]\n";
    let c = with(&format!("auth = \"eap-radius\"\n{OWN}{radius}")).unwrap().protocol;
    assert!(matches!((&c.local_auth, &c.remote_auth), (LocalAuth::Key(_), RemoteAuth::Eap(_))));
    let shown = format!("{:?}", c.remote_auth);
    assert!(shown.contains("10.0.0.5:1812, 3 times 2s"), "{shown}");
    let patient = radius.replace(" }", ", timeout = \"20s\", tries = 1 }");
    let shown = format!("{:?}", with(&format!("auth = \"eap-radius\"\n{OWN}{patient}")).unwrap().protocol);
    assert!(shown.contains("10.0.0.5:1812, 1 times 20s"), "{shown}");
    let books = radius.replace(" }", ", accounting = \"10.0.0.6:1813\" }");
    let keys = format!("auth = \"eap-radius\"\n{OWN}{books}accounting_interval = \"10m\"\n");
    let accounting = with(&keys).unwrap().accounting.unwrap();
    assert_eq!(accounting.realm.servers[0].address.to_string(), "10.0.0.6:1813");
    assert_eq!(accounting.interval.map(|time| time.as_secs()), Some(600));
    let client = "remote = \"192.0.2.7\"\nuser = \"alice\"\npassword_file = \"password\"\n";
    let c = with(&format!("auth = \"eap-mschapv2\"\n{client}{AUTHORITIES}")).unwrap().protocol;
    assert!(matches!((&c.local_auth, &c.remote_auth), (LocalAuth::Eap(_), RemoteAuth::Key(_))));
    assert_eq!(c.local_id, id("alice"));
}

#[test]
fn a_radius_client_has_a_say_about_the_connections_that_it_lists() {
    let (pki, folder) = (pki(), Folder::new());
    let environment = |name: &str| (name == "PKI").then(|| pki.path().to_str().unwrap().to_owned());
    let by = "auth = \"eap-radius\"\nradius = [{ server = \"10.0.0.5:1812\", secret_file = \"psk\" }]";
    let all = [("staff", by), ("guests", by), ("users", "auth = \"eap-mschapv2\"\nusers_file = \"users\"")];
    let all = all.map(|(name, auth)| {
        format!("[[connection]]\nname = \"{name}\"\n{auth}\n{OWN}inner_local = [\"10.99.0.0/24\"]\n")
    });
    let servers = |five: &str, six: &str| {
        let client = |n: u8, more: &str| {
            let list = if more.is_empty() { String::new() } else { format!(", connections = {more}") };
            format!("{{ address = \"10.0.0.{n}\", secret_file = \"psk\"{list} }}")
        };
        let coa = format!(
            "[coa]\nlisten = \"0.0.0.0:3799\"\nclients = [{}, {}]\n",
            client(5, five),
            client(6, six)
        );
        let text = format!("{PORTS}{coa}{}", all.concat());
        let config = parse_with(&text, &folder.0.path().join("x.toml"), &environment);
        let last =
            |one: &Connection| one.servers.iter().map(|ip| ip.to_string().split_off(7)).collect::<String>();
        match config {
            Ok(config) => Ok(config.ike.connections.iter().map(last).collect::<Vec<_>>()),
            Err(why) => Err(after_place(&why.to_string())),
        }
    };
    let list = |all: [&str; 3]| Ok(all.map(str::to_owned).to_vec());
    assert_eq!(servers("", ""), list(["5", "5", ""]), "those that name it in `radius`");
    assert_eq!(servers("", "[\"guests\", \"staff\"]"), list(["56", "56", ""]));
    assert_eq!(servers("\"staff\"", "\"guests\""), list(["5", "6", ""]), "and no others");
    assert_eq!(servers("", "[]"), Err("coa.clients.connections = []: must not be empty".into()));
    for name in ["users", "nobody"] {
        let why = format!(
            "coa.clients.connections = [\"{name}\"]: no [[connection]] with auth = \"eap-radius\" has this name"
        );
        assert_eq!(servers("", &format!("[\"{name}\"]")), Err(why));
    }
}

/// A peer's authenticated identity selects only among connections with the same credentials.
#[test]
fn connections_with_the_same_credentials_share_a_verifier() {
    let folder = Folder::new();
    for (copy, of) in [("others", "users"), ("authority.crt", "ca.crt")] {
        let pki = pki();
        let from = if of == "users" { folder.0.path().join(of) } else { pki.path().join(of) };
        fs::copy(from, folder.0.path().join(copy)).unwrap();
    }
    fs::create_dir(folder.0.path().join("here")).unwrap();
    let pki = pki();
    let environment = |name: &str| (name == "PKI").then(|| pki.path().to_str().unwrap().to_owned());
    let eap = |users: &str| format!("auth = \"eap-mschapv2\"\nusers_file = \"{users}\"\n{OWN}");
    let radius = |server: &str| {
        format!(
            "auth = \"eap-radius\"\n{OWN}radius = [{{ server = \"{server}:1812\", secret_file = \"psk\" }}]\n"
        )
    };
    let patient = radius("10.0.0.5").replace(" }]", ", timeout = \"20s\" }]");
    let trusted = radius("10.0.0.5").replace(" }]", ", trust_identity = true }]");
    let other_name = format!("{}nas_identifier = \"x\"\n", radius("10.0.0.5"));
    let other_secret = radius("10.0.0.5").replace("\"psk\"", "\"password\"");
    let tls = |auth: &str, ca: &str| format!("auth = \"{auth}\"\n{OWN}authorities = \"{ca}\"\n");
    let with = |keys: &str| tls("certificate", "$PKI/ca.crt") + keys + "\n";
    let other_own = tls("eap-tls", "$PKI/ca.crt").replace("/gw.", "/cl.");
    for (first, second, same) in [
        (eap("users"), eap("here/../users"), true),
        (eap("users"), eap("others"), false),
        (radius("10.0.0.5"), radius("10.0.0.5"), true),
        (radius("10.0.0.5"), radius("10.0.0.6"), false),
        (radius("10.0.0.5"), patient, false),
        (radius("10.0.0.5"), other_secret, false),
        (radius("10.0.0.5"), other_name, false),
        (radius("10.0.0.5"), trusted, false),
        (tls("eap-tls", "$PKI/ca.crt"), tls("eap-tls", "$PKI/ca.crt"), true),
        (tls("eap-tls", "$PKI/ca.crt"), other_own, false),
        (tls("certificate", "$PKI/ca.crt"), tls("certificate", "$PKI/ca.crt"), true),
        (tls("certificate", "$PKI/ca.crt"), tls("certificate", "authority.crt"), false),
        (tls("certificate", "$PKI/ca.crt"), tls("eap-tls", "$PKI/ca.crt"), false),
        (with("crl_policy = \"strict\""), with("crl_policy = \"strict\""), true),
        (with(""), with("crl_policy = \"strict\""), false),
        (with(""), with("legacy_signatures = true"), false),
        (with(""), with("revocation = \"required\""), false),
    ] {
        let connection = |name: &str, auth: &str| {
            format!("[[connection]]\nname = \"{name}\"\ninner_local = [\"10.99.0.0/24\"]\n{auth}")
        };
        let text = format!("{PORTS}{}{}", connection("a", &first), connection("b", &second));
        let config = parse_with(&text, &folder.0.path().join("x.toml"), &environment).unwrap();
        let [a, b] = &config.ike.connections[..] else { panic!() };
        let is_one = match (&a.protocol.remote_auth, &b.protocol.remote_auth) {
            (RemoteAuth::Eap(a), RemoteAuth::Eap(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            (RemoteAuth::Key(a), RemoteAuth::Key(b)) => std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)),
            _ => false,
        };
        assert_eq!(is_one, same, "{first}{second}");
    }
}

#[test]
fn sides_may_authenticate_by_different_methods() {
    let each = "auth = { local = \"psk\", remote = \"certificate\" }\npsk_file = \"psk\"\n";
    let c = with(&format!("{each}{AUTHORITIES}")).unwrap().protocol;
    assert!(matches!((&c.local_auth, &c.remote_auth), (LocalAuth::Psk(_), RemoteAuth::Key(_))));
    assert_eq!(c.local_id, id("203.0.113.1"));
}

#[test]
fn refuses_combinations_that_cannot_authenticate() {
    let eap = format!("auth = \"eap-mschapv2\"\n{OWN}");
    for (keys, wanted) in [
        ("", "connection: missing key \"auth\""),
        (
            "auth = \"pks\"",
            "connection.auth = \"pks\": must be \"psk\" or \"certificate\" or \"eap-mschapv2\" or \"eap-tls\" or \"eap-radius\"; did you mean \"psk\"?",
        ),
        ("auth = 5", "connection.auth = 5: must be a string or a table with \"local\" and \"remote\""),
        ("auth = { local = \"psk\" }", "connection.auth: missing key \"remote\""),
        (
            "auth = \"psk\"\nremote_id = \"any\"",
            "connection: missing key \"psk_file\", which auth = \"psk\" needs",
        ),
        (
            "auth = \"psk\"\npsk_file = \"psk\"",
            "connection: missing key \"remote_id\", which auth = \"psk\" needs",
        ),
        ("auth = \"psk\"\npsk_file = \"empty\"", "connection.psk_file = \"empty\": file is empty"),
        (
            "auth = \"psk\"\npsk_file = \"odd\"",
            "connection.psk_file = \"odd\": file must hold pairs of hexadecimal digits after \"0x\"",
        ),
        (
            "auth = \"psk\"\npsk_file = \"long\"",
            "connection.psk_file = \"long\": file is longer than 4096 bytes",
        ),
        (
            "auth = \"psk\"\npsk_file = \"$NONE/psk\"",
            "connection.psk_file = \"$NONE/psk\": environment variable \"NONE\" is not set",
        ),
        (
            "auth = \"certificate\"",
            "connection: missing key \"certificate\", which auth = \"certificate\" needs",
        ),
        (OWN, "connection: missing key \"auth\""),
        (
            "auth = \"certificate\"\ncertificate = \"$PKI/gw.crt\"",
            "connection: missing key \"private_key\", which auth = \"certificate\" needs",
        ),
        (
            "auth = \"certificate\"\ncertificate = \"$PKI/gw.crt\"\nprivate_key = \"$PKI/cl.key\"",
            "connection.private_key = \"$PKI/cl.key\": cl.key: has a private key that does not belong to the certificate",
        ),
        (
            &format!("auth = \"certificate\"\n{OWN}{AUTHORITIES}ocsp_stapling = true"),
            "connection.certificate = \"$PKI/gw.crt\": gw.crt: has a certificate that names no OCSP responder with http",
        ),
        (
            &format!("{eap}users_file = \"users\"\nocsp_stapling = true"),
            "connection.certificate = \"$PKI/gw.crt\": gw.crt: does not lead to the issuer, which must be known for OCSP: append the issuer's certificate",
        ),
        (
            "auth = \"certificate\"\ncertificate = \"psk\"\nprivate_key = \"$PKI/gw.key\"",
            "connection.certificate = \"psk\": psk: has no certificate in PEM",
        ),
        (
            "auth = \"certificate\"\npsk_file = \"psk\"",
            "connection.psk_file = \"psk\": has no meaning with auth = \"certificate\"",
        ),
        (
            "auth = { local = \"psk\", remote = \"eap-tls\" }",
            "connection.auth = { local = \"psk\", remote = \"eap-tls\" }: if the peer authenticates by EAP, the gateway must authenticate by certificate (RFC 7296 §2.16)",
        ),
        (
            "auth = { local = \"eap-mschapv2\", remote = \"psk\" }",
            "connection.auth = { local = \"eap-mschapv2\", remote = \"psk\" }: if the gateway authenticates by EAP, the peer must authenticate by certificate (RFC 7296 §2.16)",
        ),
        (
            "auth = { local = \"eap-radius\", remote = \"certificate\" }",
            "connection.auth = { local = \"eap-radius\", remote = \"certificate\" }: only a peer can authenticate by EAP-TLS or RADIUS",
        ),
        (
            "auth = \"eap-mschapv2\"\nuser = \"alice\"",
            "connection.auth = \"eap-mschapv2\": the side that authenticates by EAP must initiate: remote must be an address or a host name",
        ),
        (
            "auth = \"eap-tls\"\nremote = \"192.0.2.7\"",
            "connection.auth = \"eap-tls\": the side that authenticates by EAP must initiate: remote must be \"any\"",
        ),
        (&eap, "connection: missing key \"users_file\", which auth = \"eap-mschapv2\" needs"),
        (
            &format!("{eap}users_file = \"users\"\ncrls = []"),
            "connection.crls = []: has no meaning with auth = \"eap-mschapv2\"",
        ),
        (
            &format!("{eap}users_file = \"users\"\nrevocation = \"required\""),
            "connection.revocation = \"required\": has no meaning with auth = \"eap-mschapv2\"",
        ),
        (
            "auth = \"psk\"\npsk_file = \"psk\"\nocsp_stapling = true",
            "connection.ocsp_stapling = true: has no meaning with auth = \"psk\"",
        ),
        (
            "auth = \"psk\"\npsk_file = \"psk\"\nlegacy_signatures = true",
            "connection.legacy_signatures = true: has no meaning with auth = \"psk\"",
        ),
        (
            &format!("{eap}users_file = \"bad-users\""),
            "connection.users_file = \"bad-users\": line 2 of the file must be like alice = \"password\"",
        ),
        (
            &format!("{eap}users_file = \"no-password\""),
            "connection.users_file = \"no-password\": user \"bob\" has an empty password",
        ),
        (
            &format!("{eap}users_file = \"same-user\""),
            "connection.users_file = \"same-user\": users \"Alice\" and \"alice\" differ only in upper and lower case",
        ),
        (&format!("{eap}users_file = \"empty\""), "connection.users_file = \"empty\": file is empty"),
        (
            &format!("auth = \"eap-radius\"\n{OWN}"),
            "connection: missing key \"radius\", which auth = \"eap-radius\" needs",
        ),
        (
            &format!(
                "auth = \"eap-radius\"\n{OWN}radius = [{{ server = \"radius\", secret_file = \"psk\" }}]"
            ),
            "connection.radius.server = \"radius\": must be \"address:port\"",
        ),
        (
            &format!(
                "auth = \"eap-radius\"\n{OWN}radius = [{{ server = \"10.0.0.5:1812\", secret_file = \"psk\" }}]\naccounting_interval = \"10m\""
            ),
            "connection.accounting_interval = \"10m\": has no meaning with no \"accounting\" in \"radius\"",
        ),
        (
            &format!(
                "auth = \"eap-radius\"\n{OWN}radius = [{{ server = \"10.0.0.5:1812\", accounting = \"10.0.0.5:1813\", secret_file = \"psk\" }}]\naccounting_interval = \"59s\""
            ),
            "connection.accounting_interval = \"59s\": must be at least \"60s\"",
        ),
        (
            &format!("auth = \"certificate\"\n{OWN}authorities = []"),
            "connection.authorities = []: must not be empty",
        ),
        (
            &format!("auth = \"certificate\"\n{OWN}authorities = \"psk\""),
            "connection.authorities = \"psk\": psk: has no certificate in PEM",
        ),
        (
            &format!("auth = \"certificate\"\n{OWN}{AUTHORITIES}crls = \"psk\""),
            "connection.crls = \"psk\": psk: has no certificate revocation list in PEM or DER",
        ),
    ] {
        let error = with(&format!("{keys}\n")).expect_err(keys);
        assert_eq!(error, wanted, "{keys}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let folder = Folder::new();
    let shown = format!("{:?}", folder.parse(&connection("")).unwrap());
    assert!(!shown.contains("psk-0123") && shown.contains("SharedKey"), "{shown}");
    let keys = format!("auth = \"eap-mschapv2\"\n{OWN}users_file = \"bad-users\"\n");
    assert!(!with(&keys).unwrap_err().contains("wonderland"));
}
