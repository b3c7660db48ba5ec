use super::*;

const START: Duration = Duration::from_secs(1000);
const HOST: &str = "10.0.0.7:4500";
const SERVER: &str = "203.0.113.1:4500";
/// The same address, another port.
const OTHER_PORT: &str = "203.0.113.1:500";
const OTHER_ADDRESS: &str = "203.0.113.2:4500";

fn ends(from: &str, to: &str) -> Endpoints {
    Endpoints { from: from.parse().unwrap(), to: to.parse().unwrap() }
}

fn nat(kind: Kind) -> Nat {
    Nat::new([198, 51, 100, 9].into(), kind)
}

/// Returns the source that the outside sees when `HOST` sends to `remote`.
fn seen(nat: &mut Nat, remote: &str) -> SocketAddr {
    nat.outbound(START, ends(HOST, remote)).unwrap().from
}

#[test]
fn mappings_are_reused_as_their_behavior_says() {
    for kind in Kind::ALL {
        let mut nat = nat(kind);
        let first = seen(&mut nat, SERVER);
        assert_eq!(first.ip(), nat.address);
        assert_eq!(seen(&mut nat, SERVER), first, "{kind}");
        let same = [OTHER_PORT, OTHER_ADDRESS].map(|remote| seen(&mut nat, remote) == first);
        let expected = match kind.mapping {
            Behavior::EndpointIndependent => [true, true],
            Behavior::AddressDependent => [true, false],
            Behavior::AddressAndPortDependent => [false, false],
        };
        assert_eq!(same, expected, "{kind}");
    }
}

#[test]
fn inbound_packets_pass_as_the_filter_says() {
    for kind in Kind::ALL {
        let mut nat = nat(kind);
        let external = seen(&mut nat, SERVER);
        let passes = [SERVER, OTHER_PORT, OTHER_ADDRESS].map(|remote| {
            let packet = Endpoints { from: remote.parse().unwrap(), to: external };
            let inside = nat.inbound(START, packet);
            assert!(inside.is_none_or(|inside| inside == ends(remote, HOST)), "{kind}");
            inside.is_some()
        });
        let expected = match kind.filtering {
            Behavior::EndpointIndependent => [true, true, true],
            Behavior::AddressDependent => [true, true, false],
            Behavior::AddressAndPortDependent => [true, false, false],
        };
        assert_eq!(passes, expected, "{kind}");
        let unmapped = Endpoints { from: SERVER.parse().unwrap(), to: SocketAddr::new(external.ip(), 9) };
        assert_eq!(nat.inbound(START, unmapped), None, "{kind}");
    }
}

#[test]
fn two_hosts_never_share_an_external_port() {
    for kind in Kind::ALL {
        for preserves_ports in [false, true] {
            let mut nat = Nat { preserves_ports, ..nat(kind) };
            let one = seen(&mut nat, SERVER);
            let two = nat.outbound(START, ends("10.0.0.8:4500", SERVER)).unwrap().from;
            assert_ne!(one, two, "{kind}");
            let answer = Endpoints { from: SERVER.parse().unwrap(), to: two };
            assert_eq!(nat.inbound(START, answer), Some(ends(SERVER, "10.0.0.8:4500")), "{kind}");
        }
    }
}

#[test]
fn ports_are_preserved_if_they_are_free() {
    for kind in Kind::ALL {
        let mut nat = Nat { preserves_ports: true, ..nat(kind) };
        let port = |nat: &mut Nat, from| nat.outbound(START, ends(from, SERVER)).map(|seen| seen.from.port());
        assert_eq!(port(&mut nat, HOST), Some(4500), "{kind}");
        assert_ne!(port(&mut nat, "10.0.0.8:4500"), Some(4500), "{kind}");
        assert_ne!(port(&mut nat, "10.0.0.7:500"), Some(500), "{kind}: reserved");
        nat.preserves_ports = false;
        nat.restart();
        assert_ne!(port(&mut nat, HOST), Some(4500), "{kind}");
    }
}

