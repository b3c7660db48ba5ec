//! Moves of strongSwan's terminal between networks, under pings.

use super::{SERVER, connected, gateway_head, mobile_lab, psk};
use crate::{
    lab::{Gateway, Lab, wait_for},
    traffic::lost,
};

/// Pings during `event` until the gateway has the peer at `remote`; returns how many pings were
/// lost.
fn across(lab: &Lab, gateway: &Gateway, remote: &str, event: impl FnOnce()) -> u32 {
    let pings = lab.spawn("term", &format!("ping -q -i 0.025 -c 240 -W 1 {SERVER}"));
    let sent = |gateway: &Gateway| gateway.sa().outbound.packets;
    let before = sent(gateway);
    wait_for("pings on their way", || (sent(gateway) > before + 20).then_some(()));
    event();
    wait_for("the gateway to follow", || {
        gateway.peers().iter().any(|peer| peer.remote.starts_with(remote)).then_some(())
    });
    let lost = lost(&pings.finish());
    println!("to {remote}: {lost} lost");
    lost
}

/// The limit of lost pings: far more than any move was seen to lose (3 to 6, of which 4 are the
/// terminal's own delay), far fewer than a move that times out loses.
const MAX_LOST: u32 = 60;

#[test]
fn terminal_moves_between_networks() {
    let lab = mobile_lab();
    let (gateway, _client) = connected(&lab, &(gateway_head("") + &psk("")), "", "net");
    let identity = gateway.peers().remove(0).peer;
    let lost = [
        across(&lab, &gateway, "198.51.100.2", || {
            lab.run("term", "ip link set c1 down");
        }),
        across(&lab, &gateway, "192.0.2.2", || {
            lab.run("term", "ip link set c1 up");
            lab.run("term", "ip route replace default via 10.1.0.1 dev c1 metric 100");
            lab.run("term", "ip link set c2 down");
        }),
        across(&lab, &gateway, "192.0.3.2", || {
            lab.run("term", "ip link set c1 down");
        }),
    ];
    assert!(lost.iter().all(|lost| *lost < MAX_LOST), "{lost:?}");
    let peer = gateway.peers().remove(0);
    assert_eq!(peer.peer, identity, "the link is the same");
    assert!(peer.moves >= 3, "{peer:?}");
    assert_eq!(gateway.counted("established"), 1);
}

#[test]
fn terminals_nat_forgets_its_mapping() {
    let lab = mobile_lab();
    let (gateway, _client) = connected(&lab, &(gateway_head("") + &psk("")), "", "net");
    let lost = across(&lab, &gateway, "192.0.2.3", || {
        lab.run("nat", "ip address add 192.0.2.3/24 dev out");
        lab.run("nat", "ip address del 192.0.2.2/24 dev out");
        lab.run("nat", "ip address replace 192.0.2.3/24 dev out");
        lab.run("nat", "ip route replace default via 192.0.2.1");
    });
    assert!(lost < MAX_LOST, "{lost}");
    assert_eq!(gateway.counted("established"), 1);
}
