//! Keeps the host's kernel from forwarding past the gateway's policy, whether the gateway runs or
//! not.
//!
//! A port that is shared with the kernel remains a device of the kernel. If the kernel forwards
//! (`net.ipv4.ip_forward=1`), it would send in clear what policy protects: after the gateway has
//! ended, while its device is recreated, or for a frame that the port's own classifier does not
//! recognise. So every such device has an nftables table that judges packets where the kernel is
//! about to forward them, in whatever frame or tunnel they came. The table matches the device by
//! name, so that it also holds for a recreated device, and it outlives the process.
//!
//! - The chain `in` drops packets that come in by the device and are not for an address of the
//!   host, because forwarding them is the gateway's task.
//! - The chain `through` drops packets that the host forwards by the device from or to an address
//!   that policy protects, such as what came out of a tunnel of the host's own.
//! - Both drop every packet with an IPv4 source route, wherever it leads.
//! - The chains `in` and `out` drop packets between addresses of the host itself and the far sides of
//!   tunnels (`pairs.rs`), which the tunnels should carry.
//!
//! All other packets of the host pass. The kernel's routes decide at that moment which
//! addresses are the host's, so the host stays reachable at whatever addresses it gets after the
//! gateway has gone. Packets that the gateway gives to the host through a TAP device have passed
//! policy already. ESP and IKE of the gateway pass none of the chains: ports take and send whole frames.
//! A device of the kernel's own in a port's VLAN is closed like the port's device (`closed_devices.rs`).
//!
//! While the gateway runs, it owns the tables, and `nft flush ruleset` leaves them (Linux 6.9).
//! Only [`open_host`] removes them.

mod closed_devices;
mod connection;
mod host_traffic;
mod nftables;
mod pairs;
mod protected;
mod ranges;
mod sides;
#[cfg(test)]
mod tests;

use crate::{
    clock::Moment,
    config::model::{Config, PortKind},
    device_lock::{DeviceLock, LockError, primary_name},
};
use closed_devices::{ClosedDevice, SharedPorts, VlanList};
use connection::Nftables;
use host_traffic::{Change, HostTraffic};
use nftables::{Batch, Expression, Hook, INET4, INET6, OWNED, SHARED, device_name};
use pairs::Direction;
use protected::protected;
use ranges::Ranges;
use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use tracing::{info, warn};
use wayfarer_dataplane::{port::PortError, sa::Selector, table::Prefix};

/// A device's table is called this, followed by the device's name.
const TABLE: &str = "wayfarer-";
/// A priority before the kernel's connection tracking and address translation, which change
/// packets.
const EARLY: i32 = -310;
/// A priority behind the kernel's translation of sources, which may make a packet one of the host's own.
const LATE: i32 = 150;
/// The least time between two attempts to replace tables that could not be changed.
const RETRY: Duration = Duration::from_secs(1);

/// The action of raising the barrier, for error messages.
const CLOSE: &str = "keep the host from forwarding through it";
/// The action of removing the barrier, for error messages.
const OPEN: &str = "let it forward again";
/// The action of looking for devices in VLANs, for error messages.
const LIST: &str = "find the kernel's devices in VLANs";

// linux/rtnetlink.h: types of destinations that are not forwarded.
const LOCAL: u32 = 2;
const BROADCAST: u32 = 3;
const ANYCAST: u32 = 4;
const MULTICAST: u32 = 5;
/// Loose and strict source route (RFC 791 §3.1): the destination is a router on the way, and the
/// next address is in the option.
const SOURCE_ROUTES: [u8; 2] = [131, 137];

/// The tables and locks of the devices that a gateway shares with the kernel. Dropping it leaves
/// the tables, without an owner.
#[derive(Default)]
pub(crate) struct Barrier {
    nftables: Option<Nftables>,
    ports: SharedPorts,
    closed: Vec<ClosedDevice>,
    taps: Vec<String>,
    /// All addresses that it protects.
    protected: Ranges,
    /// The host's own traffic that it keeps from passing in clear.
    host: HostTraffic,
    /// When a change for a tunnel failed and the tables could not be replaced. They do not have all
    /// changes then.
    failed_at: Option<Moment>,
    /// True if a tunnel was left alone, which is logged once.
    has_left_alone: bool,
    vlan_list: VlanList,
    /// True if devices in VLANs could not be closed the last time.
    has_left_vlans: bool,
    devices: Vec<DeviceLock>,
}

