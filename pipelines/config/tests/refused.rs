//! Every rule, with the line that a user reads if it is broken.

use super::*;

#[test]
fn refuses_text_that_is_not_toml() {
    assert_eq!(
        error("a = \n"),
        "x.toml:1: not valid TOML: string values must be quoted, expected literal string"
    );
    assert!(
        error("[gateway]\nframes = 300\nframes = 300\n")
            .starts_with("x.toml:3: not valid TOML: duplicate key")
    );
    let missing = load(Path::new("/nonexistent/x.toml")).unwrap_err().to_string();
    assert_eq!(missing, "/nonexistent/x.toml: cannot be read: entity not found");
}

#[test]
fn keys_and_words() {
    assert_eq!(error("[gatway]\n"), "x.toml:1: unknown key \"gatway\"; did you mean \"gateway\"?");
    let text = tunnel("windw = 10");
    let line = line_of(&text, "windw");
    assert_eq!(
        error(&text),
        format!("x.toml:{line}: tunnel: unknown key \"windw\"; did you mean \"window\"?")
    );
    assert_eq!(error(&tunnel("elephant = 10")), format!("x.toml:{line}: tunnel: unknown key \"elephant\""));
    let text = tunnel("").replace("cipher = \"aes128gcm16\", key_file = \"in\"", "ciper = 1");
    let line = line_of(&text, "ciper");
    assert_eq!(
        error(&text),
        format!("x.toml:{line}: tunnel.inbound: unknown key \"ciper\"; did you mean \"cipher\"?")
    );
    assert_eq!(
        error("[[port]]\nname = \"a\"\nkind = \"af_xpd\"\n"),
        "x.toml:3: port.kind = \"af_xpd\": must be \"auto\" or \"af_xdp\" or \"af_packet\" or \"dpdk\" or \"tap\" \
         or \"pcap\" or \"generator\" or \"sink\"; did you mean \"af_xdp\"?"
    );
    assert_eq!(error("[[port]]\nkind = \"sink\"\n"), "x.toml:1: port: missing key \"name\"");
    assert_eq!(
        error("[gateway]\nframes = \"many\"\n"),
        "x.toml:2: gateway.frames = \"many\": must be an integer"
    );
    assert_eq!(error("[gateway]\nmss_clamp = 1\n"), "x.toml:2: gateway.mss_clamp = 1: must be a boolean");
    assert_eq!(
        error("[gateway]\nframe_size = true\n"),
        "x.toml:2: gateway.frame_size = true: must be an integer or a string"
    );
    assert_eq!(error("port = 5\n"), "x.toml:1: port = 5: must be a list");
}

#[test]
fn the_gateway() {
    let line = |key: &str| error(&format!("[gateway]\n{key}\n"));
    assert_eq!(line("workers = []"), "x.toml:2: gateway.workers = []: must not be empty");
    assert_eq!(line("workers = [-1]"), "x.toml:2: gateway.workers = [-1]: must be from 0 to 1023");
    assert_eq!(
        line("idle = \"5\""),
        "x.toml:2: gateway.idle = \"5\": must be a time above zero, like \"500ms\", \"30s\", \"5m\", \"1h\""
    );
    assert_eq!(line("encap_ports = [0]"), "x.toml:2: gateway.encap_ports = [0]: must be from 1 to 65535");
    assert_eq!(line("frames = 1"), "x.toml:2: gateway.frames = 1: must be from 256 to 16777216");
    assert_eq!(line("frame_size = 1536"), "x.toml:2: gateway.frame_size = 1536: must be from 1600 to 65472");
    assert_eq!(line("frame_size = 2000"), "x.toml:2: gateway.frame_size = 2000: must be a multiple of 64");
    assert_eq!(
        line("frame_size = \"2kb\""),
        "x.toml:2: gateway.frame_size = \"2kb\": must be a number of bytes, like 1500, \"64KiB\", \"1GiB\""
    );
    assert_eq!(line("tunnels = 0"), "x.toml:2: gateway.tunnels = 0: must be from 1 to 16777216");
    assert_eq!(line(""), "x.toml: missing key \"[[port]]\"");
}

