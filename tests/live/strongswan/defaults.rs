//! strongSwan without any configured proposal, lifetime or other setting that it has a default for,
//! in both roles, and with one proposal of all the key exchanges that it knows: with ML-KEM, those are
//! several (RFC 9370). Debian's strongSwan has no ML-KEM, and so one exchange.

use super::{
    SERVER,
    charon::{Charon, knows_ml_kem},
    gateway_head, mobile_lab, psk,
};
use crate::{
    lab::{Gateway, wait_for},
    traffic::{lost, wait_for_ping},
};

/// Rekeys of each kind that each side begins.
const ROUNDS: u64 = 50;

const TERMINAL: &str = r#"
connections { gw {
  remote_addrs = 203.0.113.1
  vips = 0.0.0.0
  local { auth = psk
    id = cl.test }
  remote { auth = psk
    id = gw.test }
  children { net { remote_ts = 10.99.0.0/24 } }
} }
secrets { ike { secret = "lab-psk-0123456789" } }
"#;

const OFFICE: &str = r#"
connections { gw {
  local { auth = psk
    id = cl.test }
  remote { auth = psk
    id = gw.test }
  children { net { local_ts = 10.97.0.0/24
    remote_ts = 10.99.0.0/24 } }
} }
secrets { ike { secret = "lab-psk-0123456789" } }
"#;

/// Has both sides rekey the IKE SA and the child SA in turn, each after the one before is over.
fn rekey_in_turn(gateway: &Gateway, peer: &Charon) {
    let first = gateway.peers().remove(0);
    for round in 0..ROUNDS {
        for step in 0..4 {
            match step {
                0 => drop(peer.swanctl("--rekey --child net")),
                1 => drop(gateway.command("peer rekey cl.test")),
                2 => drop(peer.swanctl("--rekey --ike gw")),
                _ => drop(gateway.command("peer rekey cl.test --ike")),
            }
            wait_for("the rekey", || {
                let peer = gateway.peers().into_iter().next()?;
                (peer.rekeys > 4 * round + step).then_some(())
            });
        }
    }
    wait_for("the old child SAs to go", || (gateway.peers()[0].children.len() == 1).then_some(()));
    let last = gateway.peers().remove(0);
    assert_eq!((last.peer, last.suite), (first.peer, first.suite), "the link and its algorithms stay");
    let sas = peer.swanctl("--list-sas");
    assert_eq!((sas.matches("ESTABLISHED").count(), sas.matches("INSTALLED").count()), (1, 1), "{sas}");
}

/// strongSwan is a terminal of ours, with `theirs` in its connection, `child` in its child, and `ours` in
/// our connection.
fn terminal_lives_through_many_rekeys(theirs: &str, child: &str, ours: &str) {
    let lab = mobile_lab();
    let gateway = lab.gateway("gw", &(gateway_head("") + &psk(ours)));
    let client = Charon::start(&lab, "term", &with(TERMINAL, theirs, child), "");
    client.swanctl("--initiate --child net");
    wait_for_ping(&lab, "term", SERVER);
    let pings = lab.spawn("term", &format!("ping -q -i 0.01 -W 2 {SERVER}"));
    rekey_in_turn(&gateway, &client);
    let output = pings.interrupt();
    // The last one may still be on its way.
    assert!(lost(&output) <= 1, "{output}");
}

/// strongSwan is a gateway that we connect to.
fn gateway_lives_through_many_rekeys(theirs: &str, child: &str, ours: &str) {
    let lab = mobile_lab();
    // The other gateway is where a NAT would be.
    lab.nft("nat", "");
    lab.run("nat", "ip address add 10.97.0.1/24 dev lo");
    let office = Charon::start(&lab, "nat", &with(OFFICE, theirs, child), "");
    let connection = psk(&format!("remote = \"192.0.2.2\"\ninner_remote = [\"10.97.0.0/24\"]\n{ours}"));
    let connection = connection.replace("pool = \"terminals\"", "");
    let gateway = lab.gateway("gw", &(gateway_head("") + &connection));
    wait_for_ping(&lab, "srv", "10.97.0.1");
    let pings = lab.spawn("srv", "ping -q -i 0.01 -W 2 10.97.0.1");
    rekey_in_turn(&gateway, &office);
    let output = pings.interrupt();
    // The last one may still be on its way.
    assert!(lost(&output) <= 1, "{output}");
}

/// Returns strongSwan's connections with more settings in the connection and in its child.
fn with(connections: &str, theirs: &str, child: &str) -> String {
    let connections = connections.replace("gw {", &format!("gw {{\n  {theirs}"));
    connections.replace("net {", &format!("net {{ {child}\n   "))
}

/// Returns the one proposal of each side for all key exchanges that strongSwan knows: settings of its
/// connection and child, and of our connection. A strongSwan without ML-KEM has the classic group alone.
fn all_exchanges() -> (String, String, String) {
    let more = if knows_ml_kem() { "-ke1_mlkem768" } else { "" };
    let (ike, esp) = (format!("aes256gcm16-prfsha384-x25519{more}"), format!("aes256gcm16-x25519{more}"));
    let ours = format!("proposals = [\"{ike}\"]\nesp = [\"{esp}\"]");
    (format!("proposals = {ike}"), format!("esp_proposals = {esp}"), ours)
}

#[test]
fn terminal_with_defaults_lives_through_many_rekeys() {
    terminal_lives_through_many_rekeys("", "", "");
}

#[test]
fn gateway_with_defaults_lives_through_many_rekeys() {
    gateway_lives_through_many_rekeys("", "", "");
}

#[test]
fn terminal_with_all_key_exchanges_lives_through_many_rekeys() {
    let (theirs, child, ours) = all_exchanges();
    terminal_lives_through_many_rekeys(&theirs, &child, &ours);
}

#[test]
fn gateway_with_all_key_exchanges_lives_through_many_rekeys() {
    let (theirs, child, ours) = all_exchanges();
    gateway_lives_through_many_rekeys(&theirs, &child, &ours);
}
