//! NATs that forget a terminal and give it another port, which the gateway has to hear of (RFC 4555 §3.8) or,
//! without MOBIKE, to see (RFC 7296 §2.23).

use crate::pair::Pair;
use std::{collections::BTreeMap, time::Duration};
use wayfarer::sim::{
    ike::{
        connections::{GATEWAY, TERMINAL, gateway, terminal},
        habits::LibreswanAnswers,
        side::reversed,
    },
    nat::{Endpoints, Kind, Nat},
};
use wayfarer_mobility::ike::{
    connection::{Connection, Lifetimes},
    event::{Event, PeerId},
    settings::Settings,
    wire::{self, Header, Payload, flags, notify},
};

const SECOND: Duration = Duration::from_secs(1);
const NAT: [u8; 4] = [198, 51, 100, 9];

pub(super) fn nat() -> Nat {
    Nat::new(NAT.into(), Kind::ALL[0])
}

/// Connects a terminal behind a NAT, and lets it learn how the gateway sees it.
pub(super) fn behind(nat: Nat, terminal: Connection) -> Pair {
    let mut pair = Pair::behind(nat, gateway(), terminal);
    pair.pass(3 * SECOND);
    pair
}

/// Returns a terminal's connection without MOBIKE.
fn without_mobike() -> Connection {
    Connection { mobike: false, ..terminal() }
}

/// Connects a terminal in the same way to libreswan's gateway, which can forget MOBIKE.
fn behind_with_libreswan(forgets_mobike: bool, terminal: Connection) -> Pair {
    let mut pair = connected_to_libreswan(forgets_mobike, terminal);
    pair.pass(3 * SECOND);
    pair
}

/// Connects a terminal behind a NAT to libreswan's gateway, which it has not asked yet how it sees it.
fn connected_to_libreswan(forgets_mobike: bool, terminal: Connection) -> Pair {
    let mut answers = LibreswanAnswers::default();
    answers.forgets_mobike = forgets_mobike;
    connected_to_other(Some(answers), terminal)
}

/// Connects a terminal behind a NAT to a gateway that is not Wayfarer.
fn connected_to_other(libreswan_answers: Option<LibreswanAnswers>, terminal: Connection) -> Pair {
    let settings = Settings { log_keys: true, vendor_id: false, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal, settings);
    pair.gateway.libreswan_answers = libreswan_answers;
    pair.nat = Some(nat());
    pair.connect();
    pair
}

/// Decides whether the gateway answers as if it had forgotten MOBIKE.
fn set_forgets_mobike(pair: &mut Pair, forgets_mobike: bool) {
    pair.gateway.libreswan_answers.as_mut().unwrap().forgets_mobike = forgets_mobike;
}

/// Has the NAT forget the terminal.
fn restart_nat(pair: &mut Pair) {
    pair.nat.as_mut().unwrap().restart();
}

/// Has the terminal check whether the gateway is alive.
pub(super) fn check(pair: &mut Pair) {
    let here = pair.connected_peers()[0][0];
    pair.terminal.endpoint.handle_liveness(pair.now, here, false);
    pair.settle();
}

/// Counts the terminal's events that `is_it` accepts.
fn count(pair: &Pair, is_it: impl Fn(&Event) -> bool) -> usize {
    pair.terminal.events.iter().filter(|event| is_it(event)).count()
}

/// Counts how often the terminal has found another mapping, and how often the gateway has accepted an update.
fn changes_and_updates(pair: &Pair) -> [usize; 2] {
    let changes = count(pair, |event| matches!(event, Event::MappingChanged { .. }));
    [changes, count(pair, |event| matches!(event, Event::MoveAnswered { refusal: None, .. }))]
}

/// Counts how often the terminal has authenticated, and how often it says that nothing comes.
fn starts_and_silences(pair: &Pair) -> [usize; 2] {
    let starts = count(pair, |event| matches!(event, Event::PeerUp { .. }));
    [starts, count(pair, |event| matches!(event, Event::EspSilent { .. }))]
}

/// Asserts that the gateway sends where the NAT lets packets to the terminal in.
#[track_caller]
fn assert_reachable(pair: &mut Pair) {
    let seen = pair.gateway.endpoint.peers().last().unwrap().addresses().remote;
    let nat = pair.nat.as_mut().unwrap();
    let ends = nat.inbound(pair.now, Endpoints { from: (GATEWAY, 4500).into(), to: seen });
    assert_eq!(ends.map(|ends| ends.to), Some((TERMINAL, 4500).into()), "{seen}");
}

