//! NATs, as `wayfarer show` writes them.

use super::table::{
    self,
    Align::{Left, Right},
};
use std::io::{self, Write};
use wayfarer::control::protocol::{NatUserView, NatView};

/// Writes a line for each NAT, and then one for each inner address with mappings.
pub(super) fn write(out: &mut impl Write, all: &[NatView]) -> io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "no [[nat]] in the configuration");
    }
    let columns = [
        ("ADDRESS", Left),
        ("PORT", Left),
        ("PORTS", Left),
        ("MAPPINGS", Right),
        ("FREE TCP", Right),
        ("FREE UDP", Right),
        ("FREE ICMP", Right),
        ("REFUSED", Right),
    ];
    let row = |nat: &NatView| {
        vec![
            nat.address.clone(),
            nat.port.clone(),
            nat.ports.clone(),
            nat.mappings.to_string(),
            nat.free_tcp.to_string(),
            nat.free_udp.to_string(),
            nat.free_icmp.to_string(),
            nat.refused.to_string(),
        ]
    };
    table::write(out, &columns, &all.iter().map(row).collect::<Vec<_>>())?;
    let user = |nat: &NatView, user: &NatUserView| {
        vec![
            user.address.clone(),
            nat.address.clone(),
            format!("{} of {}", user.mappings, nat.mappings_limit),
            user.refused.to_string(),
        ]
    };
    let users: Vec<_> = all.iter().flat_map(|nat| nat.users.iter().map(move |one| user(nat, one))).collect();
    if users.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let columns = [("INSIDE", Left), ("ADDRESS", Left), ("MAPPINGS", Right), ("REFUSED", Right)];
    table::write(out, &columns, &users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nat_is_one_line_and_each_of_its_users() {
        let user = NatUserView { address: "10.98.0.7".into(), mappings: 3, refused: 4 };
        let nat = NatView {
            address: "203.0.113.1".into(),
            port: "outside".into(),
            ports: "10000-32767".into(),
            mappings: 3,
            mappings_limit: 1024,
            free_tcp: 22765,
            free_udp: 22768,
            free_icmp: 22768,
            refused: 0,
            users: vec![user],
        };
        let text = |all: &[NatView]| {
            let mut out = vec![];
            write(&mut out, all).unwrap();
            String::from_utf8(out).unwrap()
        };
        let shown = text(&[nat]);
        let cells = |line: usize| shown.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(cells(1), ["203.0.113.1", "outside", "10000-32767", "3", "22765", "22768", "22768", "0"]);
        assert_eq!(cells(4), ["10.98.0.7", "203.0.113.1", "3", "of", "1024", "4"]);
        assert_eq!(text(&[]), "no [[nat]] in the configuration\n");
    }
}
