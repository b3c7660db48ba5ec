//! `wayfarer pki` and `wayfarer profile`.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use wayfarer::credentials::{CertificateFacts, KeyType};

const HEAD: &str = r#"
[[port]]
name = "outside"
device = "eth0"
addresses = ["203.0.113.1/24"]
[[pool]]
name = "terminals"
addresses = "10.98.0.0/24"
"#;

const PEOPLE: &str = r#"
[[connection]]
name = "people"
auth = "eap-mschapv2"
certificate = "pki/gateway.crt"
private_key = "pki/gateway.key"
users_file = "users"
inner_local = ["10.99.0.0/24"]
pool = "terminals"
"#;

const DEVICES: &str = r#"
[[connection]]
name = "devices"
auth = "certificate"
certificate = "pki/gateway.crt"
private_key = "pki/gateway.key"
authorities = "pki/ca.crt"
inner_local = ["0.0.0.0/0"]
pool = "terminals"
"#;

/// A folder with a configuration, a user with a password and an authority.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        site.write("users", "alice = \"wonderland\"\n");
        site.pki("ca Test");
        site.pki("gateway vpn.example.org 203.0.113.1");
        site
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Runs a program in the folder; returns exit code, standard output and standard error.
    fn run(&self, program: &str, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(program);
        let Output { status, stdout, stderr } =
            command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().expect("no signal"), text(stdout), text(stderr))
    }

    fn pki(&self, arguments: &str) -> String {
        let arguments: Vec<&str> = ["pki"].into_iter().chain(arguments.split(' ')).collect();
        let (code, out, err) = self.run(env!("CARGO_BIN_EXE_wayfarer"), &arguments);
        assert_eq!((code, &*err), (0, ""), "{out}");
        out
    }

    /// Runs `wayfarer profile` on a configuration with these connections.
    fn profile(&self, connections: &str, arguments: &str) -> (i32, String, String) {
        self.profile_of(connections, &arguments.split(' ').collect::<Vec<_>>())
    }

    fn profile_of(&self, connections: &str, arguments: &[&str]) -> (i32, String, String) {
        self.write("gateway.toml", &format!("{HEAD}{connections}"));
        let fixed = ["profile", "--config", "gateway.toml", "--for"];
        self.run(env!("CARGO_BIN_EXE_wayfarer"), &[&fixed, arguments].concat())
    }

    /// Returns a profile, which can be made.
    fn text(&self, connections: &str, arguments: &str) -> String {
        let (code, out, err) = self.profile(connections, arguments);
        assert_eq!((code, &*err), (0, ""));
        out
    }

    /// Returns why a profile cannot be made.
    fn refused(&self, connections: &str, arguments: &str) -> String {
        let (code, out, err) = self.profile(connections, arguments);
        assert_eq!((code, &*out), (2, ""), "{err}");
        err
    }

    /// Reads a document by a program in Python, which prints it as JSON.
    fn python(&self, script: &str, document: &str) -> Value {
        self.write("document", document);
        let (code, out, err) = self.run("/usr/bin/python3", &["-c", script]);
        assert_eq!(code, 0, "{err}");
        serde_json::from_str(&out).unwrap()
    }

    fn plist(&self, document: &str) -> Value {
        let script = "import base64,json,plistlib; print(json.dumps(plistlib.load(open('document','rb')), \
                      default=lambda data: base64.b64encode(data).decode()))";
        self.python(script, document)
    }

    fn key_file(&self, document: &str) -> Value {
        let script = "import configparser,json; c=configparser.ConfigParser(interpolation=None); \
                      c.read('document'); print(json.dumps({s: dict(c[s]) for s in c.sections()}))";
        self.python(script, document)
    }

    fn facts(&self, name: &str) -> CertificateFacts {
        let (code, _, err) = self
            .run("openssl", &["x509", "-in", &format!("pki/{name}.crt"), "-outform", "der", "-out", "der"]);
        assert_eq!(code, 0, "{err}");
        CertificateFacts::of(&fs::read(self.0.path().join("der")).unwrap()).unwrap()
    }
}

#[test]
fn certificates_are_as_clients_demand() {
    let site = Site::new();
    let gateway = site.facts("gateway");
    assert!(gateway.is_server && gateway.has_names);
    assert!(gateway.validity() < Duration::from_secs(825 * 86400));
    assert_eq!((gateway.key, gateway.common_name.as_deref()), (KeyType::Ecdsa256, Some("vpn.example.org")));
    site.pki("user laptop --key rsa3072 --days 30");
    let laptop = site.facts("laptop");
    assert_eq!((laptop.key, laptop.is_server), (KeyType::Rsa, false));
    assert!(laptop.validity() < Duration::from_secs(30 * 86400));
    let verify = ["verify", "-CAfile", "pki/ca.crt", "-x509_strict"];
    for (purpose, file) in [("sslserver", "pki/gateway.crt"), ("sslclient", "pki/laptop.crt")] {
        let (code, out, err) = site.run("openssl", &[&verify[..], &["-purpose", purpose, file]].concat());
        assert_eq!(code, 0, "{out}{err}");
    }
}

