//! strongSwan as the terminal: all ways to connect, rekey and disconnect.

use super::{CERTIFICATES, SERVER, connected, gateway_head, mobile_lab, psk, wait_for_peers};
use crate::{
    lab::{wait_for, wait_longer},
    traffic::{lost, ping, wait_for_ping},
};
use std::{fs, process::Command};

#[test]
fn connects_by_every_proof_and_proposal() {
    let lab = mobile_lab();
    let config = gateway_head("") + &psk("") + CERTIFICATES;
    let (gateway, client) = connected(&lab, &config, "", "net");
    let mut connection = "psk";
    for (next, suite) in [
        ("certnet", "aes"),
        ("eapnet", "aes"),
        ("defaultnet", "aes"),
        ("oldnet", "aes128-sha256-prfsha256-modp2048"),
        ("modernnet", "chacha20poly1305-prfsha512-ecp521"),
    ] {
        client.swanctl(&format!("--terminate --ike {connection}"));
        wait_for_peers(&gateway, 0);
        client.swanctl(&format!("--initiate --child {next}"));
        ping(&lab, "term", SERVER, 20);
        let peers = gateway.peers();
        let [peer] = &peers[..] else { panic!("{peers:?}") };
        assert!(peer.suite.as_deref().is_some_and(|s| s.starts_with(suite)), "{next}: {peer:?}");
        assert_eq!((&*peer.nat, &*peer.encap), ("there", "udp"));
        assert_eq!(peer.inner.len(), 1, "{peer:?}");
        connection = next.trim_end_matches("net");
    }
    let refused = client.try_swanctl("--initiate --child strangernet");
    assert!(!refused.status.success());
    gateway.assert_no_drops();
}

#[test]
fn identity_proved_by_eap_decides_strongswans_connection() {
    let lab = mobile_lab();
    let connection = |name: &str, more: &str| {
        format!(
            r#"
[[connection]]
name = "{name}"
local = "203.0.113.1"
local_id = "gw.test"
auth = "eap-mschapv2"
certificate = "pki/gw.crt"
private_key = "pki/gw.key"
users_file = "users"
inner_local = ["10.99.0.0/24"]
{more}
"#
        )
    };
    let own = "[[pool]]\nname = \"own\"\naddresses = \"10.98.1.7-10.98.1.7\"\n";
    let config = gateway_head("")
        + own
        + &connection("alice", "remote_id = \"alice\"\npool = \"own\"")
        + &connection("people", "pool = \"terminals\"");
    // The terminal's ID payload is alice@test, which no connection names.
    let (gateway, client) = connected(&lab, &config, "", "eapnet");
    let peer = gateway.peers().remove(0);
    assert_eq!((peer.connection.as_deref(), peer.identity.as_deref()), (Some("alice"), Some("alice")));
    assert_eq!(peer.inner, ["10.98.1.7"]);
    assert!(peer.children[0].name.starts_with("alice/alice#"), "{peer:?}");
    gateway.command("peer down alice");
    wait_for("the terminal to end the IKE SA", || client.swanctl("--list-sas").is_empty().then_some(()));
}

#[test]
fn both_sides_rekey_without_loss() {
    let lab = mobile_lab();
    let (gateway, client) = connected(&lab, &(gateway_head("") + &psk("")), "", "net");
    let before = gateway.peers().remove(0);
    let pings = lab.spawn("term", &format!("ping -q -i 0.005 -c 400 -W 2 {SERVER}"));
    for _ in 0..2 {
        client.swanctl("--rekey --child net");
        client.swanctl("--rekey --ike psk");
        gateway.command("peer rekey cl.test");
        gateway.command("peer rekey cl.test --ike");
        // Both sides at once.
        std::thread::scope(|scope| {
            scope.spawn(|| client.try_swanctl("--rekey --child net"));
            gateway.command("peer rekey cl.test");
        });
    }
    let output = pings.finish();
    assert_eq!(lost(&output), 0, "{output}\n{}", client.log());
    let after = gateway.peers().remove(0);
    assert_eq!(after.peer, before.peer, "the link is the same");
    // Most overlap, and of those some come to nothing.
    assert!(after.rekeys > 0, "{after:?}");
    wait_for("the old pairs to go", || (gateway.peers()[0].children.len() == 1).then_some(()));
}

#[test]
fn disconnects_and_reconnects_ten_times() {
    let lab = mobile_lab();
    let (gateway, client) = connected(&lab, &(gateway_head("") + &psk("")), "", "net");
    let first = gateway.peers().remove(0).inner;
    for round in 0..10 {
        match round % 2 {
            0 => {
                client.swanctl("--terminate --ike psk");
            }
            _ => {
                gateway.command("peer down cl.test");
                wait_for("the terminal to end the IKE SA", || {
                    client.swanctl("--list-sas").is_empty().then_some(())
                });
            }
        }
        wait_for_peers(&gateway, 0);
        client.swanctl("--initiate --child net");
        // strongSwan adds the route into its tunnel after that.
        wait_for_ping(&lab, "term", SERVER);
        ping(&lab, "term", SERVER, 5);
        assert_eq!(gateway.peers().remove(0).inner, first, "the terminal gets its address again");
    }
    assert_eq!(gateway.counted("established"), 11);
    assert_eq!(gateway.counted("ended"), 10);
}

