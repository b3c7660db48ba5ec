//! Selectors that a peer negotiates stay within those that the operator allows, and do not change
//! the operator's order of policies (RFC 4301 §4.4.1, RFC 7296 §2.9).

use super::{fate, to};
use wayfarer::config::model::{Policy, PolicyAction};
use wayfarer::sim::{
    fixtures::{INSIDE, OUTSIDE, config, selector},
    frames::{datagram, forwarded},
    ike::{configured::for_terminals, peer::Peer},
    terminal::Terminal,
    world::World,
};
use wayfarer_dataplane::{drop::DropReason, sa::Selector};

/// Makes a gateway with policies, to which terminals connect by `connection`.
fn gateway(connection: &str, policies: Vec<(PolicyAction, Selector)>) -> World {
    let mut config = config(vec![]);
    config.ike = for_terminals("10.98.0.0/24", &format!("esp = [\"aes256gcm16\"]\n{connection}"));
    config.policies = policies.into_iter().map(|(action, selector)| Policy { action, selector }).collect();
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    world
}

/// Connects terminal `name` from `address` with a connection that has `keys`; returns it and its
/// end of the tunnel.
fn connect(world: &mut World, name: &str, address: &str, keys: &str) -> (Peer, Terminal) {
    let text = format!(
        r#"
[[connection]]
name = "office"
local = "{address}"
local_id = "{name}"
remote = "203.0.113.1"
remote_id = "gw.test"
auth = "psk"
psk_file = "$PSK"
esp = ["aes256gcm16"]
{keys}
"#
    );
    let mut peer = Peer::new(&text, address);
    peer.connect(world);
    let tunnel = peer.tunnel();
    (peer, tunnel)
}

/// Sends a packet from a terminal through its tunnel, and returns its fate: in clear on the inside
/// or outside, or the reason for its drop.
fn inner_fate(world: &mut World, tunnel: &mut Terminal, inner: &[u8]) -> Result<&'static str, DropReason> {
    let before = world.all_drops();
    let sealed = tunnel.seal(inner);
    world.send(OUTSIDE, &sealed);
    let [inside, outside] = [INSIDE, OUTSIDE].map(|port| world.take(port));
    if inside.contains(&forwarded(inner)) {
        return Ok("inside");
    }
    if outside.contains(&forwarded(inner)) {
        return Ok("outside");
    }
    Err(world
        .all_drops()
        .into_iter()
        .find(|drop| !before.contains(drop))
        .expect("a packet that does not come out is counted as dropped")
        .0)
}

const POOLED: &str = r#"inner_local = ["10.99.0.0/16"]
pool = "terminals""#;

#[test]
fn narrower_request_does_not_get_past_a_discard_policy() {
    let kept = (PolicyAction::Discard, selector("0.0.0.0/0", "10.99.5.0/24"));
    for asked in ["10.99.0.0/16", "10.99.5.0/24", "10.99.5.9/32"] {
        let mut world = gateway(POOLED, vec![kept.clone()]);
        let keys = format!("request_address = true\ninner_remote = [\"{asked}\"]");
        let (peer, mut tunnel) = connect(&mut world, "cl.test", "192.0.2.1", &keys);
        let own = peer.inner().to_string();
        let packet = datagram(&own, "10.99.5.9", (1, 2), b"in");
        assert_eq!(inner_fate(&mut world, &mut tunnel, &packet), Err(DropReason::Discard), "{asked}");
        if asked == "10.99.0.0/16" {
            let packet = datagram(&own, "10.99.0.7", (1, 2), b"in");
            assert_eq!(inner_fate(&mut world, &mut tunnel, &packet), Ok("inside"));
        }
    }
}

#[test]
fn narrower_offer_does_not_take_traffic_from_a_bypass_policy() {
    let site = r#"inner_local = ["10.99.0.0/24"]
inner_remote = ["172.16.0.0/12"]"#;
    let bypass = (PolicyAction::Bypass, selector("0.0.0.0/0", "172.20.0.0/16"));
    for offered in ["172.20.1.0/24", "172.20.1.5/32", "172.16.0.0/12"] {
        let mut world = gateway(site, vec![bypass.clone()]);
        let keys = format!("inner_local = [\"{offered}\"]\ninner_remote = [\"10.99.0.0/24\"]");
        let _terminal = connect(&mut world, "cl.test", "192.0.2.1", &keys);
        assert_eq!(fate(&mut world, &to("172.20.1.5", 5)), Ok("clear"), "{offered}");
        if offered == "172.16.0.0/12" {
            assert_eq!(fate(&mut world, &to("172.21.1.5", 5)), Ok("sealed"));
        }
    }
}

