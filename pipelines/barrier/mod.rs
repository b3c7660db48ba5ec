//! What the host's kernel must not forward past the gateway's policy, whether the gateway runs or not.
//!
//! A port that is shared with the kernel stays the kernel's too, and a kernel that forwards (`net.ipv4.ip_forward=1`)
//! would send in clear what policy protects: as soon as the gateway has ended, while its device is made again, or for
//! a frame that the port's own classifier does not know. So each such device has a table of nftables, which judges
//! packets where the kernel is about to forward them, in whatever frame or tunnel they came; by the device's name, so
//! that it holds for a device that is made again under it; and which outlives the process.
//!
//! | chain | drops |
//! |---|---|
//! | `in` | what comes in by the device and is for an address that is not the host's: it is the gateway's to forward; what says its own way (IPv4 source routes), wherever that leads |
//! | `through` | what the host forwards by the device from or to an address that policy protects, such as what came out of a tunnel of its own; what says its own way |
//!
//! The host's own packets pass neither. Whose an address is, the kernel's own routes say at that moment: the host stays
//! reachable, whatever addresses it gets after the gateway has gone. What the gateway hands to the host by a TAP
//! device has passed policy.
//!
//! While the gateway runs, the tables are its own, and `nft flush ruleset` leaves them (Linux 6.9). Only [`open_host`]
//! takes them away.

mod nftables;
mod ranges;

use crate::{
    config::model::{Config, PolicyAction, PortKind},
    device_lock::{DeviceLock, LockError, primary_name},
};
use nftables::{Batch, Expression, Hook, Nftables, OWNED, SHARED, device_name};
use ranges::Ranges;
use std::io;
use tracing::info;
use wayfarer_dataplane::port::PortError;

/// The name of a device's table is this and the device's name.
const TABLE: &str = "wayfarer-";
/// Before the kernel's connection tracking and address translation, which change what a packet says of itself.
const EARLY: i32 = -310;

/// What raising it does, for people.
const CLOSE: &str = "keep the host from forwarding by it";
/// What taking it away does.
const OPEN: &str = "have it forward again";

const INET4: [u8; 1] = [2];
const INET6: [u8; 1] = [10];
// linux/rtnetlink.h: destinations that are not forwarded.
const LOCAL: u32 = 2;
const BROADCAST: u32 = 3;
const ANYCAST: u32 = 4;
const MULTICAST: u32 = 5;
/// Loose and strict source route (RFC 791 §3.1): the destination is a router on the way, and the next one is in the
/// option.
const SOURCE_ROUTES: [u8; 2] = [131, 137];

/// The devices of a gateway that it shares with the kernel, and their tables. When it is dropped the tables stay, and
/// all are then anybody's.
#[derive(Default)]
pub(crate) struct Barrier {
    nftables: Option<Nftables>,
    _devices: Vec<DeviceLock>,
}

impl std::fmt::Debug for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Barrier {{ {} }}", if self.nftables.is_some() { "raised" } else { "not needed" })
    }
}

impl Barrier {
    /// Takes every device of `config` that the gateway shares with the kernel, and raises the barrier around it, in
    /// place of what an earlier gateway left.
    ///
    /// # Errors
    /// The port's name, and [`PortError::Permission`], [`PortError::NotSupported`] where another gateway has the device
    /// or the kernel has no nftables, or what the system answered. Another gateway's tables stay as they are, and where
    /// nobody can tell whether there is one, the barrier is raised all the same.
    pub(crate) fn raise(config: &Config) -> Result<Self, (String, PortError)> {
        let mut this = Self::default();
        let mut cannot_tell = None;
        let mut shared = vec![];
        for port in &config.ports {
            let Some(device) = port.kind.shared_device() else { continue };
            let device = primary_name(device);
            match DeviceLock::take(&device) {
                Ok(lock) => this._devices.push(lock),
                // Where tables have no owners (before Linux 6.9), the running gateway's would be replaced.
                Err(why @ LockError::Taken(_)) => return Err((port.name.clone(), why.of(&device))),
                Err(why) => cannot_tell = cannot_tell.or(Some((port.name.clone(), why.of(&device)))),
            }
            shared.push((&port.name, device));
        }
        let Some((port, device)) = shared.first() else { return Ok(this) };
        let nftables = Nftables::open().map_err(|why| ((*port).clone(), failed(device, CLOSE, why)))?;
        let taps: Vec<_> = config.ports.iter().filter_map(|port| tap(&port.kind)).map(primary_name).collect();
        let protected = protected(config);
        for (port, device) in &shared {
            replace(&nftables, device, &taps, &protected)
                .map_err(|why| ((*port).clone(), refused(&nftables, device, CLOSE, why)))?;
            info!(device, "the host forwards nothing of the gateway's by it until `wayfarer open-host`");
        }
        this.nftables = Some(nftables);
        cannot_tell.map_or(Ok(this), Err)
    }
}

