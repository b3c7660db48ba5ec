//! The gateway's own home agent: registrations, the bindings that they make, and the links that follow them.
//!
//! | module | contents |
//! |---|---|
//! | `store` | bindings in files, so that a restart forgets none |

mod store;

use super::{line_limit::LineLimit, links::Links, table_writer::TableWriter};
use crate::{
    config::model::{self, Home},
    control::protocol::BindingView,
    gateway::binding::CareOf,
    primitives::OsRandom,
};
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
    /// What it says.
    code: Code,
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
                true => publish(config.address, home, &bindings.tunnels, links),
                false => lost.push(home),
            }
        }
        let bindings = protocol.all().filter(|(_, known)| !known.tunnels.is_empty()).count() - lost.len();
        info!(name: "home_agent_started", address = %config.address, bindings, "home agent started");
        let mut this = Self { address: config.address, protocol, store, lines: LineLimit::default() };
        for home in lost {
            warn!(name: "binding_lost", %home, "the link of a terminal cannot have its care-of address any more, and its binding ends");
            this.protocol.end(home);
            this.store_end(Duration::ZERO, home);
        }
        Ok(this)
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
        let registered = self.carry_out(now, message, source, links)?;
        let Registered { home, code, .. } = registered;
        if !code.is_accepted()
            && let Some(left_out) = self.lines.admits(now)
        {
            info!(name: "registration_denied", %home, code = code.0, left_out, "registration denied");
        }
        Ok(registered)
    }

    fn carry_out(
        &mut self,
        now: Duration,
        message: &[u8],
        source: SocketAddrV4,
        links: &mut Links,
    ) -> Result<Registered, agent::RequestError> {
        let decision = self.protocol.decide(since_1970(), message, source)?;
        let (to, home) = (decision.to(), decision.home());
        let code = decision.code();
        let answered = |code, reply| Registered { home, to, code, reply };
        let Some((_, after)) = decision.to_store() else {
            return Ok(answered(code, decision.carry_out().0));
        };
        let binding = after.tunnels.last().filter(|_| code.is_accepted());
        let own = self.address.into();
        let plan = match binding.map(|binding| links.plan_update(own, &update(home, binding))) {
            None | Some(Err(Outcome::UnknownLink)) => None,
            Some(Ok(plan)) => Some(plan),
            Some(Err(_)) => return Ok(answered(Code::PROHIBITED, decision.deny(Code::PROHIBITED))),
        };
        if let Err(why) = put(self.store.as_mut(), home, after) {
            if let Some(left_out) = self.lines.admits(now) {
                warn!(name: "binding_not_stored", %home, %why, left_out, "registration denied: the binding cannot be stored");
            }
            return Ok(answered(Code::RESOURCES, decision.deny(Code::RESOURCES)));
        }
        if plan.is_some_and(|plan| links.carry_out_update(now, plan) != Outcome::Done) {
            let reply = decision.deny(Code::PROHIBITED);
            let known = self.protocol.bindings(home).cloned().unwrap_or_default();
            let _ = put(self.store.as_mut(), home, &known);
            return Ok(answered(Code::PROHIBITED, reply));
        }
        let (reply, change) = decision.carry_out();
        change.iter().for_each(|change| self.changed(now, change, links));
        links.leave_old_address(home.into());
        Ok(answered(code, reply))
    }

    /// Ends the binding of a terminal that has lost its care-of address to another one.
    pub(super) fn end(&mut self, now: Duration, home: Home, links: &mut Links) {
        let IpAddr::V4(address) = home.address else { return };
        if home.agent == IpAddr::from(self.address)
            && let Some(ended) = self.protocol.end(address)
        {
            self.store_end(now, address);
            self.changed(now, &ended, links);
        }
    }

    /// Ends bindings whose lifetime is over. Returns true if there were any.
    pub(super) fn expire(&mut self, now: Duration, links: &mut Links) -> bool {
        let changes = self.protocol.handle_timeout(since_1970());
        changes.iter().for_each(|change| self.changed(now, change, links));
        !changes.is_empty()
    }

    /// Has workers and links know of a change, and logs it.
    fn changed(&mut self, now: Duration, change: &Change, links: &mut Links) {
        publish(self.address, change.home, &change.after, links);
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
        if let Err(why) = put(self.store.as_mut(), home, &known)
            && let Some(left_out) = self.lines.admits(now)
        {
            warn!(name: "binding_not_stored", %home, %why, left_out, "the end of a binding cannot be stored");
        }
    }
}

/// Stores what is known of a terminal, if a restart is to know it.
fn put(store: Option<&mut Store>, home: Ipv4Addr, bindings: &Bindings) -> io::Result<()> {
    store.map_or(Ok(()), |store| store.put(home, bindings))
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
fn publish(agent: Ipv4Addr, home: Ipv4Addr, tunnels: &[Binding], links: &mut Links) {
    let link = links.follower(agent.into(), home.into());
    let TableWriter { tables, writer, .. } = &mut links.tables;
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
                link,
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
