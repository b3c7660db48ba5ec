//! Configurations that are accepted, and the model that results.

mod diff;
mod dpdk;
mod home_agent;
mod ike;
mod nat;
mod neighbours;
mod refused;
mod siu;
mod texts;
mod vlans;
mod warnings;

use super::{model::*, *};
use std::{fs, net::IpAddr, path::PathBuf, time::Duration};
use tempfile::TempDir;
use wayfarer_dataplane::sa::{Df, Limits, Mode, PortRange};

const PORTS: &str = r#"
[[port]]
name = "outside"
device = "eth0"
addresses = ["203.0.113.1/24", "2001:db8::1/64"]
[[port]]
name = "inside"
device = "eth1"
addresses = ["10.99.0.1/24"]
"#;

/// A tunnel. `$` is a place for more keys.
const TUNNEL: &str = r#"
[[tunnel]]
name = "alice"
local = "203.0.113.1"
remote = "any"
inner_local = ["10.99.0.0/24"]
inner_remote = ["10.98.0.7/32"]
$
inbound = { spi = 0x1001, cipher = "aes128gcm16", key_file = "in" }
outbound = { spi = 0x2001, cipher = "aes128gcm16", key_file = "out" }
"#;

/// A folder with key files, in which configurations are read.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("in", "11".repeat(20).as_bytes());
        folder.write("out", &[0xfe; 20]);
        folder.write("psk", b"lab-psk-0123456789\n");
        folder.write("ppk", format!("0x{}\n", "ab".repeat(32)).as_bytes());
        folder.write("password", b"wonderland\n");
        folder.write("users", b"alice = \"wonderland\"\n");
        folder.write("bad-users", b"alice = \"wonderland\"\nbob = wonderland\n");
        folder.write("no-password", b"bob = \"\"\n");
        folder.write("same-user", b"alice = \"a\"\nAlice = \"b\"\n");
        folder.write("empty", b"\n");
        folder.write("odd", b"0x123\n");
        folder.write("long", &[b'x'; 4097]);
        folder
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    fn parse(&self, text: &str) -> Result<Config, ConfigError> {
        parse(text, &self.0.path().join("x.toml"))
    }

    /// Returns the error line as a user reads it, without the name of the folder.
    fn error(&self, text: &str) -> String {
        let error = self.parse(text).expect_err(text).to_string();
        error.strip_prefix(&format!("{}/", self.0.path().display())).expect("the file's name").to_owned()
    }
}

fn error(text: &str) -> String {
    Folder::new().error(text)
}

/// Returns the error of a configuration with the ports and `text`.
fn error_with_ports(text: &str) -> String {
    error(&format!("{PORTS}{text}"))
}

/// Returns a configuration with the ports and a tunnel with more `keys`.
fn tunnel(keys: &str) -> String {
    format!("{PORTS}{}", TUNNEL.replace('$', keys))
}

