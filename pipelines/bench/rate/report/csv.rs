//! A report as a table of values that are separated by commas (RFC 4180).

use super::{super::row::Row, record::Record};

/// The titles of the columns. A field is empty if the test has no such figure.
const COLUMNS: [&str; 33] = [
    "test",
    "direction",
    "size",
    "mean_size",
    "ip",
    "ciphers",
    "tunnels",
    "flows",
    "threads",
    "repetition",
    "percent",
    "fps",
    "mbps",
    "sent",
    "lost",
    "loss_percent",
    "duplicates",
    "forged",
    "skipped",
    "limit",
    "burst_frames",
    "min_us",
    "mean_us",
    "p50_us",
    "p99_us",
    "p99.9_us",
    "max_us",
    "drivers",
    "link_mbps",
    "processor",
    "cores",
    "kernel",
    "load",
];

/// Returns the whole table.
pub(super) fn table(rows: &[Row]) -> String {
    let titles = COLUMNS.map(str::to_owned);
    let records = rows.iter().flat_map(Record::all);
    let lines = std::iter::once(titles).chain(records.map(|record| fields(&record)));
    lines.map(|fields| fields.map(quoted).join(",") + "\r\n").collect()
}

/// Returns the fields of a result, in the order of [`COLUMNS`].
fn fields(record: &Record<'_>) -> [String; COLUMNS.len()] {
    let Record { row, repetition, percent, fps, mbps, counts, trial, limit, burst, latency } = record;
    let Row { figures, direction, size, mean_size, ip, ciphers, tunnels, flows, threads, .. } = row;
    [
        figures.test().to_string(),
        direction.to_string(),
        size.to_string(),
        decimal(*mean_size),
        ip.to_string(),
        ciphers.join(" "),
        tunnels.to_string(),
        flows.to_string(),
        threads.to_string(),
        text(*repetition),
        text(*percent),
        decimal(*fps),
        decimal(*mbps),
        text(counts.map(|(sent, _)| sent)),
        text(counts.map(|(_, lost)| lost)),
        text(record.loss_percent()),
        text(trial.map(|trial| trial.duplicates)),
        text(trial.map(|trial| trial.forged)),
        text(trial.map(|trial| trial.skipped)),
        text(limit.map(|limit| limit.name())),
        text(*burst),
        text(latency.map(|latency| latency.min)),
        text(latency.map(|latency| decimal(latency.mean))),
        text(latency.map(|latency| latency.p50)),
        text(latency.map(|latency| latency.p99)),
        text(latency.map(|latency| latency.p999)),
        text(latency.map(|latency| latency.max)),
        row.drivers.join(" "),
        text(row.link_mbps),
        row.machine.processor.clone(),
        row.machine.cores.to_string(),
        row.machine.kernel.clone(),
        row.machine.load.to_string(),
    ]
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

fn decimal(value: f64) -> String {
    format!("{value:.3}")
}

/// Returns a field in quotes if it needs them (RFC 4180 §2).
fn quoted(field: String) -> String {
    match field.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    }
}