/// Packets that the terminal's data plane has sent to each peer and received from it so far.
#[derive(Default)]
struct Traffic(BTreeMap<PeerId, [u64; 2]>);

impl Traffic {
    /// Lets seconds pass until `is_over`. In each of them, so many more packets are sent and received by
    /// the newest link. Returns their number.
    fn pass(
        &mut self,
        pair: &mut Pair,
        seconds: u64,
        [sent, received]: [u64; 2],
        is_over: impl Fn(&Pair) -> bool,
    ) -> u64 {
        for second in 0..seconds {
            if is_over(pair) {
                return second;
            }
            let newest = pair.terminal.connected_peers().pop().unwrap();
            let so_far = self.0.entry(newest).or_default();
            *so_far = [so_far[0] + sent, so_far[1] + received];
            let mut known = pair.terminal.events.len();
            pair.pass(SECOND);
            while known < pair.terminal.events.len() {
                let new = known..pair.terminal.events.len();
                known = new.end;
                for event in &pair.terminal.events[new] {
                    match event {
                        Event::TrafficDue { peer } => {
                            let [sent, received] = self.0.get(peer).copied().unwrap_or_default();
                            pair.terminal.endpoint.handle_traffic(pair.now, *peer, sent, received);
                        }
                        Event::LivenessDue { peer } => {
                            pair.terminal.endpoint.handle_liveness(pair.now, *peer, received > 0);
                        }
                        _ => {}
                    }
                }
                pair.settle();
            }
        }
        seconds
    }
}

fn never(_: &Pair) -> bool {
    false
}

#[test]
fn gateway_hears_of_another_port_at_the_next_liveness_check() {
    for nat in Nat::all(NAT.into()) {
        let mut pair = behind(nat.clone(), terminal());
        (0..3).for_each(|_| check(&mut pair));
        assert_eq!(changes_and_updates(&pair), [0; 2], "{nat}");
        restart_nat(&mut pair);
        // The same host may get the same port again.
        let times = usize::from(!nat.preserves_ports);
        for _ in 0..5 {
            check(&mut pair);
            assert_reachable(&mut pair);
            assert_eq!(changes_and_updates(&pair), [times; 2], "{nat}");
            pair.pass(10 * SECOND);
        }
    }
}

#[test]
fn new_keys_of_the_ike_sa_cause_no_update_and_hide_none() {
    for by_terminal in [true, false] {
        let mut pair = behind(nat(), terminal());
        for rounds in 0..3 {
            let [here, there] = pair.connected_peers().map(|all| all[0]);
            match by_terminal {
                true => pair.terminal.endpoint.rekey(pair.now, here, true),
                false => pair.gateway.endpoint.rekey(pair.now, there, true),
            }
            pair.settle();
            pair.pass(3 * SECOND);
            check(&mut pair);
            assert_eq!(changes_and_updates(&pair), [rounds; 2]);
            restart_nat(&mut pair);
            check(&mut pair);
            assert_eq!(changes_and_updates(&pair), [rounds + 1; 2]);
            assert_reachable(&mut pair);
        }
    }
}

/// A hash of the new IKE SA cannot be compared with one of the old one.
#[test]
fn mapping_is_checked_before_the_ike_sa_gets_new_keys() {
    let lifetimes = Lifetimes { ike_sa: 100 * SECOND, ..terminal().lifetimes };
    let mut pair = behind(nat(), Connection { lifetimes, ..terminal() });
    let before = pair.terminal.endpoint.peers().next().unwrap().spis();
    pair.pass(30 * SECOND);
    restart_nat(&mut pair);
    pair.pass(100 * SECOND);
    assert_ne!(pair.terminal.endpoint.peers().next().unwrap().spis(), before);
    assert_eq!(changes_and_updates(&pair), [1; 2]);
    assert_reachable(&mut pair);
}

