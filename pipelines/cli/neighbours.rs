//! `wayfarer show neighbours`.

use super::table::{self, Align::Left};
use std::io::{self, Write};
use wayfarer::control::protocol::NeighbourView;

/// Writes a line for each neighbour.
pub(super) fn write(out: &mut impl Write, all: &[NeighbourView]) -> io::Result<()> {
    if all.is_empty() {
        return writeln!(out, "no neighbours");
    }
    let row = |one: &NeighbourView| {
        let NeighbourView { port, address, mac, origin } = one.clone();
        vec![port, address, mac, origin]
    };
    let columns = [("PORT", Left), ("ADDRESS", Left), ("MAC", Left), ("ORIGIN", Left)];
    table::write(out, &columns, &all.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_one_line() {
        let neighbour = NeighbourView {
            port: "outside".into(),
            address: "203.0.113.254".into(),
            mac: "02:00:00:00:00:fe".into(),
            origin: "static".into(),
        };
        let text = |all: &[NeighbourView]| {
            let mut out = vec![];
            write(&mut out, all).unwrap();
            String::from_utf8(out).unwrap()
        };
        let shown = text(&[neighbour]);
        assert_eq!(shown.lines().nth(1), Some("outside  203.0.113.254  02:00:00:00:00:fe  static"));
        assert_eq!(text(&[]), "no neighbours\n");
    }
}
