//! Static neighbours.

use super::*;

/// Returns the text of a neighbour with this address and more `keys`.
fn neighbour(address: &str, keys: &str) -> String {
    format!("[[neighbour]]\naddress = \"{address}\"\nmac = \"02:00:00:00:00:07\"\n{keys}\n")
}

fn parsed(text: &str) -> Vec<Neighbour> {
    Folder::new().parse(&format!("{PORTS}{text}")).unwrap().neighbours
}

#[test]
fn neighbours_are_at_the_port_of_their_subnet() {
    let mac = [2, 0, 0, 0, 0, 7];
    for (address, keys, port) in [
        ("203.0.113.7", "", 0),
        ("10.99.0.7", "", 1),
        ("10.99.0.7", "port = \"inside\"", 1),
        ("2001:db8::7", "", 0),
        ("fe80::7", "port = \"inside\"", 1),
    ] {
        let expected = Neighbour { port, address: address.parse().unwrap(), mac };
        assert_eq!(parsed(&neighbour(address, keys)), [expected], "{address}");
    }
    // Another segment may have another station with the same link-local address.
    let both = ["outside", "inside"].map(|port| neighbour("fe80::7", &format!("port = \"{port}\"")));
    assert_eq!(parsed(&both.concat()).iter().map(|one| one.port).collect::<Vec<_>>(), [0, 1]);
    // The longest subnet counts.
    let ports = PORTS.replace("203.0.113.1/24", "10.99.7.1/24").replace("10.99.0.1/24", "10.99.0.1/16");
    let config = Folder::new().parse(&(ports + &neighbour("10.99.7.9", ""))).unwrap();
    assert_eq!(config.neighbours[0].port, 0);
}

#[test]
fn wrong_neighbours_are_refused() {
    let line = |address: &str, keys: &str| error_with_ports(&neighbour(address, keys));
    let at = |address: &str| format!("x.toml:11: neighbour.address = \"{address}\": ");
    let off_subnet = "must be in a subnet of a [[port]], and of \"port\" if that is set";
    for (address, keys) in [
        ("192.0.2.7", ""),
        ("10.99.0.7", "port = \"outside\""),
        ("2001:db8::7", "port = \"inside\""),
        // It does not say on which segment.
        ("fe80::7", ""),
    ] {
        assert_eq!(line(address, keys), at(address) + off_subnet);
    }
    assert_eq!(line("10.99.0.1", ""), at("10.99.0.1") + "is the gateway's own address");
    assert_eq!(line("224.0.0.5", ""), at("224.0.0.5") + "must be a unicast address");
    assert_eq!(line("10.99.0.256", ""), at("10.99.0.256") + "must be an IP address");
    assert_eq!(
        line("10.99.0.7", "port = \"insde\""),
        "x.toml:13: neighbour.port = \"insde\": no [[port]] has this name"
    );
    let mac = "02:00:00:00:00:07";
    for wrong in ["01:00:5e:00:00:07", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02:00:00:00:00"] {
        assert_eq!(
            error_with_ports(&neighbour("10.99.0.7", "").replace(mac, wrong)),
            format!(
                "x.toml:12: neighbour.mac = \"{wrong}\": must be a unicast MAC address, like \"02:00:00:00:00:01\""
            )
        );
    }
    // Written in another way, it is the same address.
    for [one, same] in [["10.99.0.7"; 2], ["2001:db8::7", "2001:db8:0::7"]] {
        assert_eq!(
            line(one, &neighbour(same, "")),
            format!("x.toml:14: neighbour.address = \"{same}\": already used in line 11")
        );
    }
    for (left_out, key) in
        [("address = \"10.99.0.7\"\n", "address"), ("mac = \"02:00:00:00:00:07\"\n", "mac")]
    {
        assert!(
            error_with_ports(&neighbour("10.99.0.7", "").replace(left_out, ""))
                .ends_with(&format!("missing key \"{key}\"")),
            "{key}"
        );
    }
}

#[test]
fn ports_with_one_station_have_no_other_neighbours() {
    for (kind, keys) in [
        ("tap", "device = \"wf0\""),
        ("pcap", "input = \"i.pcap\""),
        ("generator", "input = \"i.pcap\""),
        ("sink", ""),
    ] {
        let port =
            format!("[[port]]\nname = \"a\"\nkind = \"{kind}\"\naddresses = \"10.99.0.1/24\"\n{keys}\n");
        assert_eq!(
            error(&(port + &neighbour("10.99.0.7", ""))),
            format!(
                "x.toml:7: neighbour.address = \"10.99.0.7\": has no meaning with a port of kind = \"{kind}\""
            )
        );
    }
}
