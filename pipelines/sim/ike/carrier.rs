//! Carries messages between a gateway and its terminals.

use super::side::{Message, Side};
use crate::sim::nat::Ends;
use std::time::Duration;
use wayfarer_mobility::path::Addresses;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the gateway.
    Up,
    /// To a terminal.
    Down,
}

/// Leaves every message as it is: a way for [`settle`] and [`pass`].
pub fn straight(_: Duration, _: Way, ends: Ends) -> Option<Ends> {
    Some(ends)
}

/// Carries messages until there are none. On its way each gets the ends that `translate` returns, or
/// is lost. Returns those of the gateway that came to where no terminal is.
///
/// # Panics
/// If they talk without end.
pub fn settle(
    now: Duration,
    gateway: &mut Side,
    terminals: &mut [Side],
    mut translate: impl FnMut(Duration, Way, Ends) -> Option<Ends>,
) -> Vec<Message> {
    let mut lost = vec![];
    for _ in 0..1000 {
        let up: Vec<Message> = terminals.iter_mut().flat_map(|terminal| terminal.work(now)).collect();
        let down = gateway.work(now);
        if up.is_empty() && down.is_empty() {
            return lost;
        }
        let mut arrival = |way, Addresses { local: from, remote: to }| {
            let Ends { from, to } = translate(now, way, Ends { from, to })?;
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
    panic!("they talk without end")
}

/// Lets time pass, timer by timer, and carries messages as [`settle`] does. The data plane hears
/// nothing from anybody.
pub fn pass(
    now: &mut Duration,
    time: Duration,
    gateway: &mut Side,
    terminals: &mut [Side],
    mut translate: impl FnMut(Duration, Way, Ends) -> Option<Ends>,
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
