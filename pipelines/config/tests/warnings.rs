//! Valid configurations with something that is probably not meant.

use super::*;
use crate::namespace::alone;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use std::process::Command;

/// Returns the warnings about a configuration's text, without its path.
fn warnings(folder: &Folder, text: &str) -> Vec<String> {
    shown(folder, text, |reviewed| [reviewed.certificates, reviewed.file].concat())
}

fn shown(folder: &Folder, text: &str, which: fn(Reviewed) -> Vec<Warning>) -> Vec<String> {
    folder.write("x.toml", text.as_bytes());
    let reviewed = review(&folder.0.path().join("x.toml")).unwrap_or_else(|why| panic!("{why}"));
    let path = format!("{}/", folder.0.path().display());
    which(reviewed).iter().map(|warning| warning.to_string().replace(&path, "")).collect()
}

const DEFAULT_ROUTE: &str = "[[route]]\nto = \"0.0.0.0/0\"\nvia = \"203.0.113.254\"\n";

/// Returns a second tunnel after the one of these tests, with its own SPIs and keys.
fn second(folder: &Folder, local: &str, remote: &str) -> String {
    folder.write("in-2", "22".repeat(20).as_bytes());
    folder.write("out-2", "33".repeat(20).as_bytes());
    let keys =
        TUNNEL.replace('$', "").replace("alice", "bob").replace("x1001", "x1002").replace("x2001", "x2002");
    let files = keys.replace("\"in\"", "\"in-2\"").replace("\"out\"", "\"out-2\"");
    tunnel("") + &files.replace("10.99.0.0/24", local).replace("10.98.0.7/32", remote) + DEFAULT_ROUTE
}

#[test]
fn good_tunnels_give_no_warning() {
    let folder = Folder::new();
    assert_eq!(warnings(&folder, &second(&folder, "10.99.0.0/24", "10.98.0.8/32")), [""; 0]);
    assert_eq!(
        warnings(&folder, &second(&folder, "10.97.0.0/24", "10.98.0.7/32")),
        [""; 0],
        "other local side"
    );
    let same = second(&folder, "10.99.0.0/24", "10.98.0.7/32");
    let (first, last) = same.rsplit_once("inbound =").unwrap();
    for [one, other] in [
        ["protocol = \"tcp\"", "protocol = \"udp\""],
        ["local_ports = 80", "local_ports = 443"],
        ["remote_ports = 80", "remote_ports = 443"],
    ] {
        let first = first.replace("inbound =", &format!("{one}\ninbound ="));
        assert_eq!(warnings(&folder, &format!("{first}{other}\ninbound ={last}")), [""; 0], "{other}");
    }
}

#[test]
fn tunnels_for_the_same_packets() {
    let folder = Folder::new();
    assert_eq!(
        warnings(&folder, &second(&folder, "10.99.0.0/24", "10.98.0.7/32")),
        [
            "x.toml:26: tunnel.inner_remote: tunnel \"alice\" of line 12 is for the same packets, and gets none or \
             all of them: give each tunnel prefixes of its own"
        ]
    );
    let overlaps = "overlaps tunnel \"bob\" of line 22: the longer prefix gets the packets that both are for; \
                    narrow one of them if that is not meant";
    assert_eq!(
        warnings(&folder, &second(&folder, "10.0.0.0/8", "10.98.0.0/24")),
        [format!("x.toml:16: tunnel.inner_remote: {overlaps}")]
    );
}

#[test]
fn one_key_for_two_sas() {
    let folder = Folder::new();
    folder.write("out", "11".repeat(20).as_bytes());
    assert_eq!(
        warnings(&folder, &(tunnel("") + DEFAULT_ROUTE)),
        [
            "x.toml:19: tunnel.outbound.key_file: the SA of line 18 has the same key: give each SA a key of its own"
        ]
    );
}

#[test]
fn many_warnings_of_one_kind_leave_room_for_others() {
    let folder = Folder::new();
    let alike: String = (0..50)
        .map(|n| {
            let tunnel = TUNNEL.replace('$', "").replace("alice", &format!("t{n}"));
            let tunnel = tunnel
                .replace("x1001", &format!("x{}", 2000 + n))
                .replace("x2001", &format!("x{}", 3000 + n));
            tunnel.replace("10.98.0.7", &format!("10.97.0.{n}"))
        })
        .collect();
    let said = warnings(&folder, &(tunnel("") + &alike));
    let of = |key: &str| said.iter().filter(|line| line.contains(&format!(": {key}: "))).collect::<Vec<_>>();
    for key in ["tunnel.inbound.key_file", "tunnel.outbound.key_file"] {
        assert_eq!(of(key).len(), 21);
        assert!(of(key)[20].ends_with(": and 30 more like this"), "{}", of(key)[20]);
    }
    assert_eq!(of("tunnel.remote").len(), 1, "no default route");
}