#[test]
fn ports() {
    let line = |keys: &str| error(&format!("[[port]]\nname = \"a\"\n{keys}\n"));
    assert_eq!(line(""), "x.toml:1: port: missing key \"device\", which kind = \"auto\" needs");
    assert_eq!(line("kind = \"tap\""), "x.toml:1: port: missing key \"device\", which kind = \"tap\" needs");
    assert_eq!(line("kind = \"pcap\""), "x.toml:1: port: missing key \"input\", which kind = \"pcap\" needs");
    assert_eq!(
        line("kind = \"generator\""),
        "x.toml:1: port: missing key \"input\", which kind = \"generator\" needs"
    );
    assert_eq!(
        line("kind = \"sink\"\nhost = true"),
        "x.toml:4: port.host = true: has no meaning with kind = \"sink\""
    );
    let host = |name| format!("[[port]]\nname = \"{name}\"\nkind = \"pcap\"\ninput = \"i\"\nhost = true\n");
    assert_eq!(
        error(&format!("{}{}", host("a"), host("b"))),
        "x.toml:10: port.host = true: already used in line 5"
    );
    assert_eq!(
        line("kind = \"sink\"\ndevice = \"eth0\""),
        "x.toml:4: port.device = \"eth0\": has no meaning with kind = \"sink\""
    );
    // The gateway makes the device itself.
    assert_eq!(
        line("kind = \"tap\"\noptional = true\ndevice = \"wf0\""),
        "x.toml:4: port.optional = true: has no meaning with kind = \"tap\""
    );
    assert_eq!(
        line("kind = \"sink\"\ncount = 5"),
        "x.toml:4: port.count = 5: has no meaning with kind = \"sink\""
    );
    assert_eq!(
        line("device = \"a/b\""),
        "x.toml:3: port.device = \"a/b\": must be the name of a network device, at most 15 characters"
    );
    assert_eq!(
        line("kind = \"pcap\"\ninput = \"${NO_SUCH_VARIABLE}/a\""),
        "x.toml:4: port.input = \"${NO_SUCH_VARIABLE}/a\": environment variable \"NO_SUCH_VARIABLE\" is not set"
    );
    assert_eq!(
        line("kind = \"pcap\"\ninput = \"${a\""),
        "x.toml:4: port.input = \"${a\": \"${\" needs a closing \"}\""
    );
    assert_eq!(line("kind = \"sink\"\nmtu = 100"), "x.toml:4: port.mtu = 100: must be from 576 to 65472");
    assert_eq!(
        line("kind = \"sink\"\nmtu = 1279\naddresses = [\"2001:db8::1\"]"),
        "x.toml:4: port.mtu = 1279: must be from 1280 to 65472"
    );
    for mac in
        ["01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00", "02:00:00:00:00:+1", "02-00-00-00-00-01"]
    {
        assert_eq!(
            line(&format!("kind = \"sink\"\nmac = \"{mac}\"")),
            format!(
                "x.toml:4: port.mac = \"{mac}\": must be a unicast MAC address, like \"02:00:00:00:00:01\""
            )
        );
    }
    let address = |text: &str| line(&format!("kind = \"sink\"\naddresses = [\"{text}\"]"));
    let start = "x.toml:4: port.addresses = ";
    assert_eq!(address("10.0.0.256"), format!("{start}[\"10.0.0.256\"]: must be an IP address"));
    assert_eq!(
        address("10.0.0.1/x"),
        format!("{start}[\"10.0.0.1/x\"]: must be a prefix like \"10.0.0.0/8\" or an address")
    );
    assert_eq!(
        address("10.0.0.1/33"),
        format!(
            "{start}[\"10.0.0.1/33\"]: the prefix is longer than the address: at most /32 for IPv4, /128 for IPv6"
        )
    );
    assert_eq!(address("224.0.0.1/4"), format!("{start}[\"224.0.0.1/4\"]: must be a unicast address"));
    let again = |keys: &str| error_with_ports(&format!("[[port]]\n{keys}\n"));
    assert_eq!(
        again("name = \"inside\"\nkind = \"sink\""),
        "x.toml:11: port.name = \"inside\": already used in line 7"
    );
    assert_eq!(
        again("name = \"c\"\ndevice = \"eth0\""),
        "x.toml:12: port.device = \"eth0\": already used in line 4"
    );
    assert_eq!(
        again("name = \"c\"\nkind = \"sink\"\naddresses = [\"10.99.0.1/16\"]"),
        "x.toml:13: port.addresses = [\"10.99.0.1/16\"]: already used in line 9"
    );
    assert_eq!(
        again("name = \"a b\"\nkind = \"sink\""),
        "x.toml:11: port.name = \"a b\": must be 1 to 64 bytes of letters, digits and punctuation"
    );
}

