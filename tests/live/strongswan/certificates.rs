//! Certificates and signatures between strongSwan's terminal and our gateway.

use super::{CERTIFICATES, CLIENT, SERVER, charon::Charon, gateway_head, mobile_lab, wait_for_peers};
use crate::{
    lab::{Lab, wait_for},
    traffic::{ping, wait_for_ping},
};
use std::{fs, process::Command};

/// Runs a script in the folder of certificates.
fn in_pki(lab: &Lab, script: &str) {
    let output = Command::new("bash").args(["-euc", script]).current_dir(lab.path("pki")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Gives both sides RSA keys.
const RSA: &str = r#"
for name in cl gw; do
  command pki --gen --type rsa --size 2048 --outform pem > $name.key
  command pki --issue --lifetime 300 --cacert ca.crt --cakey ca.key --in $name.key --type priv --dn "CN=$name.test" \
    --san $name.test --flag serverAuth --outform pem > $name.crt
done"#;

#[test]
fn strongswan_without_signature_hashes_gets_sha1_only_if_allowed() {
    let lab = mobile_lab();
    in_pki(&lab, RSA);
    let gateway = lab.gateway("gw", &(gateway_head("") + CERTIFICATES));
    let client = Charon::start(&lab, "term", CLIENT, "signature_authentication = no");
    for child in ["certnet", "eapnet"] {
        assert!(!client.try_swanctl(&format!("--initiate --child {child}")).status.success());
    }
    let failed = gateway.command("show peers --failed");
    assert_eq!(failed.matches("or set legacy_signatures = true").count(), 2, "{failed}");

    let key = "certificate = \"pki/gw.crt\"";
    let file = lab.path("gw.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, config.replace(key, &format!("{key}\nlegacy_signatures = true"))).unwrap();
    gateway.command("reload");
    for (child, connection) in [("certnet", "cert"), ("eapnet", "eap")] {
        client.swanctl(&format!("--initiate --child {child}"));
        wait_for_ping(&lab, "term", SERVER);
        ping(&lab, "term", SERVER, 5);
        client.swanctl(&format!("--terminate --ike {connection}"));
        wait_for_peers(&gateway, 0);
    }
}

#[test]
fn log_says_why_strongswans_certificate_is_refused_and_that_it_refuses_ours() {
    let lab = mobile_lab();
    let gateway = lab.gateway("gw", &(gateway_head("") + CERTIFICATES));
    let expired = r#"
command pki --issue --cacert ca.crt --cakey ca.key --in cl.key --type priv --dn "CN=cl.test" --san cl.test \
  --not-before "01.01.20 00:00:00" --not-after "01.01.21 00:00:00" --outform pem > cl.crt"#;
    in_pki(&lab, expired);
    let client = Charon::start(&lab, "term", CLIENT, "");
    assert!(!client.try_swanctl("--initiate --child certnet").status.success());
    let failed = gateway.command("show peers --failed");
    assert!(failed.contains("certificate refused: \"CN=cl.test\" expired on 2021-01-01T"), "{failed}");
    drop(client);

    // A terminal that trusts another authority.
    in_pki(
        &lab,
        "command pki --gen --type ecdsa --size 256 --outform pem > ca.key\n\
         command pki --self --ca --in ca.key --type ecdsa --dn \"CN=Test CA\" --outform pem > ca.crt",
    );
    let client = Charon::start(&lab, "term", CLIENT, "");
    assert!(!client.try_swanctl("--initiate --child eapnet").status.success());
    wait_for("the refusal", || {
        let failed = gateway.command("show peers --failed");
        failed.contains("the peer refused our identity or its proof").then_some(())
    });
}

/// Puts the address of a list into the client's certificate.
const WITH_LIST: &str = r#"
command pki --issue --cacert ca.crt --cakey ca.key --in cl.key --type priv --dn "CN=cl.test" --san cl.test \
  --crl http://127.0.0.1:8000/ca.crl --outform pem > cl.crt
command pki --signcrl --cacert ca.crt --cakey ca.key > ca.crl"#;

#[test]
fn revocation_list_is_fetched_for_strongswans_certificate() {
    let lab = mobile_lab();
    in_pki(&lab, WITH_LIST);
    let key = "authorities = \"pki/ca.crt\"";
    let config = gateway_head("") + &CERTIFICATES.replace(key, &format!("{key}\nrevocation = \"required\""));
    let client = Charon::start(&lab, "term", CLIENT, "");
    let try_it = || client.try_swanctl("--initiate --child certnet").status.success();
    {
        // Nobody serves the list.
        let gateway = lab.gateway("gw", &config);
        assert!(!try_it());
        let failed = gateway.command("show peers --failed");
        assert!(
            failed.contains("nothing that is up to date says that \"CN=cl.test\" is not revoked: \"http://127.0.0.1:8000/ca.crl\": "),
            "{failed}"
        );
    }
    let folder = lab.path("pki");
    let server = format!("python3 -m http.server 8000 --bind 127.0.0.1 --directory {}", folder.display());
    let _server = lab.spawn("gw", &server);
    wait_for("the server", || {
        let mut probe = lab.command("gw", "bash -c");
        probe.arg("</dev/tcp/127.0.0.1/8000").output().unwrap().status.success().then_some(())
    });
    {
        let gateway = lab.gateway("gw", &config);
        assert!(try_it(), "{}", gateway.log());
        wait_for_ping(&lab, "term", SERVER);
        ping(&lab, "term", SERVER, 5);
        client.swanctl("--terminate --ike cert");
        wait_for_peers(&gateway, 0);
    }
    in_pki(&lab, "command pki --signcrl --cacert ca.crt --cakey ca.key --cert cl.crt > ca.crl");
    let gateway = lab.gateway("gw", &config);
    assert!(!try_it());
    let failed = gateway.command("show peers --failed");
    assert!(failed.contains("\"CN=cl.test\" was revoked on "), "{failed}");
}
