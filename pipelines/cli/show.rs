//! `wayfarer show`.

use super::{
    home_agents, nat, neighbours, ports,
    table::{
        self,
        Align::{Left, Right},
        bytes, joined, seconds,
    },
};
use std::io::{self, Write};
use wayfarer::control::protocol::{
    BarView, ChildView, CounterView, DropView, FailedPeerView, PeerView, Reply, SaView, WorkerView,
};

/// Writes a reply as a table or as JSON.
pub(super) fn write(out: &mut impl Write, reply: &Reply, json: bool) -> io::Result<()> {
    match (reply, json) {
        (Reply::Sa(all), true) => write_json(out, all),
        (Reply::Ports(all), true) => write_json(out, all),
        (Reply::Neighbours(all), true) => write_json(out, all),
        (Reply::Workers(all), true) => write_json(out, all),
        (Reply::SlowPath(all), true) => write_json(out, all),
        (Reply::Drops(all), true) => write_json(out, all),
        (Reply::Peers(all), true) => write_json(out, all),
        (Reply::FailedPeers(all), true) => write_json(out, all),
        (Reply::Bars(all), true) => write_json(out, all),
        (Reply::Ike(all), true) => write_json(out, all),
        (Reply::Nat(all), true) => write_json(out, all),
        (Reply::HomeAgents(all), true) => write_json(out, all),
        (Reply::Bindings(all), true) => write_json(out, all),
        (Reply::Sa(all), false) => sa(out, all),
        (Reply::Ports(all), false) => ports::write(out, all),
        (Reply::Neighbours(all), false) => neighbours::write(out, all),
        (Reply::Workers(all), false) => workers(out, all),
        (Reply::Drops(all), false) => drops(out, all),
        (Reply::Peers(all), false) => peers(out, all),
        (Reply::FailedPeers(all), false) => failed_peers(out, all),
        (Reply::Bars(all), false) => bars(out, all),
        (Reply::SlowPath(all) | Reply::Ike(all), false) => counters(out, all),
        (Reply::Nat(all), false) => nat::write(out, all),
        (Reply::HomeAgents(all), false) => home_agents::write(out, all),
        (Reply::Bindings(all), false) => home_agents::write_bindings(out, all),
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
            with_mtu(format!("{mode}{}", known(&sa.encap)), sa.path_mtu, &sa.path_mtu_source),
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

/// Adds the MTU of the path, if one is known, to the encapsulation, and who has found it.
fn with_mtu(encap: String, path_mtu: Option<u16>, found_by: &Option<String>) -> String {
    match (path_mtu, found_by) {
        (None, _) => encap,
        (Some(mtu), Some(by)) => format!("{encap} (MTU {mtu} by {by})"),
        // A gateway of an earlier version does not say who.
        (Some(mtu), None) => format!("{encap} (MTU {mtu})"),
    }
}

fn known(value: &Option<String>) -> String {
    value.clone().unwrap_or_else(|| "-".to_owned())
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
        ("CONSUMED", Right),
        ("WAITING", Right),
        ("PUNTED", Right),
        ("INJECTED", Right),
        ("MADE", Right),
        ("FLOW HITS", Right),
        ("FLOW MISSES", Right),
        ("IDLE", Right),
        ("CPU", Right),
        ("FREE FRAMES", Right),
        ("FAULTS", Right),
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
            worker.consumed.to_string(),
            worker.waiting.to_string(),
            worker.punted.to_string(),
            worker.injected.to_string(),
            worker.made.to_string(),
            worker.flow_hits.to_string(),
            worker.flow_misses.to_string(),
            format!("{:.1}%", 100.0 * worker.idle_turns as f64 / worker.turns.max(1) as f64),
            seconds(worker.cpu_s),
            worker.free_frames.to_string(),
            worker.faults.to_string(),
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

/// Writes a line for each peer, and then one for each child SA.
fn peers(out: &mut impl Write, all: &[PeerView]) -> io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "no peers");
    }
    let columns = [
        ("PEER", Right),
        ("CONNECTION", Left),
        ("IDENTITY", Left),
        ("STATE", Left),
        ("LOCAL", Left),
        ("REMOTE", Left),
        ("NAT", Left),
        ("ENCAP", Left),
        ("INNER", Left),
        ("MOVES", Right),
        ("LAST MOVE", Right),
        ("REKEYS", Right),
        ("AGE", Right),
        ("SUITE", Left),
    ];
    let row = |peer: &PeerView| {
        vec![
            peer.peer.to_string(),
            known(&peer.connection),
            known(&peer.identity),
            if peer.state == "up" && peer.children.is_empty() {
                "no child".into()
            } else {
                peer.state.clone()
            },
            peer.local.clone(),
            match &peer.remote_name {
                Some(name) => format!("{} ({name})", peer.remote),
                None => peer.remote.clone(),
            },
            peer.nat.clone(),
            with_mtu(peer.encap.clone(), peer.path_mtu, &peer.path_mtu_source),
            joined(&peer.inner),
            if peer.mobike { peer.moves.to_string() } else { "no MOBIKE".to_owned() },
            peer.last_move_s.map_or_else(|| "-".to_owned(), |s| format!("{} ago", seconds(s))),
            peer.rekeys.to_string(),
            seconds(peer.age_s),
            known(&peer.suite),
        ]
    };
    table::write(out, &columns, &all.iter().map(row).collect::<Vec<_>>())?;
    let children: Vec<_> = all.iter().flat_map(|peer| peer.children.iter().map(|c| child(peer, c))).collect();
    if children.is_empty() {
        return Ok(());
    }
    let columns = [
        ("PEER", Right),
        ("CHILD", Left),
        ("SPI IN/OUT", Left),
        ("SUITE", Left),
        ("LOCAL", Left),
        ("REMOTE", Left),
        ("AGE", Right),
    ];
    writeln!(out)?;
    table::write(out, &columns, &children)
}