#[test]
fn gateway_hears_of_another_port_within_seconds_if_the_terminal_sends_in_vain() {
    for is_restarted in [true, false] {
        let mut pair = behind(nat(), terminal());
        let mut traffic = Traffic::default();
        traffic.pass(&mut pair, 5, [5, 5], never);
        if is_restarted {
            restart_nat(&mut pair);
        }
        let dark = traffic.pass(&mut pair, 60, [5, 0], |pair| changes_and_updates(pair)[1] > 0);
        assert_eq!(dark <= 6, is_restarted, "{dark} s");
        assert_eq!(changes_and_updates(&pair), [usize::from(is_restarted); 2]);
        assert_reachable(&mut pair);
        // It may also be sending what needs no answer.
        traffic.pass(&mut pair, 60, [5, 0], never);
        assert_eq!(changes_and_updates(&pair), [usize::from(is_restarted); 2]);
        assert_eq!(starts_and_silences(&pair), [1, 0]);
        // Each time is found.
        traffic.pass(&mut pair, 5, [5, 5], never);
        restart_nat(&mut pair);
        traffic.pass(&mut pair, 6, [5, 0], never);
        assert_eq!(changes_and_updates(&pair), [1 + usize::from(is_restarted); 2]);
    }
}

/// libreswan answers with the terminal's earlier end until it is told of the new one.
#[test]
fn gateway_that_sees_no_change_is_told_after_silence() {
    let mut pair = behind_with_libreswan(false, terminal());
    let mut traffic = Traffic::default();
    for times in 1..=3 {
        traffic.pass(&mut pair, 60, [5, 5], never);
        restart_nat(&mut pair);
        (0..3).for_each(|_| check(&mut pair));
        assert_eq!(changes_and_updates(&pair), [times - 1; 2], "only silence shows it");
        let dark = traffic.pass(&mut pair, 60, [5, 0], |pair| changes_and_updates(pair)[1] == times);
        assert!(dark <= 6, "{dark} s");
        assert_reachable(&mut pair);
    }
    traffic.pass(&mut pair, 60, [5, 5], never);
    assert_eq!((changes_and_updates(&pair), starts_and_silences(&pair)), ([3; 2], [1, 0]));
}

/// OpenIKED's on Linux: its kernel keeps the addresses that the SAs began with.
#[test]
fn gateway_that_accepts_updates_and_carries_none_out_is_dialled_anew() {
    let mut pair = connected_to_other(None, terminal());
    let mut traffic = Traffic::default();
    for times in 1..=3 {
        traffic.pass(&mut pair, 60, [5, 5], never);
        restart_nat(&mut pair);
        let dark =
            traffic.pass(&mut pair, 60, [5, 0], |pair| starts_and_silences(pair) == [1 + times, times]);
        assert!((15..=30).contains(&dark), "{dark} s");
        assert_eq!(changes_and_updates(&pair), [times; 2]);
        assert_reachable(&mut pair);
    }
    // A new link by which nothing has come may carry what needs no answer.
    traffic.pass(&mut pair, 600, [5, 0], never);
    assert_eq!(starts_and_silences(&pair), [4, 3]);
}

#[test]
fn traffic_one_way_causes_ever_fewer_updates_and_nothing_else() {
    let mut pair = behind_with_libreswan(false, terminal());
    let mut traffic = Traffic::default();
    let updates = [60, 540, 1500, 1500].map(|seconds| {
        let before = changes_and_updates(&pair)[1];
        traffic.pass(&mut pair, seconds, [5, 0], never);
        changes_and_updates(&pair)[1] - before
    });
    assert!(updates.iter().all(|updates| (3..=6).contains(updates)), "{updates:?}");
    assert_eq!(changes_and_updates(&pair)[0], 0, "the mapping is the same");
    assert_eq!(starts_and_silences(&pair), [1, 0]);
    // What comes shows that the next silence is another one.
    traffic.pass(&mut pair, 5, [5, 5], never);
    restart_nat(&mut pair);
    let all = changes_and_updates(&pair)[1];
    let dark = traffic.pass(&mut pair, 60, [5, 0], |pair| changes_and_updates(pair)[1] > all);
    assert!(dark <= 6, "{dark} s");
    assert_reachable(&mut pair);
}

/// After a move in UDP, long silence would lead to another authentication, had anything ever come.
#[test]
fn gateway_that_has_sent_nothing_is_told_of_a_new_port_after_a_move_too() {
    let mut pair = behind_with_libreswan(false, terminal());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    for address in [[192, 0, 2, 99], TERMINAL] {
        pair.terminal.endpoint.handle_local(pair.now, here, address.into(), None).unwrap();
        pair.settle();
    }
    restart_nat(&mut pair);
    let all = changes_and_updates(&pair)[1];
    let dark = Traffic::default().pass(&mut pair, 60, [5, 0], |pair| changes_and_updates(pair)[1] > all);
    assert!(dark <= 6, "{dark} s");
    assert_reachable(&mut pair);
}