#[test]
fn mappings_expire_after_the_last_outbound_packet() {
    let second = Duration::from_secs(1);
    for kind in Kind::ALL {
        let mut nat = nat(kind);
        let first = seen(&mut nat, SERVER);
        let answer = Endpoints { from: SERVER.parse().unwrap(), to: first };
        let later = START + nat.expiry - second;
        // Inbound packets do not keep a mapping alive, or anybody could (RFC 4787 §4.3).
        assert!(nat.inbound(later, answer).is_some(), "{kind}");
        assert!(nat.inbound(later + second, answer).is_none(), "{kind}");
        assert_eq!(nat.outbound(later, ends(HOST, SERVER)).unwrap().from, first, "{kind}");
        assert!(nat.inbound(later + second, answer).is_some(), "{kind}");
        let expired = later + nat.expiry;
        assert!(nat.inbound(expired, answer).is_none(), "{kind}");
        assert_ne!(nat.outbound(expired, ends(HOST, SERVER)).unwrap().from, first, "{kind}");
        assert!(nat.inbound(expired, answer).is_none(), "{kind}: the old port leads nowhere");
    }
}

#[test]
fn filter_forgets_each_remote_endpoint_separately() {
    for kind in Kind::ALL {
        let mut nat = nat(kind);
        let external = seen(&mut nat, OTHER_ADDRESS);
        let later = START + nat.expiry / 2;
        nat.outbound(later, ends(HOST, SERVER)).unwrap();
        let expired = START + nat.expiry;
        let passes = |remote: &str| {
            nat.inbound(expired, Endpoints { from: remote.parse().unwrap(), to: external }).is_some()
        };
        // With any other mapping, the second packet got a port of its own, and the first port has
        // expired.
        let is_kept = kind.mapping == Behavior::EndpointIndependent;
        assert_eq!(passes(SERVER), is_kept, "{kind}");
        let is_open = is_kept && kind.filtering == Behavior::EndpointIndependent;
        assert_eq!(passes(OTHER_ADDRESS), is_open, "{kind}");
    }
}

#[test]
fn hosts_reach_each_other_through_a_nat_that_hairpins() {
    for kind in Kind::ALL {
        let mut nat = nat(kind);
        let other = nat.outbound(START, ends("10.0.0.8:4500", SERVER)).unwrap().from;
        let packet = Endpoints { from: HOST.parse().unwrap(), to: other };
        let got = nat.outbound(START, packet);
        match kind.filtering {
            Behavior::EndpointIndependent => {
                let got = got.unwrap();
                assert_eq!(got.to, "10.0.0.8:4500".parse().unwrap(), "{kind}");
                assert_eq!(got.from.ip(), nat.address, "{kind}: an external source (REQ-9a)");
            }
            // The other host has sent nothing to this one yet.
            _ => assert_eq!(got, None, "{kind}"),
        }
        nat.hairpins = false;
        assert_eq!(nat.outbound(START, packet), None, "{kind}");
    }
}

#[test]
fn restart_forgets_mappings_and_gives_out_other_ports() {
    for kind in Kind::ALL {
        let mut nat = nat(kind);
        let first = seen(&mut nat, SERVER);
        let other = nat.outbound(START, ends("10.0.0.8:4500", SERVER)).unwrap().from;
        nat.forget([10, 0, 0, 7].into());
        let inbound = |nat: &mut Nat, to| nat.inbound(START, Endpoints { from: SERVER.parse().unwrap(), to });
        assert_eq!(inbound(&mut nat, first), None, "{kind}");
        assert!(inbound(&mut nat, other).is_some(), "{kind}");
        nat.restart();
        assert_eq!(inbound(&mut nat, other), None, "{kind}");
        assert_ne!(seen(&mut nat, SERVER), first, "{kind}");
    }
}

#[test]
fn gives_out_every_port_once() {
    let host = |n: u32| {
        let [_, _, high, low] = n.to_be_bytes();
        Endpoints { from: SocketAddr::from(([10, 1, high, low], 4500)), to: SERVER.parse().unwrap() }
    };
    let ports = u32::from(u16::MAX - FIRST_PORT);
    for (kind, preserves_ports) in Kind::ALL.into_iter().zip([false, true].into_iter().cycle()) {
        let mut nat = Nat { preserves_ports, ..nat(kind) };
        assert!((0..ports).all(|n| nat.outbound(START, host(n)).is_some()), "{kind}");
        assert_eq!(nat.outbound(START, host(ports)), None, "{kind}");
        assert!(nat.outbound(START + nat.expiry, host(ports)).is_some(), "{kind}");
    }
}

#[test]
fn protocols_without_ports_do_not_pass() {
    for kind in Kind::ALL {
        assert_eq!(nat(kind).outbound(START, ends("10.0.0.7:0", "203.0.113.1:0")), None, "{kind}");
    }
}
