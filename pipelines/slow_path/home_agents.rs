//! Security information updates: home agents say where terminals are, and links move there. See `docs/siu.md`.

use super::{line_limit::LineLimit, links::Links, tunnels::Tunnel};
use crate::{
    config::model,
    control::protocol::{FollowerView, HomeAgentView},
    primitives::OsRandom,
};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use tracing::{field::display, warn};
use wayfarer_dataplane::drop::DropReason;
use wayfarer_mobility::mip::siu::{Malformed, Outcome, Receiver, Status, Update};

/// The home agents whose updates move links, by the address that these come from.
#[derive(Debug, Default)]
pub(super) struct HomeAgents(BTreeMap<IpAddr, HomeAgent>);

#[derive(Debug)]
struct HomeAgent {
    name: String,
    receiver: Receiver,
    counts: Counts,
    lines: LineLimit,
}

/// What has become of a home agent's datagrams.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    done: u64,
    unknown_link: u64,
    refused: u64,
    unreachable: u64,
    /// Repetitions, those of another series of numbers, and late ones: nothing was to be done.
    answered_only: u64,
    malformed: u64,
}

impl HomeAgents {
    /// Creates the state for the home agents of a configuration.
    pub(super) fn new(config: &[model::Siu]) -> Self {
        let agent = |one: &model::Siu| HomeAgent {
            name: one.name.clone(),
            receiver: Receiver::new(one.key.clone(), &OsRandom),
            counts: Counts::default(),
            lines: LineLimit::default(),
        };
        Self(config.iter().map(|one| (one.address, agent(one))).collect())
    }

    /// Returns true if one of them has this address.
    pub(super) fn knows(&self, address: IpAddr) -> bool {
        self.0.contains_key(&address)
    }

    /// Takes a datagram from this address. Returns the packet to forward, which may be empty, and the answer.
    ///
    /// # Errors
    /// `NoHomeAgent` if none has this address, `ControlFormat` if it is no update of its.
    pub(super) fn receive(
        &mut self,
        now: Duration,
        from: IpAddr,
        datagram: &[u8],
        links: &mut Links,
    ) -> Result<(Vec<u8>, Vec<u8>), DropReason> {
        let agent = self.0.get_mut(&from).ok_or(DropReason::NoHomeAgent)?;
        agent.receive(now, from, datagram, links).map_err(|why| {
            agent.counts.malformed += 1;
            if let Some(left_out) = agent.lines.admits(now) {
                warn!(name: "update_malformed", home_agent = agent.name, %why, left_out, "no update");
            }
            DropReason::ControlFormat
        })
    }

    /// Returns them as the control socket shows them.
    pub(super) fn view(&self, links: &Links) -> Vec<HomeAgentView> {
        let view = |(address, agent): (&IpAddr, &HomeAgent)| {
            let Counts { done, unknown_link, refused, unreachable, answered_only, malformed } = agent.counts;
            let follower = |(home, care_of, tunnel): (IpAddr, Option<IpAddr>, &Tunnel)| FollowerView {
                tunnel: tunnel.name.to_string(),
                home: home.to_string(),
                care_of: care_of.map(|care_of| care_of.to_string()),
                path: tunnel.path().map(|path| path.to_string()),
            };
            HomeAgentView {
                name: agent.name.clone(),
                address: address.to_string(),
                done,
                unknown_link,
                refused,
                unreachable,
                answered_only,
                malformed,
                links: links.followers_of(*address).map(follower).collect(),
            }
        };
        self.0.iter().map(view).collect()
    }
}

impl HomeAgent {
    /// Takes a datagram from this address. Returns the packet to forward, which may be empty, and the answer.
    fn receive(
        &mut self,
        now: Duration,
        from: IpAddr,
        datagram: &[u8],
        links: &mut Links,
    ) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        let mut done = None;
        let answer = self.receiver.receive(datagram, |update| {
            let outcome = links.handle_update(now, from, &update);
            done = Some((update, outcome));
            outcome
        })?;
        let mut forwarded = vec![];
        match done {
            None => self.counts.answered_only += 1,
            Some((update, outcome)) => {
                self.count(now, &update, outcome);
                if outcome == Outcome::Done {
                    forwarded = update.reply;
                }
            }
        }
        Ok((forwarded, answer))
    }

    fn count(&mut self, now: Duration, update: &Update, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Done => &mut self.counts.done,
            Outcome::UnknownLink => &mut self.counts.unknown_link,
            Outcome::Refused => &mut self.counts.refused,
            Outcome::Unreachable => &mut self.counts.unreachable,
        };
        *counter += 1;
        if outcome != Outcome::Done
            && let Some(left_out) = self.lines.admits(now)
        {
            let Update { home, old, new, .. } = update;
            let why = display(Status::from(outcome));
            warn!(
                name: "update_refused", home_agent = self.name, %home, from = %old, to = %new, why, left_out,
                "update refused"
            );
        }
    }
}
