//! Messages in fragments (RFC 7383) on paths that take less than the configuration says.

use crate::{
    followup::{assert_only_one_each, begin_rekey, connected, with_more},
    pair::Pair,
};
use std::time::Duration;
use wayfarer_mobility::crypto::Kex;

/// The headers of IPv4, UDP and the marker before IKE, in bytes.
const HEADERS: usize = 20 + 8 + 4;

/// Rekeys the IKE SA by messages of 1568 bytes and more in both directions. Returns the length of the
/// longest IP packet from each side, in bytes.
fn longest_of_a_rekey(pair: &mut Pair) -> [usize; 2] {
    begin_rekey(pair, false, true);
    let mut longest = [0; 2];
    loop {
        let sent = [pair.up(), pair.down()];
        for (messages, longest) in sent.iter().zip(&mut longest) {
            *longest = messages.iter().fold(*longest, |most, (_, message)| most.max(HEADERS + message.len()));
        }
        let [up, down] = sent;
        if up.is_empty() && down.is_empty() {
            break;
        }
        up.iter().for_each(|message| pair.deliver_up(message));
        down.iter().for_each(|message| pair.deliver_down(message));
    }
    pair.pass(Duration::from_secs(10));
    assert_only_one_each(pair);
    longest
}

#[test]
fn fragments_are_no_longer_than_what_the_path_is_known_to_take() {
    let offers = [with_more(&[Kex::MlKem1024])];
    let mut pair = connected(&offers, &offers);
    let know = |pair: &mut Pair, mtu| {
        let [here, there] = pair.connected_peers().map(|all| all[0]);
        pair.terminal.endpoint.handle_path_mtu(pair.now, here, mtu);
        pair.gateway.endpoint.handle_path_mtu(pair.now, there, mtu);
    };
    let fill = |longest: [usize; 2], most| longest.iter().all(|length| (most - 100..=most).contains(length));
    assert!(fill(longest_of_a_rekey(&mut pair), 1280));
    know(&mut pair, Some(600));
    for _ in 0..2 {
        // The new IKE SA has the same path.
        let longest = longest_of_a_rekey(&mut pair);
        assert!(fill(longest, 600), "{longest:?}");
    }
    // What was configured stays the most.
    for mtu in [Some(1400), None] {
        know(&mut pair, mtu);
        let longest = longest_of_a_rekey(&mut pair);
        assert!(fill(longest, 1280), "{mtu:?} {longest:?}");
    }
}
