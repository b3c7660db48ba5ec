//! `[[nat]]`.

use super::*;

const NAT: &str = "\n[[nat]]\ninside = [\"10.98.0.0/16\"]\nport = \"outside\"\n";

/// Returns the NATs of a configuration with the ports, the usual NAT and `more` of it.
fn nats(more: &str) -> Vec<Nat> {
    Folder::new().parse(&format!("{PORTS}{NAT}{more}")).unwrap().nats
}

#[test]
fn a_nat_needs_an_inside_and_a_port() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let default = Nat {
        inside: vec!["10.98.0.0/16".parse().unwrap()],
        port: 0,
        address: "203.0.113.1".parse().unwrap(),
        ports: 10_000..=32_767,
        mappings: 4096,
        udp_timeout: minutes(5),
        tcp_timeout: minutes(124),
        tcp_transitory_timeout: minutes(4),
        icmp_timeout: minutes(1),
    };
    assert_eq!(nats(""), [default]);
    let all = nats(
        "address = \"203.0.113.1\"\nports = \"2000-2999\"\nmappings = 7\nudp_timeout = \"2m\"\n\
         tcp_timeout = \"1h\"\ntcp_transitory_timeout = \"30s\"\nicmp_timeout = \"10s\"\n",
    );
    let Nat { ports, mappings, udp_timeout, tcp_timeout, icmp_timeout, .. } = &all[0];
    assert_eq!((ports, *mappings), (&(2000..=2999), 7));
    assert_eq!((*udp_timeout, *tcp_timeout, *icmp_timeout), (minutes(2), minutes(60), minutes(1) / 6));
    // One address may be divided, and one inside may leave by two ports.
    let other = "ports = \"2000-2999\"\n[[nat]]\ninside = \"10.97.0.0/16\"\nport = \"outside\"\nports = \"3000-3999\"\n\
                 [[nat]]\ninside = \"10.98.0.0/16\"\nport = \"inside\"\n";
    assert_eq!(nats(other).iter().map(|nat| nat.port).collect::<Vec<_>>(), [0, 0, 1]);
}

#[test]
fn wrong_nats_are_refused_with_words_that_say_what_to_write() {
    let line = PORTS.lines().count() + 2;
    let error = |text: &str| error_with_ports(text);
    let with = |more: &str| error(&format!("{NAT}{more}\n"));
    let changed = |from: &str, to: &str| error(&NAT.replace(from, to));
    let at = |line: usize, rest: &str| format!("x.toml:{line}: {rest}");
    assert_eq!(error("\n[[nat]]\nport = \"outside\"\n"), at(line, "nat: missing key \"inside\""));
    assert_eq!(
        changed("\"outside\"", "\"outsid\""),
        at(line + 2, "nat.port = \"outsid\": no [[port]] has this name")
    );
    assert_eq!(
        changed("\"10.98.0.0/16\"", "\"2001:db8::/64\""),
        at(
            line + 1,
            "nat.inside = [\"2001:db8::/64\"]: must be IPv4, the only family that [[nat]] translates"
        )
    );
    assert_eq!(
        changed("\"10.98.0.0/16\"", "\"0.0.0.0/0\""),
        at(
            line + 1,
            "nat.inside = [\"0.0.0.0/0\"]: holds 203.0.113.1, the address outside: list only the inner networks"
        )
    );
    for address in ["10.99.0.1", "2001:db8::1"] {
        assert_eq!(
            with(&format!("address = \"{address}\"")),
            at(
                line + 3,
                &format!(
                    "nat.address = \"{address}\": must be one of the IPv4 addresses of the [[nat]]'s port"
                )
            )
        );
    }
    assert_eq!(
        with("ports = \"400-600\""),
        at(
            line + 3,
            "nat.ports = \"400-600\": holds UDP port 500, which is the gateway's own: begin above it, or end below"
        )
    );
    assert_eq!(with("ports = \"0-9\""), at(line + 3, "nat.ports = \"0-9\": must be from 1 to 65535"));
    assert_eq!(with("mappings = 0"), at(line + 3, "nat.mappings = 0: must be from 1 to 65535"));
    let encap = "\n[gateway]\nencap_ports = [4500, 14500]\n";
    assert!(
        error(&format!("{NAT}{encap}")).ends_with(
            "nat: missing key \"ports\", which [[nat]] beside UDP port 14500 of the gateway needs"
        )
    );
    let other = "[[nat]]\ninside = \"10.98.7.0/24\"\nport = \"outside\"\nports = \"40000-50000\"";
    assert_eq!(
        with(other),
        at(
            line + 4,
            &format!(
                "nat.inside = \"10.98.7.0/24\": overlaps \"inside\" of the [[nat]] of line {line}, which has the same port"
            )
        )
    );
    let other = "[[nat]]\ninside = \"10.97.0.0/24\"\nport = \"outside\"\nports = \"32767-50000\"";
    assert_eq!(
        with(other),
        at(
            line + 6,
            &format!(
                "nat.ports = \"32767-50000\": the [[nat]] of line {line} has some of these ports of the same address: \
                 divide them"
            )
        )
    );
    let many: String = (0..17)
        .map(|n| {
            format!(
                "\n[[nat]]\ninside = \"10.98.{n}.0/24\"\nport = \"outside\"\nports = \"{}\"\n",
                20_000 + n
            )
        })
        .collect();
    assert!(error(&many).ends_with("nat: there must not be more than 16 [[nat]]"), "{}", error(&many));
    let no_address = "\n[[port]]\nname = \"bin\"\nkind = \"sink\"\n";
    assert!(
        error(&format!("{no_address}{}", NAT.replace("\"outside\"", "\"bin\"")))
            .ends_with("this [[port]] has no IPv4 address: add one to its \"addresses\"")
    );
}

#[test]
fn ports_that_the_machine_takes_for_its_own_connections_are_warned_of() {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let warnings = |address: &str, ports: &str| {
        let folder = Folder::new();
        let text = format!(
            "[[port]]\nname = \"outside\"\ndevice = \"lo\"\nmtu = 1500\naddresses = \"{address}/8\"\n{NAT}ports = \"{ports}\"\n"
        );
        folder.write("x.toml", text.as_bytes());
        let mut said = review(&folder.0.path().join("x.toml")).unwrap().machine;
        // The device's MTU is beyond the frames.
        said.retain(|warning| warning.key != "port.device");
        said
    };
    let said = warnings("127.0.0.1", &format!("{}-{first}", first - 1));
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((said[0].key, said[0].line), ("nat.ports", 10));
    assert!(said[0].text.contains(&format!("takes ports {first} to ")), "{said:?}");
    assert!(warnings("127.0.0.1", &format!("{}-{}", first - 2, first - 1)).is_empty());
    assert!(warnings("127.9.9.9", &first.to_string()).is_empty(), "not the machine's address");
}
