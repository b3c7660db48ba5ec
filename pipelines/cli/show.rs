//! `wayfarer show`.

use super::table::{
    self,
    Align::{Left, Right},
    bytes, seconds,
};
use std::io::{self, Write};
use wayfarer::control::protocol::{DropView, PortView, Reply, SaView, WorkerView};

/// What is worth showing: drops that happened, or all.
pub(super) fn relevant(mut reply: Reply, all: bool) -> Reply {
    if let Reply::Drops(drops) = &mut reply
        && !all
    {
        drops.retain(|drop| drop.packets > 0);
    }
    reply
}

/// Writes a reply as a table or as JSON.
pub(super) fn write(out: &mut impl Write, reply: &Reply, json: bool) -> io::Result<()> {
    match (reply, json) {
        (Reply::Sa(all), true) => write_json(out, all),
        (Reply::Ports(all), true) => write_json(out, all),
        (Reply::Workers(all), true) => write_json(out, all),
        (Reply::Drops(all), true) => write_json(out, all),
        (Reply::Sa(all), false) => sa(out, all),
        (Reply::Ports(all), false) => ports(out, all),
        (Reply::Workers(all), false) => workers(out, all),
        (Reply::Drops(all), false) => drops(out, all),
        (Reply::Done, _) => Ok(()),
    }
}

fn write_json(out: &mut impl Write, content: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, content)?;
    writeln!(out)
}

fn sa(out: &mut impl Write, all: &[SaView]) -> io::Result<()> {
    let columns = [
        ("TUNNEL", Left),
        ("STATE", Left),
        ("LOCAL", Left),
        ("REMOTE", Left),
        ("ENCAP", Left),
        ("MOVES", Right),
        ("LAST MOVE", Right),
        ("IN", Right),
        ("OUT", Right),
        ("REFUSED", Right),
        ("SPI IN/OUT", Left),
        ("CIPHER IN/OUT", Left),
    ];
    let row = |sa: &SaView| {
        let ciphers = match sa.inbound.cipher == sa.outbound.cipher {
            true => sa.inbound.cipher.clone(),
            false => format!("{}/{}", sa.inbound.cipher, sa.outbound.cipher),
        };
        let mode = if sa.mode == "transport" { "transport/" } else { "" };
        vec![
            sa.tunnel.clone(),
            sa.state.clone(),
            sa.local.clone(),
            match (&sa.remote, &sa.seen) {
                (remote, None) => known(remote),
                (remote, Some(seen)) => format!("{} (seen at {seen})", known(remote)),
            },
            format!("{mode}{}", known(&sa.encap)),
            sa.moves.to_string(),
            sa.last_move_s.map_or_else(|| "-".to_owned(), |s| format!("{} ago", seconds(s))),
            format!("{} ({})", sa.inbound.packets, bytes(sa.inbound.bytes)),
            format!("{} ({})", sa.outbound.packets, bytes(sa.outbound.bytes)),
            (sa.replayed + sa.forged + sa.selector).to_string(),
            format!("{}/{}", sa.inbound.spi, sa.outbound.spi),
            ciphers,
        ]
    };
    table::write(out, &columns, &all.iter().map(row).collect::<Vec<_>>())
}

fn known(value: &Option<String>) -> String {
    value.clone().unwrap_or_else(|| "-".to_owned())
}

fn ports(out: &mut impl Write, all: &[PortView]) -> io::Result<()> {
    let columns = [
        ("PORT", Left),
        ("KIND", Left),
        ("MAC", Left),
        ("MTU", Right),
        ("ADDRESSES", Left),
        ("NEIGHBOURS", Right),
        ("RX PACKETS", Right),
        ("RX BYTES", Right),
        ("MISSED", Right),
        ("ERRORS", Right),
        ("TX PACKETS", Right),
        ("TX BYTES", Right),
    ];
    let row = |port: &PortView| {
        vec![
            port.port.clone(),
            port.kind.clone(),
            port.mac.clone(),
            port.mtu.to_string(),
            if port.addresses.is_empty() { "-".to_owned() } else { port.addresses.join(",") },
            port.neighbours.to_string(),
            port.rx_packets.to_string(),
            bytes(port.rx_bytes),
            port.rx_missed.to_string(),
            port.rx_errors.to_string(),
            port.tx_packets.to_string(),
            bytes(port.tx_bytes),
        ]
    };
    table::write(out, &columns, &all.iter().map(row).collect::<Vec<_>>())
}

