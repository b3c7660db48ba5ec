//! How long a terminal behind a NAT waits for a gateway that is silent.

use crate::{
    mappings::{behind, check, nat},
    pair::Pair,
};
use std::time::Duration;
use wayfarer::sim::ike::connections::{gateway, terminal};
use wayfarer_mobility::ike::{event::Event, reason::Reason, settings::Settings};

const SECOND: Duration = Duration::from_secs(1);

/// Returns how long after the gateway's last word the terminal asks whether it is there, and how long until
/// it gives it up, if it sends in vain all the time.
fn patience(mut pair: Pair) -> [Duration; 2] {
    check(&mut pair);
    let (mut sent, begun, mut asks_after) = (0, pair.now, None);
    while pair.terminal.end_reasons().is_empty() {
        let known = pair.terminal.events.len();
        (pair.now, sent) = (pair.now + SECOND, sent + 1);
        pair.terminal.endpoint.handle_timeout(pair.now);
        let mut messages = pair.up();
        for event in &pair.terminal.events[known..] {
            match event {
                Event::TrafficDue { peer } => {
                    pair.terminal.endpoint.handle_traffic(pair.now, *peer, sent, 0);
                }
                Event::LivenessDue { peer } => {
                    pair.terminal.endpoint.handle_liveness(pair.now, *peer, false);
                }
                _ => {}
            }
        }
        messages.extend(pair.up());
        if !messages.is_empty() {
            asks_after.get_or_insert(pair.now - begun);
        }
        assert!(pair.now < begun + 300 * SECOND);
    }
    assert_eq!(pair.terminal.end_reasons(), [Reason::Timeout]);
    [asks_after.expect("a request"), pair.now - begun]
}

#[test]
fn terminal_that_asks_early_gives_the_gateway_up_no_sooner() {
    let [asks_after, plain] = patience(Pair::connected(gateway(), terminal()));
    assert_eq!(Some(asks_after), terminal().liveness);
    let [asks_after, asking] = patience(behind(nat(), terminal()));
    assert!(asks_after <= 6 * SECOND, "{asks_after:?}");
    assert!(asking >= plain, "{asking:?} instead of {plain:?}");
    // The time of one that begins to ask now, and then until the try that is under way is over.
    let retransmission = Settings::default().retransmission;
    let latest = plain + asks_after + retransmission.after(retransmission.tries) + SECOND;
    assert!(asking <= latest, "{asking:?} instead of {plain:?}");
}
