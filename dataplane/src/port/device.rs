//! The gateway's view of a kernel network device, through netdevice(7) and the ethtool ioctls.

#![allow(unsafe_code, reason = "ioctls have no safe wrapper")]

use super::{
    Mac, PortError,
    link_layer::{LinkLayer, OWN_MAC},
    monitor::{DeviceState, Monitor},
    sys,
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

// linux/ethtool.h
const ETHTOOL_GSET: u32 = 0x01;
const ETHTOOL_GLINK: u32 = 0x0a;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

// linux/if_arp.h: raw-IP modems, and GRE over IPv6.
const ARPHRD_RAWIP: u16 = 519;
const ARPHRD_IP6GRE: u16 = 823;

/// The ethtool flag of a NIC that takes VLAN tags off the frames that it receives.
const FLAG_RX_VLAN: u32 = 1 << 8;

const NET_ADMIN: &str = "CAP_NET_ADMIN";

/// The speed that a driver reports if it does not know it.
const SPEED_UNKNOWN: u32 = u32::MAX;
const DUPLEX_HALF: u8 = 0;
const DUPLEX_FULL: u8 = 1;

/// A name as ioctls have it.
type RequestName = [libc::c_char; libc::IFNAMSIZ];

/// Most times that the state of a device is read that gets other names meanwhile.
const TRIES: usize = 3;

/// A network device, in the network namespace of the thread that looked it up. It stays the same device
/// if it gets another name.
#[derive(Debug)]
pub struct Device {
    name: String,
    index: u32,
    link: LinkLayer,
    mac: Mac,
    socket: OwnedFd,
}

impl Device {
    /// Looks a device up by its name or an alternative name (`ip link property`).
    ///
    /// # Errors
    /// [`PortError::NoDevice`]; [`PortError::NotSupported`] if it carries neither Ethernet nor bare IP
    /// packets to one far side; or the error of the system.
    pub fn find(name: &str) -> Result<Self, PortError> {
        let no_device = || PortError::NoDevice { device: name.to_owned() };
        let failed = |action, source| PortError::system(name, action, NET_ADMIN, source);
        let mut request = empty_request();
        if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
            return Err(no_device());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)
            .map_err(|e| failed("open a control socket", e))?;
        let link = LinkLayer::Ethernet;
        let mut device = Self { name: name.to_owned(), index: 0, link, mac: [0; 6], socket };
        device.call(libc::SIOCGIFINDEX, &mut request).map_err(|e| failed("read the device's index", e))?;
        // SAFETY: SIOCGIFINDEX fills this member of the union.
        device.index = unsafe { request.ifr_ifru.ifru_ifindex } as u32;
        let primary = device.name_now().map_err(|e| failed("read the device's name", e))?;
        device.name = text(&primary);
        let address = device.hardware_address().map_err(|e| failed("read the device's address", e))?;
        device.link = link_layer(address.sa_family, device.flags()?)
            .ok_or_else(|| device.unsupported("neither Ethernet nor a point-to-point device for IP"))?;
        device.mac = mac(device.link, &address).unwrap_or(OWN_MAC);
        Ok(device)
    }

    /// Returns the primary name that the device had when it was looked up, also if that was by another
    /// one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the interface index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Returns what its frames begin with.
    pub fn link(&self) -> LinkLayer {
        self.link
    }

    /// Returns the MAC address that the device had when it was looked up; [`OWN_MAC`] if it has none.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Returns the largest payload of a frame, in bytes.
    ///
    /// # Errors
    /// The device is gone.
    pub fn mtu(&self) -> Result<usize, PortError> {
        let answer = self.ioctl(libc::SIOCGIFMTU).map_err(|e| self.error("read the MTU", e))?;
        // SAFETY: SIOCGIFMTU fills this member of the union.
        Ok(unsafe { answer.ifr_ifru.ifru_mtu } as usize)
    }

    /// Sets the largest payload of a frame, in bytes.
    ///
    /// # Errors
    /// No permission, or the driver refuses the size.
    pub fn set_mtu(&self, mtu: usize) -> Result<(), PortError> {
        let mtu = i32::try_from(mtu).unwrap_or(i32::MAX);
        self.ioctl_with(libc::SIOCSIFMTU, |request| request.ifr_ifru.ifru_mtu = mtu)
            .map_err(|e| self.error("set the MTU", e))?;
        Ok(())
    }

    /// Sets the MAC address. Some drivers do so only while the device is down.
    ///
    /// # Errors
    /// No permission, or the driver refuses.
    pub fn set_mac(&self, mac: Mac) -> Result<(), PortError> {
        let mut sa_data = [0; 14];
        for (to, from) in sa_data.iter_mut().zip(mac) {
            *to = from as libc::c_char;
        }
        let address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data };
        self.ioctl_with(libc::SIOCSIFHWADDR, |request| request.ifr_ifru.ifru_hwaddr = address)
            .map_err(|e| self.error("set the MAC address", e))?;
        Ok(())
    }

    /// Returns whether the device is administratively up.
    ///
    /// # Errors
    /// The device is gone.
    pub fn is_up(&self) -> Result<bool, PortError> {
        Ok(self.flags()? & libc::IFF_UP != 0)
    }

    /// Returns whether the device is up and has a carrier.
    ///
    /// # Errors
    /// The device is gone.
    pub fn is_running(&self) -> Result<bool, PortError> {
        let flags = self.flags()?;
        Ok(flags & libc::IFF_UP != 0 && self.has_carrier(flags))
    }

    /// Returns whether a device with these flags has a carrier. The flags alone tell up to a second
    /// late.
    fn has_carrier(&self, flags: libc::c_int) -> bool {
        let mut link = [ETHTOOL_GLINK, 0];
        match self.ethtool(&mut link) {
            Ok(()) => link[1] != 0,
            Err(_) => flags & libc::IFF_RUNNING != 0,
        }
    }

    /// Sets the device administratively up.
    ///
    /// # Errors
    /// No permission, or the driver refuses.
    pub fn set_up(&self) -> Result<(), PortError> {
        let flags = (self.flags()? | libc::IFF_UP) as libc::c_short;
        self.ioctl_with(libc::SIOCSIFFLAGS, |request| request.ifr_ifru.ifru_flags = flags)
            .map_err(|e| self.error("set the device up", e))?;
        Ok(())
    }

    /// Returns the number of receive queues in use, or 1 if the driver does not say.
    pub fn queues(&self) -> u32 {
        // struct ethtool_channels: command, four maxima, then receive, transmit, other and
        // combined.
        let mut channels = [0u32; 9];
        channels[0] = ETHTOOL_GCHANNELS;
        match self.ethtool(&mut channels) {
            Ok(()) => (channels[5] + channels[8]).max(1),
            Err(_) => 1,
        }
    }

    /// Returns the speed in Mbit/s and whether the link is full duplex, each `None` if the driver
    /// does not know it.
    fn speed_and_duplex(&self) -> (Option<u32>, Option<bool>) {
        // struct ethtool_cmd: command, two masks, speed and duplex (u16, u8), …, the speed's upper
        // half (u16) in word 7.
        let mut settings = [0u32; 11];
        settings[0] = ETHTOOL_GSET;
        if self.ethtool(&mut settings).is_err() {
            return (None, None);
        }
        let [low_0, low_1, duplex, _] = settings[3].to_ne_bytes();
        let [high_0, high_1, ..] = settings[7].to_ne_bytes();
        let half = |bytes| u32::from(u16::from_ne_bytes(bytes));
        let speed = half([high_0, high_1]) << 16 | half([low_0, low_1]);
        let full_duplex = match duplex {
            DUPLEX_HALF => Some(false),
            DUPLEX_FULL => Some(true),
            _ => None,
        };
        (Some(speed).filter(|speed| !matches!(*speed, 0 | SPEED_UNKNOWN)), full_duplex)
    }

    /// Returns whether the device is one end of a veth pair.
    pub fn is_veth(&self) -> bool {
        self.driver().is_some_and(|(driver, _)| driver == "veth")
    }

    /// Returns whether frames from the device may lack checksums, or be joined, in a way that an XDP
    /// program does not see: senders leave that to a device if they are on the same machine as it, or
    /// as the gateway's virtual machine. `native` says that the program runs in the driver.
    pub fn may_be_unfinished(&self, native: bool) -> bool {
        // Some drivers of virtual machines ask their host for finished frames while they run a program.
        const VIRTUAL: [&str; 3] = ["virtio_net", "vif", "ibmveth"];
        match self.driver() {
            Some((driver, true)) => !native && VIRTUAL.contains(&&driver[..]),
            // A device without a bus is one of the kernel's own.
            _ => true,
        }
    }

    /// Returns the name of the driver, and whether the device is on a bus.
    fn driver(&self) -> Option<(String, bool)> {
        // struct ethtool_drvinfo: command, then 32 bytes each for the driver's name, two versions, the
        // place on the bus, …
        let mut info = [0u32; 49];
        info[0] = ETHTOOL_GDRVINFO;
        self.ethtool(&mut info).ok()?;
        let bytes = info[1..9].iter().flat_map(|word| word.to_ne_bytes());
        let name = bytes.take_while(|&byte| byte != 0).collect();
        Some((String::from_utf8(name).ok()?, info[25] != 0))
    }

    /// Stops the kernel from joining received packets to larger ones, which no longer fit a frame.
    /// The setting stays when the gateway ends.
    ///
    /// # Errors
    /// No permission, or the driver refuses.
    pub fn disable_gro(&self) -> Result<(), PortError> {
        self.ethtool(&mut [ETHTOOL_SGRO, 0]).map_err(|e| self.error("turn GRO off", e))
    }

    /// Makes the NIC leave VLAN tags in received frames, where programs find them. The setting
    /// stays when the gateway ends.
    ///
    /// # Errors
    /// No permission, or the driver refuses.
    pub fn keep_tags(&self) -> Result<(), PortError> {
        let failed = |e| self.error("have VLAN tags left in frames", e);
        let mut flags = [ETHTOOL_GFLAGS, 0];
        self.ethtool(&mut flags).map_err(failed)?;
        if flags[1] & FLAG_RX_VLAN == 0 {
            return Ok(());
        }
        self.ethtool(&mut [ETHTOOL_SFLAGS, flags[1] & !FLAG_RX_VLAN]).map_err(failed)?;
        // The kernel reports success even if the driver has turned it on again.
        let mut flags = [ETHTOOL_GFLAGS, 0];
        self.ethtool(&mut flags).map_err(failed)?;
        match flags[1] & FLAG_RX_VLAN {
            0 => Ok(()),
            _ => Err(self.unsupported("the NIC takes VLAN tags off frames")),
        }
    }

    /// Makes the NIC receive frames of all VLANs and to all groups for as long as the returned socket is
    /// open. Otherwise it may drop those that no device of the kernel wants. Only promiscuous mode makes
    /// every NIC pass all VLANs.
    ///
    /// # Errors
    /// No permission.
    pub(crate) fn receive_all_vlans(&self) -> Result<OwnedFd, PortError> {
        let failed = |e| PortError::system(&self.name, "receive frames of all VLANs", "CAP_NET_RAW", e);
        // With protocol 0 it receives nothing.
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(failed)?;
        for mode in [libc::PACKET_MR_ALLMULTI, libc::PACKET_MR_PROMISC] {
            let request = libc::packet_mreq {
                mr_ifindex: self.index as i32,
                mr_type: mode as u16,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            sys::set_option(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
                .map_err(failed)?;
        }
        Ok(socket)
    }

    pub(crate) fn error(&self, action: &'static str, source: io::Error) -> PortError {
        PortError::system(&self.name, action, NET_ADMIN, source)
    }

    pub(crate) fn unsupported(&self, reason: impl Into<String>) -> PortError {
        PortError::NotSupported { device: self.name.clone(), reason: reason.into() }
    }

    /// Returns the primary name that the device has at the moment, which the kernel and other programs
    /// compare.
    fn name_now(&self) -> io::Result<RequestName> {
        let mut request = empty_request();
        request.ifr_ifru.ifru_ifindex = self.index as i32;
        self.call(libc::SIOCGIFNAME, &mut request)?;
        Ok(request.ifr_name)
    }

    /// Returns the device's type and the address that it has at the moment.
    fn hardware_address(&self) -> io::Result<libc::sockaddr> {
        let answer = self.ioctl(libc::SIOCGIFHWADDR)?;
        // SAFETY: SIOCGIFHWADDR fills this member of the union.
        Ok(unsafe { answer.ifr_ifru.ifru_hwaddr })
    }

    fn flags(&self) -> Result<i32, PortError> {
        let answer = self.ioctl(libc::SIOCGIFFLAGS).map_err(|e| self.error("read the flags", e))?;
        // SAFETY: SIOCGIFFLAGS fills this member of the union.
        Ok(i32::from(unsafe { answer.ifr_ifru.ifru_flags }))
    }

    /// Calls ethtool. `command` is an ETHTOOL_ command followed by room for the whole structure.
    fn ethtool(&self, command: &mut [u32]) -> io::Result<()> {
        self.ioctl_with(libc::SIOCETHTOOL, |request| {
            request.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
        })?;
        Ok(())
    }

    fn ioctl(&self, code: libc::c_ulong) -> io::Result<libc::ifreq> {
        self.ioctl_with(code, |_| {})
    }

    /// Calls an ioctl on the device, by the name that it has at the moment, with what `fill` adds to the
    /// request. Returns the answer.
    fn ioctl_with(
        &self,
        code: libc::c_ulong,
        fill: impl FnOnce(&mut libc::ifreq),
    ) -> io::Result<libc::ifreq> {
        let mut request = libc::ifreq { ifr_name: self.name_now()?, ..empty_request() };
        fill(&mut request);
        self.call(code, &mut request)?;
        Ok(request)
    }

    fn call(&self, code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: every code used here reads and writes one `ifreq`. If that holds a pointer,
        // `ethtool` owns its memory.
        sys::check(unsafe { libc::ioctl(self.socket.as_raw_fd(), code as _, request) }).map(drop)
    }
}

fn empty_request() -> libc::ifreq {
    // SAFETY: zeroes are a value of this structure of bytes and a union of integers and one pointer.
    unsafe { std::mem::zeroed() }
}

/// Returns a name as text.
fn text(name: &RequestName) -> String {
    let bytes: Vec<u8> = name.iter().map(|&c| c as u8).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns what the frames of a device of this type (`ARPHRD_…`) begin with, if ports can use it.
fn link_layer(kind: u16, flags: i32) -> Option<LinkLayer> {
    match kind {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Some(LinkLayer::Ethernet),
        libc::ARPHRD_NONE | libc::ARPHRD_PPP | ARPHRD_RAWIP => Some(LinkLayer::Ip),
        // With several far sides, each packet would need the address of its own.
        libc::ARPHRD_TUNNEL
        | libc::ARPHRD_TUNNEL6
        | libc::ARPHRD_SIT
        | libc::ARPHRD_IPGRE
        | ARPHRD_IP6GRE => (flags & libc::IFF_POINTOPOINT != 0).then_some(LinkLayer::Ip),
        _ => None,
    }
}

/// Returns the MAC address in a hardware address; `None` if the device has none.
fn mac(link: LinkLayer, address: &libc::sockaddr) -> Option<Mac> {
    (link == LinkLayer::Ethernet).then(|| std::array::from_fn(|i| address.sa_data[i] as u8))
}

impl Monitor for Device {
    /// Returns the state of the device. A device that is gone is down, even if another device has
    /// its name.
    fn state(&self) -> DeviceState {
        let gone = DeviceState { is_gone: true, ..DeviceState::default() };
        let mut state = gone.clone();
        for _ in 0..TRIES {
            let Ok(name) = self.name_now() else { return gone };
            state = DeviceState { name: Some(text(&name)), ..self.named_state() };
            // Otherwise another device may have had its name meanwhile.
            if self.name_now().is_ok_and(|now| now == name) {
                break;
            }
        }
        state
    }
}

impl Device {
    /// Returns the state of the device that has its name at the moment, without the name.
    fn named_state(&self) -> DeviceState {
        let flags = self.flags().unwrap_or(0);
        let (speed, full_duplex) = self.speed_and_duplex();
        DeviceState {
            mtu: self.mtu().ok(),
            mac: self.hardware_address().ok().and_then(|address| mac(self.link, &address)),
            is_up: flags & libc::IFF_UP != 0 && self.has_carrier(flags),
            speed,
            full_duplex,
            is_promiscuous: flags & libc::IFF_PROMISC != 0,
            ..DeviceState::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_ip_needs_one_far_side() {
        let to_one = libc::IFF_UP | libc::IFF_POINTOPOINT;
        for (kind, any, one) in [
            (libc::ARPHRD_ETHER, Some(LinkLayer::Ethernet), Some(LinkLayer::Ethernet)),
            (libc::ARPHRD_NONE, Some(LinkLayer::Ip), Some(LinkLayer::Ip)),
            (libc::ARPHRD_PPP, Some(LinkLayer::Ip), Some(LinkLayer::Ip)),
            (libc::ARPHRD_IPGRE, None, Some(LinkLayer::Ip)),
            (libc::ARPHRD_TUNNEL6, None, Some(LinkLayer::Ip)),
            (libc::ARPHRD_INFINIBAND, None, None),
        ] {
            assert_eq!((link_layer(kind, libc::IFF_UP), link_layer(kind, to_one)), (any, one), "{kind}");
        }
    }

    #[test]
    fn finds_loopback_but_no_missing_device() {
        let lo = Device::find("lo").unwrap();
        assert_eq!((lo.index(), lo.mac(), lo.queues(), lo.is_veth()), (1, [0; 6], 1, false));
        assert_eq!((lo.link(), lo.may_be_unfinished(true)), (LinkLayer::Ethernet, true));
        assert!(lo.mtu().unwrap() > 1000);
        let state = DeviceState {
            name: Some("lo".into()),
            mtu: lo.mtu().ok(),
            mac: Some([0; 6]),
            is_up: true,
            ..DeviceState::default()
        };
        assert_eq!(lo.state(), state);
        for name in ["", "no-such-device", "a-name-far-too-long-for-a-device", "l\0o"] {
            assert!(matches!(Device::find(name), Err(PortError::NoDevice { .. })), "{name:?}");
        }
        let error = Device::find("wan0").unwrap_err();
        assert_eq!(error.to_string(), "no device named \"wan0\"");
    }
}
