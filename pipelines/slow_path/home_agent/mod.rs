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
    gateway::{binding::CareOf, classify::REGISTRATION_PORT, rings::Inject},
    primitives::OsRandom,
};
use std::{
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
    binding::Binding,
    siu::{Outcome, Update},
    wire::{Code, Encapsulation},
};

/// The home agent.
#[derive(Debug)]
pub(super) struct HomeAgent {
    address: Ipv4Addr,
    protocol: agent::HomeAgent,
    store: Store,
    lines: LineLimit,
}

/// What has become of a registration.
struct Registered {
    home: Ipv4Addr,
    to: SocketAddrV4,
    reply: Vec<u8>,
    change: Option<Change>,
}

impl HomeAgent {
    /// Starts the home agent of a configuration with the bindings of its last run.
    ///
    /// # Errors
    /// Those of its store.
    pub(super) fn start(config: &model::HomeAgent, links: &mut Links) -> io::Result<Self> {
        let (store, known) = Store::open(&config.store)?;
        let mut protocol = agent::HomeAgent::new(config.settings(), config.nodes(), known, &OsRandom);
        protocol.handle_timeout(since_1970());
        for (home, bindings) in protocol.all() {
            publish(home, &bindings.tunnels, &mut links.tables);
            if let Some(binding) = bindings.tunnels.last() {
                links.restore_care_of(config.address.into(), home.into(), binding.care_of.into());
            }
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
        let answered = |(reply, change)| Registered { home, to, reply, change };
        let Some((_, after)) = decision.to_store() else { return Ok(answered(decision.carry_out())) };
        // The link goes first: if the terminal is not there, nothing else changes.
        if let Some(binding) = after.tunnels.last().filter(|_| decision.code().is_accepted()) {
            let update = update(home, binding);
            let outcome = links.handle_update(now, self.address.into(), &update);
            if !matches!(outcome, Outcome::Done | Outcome::UnknownLink) {
                return Ok(answered((decision.deny(Code::PROHIBITED), None)));
            }
        }
        if let Err(why) = self.store.put(home, after) {
            if let Some(left_out) = self.lines.admits(now) {
                warn!(name: "binding_not_stored", %home, %why, left_out, "registration denied: the binding cannot be stored");
            }
            return Ok(answered((decision.deny(Code::RESOURCES), None)));
        }
        Ok(answered(decision.carry_out()))
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

    /// Handles the IP packet `packet`, which may be a registration.
    ///
    /// # Errors
    /// `NoRegistration` if it is none, or not to be answered.
    pub(super) fn handle_registration(&mut self, now: Duration, packet: &[u8]) -> Result<(), DropReason> {
        if self.home_agent.is_some() {
            // A packet from the new address may have come with the registration.
            self.handle_events(now);
        }
        let Self { home_agent, links, .. } = self;
        let agent = home_agent.as_mut().ok_or(DropReason::NoRegistration)?;
        let Datagram { src, payload, .. } = Datagram::parse(packet).ok_or(DropReason::NoRegistration)?;
        let SocketAddr::V4(source) = src else { return Err(DropReason::NoRegistration) };
        let Registered { home, to, reply, change } =
            agent.register(now, payload, source, links).map_err(|_| DropReason::NoRegistration)?;
        let from = SocketAddrV4::new(agent.address, REGISTRATION_PORT);
        if let Some(change) = change {
            self.binding_changed(now, &change);
        }
        self.handle_links(now);
        if let Some(reply) = datagram::emit(from.into(), to.into(), &[&reply]) {
            // Also a denial goes by the link, which has no rule for an address that was not accepted.
            let sa = self.links.sa_of_follower(IpAddr::from(*from.ip()), home.into());
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
        if let Some(left_out) = agent.lines.admits(now) {
            let care_of =
                |all: &[Binding]| all.last().map(|binding| tracing::field::display(binding.care_of));
            let (home, from, to) = (change.home, care_of(&change.before), care_of(&change.after));
            info!(name: "terminal_registered", %home, from, to, left_out, "registration");
        }
    }
}