/// A barrier that the slow path and reloads change.
pub(crate) type SharedBarrier = Arc<Mutex<Barrier>>;

impl std::fmt::Debug for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Barrier {{ {} }}", if self.nftables.is_some() { "raised" } else { "not needed" })
    }
}

impl Barrier {
    /// Locks every device of `config` that the gateway shares with the kernel, and raises the
    /// barrier around it, in place of an earlier gateway's.
    ///
    /// # Errors
    /// The port's name, with [`PortError::Permission`], with [`PortError::NotSupported`] if another
    /// gateway has the device or the kernel lacks nftables, or with the system's answer. Another
    /// gateway's tables stay as they are. If the lock cannot tell whether there is another gateway,
    /// the barrier is raised before the error is returned.
    pub(crate) fn raise(config: &Config) -> Result<Self, (String, PortError)> {
        Self::raise_with(config, VlanList::default())
    }

    /// Does the same with this list of the kernel's devices in VLANs.
    fn raise_with(config: &Config, vlan_list: VlanList) -> Result<Self, (String, PortError)> {
        let ports = SharedPorts::of(config);
        let (mut wanted, mut cannot_tell) = (ports.devices(), None);
        let mut this = Self { host: HostTraffic::new(config), ports, vlan_list, ..Self::default() };
        if let Some(first) = wanted.first() {
            match (this.vlan_list.0)() {
                Ok(all) => {
                    let in_vlans = this.ports.in_vlans(&all, &wanted);
                    wanted.extend(in_vlans);
                }
                Err(why) => cannot_tell = Some((first.port.clone(), cannot_list(&first.name, why))),
            }
        }
        for device in wanted {
            let error = |why: LockError| (device.port.clone(), why.of(&device.name));
            match DeviceLock::take(&device.name) {
                Ok(lock) => this.devices.push(lock),
                // Without table owners (before Linux 6.9), the running gateway's table would be
                // replaced.
                Err(why @ LockError::Taken(_)) => return Err(error(why)),
                Err(why) => cannot_tell = cannot_tell.or_else(|| Some(error(why))),
            }
            this.closed.push(device);
        }
        let Some(first) = this.closed.first() else { return Ok(this) };
        let nftables = Nftables::open();
        let nftables = nftables.map_err(|why| (first.port.clone(), failed(&first.name, CLOSE, why)))?;
        this.nftables = Some(nftables);
        this.taps = config.ports.iter().filter_map(|port| tap(&port.kind)).map(primary_name).collect();
        this.protect(config)?;
        this.closed.iter().for_each(|device| log_closed(&device.name));
        cannot_tell.map_or(Ok(this), Err)
    }

    /// Raises the barrier around a device that has appeared since, by its primary name, for the port
    /// that is to use it, and around the kernel's devices in its VLANs, if they can be closed. The port may
    /// have been configured by another name of the device, and another port may have used the last device of
    /// that name.
    ///
    /// # Errors
    /// As [`Barrier::raise`].
    pub(crate) fn close(&mut self, port: &str, device: &str) -> Result<(), PortError> {
        self.close_device(self.ports.device(port, device.to_owned()))?;
        self.ports.use_device(port, device);
        self.close_vlans();
        Ok(())
    }

    /// Returns whether the barrier is raised around the device of this primary name.
    pub(crate) fn has_closed(&self, device: &str) -> bool {
        self.closed.iter().any(|closed| closed.name == device)
    }

    /// Knows a TAP device, by which the gateway hands packets to the kernel, by another primary name.
    ///
    /// # Errors
    /// The system's answer. Some tables may know the new name already.
    pub(crate) fn rename_tap(&mut self, from: &str, to: &str) -> Result<(), PortError> {
        let Some(at) = self.taps.iter().position(|tap| tap == from && from != to) else { return Ok(()) };
        to.clone_into(&mut self.taps[at]);
        self.replace_tables(&self.protected).map_err(|(_, why)| {
            from.clone_into(&mut self.taps[at]);
            why
        })
    }

