//! The barrier, each time in a network namespace of its own.

use super::*;
use crate::namespace::alone;
use wayfarer_dataplane::table::Prefix;

fn tables() -> Vec<String> {
    Nftables::open().unwrap().tables().unwrap()
}

#[test]
fn takes_over_tables_of_a_gateway_that_has_ended() {
    alone(|| {
        let none = Ranges::default();
        let first = Nftables::open().unwrap();
        replace(&first, "eth0", &["tap0".to_owned()], &none).unwrap();
        replace(&first, "eth1", &[], &none).unwrap();
        let second = Nftables::open().unwrap();
        // Kernels before 6.9 have no table owners.
        if let Err(why) = replace(&second, "eth0", &[], &none) {
            assert_eq!(why.raw_os_error(), Some(nix::libc::EPERM), "{why}");
            assert!(open_host(&["eth0".to_owned()]).is_err());
        }
        drop(first);
        replace(&second, "eth0", &[], &none).unwrap();
        assert_eq!(tables(), ["wayfarer-eth1", "wayfarer-eth0"]);
        drop(second);
        assert_eq!(open_host(&[]).unwrap(), ["eth1", "eth0"]);
        assert_eq!((open_host(&[]).unwrap(), tables()), (vec![], vec![]));
    });
}

/// Returns a configuration with one port and the tables in `more`.
fn configured(device: &str, more: &str) -> Config {
    let port = format!(
        "[[port]]\nname = \"outside\"\nkind = \"af_packet\"\ndevice = \"{device}\"\n\
         addresses = [\"192.0.2.7/24\", \"2001:db8::7/64\"]\n{more}"
    );
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/test.toml");
    crate::config::parse(&port, &file).unwrap()
}

fn ip(arguments: &str) {
    let status = std::process::Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

#[test]
fn closes_a_device_by_its_primary_name() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        ip("link property add dev eth0 altname uplink");
        // A missing device has only its configured name.
        for (device, name) in [("uplink", "eth0"), ("eth1", "eth1")] {
            drop(Barrier::raise(&configured(device, "")).unwrap());
            assert_eq!(tables(), [table(name)]);
            assert_eq!(open_host(&[device.to_owned()]).unwrap(), [name]);
        }
    });
}

#[test]
fn closes_a_device_that_appears_later_by_an_alternative_name() {
    alone(|| {
        let mut barrier = Barrier::raise(&configured("uplink", "")).unwrap();
        ip("link add eth0 type veth peer name eth9");
        ip("link property add dev eth0 altname uplink");
        (0..2).for_each(|_| barrier.close("outside", "eth0").unwrap());
        assert_eq!(tables(), [table("uplink"), table("eth0")]);
        assert!(matches!(DeviceLock::take("eth0"), Err(LockError::Taken(_))));
        drop(barrier);
        assert_eq!(open_host(&["uplink".to_owned()]).unwrap(), ["uplink", "eth0"]);
    });
}

#[test]
fn goes_on_protecting_what_a_new_configuration_does_not_have() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        let pool = |addresses| format!("[[pool]]\nname = \"p\"\naddresses = \"{addresses}\"\n");
        let mut barrier = Barrier::raise(&configured("eth0", &pool("10.96.0.0-10.96.255.255"))).unwrap();
        barrier.protect(&configured("eth0", &pool("10.97.0.0-10.97.255.255"))).unwrap();
        let mut all = Ranges::default();
        all.add(ranges::of_prefix(Prefix::new([10, 96, 0, 0].into(), 15).unwrap()));
        assert_eq!(barrier.protected.of(true), all.of(true));
        drop(barrier);
        open_host(&[]).unwrap();
    });
}

