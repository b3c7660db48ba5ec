//! Tables and numbers for people to read.

use std::io::{self, Write};

/// The side of the column on which a cell is aligned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Writes rows in columns, each as wide as its widest cell.
pub(super) fn write(out: &mut impl Write, columns: &[(&str, Align)], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |i: usize, title: &str| {
        let cells = rows.iter().map(|row| row[i].chars().count());
        cells.chain([title.chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(|(i, (title, _))| width(i, title)).collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(columns).zip(&widths).map(|((cell, (_, align)), &width)| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end())
    };
    line(&mut columns.iter().map(|(title, _)| *title))?;
    rows.iter().try_for_each(|row| line(&mut row.iter().map(String::as_str)))
}

/// Returns the items separated by commas, or a dash if there are none.
pub(super) fn joined(items: &[String]) -> String {
    if items.is_empty() { "-".to_owned() } else { items.join(",") }
}

/// Returns a number of bytes with a binary unit: `1.5 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // A value that would be shown as 1024.0 becomes 1.0 of the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Returns a time in its two largest units: `2h 3m`.
pub(super) fn seconds(seconds: f64) -> String {
    let s = seconds as u64;
    match s {
        0..60 => format!("{seconds:.1}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86400 => format!("{}h {}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut out = vec![];
        let rows = [vec!["a".to_owned(), "7".to_owned()], vec!["bcdef".to_owned(), "1234567".to_owned()]];
        write(&mut out, &[("NAME", Align::Left), ("COUNT", Align::Right)], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME     COUNT\na            7\nbcdef  1234567\n");
    }

    #[test]
    fn numbers_have_fitting_units() {
        let all = [0, 1023, 1024, 1536, 1 << 20, (1 << 20) - 1, u64::MAX].map(bytes);
        assert_eq!(all, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "16.0 EiB"]);
        let all = [0.25, 59.0, 61.0, 7380.0, 90_000.0].map(seconds);
        assert_eq!(all, ["0.2s", "59.0s", "1m 1s", "2h 3m", "1d 1h"]);
    }
}
