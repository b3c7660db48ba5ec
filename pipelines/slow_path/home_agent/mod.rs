//! The gateway's own home agent: registrations, the bindings that they make, and the links that follow them.
//!
//! | module | contents |
//! |---|---|
//! | `store` | bindings in files, so that a restart forgets none |

mod store;

use super::{line_limit::LineLimit, links::Links, table_writer::TableWriter};
use crate::{config::model, control::protocol::BindingView, gateway::binding::CareOf, primitives::OsRandom};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    time::{Duration, SystemTime},
};
use store::Store;
use tracing::{field::display, info, warn};
use wayfarer_dataplane::wire::{Address, encapsulation};
use wayfarer_mobility::mip::{
    agent::{self, Change},
    binding::{Binding, Bindings},
    siu::{Outcome, Update},
    wire::{Code, Encapsulation},
};

/// The home agent.
#[derive(Debug)]
pub(super) struct HomeAgent {
    address: Ipv4Addr,
    protocol: agent::HomeAgent,
    /// `None` if a restart may forget the bindings.
    store: Option<Store>,
    lines: LineLimit,
}

/// What has become of a registration.
pub(super) struct Registered {
    /// The terminal's home address.
    pub(super) home: Ipv4Addr,
    /// Where the reply goes.
    pub(super) to: SocketAddrV4,
    /// The reply.
    pub(super) reply: Vec<u8>,
}

impl HomeAgent {
    /// Starts the home agent of a configuration with the bindings of its last run.
    ///
    /// # Errors
    /// Those of its store.
    pub(super) fn start(config: &model::HomeAgent, links: &mut Links) -> io::Result<Self> {
        let (store, known) = match &config.store {
            Some(path) => Store::open(path).map(|(store, known)| (Some(store), known))?,
            None => (None, BTreeMap::new()),
        };
        let mut protocol = agent::HomeAgent::new(config.settings(), config.nodes(), known, &OsRandom);
        protocol.handle_timeout(since_1970());
        let mut lost = vec![];
        for (home, bindings) in protocol.all() {
            let Some(binding) = bindings.tunnels.last() else { continue };
            match links.restore_care_of(config.address.into(), home.into(), binding.care_of.into()) {
                true => publish(home, &bindings.tunnels, &mut links.tables),
                false => lost.push(home),
            }
        }
        for home in lost {
            warn!(name: "binding_lost", %home, "the link of a terminal cannot have its care-of address any more, and its binding ends");
            protocol.end(home);
        }
        info!(name: "home_agent_started", address = %config.address, bindings = protocol.all().count(), "home agent started");
        Ok(Self { address: config.address, protocol, store, lines: LineLimit::default() })
    }

    /// Returns its address.
    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Returns the bindings as the control socket shows them.
    pub(super) fn view(&self) -> Vec<BindingView> {
        let now = since_1970();
        let view = |home: Ipv4Addr, binding: &Binding| BindingView {
            home: home.to_string(),
            care_of: binding.care_of.to_string(),
            encapsulation: name(binding.encapsulation).into(),
            reverse_tunnel: binding.reverse_tunnel,
            ends_in_s: binding.ends.map(|ends| ends.saturating_sub(now).as_secs_f64()),
        };
        let all = self.protocol.all();
        all.flat_map(|(home, known)| known.tunnels.iter().map(move |one| view(home, one))).collect()
    }