fn child(peer: &PeerView, child: &ChildView) -> Vec<String> {
    vec![
        peer.peer.to_string(),
        child.name.clone(),
        format!("{}/{}", child.spi_in, child.spi_out),
        child.suite.clone(),
        joined(&child.local),
        joined(&child.remote),
        seconds(child.age_s),
    ]
}

fn bars(out: &mut impl Write, all: &[BarView]) -> io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "nobody is barred");
    }
    let row = |bar: &BarView| vec![bar.identity.clone(), seconds(bar.left_s)];
    table::write(out, &[("IDENTITY", Left), ("LEFT", Right)], &all.iter().map(row).collect::<Vec<_>>())
}

fn failed_peers(out: &mut impl Write, all: &[FailedPeerView]) -> io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "no failed peers");
    }
    let columns = [
        ("AGE", Right),
        ("REMOTE", Left),
        ("CLAIMED", Left),
        ("PROVED", Left),
        ("CONNECTION", Left),
        ("METHOD", Left),
        ("REASON", Left),
    ];
    let row = |peer: &FailedPeerView| {
        vec![
            seconds(peer.age_s),
            peer.remote.clone(),
            known(&peer.claimed),
            known(&peer.proved),
            known(&peer.connection),
            known(&peer.method),
            peer.reason.clone(),
        ]
    };
    table::write(out, &columns, &all.iter().map(row).collect::<Vec<_>>())
}