    /// Raises the barrier around devices of the kernel in ports' VLANs that have appeared since, or are in
    /// another port's VLAN now. Returns false if that must be tried again.
    pub(crate) fn close_vlans(&mut self) -> bool {
        let closed = self.try_close_vlans();
        let has_warned = std::mem::replace(&mut self.has_left_vlans, closed.is_err());
        if let (Err(why), false) = (&closed, has_warned) {
            warn!("the host may forward the gateway's traffic in clear through a VLAN: {why}");
        }
        closed.is_ok()
    }

    fn try_close_vlans(&mut self) -> Result<(), PortError> {
        let Some(first) = self.closed.first() else { return Ok(()) };
        let all = (self.vlan_list.0)().map_err(|why| cannot_list(&first.name, why))?;
        let mut closed = Ok(());
        for device in self.ports.in_vlans(&all, &self.closed) {
            closed = closed.and(self.close_device(device));
        }
        closed
    }

    /// Closes a device, or hands it over to another port if it is closed already.
    fn close_device(&mut self, device: ClosedDevice) -> Result<(), PortError> {
        let Self { nftables: Some(nftables), closed, taps, protected, host, devices, .. } = self else {
            return Ok(());
        };
        let ClosedDevice { port, name, segments } = &device;
        let known = closed.iter_mut().find(|closed| closed.name == *name);
        if known.as_ref().is_some_and(|known| known.port == *port) {
            return Ok(());
        }
        let lock = match known {
            Some(_) => None,
            None => Some(DeviceLock::take(name).map_err(|why| why.of(name))?),
        };
        replace(nftables, &Contents { device: name, taps, protected, host, segments })
            .map_err(|why| refused(nftables, name, CLOSE, why))?;
        devices.extend(lock);
        match known {
            Some(known) => *known = device,
            None => {
                log_closed(name);
                closed.push(device);
            }
        }
        Ok(())
    }

    /// Has the barrier also protect the addresses of `config`, whose ports are those that it was
    /// raised for. It goes on protecting all others: connected peers may keep addresses that the
    /// configuration no longer has.
    ///
    /// # Errors
    /// The port's name and the system's answer. Devices before that port protect the new addresses
    /// already.
    pub(crate) fn protect(&mut self, config: &Config) -> Result<(), (String, PortError)> {
        let mut protected = protected(config);
        protected.extend(&self.protected);
        protected.merge();
        self.host.add_config(config);
        self.replace_tables(&protected)?;
        self.protected = protected;
        Ok(())
    }

    fn replace_tables(&self, protected: &Ranges) -> Result<(), (String, PortError)> {
        let Self { nftables: Some(nftables), closed, taps, host, .. } = self else { return Ok(()) };
        for ClosedDevice { port, name, segments } in closed {
            replace(nftables, &Contents { device: name, taps, protected, host, segments })
                .map_err(|why| (port.clone(), refused(nftables, name, CLOSE, why)))?;
        }
        Ok(())
    }

    /// Keeps the host's own traffic with a peer from passing in clear, which a tunnel with these
    /// `selectors` should carry. For tunnels whose far side the configuration does not name. Returns
    /// false if the tunnel is left alone.
    pub(crate) fn add_tunnel(&mut self, selectors: &[Selector]) -> bool {
        let Some(changes) = self.host.add_tunnel(selectors) else {
            if !std::mem::replace(&mut self.has_left_alone, true) {
                warn!(
                    "peers' selectors differ in too many ways: \
                     the host's own traffic with some peers may pass in clear"
                );
            }
            return false;
        };
        self.change(&changes);
        true
    }

    /// Takes back what [`Barrier::add_tunnel`] did for a tunnel that it did not leave alone.
    pub(crate) fn remove_tunnel(&mut self, selectors: &[Selector]) {
        let changes = self.host.remove_tunnel(selectors);
        self.change(&changes);
    }

