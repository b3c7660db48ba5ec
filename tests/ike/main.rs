//! IKEv2 between endpoints of ours: what needs no network.

#[path = "ike/bounds.rs"]
mod bounds;
#[path = "ike/devices.rs"]
mod devices;
#[path = "ike/doubts.rs"]
mod doubts;
#[path = "ike/exchanges.rs"]
mod exchanges;
#[path = "ike/fleet.rs"]
mod fleet;
#[path = "ike/hostile.rs"]
mod hostile;
#[path = "ike/identities.rs"]
mod identities;
#[path = "ike/insider.rs"]
mod insider;
#[path = "ike/no_nats.rs"]
mod no_nats;
#[path = "ike/node.rs"]
mod node;
#[path = "ike/pair.rs"]
mod pair;
#[path = "ike/storms.rs"]
mod storms;
#[path = "ike/world.rs"]
mod world;

use pair::{Pair, gateway, terminal};
use std::time::Duration;
use wayfarer_mobility::ike::event::{ChildSa, Event};

fn children(events: &[Event]) -> Vec<&ChildSa> {
    let up = |event: &'_ Event| matches!(event, Event::ChildUp { .. });
    events
        .iter()
        .filter(|event| up(event))
        .filter_map(|event| match event {
            Event::ChildUp { sa, .. } => Some(sa),
            _ => None,
        })
        .collect()
}

#[test]
fn both_have_the_same_keys_and_selectors() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.connect();
    let (ours, theirs) = (children(&pair.gateway.events), children(&pair.terminal.events));
    let ([ours], [theirs]) = (&ours[..], &theirs[..]) else {
        panic!("{:#?} {:#?}", pair.gateway.events, pair.terminal.events)
    };
    assert_eq!((ours.spi_in, ours.spi_out), (theirs.spi_out, theirs.spi_in));
    assert_eq!((&ours.key_in, &ours.key_out), (&theirs.key_out, &theirs.key_in));
    assert_ne!(ours.key_in, ours.key_out);
    assert_eq!((&ours.local, &ours.remote), (&theirs.remote, &theirs.local));
    assert_eq!(ours.path.udp, None, "there is no NAT");
}

#[test]
fn keys_change_and_nothing_is_left_behind() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.connect();
    pair.pass(Duration::from_secs(12 * 3600));
    let ups = children(&pair.gateway.events).len();
    let downs = pair.gateway.events.iter().filter(|e| matches!(e, Event::ChildDown { .. })).count();
    assert!((12..=30).contains(&ups), "{ups}");
    assert!(
        !pair.gateway.events.iter().any(|e| matches!(e, Event::PeerDown { .. })),
        "{:#?}",
        pair.gateway.events
    );
    assert!(ups - downs <= 2, "{ups} {downs}");
}
