//! What a home agent knows after a restart.

use super::*;
use crate::mip::binding::Last;

#[test]
fn numbers_of_another_kind_do_not_count_after_a_change_of_the_configuration() {
    let last = Some(Last::Nonces(Identification(u64::MAX)));
    let stored = [(HOME, Bindings { tunnels: vec![], last })].into();
    let mut agent = HomeAgent::new(settings(), nodes(), stored, &Fixed);
    assert_eq!(code_of(&mut agent, START, &request(START)), Code::ACCEPTED);
}

#[test]
fn bindings_that_are_allowed_no_more_end_with_a_restart() {
    let mut first = agent();
    let gre = Request { flags: Flags { gre: true, ..Flags::default() }, ..request(START) };
    send(&mut first, START, &gre);
    let again = |settings: Settings| {
        let stored = first.all().map(|(home, bindings)| (home, bindings.clone())).collect();
        care_of(&HomeAgent::new(settings, nodes(), stored, &Fixed), HOME)
    };
    assert_eq!(again(settings()), [CARE_OF]);
    assert_eq!(again(Settings { encapsulations: vec![], ..settings() }), [] as [Ipv4Addr; 0]);
    // It would be the agent's own address.
    assert_eq!(again(Settings { address: CARE_OF, ..settings() }), [] as [Ipv4Addr; 0]);
}

#[test]
fn agent_that_starts_again_knows_its_bindings_and_old_requests() {
    let mut first = agent();
    send(&mut first, START, &request(START));
    let stored = first.all().map(|(home, bindings)| (home, bindings.clone())).collect();
    let mut again = HomeAgent::new(settings(), nodes(), stored, &Fixed);
    assert_eq!(care_of(&again, HOME), [CARE_OF]);
    assert_eq!(again.poll_timeout(), first.poll_timeout());
    assert_eq!(code_of(&mut again, START, &request(START)), Code::IDENTIFICATION);
    // A node that is configured no more.
    let stored = first.all().map(|(home, bindings)| (home, bindings.clone())).collect();
    let without = HomeAgent::new(settings(), Nodes::default(), stored, &Fixed);
    assert_eq!((without.all().count(), without.poll_timeout()), (0, None));
}
