//! `wayfarer show ports`.

use super::table::{
    self,
    Align::{Left, Right},
    bytes, joined,
};
use std::io::{self, Write};
use wayfarer::control::protocol::PortView;

/// Writes the ports, their state and counters.
pub(super) fn write(out: &mut impl Write, all: &[PortView]) -> io::Result<()> {
    let columns = [
        ("PORT", Left),
        ("KIND", Left),
        ("DEVICE", Left),
        ("STATE", Left),
        ("MAC", Left),
        ("MTU", Right),
        ("ADDRESSES", Left),
        ("NEIGHBOURS", Right),
        ("RX PACKETS", Right),
        ("RX BYTES", Right),
        ("MISSED", Right),
        ("ERRORS", Right),
        ("OVERSIZE", Right),
        ("FOREIGN", Right),
        ("TX PACKETS", Right),
        ("TX BYTES", Right),
        ("TX ERRORS", Right),
    ];
    let row = |port: &PortView| {
        vec![
            port.port.clone(),
            port.kind.clone(),
            port.device.clone().unwrap_or_else(|| "-".to_owned()),
            state(port),
            port.mac.clone(),
            mtu(port),
            joined(&port.addresses),
            port.neighbours.to_string(),
            port.rx_packets.to_string(),
            bytes(port.rx_bytes),
            port.rx_missed.to_string(),
            port.rx_errors.to_string(),
            port.rx_oversize.to_string(),
            port.rx_foreign.to_string(),
            port.tx_packets.to_string(),
            bytes(port.tx_bytes),
            port.tx_errors.to_string(),
        ]
    };
    table::write(out, &columns, &all.iter().map(row).collect::<Vec<_>>())
}

/// Returns the MTU of a port, with that of its device if they differ: `1778 of 9000`.
fn mtu(port: &PortView) -> String {
    match port.device_mtu {
        Some(device) if device != port.mtu => format!("{} of {device}", port.mtu),
        _ => port.mtu.to_string(),
    }
}

/// Returns the state of a port's link, with its speed and anything unusual: `up 10G`.
fn state(port: &PortView) -> String {
    let Some(state) = port.link.clone() else { return "-".to_owned() };
    let is_up = state == "up";
    let speed = port.speed_mbps.filter(|_| is_up).map(|mbps| match mbps {
        0..1000 => format!("{mbps}M"),
        _ => format!("{}G", f64::from(mbps) / 1000.0),
    });
    let half = (is_up && port.full_duplex == Some(false)).then(|| "half-duplex".to_owned());
    let promiscuous = (port.promiscuous == Some(true)).then(|| "promiscuous".to_owned());
    [Some(state), speed, half, promiscuous].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Writes the devices' own counters.
pub(super) fn write_counters(out: &mut impl Write, all: &[PortView]) -> io::Result<()> {
    let row =
        |port: &PortView, name: &str, value: u64| vec![port.port.clone(), value.to_string(), name.to_owned()];
    let rows: Vec<_> =
        all.iter().flat_map(|port| port.counters.iter().map(|c| row(port, &c.name, c.value))).collect();
    if rows.is_empty() {
        return writeln!(out, "no device counters");
    }
    table::write(out, &[("PORT", Left), ("COUNT", Right), ("NAME", Left)], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::relevant::relevant;
    use wayfarer::control::protocol::{DeviceCounter, Reply};

    fn nic() -> PortView {
        let counter = |name: &str, value| DeviceCounter { name: name.to_owned(), value };
        PortView {
            port: "outside".into(),
            kind: "dpdk net_tap".into(),
            device: Some("net_tap0".into()),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            link: Some("up".into()),
            speed_mbps: Some(10_000),
            full_duplex: Some(true),
            promiscuous: Some(false),
            counters: vec![counter("rx_good_packets", 7), counter("rx_missed_errors", 0)],
            rx_errors: 3,
            rx_oversize: 5,
            tx_errors: 9,
            ..PortView::default()
        }
    }

    #[test]
    fn shows_state_with_the_known_details() {
        let with = |change: fn(&mut PortView)| {
            let mut port = nic();
            change(&mut port);
            state(&port)
        };
        assert_eq!(with(|_| {}), "up 10G");
        assert_eq!(with(|p| p.speed_mbps = None), "up");
        assert_eq!(with(|p| p.speed_mbps = Some(2500)), "up 2.5G");
        assert_eq!(with(|p| (p.speed_mbps, p.full_duplex) = (Some(100), Some(false))), "up 100M half-duplex");
        assert_eq!(with(|p| p.promiscuous = Some(true)), "up 10G promiscuous");
        assert_eq!(with(|p| p.link = Some("down".into())), "down");
        assert_eq!(with(|p| p.link = None), "-");
    }

    #[test]
    fn shows_an_mtu_that_is_not_the_devices() {
        let [own, same, other] =
            [None, Some(1500), Some(9000)].map(|device_mtu| mtu(&PortView { device_mtu, ..nic() }));
        assert_eq!([own, same, other], ["1500", "1500", "1500 of 9000"]);
    }

    #[test]
    fn a_port_is_one_line() {
        let mut out = vec![];
        write(&mut out, &[nic()]).unwrap();
        let text = String::from_utf8(out).unwrap();
        let columns: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        let cell = |title| columns[1][columns[0].iter().position(|t| *t == title).unwrap()];
        assert_eq!((cell("STATE"), cell("ERRORS"), cell("OVERSIZE")), ("up 10G", "3", "5"));
        assert_eq!((cell("DEVICE"), cell("TX ERRORS")), ("net_tap0", "9"));
    }

    #[test]
    fn shows_device_counters_that_are_not_zero_or_all() {
        let text = |ports: Vec<PortView>, all| {
            let Reply::Ports(ports) = relevant(Reply::Ports(ports), all) else { panic!("ports") };
            let mut out = vec![];
            write_counters(&mut out, &ports).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(vec![nic()], false), "PORT     COUNT  NAME\noutside      7  rx_good_packets\n");
        assert!(text(vec![nic()], true).ends_with("outside      0  rx_missed_errors\n"));
        assert_eq!(text(vec![PortView::default()], true), "no device counters\n");
    }
}