#[test]
fn files_are_private_and_never_overwritten() {
    let site = Site::new();
    site.pki("user alice@example.org");
    let folder = site.0.path().join("pki");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let files = || fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    assert_eq!(files().count(), 8);
    for file in files() {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let before: Vec<_> = files().map(|file| fs::read(file).unwrap()).collect();
    for again in [
        &["ca", "Other"][..],
        &["gateway", "other.example.org"],
        &["user", "alice@example.org"],
        &["user", "gateway"],
    ] {
        let (code, _, err) = site.run(env!("CARGO_BIN_EXE_wayfarer"), &[&["pki"], again].concat());
        assert_eq!(code, 1);
        assert!(err.contains("exists already"), "{err}");
    }
    let (code, _, err) = site.run(env!("CARGO_BIN_EXE_wayfarer"), &["pki", "user", "../alice"]);
    assert!(code == 1 && err.contains("names a file"), "{err}");
    assert_eq!(files().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>(), before);
    fs::copy(folder.join("gateway.key"), folder.join("ca.key")).unwrap();
    let (code, _, err) = site.run(env!("CARGO_BIN_EXE_wayfarer"), &["pki", "user", "bob"]);
    assert!(code == 1 && err.contains("must be the private key of ca.crt"), "{err}");
}

#[test]
fn printed_password_opens_the_file_for_phones() {
    let site = Site::new();
    let out = site.pki("user alice");
    let password = out.trim().rsplit(' ').next().unwrap();
    let open = |password: &str| {
        let password = format!("pass:{password}");
        site.run("openssl", &["pkcs12", "-in", "pki/alice.p12", "-nodes", "-passin", &password])
    };
    let (code, content, err) = open(password);
    assert_eq!(code, 0, "{err}");
    assert_eq!(content.matches("BEGIN CERTIFICATE").count(), 2, "the user's and the authority's");
    assert_eq!(content.matches("BEGIN PRIVATE KEY").count(), 1);
    assert_ne!(open("wonderland").0, 0);
}

#[test]
fn revocations_add_up() {
    let site = Site::new();
    for user in ["alice", "bob", "carol"] {
        site.pki(&format!("user {user}"));
    }
    for user in ["alice", "bob", "alice"] {
        assert_eq!(site.pki(&format!("revoke {user}")), "pki/ca.crl\n");
    }
    for (user, is_good) in [("alice", false), ("bob", false), ("carol", true)] {
        let file = format!("pki/{user}.crt");
        let verify = ["verify", "-CAfile", "pki/ca.crt", "-crl_check", "-CRLfile", "pki/ca.crl", &file];
        let (code, out, err) = site.run("openssl", &verify);
        assert_eq!(code == 0, is_good, "{user}: {out}{err}");
    }
}

#[test]
fn revocations_at_once_all_count() {
    let site = Site::new();
    let users: Vec<String> = (0..8).map(|n| format!("user{n}")).collect();
    users.iter().for_each(|user| drop(site.pki(&format!("user {user}"))));
    let revoke = |user: &String| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wayfarer"));
        command
            .args(["pki", "revoke", user])
            .current_dir(site.0.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let running: Vec<_> = users.iter().map(revoke).collect();
    for mut revocation in running {
        assert!(revocation.wait().unwrap().success());
    }
    let (_, list, err) = site.run("openssl", &["crl", "-in", "pki/ca.crl", "-noout", "-text"]);
    assert_eq!(list.matches("Serial Number:").count(), users.len(), "{list}{err}");
}

#[test]
fn certificates_end_with_their_authority() {
    let site = Site(tempfile::tempdir().unwrap());
    site.pki("ca Short --days 30");
    let user = |name: &str, more: &[&str]| {
        site.run(env!("CARGO_BIN_EXE_wayfarer"), &[&["pki", "user", name], more].concat())
    };
    let (code, _, err) = user("alice", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(
        err.contains("the certificate is valid only until ") && err.contains("as the authority's own"),
        "{err}"
    );
    assert_eq!(site.facts("alice").not_after, site.facts("ca").not_after);
    let (code, _, err) = user("bob", &["--days", "29"]);
    assert_eq!((code, &*err), (0, ""));
    assert!(site.facts("bob").not_after < site.facts("ca").not_after);
    let file = |name| site.0.path().join("pki").join(name);
    let key = KeyPair::from_pem(&fs::read_to_string(file("ca.key")).unwrap()).unwrap();
    let mut expired = CertificateParams::default();
    expired.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    fs::write(file("ca.crt"), expired.self_signed(&key).unwrap().pem()).unwrap();
    let (code, _, err) = user("carol", &[]);
    assert!(code == 1 && err.contains("pki/ca.crt: is no longer valid"), "{err}");
}

#[test]
fn folder_and_key_are_the_owners_alone() {
    let site = Site::new();
    let set = |name: &str, mode| {
        fs::set_permissions(site.0.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let user = |name| site.run(env!("CARGO_BIN_EXE_wayfarer"), &["pki", "user", name]);
    set("pki/ca.key", 0o640);
    let (code, _, err) = user("alice");
    assert!(code == 0 && err.contains("users other than its owner can access this key file"), "{err}");
    set("pki/ca.key", 0o600);
    set("pki", 0o777);
    let (code, _, err) = user("bob");
    assert!(code == 1 && err.contains("pki: must not be writable for its group or everybody"), "{err}");
}

#[test]
fn profiles_read_no_files_elsewhere() {
    let site = Site::new();
    site.pki("user phone");
    for ending in ["crt", "key", "p12"] {
        fs::copy(
            site.0.path().join(format!("pki/phone.{ending}")),
            site.0.path().join(format!("phone.{ending}")),
        )
        .unwrap();
    }
    for user in ["../phone", "x/../../phone", "/etc/passwd", "-phone", ""] {
        let (code, out, err) = site.profile_of(DEVICES, &["apple", &format!("--user={user}")]);
        assert_eq!((code, &*out), (2, ""), "{user}");
        assert!(err.contains("--user names a certificate's file"), "{user}: {err}");
    }
}

#[test]
fn apple_profiles_are_property_lists() {
    let site = Site::new();
    let text = site.text(PEOPLE, "apple --user alice");
    let profile = site.plist(&text);
    assert_eq!(text, site.text(PEOPLE, "apple --user alice"), "the same profile replaces itself");
    let payloads = profile["PayloadContent"].as_array().unwrap();
    let [authority, vpn] = &payloads[..] else { panic!("{profile}") };
    assert_eq!(authority["PayloadType"], "com.apple.security.root");
    let uuids = [&profile, authority, vpn].map(|payload| payload["PayloadUUID"].as_str().unwrap());
    assert!(uuids[0] != uuids[1] && uuids[1] != uuids[2] && uuids[0] != uuids[2]);
    let ikev2 = &vpn["IKEv2"];
    for (key, wanted) in [
        ("RemoteAddress", "vpn.example.org".into()),
        ("RemoteIdentifier", "vpn.example.org".into()),
        ("AuthenticationMethod", "None".into()),
        ("ExtendedAuthEnabled", Value::from(1)),
        ("AuthName", "alice".into()),
        ("DisableMOBIKE", 0.into()),
        ("ServerCertificateIssuerCommonName", "Test".into()),
    ] {
        assert_eq!(ikev2[key], wanted, "{key}");
    }
    let ike = &ikev2["IKESecurityAssociationParameters"];
    assert_eq!(
        (&ike["EncryptionAlgorithm"], &ike["DiffieHellmanGroup"]),
        (&"AES-256-GCM".into(), &19.into())
    );

    site.pki("user phone");
    let profile = site.plist(&site.text(DEVICES, "apple --user phone"));
    let [_, bundle, vpn] = &profile["PayloadContent"].as_array().unwrap()[..] else { panic!("{profile}") };
    assert_eq!(bundle["PayloadType"], "com.apple.security.pkcs12");
    assert!(bundle.get("Password").is_none());
    assert_eq!(vpn["IKEv2"]["PayloadCertificateUUID"], bundle["PayloadUUID"]);
    assert_eq!(vpn["IKEv2"]["CertificateType"], "ECDSA256");
}

#[test]
fn android_and_network_manager_read_their_profiles() {
    let site = Site::new();
    site.pki("user phone");
    let people: Value = serde_json::from_str(&site.text(PEOPLE, "android --user alice")).unwrap();
    assert_eq!((&people["type"], &people["local"]["eap_id"]), (&"ikev2-eap".into(), &"alice".into()));
    assert_eq!(people["split-tunneling"]["subnets"][0], "10.99.0.0/24");
    let devices: Value = serde_json::from_str(&site.text(DEVICES, "android --user phone")).unwrap();
    assert_eq!(devices["type"], "ikev2-cert");
    assert!(devices["local"]["p12"].is_string() && devices.get("split-tunneling").is_none());

    let people = site.key_file(&site.text(PEOPLE, "networkmanager --user alice"));
    assert_eq!(people["connection"]["type"], "vpn");
    assert_eq!((&people["vpn"]["method"], &people["vpn"]["user"]), (&"eap".into(), &"alice".into()));
    assert_eq!(people["vpn"]["remote-ts"], "10.99.0.0/24");
    let devices = site.key_file(&site.text(DEVICES, "networkmanager --user phone"));
    assert_eq!(devices["vpn"]["method"], "cert");
}

#[test]
fn windows_gets_algorithms_of_the_connection() {
    let site = Site::new();
    let algorithms = "proposals = \"aes128-sha256-ecp256\"\nesp = \"aes128gcm16\"\n";
    let names = "dns = \"10.99.0.53\"\ndomains = \"example.org\"\n";
    let script = site.text(&[PEOPLE, algorithms, names].concat(), "windows");
    for part in [
        "-EncryptionMethod AES128 -IntegrityCheckMethod SHA256 -DHGroup ECP256",
        "-CipherTransformConstants GCMAES128 -AuthenticationTransformConstants GCMAES128 -PfsGroup None",
        "Add-VpnConnectionRoute -ConnectionName 'vpn.example.org VPN' -DestinationPrefix '10.99.0.0/24'",
        "-SplitTunneling -DnsSuffix 'example.org'",
    ] {
        assert!(script.contains(part), "{part}: {script}");
    }
    // Files in TEMP go even if a command fails.
    site.pki("user phone");
    let script = site.text(DEVICES, "windows --user phone");
    for file in ["authority", "bundle"] {
        let (_, rest) = script.split_once(&format!("${file} = Join-Path $env:TEMP")).unwrap();
        let (body, end) = rest.split_once("} finally {").unwrap();
        assert!(body.contains("\ntry {\n") && body.contains(&format!("WriteAllBytes(${file},")), "{script}");
        assert!(end.trim_start().starts_with(&format!("Remove-Item ${file} ")), "{script}");
    }
}

#[test]
fn some_clients_take_an_rsa_gateway_only_with_legacy_signatures() {
    let site = Site::new();
    site.pki("gateway vpn.example.org 203.0.113.1 --file rsa --key rsa3072");
    let rsa = PEOPLE.replace("pki/gateway.", "pki/rsa.");
    for client in ["apple", "windows"] {
        let said = site.refused(&rsa, client);
        assert!(said.contains("or set legacy_signatures = true"), "{said}");
        site.text(&format!("{rsa}legacy_signatures = true\n"), client);
    }
    site.text(&rsa, "strongswan --user alice");
}

#[test]
fn refusals_say_what_to_change() {
    let site = Site::new();
    site.write("psk", "a shared key of many bytes\n");
    let psk = "[[connection]]\nname = \"psk\"\nauth = \"psk\"\npsk_file = \"psk\"\nremote_id = \"any\"\n\
               local_id = \"vpn.example.org\"\ninner_local = \"10.99.0.0/24\"\npool = \"terminals\"\n";
    let no_pool = PEOPLE.replace("pool = \"terminals\"", "");
    for (connections, arguments, why) in [
        (&*format!("{PEOPLE}{DEVICES}"), "apple", "--connection must choose one of \"people\", \"devices\""),
        (PEOPLE, "apple --connection staff", "no [[connection]] is called \"staff\", only \"people\""),
        (PEOPLE, "strongswan", "strongSwan needs --user"),
        (DEVICES, "apple", "give its name by --user"),
        (DEVICES, "apple --user nobody", "`wayfarer pki user nobody` makes it"),
        (PEOPLE, "windows --server 192.0.2.1", "`wayfarer pki gateway 192.0.2.1 vpn.example.org`"),
        (PEOPLE, "apple --ca users", "users: must be a certificate in PEM"),
        (
            &format!("{PEOPLE}mode = \"transport\"\n").replace("inner_local = [\"10.99.0.0/24\"]\n", ""),
            "apple",
            "remove mode = \"transport\"",
        ),
        (psk, "apple", "set auth to"),
        (psk, "windows", "set auth to"),
        (&no_pool, "apple", "name a [[pool]] in pool"),
        (
            &format!("{PEOPLE}proposals = \"chacha20poly1305-prfsha512-x25519\"\n"),
            "windows",
            "add \"aes256-sha256-prfsha256-ecp384\" to proposals",
        ),
        (
            &format!("{PEOPLE}proposals = \"aes256gcm16-prfsha256-x25519-ke1_mlkem768\"\n"),
            "apple",
            "to proposals",
        ),
    ] {
        let said = site.refused(connections, arguments);
        assert!(said.contains(why), "{arguments}: {said}");
    }
}
