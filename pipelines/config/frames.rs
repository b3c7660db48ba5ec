//! The size of frames, the buffers that packets are in.

use super::model::{Config, Port, PortKind};
use wayfarer_dataplane::{pool::HEADROOM, port::device::Device, wire::ethernet};

/// Bytes of a frame if no port needs more.
pub const USUAL_FRAME: usize = 2048;
/// Bytes of the largest frame that AF_XDP takes.
const AF_XDP_FRAME: usize = 4096;
/// Bytes of the largest frame that is chosen. It holds what NICs call jumbo frames. Larger ones are for
/// the operator to choose, because all frames of a worker take as much memory.
const LARGEST_FRAME: usize = 10_240;
/// Bytes of a frame beside a packet and its Ethernet header, for VLAN tags and what ESP adds behind.
const EXTRA: usize = 128;

/// Returns the bytes of a frame. Unless they are configured, a frame holds packets of all MTUs that the
/// configuration and the devices have now, up to what AF_XDP takes if a port must use that.
pub fn frame_size(config: &Config) -> usize {
    config.gateway.frame_size.unwrap_or_else(|| {
        let largest = if has_af_xdp(config) { AF_XDP_FRAME } else { LARGEST_FRAME };
        match HEADROOM + ethernet::HEADER + EXTRA + config.ports.iter().map(mtu).max().unwrap_or(0) {
            needed if needed <= USUAL_FRAME => USUAL_FRAME,
            // AF_XDP takes none in between.
            needed if needed <= AF_XDP_FRAME => AF_XDP_FRAME,
            needed => needed.next_multiple_of(64).min(largest),
        }
    })
}

/// Returns the length of the longest IP packet behind an Ethernet header that a frame of `frame_size`
/// bytes holds, in bytes.
pub fn longest_packet(frame_size: usize) -> usize {
    frame_size.saturating_sub(HEADROOM + ethernet::HEADER)
}

/// Returns advice on how to get frames that hold packets of `length` bytes behind an Ethernet header, if
/// those of this configuration do not.
pub(super) fn remedy(config: &Config, length: usize) -> &'static str {
    if has_af_xdp(config) && length > longest_packet(AF_XDP_FRAME) {
        "use kind = \"auto\" in place of \"af_xdp\", whose frames have at most 4KiB"
    } else if config.gateway.frame_size.is_some() {
        "raise gateway.frame_size"
    } else {
        "set gateway.frame_size"
    }
}

/// Returns whether a port must use AF_XDP.
fn has_af_xdp(config: &Config) -> bool {
    config.ports.iter().any(|port| matches!(port.kind, PortKind::AfXdp { .. }))
}

/// Returns the MTU that is configured for a port or that its device has, whichever is larger: a port that
/// sends less receives what its device takes, and may follow its device up to what is configured.
fn mtu(port: &Port) -> usize {
    let of_device = port.kind.shared_device().and_then(|name| Device::find(name).ok()?.mtu().ok());
    of_device.max(port.mtu).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, namespace::alone};
    use std::{path::Path, process::Command};

    #[test]
    fn frames_hold_the_packets_of_all_ports_and_their_devices_unless_their_size_is_configured() {
        alone(|| {
            let words = "link add eth0 mtu 9000 type veth peer name eth9".split(' ');
            assert!(Command::new("ip").args(words).status().unwrap().success());
            let size = |gateway: &str, port: &str| {
                let tap = "[[port]]\nname = \"a\"\nkind = \"tap\"\ndevice = \"wf0\"\n";
                let text = format!("{gateway}{tap}[[port]]\nname = \"b\"\n{port}");
                frame_size(&config::parse(&text, Path::new("x.toml")).unwrap())
            };
            for (port, expected) in [
                ("kind = \"sink\"\n", 2048),
                ("kind = \"tap\"\ndevice = \"wf1\"\nmtu = 1650\n", 2048),
                ("kind = \"tap\"\ndevice = \"wf1\"\nmtu = 1651\n", 4096),
                ("kind = \"tap\"\ndevice = \"wf1\"\nmtu = 9000\n", 9408),
                ("device = \"eth0\"\n", 9408),
                ("device = \"eth0\"\nmtu = 1400\n", 9408),
                ("device = \"eth0\"\nmtu = 9100\n", 9536),
                ("device = \"lo\"\n", 10_240),
                ("device = \"eth0\"\nkind = \"af_xdp\"\n", 4096),
                ("device = \"wf-none\"\n", 2048),
            ] {
                assert_eq!(size("", port), expected, "{port}");
                assert_eq!(size("gateway.frame_size = 2112\n", port), 2112, "{port}");
            }
        });
    }
}