#[test]
fn a_second_start_leaves_the_running_gateways_tables() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        ip("link property add dev eth0 altname uplink");
        let nftables = Nftables::open().unwrap();
        let mut older = Batch::new();
        older.add_table(&table("eth0"), SHARED);
        older.add_chain(&table("eth0"), "first", Hook::Forward, EARLY);
        nftables.commit(older).unwrap();
        let running = DeviceLock::take("eth0").unwrap();
        let free = "[[port]]\nname = \"inside\"\nkind = \"auto\"\ndevice = \"eth9\"\n\
                    addresses = [\"10.99.0.1/24\"]\n";
        let taken = format!("eth0: another gateway (process {}) has this device", std::process::id());
        for device in ["eth0", "uplink"] {
            let (port, why) = Barrier::raise(&configured(device, free)).unwrap_err();
            assert_eq!((&port[..], why.to_string()), ("outside", taken.clone()));
        }
        let mut other_first = configured("eth0", free);
        other_first.ports.reverse();
        let (port, why) = Barrier::raise(&other_first).unwrap_err();
        assert_eq!((&port[..], why.to_string()), ("outside", taken.clone()));
        assert_eq!(open_host(&[]).unwrap_err().to_string(), taken);
        assert_eq!(tables(), [table("eth0")], "a table was made");
        // A chain that exists keeps its priority.
        let mut same = Batch::new();
        same.add_chain(&table("eth0"), "first", Hook::Forward, EARLY + 1);
        assert!(nftables.commit(same).is_err(), "the table was replaced");
        drop(running);
        drop(Barrier::raise(&other_first).unwrap());
    });
}

#[test]
fn networks_behind_peers_are_protected_in_every_notation() {
    let psk = "[[connection]]\nname = \"a\"\nauth = \"psk\"\npsk_file = \"keys/example-lab-psk\"\n\
               remote_id = \"gw.test\"\n";
    let asks = "remote = \"203.0.113.1\"\nrequest_address = true\n";
    let gives = "pool = \"p\"\ninner_local = [\"10.99.0.0/24\"]\n";
    let pool = "[[pool]]\nname = \"p\"\naddresses = \"10.96.0.0-10.96.0.255\"\n";
    for (more, texts) in [
        (format!("{psk}{asks}inner_remote = [\"10.95.0.0/24\"]\n"), vec!["10.95.0.0/24"]),
        (format!("{psk}{asks}"), vec![]),
        (format!("{psk}{gives}{pool}"), vec!["10.96.0.0/24"]),
        (
            format!("{psk}{gives}inner_remote = [\"10.95.0.0/24\"]\n{pool}"),
            vec!["10.95.0.0/24", "10.96.0.0/24"],
        ),
        (
            format!("{psk}inner_local = [\"10.99.0.0/24\"]\ninner_remote = [\"0.0.0.0/0\"]\n"),
            vec!["10.99.0.0/24"],
        ),
    ] {
        let mut expected = Ranges::default();
        for text in texts {
            let (address, length) = text.split_once('/').unwrap();
            let prefix = Prefix::new(address.parse().unwrap(), length.parse().unwrap()).unwrap();
            expected.add(ranges::of_prefix(prefix));
        }
        expected.merge();
        assert_eq!(protected(&configured("eth0", &more)).of(true), expected.of(true), "{more}");
    }
}

#[test]
fn a_table_without_an_owner_is_replaced_as_well() {
    alone(|| {
        let none = Ranges::default();
        let nftables = Nftables::open().unwrap();
        nftables.commit(replacement("eth0", &[], &none, SHARED)).unwrap();
        let mut foreign = Batch::new();
        foreign.add_table("other", SHARED);
        nftables.commit(foreign).unwrap();
        replace(&nftables, "eth0", &[], &none).unwrap();
        assert_eq!(open_host(&[]).unwrap(), ["eth0"]);
        assert_eq!(tables(), ["other"], "tables of other programs stay");
    });
}

#[test]
fn any_number_of_networks_can_be_protected() {
    alone(|| {
        let mut many = Ranges::default();
        for i in 0..20_000u32 {
            let v4 = std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * i);
            let v6 = std::net::Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(2 * i));
            many.add((v4.into(), v4.into()));
            many.add((v6.into(), v6.into()));
        }
        many.add(([255; 4].into(), [255; 4].into()));
        many.merge();
        let nftables = Nftables::open().unwrap();
        replace(&nftables, "eth0", &[], &many).unwrap();
        replace(&nftables, "eth0", &[], &many).unwrap();
    });
}