#[test]
fn routes() {
    let line = |keys: &str| error_with_ports(&format!("[[route]]\n{keys}\n"));
    assert_eq!(
        line("to = \"10.0.0.1/8\""),
        "x.toml:11: route.to = \"10.0.0.1/8\": bits are set beyond the prefix length; did you mean \"10.0.0.0/8\"?"
    );
    assert_eq!(
        line("to = \"10.0.0.0/8\""),
        "x.toml:10: route: missing key \"via\", which a route without \"port\" needs"
    );
    let with = |keys: &str| line(&format!("to = \"10.0.0.0/8\"\n{keys}"));
    assert_eq!(
        with("via = \"192.0.2.1\""),
        "x.toml:12: route.via = \"192.0.2.1\": must be in a subnet of a [[port]], and of \"port\" if that is set"
    );
    assert_eq!(
        with("via = \"10.99.0.2\"\nport = \"outside\""),
        "x.toml:12: route.via = \"10.99.0.2\": must be in a subnet of a [[port]], and of \"port\" if that is set"
    );
    assert_eq!(
        with("via = \"2001:db8::9\""),
        "x.toml:12: route.via = \"2001:db8::9\": one address is IPv4, the other IPv6"
    );
    assert_eq!(
        with("via = \"10.99.0.1\""),
        "x.toml:12: route.via = \"10.99.0.1\": is the gateway's own address"
    );
    assert_eq!(with("port = \"insde\""), "x.toml:12: route.port = \"insde\": no [[port]] has this name");
    assert_eq!(
        with("port = \"inside\"\n[[route]]\nto = \"10.0.0.0/8\"\nport = \"outside\""),
        "x.toml:14: route.to = \"10.0.0.0/8\": already used in line 11"
    );
    assert_eq!(
        line("to = \"::/0\"\nvia = \"fe80::1\""),
        "x.toml:12: route.via = \"fe80::1\": must be in a subnet of a [[port]], and of \"port\" if that is set"
    );
}