#[test]
fn examples_secrets_are_public() {
    let folder = Folder::new();
    folder.write("in", include_bytes!("../../../conf/keys/example-alice-up"));
    assert_eq!(
        warnings(&folder, &(tunnel("") + DEFAULT_ROUTE)),
        ["x.toml:18: tunnel.inbound.key_file: is an example that everybody knows: make a secret of your own"]
    );
    folder.write("radius", include_bytes!("../../../conf/keys/example-radius"));
    let coa = "[coa]\nlisten = \"127.0.0.1:3799\"\nclients = [{ address = \"10.0.0.5\", secret_file = \"radius\" }]\n";
    let found = warnings(&folder, &(tunnel("") + DEFAULT_ROUTE + coa));
    assert!(found[2].contains("coa.clients.secret_file: is an example that everybody knows"), "{found:?}");
}

#[test]
fn radius_clients_without_a_connection() {
    let folder = Folder::new();
    certificate(&folder, |_| ());
    folder.write("radius", b"a secret of a RADIUS server");
    let peers = connection("people", "").replace("\"certificate\"", "\"eap-radius\"");
    let peers = peers.replace(
        "authorities = \"own.crt\"",
        "radius = [{ server = \"10.0.0.5:1812\", secret_file = \"radius\" }]",
    );
    let found = |address: &str, more: &str| {
        let client = format!("{{ address = \"{address}\", secret_file = \"radius\"{more} }}");
        let coa = format!("[coa]\nlisten = \"127.0.0.1:3799\"\nclients = [{client}]\n");
        warnings(&folder, &[PORTS, DEFAULT_ROUTE, &peers, &coa].concat())
    };
    assert_eq!(found("10.0.0.5", ""), [""; 0]);
    assert_eq!(found("10.0.0.6", ", connections = \"people\""), [""; 0]);
    assert!(found("10.0.0.6", "")[0].contains("coa.clients.address: no connection has this address"));
}

#[test]
fn peers_anywhere_need_a_default_route() {
    let folder = Folder::new();
    let why = "the peer may be anywhere, but no default route leads to it: add a [[route]] with to = \"0.0.0.0/0\", \
               or routes = \"kernel\" in [gateway]";
    let no_default = DEFAULT_ROUTE.replace("0.0.0.0/0", "192.0.0.0/8");
    for routes in ["", &no_default] {
        let text = format!("{}{routes}", tunnel(""));
        assert_eq!(warnings(&folder, &text), [format!("x.toml:14: tunnel.remote: {why}")]);
    }
    assert_eq!(warnings(&folder, &format!("gateway.routes = \"kernel\"\n{}", tunnel(""))), [""; 0]);
    assert_eq!(warnings(&folder, &changed("\"any\"", "\"192.0.2.7\"")), [""; 0]);
}

/// Returns a connection by certificate, for terminals.
fn connection(name: &str, more: &str) -> String {
    format!(
        "[[connection]]\nname = \"{name}\"\nlocal = \"203.0.113.1\"\nauth = \"certificate\"\ncertificate = \
         \"own.crt\"\nprivate_key = \"own.key\"\nauthorities = \"own.crt\"\ninner_local = \"10.99.0.0/24\"\n{more}\n"
    )
}

/// Writes the gateway's certificate, as `change` makes it of a good one.
fn certificate(folder: &Folder, change: impl FnOnce(&mut CertificateParams)) {
    let mut params = CertificateParams::new(["gw.test".to_owned()]).unwrap();
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::DAY;
    params.not_after = params.not_before + time::Duration::days(300);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    folder.write("own.crt", params.self_signed(&key).unwrap().pem().as_bytes());
    folder.write("own.key", key.serialize_pem().as_bytes());
}

