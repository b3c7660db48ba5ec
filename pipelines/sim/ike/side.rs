//! An endpoint whose tasks run at once.

use super::{connections::GATEWAY, habits::LibreswanAnswers, seeded::Seeded};
use crate::primitives::Primitives;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        endpoint::Endpoint,
        event::{ChildSa, Event, PeerId},
        pool::Pool,
        reason::Reason,
        settings::Settings,
        view::State,
    },
    path::Addresses,
    task::Outcome,
    transmit::Payload,
};

/// A message on its way, with its addresses as the sender sees them.
pub type Message = (Addresses, Vec<u8>);

/// One of the two sides of IKE.
#[derive(Debug)]
pub struct Side {
    /// The side's endpoint.
    pub endpoint: Endpoint,
    /// Events of the endpoint so far.
    pub events: Vec<Event>,
    /// The side's address; `None` if it has every address.
    pub at: Option<IpAddr>,
    /// A habit that the side has; it must log its keys then.
    pub libreswan_answers: Option<LibreswanAnswers>,
}

impl Side {
    /// Makes a side with two address pools, "first" and "second". All secrets, SPIs and jitter come from `seed`, but key
    /// pairs do not.
    pub fn new(connections: Vec<Connection>, settings: Settings, seed: u64) -> Self {
        let pool = |(net, name)| Pool::new([10, 98, net, 1].into(), [10, 98, net, 254].into()).named(name);
        let pools = [(0, "first"), (1, "second")].map(pool);
        Self::with_pools(connections, pools.into(), settings, seed)
    }

    /// Makes a side as [`Side::new`] does, with these pools.
    pub fn with_pools(connections: Vec<Connection>, pools: Vec<Pool>, settings: Settings, seed: u64) -> Self {
        let random = Arc::new(Seeded::new(seed));
        let endpoint = Endpoint::new(Arc::new(Primitives), random, connections, pools, settings);
        Self { endpoint, events: vec![], at: None, libreswan_answers: None }
    }

    /// Returns whether messages to `address` reach this side.
    pub fn is_at(&self, address: IpAddr) -> bool {
        self.at.is_none_or(|at| at == address)
    }

    /// Returns the child SAs that came up.
    pub fn children(&self) -> Vec<&ChildSa> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::ChildUp { sa, .. } => Some(sa),
                _ => None,
            })
            .collect()
    }

    /// Returns the newest child SA that is up.
    ///
    /// # Panics
    /// If none is.
    pub fn newest_child(&self) -> &ChildSa {
        let is_up = |child| self.endpoint.peers().any(|peer| peer.children().any(|up| up == child));
        let up = |event: &'_ Event| matches!(event, Event::ChildUp { child, .. } if is_up(*child));
        match self.events.iter().rfind(|event| up(event)) {
            Some(Event::ChildUp { sa, .. }) => sa,
            _ => panic!("no child SA is up"),
        }
    }

    /// Returns the reasons why connections ended or failed.
    pub fn end_reasons(&self) -> Vec<Reason> {
        let reason = |event: &Event| match event {
            Event::PeerDown { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        self.events.iter().filter_map(reason).collect()
    }

    /// Returns the peers that are connected.
    pub fn connected_peers(&self) -> Vec<PeerId> {
        self.endpoint.peers().filter(|peer| peer.state() == State::Up).map(|peer| peer.id()).collect()
    }

    /// Runs the endpoint's tasks, and returns the messages that it sends.
    pub fn work(&mut self, now: Duration) -> Vec<Message> {
        run_tasks(&mut self.endpoint, now);
        let Self { endpoint, events, libreswan_answers, .. } = self;
        let known = events.len();
        events.extend(std::iter::from_fn(|| endpoint.poll_event()));
        if let Some(habit) = libreswan_answers {
            events[known..].iter().for_each(|event| habit.learn(event));
        }
        let sent: Vec<_> = std::iter::from_fn(|| endpoint.poll_transmit()).collect();
        sent.into_iter()
            .filter_map(|t| match (t.payload, &mut *libreswan_answers) {
                (Payload::Message(message) | Payload::Probe(message), Some(habit)) => {
                    Some((habit.way(endpoint, t.addresses, &message), habit.apply(endpoint, message)))
                }
                (Payload::Message(message) | Payload::Probe(message), None) => Some((t.addresses, message)),
                (Payload::Keepalive, _) => None,
            })
            .collect()
    }
}

/// Runs all tasks of an endpoint.
pub fn run_tasks(endpoint: &mut Endpoint, now: Duration) {
    while let Some((id, _, task)) = endpoint.poll_task() {
        let mut outcome = task.run(&Primitives);
        while let Outcome::Postponed(task, _) = outcome {
            outcome = task.run(&Primitives);
        }
        endpoint.handle_outcome(now, id, outcome);
    }
}

/// Returns the addresses of a message to the gateway from `address`, as the gateway sees them, with
/// the same port on both sides.
pub fn to_gateway(address: [u8; 4], port: u16) -> Addresses {
    Addresses { local: SocketAddr::from((GATEWAY, port)), remote: SocketAddr::from((address, port)) }
}

/// Returns the addresses as the other side sees them.
pub fn reversed(Addresses { local, remote }: Addresses) -> Addresses {
    Addresses { local: remote, remote: local }
}