#[test]
fn refuses_invalid_values_of_tunnel_keys() {
    let place = line_of(&tunnel("X"), "X");
    let line = |key: &str| error(&tunnel(key));
    let expect = |key: &str, rule: &str| {
        assert_eq!(line(key), format!("x.toml:{place}: tunnel.{key}: {rule}"));
    };
    expect("window = 10", "must be from 64 to 65536");
    expect("window = 65537", "must be from 64 to 65536");
    expect("dscp = 64", "must be \"copy\" or a number from 0 to 63");
    expect("df = \"on\"", "must be \"copy\" or \"set\" or \"clear\"");
    expect(
        "roam = \"folow\"",
        "must be \"follow\" or \"notify\" or \"ignore\" or \"home_agent\"; did you mean \"follow\"?",
    );
    expect("tfc = 70000", "must be from 0 to 65472");
    expect("mtu = 500", "must be from 576 to 65472");
    expect("keepalive = \"0s\"", "must be a time above zero, like \"500ms\", \"30s\", \"5m\", \"1h\"");
    expect("protocol = \"tpc\"", "must be tcp, udp, icmp, icmpv6, sctp, gre, ipip or a number from 0 to 255");
    expect("protocol = 256", "must be tcp, udp, icmp, icmpv6, sctp, gre, ipip or a number from 0 to 255");
    expect("local_ports = \"9-1\"", "must be a port or a range of ports, like 80 or \"1000-2000\"");
    expect("remote_ports = 65536", "must be a port or a range of ports, like 80 or \"1000-2000\"");
    expect("pin_source = true", "pin_source needs a peer with a fixed address");
    expect("local_port = 4500", "has no meaning with encap = \"none\"");
    assert_eq!(
        line("protocol = \"icmp\"\nlocal_ports = 80"),
        format!("x.toml:{}: tunnel.local_ports = 80: only tcp, udp and sctp have ports", place + 1)
    );
    assert_eq!(
        line("encap = \"udp\"\nlocal_port = 500"),
        format!(
            "x.toml:{}: tunnel.local_port = 500: must be one of gateway.encap_ports, or the peer's ESP would not be received",
            place + 1
        )
    );
    for (keys, key) in [
        ("soft_packets = 2, hard_packets = 1", "soft_packets = 2"),
        ("soft_bytes = \"2KiB\", hard_bytes = 1024", "soft_bytes = \"2KiB\""),
        ("soft_time = \"2m\", hard_time = \"119s\"", "soft_time = \"2m\""),
    ] {
        assert_eq!(
            line(&format!("lifetime = {{ {keys} }}")),
            format!("x.toml:{place}: tunnel.lifetime.{key}: the soft limit must not be above the hard limit")
        );
    }
    assert_eq!(
        line("lifetime = { hard_packets = 0 }"),
        format!("x.toml:{place}: tunnel.lifetime.hard_packets = 0: must be at least 1")
    );
}

#[test]
fn refuses_invalid_addresses_of_tunnels() {
    let line = |from: &str, to: &str| error(&changed(from, to));
    let any = "\"any\"";
    assert_eq!(
        line("local = \"203.0.113.1\"", "local = \"203.0.113.2\""),
        "x.toml:13: tunnel.local = \"203.0.113.2\": no [[port]] has this address"
    );
    assert_eq!(
        line(any, "\"2001:db8::7\""),
        "x.toml:14: tunnel.remote = \"2001:db8::7\": one address is IPv4, the other IPv6"
    );
    assert_eq!(
        line(any, "\"10.99.0.1\""),
        "x.toml:14: tunnel.remote = \"10.99.0.1\": is the gateway's own address"
    );
    for wrong in ["anywhere", "192.0.2.7:0", "192.0.2.7:99999", "[192.0.2.7]:1"] {
        assert_eq!(
            line(any, &format!("{wrong:?}")),
            format!(
                "x.toml:14: tunnel.remote = {wrong:?}: must be \"any\", \"address\", \"address:port\" or \
                 \"[IPv6 address]:port\""
            )
        );
    }
    assert_eq!(
        line(any, "\"192.0.2.7:4500\"\nencap = \"none\""),
        "x.toml:14: tunnel.remote = \"192.0.2.7:4500\": has no meaning with encap = \"none\""
    );
    assert_eq!(
        line(any, "\"any\"\nmode = \"transport\"").as_str(),
        "x.toml:16: tunnel.inner_local = [\"10.99.0.0/24\"]: has no meaning with mode = \"transport\""
    );
    assert_eq!(
        line("inner_local = [\"10.99.0.0/24\"]\n", ""),
        "x.toml:11: tunnel: missing key \"inner_local\", which tunnel mode needs"
    );
    assert_eq!(
        line("inner_local = [\"10.99.0.0/24\"]", "inner_local = []"),
        "x.toml:15: tunnel.inner_local = []: must not be empty"
    );
    assert_eq!(
        line("inner_local = [\"10.99.0.0/24\"]", "inner_local = \"2001:db8::/32\""),
        "x.toml:11: tunnel: inner_local and inner_remote have no prefixes of the same family"
    );
    let many: Vec<String> = (0..=4096).map(|i| format!("\"10.{}.{}.0/24\"", i / 256, i % 256)).collect();
    assert_eq!(
        line("inner_local = [\"10.99.0.0/24\"]", &format!("inner_local = [{}]", many.join(","))),
        "x.toml:11: tunnel: has more than 4096 pairs of local and remote prefixes"
    );
}