fn counters(out: &mut impl Write, all: &[CounterView]) -> io::Result<()> {
    let columns = [("COUNT", Right), ("NAME", Left), ("MEANING", Left)];
    let row = |c: &CounterView| vec![c.count.to_string(), c.name.clone(), c.meaning.clone()];
    table::write(out, &columns, &all.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::relevant::relevant;

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
    fn leaves_out_drops_with_a_count_of_zero() {
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
            path_mtu: Some(1400),
            path_mtu_source: Some("router".into()),
            moves: 2,
            last_move_s: Some(61.0),
            replayed: 1,
            forged: 2,
            ..SaView::default()
        };
        let shown = text(&Reply::Sa(vec![view]), false);
        let line = shown.lines().nth(1).unwrap();
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let remote = "192.0.2.7:4500 (seen at 192.0.2.8)";
        let encap = "udp (MTU 1400 by router)";
        let wanted = ["alice", "up", "203.0.113.1", remote, encap, "2", "1m 1s ago"];
        assert_eq!(cells[..7], wanted);
        assert_eq!(cells[9], "3");
    }

    #[test]
    fn a_peer_is_one_line_and_each_of_its_children() {
        let child = ChildView {
            name: "net".into(),
            spi_in: "0x1001".into(),
            spi_out: "0x2001".into(),
            suite: "aes256gcm16".into(),
            local: vec!["10.99.0.0/24".into()],
            remote: vec!["10.98.0.1/32".into()],
            age_s: 5.0,
        };
        let peer = PeerView {
            peer: 17,
            connection: Some("psk".into()),
            identity: Some("cl.test".into()),
            state: "up".into(),
            local: "203.0.113.1:4500".into(),
            remote: "192.0.2.2:1025".into(),
            remote_name: Some("cl.example.org".into()),
            nat: "there".into(),
            encap: "udp".into(),
            path_mtu: Some(1400),
            path_mtu_source: Some("probe".into()),
            inner: vec!["10.98.0.1".into()],
            mobike: true,
            moves: 3,
            last_move_s: Some(61.0),
            rekeys: 1,
            age_s: 7380.0,
            suite: Some("aes256gcm16-prfsha384-ecp256".into()),
            children: vec![child],
        };
        let connecting = PeerView { peer: 18, state: "connecting".into(), ..PeerView::default() };
        let shown = text(&Reply::Peers(vec![peer.clone(), connecting]), false);
        let cells = |line: usize| -> Vec<&str> {
            let line = shown.lines().nth(line).unwrap();
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
        };
        let wanted = [
            "17",
            "psk",
            "cl.test",
            "up",
            "203.0.113.1:4500",
            "192.0.2.2:1025 (cl.example.org)",
            "there",
            "udp (MTU 1400 by probe)",
        ];
        assert_eq!(cells(1)[..8], wanted);
        let wanted = ["10.98.0.1", "3", "1m 1s ago", "1", "2h 3m", "aes256gcm16-prfsha384-ecp256"];
        assert_eq!(cells(1)[8..], wanted);
        assert_eq!(cells(2)[..4], ["18", "-", "-", "connecting"]);
        let wanted = ["17", "net", "0x1001/0x2001", "aes256gcm16", "10.99.0.0/24", "10.98.0.1/32", "5.0s"];
        assert_eq!(cells(5), wanted);
        let json: Vec<PeerView> =
            serde_json::from_str(&text(&Reply::Peers(vec![peer.clone()]), true)).unwrap();
        assert_eq!(json, [peer]);
        assert_eq!(text(&Reply::Peers(vec![]), false), "no peers\n");
        let childless = PeerView { children: vec![], ..json[0].clone() };
        assert!(text(&Reply::Peers(vec![childless]), false).contains("  no child  "));
    }

    #[test]
    fn shows_why_peers_did_not_connect() {
        let failed = FailedPeerView {
            age_s: 61.0,
            remote: "192.0.2.2:1025".into(),
            claimed: Some("cl.test".into()),
            method: Some("psk".into()),
            reason: "wrong proof of identity".into(),
            ..FailedPeerView::default()
        };
        let shown = text(&Reply::FailedPeers(vec![failed]), false);
        let expected = "  AGE  REMOTE          CLAIMED  PROVED  CONNECTION  METHOD  REASON\n\
                        1m 1s  192.0.2.2:1025  cl.test  -       -           psk     wrong proof of identity\n";
        assert_eq!(shown, expected);
        assert_eq!(text(&Reply::FailedPeers(vec![]), false), "no failed peers\n");
    }
}