    fn change(&mut self, changes: &[Change]) {
        let Some(nftables) = self.nftables.as_ref().filter(|_| !changes.is_empty()) else { return };
        if self.failed_at.is_some_and(|at| Moment::now() - at < RETRY) {
            return;
        }
        let had_failed = self.failed_at.is_some();
        if !had_failed {
            let mut batch = Batch::new();
            for device in &self.closed {
                let table = table(&device.name);
                changes.iter().for_each(|change| self.host.apply(*change, &mut batch, &table));
            }
            if nftables.commit(batch).is_ok() {
                return;
            }
        }
        // Somebody else may have changed the tables.
        let replaced = self.replace_tables(&self.protected);
        self.failed_at = replaced.is_err().then(Moment::now);
        if let (Err((port, why)), false) = (replaced, had_failed) {
            warn!(port, "the host's own traffic with some peers may pass in clear: {why}");
        }
    }
}

/// Lets the host forward again by the named devices, or by all devices if none is named. Returns
/// the devices that were closed.
///
/// # Errors
/// If a device has no barrier, a gateway runs on one of them, or the system refuses; nothing has
/// changed then.
pub fn open_host(devices: &[String]) -> Result<Vec<String>, PortError> {
    let failed = |why| failed("the host", OPEN, why);
    let nftables = Nftables::open().map_err(failed)?;
    let tables = nftables.tables().map_err(failed)?;
    let closed: Vec<&str> = tables.iter().filter_map(|table| table.strip_prefix(TABLE)).collect();
    // A table has the configured name if the device did not exist when the gateway started. There is one
    // of the primary name too if the device has appeared since.
    let names: Vec<[String; 2]> =
        devices.iter().map(|device| [device.clone(), primary_name(device)]).collect();
    let opened: Vec<String> = closed
        .into_iter()
        .filter(|name| devices.is_empty() || names.iter().flatten().any(|device| device == name))
        .map(Into::into)
        .collect();
    if let Some([_, device]) = names.iter().find(|names| !names.iter().any(|name| opened.contains(name))) {
        let reason = "no gateway has closed this device".to_owned();
        return Err(PortError::NotSupported { device: device.clone(), reason });
    }
    if opened.is_empty() {
        return Ok(opened);
    }
    // The locks keep a gateway from starting there meanwhile.
    let take = |device: &String| DeviceLock::take(device).map_err(|why| why.of(device));
    let _devices = opened.iter().map(take).collect::<Result<Vec<_>, _>>()?;
    let mut batch = Batch::new();
    opened.iter().for_each(|device| batch.delete_table(&format!("{TABLE}{device}")));
    nftables.commit(batch).map_err(|why| refused(&nftables, &opened[0], OPEN, why))?;
    Ok(opened)
}

fn log_closed(device: &str) {
    info!(
        device,
        "the host does not forward the gateway's traffic through this device \
         until `wayfarer open-host`"
    );
}

/// Returns the device by which a port hands packets to the kernel.
fn tap(kind: &PortKind) -> Option<&str> {
    match kind {
        PortKind::Tap { device } => Some(device),
        PortKind::Dpdk { exception: Some(exception), .. } => Some(&exception.device),
        _ => None,
    }
}

/// The contents of a device's table.
struct Contents<'a> {
    device: &'a str,
    taps: &'a [String],
    protected: &'a Ranges,
    host: &'a HostTraffic,
    segments: &'a BTreeSet<Prefix>,
}

/// Replaces a device's table, with an owner if the kernel supports it.
fn replace(nftables: &Nftables, contents: &Contents<'_>) -> io::Result<()> {
    match nftables.commit(replacement(contents, OWNED)) {
        Err(why) if matches!(why.raw_os_error(), Some(nix::libc::EOPNOTSUPP | nix::libc::EINVAL)) => {
            nftables.commit(replacement(contents, SHARED))
        }
        done => done,
    }
}

/// Returns the batch that replaces a device's table, so that there is no moment without one.
fn replacement(contents: &Contents<'_>, flags: u32) -> Batch {
    let (mut batch, table) = (Batch::new(), table(contents.device));
    // A table can only be deleted if it exists.
    batch.add_table(&table, flags);
    batch.delete_table(&table);
    batch.add_table(&table, flags);
    fill(&mut batch, contents);
    batch
}

