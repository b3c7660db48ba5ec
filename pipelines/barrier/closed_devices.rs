//! The devices that the barrier is raised around: those that ports share with the kernel, and the kernel's
//! own devices in the VLANs of ports.
//!
//! If the kernel has a device in a VLAN (`eth0.100`), that is the one which rules see packets of the VLAN
//! come in and leave by, and not the one below.

use crate::{
    config::model::{Config, Port},
    device_lock::primary_name,
    rtnetlink,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, VlanProtocol},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io, iter,
};
use wayfarer_dataplane::{port::device::Device, table::Prefix, wire::vlan::Vlan};

/// The most devices that the kernel stacks (linux/netdevice.h, MAX_NEST_DEV).
const MOST_NESTED: usize = 8;

/// A closed device.
pub(super) struct ClosedDevice {
    /// The name of its port.
    pub(super) port: String,
    /// Its primary name.
    pub(super) name: String,
    /// The segments that the host is on there. If a far side is wider than one, it does not mean the
    /// stations there.
    pub(super) segments: BTreeSet<Prefix>,
}

/// The ports that share a device with the kernel.
#[derive(Default)]
pub(super) struct SharedPorts(Vec<SharedPort>);

struct SharedPort {
    name: String,
    /// The configured name of its device.
    device: String,
    /// The primary name of the device that it uses; `None` if it was closed by the configured name.
    used: Option<String>,
    vlan: Option<Vlan>,
    segments: BTreeSet<Prefix>,
}

/// The protocol of a tag and the number in it.
type Tag = (VlanProtocol, u16);

/// A device of the kernel in a VLAN.
pub(super) struct VlanDevice {
    pub(super) index: u32,
    pub(super) name: String,
    /// The index of the device below.
    pub(super) below: u32,
    /// The tag that its frames have on the device below.
    pub(super) tag: Tag,
}

/// Lists the kernel's devices in VLANs.
pub(super) struct VlanList(pub(super) Box<dyn Fn() -> io::Result<Vec<VlanDevice>> + Send>);

impl Default for VlanList {
    fn default() -> Self {
        Self(Box::new(vlan_devices))
    }
}

impl SharedPorts {
    pub(super) fn of(config: &Config) -> Self {
        let shared = |port: &Port| {
            Some(SharedPort {
                name: port.name.clone(),
                device: port.kind.shared_device()?.to_owned(),
                used: None,
                vlan: port.tagging.map(|tagging| tagging.vlan),
                segments: port.addresses.iter().map(|(_, segment)| *segment).collect(),
            })
        };
        Self(config.ports.iter().filter_map(shared).collect())
    }

    /// Returns the ports' devices, each for the first of the ports that share it.
    pub(super) fn devices(&self) -> Vec<ClosedDevice> {
        let is_first = |(index, port): &(usize, &SharedPort)| {
            !self.0[..*index].iter().any(|earlier| earlier.device == port.device)
        };
        let firsts = self.0.iter().enumerate().filter(is_first);
        firsts.map(|(_, port)| self.device(&port.name, primary_name(&port.device))).collect()
    }

    /// Returns the device of this primary name, as that of `port` and of all ports that share it.
    pub(super) fn device(&self, port: &str, name: String) -> ClosedDevice {
        let device = self.0.iter().find(|own| own.name == port).map(|own| &own.device);
        let untagged = self.0.iter().find(|own| Some(&own.device) == device && own.vlan.is_none());
        let segments = untagged.map(|own| own.segments.clone()).unwrap_or_default();
        ClosedDevice { port: port.to_owned(), name, segments }
    }

    /// Notes that `port`, and all ports that share its device, use the device of this primary name.
    pub(super) fn use_device(&mut self, port: &str, name: &str) {
        let device = self.0.iter().find(|own| own.name == port).map(|own| own.device.clone());
        for own in self.0.iter_mut().filter(|own| Some(&own.device) == device.as_ref()) {
            own.used = Some(name.to_owned());
        }
    }