#[test]
fn own_certificate_is_valid_and_as_clients_demand() {
    let folder = Folder::new();
    let text = format!("{PORTS}{DEFAULT_ROUTE}{}", connection("a", ""));
    let of = |change: fn(&mut CertificateParams)| {
        certificate(&folder, change);
        warnings(&folder, &text).join("\n")
    };
    assert_eq!(of(|_| {}), "");
    for (change, why) in [
        ((|params| params.not_after = date_time_ymd(2020, 1, 1)) as fn(&mut CertificateParams), "expired "),
        (|params| params.not_before = date_time_ymd(2190, 1, 1), "will be valid only in "),
        (
            |params| params.not_after = params.not_before + time::Duration::days(5),
            "expires in 3 days: renew it",
        ),
        (|params| params.extended_key_usages.clear(), "lacks serverAuth"),
        (|params| params.subject_alt_names.clear(), "has no subjectAltName"),
        (|params| params.not_after = params.not_before + time::Duration::days(900), "more than 825 days"),
    ] {
        let said = of(change);
        assert!(
            said.starts_with("x.toml:17: connection.certificate: ") && said.contains(why),
            "{why}: {said}"
        );
    }
    // Two connections with it give one warning.
    certificate(&folder, |_| {});
    let subject = |name: &str| format!("remote_id = \"{name}.test\"\nlocal_id = \"certificate-subject\"");
    let both = ["a", "b"].map(|name| connection(name, &subject(name))).concat();
    let said = warnings(&folder, &[PORTS, DEFAULT_ROUTE, &both].concat());
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("has names, but local_id is its subject"), "{said:?}");
    // Windows and others take no better signature than SHA-1 from an RSA key.
    let make = |keys: &str| {
        let mut params = CertificateParams::new(["gw.test".to_owned()]).unwrap();
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::DAY;
        params.not_after = params.not_before + time::Duration::days(300);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        folder.write("own.crt", params.self_signed(&key).unwrap().pem().as_bytes());
        folder.write("own.key", key.serialize_pem().as_bytes());
        warnings(&folder, &format!("{PORTS}{DEFAULT_ROUTE}{}", connection("a", keys))).join("\n")
    };
    assert!(make("").contains("or set legacy_signatures = true"));
    assert_eq!(make("legacy_signatures = true"), "");
    // Another gateway does not ask for these.
    certificate(&folder, |params| params.extended_key_usages.clear());
    let text = format!("{PORTS}{}", connection("a", "remote = \"192.0.2.1\""));
    assert_eq!(warnings(&folder, &text), [""; 0]);
}

#[test]
fn more_authorities_than_an_answer_can_name() {
    let folder = Folder::new();
    certificate(&folder, |_| {});
    let bundle = |count| {
        let one = |_| {
            let params = CertificateParams::new(["ca.test".to_owned()]).unwrap();
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
        };
        let all: String = (0..count).map(one).collect();
        folder.write("all.crt", all.as_bytes());
        let keys = "proposals = \"aes256gcm16-prfsha384-x25519\"";
        let text = format!("{PORTS}{DEFAULT_ROUTE}{}", connection("a", keys));
        warnings(&folder, &text.replace("authorities = \"own.crt\"", "authorities = \"all.crt\""))
    };
    assert_eq!(bundle(40), [""; 0]);
    let said = bundle(60).join("\n");
    assert!(said.contains("connection.authorities: 60 authorities so far"), "{said}");
}