/// Has the host forward again by the devices named, or by all where none is; answers which these were.
///
/// # Errors
/// A gateway runs on one of them, or what the system answered; nothing is changed then.
pub fn open_host(devices: &[String]) -> Result<Vec<String>, PortError> {
    let failed = |why| failed("the host", OPEN, why);
    let nftables = Nftables::open().map_err(failed)?;
    let tables = nftables.tables().map_err(failed)?;
    let closed: Vec<&str> = tables.iter().filter_map(|table| table.strip_prefix(TABLE)).collect();
    // A table has the name that the device was configured by if it was not there.
    let name =
        |device: &String| if closed.contains(&&device[..]) { device.clone() } else { primary_name(device) };
    let devices: Vec<String> = devices.iter().map(name).collect();
    let opened: Vec<String> = closed
        .into_iter()
        .filter(|name| devices.is_empty() || devices.iter().any(|d| d == name))
        .map(Into::into)
        .collect();
    if let Some(device) = devices.iter().find(|device| !opened.contains(device)) {
        let reason = "no gateway has closed it".to_owned();
        return Err(PortError::NotSupported { device: device.clone(), reason });
    }
    if opened.is_empty() {
        return Ok(opened);
    }
    // No gateway starts there meanwhile.
    let take = |device: &String| DeviceLock::take(device).map_err(|why| why.of(device));
    let _devices = opened.iter().map(take).collect::<Result<Vec<_>, _>>()?;
    let mut batch = Batch::new();
    opened.iter().for_each(|device| batch.delete_table(&format!("{TABLE}{device}")));
    nftables.commit(batch).map_err(|why| refused(&nftables, &opened[0], OPEN, why))?;
    Ok(opened)
}

/// The device by which a port hands packets to the kernel.
fn tap(kind: &PortKind) -> Option<&str> {
    match kind {
        PortKind::Tap { device } => Some(device),
        PortKind::Dpdk { exception: Some(exception), .. } => Some(&exception.device),
        _ => None,
    }
}

/// Addresses that nobody but the gateway may forward from or to: the far sides of tunnels, connections and of what
/// policy discards, and all pools. If the far side is everywhere, the near side says it.
fn protected(config: &Config) -> Ranges {
    let mut protected = Ranges::default();
    let tunnels = config.tunnels.iter().flat_map(|tunnel| &tunnel.selectors);
    let policies = config.policies.iter().filter(|policy| policy.action == PolicyAction::Discard);
    for selector in tunnels.chain(policies.map(|policy| &policy.selector)) {
        protected.add_pair([selector.remote, selector.local].map(ranges::of_prefix));
    }
    for pool in &config.ike.pools {
        protected.add((pool.first, pool.last));
    }
    for connection in &config.ike.connections {
        for child in &connection.protocol.children {
            for remote in &child.remote {
                let far = (remote.start, remote.end);
                if !ranges::is_everywhere(far) {
                    protected.add(far);
                    continue;
                }
                // An address that we are yet to be given is not known here.
                let near = child.local.iter().filter(|local| local.start.is_ipv4() == remote.start.is_ipv4());
                near.for_each(|local| protected.add((local.start, local.end)));
            }
        }
    }
    protected.merge();
    protected
}

/// Makes a device's table anew.
fn replace(nftables: &Nftables, device: &str, taps: &[String], protected: &Ranges) -> io::Result<()> {
    match nftables.commit(anew(device, taps, protected, OWNED)) {
        Err(why) if matches!(why.raw_os_error(), Some(nix::libc::EOPNOTSUPP | nix::libc::EINVAL)) => {
            nftables.commit(anew(device, taps, protected, SHARED))
        }
        done => done,
    }
}

/// Replaces a device's table by a new one, without a moment in which there is none.
fn anew(device: &str, taps: &[String], protected: &Ranges, flags: u32) -> Batch {
    let mut batch = Batch::new();
    // What is to be deleted must be there.
    batch.add_table(&table(device), flags);
    batch.delete_table(&table(device));
    batch.add_table(&table(device), flags);
    fill(&mut batch, device, taps, protected);
    batch
}

