//! DPDK's virtual NICs in place of a namespace's devices.

/// A virtual NIC on a device of a namespace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Nic<'a> {
    /// `net_af_packet` uses a socket on the device, `net_tap` a TAP device in a bridge with it.
    driver: &'a str,
    device: &'a str,
}

impl<'a> Nic<'a> {
    /// Lists the virtual NICs of a configuration: those of ports whose kind begins with `net_`.
    pub(crate) fn all(config: &'a str) -> Vec<Self> {
        let value = |line: &'a str, key| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"');
        let pairs = config.lines().zip(config.lines().skip(1));
        let nic = |(kind, device)| {
            let driver = value(kind, "kind")?;
            Some(Self { driver, device: value(device, "device")? }).filter(|_| driver.starts_with("net_"))
        };
        let mut all = vec![];
        // Ports in VLANs share one.
        for nic in pairs.filter_map(nic) {
            if !all.contains(&nic) {
                all.push(nic);
            }
        }
        all
    }

    /// Returns DPDK's name of the NIC.
    pub(crate) fn name(&self) -> String {
        format!("{}_{}", self.driver, self.device)
    }

    /// Returns whether the last packet may wait until another one comes: `net_tap` looks for
    /// packets only after a signal, and its code can miss one if two threads handle signals at
    /// once.
    pub(crate) fn holds_back(&self) -> bool {
        self.driver == "net_tap"
    }

    /// Returns the name of the kernel's device of a `net_tap`.
    fn tap(&self) -> String {
        format!("tap-{}", self.device)
    }

    /// Returns the arguments with which DPDK makes the NIC.
    fn arguments(&self, queues: usize) -> String {
        match self.driver {
            "net_tap" => format!("{},iface={}", self.name(), self.tap()),
            _ => format!("{},iface={},qpairs={queues}", self.name(), self.device),
        }
    }

    /// Returns the command that removes the kernel's addresses from the device, to run before the
    /// gateway starts.
    pub(crate) fn take_device(&self) -> String {
        format!("ip address flush dev {}", self.device)
    }

    /// Returns the commands that hide packets that `device` receives from the kernel's stack, but
    /// not from sockets and bridges.
    fn hide_from_kernel(device: &str) -> [String; 2] {
        let chain = format!(
            "netdev deaf {device} {{ type filter hook ingress device {device} priority 0 ; policy drop ; }}"
        );
        ["nft add table netdev deaf".to_owned(), format!("nft add chain {chain}")]
    }

    /// Returns the commands that connect the NIC to the device, to run once the gateway runs.
    pub(crate) fn plug(&self) -> Vec<String> {
        let (device, bridge) = (self.device, format!("br-{}", self.device));
        if self.driver != "net_tap" {
            return Self::hide_from_kernel(device).into();
        }
        let mut commands = vec![format!("ip link add {bridge} type bridge mcast_snooping 0")];
        commands.extend(Self::hide_from_kernel(&bridge));
        let tap = self.tap();
        // A bridge keeps frames to a port's own MAC address. The TAP device has the NIC's, so it
        // gets another one.
        commands.push(format!("ip link set {tap} address 02:00:00:00:00:fe"));
        commands.extend([device, &tap].map(|port| format!("ip link set {port} master {bridge} up")));
        commands.push(format!("ip link set {bridge} up"));
        commands
    }
}

/// Completes a configuration with its virtual NICs, for `queues` workers.
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
    // A frame of net_af_packet's rings, of 2 KiB, must fit into an mbuf behind its headroom.
    format!("frame_size = \"4KiB\"\nframes = 4096\n{all}[dpdk]\nhugepages = false\nvdev = {vdevs:?}\n")
}