fn table(device: &str) -> String {
    format!("{TABLE}{device}")
}

/// Adds the chains and their rules to the batch.
fn fill(batch: &mut Batch, contents: &Contents<'_>) {
    use Expression::{
        Accept, Count, DestinationType, Drop, Family, HasOption, Header, InputDevice, Is, IsIn, IsNot,
        OutputDevice,
    };
    let Contents { device, taps, protected, host, segments } = contents;
    let (table, name) = (table(device), device_name(device));
    batch.add_chain(&table, "in", Hook::PreRouting, EARLY);
    let own = [LOCAL, BROADCAST, ANYCAST, MULTICAST].map(u32::to_ne_bytes);
    let [local, broadcast, anycast, multicast] = [0, 1, 2, 3].map(|i| IsNot(&own[i]));
    let elsewhere = [DestinationType, local, broadcast, anycast, multicast, Count, Drop];
    batch.add_rule(&table, "in", &[&[InputDevice, Is(&name)][..], &elsewhere].concat());
    let add_source_routes = |batch: &mut Batch, chain, by| {
        for option in SOURCE_ROUTES {
            let rule = [by, Is(&name), HasOption(option), Is(&[1]), Count, Drop];
            batch.add_rule(&table, chain, &rule);
        }
    };
    add_source_routes(batch, "in", InputDevice);

    batch.add_chain(&table, "through", Hook::Forward, EARLY);
    for tap in *taps {
        batch.add_rule(&table, "through", &[InputDevice, Is(&device_name(tap)), Accept]);
    }
    // A packet that comes in by another device may have a source route that leads out by this one.
    add_source_routes(batch, "through", OutputDevice);
    // For each family: the set, and the offsets and lengths of the addresses in a header (RFC 791
    // §3.1, RFC 8200 §3).
    for (set, is_ipv4, family, addresses) in [
        ("protected4", true, INET4, [Header(12, 4), Header(16, 4)]),
        ("protected6", false, INET6, [Header(8, 16), Header(24, 16)]),
    ] {
        batch.add_set(&table, set, is_ipv4, protected.of(is_ipv4));
        for by in [InputDevice, OutputDevice] {
            for address in addresses {
                let rule = [by, Is(&name), Family, Is(&family), address, IsIn(set), Count, Drop];
                batch.add_rule(&table, "through", &rule);
            }
        }
    }

    // Behind the host's own rules for what it sends, which may change its source and its device.
    batch.add_chain(&table, "out", Hook::PostRouting, LATE);
    let [input, output] = [InputDevice, OutputDevice].map(|by| [by, Is(&name)]);
    let bases = [(Direction::In, "in", input), (Direction::Out, "out", output)];
    host.fill(batch, &table, segments, bases);
}

/// Converts nftables' answer to a change into a port error.
fn refused(nftables: &Nftables, device: &str, action: &'static str, why: io::Error) -> PortError {
    match why.raw_os_error() {
        // If this process may list tables, it may also change them, except those that another
        // process owns.
        Some(nix::libc::EPERM) if nftables.tables().is_ok() => LockError::Taken(None).of(device),
        _ => failed(device, action, why),
    }
}

/// Converts an error of a list of the kernel's devices into a port error.
fn cannot_list(device: &str, source: io::Error) -> PortError {
    PortError::System { device: device.to_owned(), action: LIST, source }
}

/// Converts an error of nftables into a port error.
fn failed(device: &str, action: &'static str, why: io::Error) -> PortError {
    match why.raw_os_error() {
        Some(nix::libc::EPERM | nix::libc::EACCES) => {
            PortError::Permission { device: device.to_owned(), action, needed: "CAP_NET_ADMIN" }
        }
        Some(nix::libc::EPROTONOSUPPORT | nix::libc::EOPNOTSUPP | nix::libc::ENOENT) => {
            let reason = format!("cannot {action}: the kernel needs nf_tables and nft_fib_inet: {why}");
            PortError::NotSupported { device: device.to_owned(), reason }
        }
        _ => PortError::System { device: device.to_owned(), action, source: why },
    }
}