fn table(device: &str) -> String {
    format!("{TABLE}{device}")
}

/// Adds the chains and their rules.
fn fill(batch: &mut Batch, device: &str, taps: &[String], protected: &Ranges) {
    use Expression::{
        Accept, Count, DestinationType, Drop, Family, HasOption, Header, InputDevice, Is, IsIn, IsNot,
        OutputDevice,
    };
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
    for tap in taps {
        batch.add_rule(&table, "through", &[InputDevice, Is(&device_name(tap)), Accept]);
    }
    // Whoever comes by another device may say a way that leads out by this one.
    add_source_routes(batch, "through", OutputDevice);
    // Of each family: where its addresses are in a header (RFC 791 §3.1, RFC 8200 §3).
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
}

/// Sorts what nftables answered to a change.
fn refused(nftables: &Nftables, device: &str, action: &'static str, why: io::Error) -> PortError {
    match why.raw_os_error() {
        // Who may ask for tables may change them, but for those of another process.
        Some(nix::libc::EPERM) if nftables.tables().is_ok() => LockError::Taken(None).of(device),
        _ => failed(device, action, why),
    }
}

/// Sorts what nftables answered.
fn failed(device: &str, action: &'static str, why: io::Error) -> PortError {
    match why.raw_os_error() {
        Some(nix::libc::EPERM | nix::libc::EACCES) => {
            PortError::Permission { device: device.to_owned(), action, needed: "CAP_NET_ADMIN" }
        }
        Some(nix::libc::EPROTONOSUPPORT | nix::libc::EOPNOTSUPP | nix::libc::ENOENT) => {
            let reason = format!("cannot {action}: it needs nf_tables and nft_fib_inet in the kernel: {why}");
            PortError::NotSupported { device: device.to_owned(), reason }
        }
        _ => PortError::System { device: device.to_owned(), action, source: why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::alone;
    use wayfarer_dataplane::table::Prefix;

    fn tables() -> Vec<String> {
        Nftables::open().unwrap().tables().unwrap()
    }

    #[test]
    fn tables_are_taken_over_from_a_gateway_that_has_gone() {
        alone(|| {
            let none = Ranges::default();
            let first = Nftables::open().unwrap();
            replace(&first, "eth0", &["tap0".to_owned()], &none).unwrap();
            replace(&first, "eth1", &[], &none).unwrap();
            let second = Nftables::open().unwrap();
            // An older kernel has no owners of tables.
            if let Err(why) = replace(&second, "eth0", &[], &none) {
                assert_eq!(why.raw_os_error(), Some(nix::libc::EPERM), "{why}");
                assert!(open_host(&["eth0".to_owned()]).is_err());
            }
            drop(first);
            replace(&second, "eth0", &[], &none).unwrap();
            assert_eq!(tables(), ["wayfarer-eth1", "wayfarer-eth0"]);
            drop(second);
            assert_eq!(open_host(&[]).unwrap(), ["eth1", "eth0"]);
            assert_eq!((open_host(&[]).unwrap(), tables()), (vec![], vec![]));
        });
    }

    /// A configuration of one port and of what `more` says.
    fn configured(device: &str, more: &str) -> Config {
        let port = format!(
            "[[port]]\nname = \"outside\"\nkind = \"af_packet\"\ndevice = \"{device}\"\n\
             addresses = [\"192.0.2.7/24\", \"2001:db8::7/64\"]\n{more}"
        );
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/test.toml");
        crate::config::parse(&port, &file).unwrap()
    }

    fn ip(arguments: &str) {
        let status = std::process::Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    #[test]
    fn a_device_is_closed_by_its_own_name_whatever_it_is_called_by() {
        alone(|| {
            ip("link add eth0 type veth peer name eth9");
            ip("link property add dev eth0 altname uplink");
            // A missing one has no other name than the configured one.
            for (device, name) in [("uplink", "eth0"), ("eth1", "eth1")] {
                drop(Barrier::raise(&configured(device, "")).unwrap());
                assert_eq!(tables(), [table(name)]);
                assert_eq!(open_host(&[device.to_owned()]).unwrap(), [name]);
            }
        });
    }

    #[test]
    fn a_second_start_leaves_the_running_gateways_tables() {
        alone(|| {
            ip("link add eth0 type veth peer name eth9");
            ip("link property add dev eth0 altname uplink");
            let nftables = Nftables::open().unwrap();
            let mut older = Batch::new();
            older.add_table(&table("eth0"), SHARED);
            older.add_chain(&table("eth0"), "first", Hook::Forward, EARLY);
            nftables.commit(older).unwrap();
            let running = DeviceLock::take("eth0").unwrap();
            let free = "[[port]]\nname = \"inside\"\nkind = \"auto\"\ndevice = \"eth9\"\n\
                        addresses = [\"10.99.0.1/24\"]\n";
            let taken = format!("eth0: another gateway (process {}) has this device", std::process::id());
            for device in ["eth0", "uplink"] {
                let (port, why) = Barrier::raise(&configured(device, free)).unwrap_err();
                assert_eq!((&port[..], why.to_string()), ("outside", taken.clone()));
            }
            let mut other_first = configured("eth0", free);
            other_first.ports.reverse();
            let (port, why) = Barrier::raise(&other_first).unwrap_err();
            assert_eq!((&port[..], why.to_string()), ("outside", taken.clone()));
            assert_eq!(open_host(&[]).unwrap_err().to_string(), taken);
            assert_eq!(tables(), [table("eth0")], "a table was made");
            // A chain that is there already has no other priority.
            let mut same = Batch::new();
            same.add_chain(&table("eth0"), "first", Hook::Forward, EARLY + 1);
            assert!(nftables.commit(same).is_err(), "the table was replaced");
            drop(running);
            drop(Barrier::raise(&other_first).unwrap());
        });
    }

    #[test]
    fn what_is_behind_peers_is_protected_however_addresses_are_given() {
        let psk = "[[connection]]\nname = \"a\"\nauth = \"psk\"\npsk_file = \"keys/example-lab-psk\"\n\
                   remote_id = \"gw.test\"\n";
        let asks = "remote = \"203.0.113.1\"\nrequest_address = true\n";
        let gives = "pool = \"p\"\ninner_local = [\"10.99.0.0/24\"]\n";
        let pool = "[[pool]]\nname = \"p\"\naddresses = \"10.96.0.0-10.96.0.255\"\n";
        for (more, told) in [
            (format!("{psk}{asks}inner_remote = [\"10.95.0.0/24\"]\n"), vec!["10.95.0.0/24"]),
            (format!("{psk}{asks}"), vec![]),
            (format!("{psk}{gives}{pool}"), vec!["10.96.0.0/24"]),
            (
                format!("{psk}{gives}inner_remote = [\"10.95.0.0/24\"]\n{pool}"),
                vec!["10.95.0.0/24", "10.96.0.0/24"],
            ),
            (
                format!("{psk}inner_local = [\"10.99.0.0/24\"]\ninner_remote = [\"0.0.0.0/0\"]\n"),
                vec!["10.99.0.0/24"],
            ),
        ] {
            let mut expected = Ranges::default();
            for text in told {
                let (address, length) = text.split_once('/').unwrap();
                let prefix = Prefix::new(address.parse().unwrap(), length.parse().unwrap()).unwrap();
                expected.add(ranges::of_prefix(prefix));
            }
            expected.merge();
            assert_eq!(protected(&configured("eth0", &more)).of(true), expected.of(true), "{more}");
        }
    }

    #[test]
    fn a_table_without_an_owner_is_replaced_as_well() {
        alone(|| {
            let none = Ranges::default();
            let nftables = Nftables::open().unwrap();
            nftables.commit(anew("eth0", &[], &none, SHARED)).unwrap();
            let mut foreign = Batch::new();
            foreign.add_table("other", SHARED);
            nftables.commit(foreign).unwrap();
            replace(&nftables, "eth0", &[], &none).unwrap();
            assert_eq!(open_host(&[]).unwrap(), ["eth0"]);
            assert_eq!(tables(), ["other"], "what others made is theirs");
        });
    }

    #[test]
    fn any_number_of_networks_can_be_protected() {
        alone(|| {
            let mut many = Ranges::default();
            for i in 0..20_000u32 {
                let v4 = std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * i);
                let v6 = std::net::Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(2 * i));
                many.add((v4.into(), v4.into()));
                many.add((v6.into(), v6.into()));
            }
            many.add(([255; 4].into(), [255; 4].into()));
            many.merge();
            let nftables = Nftables::open().unwrap();
            replace(&nftables, "eth0", &[], &many).unwrap();
            replace(&nftables, "eth0", &[], &many).unwrap();
        });
    }
}