#[test]
fn security_associations() {
    let line = |from: &str, to: &str| error(&changed(from, to));
    let reserved = "must be from 0x100 to 0xffffffff: lower SPIs are reserved";
    assert_eq!(line("0x1001", "255"), format!("x.toml:18: tunnel.inbound.spi = 255: {reserved}"));
    assert_eq!(
        line("0x2001", "0x100000000"),
        format!("x.toml:19: tunnel.outbound.spi = 0x100000000: {reserved}")
    );
    assert_eq!(
        line("\"aes128gcm16\", key_file = \"out\"", "\"aes128gcm61\", key_file = \"out\""),
        "x.toml:19: tunnel.outbound.cipher = \"aes128gcm61\": no such cipher; did you mean \"aes128gcm16\"?"
    );
    let second = TUNNEL.replace('$', "").replace("alice", "bob").replace("0x2001", "0x2002");
    let text = format!("{}{second}", tunnel(""));
    assert_eq!(error(&text), "x.toml:28: tunnel.inbound.spi = 0x1001: already used in line 18");
    let text = format!("{}{}", tunnel(""), second.replace("bob", "alice").replace("0x1001", "0x1002"));
    assert_eq!(error(&text), "x.toml:22: tunnel.name = \"alice\": already used in line 12");
}

#[test]
fn key_files() {
    let folder = Folder::new();
    let line = |name: &str| folder.error(&changed("\"in\"", &format!("{name:?}")));
    let start = |name: &str| format!("x.toml:18: tunnel.inbound.key_file = {name:?}: ");
    assert_eq!(line("none"), start("none") + "key file cannot be read: entity not found");
    assert_eq!(line("."), start(".") + "key file is not a regular file");
    assert_eq!(line(""), start("") + "must not be empty");
    folder.write("short", b"0xdead beef\n");
    assert_eq!(
        line("short"),
        start("short") + "key file must hold 40 hexadecimal digits (20 bytes), but it holds 8"
    );
    folder.write("words", b"correct horse battery");
    assert_eq!(
        line("words"),
        start("words") + "key file must hold 40 hexadecimal digits or 20 raw bytes, but it holds 21 bytes"
    );
    let shown = format!("{:?}", folder.parse(&tunnel("")).unwrap());
    assert!(!shown.contains("17, 17") && !shown.contains("1111"), "{shown}");
}

#[test]
fn errors_name_the_alternatives() {
    let line = |from: &str, to: &str| error(&changed(from, to));
    let no_cipher = line("\"aes128gcm16\", key_file = \"out\"", "\"blowfish\", key_file = \"out\"");
    assert!(no_cipher.contains("no such cipher; there are aes128gcm16, "), "{no_cipher}");
    assert_eq!(
        line("key_file = \"in\"", "key = \"in\""),
        "x.toml:18: tunnel.inbound: unknown key \"key\"; did you mean \"key_file\"?"
    );
    let times = "must be a time above zero, like \"500ms\", \"30s\", \"5m\", \"1h\"";
    assert_eq!(error("[gateway]\nidle = 5\n"), format!("x.toml:2: gateway.idle = 5: {times}"));
    let line = error(&tunnel("keepalive = 20"));
    assert!(line.ends_with(&format!("tunnel.keepalive = 20: {times}")), "{line}");
    let key = "[[connection]]\nname = \"a\"\nauth = \"psk\"\npsk = \"secret\"\n";
    let line = error(&format!("{PORTS}{key}"));
    assert!(line.ends_with("unknown key \"psk\"; did you mean \"psk_file\"?"), "{line}");
}
