//! A report as one page that refers to nothing outside.

use super::{
    super::{
        figures::{Figures, Spread},
        options::Size,
        row::Row,
    },
    content::Report,
    plot::{Plot, Series, escape},
};
use std::fmt::Write;
use time::OffsetDateTime;

/// The page's own style, for bright and dark screens. Lines differ in colour and in dashes.
const STYLE: &str = "\
:root { color-scheme: light dark; --text: #1b1b1b; --grid: #d5d5d5; --paper: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --grid: #4a4a4a; --paper: #1a1a1a; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em;
  color: var(--text); background: var(--paper); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: 0.25em 0.8em 0.25em 0;
  border-bottom: 1px solid var(--grid); }
.plots { display: flex; flex-wrap: wrap; gap: 1.5em; }
figure { margin: 0; flex: 1 1 26em; }
figcaption { font-weight: 600; }
svg { width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--text); }
svg line, svg polyline { fill: none; stroke-width: 2; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .bound { stroke: #888888; fill: #888888; stroke-dasharray: 2 4; }
svg .s0 { stroke: #0072b2; } svg circle.s0 { fill: #0072b2; }
svg .s1 { stroke: #d55e00; stroke-dasharray: 8 3; } svg circle.s1 { fill: #d55e00; }
svg .s2 { stroke: #009e73; stroke-dasharray: 4 3; } svg circle.s2 { fill: #009e73; }
svg .s3 { stroke: #cc79a7; stroke-dasharray: 12 3 2 3; } svg circle.s3 { fill: #cc79a7; }
svg .s4 { stroke: #e69f00; stroke-dasharray: 2 2; } svg circle.s4 { fill: #e69f00; }
svg .s5 { stroke: #56b4e9; stroke-dasharray: 10 2; } svg circle.s5 { fill: #56b4e9; }
svg .s6 { stroke: #8c564b; stroke-dasharray: 6 2 2 2; } svg circle.s6 { fill: #8c564b; }
svg .s7 { stroke: #666666; stroke-dasharray: 14 4; } svg circle.s7 { fill: #666666; }
svg polyline.bound { fill: none; }
";

/// What the figures mean.
const NOTES: &str = "\
<p>Sizes are those of frames in clear, with their check sequence. Rates are those of all directions and
threads together, of frames that the devices really took. Latencies run from handing frames to the
sending device to taking them from the receiving one, so this program's own polling is in them. Of frames
that it seals, the sealing of the whole burst is in them too: up to 32 frames. Typical
latency is a trial's median, worst-case latency what 99.9 % of its frames did not exceed, variation the
latter less the trial's lowest (RFC 8219). Of repeated trials there are the median and, in brackets, the
1st and 99th percentile.</p>
";

/// What is said of a run that a signal ended.
const INTERRUPTED: &str = "\
<p><strong>This run was interrupted</strong>: it has only the rows that were complete until then.</p>
";

/// Returns the page.
pub(super) fn page(report: &Report) -> String {
    let Report { program, started, arguments, rows, numbers, error, interrupted } = report;
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{program}: rates</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Rates, latencies and losses</h1>\n",
        program = escape(program)
    );
    if *interrupted {
        page += INTERRUPTED;
    }
    let mut facts =
        vec![("Program", program.clone()), ("Arguments", arguments.join(" ")), ("Start", date(*started))];
    if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
        let machine = &first.machine;
        facts.push(("Processor", format!("{}, {} cores", machine.processor, machine.cores)));
        facts.push(("Kernel", machine.kernel.clone()));
        facts.push((
            "Load average",
            format!("{} at the start, {} at the end", machine.load, last.machine.load),
        ));
        facts.push(("Drivers", first.drivers.join(", ")));
        facts.extend(first.link_mbps.map(|mbps| ("Speed", format!("{mbps} Mbit/s"))));
    }
    facts.extend(error.as_ref().map(|why| ("Ended early", why.clone())));
    page += "<table>\n";
    for (name, value) in facts {
        let _ = writeln!(page, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    page += "</table>\n<div class=\"plots\">\n";
    page.extend(plots(rows).iter().filter_map(Plot::svg));
    page += "</div>\n";
    page += NOTES;
    page += &results(rows);
    if !numbers.is_empty() {
        page += "<p>Last sequence numbers, by which the device knows repetitions:</p>\n<ul>\n";
        for last in numbers {
            let _ = writeln!(
                page,
                "<li>{}: {} sent, {} received</li>",
                escape(&last.tunnel),
                last.number,
                last.received
            );
        }
        page += "</ul>\n";
    }
    page + "</body>\n</html>\n"
}

/// Returns a time in seconds since 1970 as a date.
fn date(seconds: u64) -> String {
    let time =
        i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.map_or(String::new(), |t| {
        let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
        format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", t.hour(), t.minute())
    })
}

/// Returns what tells the rows of a plot apart, besides their size.
fn name(row: &Row) -> String {
    let mut name = format!("{}, IPv{}", row.direction, row.ip);
    if !row.ciphers.is_empty() {
        let _ = write!(name, ", {}", row.ciphers.join(" "));
    }
    name
}

/// Returns the size of frames with its unit.
fn unit(size: Size) -> String {
    match size {
        Size::Fixed(size) => format!("{size} B"),
        other => other.to_string(),
    }
}

/// Makes a series for each name, of points against the size of frames.
fn by_size(rows: &[Row], figure: impl Fn(&Row) -> Option<f64>, suffix: &str) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for row in rows {
        let (Size::Fixed(size), Some(value)) = (row.size, figure(row)) else { continue };
        let name = format!("{}{suffix}", name(row));
        let at = all.iter().position(|series| series.name == name).unwrap_or_else(|| {
            all.push(Series { name, points: Vec::new(), is_bound: false });
            all.len() - 1
        });
        all[at].points.push((f64::from(size), value));
    }
    all.iter_mut().for_each(|series| series.points.sort_by(|(a, _), (b, _)| a.total_cmp(b)));
    all
}

fn plots(rows: &[Row]) -> Vec<Plot> {
    const SIZE: &str = "bytes of a frame";
    let throughput = |row: &Row| match &row.figures {
        Figures::Throughput(found) => Some(found.fps),
        _ => None,
    };
    let mut rates = by_size(rows, throughput, "");
    let possible = by_size(rows, |row| throughput(row).and(row.line_rate()), ", line rate");
    rates.extend(possible.into_iter().map(|series| Series { is_bound: true, ..series }));
    let bits = |row: &Row| match &row.figures {
        Figures::Throughput(found) => Some(found.mbps),
        _ => None,
    };
    let latency =
        |of: fn(&Figures) -> Option<Spread>| move |row: &Row| of(&row.figures).map(|spread| spread.median);
    let typical = latency(|figures| match figures {
        Figures::Latency(found) => Some(found.typical),
        _ => None,
    });
    let worst = latency(|figures| match figures {
        Figures::Latency(found) => Some(found.worst),
        _ => None,
    });
    let variation = latency(|figures| match figures {
        Figures::Latency(found) => Some(found.variation),
        _ => None,
    });
    let burst = |row: &Row| match &row.figures {
        Figures::BackToBack(found) => Some(found.frames.mean),
        _ => None,
    };
    let losses = rows.iter().filter_map(|row| match &row.figures {
        Figures::Loss(curve) => {
            let points = curve.steps.iter().rev().map(|step| (step.summary.fps, step.summary.loss_percent()));
            let name = format!("{}, {}", name(row), unit(row.size));
            Some(Series { name, points: points.collect(), is_bound: false })
        }
        _ => None,
    });
    let mut latencies = by_size(rows, typical, ", typical");
    latencies.extend(by_size(rows, worst, ", worst case"));
    latencies.extend(by_size(rows, variation, ", variation"));
    let plot = |title: &str, x, y, series| Plot { title: title.to_owned(), x, y, series };
    vec![
        plot("Throughput", SIZE, "frames per second", rates),
        plot("Throughput in bits of frames", SIZE, "Mbit/s", by_size(rows, bits, "")),
        plot("Latency", SIZE, "µs", latencies),
        plot("Loss", "frames per second", "percent lost", losses.collect()),
        plot("Longest burst without loss", SIZE, "frames", by_size(rows, burst, "")),
    ]
}

/// Returns the table of all rows.
fn results(rows: &[Row]) -> String {
    let mut table =
        "<h2>Results</h2>\n<div class=\"wide\">\n<table>\n<tr><th>Test</th><th>Direction</th><th>Frame</th>\
                     <th>IP</th><th>ESP</th><th>Flows</th><th>Threads</th><th>Result</th><th>Load</th></tr>\n"
            .to_owned();
    for row in rows {
        let esp = match row.tunnels {
            0 => "-".to_owned(),
            tunnels => format!("{}, {tunnels} tunnels", row.ciphers.join(" ")),
        };
        let cells = [
            row.figures.test().to_string(),
            row.direction.to_string(),
            row.size.to_string(),
            format!("IPv{}", row.ip),
            esp,
            row.flows.to_string(),
            row.threads.to_string(),
            result(&row.figures),
            row.machine.load.to_string(),
        ];
        let cells = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell)));
        let _ = writeln!(table, "<tr>{}</tr>", cells.collect::<String>());
    }
    table + "</table>\n</div>\n"
}

/// Returns figures in words.
fn result(figures: &Figures) -> String {
    let spread = |s: &Spread| format!("{:.1} [{:.1}, {:.1}]", s.median, s.p1, s.p99);
    match figures {
        Figures::Throughput(found) => {
            let (fps, mbps, limit, trials) = (found.fps, found.mbps, found.limit.name(), found.trials.len());
            format!("{fps:.0} frames/s, {mbps:.1} Mbit/s; limit: {limit}; {trials} trials")
        }
        Figures::Latency(found) => format!(
            "typical {} µs, worst case {} µs, variation {} µs, mean {:.1} µs; {} trials at \
             {:.0} frames/s",
            spread(&found.typical),
            spread(&found.worst),
            spread(&found.variation),
            found.mean.mean,
            found.repetitions.len(),
            found.fps
        ),
        Figures::Loss(curve) => {
            let step = |step: &super::super::figures::Step| {
                let (percent, lost, fps) = (step.percent, step.summary.loss_percent(), step.summary.fps);
                format!("{percent} % ({fps:.0} frames/s): {lost:.4} % lost")
            };
            curve.steps.iter().map(step).collect::<Vec<_>>().join("; ")
        }
        Figures::BackToBack(found) => {
            let (mean, milliseconds, fps) = (found.frames.mean, found.milliseconds, found.fps);
            let end = if found.is_at_end { ", the longest that was tried, in every search" } else { "" };
            format!(
                "{mean:.0} frames, {milliseconds:.2} ms at {fps:.0} frames/s{end}; {} searches",
                found.repetitions.len()
            )
        }
        Figures::Rate(found) => {
            let (rate, fps, lost) = (found.rate, found.summary.fps, found.summary.loss_percent());
            let latency = found.latency.map_or(String::new(), |latency| {
                format!("; latency {:.1} µs, 99.9 % within {:.1} µs", latency.p50, latency.p999)
            });
            format!("{fps:.0} of {rate:.0} frames/s, {lost:.4} % lost{latency}")
        }
    }
}