    /// Returns those of these devices that are in a port's VLAN, but not `closed` for that port yet. A
    /// device that is closed and a port's own is left to that port.
    pub(super) fn in_vlans(&self, all: &[VlanDevice], closed: &[ClosedDevice]) -> Vec<ClosedDevice> {
        if all.is_empty() {
            return Vec::new();
        }
        let ports: Vec<_> =
            self.0.iter().filter_map(|port| Some((port.find_device()?.index(), port))).collect();
        let by_index: BTreeMap<u32, &VlanDevice> = all.iter().map(|device| (device.index, device)).collect();
        let name = |port: &SharedPort| port.find_device().map(|device| device.name().to_owned());
        let own: BTreeSet<String> =
            self.0.iter().map(|port| name(port).unwrap_or_else(|| port.device.clone())).collect();
        // A device that was made again under its name may be in another port's VLAN than before.
        let is_done = |device: &VlanDevice, port: &str| {
            let known = closed.iter().find(|closed| closed.name == device.name);
            known.is_some_and(|known| known.port == port || own.contains(&device.name))
        };
        let port_of = |device: &VlanDevice| {
            let stack =
                iter::successors(Some(device), |above: &&VlanDevice| by_index.get(&above.below).copied());
            let mut tags = VecDeque::new();
            stack.take(MOST_NESTED).find_map(|device| {
                // A tag of VLAN 0 names none.
                if device.tag.1 != 0 {
                    tags.push_front(device.tag);
                }
                ports.iter().find(|(index, port)| *index == device.below && tags == port.tags())
            })
        };
        let new = all.iter().filter_map(|device| {
            let (_, SharedPort { name: port, segments, .. }) = port_of(device)?;
            let (port, name, segments) = (port.clone(), device.name.clone(), segments.clone());
            (!is_done(device, &port)).then_some(ClosedDevice { port, name, segments })
        });
        new.collect()
    }
}

impl SharedPort {
    /// Returns the device that it uses, or else the one that has the configured name now.
    fn find_device(&self) -> Option<Device> {
        let used = self.used.as_ref().and_then(|name| Device::find(name).ok());
        used.or_else(|| Device::find(&self.device).ok())
    }

    /// Returns the tags of its frames, the outermost first.
    fn tags(&self) -> Vec<Tag> {
        let outer = self.vlan.and_then(Vlan::outer).map(|id| (VlanProtocol::Ieee8021Ad, id));
        let inner = self.vlan.map(|vlan| (VlanProtocol::Ieee8021Q, vlan.inner()));
        outer.into_iter().chain(inner).collect()
    }
}

/// Returns the kernel's devices in VLANs.
///
/// # Errors
/// The kernel's error.
pub(super) fn vlan_devices() -> io::Result<Vec<VlanDevice>> {
    let mut request = LinkMessage::default();
    // A kernel that knows devices of this kind leaves out the others.
    request.attributes = vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan)])];
    let mut all = BTreeMap::new();
    rtnetlink::list(RouteNetlinkMessage::GetLink(request), |message| {
        if let RouteNetlinkMessage::NewLink(message) = message {
            all.extend(vlan_device(&message).map(|device| (device.index, device)));
        }
    })?;
    Ok(all.into_values().collect())
}

/// Returns the device in a message, if it is one in a VLAN of a device in the same namespace.
pub(super) fn vlan_device(message: &LinkMessage) -> Option<VlanDevice> {
    let (mut name, mut below, mut id, mut protocol) = (None, None, None, VlanProtocol::Ieee8021Q);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(own) => name = Some(own.clone()),
            LinkAttribute::Link(index) => below = Some(*index),
            // The index below is one of another namespace.
            LinkAttribute::LinkNetNsId(_) => return None,
            LinkAttribute::LinkInfo(about) => {
                let vlan = about.iter().filter_map(|info| match info {
                    LinkInfo::Data(InfoData::Vlan(vlan)) => Some(vlan),
                    _ => None,
                });
                for info in vlan.flatten() {
                    match info {
                        InfoVlan::Id(own) => id = Some(*own),
                        InfoVlan::Protocol(own) => protocol = *own,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(VlanDevice { index: message.header.index, name: name?, below: below?, tag: (protocol, id?) })
}