#[test]
fn policy_of_a_longer_prefix_holds_for_an_assigned_address() {
    for (policy, expected) in [
        ("10.98.0.0/28", Err(DropReason::Discard)),
        ("10.98.0.0/24", Ok("sealed")),
        ("10.0.0.0/8", Ok("sealed")),
    ] {
        let discard = (PolicyAction::Discard, selector("0.0.0.0/0", policy));
        let mut world = gateway(POOLED, vec![discard]);
        let keys = "request_address = true\ninner_remote = [\"10.99.0.0/16\"]";
        let (peer, _tunnel) = connect(&mut world, "cl.test", "192.0.2.1", keys);
        assert_eq!(fate(&mut world, &to(&peer.inner().to_string(), 5)), expected, "{policy}");
    }
}

#[test]
fn nothing_leaves_in_clear_to_an_unassigned_pool_address() {
    let everywhere = r#"inner_local = ["0.0.0.0/0"]
pool = "terminals""#;
    let bypass = (PolicyAction::Bypass, selector("0.0.0.0/0", "0.0.0.0/0"));
    for asked in ["10.98.0.77/32", "0.0.0.0/0"] {
        let mut world = gateway(everywhere, vec![bypass.clone()]);
        let keys = format!("request_address = true\ninner_remote = [\"{asked}\"]");
        let (peer, mut tunnel) = connect(&mut world, "cl.test", "192.0.2.1", &keys);
        let packet = datagram(&peer.inner().to_string(), "10.98.0.77", (1, 2), b"to nobody");
        assert_eq!(inner_fate(&mut world, &mut tunnel, &packet), Err(DropReason::Discard), "{asked}");
        world.pass(std::time::Duration::from_secs(1));
        let clear = world.take(OUTSIDE).into_iter().filter(|p| p[16..19] == [10, 98, 0]).count();
        assert_eq!(clear, 0, "{asked}: a packet to the pool left in clear");
    }
}

#[test]
fn narrower_offer_of_another_site_does_not_allow_clear_traffic() {
    // Traffic from a site's network must use its tunnel. A narrower selector of another site for
    // this address does not change that.
    let hub = r#"inner_local = ["0.0.0.0/0"]
inner_remote = ["172.16.0.0/12"]"#;
    let mut world = gateway(hub, vec![]);
    let one = "inner_local = [\"172.16.1.0/24\"]\ninner_remote = [\"0.0.0.0/0\"]";
    let _one = connect(&mut world, "one.test", "192.0.2.1", one);
    let two = "inner_local = [\"172.16.2.0/24\"]\ninner_remote = [\"172.16.1.7/32\"]";
    let _two = connect(&mut world, "two.test", "192.0.2.2", two);
    // From the first site's address, in clear, to the second one's network.
    let forged = datagram("172.16.1.7", "172.16.2.7", (1, 2), b"forged");
    assert_eq!(fate(&mut world, &forged), Err(DropReason::Unprotected));
}

#[test]
fn discard_of_other_traffic_does_not_affect_a_tunnel() {
    // Although the gateway keeps clear traffic from its pool, a site may use these addresses,
    // whatever else is discarded.
    let and_a_site = r#"
[[connection]]
name = "site"
local = "203.0.113.1"
local_id = "gw.test"
remote_id = "site.example"
auth = "psk"
psk_file = "$PSK"
esp = ["aes256gcm16"]
inner_local = ["10.99.0.0/16"]
inner_remote = ["10.0.0.0/8"]"#;
    let elsewhere = (PolicyAction::Discard, selector("0.0.0.0/0", "172.31.0.0/16"));
    for policies in [vec![], vec![elsewhere]] {
        let mut world = gateway(&format!("{POOLED}{and_a_site}"), policies.clone());
        let keys = "inner_local = [\"10.0.0.0/8\"]\ninner_remote = [\"10.99.0.0/16\"]";
        let (_peer, mut tunnel) = connect(&mut world, "site.example", "192.0.2.1", keys);
        let packet = datagram("10.98.0.77", "10.99.0.7", (1, 2), b"from the site");
        assert_eq!(inner_fate(&mut world, &mut tunnel, &packet), Ok("inside"), "{policies:?}");
    }
}

#[test]
fn each_of_many_prefixes_is_carried() {
    let list = |count: u8| (0..count).map(|n| format!("\"10.99.{n}.0/24\"")).collect::<Vec<_>>().join(", ");
    for count in [20, 100, 255] {
        let local = format!("inner_local = [{}]\npool = \"terminals\"", list(count));
        let mut world = gateway(&local, vec![]);
        let keys = format!("request_address = true\ninner_remote = [{}]", list(count));
        let (peer, mut tunnel) = connect(&mut world, "cl.test", "192.0.2.1", &keys);
        for network in [0, 16, count / 2, count - 1] {
            let to = format!("10.99.{network}.7");
            let packet = datagram(&peer.inner().to_string(), &to, (1, 2), b"in");
            let fate = inner_fate(&mut world, &mut tunnel, &packet);
            assert!(fate.is_ok(), "{to} of {count}: {fate:?}");
        }
    }
}
