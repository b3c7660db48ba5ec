//! Connections and pools.

pub(super) mod proof;
mod proposals;

use super::*;
use std::net::SocketAddr;
use wayfarer_mobility::{
    identity::Identity,
    ike::{
        connection::{IdentityPattern, LocalAuth, Remote, RemoteAuth},
        wire::TrafficSelector,
    },
    roaming::Policy as RoamPolicy,
};

/// A connection. `$` is a place for more keys.
pub(super) const CONNECTION: &str = r#"
[[pool]]
name = "terminals"
addresses = "10.98.0.0/24"
[[connection]]
name = "office"
remote_id = "cl.test"
auth = "psk"
psk_file = "psk"
inner_local = ["10.99.0.0/24"]
$
"#;

fn connection(keys: &str) -> String {
    format!("{PORTS}{}", CONNECTION.replace('$', keys))
}

/// Returns the connection, with `from` replaced by `to`.
fn changed(from: &str, to: &str) -> String {
    let text = connection("");
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

fn parsed(text: &str) -> Ike {
    Folder::new().parse(text).unwrap_or_else(|why| panic!("{why}")).ike
}

/// Returns the error of a connection with more `keys`, from the key on.
fn error_of(keys: &str) -> String {
    after_place(&error(&connection(keys)))
}

/// Returns an error without the file name and the line.
fn after_place(error: &str) -> String {
    error.splitn(3, ':').nth(2).unwrap_or(error).trim_start().to_owned()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(first: &str, last: &str) -> TrafficSelector {
    TrafficSelector::range(ip(first), ip(last))
}

fn id(text: &str) -> Identity {
    Identity::from_text(text).unwrap()
}

#[test]
fn defaults_are_filled_in() {
    let none = parsed(PORTS);
    assert!(none.connections.is_empty() && none.pools.is_empty());
    assert_eq!((none.key_log, none.crash_secret_file), (None, None));
    assert_eq!((none.cookie_threshold, none.half_open), (256, 8192));
    assert_eq!(none.half_open_time, Duration::from_secs(30));
    assert_eq!((none.peers, none.devices, none.children), (65_536, 16, 131_072));
    let ike = parsed(&connection(""));
    let c = &ike.connections[0];
    assert_eq!((c.window, c.mtu, c.limits), (1024, None, Limits::NONE));
    assert!(!c.outer_fragments);
    let p = &c.protocol;
    assert_eq!((&p.name[..], &p.remote[..]), ("office", &[][..]));
    assert_eq!(p.local, ["203.0.113.1", "2001:db8::1", "10.99.0.1"].map(ip));
    let host = "[[port]]\nname = \"host\"\nkind = \"tap\"\ndevice = \"wf0\"\naddresses = \"192.0.2.9\"\n";
    let with_host = parsed(&format!("{host}{}", connection("")));
    assert_eq!(with_host.connections[0].protocol.local, p.local, "not the host's");
    assert_eq!((&p.local_id, &p.remote_id), (&id("203.0.113.1"), &IdentityPattern::of(vec![id("cl.test")])));
    for auth in [format!("{:?}", p.local_auth), format!("{:?}", p.remote_auth)] {
        assert_eq!(auth, "Psk(SharedKey)");
    }
    let [child] = &p.children[..] else { panic!("{:?}", p.children) };
    assert_eq!((&child.name[..], child.transport), ("office", false));
    assert_eq!((&child.local[..], &child.remote[..]), (&[range("10.99.0.0", "10.99.0.255")][..], &[][..]));
    assert!(p.pools.is_empty() && p.dns.is_empty() && p.domains.is_empty() && !p.ask_address);
    let l = &p.lifetimes;
    assert_eq!((l.ike_sa.as_secs(), l.child.as_secs(), l.grace.as_secs()), (28_800, 3600, 300));
    assert_eq!(l.authentication, None);
    assert_eq!((p.liveness, p.fragment), (Some(Duration::from_secs(30)), Some(1280)));
    assert_eq!(p.path_probing, PathProbing::Udp);
    assert_eq!((p.mobike, p.roam, p.no_nats, p.force_udp), (true, RoamPolicy::Follow, false, false));
    assert!(p.unique && p.ppk.is_none());
}

#[test]
fn every_key_reaches_the_model() {
    let keys = r#"
remote = "192.0.2.7:4500"
local = "203.0.113.1"
local_id = ["gw.test", "vpn.test", "CN=gw.test, O=Lab"]
inner_remote = ["10.1.0.0/16", "2001:db8:7::/48"]
pool = ["terminals"]
dns = "10.99.0.53"
domains = ["example.org"]
lifetime = { ike = "2h", child = "10m", authentication = "1h", packets = 1000, bytes = "4KiB" }
liveness = "none"
mobike = false
roam = "notify"
encap = "udp"
allow_nat = false
fragment = "none"
path_mtu_probing = "always"
ppk = { id = "ppk-1", file = "ppk", required = true }
unique = false
window = 128
mtu = 1400
outer_fragments = true
[[connection.child]]
name = "voice"
mode = "transport"
[ike]
key_log = "keys"
crash_secret_file = "secret"
cookie_threshold = 0
half_open = 10
half_open_time = "1m"
peers = 20
devices = 3
children = 30
"#;
    let folder = Folder::new();
    let ike = folder.parse(&connection(keys)).unwrap().ike;
    let [keys, secret] = ["keys", "secret"].map(|name| Some(folder.0.path().join(name)));
    assert_eq!((ike.key_log, ike.crash_secret_file), (keys, secret));
    assert_eq!((ike.cookie_threshold, ike.half_open), (0, 10));
    assert_eq!(ike.half_open_time, Duration::from_secs(60));
    assert_eq!((ike.peers, ike.devices, ike.children), (20, 3, 30));
    let c = &ike.connections[0];
    let limits = Limits { soft_packets: 1000, hard_packets: 1250, soft_bytes: 4096, hard_bytes: 5120 };
    assert_eq!((c.window, c.mtu, c.limits), (128, Some(1400), limits));
    assert!(c.outer_fragments);
    let p = &c.protocol;
    assert_eq!(p.remote, [Remote::At(SocketAddr::from(([192, 0, 2, 7], 4500)))]);
    assert_eq!((&p.local[..], &p.local_id), (&[ip("203.0.113.1")][..], &id("gw.test")));
    assert_eq!(p.other_local_ids, [id("vpn.test"), id("CN=gw.test,O=Lab")]);
    assert_eq!(p.children.len(), 2);
    let remote =
        [range("10.1.0.0", "10.1.255.255"), range("2001:db8:7::", "2001:db8:7:ffff:ffff:ffff:ffff:ffff")];
    assert_eq!(p.children[0].remote, remote);
    let voice = &p.children[1];
    assert_eq!((&voice.name[..], voice.transport, voice.local.len()), ("voice", true, 0));
    assert_eq!(
        (&p.pools[..], &p.dns[..], &p.domains[..]),
        (&[0][..], &[ip("10.99.0.53")][..], &["example.org".into()][..])
    );
    assert_eq!((p.lifetimes.ike_sa.as_secs(), p.lifetimes.child.as_secs()), (7200, 600));
    assert_eq!(p.lifetimes.authentication, Some(Duration::from_secs(3600)));
    assert_eq!((p.liveness, p.fragment, p.roam), (None, None, RoamPolicy::Notify));
    assert_eq!(p.path_probing, PathProbing::Always);
    assert!(!p.mobike && p.force_udp && p.no_nats && !p.unique);
    let ppk = p.ppk.as_ref().unwrap();
    assert_eq!((&ppk.id[..], &ppk.secret.0[..], ppk.required), (&b"\x02ppk-1"[..], &[0xab; 32][..], true));
}

#[test]
fn only_given_children_make_child_sas() {
    let child = "[[connection.child]]\nname = \"a\"\ninner_local = \"10.97.0.0/16\"\n";
    let text = changed("inner_local = [\"10.99.0.0/24\"]\n", child);
    let ike = parsed(&text);
    let names: Vec<&str> = ike.connections[0].protocol.children.iter().map(|c| &c.name[..]).collect();
    assert_eq!(names, ["a"]);
    let again = CONNECTION.split_once("[[connection]]").unwrap().1.replace('$', "");
    let twice = error(&format!("{}[[connection]]{again}", connection("")));
    assert_eq!(after_place(&twice), "connection.name = \"office\": already used in line 15");
}

#[test]
fn refuses_more_prefixes_than_a_child_sa_may_have() {
    let list = |first: u8, count: u8| {
        let all: Vec<String> = (0..count).map(|n| format!("\"10.{first}.{n}.0/24\"")).collect();
        all.join(", ")
    };
    let local = |count| changed("\"10.99.0.0/24\"", &list(99, count));
    let many = (0..300).map(|n| format!("\"10.{}.{}.0/24\"", n / 256, n % 256)).collect::<Vec<_>>();
    let most = parsed(&local(255));
    assert_eq!(most.connections[0].protocol.children[0].local.len(), 255);
    let line = error(&changed("\"10.99.0.0/24\"", &many.join(", ")));
    assert!(line.ends_with("must not have more than 255 items"), "{line}");
    let both = |count| format!("{}inner_remote = [{}]\n", local(count), list(98, 20));
    assert_eq!(parsed(&both(12)).connections[0].protocol.children[0].remote.len(), 20);
    let line = error(&both(20));
    assert_eq!(after_place(&line), "connection: has more than 256 pairs of local and remote prefixes");
    let child = |n: usize| {
        let keys = format!("inner_local = [{}]\ninner_remote = \"10.97.0.0/16\"", list(n as u8, 200));
        format!("[[connection.child]]\nname = \"{n}\"\n{keys}\n")
    };
    let text = |count| format!("{}{}", connection(""), (0..count).map(child).collect::<String>());
    assert_eq!(parsed(&text(2)).connections[0].protocol.children.len(), 3);
    let line = error(&text(3));
    assert!(line.ends_with("its child SAs have more than 512 pairs of local and remote prefixes together"));
    let child = |n| format!("[[connection.child]]\nname = \"{n}\"\ninner_local = \"10.97.0.0/16\"\n");
    let line = error(&format!("{}{}", connection(""), (0..64).map(child).collect::<String>()));
    assert!(line.ends_with("has more than 64 child SAs"), "{line}");
}

#[test]
fn refuses_inner_local_with_a_requested_address() {
    let asks = "remote = \"192.0.2.7\"\nrequest_address = true";
    let line = error_of(asks);
    assert_eq!(
        line,
        "connection.inner_local = [\"10.99.0.0/24\"]: has no meaning with request_address = true"
    );
    let ike = parsed(&changed("inner_local = [\"10.99.0.0/24\"]", asks));
    let p = &ike.connections[0].protocol;
    assert_eq!(p.remote, [Remote::At(SocketAddr::from(([192, 0, 2, 7], 500)))]);
    assert_eq!((p.ask_address, p.children[0].local.len()), (true, 0));
    let everything =
        [range("0.0.0.0", "255.255.255.255"), range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")];
    assert_eq!(p.children[0].remote, everything);
    assert_eq!(
        error_of("request_address = true"),
        "connection.request_address = true: request_address needs a peer with a fixed address"
    );
}

#[test]
fn pools_are_prefixes_or_ranges() {
    let pool = |addresses: &str| {
        let text = format!("{PORTS}[[pool]]\nname = \"a\"\naddresses = \"{addresses}\"\n");
        Folder::new().parse(&text).map(|config| {
            let PoolRange { first, last, .. } = config.ike.pools[0].clone();
            (first.to_string(), last.to_string())
        })
    };
    for (text, first, last) in [
        ("10.98.0.0/24", "10.98.0.1", "10.98.0.254"),
        ("10.98.0.0/31", "10.98.0.0", "10.98.0.1"),
        ("10.98.0.7", "10.98.0.7", "10.98.0.7"),
        ("10.98.0.10 - 10.98.0.99", "10.98.0.10", "10.98.0.99"),
        ("2001:db8:98::/127", "2001:db8:98::", "2001:db8:98::1"),
        ("2001:db8:98::/120", "2001:db8:98::1", "2001:db8:98::ff"),
        ("2001:db8:98::9", "2001:db8:98::9", "2001:db8:98::9"),
    ] {
        assert_eq!(pool(text), Ok((first.into(), last.into())), "{text}");
    }
    for (text, why) in [
        ("terminals", "must be a prefix like \"10.98.0.0/24\" or a range like \"10.98.0.10-10.98.0.99\""),
        (
            "10.98.0.9-10.98.0.1",
            "must be a prefix like \"10.98.0.0/24\" or a range like \"10.98.0.10-10.98.0.99\"",
        ),
        ("10.98.0.9-::1", "must be a prefix like \"10.98.0.0/24\" or a range like \"10.98.0.10-10.98.0.99\""),
        ("10.98.0.1/24", "bits are set beyond the prefix length"),
        ("10.99.0.0/24", "holds 10.99.0.1, the gateway's own address"),
        ("::/0", "holds 2001:db8::1, the gateway's own address"),
    ] {
        let error = pool(text).unwrap_err().to_string();
        assert!(error.ends_with(&format!("x.toml:12: pool.addresses = \"{text}\": {why}")), "{error}");
    }
    let two = "[[pool]]\nname = \"a\"\naddresses = \"10.0.0.0/16\"\n[[pool]]\nname = \"b\"\naddresses = \"10.0.7.0/24\"\n";
    assert_eq!(
        error_with_ports(two),
        "x.toml:15: pool.addresses = \"10.0.7.0/24\": overlaps the pool of line 12"
    );
    let same = two.replace("\"b\"", "\"a\"").replace("10.0.7.0", "10.1.7.0");
    assert_eq!(error_with_ports(&same), "x.toml:14: pool.name = \"a\": already used in line 11");
}

#[test]
fn radius_servers_may_send_requests_if_configured() {
    let coa = |keys: &str| format!("{PORTS}[coa]\n{keys}\n");
    let client = "clients = [{ address = \"10.0.0.5\", secret_file = \"psk\" }]";
    assert!(parsed(PORTS).coa.is_none());
    let listens = format!("listen = \"0.0.0.0:3799\"\n{client}");
    let strict = parsed(&coa(&format!("{listens}\nrequire_event_timestamp = true"))).coa.unwrap();
    assert!(strict.needs_time);
    let parsed = parsed(&coa(&listens)).coa.unwrap();
    assert_eq!((parsed.listen.port(), parsed.clients[0].address), (3799, ip("10.0.0.5")));
    assert!(!parsed.needs_time);
    for (keys, why) in [
        (
            &format!("listen = \"10.0.0.1\"\n{client}")[..],
            "coa.listen = \"10.0.0.1\": must be \"address:port\"",
        ),
        ("listen = \"10.0.0.1:3799\"\nclients = []", "coa.clients = []: must not be empty"),
        (
            "listen = \"10.0.0.1:3799\"\nclients = [{ address = \"0.0.0.0\", secret_file = \"psk\" }]",
            "coa.clients.address = \"0.0.0.0\": must be a unicast address",
        ),
        ("listen = \"10.0.0.1:3799\"", "coa: missing key \"clients\""),
        (
            &format!("listen = \"0.0.0.0:0\"\n{client}"),
            "coa.listen = \"0.0.0.0:0\": must be \"address:port\"",
        ),
        (
            "listen = \"10.0.0.1:3799\"\nclients = [{ address = \"10.0.0.5\", secret_file = \"psk\" }, { address = \"10.0.0.5\", secret_file = \"in\" }]",
            "coa.clients.address = \"10.0.0.5\": already used in line 12",
        ),
    ] {
        assert_eq!(after_place(&error(&coa(keys))), why);
    }
}

#[test]
fn peers_have_addresses_and_host_names_with_or_without_ports() {
    let remote =
        |text: &str| parsed(&connection(&format!("remote = {text}"))).connections.remove(0).protocol.remote;
    let at = |text: &str| Remote::At(text.parse().unwrap());
    let named = |name: &str, port| Remote::Named(name.into(), port);
    assert_eq!(remote("\"any\""), []);
    assert_eq!(remote("[\"any\"]"), []);
    assert_eq!(remote("\"vpn.example.org\""), [named("vpn.example.org", 500)]);
    let list = ["192.0.2.7", "vpn:24500", "[2001:db8::7]:4500", "2001:db8::8", "3com.com"];
    assert_eq!(
        remote(&format!("{list:?}")),
        [
            at("192.0.2.7:500"),
            named("vpn", 24500),
            at("[2001:db8::7]:4500"),
            at("[2001:db8::8]:500"),
            named("3com.com", 500)
        ]
    );
    let why = "must be \"any\", or addresses and host names, each with or without a port, like \"192.0.2.1\", \"gw.example.org:4500\" or \"[2001:db8::1]:4500\"";
    for wrong in ["", "gw test", "gw.test:0", "gw.test:65536", "gw.test:", "192.0.2.256", "192.0.2", "12"] {
        let line = error_of(&format!("remote = \"{wrong}\""));
        assert_eq!(line, format!("connection.remote = \"{wrong}\": {why}"));
    }
    for wrong in ["2001:db8::g", "gw..test", "any:500x", "gw.test:500:500"] {
        assert!(error_of(&format!("remote = \"{wrong}\"")).ends_with(why), "{wrong}");
    }
    let nine: Vec<String> = (0..9).map(|n| format!("gw{n}.test")).collect();
    let line = error_of(&format!("remote = {nine:?}"));
    assert!(line.ends_with(": must not have more than 8 items"), "{line}");
}

#[test]
fn peer_with_a_host_name_needs_an_identity() {
    let of = |keys: &str| {
        let text = changed("remote_id = \"cl.test\"\n", &format!("{keys}\n"));
        error(&text)
    };
    let line = of("remote = \"gw.test\"\nremote_id = \"any\"");
    assert!(line.ends_with("only its identity tells it from others"), "{line}");
    assert!(line.contains("connection.remote_id = \"any\""), "{line}");
}

#[test]
fn single_keys() {
    for (keys, wanted) in [
        ("local = \"192.0.2.1\"", "connection.local = \"192.0.2.1\": no [[port]] has this address"),
        ("local = []", "connection.local = []: must not be empty"),
        (
            "remote = \"2001:db8::7\"\nlocal = \"203.0.113.1\"",
            "connection.local = \"203.0.113.1\": one address is IPv4, the other IPv6",
        ),
        ("remote = \"10.99.0.1\"", "connection.remote = \"10.99.0.1\": is the gateway's own address"),
        (
            "remote = [\"192.0.2.7\", \"10.99.0.1\"]",
            "connection.remote = [\"192.0.2.7\", \"10.99.0.1\"]: is the gateway's own address",
        ),
        ("remote = []", "connection.remote = []: must not be empty"),
        (
            "remote = [\"any\", \"192.0.2.7\"]",
            "connection.remote = [\"any\", \"192.0.2.7\"]: \"any\" must be the only item",
        ),
        ("remote = \"0.0.0.0\"", "connection.remote = \"0.0.0.0\": must be a unicast address"),
        (
            "local = \"203.0.113.1\"\nremote = [\"192.0.2.7\", \"2001:db8::7\"]",
            "connection.local = \"203.0.113.1\": one address is IPv4, the other IPv6",
        ),
        (
            "local_id = \"a b\"",
            "connection.local_id = \"a b\": must be an address, a domain name, a mail address, a distinguished name such as \"CN=gw.example.org, O=Example\", or \"@#\" and hexadecimal digits",
        ),
        (
            "local_id = \"certificate-subject\"",
            "connection.local_id = \"certificate-subject\": needs the key \"certificate\"",
        ),
        (
            "pool = \"terminal\"",
            "connection.pool = \"terminal\": no [[pool]] has this name; did you mean \"terminals\"?",
        ),
        ("dns = \"0.0.0.0\"", "connection.dns = \"0.0.0.0\": must be a unicast address"),
        ("domains = \"a..b\"", "connection.domains = \"a..b\": must be a domain name like \"example.org\""),
        (
            "lifetime = { ike = \"8\" }",
            "connection.lifetime.ike = \"8\": must be a time above zero, like \"500ms\", \"30s\", \"5m\", \"1h\"",
        ),
        (
            "lifetime = { authentication = \"59m\" }",
            "connection.lifetime.authentication = \"59m\": must be at least \"1h\"",
        ),
        ("lifetime = { packets = 0 }", "connection.lifetime.packets = 0: must be at least 1"),
        (
            "lifetime = { bytes = 0 }",
            "connection.lifetime.bytes = 0: must be a number of bytes, like 1500, \"64KiB\", \"1GiB\"",
        ),
        (
            "liveness = \"never\"",
            "connection.liveness = \"never\": must be a time above zero, like \"500ms\", \"30s\", \"5m\", \"1h\"",
        ),
        ("fragment = 100", "connection.fragment = 100: must be from 1280 to 65472"),
        ("window = 1", "connection.window = 1: must be from 64 to 65536"),
        ("mtu = 100", "connection.mtu = 100: must be from 1280 to 65472"),
        ("encap = \"none\"", "connection.encap = \"none\": must be \"auto\" or \"udp\""),
        (
            "roam = \"folow\"",
            "connection.roam = \"folow\": must be \"follow\" or \"notify\" or \"ignore\" or \"home_agent\"; did you mean \"follow\"?",
        ),
        (
            "mode = \"transport\"",
            "connection.inner_local = [\"10.99.0.0/24\"]: has no meaning with mode = \"transport\"",
        ),
        (
            "ppk = { id = \"\", file = \"ppk\" }",
            "connection.ppk.id = \"\": must be 1 to 64 bytes of letters, digits and punctuation",
        ),
        (
            "ppk = { id = \"a\", file = \"none\" }",
            "connection.ppk.file = \"none\": key file cannot be read: entity not found",
        ),
        ("ppk = { id = \"a\" }", "connection.ppk: missing key \"file\""),
        ("inner_remot = []", "connection: unknown key \"inner_remot\"; did you mean \"inner_remote\"?"),
        (
            "[[connection.child]]\nname = \"a\"",
            "connection.child: missing key \"inner_local\", which tunnel mode without request_address needs",
        ),
        (
            "[[connection.child]]\nname = \"office\"",
            "connection.child.name = \"office\": already used in line 15",
        ),
        ("[ike]\nhalf_open = 0", "ike.half_open = 0: must be from 1 to 16777216"),
        ("[ike]\ncookie_threshold = -1", "ike.cookie_threshold = -1: must be from 0 to 16777216"),
        (
            "[gateway]\nencap_ports = [443]",
            "gateway.encap_ports = [443]: must contain 4500, which every [[connection]] needs (RFC 7296 §2.23)",
        ),
    ] {
        let error = error_of(keys);
        assert!(error.starts_with(wanted), "{keys}: {error}");
    }
    let line = error(&changed("inner_local = [\"10.99.0.0/24\"]\n", ""));
    assert_eq!(
        line,
        "x.toml:14: connection: missing key \"inner_local\", which tunnel mode without request_address needs"
    );
    let again = CONNECTION.split_once("[[connection]]").unwrap().1.replace('$', "");
    let twice = error(&format!("{}[[connection]]{again}", connection("")));
    assert_eq!(after_place(&twice), "connection.name = \"office\": already used in line 15");
}

/// Values of many types, for any key.
const ODD: [&str; 13] = [
    "",
    "\"",
    "-1 ",
    "any",
    "[[",
    "*",
    "$",
    "${",
    "\u{1f980}",
    "::/0\"",
    "@#",
    "ke1_",
    "{ local = \"psk\" }",
];

#[test]
fn any_change_of_a_connection_is_taken_or_refused_in_one_line() {
    let words = connection(
        "remote = \"192.0.2.7\"\nproposals = \"aes256gcm16-prfsha384-x25519-ke1_mlkem768\"\nlifetime = { ike = \"1h\" }",
    );
    let words: Vec<String> = words.split_inclusive(['\n', ' ', '"', '-', '.']).map(str::to_owned).collect();
    let folder = Folder::new();
    folder.parse(&words.concat()).expect("the connection without a change");
    for at in 0..words.len() {
        for odd in ODD {
            let mut words = words.clone();
            words[at] = odd.to_owned();
            if let Err(why) = folder.parse(&words.concat()) {
                assert_eq!(why.to_string().lines().count(), 1, "{why}");
            }
        }
    }
}
