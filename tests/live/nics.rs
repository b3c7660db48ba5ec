//! Virtual NICs of DPDK in the place of a namespace's devices.

use super::lab::Lab;

/// A virtual NIC at a device of a namespace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Nic<'a> {
    /// `net_af_packet`: by a socket on the device. `net_tap`: by a TAP device, in a bridge with it.
    driver: &'a str,
    device: &'a str,
}

impl<'a> Nic<'a> {
    /// Those of a configuration: its ports of a kind that begins with `net_`.
    pub(crate) fn all(config: &'a str) -> Vec<Self> {
        let value = |line: &'a str, key| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"');
        let pairs = config.lines().zip(config.lines().skip(1));
        let nic = |(kind, device)| {
            let driver = value(kind, "kind")?;
            Some(Self { driver, device: value(device, "device")? }).filter(|_| driver.starts_with("net_"))
        };
        pairs.filter_map(nic).collect()
    }

    /// Its name for DPDK.
    pub(crate) fn name(&self) -> String {
        format!("{}_{}", self.driver, self.device)
    }

    /// Returns whether the last packet may wait until another one comes: `net_tap` looks for
    /// packets only after a signal, and by its source can miss one when two threads handle signals
    /// at once.
    pub(crate) fn holds_back(&self) -> bool {
        self.driver == "net_tap"
    }

    /// The kernel's end of a `net_tap`.
    fn tap(&self) -> String {
        format!("tap-{}", self.device)
    }

    /// What DPDK is to make it of.
    fn arguments(&self, queues: usize) -> String {
        match self.driver {
            "net_tap" => format!("{},iface={}", self.name(), self.tap()),
            _ => format!("{},iface={},qpairs={queues}", self.name(), self.device),
        }
    }

    /// Before its gateway starts: the kernel has no address on the device.
    pub(crate) fn take_device(&self, lab: &Lab, space: &str) {
        lab.run(space, &format!("ip address flush dev {}", self.device));
    }

    /// The kernel hears nothing by `device`, as if a NIC were gone from it; sockets and bridges do.
    fn deafen(lab: &Lab, space: &str, device: &str) {
        let chain = format!(
            "netdev deaf {device} {{ type filter hook ingress device {device} priority 0 ; policy drop ; }}"
        );
        lab.run(space, "nft add table netdev deaf");
        lab.run(space, &format!("nft add chain {chain}"));
    }

    /// Once its gateway runs: the NIC is at the device.
    pub(crate) fn plug(&self, lab: &Lab, space: &str) {
        let (device, bridge) = (self.device, format!("br-{}", self.device));
        if self.driver != "net_tap" {
            return Self::deafen(lab, space, device);
        }
        lab.run(space, &format!("ip link add {bridge} type bridge mcast_snooping 0"));
        Self::deafen(lab, space, &bridge);
        let tap = self.tap();
        // A bridge takes what is to a port's own MAC address for itself, and this is the NIC's.
        lab.run(space, &format!("ip link set {tap} address 02:00:00:00:00:fe"));
        for port in [device, &tap] {
            lab.run(space, &format!("ip link set {port} master {bridge} up"));
        }
        lab.run(space, &format!("ip link set {bridge} up"));
    }
}

/// A configuration with its virtual NICs, for `queues` workers.
pub(crate) fn with_dpdk(config: &str, queues: usize) -> String {
    let nics = Nic::all(config);
    if nics.is_empty() {
        return config.to_owned();
    }
    let mut all = config.to_owned();
    for nic in &nics {
        let Nic { driver, device } = nic;
        all = all.replace(
            &format!("kind = \"{driver}\"\ndevice = \"{device}\""),
            &format!("kind = \"dpdk\"\ndevice = \"{}\"", nic.name()),
        );
    }
    let vdevs: Vec<_> = nics.iter().map(|nic| nic.arguments(queues)).collect();
    // Frames of net_af_packet's rings, of 2 KiB, must fit in an mbuf with its headroom.
    format!("frame_size = \"4KiB\"\nframes = 4096\n{all}[dpdk]\nhugepages = false\nvdev = {vdevs:?}\n")
}