#[test]
fn gateway_that_never_says_how_it_sees_the_terminal_gets_no_update() {
    let mut pair = behind_with_libreswan(true, terminal());
    restart_nat(&mut pair);
    (0..3).for_each(|_| check(&mut pair));
    Traffic::default().pass(&mut pair, 30, [5, 0], never);
    assert_eq!(changes_and_updates(&pair), [0; 2]);
    assert_eq!(starts_and_silences(&pair), [1, 0], "nor is it dialled anew, again and again");
}

/// libreswan forgets MOBIKE when the IKE SA gets new keys. An update would be of no use then.
#[test]
fn terminal_authenticates_again_if_a_gateway_that_has_forgotten_mobike_sends_nothing() {
    for is_restarted in [true, false] {
        let mut pair = behind_with_libreswan(false, terminal());
        let mut traffic = Traffic::default();
        traffic.pass(&mut pair, 5, [5, 5], never);
        set_forgets_mobike(&mut pair, true);
        if is_restarted {
            restart_nat(&mut pair);
        }
        traffic.pass(&mut pair, 10, [5, u64::from(!is_restarted)], never);
        let times = usize::from(is_restarted);
        assert_eq!(starts_and_silences(&pair), [1 + times, times]);
        // The terminal gives up the old IKE SA, whose answers do not reach it.
        pair.pass(70 * SECOND);
        assert_eq!(pair.connected_peers().map(|all| all.len()), [1; 2]);
        assert_reachable(&mut pair);
        assert_eq!(changes_and_updates(&pair), [0; 2]);
        // The new IKE SA has not said anything that it could have forgotten.
        traffic.pass(&mut pair, 30, [5, 0], never);
        assert_eq!(starts_and_silences(&pair)[0], 2);
    }
}

/// libreswan 5.4 without MOBIKE answers where it has known the terminal.
#[test]
fn terminal_authenticates_again_if_no_answer_finds_it() {
    for (mobike, is_restarted) in [(false, true), (false, false), (true, true)] {
        let mut pair = connected_to_libreswan(true, Connection { mobike, ..terminal() });
        pair.gateway.libreswan_answers.as_mut().unwrap().answers_known_end = true;
        let mut traffic = Traffic::default();
        traffic.pass(&mut pair, 30, [5, 5], never);
        if is_restarted {
            restart_nat(&mut pair);
        }
        let dark = traffic.pass(&mut pair, 60, [5, 0], |pair| starts_and_silences(pair)[0] == 2);
        let times = usize::from(is_restarted);
        assert_eq!(starts_and_silences(&pair), [1 + times, times], "{mobike} {is_restarted}");
        assert_eq!((15..=30).contains(&dark), is_restarted, "{dark} s");
        assert_reachable(&mut pair);
        traffic.pass(&mut pair, 120, [5, 5], never);
        assert_eq!(pair.connected_peers().map(|all| all.len()), [1; 2]);
        assert_eq!(starts_and_silences(&pair), [1 + times, times]);
    }
}

/// In IKE_SA_INIT, it has still said how it sees the terminal.
#[test]
fn gateway_may_forget_mobike_before_it_is_asked() {
    for by_terminal in [true, false] {
        let mut pair = connected_to_libreswan(false, terminal());
        let [here, there] = pair.connected_peers().map(|all| all[0]);
        match by_terminal {
            true => pair.terminal.endpoint.rekey(pair.now, here, true),
            false => pair.gateway.endpoint.rekey(pair.now, there, true),
        }
        pair.settle();
        set_forgets_mobike(&mut pair, true);
        let mut traffic = Traffic::default();
        traffic.pass(&mut pair, 8, [5, 5], never);
        restart_nat(&mut pair);
        traffic.pass(&mut pair, 10, [5, 0], never);
        assert_eq!(starts_and_silences(&pair), [2, 1]);
        traffic.pass(&mut pair, 30, [5, 0], never);
        assert_eq!((changes_and_updates(&pair), starts_and_silences(&pair)), ([0; 2], [2, 1]));
    }
}