#[test]
fn gateway_that_stops_tells_its_peers() {
    let lab = mobile_lab();
    let (mut gateway, client) = connected(&lab, &(gateway_head("") + &psk("")), "", "net");
    assert!(gateway.stop().success());
    wait_for("the terminal to end the IKE SA", || client.swanctl("--list-sas").is_empty().then_some(()));
    assert!(client.log().contains("received DELETE for IKE_SA"), "{}", client.log());
}

#[test]
fn cookies_groups_and_fragments() {
    let lab = mobile_lab();
    // Cookies for everyone, a group that the terminal does not offer first, and messages fragmented
    // at 600 bytes.
    let config = gateway_head("cookie_threshold = 0")
        + &psk("proposals = [\"aes128gcm16-prfsha256-x25519\"]\nfragment = 600")
        + CERTIFICATES;
    let (gateway, client) = connected(&lab, &config, "fragment_size = 600", "net");
    assert!(gateway.counted("cookie") >= 1, "everyone is asked for a cookie");
    assert!(gateway.counted("init_refused") >= 1, "INVALID_KE_PAYLOAD");
    client.swanctl("--terminate --ike psk");
    client.swanctl("--initiate --child certnet");
    ping(&lab, "term", SERVER, 5);
    for sign in ["EF(", "splitting IKE message"] {
        assert!(client.logged(sign) > 0, "{sign}: {}", client.log());
    }
}

#[test]
fn tshark_decrypts_a_capture_with_the_key_log() {
    let lab = mobile_lab();
    let capture = lab.path("outside.pcap");
    let tcpdump =
        lab.spawn("core", &format!("tcpdump --immediate-mode -U -i k0 -w {} udp", capture.display()));
    wait_for("tcpdump", || fs::metadata(&capture).ok().filter(|about| about.len() > 0).map(|_| ()));
    let config = gateway_head("key_log = \"keys\"") + &psk("");
    let (gateway, client) = connected(&lab, &config, "", "net");
    ping(&lab, "term", SERVER, 5);
    client.swanctl("--rekey --ike psk");
    client.swanctl("--rekey --child net");
    ping(&lab, "term", SERVER, 5);
    drop(gateway);
    tcpdump.interrupt();
    let home = lab.path("home");
    let profile = home.join(".config/wireshark");
    fs::create_dir_all(&profile).unwrap();
    for table in ["ikev2_decryption_table", "esp_sa"] {
        fs::copy(lab.path("keys").join(table), profile.join(table)).unwrap();
    }
    let read = |arguments: &[&str]| {
        let mut tshark = Command::new("tshark");
        tshark.env("HOME", &home).env_remove("XDG_CONFIG_HOME").arg("-r").arg(&capture);
        tshark.args(["-o", "esp.enable_encryption_decode:TRUE"]).args(arguments);
        String::from_utf8_lossy(&tshark.output().unwrap().stdout).into_owned()
    };
    let lines = |filter: &str| read(&["-Y", filter]).lines().count();
    assert!(read(&["-V", "-Y", "isakmp.exchangetype == 35"]).contains("Identification Data:cl.test"));
    assert!(lines("isakmp.exchangetype == 36 && isakmp.nonce") >= 4, "CREATE_CHILD_SA is read");
    assert!(lines("esp && icmp.type == 8") >= 10, "pings inside ESP are read");
}

#[test]
fn survives_good_and_bad_messages_of_scapy() {
    let lab = mobile_lab();
    let (gateway, _client) = connected(&lab, &(gateway_head("") + &psk("")), "", "net");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/strongswan/hostile.py");
    let pings = lab.spawn("term", &format!("ping -q -i 0.02 -c 150 -W 2 {SERVER}"));
    let answered = lab.run("term", &format!("/usr/bin/python3 -B {script} 203.0.113.1 7"));
    let output = pings.finish();
    assert!(answered.trim().parse::<u32>().unwrap() >= 18, "valid messages are answered: {answered}");
    assert_eq!(lost(&output), 0, "{output}");
    assert!(gateway.counted("malformed") > 100);
    assert!(gateway.counted("unknown_spi") >= 15);
    assert_eq!(gateway.peers().len(), 1, "the peer stays connected");
    wait_longer("the half-open peers to go", || (gateway.counted("failed") >= 18).then_some(()));
}
