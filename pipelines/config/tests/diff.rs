//! What can change while a gateway runs.

use super::*;

const IKE: &str = r#"
[ike]
peers = 7
[[pool]]
name = "p"
addresses = "10.96.0.0/24"
[[connection]]
name = "office"
local_id = "gw.test"
remote_id = "cl.test"
auth = "psk"
psk_file = "psk"
inner_local = ["10.99.0.0/24"]
pool = "p"
"#;

const MORE: &str = r#"
[dpdk]
vdev = ["net_tap0,iface=wf0"]
[coa]
listen = "127.0.0.1:3799"
clients = [{ address = "10.0.0.5", secret_file = "psk" }]
[[port]]
name = "third"
kind = "dpdk"
device = "net_tap0"
[[route]]
to = "0.0.0.0/0"
via = "203.0.113.254"
[[neighbour]]
address = "203.0.113.254"
mac = "02:00:00:00:00:fe"
[[policy]]
action = "discard"
remote = "10.1.0.0/16"
"#;

#[test]
fn neighbours_and_ikes_connections_pools_and_limits_can_change() {
    let folder = Folder::new();
    let base = format!("{PORTS}{MORE}{}{IKE}", TUNNEL.replace('$', ""));
    let old = folder.parse(&base).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(base.contains(from), "{from}");
        needs_restart(&old, &folder.parse(&base.replace(from, to)).unwrap())
    };
    assert_eq!(changed("", ""), None);
    for (from, to) in [
        ("10.96.0.0/24", "10.97.0.0/24"),
        ("peers = 7", "peers = 8"),
        ("remote_id = \"cl.test\"", "remote_id = \"other.test\""),
        ("psk_file = \"psk\"", "psk_file = \"password\""),
        ("02:00:00:00:00:fe", "02:00:00:00:00:ff"),
    ] {
        assert_eq!(changed(from, to), None, "{to}");
    }
    for (from, to, part) in [
        (
            "[[port]]\nname = \"outside\"",
            "[gateway]\nmss_clamp = false\n[[port]]\nname = \"outside\"",
            "[gateway]",
        ),
        ("eth1", "eth2", "a [[port]]"),
        ("iface=wf0", "iface=wf1", "[dpdk]"),
        ("10.0.0.5", "10.0.0.6", "[coa]"),
        ("via = \"203.0.113.254\"", "via = \"203.0.113.253\"", "a [[route]]"),
        ("[ike]", "[[nat]]\ninside = \"10.98.0.0/16\"\nport = \"outside\"\n[ike]", "a [[nat]]"),
        ("10.1.0.0/16", "10.2.0.0/16", "a [[policy]]"),
        ("key_file = \"in\"", "key_file = \"out\"", "a [[tunnel]]"),
        ("[ike]", "[ike]\nkey_log = \"keys\"", "key_log of [ike]"),
        ("[ike]", "[ike]\ncrash_secret_file = \"secret\"", "crash_secret_file of [ike]"),
        (&IKE[IKE.find("[[connection]]").unwrap()..], "", "the first or last [[connection]]"),
    ] {
        assert_eq!(changed(from, to), Some(part), "{to}");
    }
}