fn workers(out: &mut impl Write, all: &[WorkerView]) -> io::Result<()> {
    let columns = [
        ("WORKER", Right),
        ("CORE", Right),
        ("RECEIVED", Right),
        ("OPENED", Right),
        ("SEALED", Right),
        ("SENT", Right),
        ("DROPPED", Right),
        ("PUNTED", Right),
        ("INJECTED", Right),
        ("IDLE", Right),
        ("CPU", Right),
        ("FREE FRAMES", Right),
    ];
    let row = |worker: &WorkerView| {
        vec![
            worker.worker.to_string(),
            worker.core.map_or_else(|| "-".to_owned(), |core| core.to_string()),
            worker.received.to_string(),
            format!("{} ({})", worker.opened, bytes(worker.opened_bytes)),
            format!("{} ({})", worker.sealed, bytes(worker.sealed_bytes)),
            worker.sent.to_string(),
            worker.dropped.to_string(),
            worker.punted.to_string(),
            worker.injected.to_string(),
            format!("{:.1}%", 100.0 * worker.idle_turns as f64 / worker.turns.max(1) as f64),
            seconds(worker.cpu_s),
            worker.free_frames.to_string(),
        ]
    };
    table::write(out, &columns, &all.iter().map(row).collect::<Vec<_>>())
}

fn drops(out: &mut impl Write, all: &[DropView]) -> io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "nothing dropped");
    }
    let columns = [("PACKETS", Right), ("SEVERITY", Left), ("REASON", Left), ("MEANING", Left)];
    let row = |drop: &DropView| {
        vec![drop.packets.to_string(), drop.severity.clone(), drop.reason.clone(), drop.meaning.clone()]
    };
    table::write(out, &columns, &all.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops_of(packets: [u64; 2]) -> Reply {
        let drop = |packets, reason: &str| DropView {
            reason: reason.to_owned(),
            severity: "error".to_owned(),
            packets,
            meaning: "broken".to_owned(),
        };
        Reply::Drops(vec![drop(packets[0], "RuntFrame"), drop(packets[1], "UdpLength")])
    }

    fn text(reply: &Reply, json: bool) -> String {
        let mut out = vec![];
        write(&mut out, reply, json).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn drops_that_did_not_happen_are_left_out() {
        let shown = text(&relevant(drops_of([0, 7]), false), false);
        assert_eq!(shown, "PACKETS  SEVERITY  REASON     MEANING\n      7  error     UdpLength  broken\n");
        assert!(text(&relevant(drops_of([0, 7]), true), false).contains("RuntFrame"));
        assert_eq!(text(&relevant(drops_of([0, 0]), false), false), "nothing dropped\n");
    }

    #[test]
    fn json_is_the_content_of_the_reply() {
        let shown: Vec<DropView> = serde_json::from_str(&text(&drops_of([3, 7]), true)).unwrap();
        assert_eq!(Reply::Drops(shown), drops_of([3, 7]));
    }

    #[test]
    fn a_tunnel_is_one_line() {
        let view = SaView {
            tunnel: "alice".into(),
            state: "up".into(),
            mode: "tunnel".into(),
            local: "203.0.113.1".into(),
            remote: Some("192.0.2.7:4500".into()),
            encap: Some("udp".into()),
            seen: Some("192.0.2.8".into()),
            moves: 2,
            last_move_s: Some(61.0),
            replayed: 1,
            forged: 2,
            ..SaView::default()
        };
        let shown = text(&Reply::Sa(vec![view]), false);
        let line = shown.lines().nth(1).unwrap();
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let wanted =
            ["alice", "up", "203.0.113.1", "192.0.2.7:4500 (seen at 192.0.2.8)", "udp", "2", "1m 1s ago"];
        assert_eq!(cells[..7], wanted);
        assert_eq!(cells[9], "3");
    }
}