/// strongSwan says how it sees a terminal even without MOBIKE, and some gateways follow none.
#[test]
fn without_mobike_a_terminal_that_is_seen_elsewhere_and_hears_nothing_authenticates_again() {
    let mut pair = behind(nat(), without_mobike());
    let mut traffic = Traffic::default();
    for times in [1, 2] {
        traffic.pass(&mut pair, 10, [5, 5], never);
        restart_nat(&mut pair);
        let dark = traffic.pass(&mut pair, 60, [5, 0], |pair| starts_and_silences(pair)[1] == times);
        assert!(dark <= 10, "{dark} s");
        assert_reachable(&mut pair);
        // Once for each time that the NAT has forgotten it.
        traffic.pass(&mut pair, 60, [5, 0], never);
        assert_eq!(starts_and_silences(&pair), [1 + times, times]);
    }
    assert_eq!(changes_and_updates(&pair), [0; 2]);
}

#[test]
fn without_mobike_a_gateway_that_follows_is_left_alone() {
    let mut pair = behind(nat(), without_mobike());
    let mut traffic = Traffic::default();
    traffic.pass(&mut pair, 5, [5, 5], never);
    restart_nat(&mut pair);
    check(&mut pair);
    for packets in [[5, 5], [5, 0]] {
        traffic.pass(&mut pair, 60, packets, never);
        assert_eq!(starts_and_silences(&pair), [1, 0]);
    }
}

/// libreswan without MOBIKE neither follows a terminal nor says how it sees it. So only silence shows that,
/// and programs may be silent too.
#[test]
fn without_mobike_and_any_word_only_long_silence_counts_and_rarely() {
    let mut pair = behind_with_libreswan(true, without_mobike());
    let mut traffic = Traffic::default();
    traffic.pass(&mut pair, 5, [5, 5], never);
    let waited = traffic.pass(&mut pair, 600, [5, 0], |pair| starts_and_silences(pair)[1] == 1);
    assert!((260..350).contains(&waited), "ten liveness checks after it has connected, not {waited} s");
    // Nothing has come by the new link.
    traffic.pass(&mut pair, 600, [5, 0], never);
    assert_eq!(starts_and_silences(&pair), [2, 1]);
    traffic.pass(&mut pair, 5, [5, 5], never);
    restart_nat(&mut pair);
    let dark = traffic.pass(&mut pair, 60, [5, 0], |pair| starts_and_silences(pair)[1] == 2);
    assert!((15..=30).contains(&dark), "{dark} s");
    assert_reachable(&mut pair);
}

#[test]
fn without_a_nat_nothing_is_asked() {
    let length = |mut pair: Pair| {
        let here = pair.connected_peers()[0][0];
        pair.terminal.endpoint.handle_liveness(pair.now, here, false);
        pair.up().remove(0).1.len()
    };
    for terminal in [terminal(), without_mobike()] {
        let mut pair = Pair::connected(gateway(), terminal.clone());
        pair.pass(60 * SECOND);
        assert_eq!(count(&pair, |event| matches!(event, Event::TrafficDue { .. })), 0);
        assert!(length(behind(nat(), terminal)) > length(pair));
    }
}

#[test]
fn forged_and_repeated_answers_cause_nothing() {
    let mut pair = behind(nat(), terminal());
    let here = pair.connected_peers()[0][0];
    pair.terminal.endpoint.handle_liveness(pair.now, here, false);
    // It reaches the gateway from another port than before.
    let (addresses, request) = pair.up().remove(0);
    pair.deliver_up(&(addresses, request.clone()));
    let (_, answer) = pair.down().remove(0);
    let header = Header { flags: flags::RESPONSE, ..Header::parse(&request).unwrap() };
    let hash = [7; 20];
    let plain = wire::emit_message(
        header,
        &[
            Payload::notify(notify::NAT_DETECTION_SOURCE_IP, &hash),
            Payload::notify(notify::NAT_DETECTION_DESTINATION_IP, &hash),
        ],
    );
    let mut changed = answer.clone();
    *changed.last_mut().unwrap() ^= 1;
    for forged in [plain, changed] {
        pair.deliver_down(&(reversed(addresses), forged));
        assert_eq!((pair.up(), changes_and_updates(&pair)), (vec![], [0; 2]));
    }
    pair.deliver_down(&(reversed(addresses), answer.clone()));
    assert_eq!((pair.up().len(), changes_and_updates(&pair)), (1, [1, 0]), "the update is on its way");
    pair.deliver_down(&(reversed(addresses), answer));
    assert_eq!((pair.up().len(), changes_and_updates(&pair)), (0, [1, 0]));
}
