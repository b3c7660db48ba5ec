//! Virtual NICs of DPDK in the place of a namespace's devices.

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

    /// Returns the command to run before its gateway starts, so that the kernel has no address on
    /// the device.
    pub(crate) fn take_device(&self) -> String {
        format!("ip address flush dev {}", self.device)
    }

    /// Returns the commands after which the kernel hears nothing by `device`, as if a NIC were gone
    /// from it; sockets and bridges do.
    fn deafen(device: &str) -> [String; 2] {
        let chain = format!(
            "netdev deaf {device} {{ type filter hook ingress device {device} priority 0 ; policy drop ; }}"
        );
        ["nft add table netdev deaf".to_owned(), format!("nft add chain {chain}")]
    }

    /// Returns the commands to run once its gateway runs, so that the NIC is at the device.
    pub(crate) fn plug(&self) -> Vec<String> {
        let (device, bridge) = (self.device, format!("br-{}", self.device));
        if self.driver != "net_tap" {
            return Self::deafen(device).into();
        }
        let mut commands = vec![format!("ip link add {bridge} type bridge mcast_snooping 0")];
        commands.extend(Self::deafen(&bridge));
        let tap = self.tap();
        // A bridge takes what is to a port's own MAC address for itself, and this is the NIC's.
        commands.push(format!("ip link set {tap} address 02:00:00:00:00:fe"));
        commands.extend([device, &tap].map(|port| format!("ip link set {port} master {bridge} up")));
        commands.push(format!("ip link set {bridge} up"));
        commands
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
