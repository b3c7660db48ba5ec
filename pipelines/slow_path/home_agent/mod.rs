//! The gateway's own home agent: registrations, the bindings that they make, and the links that follow them.
//!
//! | module | contents |
//! |---|---|
//! | `store` | bindings in files, so that a restart forgets none |

mod store;

use super::{SlowPath, line_limit::LineLimit, links::Links, table_writer::TableWriter};
use crate::{
    config::model,
    control::protocol::BindingView,
    gateway::{binding::CareOf, classify::REGISTRATION_PORT, input_port::is_from_tunnel, rings::Inject},
    primitives::OsRandom,
};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::{Duration, SystemTime},
};
use store::Store;
use tracing::{info, warn};
use wayfarer_dataplane::{
    drop::DropReason,
    wire::{
        Address,
        datagram::{self, Datagram},
        encapsulation,
    },
};
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
struct Registered {
    home: Ipv4Addr,
    to: SocketAddrV4,
    reply: Vec<u8>,
    changes: Vec<Change>,
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
    fn register(
        &mut self,
        now: Duration,
        message: &[u8],
        source: SocketAddrV4,
        links: &mut Links,
    ) -> Result<Registered, agent::RequestError> {
        let decision = self.protocol.decide(since_1970(), message, source)?;
        let (to, home) = (decision.to(), decision.home());
        let answered = |(reply, change): (_, Option<Change>)| Registered {
            home,
            to,
            reply,
            changes: change.into_iter().collect(),
        };
        let Some((_, after)) = decision.to_store() else { return Ok(answered(decision.carry_out())) };
        let binding = after.tunnels.last().filter(|_| decision.code().is_accepted());
        let own = self.address.into();
        let plan = match binding.map(|binding| links.plan_update(own, &update(home, binding))) {
            None | Some(Err(Outcome::UnknownLink)) => None,
            Some(Ok(plan)) => Some(plan),
            Some(Err(_)) => return Ok(answered((decision.deny(Code::PROHIBITED), None))),
        };
        if let Err(why) = put(self.store.as_ref(), home, after) {
            if let Some(left_out) = self.lines.admits(now) {
                warn!(name: "binding_not_stored", %home, %why, left_out, "registration denied: the binding cannot be stored");
            }
            return Ok(answered((decision.deny(Code::RESOURCES), None)));
        }
        let loser = plan.as_ref().and_then(|plan| links.loser(plan)).filter(|loser| loser.agent == own);
        let loser = loser.and_then(|loser| v4(loser.address));
        // Before the other link gets the address, so that it gets none of the loser's packets.
        loser.iter().for_each(|loser| publish(*loser, &[], &mut links.tables));
        if plan.is_some_and(|plan| links.carry_out_update(now, plan) != Outcome::Done) {
            let reply = decision.deny(Code::PROHIBITED);
            let known = self.protocol.bindings(home).cloned().unwrap_or_default();
            let _ = put(self.store.as_ref(), home, &known);
            return Ok(answered((reply, None)));
        }
        let mut answered = answered(decision.carry_out());
        if let Some(ended) = loser.and_then(|loser| self.protocol.end(loser)) {
            self.store_end(now, ended.home);
            answered.changes.push(ended);
        }
        Ok(answered)
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

impl SlowPath {
    /// Starts the home agent of a configuration, if it has one.
    ///
    /// # Errors
    /// Those of its store.
    pub fn start_home_agent(&mut self, config: Option<&model::HomeAgent>) -> io::Result<()> {
        self.home_agent = config.map(|config| HomeAgent::start(config, &mut self.links)).transpose()?;
        Ok(())
    }

    /// Handles the IP packet `packet`, which may be a registration, and came by `port`.
    ///
    /// # Errors
    /// `NoRegistration` if it is none, or not to be answered.
    pub(super) fn handle_registration(
        &mut self,
        now: Duration,
        port: u16,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        if self.home_agent.is_some() {
            // A packet from the new address may have come with the registration.
            self.handle_events(now);
        }
        let Self { home_agent, links, .. } = self;
        let agent = home_agent.as_mut().ok_or(DropReason::NoRegistration)?;
        let Datagram { src, payload, .. } = Datagram::parse(packet).ok_or(DropReason::NoRegistration)?;
        let SocketAddr::V4(source) = src else { return Err(DropReason::NoRegistration) };
        let Registered { home, to, reply, changes } =
            agent.register(now, payload, source, links).map_err(|_| DropReason::NoRegistration)?;
        let from = SocketAddrV4::new(agent.address, REGISTRATION_PORT);
        changes.iter().for_each(|change| self.binding_changed(now, change));
        self.handle_links(now);
        if let Some(reply) = datagram::emit(from.into(), to.into(), &[&reply]) {
            // Also a denial goes by the link, which has no rule for an address that was not accepted; but not to
            // where a request came from in clear.
            let sa = self.links.sa_of_follower(IpAddr::from(*from.ip()), home.into());
            let sa = sa.filter(|_| is_from_tunnel(port));
            self.inject_made(sa.map_or_else(|| self.way_of(&reply), Inject::By), &reply);
        }
        Ok(())
    }

    /// Ends bindings whose lifetime is over.
    pub(super) fn expire_bindings(&mut self, now: Duration) -> bool {
        let Some(agent) = &mut self.home_agent else { return false };
        let changes = agent.protocol.handle_timeout(since_1970());
        changes.iter().for_each(|change| self.binding_changed(now, change));
        !changes.is_empty()
    }

    fn binding_changed(&mut self, now: Duration, change: &Change) {
        publish(change.home, &change.after, &mut self.links.tables);
        let Some(agent) = &mut self.home_agent else { return };
        if change.after.is_empty() {
            self.links.end_registration(agent.address.into(), change.home.into());
        }
        if let Some(left_out) = agent.lines.admits(now) {
            let care_of =
                |all: &[Binding]| all.last().map(|binding| tracing::field::display(binding.care_of));
            let (home, from, to) = (change.home, care_of(&change.before), care_of(&change.after));
            info!(name: "terminal_registered", %home, from, to, left_out, "registration");
        }
    }
}
