//! ICMP errors about traffic in clear that policies for one port let pass.

use super::*;

const DNS: u16 = 53;

/// Returns the selectors of queries from one prefix to another, and of the answers.
fn queries(from: &str, to: &str) -> [Selector; 2] {
    let (protocol, port) = (Some(protocol::UDP), PortRange { first: DNS, last: DNS });
    [
        Selector { protocol, remote_ports: port, ..selector(from, to) },
        Selector { protocol, local_ports: port, ..selector(to, from) },
    ]
}

/// Makes a gateway that lets only queries of hosts inside pass in clear, and has these policies too.
fn resolvers(more: Vec<Policy>) -> World {
    gateway(|config| {
        let selectors = [queries("10.99.0.0/24", "0.0.0.0/0"), queries("fd00:99::/64", "::/0")].concat();
        let bypass = |selector| Policy { action: PolicyAction::Bypass, selector };
        config.policies = selectors.into_iter().map(bypass).chain(more).collect();
    })
}

/// An error of a router outside about a query to this port, and one of a router inside about the answer,
/// each with the port that it comes in by.
fn errors(v6: bool, kinds: [(u8, u8); 2], port: u16) -> [(usize, Vec<u8>); 2] {
    let (host, server) = if v6 { ("fd00:99::7", "2001:db8:5::9") } else { ("10.99.0.7", "198.51.100.9") };
    let [outside, inside] =
        if v6 { ["2001:db8:77::1", "fd00:99::fe"] } else { ["172.31.5.1", "10.99.0.254"] };
    let query = datagram(host, server, (5000, port), &[1; 40]);
    let answer = datagram(server, host, (port, 5000), &[2; 40]);
    [(OUTSIDE, error(outside, kinds, &query)), (INSIDE, error(inside, kinds, &answer))]
}

#[test]
fn errors_pass_in_clear_with_the_traffic_that_they_are_about() {
    let mut world = resolvers(vec![]);
    for kinds in [TOO_BIG, TIME_EXCEEDED, PORT_UNREACHABLE] {
        for v6 in [false, true] {
            for (from, error) in errors(v6, kinds, DNS) {
                assert_eq!(fate(&mut world, from, &error), Ok(forwarded(&error)), "{from} {v6} {kinds:?}");
            }
            for (from, error) in errors(v6, kinds, DNS + 1) {
                assert_eq!(fate(&mut world, from, &error), Err(NoPolicy), "{from} {v6} {kinds:?}");
            }
        }
    }
}

#[test]
fn policy_for_an_errors_own_addresses_goes_before_what_it_quotes() {
    let icmp = Selector { protocol: Some(protocol::ICMP), ..selector("0.0.0.0/0", "0.0.0.0/0") };
    let mut world = resolvers(vec![Policy { action: PolicyAction::Discard, selector: icmp }]);
    for (from, error) in errors(false, TOO_BIG, DNS) {
        assert_eq!(fate(&mut world, from, &error), Err(DropReason::Discard), "{from}");
    }
}