/// Returns the tunnel, with `from` replaced by `to`.
fn changed(from: &str, to: &str) -> String {
    let text = tunnel("");
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

fn line_of(text: &str, part: &str) -> usize {
    text.lines().position(|line| line.contains(part)).unwrap() + 1
}

#[test]
fn workers_remember_a_power_of_two_of_flows_or_none() {
    for (keys, flows) in [
        ("", Some(1 << 14)),
        ("flow_cache = 0", Some(0)),
        ("flow_cache = 1", Some(4)),
        ("flow_cache = 5", Some(8)),
        ("flow_cache = 16777216", Some(1 << 24)),
        ("flow_cache = 16777217", None),
        ("tunnels = 20000", Some(1 << 16)),
        ("tunnels = 1048576", Some(1 << 18)),
    ] {
        let text = format!("[gateway]\n{keys}\n{PORTS}");
        let config = Folder::new().parse(&text).ok();
        assert_eq!(config.map(|config| config.gateway.flow_cache), flows, "{keys}");
    }
}

#[test]
fn path_of_a_tunnel_is_probed_as_its_key_says() {
    for (key, wanted) in
        [("off", PathProbing::Off), ("udp", PathProbing::Udp), ("always", PathProbing::Always)]
    {
        let config = Folder::new().parse(&tunnel(&format!("path_mtu_probing = \"{key}\""))).unwrap();
        assert_eq!(config.tunnels[0].path_probing, wanted);
    }
}

#[test]
fn defaults_are_filled_in() {
    let config = Folder::new().parse(&tunnel("")).unwrap();
    let gateway = &config.gateway;
    assert_eq!(gateway.control.as_deref(), Some(Path::new("/run/wayfarer/gateway.sock")));
    assert_eq!((gateway.workers.as_ref(), gateway.idle_sleep), (None, None));
    assert_eq!((gateway.frames, gateway.frame_size, gateway.tunnels), (16_384, None, 1024));
    assert_eq!(
        (&gateway.encap_ports[..], gateway.kernel_routes, gateway.mss_clamp),
        (&[4500][..], false, true)
    );
    assert_eq!(config.ports[1].kind, PortKind::Auto { device: "eth1".into() });
    let (own, subnet) = config.ports[0].addresses[0];
    assert_eq!((own.to_string(), subnet.to_string()), ("203.0.113.1".into(), "203.0.113.0/24".into()));
    let tunnel = &config.tunnels[0];
    assert_eq!((tunnel.mode, tunnel.remote, tunnel.encap), (Mode::Tunnel, Remote::Any, Encapsulation::None));
    assert_eq!(
        (tunnel.roam, tunnel.pin_source, tunnel.window, tunnel.esn),
        (Roam::Follow, false, 1024, false)
    );
    assert_eq!((tunnel.dscp, tunnel.df, tunnel.tfc, tunnel.mtu), (None, Df::Copy, 0, None));
    assert_eq!((tunnel.outer_fragments, tunnel.path_probing), (false, PathProbing::Udp));
    assert_eq!((tunnel.udp6_checksum, tunnel.keepalive, tunnel.limits), (true, None, Limits::NONE));
    assert_eq!((tunnel.soft_time, tunnel.hard_time), (None, None));
    assert_eq!(tunnel.selectors.len(), 1);
    assert_eq!((&tunnel.inbound.key[..], &tunnel.outbound.key[..]), (&[0x11; 20][..], &[0xfe; 20][..]));
}

#[test]
fn every_key_reaches_the_model() {
    let text = r#"
[gateway]
workers = [2, 3]
control = "none"
idle = "50us"
encap_ports = [4500, 443]
routes = "kernel"
mss_clamp = false
frames = 4096
frame_size = "4KiB"
tunnels = 5000
"#;
    let keys = r#"
local_port = 443
protocol = "udp"
local_ports = "1000-2000"
remote_ports = 53
roam = "notify"
pin_source = true
window = 65536
esn = true
dscp = 46
df = "set"
tfc = "1KiB"
mtu = 1400
outer_fragments = true
udp6_checksum = false
keepalive = "20s"
lifetime = { soft_packets = 5, hard_packets = 6, soft_bytes = "1GiB", hard_bytes = "1TiB", soft_time = "5m", hard_time = "1h" }
"#;
    let tunnel = tunnel(keys).replace("\"any\"", "\"192.0.2.7:4501\"");
    let config = Folder::new().parse(&format!("{text}{tunnel}")).unwrap();
    let g = &config.gateway;
    assert_eq!((g.workers.as_deref(), g.control.as_ref()), (Some(&[2, 3][..]), None));
    assert_eq!((g.idle_sleep, &g.encap_ports[..]), (Some(Duration::from_micros(50)), &[4500, 443][..]));
    assert_eq!((g.kernel_routes, g.mss_clamp), (true, false));
    assert_eq!((g.frames, g.frame_size, g.tunnels), (4096, Some(4096), 5000));
    let few =
        format!("{text}{tunnel}{}", TUNNEL.replace('$', "").replace("alice", "bob").replace("1001", "1002"));
    let few = Folder::new().parse(&few.replace("tunnels = 5000", "tunnels = 1")).unwrap();
    assert_eq!(few.gateway.tunnels, 2, "room for those of the file");
    let t = &config.tunnels[0];
    assert_eq!(t.remote, Remote::At(IpAddr::from([192, 0, 2, 7]), 4501));
    assert_eq!((t.encap, t.roam, t.pin_source), (Encapsulation::Udp(443), Roam::Notify, true));
    let s = &t.selectors[0];
    assert_eq!((s.protocol, s.local_ports.first, s.local_ports.last), (Some(17), 1000, 2000));
    assert_eq!(s.remote_ports, PortRange { first: 53, last: 53 });
    assert_eq!(
        (t.window, t.esn, t.dscp, t.df, t.tfc, t.mtu),
        (65536, true, Some(46), Df::Set, 1024, Some(1400))
    );
    assert!(t.outer_fragments);
    let cut = Folder::new().parse(&format!("{text}{}", tunnel.replace("df = \"set\"\n", ""))).unwrap();
    assert_eq!(cut.tunnels[0].df, Df::Clear, "routers may cut what we may");
    assert_eq!((t.udp6_checksum, t.keepalive), (false, Some(Duration::from_secs(20))));
    let limits = Limits { soft_packets: 5, hard_packets: 6, soft_bytes: 1 << 30, hard_bytes: 1 << 40 };
    assert_eq!(t.limits, limits);
    assert_eq!((t.soft_time, t.hard_time), (Some(Duration::from_secs(300)), Some(Duration::from_secs(3600))));
}

#[test]
fn refuses_configurations_that_could_not_start() {
    let file = "[gateway]\nworkers = [0, 1]\n[[port]]\nname = \"a\"\nkind = \"pcap\"\ninput = \"x\"\n";
    assert_eq!(
        error(file),
        "x.toml:2: gateway.workers = [0, 1]: must be one core, because port a has only one queue"
    );
    let nic = "[[port]]\nname = \"a\"\ndevice = \"eth0\"\nmac = \"02:00:00:00:00:01\"\n";
    assert_eq!(error(nic), "x.toml:4: port.mac = \"02:00:00:00:00:01\": has no meaning with kind = \"auto\"");
    let ports: Vec<u16> = (4500..4517).collect();
    let many = format!("[gateway]\nencap_ports = {ports:?}\n");
    assert!(error(&many).ends_with("must not have more than 16 items"), "{}", error(&many));
    let sequence = changed("cipher = \"aes128gcm16\"", "sequence = 0x100000000, cipher = \"aes128gcm16\"");
    assert!(error(&sequence).ends_with("must be from 0 to 4294967295"), "{}", error(&sequence));
}

#[test]
fn kinds_of_ports() {
    let text = r#"
[[port]]
name = "a"
kind = "pcap"
input = "in.pcap"
output = "/out.pcap"
[[port]]
name = "b"
kind = "generator"
input = "${CARGO_PKG_NAME}.pcap"
count = 5
[[port]]
name = "c"
kind = "sink"
mtu = 9000
mac = "02:00:00:00:00:0a"
[[port]]
name = "d"
kind = "af_xdp"
device = "eth0"
optional = true
[[port]]
name = "e"
device = "eth1"
optional = true
"#;
    let folder = Folder::new();
    let ports = folder.parse(text).unwrap().ports;
    let at = |name: &str| folder.0.path().join(name);
    let (input, output) = (Some(at("in.pcap")), Some(PathBuf::from("/out.pcap")));
    assert_eq!(ports[0].kind, PortKind::Pcap { input, output });
    assert_eq!(ports[1].kind, PortKind::Generator { input: at("wayfarer.pcap"), count: Some(5) });
    assert_eq!(
        (&ports[2].kind, ports[2].mtu, ports[2].mac),
        (&PortKind::Sink, Some(9000), Some([2, 0, 0, 0, 0, 10]))
    );
    assert_eq!(ports[3].kind, PortKind::AfXdp { device: "eth0".into() });
    assert_eq!(
        ports.iter().map(|port| port.is_optional).collect::<Vec<_>>(),
        [false, false, false, true, true]
    );
}

#[test]
fn paths_may_have_variables() {
    let port = |path: &str| {
        let text = format!("[[port]]\nname = \"a\"\nkind = \"pcap\"\ninput = \"{path}\"\n");
        let environment = |name: &str| ["A", "B_2"].contains(&name).then(|| format!("<{name}>"));
        parse_with(&text, Path::new("/x.toml"), &environment).map(|config| config.ports[0].kind.clone())
    };
    for (written, meant) in [
        ("$A/x", "/<A>/x"),
        ("${A}x", "/<A>x"),
        ("$B_2.pcap", "/<B_2>.pcap"),
        ("x$A$B_2", "/x<A><B_2>"),
        ("/a/${B_2}/$A", "/a/<B_2>/<A>"),
    ] {
        assert_eq!(
            port(written),
            Ok(PortKind::Pcap { input: Some(meant.into()), output: None }),
            "{written}"
        );
    }
    for (written, why) in [
        ("$C/x", "environment variable \"C\" is not set"),
        ("$Ax", "environment variable \"Ax\" is not set"),
        ("${A", "\"${\" needs a closing \"}\""),
        ("a$", "environment variable \"\" is not set"),
    ] {
        assert_eq!(
            port(written).unwrap_err().to_string(),
            format!("/x.toml:4: port.input = \"{written}\": {why}")
        );
    }
}

#[test]
fn routes_lead_to_the_port_of_their_router() {
    let routes = |text: &str| Folder::new().parse(&format!("{PORTS}{text}")).unwrap().routes;
    let found = routes("[[route]]\nto = \"0.0.0.0/0\"\nvia = \"10.99.0.9\"\n");
    let (to, via) = ("0.0.0.0/0".parse().unwrap(), Some(IpAddr::from([10, 99, 0, 9])));
    assert_eq!(found, [Route { to, via, port: 1 }]);
    let found = routes("[[route]]\nto = \"2001:db8:7::/48\"\nvia = \"fe80::1\"\nport = \"inside\"\n");
    assert_eq!((found[0].port, found[0].via), (1, "fe80::1".parse().ok()));
    let found = routes("[[route]]\nto = \"10.1.0.0/16\"\nport = \"outside\"\n");
    assert_eq!((found[0].port, found[0].via), (0, None));
    // The longest subnet counts.
    let ports = PORTS.replace("203.0.113.1/24", "10.99.7.1/24").replace("10.99.0.1/24", "10.99.0.1/16");
    let route = "[[route]]\nto = \"0.0.0.0/0\"\nvia = \"10.99.7.9\"\n";
    assert_eq!(Folder::new().parse(&format!("{ports}{route}")).unwrap().routes[0].port, 0);
}

#[test]
fn transport_mode_covers_the_two_hosts() {
    let inner = "inner_local = [\"10.99.0.0/24\"]\ninner_remote = [\"10.98.0.7/32\"]";
    let text =
        |remote: &str| changed(inner, "mode = \"transport\"\nprotocol = \"gre\"").replace("\"any\"", remote);
    let config = Folder::new().parse(&text("\"192.0.2.7\"")).unwrap();
    let tunnel = &config.tunnels[0];
    assert_eq!(
        (tunnel.mode, tunnel.selectors.len(), tunnel.selectors[0].protocol),
        (Mode::Transport, 1, Some(47))
    );
    assert_eq!(
        error(&text("\"192.0.2.7\"").replace("protocol =", "tfc = 64\nprotocol =")),
        "x.toml:16: tunnel.tfc = 64: has no meaning with mode = \"transport\""
    );
    let hosts = (tunnel.selectors[0].local.to_string(), tunnel.selectors[0].remote.to_string());
    assert_eq!(hosts, ("203.0.113.1/32".into(), "192.0.2.7/32".into()));
    assert_eq!(
        error(&text("\"any\"")),
        "x.toml:14: tunnel.remote = \"any\": mode = \"transport\" needs a peer with a fixed address"
    );
}

#[test]
fn prefixes_pair_up_by_family() {
    let text = changed("[\"10.99.0.0/24\"]", "[\"10.99.0.0/24\", \"2001:db8:99::/64\", \"10.97.0.0/24\"]")
        .replace("[\"10.98.0.7/32\"]", "[\"10.98.0.7\", \"2001:db8:98::7\"]");
    let config = Folder::new().parse(&text).unwrap();
    let pairs: Vec<String> =
        config.tunnels[0].selectors.iter().map(|s| format!("{} {}", s.local, s.remote)).collect();
    let wanted =
        ["10.99.0.0/24 10.98.0.7/32", "2001:db8:99::/64 2001:db8:98::7/128", "10.97.0.0/24 10.98.0.7/32"];
    assert_eq!(pairs, wanted);
}

#[test]
fn encapsulation_follows_from_the_port() {
    let encap = |remote: &str| Folder::new().parse(&changed("\"any\"", remote)).unwrap().tunnels[0].encap;
    assert_eq!(encap("\"192.0.2.7\""), Encapsulation::None);
    assert_eq!(encap("\"192.0.2.7:9\""), Encapsulation::Udp(4500));
    assert_eq!(encap("\"any\"\nencap = \"udp\""), Encapsulation::Udp(4500));
    assert_eq!(encap("\"::ffff:192.0.2.7\""), Encapsulation::None);
    let text = format!("[gateway]\nencap_ports = [443]\n{}", changed("\"any\"", "\"192.0.2.7:9\""));
    let line = line_of(&text, "[[tunnel]]");
    assert_eq!(
        error(&text),
        format!(
            "x.toml:{line}: tunnel: missing key \"local_port\", which gateway.encap_ports without 4500 needs"
        )
    );
}

#[test]
fn policies_cover_both_directions() {
    let text = r#"
[[policy]]
action = "bypass"
local = "10.99.0.0/24"
remote = ["192.0.2.0/24", "2001:db8::/32"]
protocol = "tcp"
ports = 80
[[policy]]
action = "discard"
"#;
    let policies = Folder::new().parse(&format!("{PORTS}{text}")).unwrap().policies;
    let shown: Vec<String> = policies
        .iter()
        .map(|policy| {
            let s = &policy.selector;
            let (l, r) = (s.local_ports, s.remote_ports);
            format!(
                "{:?} {}:{}-{} {}:{}-{}",
                policy.action, s.local, l.first, l.last, s.remote, r.first, r.last
            )
        })
        .collect();
    let wanted = [
        "Bypass 10.99.0.0/24:0-65535 192.0.2.0/24:80-80",
        "Bypass 192.0.2.0/24:80-80 10.99.0.0/24:0-65535",
        "Discard 0.0.0.0/0:0-65535 0.0.0.0/0:0-65535",
        "Discard ::/0:0-65535 ::/0:0-65535",
    ];
    assert_eq!(shown, wanted);
    let line =
        error_with_ports("[[policy]]\naction = \"bypass\"\nlocal = \"10.0.0.0/8\"\nremote = \"::/0\"\n");
    assert_eq!(line, "x.toml:10: policy: local and remote have no prefixes of the same family");
}
