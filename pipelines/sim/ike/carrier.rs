//! Carries messages between a gateway and its terminals.

use super::side::{Message, Side};
use crate::sim::nat::Endpoints;
use std::time::Duration;
use wayfarer_mobility::path::Addresses;

/// The direction of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the gateway.
    Up,
    /// To a terminal.
    Down,
}

/// Leaves the endpoints of every message as they are: a translation for [`settle`] and [`pass`].
pub fn straight(_: Duration, _: Way, endpoints: Endpoints) -> Option<Endpoints> {
    Some(endpoints)
}

/// Carries messages until there are none. Each gets the endpoints that `translate` returns, or is
/// lost if it returns `None`. Returns the gateway's messages to addresses where no terminal is.
///
/// # Panics
/// If the exchange of messages does not end.
pub fn settle(
    now: Duration,
    gateway: &mut Side,
    terminals: &mut [Side],
    mut translate: impl FnMut(Duration, Way, Endpoints) -> Option<Endpoints>,
) -> Vec<Message> {
    let mut lost = vec![];
    for _ in 0..1000 {
        let up: Vec<Message> = terminals.iter_mut().flat_map(|terminal| terminal.work(now)).collect();
        let down = gateway.work(now);
        if up.is_empty() && down.is_empty() {
            return lost;
        }
        let mut arrival = |way, Addresses { local: from, remote: to }| {
            let Endpoints { from, to } = translate(now, way, Endpoints { from, to })?;
            Some(Addresses { local: to, remote: from })
        };
        for (addresses, message) in up {
            if let Some(addresses) = arrival(Way::Up, addresses) {
                gateway.endpoint.handle_datagram(now, addresses, &message);
            }
        }
        for (sent, message) in down {
            let Some(addresses) = arrival(Way::Down, sent) else { continue };
            match terminals.iter_mut().find(|terminal| terminal.is_at(addresses.local.ip())) {
                Some(terminal) => terminal.endpoint.handle_datagram(now, addresses, &message),
                None => lost.push((sent, message)),
            }
        }
    }
    panic!("the exchange of messages does not end")
}

/// Lets time pass, timer by timer, and carries messages as [`settle`] does. No packet reaches the
/// data plane meanwhile.
pub fn pass(
    now: &mut Duration,
    time: Duration,
    gateway: &mut Side,
    terminals: &mut [Side],
    mut translate: impl FnMut(Duration, Way, Endpoints) -> Option<Endpoints>,
) -> Vec<Message> {
    let (until, mut lost) = (*now + time, vec![]);
    loop {
        let sides = terminals.iter().chain([&*gateway]);
        let next = sides.filter_map(|side| side.endpoint.poll_timeout()).min();
        let Some(next) = next.filter(|next| *next <= until) else { break };
        *now = next.max(*now);
        terminals.iter_mut().chain([&mut *gateway]).for_each(|side| side.endpoint.handle_timeout(*now));
        lost.extend(settle(*now, gateway, terminals, &mut translate));
    }
    *now = until;
    lost
}