    /// Decides about a registration from `source`, and carries that out.
    ///
    /// # Errors
    /// Why it is not answered.
    pub(super) fn register(
        &mut self,
        now: Duration,
        message: &[u8],
        source: SocketAddrV4,
        links: &mut Links,
    ) -> Result<Registered, agent::RequestError> {
        let decision = self.protocol.decide(since_1970(), message, source)?;
        let (to, home) = (decision.to(), decision.home());
        let answered = |reply| Registered { home, to, reply };
        let Some((_, after)) = decision.to_store() else { return Ok(answered(decision.carry_out().0)) };
        let binding = after.tunnels.last().filter(|_| decision.code().is_accepted());
        let own = self.address.into();
        let plan = match binding.map(|binding| links.plan_update(own, &update(home, binding))) {
            None | Some(Err(Outcome::UnknownLink)) => None,
            Some(Ok(plan)) => Some(plan),
            Some(Err(_)) => return Ok(answered(decision.deny(Code::PROHIBITED))),
        };
        if let Err(why) = put(self.store.as_ref(), home, after) {
            if let Some(left_out) = self.lines.admits(now) {
                warn!(name: "binding_not_stored", %home, %why, left_out, "registration denied: the binding cannot be stored");
            }
            return Ok(answered(decision.deny(Code::RESOURCES)));
        }
        let loser = plan.as_ref().and_then(|plan| links.loser(plan)).filter(|loser| loser.agent == own);
        let loser = loser.and_then(|loser| v4(loser.address));
        // Before the other link gets the address, so that it gets none of the loser's packets.
        loser.iter().for_each(|loser| publish(*loser, &[], &mut links.tables));
        if plan.is_some_and(|plan| links.carry_out_update(now, plan) != Outcome::Done) {
            let reply = decision.deny(Code::PROHIBITED);
            let known = self.protocol.bindings(home).cloned().unwrap_or_default();
            let _ = put(self.store.as_ref(), home, &known);
            return Ok(answered(reply));
        }
        let (reply, change) = decision.carry_out();
        change.iter().for_each(|change| self.changed(now, change, links));
        if let Some(ended) = loser.and_then(|loser| self.protocol.end(loser)) {
            self.store_end(now, ended.home);
            self.changed(now, &ended, links);
        }
        Ok(answered(reply))
    }

    /// Ends bindings whose lifetime is over. Returns true if there were any.
    pub(super) fn expire(&mut self, now: Duration, links: &mut Links) -> bool {
        let changes = self.protocol.handle_timeout(since_1970());
        changes.iter().for_each(|change| self.changed(now, change, links));
        !changes.is_empty()
    }

    /// Has workers and links know of a change, and logs it.
    fn changed(&mut self, now: Duration, change: &Change, links: &mut Links) {
        publish(change.home, &change.after, &mut links.tables);
        if change.after.is_empty() {
            links.end_registration(self.address.into(), change.home.into());
        }
        if let Some(left_out) = self.lines.admits(now) {
            let care_of = |all: &[Binding]| all.last().map(|binding| display(binding.care_of));
            let (home, from, to) = (change.home, care_of(&change.before), care_of(&change.after));
            info!(name: "terminal_registered", %home, from, to, left_out, "registration");
        }
    }

    /// Stores that the bindings of a terminal have ended.
    fn store_end(&mut self, now: Duration, home: Ipv4Addr) {
        let known = self.protocol.bindings(home).cloned().unwrap_or_default();
        if let Err(why) = put(self.store.as_ref(), home, &known)
            && let Some(left_out) = self.lines.admits(now)
        {
            warn!(name: "binding_not_stored", %home, %why, left_out, "the end of a binding cannot be stored");
        }
    }
}

/// Stores what is known of a terminal, if a restart is to know it.
fn put(store: Option<&Store>, home: Ipv4Addr, bindings: &Bindings) -> io::Result<()> {
    store.map_or(Ok(()), |store| store.put(home, bindings))
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

/// Returns what an update would say of a binding.
fn update(home: Ipv4Addr, binding: &Binding) -> Update {
    Update {
        lifetime: u32::MAX,
        home: home.into(),
        old: Ipv4Addr::UNSPECIFIED.into(),
        new: binding.care_of.into(),
        link: vec![],
        reply: vec![],
    }
}

/// Has workers know where the terminal with a home address is from the next burst on.
fn publish(home: Ipv4Addr, tunnels: &[Binding], tables: &mut TableWriter) {
    let TableWriter { tables, writer, .. } = tables;
    let home = Address::from(home);
    match tunnels.last() {
        Some(binding) => {
            let care_of = CareOf {
                address: binding.care_of,
                encapsulation: match binding.encapsulation {
                    Encapsulation::Gre => encapsulation::Encapsulation::Gre,
                    Encapsulation::Minimal => encapsulation::Encapsulation::Minimal,
                    _ => encapsulation::Encapsulation::IpInIp,
                },
                reverse: binding.reverse_tunnel,
            };
            tables.care_of.insert(writer, home, care_of);
        }
        None => {
            tables.care_of.remove(writer, &home);
        }
    }
}

fn name(encapsulation: Encapsulation) -> &'static str {
    match encapsulation {
        Encapsulation::Gre => "gre",
        Encapsulation::Minimal => "minimal",
        _ => "ipip",
    }
}

/// Returns the time since 1970, which timestamps of terminals count.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