#[test]
fn connection_that_takes_all_leaves_none() {
    let folder = Folder::new();
    certificate(&folder, |_| {});
    let both = |first: &str, second: &str| {
        let text = [PORTS, DEFAULT_ROUTE, &connection("a", first), &connection("b", second)].concat();
        warnings(&folder, &text)
    };
    assert_eq!(
        both("", ""),
        [
            "x.toml:23: connection.name: connection \"a\" of line 14 takes every peer that could come here: set \
             remote_id in one of them, or different addresses in local"
        ]
    );
    assert_eq!(both("remote_id = \"x.test\"", ""), [""; 0]);
    // Peers that offer only the second one's algorithms come to it.
    let [narrow, wide] = [
        "proposals = \"aes256gcm16-prfsha384-x25519\"",
        "proposals = [\"aes128gcm16-prfsha384-x25519-ecp256\", \"aes256gcm16-prfsha384-x25519\"]",
    ];
    assert_eq!(both(narrow, wide), [""; 0]);
    assert_eq!(both(wide, narrow).len(), 1);
    assert_eq!(both("", "remote_id = \"x.test\""), [""; 0], "the named one is chosen by its name");
    // Peers come to the second one at another address, or with another proof.
    let first = connection("a", "");
    let elsewhere = connection("b", "").replace("203.0.113.1", "10.99.0.1");
    let by_key = connection("b", "").split_once("certificate = ").unwrap().0.replace("certificate", "psk")
        + "psk_file = \"ppk\"\nremote_id = \"any\"\ninner_local = \"10.99.0.0/24\"\n";
    for second in [elsewhere, by_key] {
        let text = [PORTS, DEFAULT_ROUTE, &first, &second].concat();
        assert_eq!(warnings(&folder, &text), [""; 0], "{second}");
    }
    let key = KeyPair::generate().unwrap();
    let other = CertificateParams::new(["ca.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    folder.write("other.crt", other.pem().as_bytes());
    let other = connection("b", "").replace("authorities = \"own.crt\"", "authorities = \"other.crt\"");
    let text = [PORTS, DEFAULT_ROUTE, &connection("a", ""), &other].concat();
    assert_eq!(warnings(&folder, &text), [""; 0], "peers of other authorities");
}

#[test]
fn connection_that_takes_additional_key_exchanges_from_anothers_first_message() {
    let folder = Folder::new();
    certificate(&folder, |_| {});
    let both = |first: &str, second: &str| {
        let first = connection("a", &format!("remote_id = \"a.test\"\n{first}"));
        let second = connection("b", &format!("remote_id = \"b.test\"\n{second}"));
        warnings(&folder, &[PORTS, DEFAULT_ROUTE, &first, &second].concat())
    };
    let hybrid = "proposals = [\"aes256gcm16-prfsha384-x25519-ke1_mlkem768\", \"default\"]";
    let at = |address: &str, more: &str| format!("remote = \"{address}\"\n{more}");
    let [said] = &both("", hybrid)[..] else { panic!("not one warning") };
    assert!(
        said.contains("connection.proposals: a peer may begin without") && said.contains("connection \"a\"")
    );
    assert_eq!(both(hybrid, hybrid), [""; 0]);
    assert_eq!(both(&at("192.0.2.1", hybrid), &at("192.0.2.1", "")).len(), 1);
    assert_eq!(both(&at("192.0.2.1", hybrid), &at("192.0.2.2", "")), [""; 0]);
    assert_eq!(both(hybrid, &at("192.0.2.2", "")), [""; 0]);
}

#[test]
fn more_lists_of_algorithms_than_count() {
    let folder = Folder::new();
    certificate(&folder, |_| {});
    let ciphers = ["aes256gcm16", "aes192gcm16", "aes128gcm16", "chacha20poly1305"];
    let groups = ["x25519", "ecp256", "ecp384", "ecp521", "modp2048"];
    let lists: Vec<String> =
        ciphers.iter().flat_map(|c| groups.iter().map(move |g| format!("{c}-prfsha384-{g}"))).collect();
    let of = |count: usize| {
        let each = (0..count).map(|n| {
            let list = &lists[n % lists.len()];
            connection(&format!("c{n}"), &format!("remote_id = \"c{n}.test\"\nproposals = \"{list}\""))
        });
        let all: String = each.collect();
        warnings(&folder, &[PORTS, DEFAULT_ROUTE, &all].concat())
    };
    assert_eq!(of(16), [""; 0]);
    let said = of(18);
    assert!(said.len() == 1 && said[0].contains("more than 16 different lists"), "{said:?}");
}

#[test]
fn machine_without_the_devices_and_cores() {
    let machine = |text: &str| shown(&Folder::new(), text, |reviewed| reviewed.machine);
    let ports = "[[port]]\nname = \"a\"\ndevice = \"wf-none-a\"\n[[port]]\nname = \"b\"\ndevice = \"$\"\n";
    assert_eq!(
        machine(&ports.replace('$', "wf-none-b")),
        ["x.toml:3: port.device: this machine has none of the devices wf-none-a, wf-none-b: its cores and \
             programs were not looked at"]
    );
    let here = format!("gateway.workers = [1000]\n{}", ports.replace('$', "lo") + "mtu = 65472\n");
    let said = machine(&here);
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said[0].starts_with("x.toml:1: gateway.workers: this machine has no core 1000 for workers"),
        "{said:?}"
    );
    assert!(said[1].starts_with("x.toml:4: port.device: this machine has no device wf-none-a"), "{said:?}");
    assert!(
        said[2].starts_with("x.toml:7: port.device: ") && said[2].contains(", but a frame holds 9970: "),
        "{said:?}"
    );
    assert!(said[2].contains(": set gateway.frame_size, or "), "{said:?}");
}

#[test]
fn frames_that_are_too_small_for_a_device() {
    alone(|| {
        let words = "link add eth0 mtu 9000 type veth peer name eth9".split(' ');
        assert!(Command::new("ip").args(words).status().unwrap().success());
        let said = |gateway: &str, keys: &str| {
            let text = format!("{gateway}[[port]]\nname = \"a\"\ndevice = \"eth0\"\n{keys}");
            shown(&Folder::new(), &text, |reviewed| reviewed.machine)
        };
        // That the port asks for less makes what comes in no shorter.
        for keys in ["", "mtu = 1400\n"] {
            assert_eq!(said("", keys), [""; 0], "{keys}");
            let said = said("gateway.frame_size = 2048\n", keys);
            assert!(said.len() == 1 && said[0].contains(", but a frame holds 1778: "), "{said:?}");
            assert!(said[0].contains(": raise gateway.frame_size, or "), "{said:?}");
        }
        let said = said("", "kind = \"af_xdp\"\n");
        assert!(said.len() == 1 && said[0].contains(", but a frame holds 3826: "), "{said:?}");
        assert!(said[0].contains(": use kind = \"auto\" in place of \"af_xdp\", "), "{said:?}");
    });
}
