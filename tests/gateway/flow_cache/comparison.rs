//! A gateway that remembers flows and one that does not get the same packets and the same changes. The same
//! must come out of both, and both must count the same.
//!
//! ```text
//! WAYFARER_FLOW_SEED=7 WAYFARER_FLOW_PACKETS=10000000 cargo test --release --test gateway flow_cache
//! ```

use super::{
    changes::{Change, Disorder},
    gateway::TestGateway,
    output::{Output, compare},
    ports::Ports,
    traffic::Traffic,
    varied::{TERMINALS, varied},
};
use std::{
    env,
    sync::{Arc, Weak},
};
use wayfarer_dataplane::{
    drop::DropReason,
    sa::{InboundSa, OutboundSa},
};

/// Packets of one comparison, unless the environment says otherwise.
const PACKETS: u64 = 40_000;
/// The seed, unless the environment says otherwise. With it, every check refuses some packet.
const SEED: u64 = 15;
/// The bursts after which all changes are undone. In half of them there are changes, so that in the others
/// flows can be learnt.
const PERIOD: u64 = 32;

/// Returns the number that an environment variable holds, or `usual`.
fn number(name: &str, usual: u64) -> u64 {
    let parse =
        |text: String| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}: {text} is not a number"));
    env::var(name).map_or(usual, parse)
}

/// Runs comparisons with gateways on these ports whose policies discard if `discards`, each with new ones:
/// fragments that wait for the rest of their packets crowd each gateway's reassembly in another way in the
/// end.
fn run(ports: Ports, discards: bool) {
    let (seed, packets) = (number("WAYFARER_FLOW_SEED", SEED), number("WAYFARER_FLOW_PACKETS", PACKETS));
    for n in 0..packets.div_ceil(PACKETS) {
        run_once(ports, discards, seed + n, PACKETS.min(packets - n * PACKETS));
    }
}

fn run_once(ports: Ports, discards: bool, seed: u64, packets: u64) {
    println!("seed {seed}, {packets} packets");
    let specs: Vec<_> = (0..TERMINALS).map(varied).collect();
    let mut gateways = [0, 1 << 14].map(|flow_cache| TestGateway::on(ports, flow_cache, discards, &specs));
    let mut traffic = Traffic::new(seed);
    let mut disorder = Disorder::new(discards);
    let (mut sent, mut round, mut overtaken) = (0, 0, 0);
    while sent < packets {
        let changes: Vec<Change> = match round % PERIOD {
            0 => disorder.end(&mut traffic),
            at if at < PERIOD / 2 => {
                (0..traffic.random.below(3)).flat_map(|_| disorder.draw(&mut traffic)).collect()
            }
            _ => vec![],
        };
        let mut ghosts = vec![];
        for gateway in &mut gateways {
            ghosts.extend(changes.iter().filter_map(|change| make(change, gateway)));
        }
        let is_strict = traffic.random.percent(50) && !disorder.has_backward();
        let frames = traffic.burst(is_strict);
        sent += frames.len() as u64;
        let [without, with] = gateways.each_mut().map(|gateway| {
            frames.iter().for_each(|(port, frame)| gateway.put_frame(*port, frame));
            gateway.settle();
            Output::take(gateway)
        });
        match compare([&without, &with], &traffic.peers, is_strict) {
            Ok(is_other_order) => overtaken += u64::from(is_other_order),
            Err(why) => panic!("seed {seed}, burst {round}, after {changes:#?}:\n{why}"),
        }
        let is_gone = |(outbound, inbound): &Ghost| outbound.strong_count() + inbound.strong_count() == 0;
        assert!(
            ghosts.iter().all(is_gone),
            "seed {seed}, burst {round}: the key of a removed SA is still there"
        );
        round += 1;
    }
    // Packets of remembered flows overtake others of their burst.
    assert!(overtaken > round / 10, "only in {overtaken} of {round} bursts, flows were remembered");
    if packets == PACKETS && seed == SEED {
        assert_all_occurred(&gateways[1]);
    }
}

/// Both SAs of a tunnel, which this does not keep alive.
type Ghost = (Weak<OutboundSa>, Weak<InboundSa>);

/// Makes a change. Returns the SAs that it replaces by others.
fn make(change: &Change, gateway: &mut TestGateway) -> Option<Ghost> {
    let ghost = match change {
        Change::Install(spec) => gateway.pairs.get(&spec.n),
        _ => None,
    }
    .map(|pair| (Arc::downgrade(&pair.outbound), Arc::downgrade(&pair.inbound)));
    change.apply(gateway);
    ghost
}

/// Asserts that packets met every check that remembered flows have, and most others.
fn assert_all_occurred(gateway: &TestGateway) {
    let drops = gateway.drops();
    for reason in [
        DropReason::ForeignMac,
        DropReason::IpChecksum,
        DropReason::EspTruncated,
        DropReason::UnknownSpi,
        DropReason::ReplayStale,
        DropReason::ReplayDuplicate,
        DropReason::NotAuthentic,
        DropReason::InnerMalformed,
        DropReason::InnerSelector,
        DropReason::EcnForbidden,
        DropReason::SaExpired,
        DropReason::SequenceExhausted,
        DropReason::NoPolicy,
        DropReason::Discard,
        DropReason::Unprotected,
        DropReason::SourcePort,
        DropReason::Martian,
        DropReason::TooBig,
        DropReason::HopLimit,
        DropReason::NoRoute,
        DropReason::PortDown,
    ] {
        assert!(drops.iter().any(|(occurred, _)| *occurred == reason), "{reason:?} did not occur: {drops:?}");
    }
}

#[test]
fn same_comes_out_with_and_without_remembered_flows() {
    run(Ports::WithHost, false);
}

#[test]
fn same_comes_out_with_and_without_remembered_flows_in_vlans() {
    run(Ports::InVlans, false);
}

#[test]
fn same_comes_out_with_and_without_remembered_flows_where_policy_discards() {
    run(Ports::WithHost, true);
}
