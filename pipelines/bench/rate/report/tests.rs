//! Reports of rows that were made up.

use super::{
    super::{
        figures::{
            BackToBack, Curve, Figures, FixedRate, Latencies, Latency, Limit, Spread, Step, Throughput,
            TrialSummary,
        },
        options::{Direction, Size},
        row::Row,
    },
    *,
};
use crate::bench::Machine;
use std::path::Path;

fn summary(fps: f64, sent: u64, lost: u64) -> TrialSummary {
    TrialSummary { fps, sent, lost, duplicates: 1, forged: 2, skipped: 3 }
}

fn latency(min: f64) -> Latency {
    Latency { min, mean: min + 1.5, p50: min + 1.0, p99: min + 2.0, p999: min + 3.0, max: min + 4.0 }
}

fn row(size: Size, figures: Figures) -> Row {
    let machine = Machine {
        processor: "CPU, \"fast\"".to_owned(),
        cores: 2,
        kernel: "6.18 <test>".to_owned(),
        load: 0.25,
    };
    Row {
        figures,
        direction: Direction::Both,
        size,
        mean_size: 64.0,
        ip: 6,
        ciphers: vec!["aes128gcm16".to_owned()],
        tunnels: 3,
        flows: 7,
        left_out: 0,
        threads: 2,
        drivers: vec!["af_xdp (native)".to_owned(); 2],
        link_mbps: Some(10_000),
        machine,
    }
}

fn throughput(fps: f64) -> Figures {
    let (sent, lost, latency) = (1000, 0, Some(latency(10.0)));
    let trials = vec![summary(2.0 * fps, 2000, 1000), summary(fps, 1000, 0)];
    Figures::Throughput(Throughput {
        fps,
        mbps: fps / 1000.0,
        sent,
        lost,
        limit: Limit::Device,
        latency,
        trials,
    })
}

fn report() -> Report {
    let repetitions = vec![latency(10.0), latency(20.0), latency(30.0)];
    let spread = |of: fn(&Latency) -> f64| Spread::new(repetitions.iter().map(of).collect());
    let latencies = Latencies {
        fps: 5e5,
        mbps: 256.0,
        sent: 3000,
        lost: 0,
        mean: spread(|latency| latency.mean),
        typical: spread(|latency| latency.p50),
        worst: spread(|latency| latency.p999),
        variation: spread(|latency| latency.p999 - latency.min),
        repetitions: repetitions.clone(),
    };
    let step = |percent, lost| {
        let fps = f64::from(percent) * 1e4;
        Step { percent, mbps: fps / 1000.0, summary: summary(fps, 1000, lost) }
    };
    let bursts = BackToBack {
        fps: 1e6,
        mbps: 512.0,
        frames: Spread::new(vec![8000.0, 9000.0]),
        milliseconds: 8.5,
        is_at_end: false,
        repetitions: vec![8000, 9000],
    };
    let fixed = FixedRate { rate: 1000.0, mbps: 0.5, summary: summary(999.0, 100, 25), latency: None };
    Report {
        program: "wayfarer 0".to_owned(),
        started: 1_700_000_000,
        arguments: ["bench", "rate", "--port", "<eth1>"].map(str::to_owned).to_vec(),
        rows: vec![
            row(Size::Fixed(1518), throughput(1e5)),
            row(Size::Fixed(64), throughput(5e5)),
            row(Size::Imix, throughput(4e5)),
            row(Size::Fixed(64), Figures::Latency(latencies)),
            row(
                Size::Fixed(64),
                Figures::Loss(Curve { steps: vec![step(100, 500), step(90, 0), step(80, 0)] }),
            ),
            row(Size::Fixed(64), Figures::BackToBack(bursts)),
            row(Size::Fixed(64), Figures::Rate(fixed)),
        ],
        numbers: vec![LastNumber { tunnel: "alice".to_owned(), number: 4711, received: 1174 }],
        error: Some("no frame came back".to_owned()),
        interrupted: false,
    }
}

fn written(format: Format) -> String {
    written_of(&report(), format)
}

fn written_of(report: &Report, format: Format) -> String {
    let mut out = Vec::new();
    format.write(report, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn names_of_files_say_the_form() {
    for (name, format) in
        [("a/run.json", Format::Json), ("run.csv", Format::Csv), ("/tmp/run.of.today.html", Format::Html)]
    {
        assert_eq!(Format::of(Path::new(name)), Ok(format));
    }
    for name in ["run", "run.htm", "json", ".csv"] {
        assert_eq!(Format::of(Path::new(name)), Err(UnknownFormat), "{name}");
    }
}

#[test]
fn json_has_every_figure_and_its_circumstances() {
    let report: serde_json::Value = serde_json::from_str(&written(Format::Json)).unwrap();
    assert_eq!(report["numbers"][0]["number"], 4711);
    assert_eq!(report["numbers"][0]["received"], 1174);
    assert_eq!(report["error"], "no frame came back");
    let rows = report["rows"].as_array().unwrap();
    let tests: Vec<_> = rows.iter().map(|row| row["test"].as_str().unwrap()).collect();
    let expected = ["throughput", "throughput", "throughput", "latency", "loss", "back-to-back", "rate"];
    assert_eq!(tests, expected);
    for row in rows {
        assert_eq!(row["machine"]["kernel"], "6.18 <test>");
        assert_eq!(row["machine"]["load"], 0.25);
        assert_eq!(row["threads"], 2);
        assert_eq!(row["direction"], "both");
    }
    assert_eq!(rows[0]["size"], 1518);
    assert_eq!(rows[2]["size"], "imix");
    assert_eq!(rows[1]["limit"], "device");
    assert_eq!(rows[1]["latency"]["p99.9"], 13.0);
    assert_eq!(rows[3]["typical"]["median"], 21.0);
    assert_eq!(rows[4]["steps"][0]["percent"], 100);
    assert_eq!(rows[4]["steps"][0]["lost"], 500);
    assert_eq!(rows[5]["repetitions"][1], 9000);
    assert_eq!(rows[6]["sent"], 100);
}

#[test]
fn csv_has_a_line_for_each_result_with_all_fields() {
    let text = written(Format::Csv);
    assert!(text.ends_with("\r\n"));
    let lines: Vec<_> = text.trim_end().split("\r\n").collect();
    // Throughputs, repetitions, steps, bursts, and one rate.
    assert_eq!(lines.len(), 1 + 3 + 3 + 3 + 2 + 1, "{text}");
    // The only field with commas and quotes.
    let processor = "\"CPU, \"\"fast\"\"\"";
    let lines: Vec<Vec<_>> = lines.iter().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0].len(), 33);
    // Its comma makes it two parts here.
    assert!(lines[1..].iter().all(|line| line.len() == 34 && line[29..31].join(",") == processor), "{text}");
    let field = |line: usize, title: &str| {
        let at = lines[0].iter().position(|other| *other == title).unwrap();
        lines[line][if at > 29 { at + 1 } else { at }]
    };
    let fields = |line, titles: &[&str]| titles.iter().map(|title| field(line, title)).collect::<Vec<_>>();
    assert_eq!(
        fields(2, &["test", "size", "fps", "lost", "limit"]),
        ["throughput", "64", "500000.000", "0", "device"]
    );
    assert_eq!(
        fields(5, &["test", "repetition", "p50_us", "p99.9_us", "sent"]),
        ["latency", "2", "21", "23", ""]
    );
    assert_eq!(fields(7, &["test", "percent", "loss_percent", "forged"]), ["loss", "100", "50", "2"]);
    assert_eq!(
        fields(11, &["test", "repetition", "burst_frames", "min_us"]),
        ["back-to-back", "2", "9000", ""]
    );
    assert_eq!(fields(12, &["test", "sent", "lost", "loss_percent"]), ["rate", "100", "25", "25"]);
    assert_eq!(
        fields(12, &["ip", "ciphers", "drivers", "kernel", "load"]),
        ["6", "aes128gcm16", "af_xdp (native) af_xdp (native)", "6.18 <test>", "0.25"]
    );
}

#[test]
fn page_needs_nothing_from_outside_and_plots_every_test() {
    let page = written(Format::Html);
    assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">") && page.ends_with("</html>\n"));
    for reference in ["http:", "https:", "//", "src=", "href", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(reference), "{reference}");
    }
    // Rates, bits, latencies, losses, bursts.
    assert_eq!((page.matches("<svg").count(), page.matches("</svg>").count()), (5, 5));
    for open in ["figure", "table", "tr", "td", "th", "div", "ul", "li", "style", "body", "html"] {
        let tags = page.matches(&format!("<{open}>")).count() + page.matches(&format!("<{open} ")).count();
        assert_eq!(tags, page.matches(&format!("</{open}>")).count(), "{open}");
    }
    // The smaller frame comes first, and a mix has no place on this axis.
    let rates = page.split("<svg").nth(1).unwrap();
    assert_eq!(rates.matches("<circle class=\"s0\"").count(), 2, "{rates}");
    assert!(rates.contains("500 k at 64</title>") && rates.contains("100 k at 1.518 k</title>"));
    assert!(rates.find("500 k at 64<").unwrap() < rates.find("100 k at 1.518 k<").unwrap());
    assert!(!page.contains("line rate"), "ESP makes frames longer");
    assert!(page.contains("--port &lt;eth1&gt;") && page.contains("6.18 &lt;test&gt;"));
    assert!(
        page.contains("2023-11-14 22:13 UTC") && page.contains("<li>alice: 4711 sent, 1174 received</li>")
    );
    assert!(page.contains("<td>typical 21.0 [11.0, 31.0] µs"), "{page}");
    assert!(page.contains("100 % (1000000 frames/s): 50.0000 % lost; 90 %"));
    assert!(page.contains("8500 frames, 8.50 ms at 1000000 frames/s; 2 searches"));
}

#[test]
fn line_rate_is_that_of_frames_in_clear() {
    let sealed = row(Size::Fixed(64), throughput(5e5));
    assert_eq!(sealed.line_rate(), None);
    let clear = Row { tunnels: 0, ciphers: vec![], ..sealed };
    // 14.88 million each way.
    assert!(
        clear.line_rate().is_some_and(|rate| (rate - 29_761_904.8).abs() < 0.1),
        "{:?}",
        clear.line_rate()
    );
    let report = Report { rows: vec![clear], ..report() };
    assert!(written_of(&report, Format::Html).contains("both, IPv6, line rate"));
}

#[test]
fn report_without_rows_is_still_one() {
    let report = Report { rows: vec![], numbers: vec![], ..report() };
    for (format, part) in
        [(Format::Json, "\"rows\": []"), (Format::Csv, "test,direction"), (Format::Html, "Ended early")]
    {
        assert!(written_of(&report, format).contains(part), "{format:?}");
    }
}

#[test]
fn report_says_whether_its_run_was_interrupted() {
    let cut_short = Report {
        error: Some("interrupted by SIGINT before everything was measured".to_owned()),
        interrupted: true,
        ..report()
    };
    for (report, is_interrupted) in [(report(), false), (cut_short, true)] {
        let json: serde_json::Value = serde_json::from_str(&written_of(&report, Format::Json)).unwrap();
        assert_eq!(json["interrupted"], is_interrupted);
        assert_eq!(json["rows"].as_array().map(Vec::len), Some(report.rows.len()));
        let page = written_of(&report, Format::Html);
        assert_eq!(page.contains("This run was interrupted"), is_interrupted);
        assert_eq!(page.contains("<th>Ended early</th><td>interrupted by SIGINT before"), is_interrupted);
        // A table has no place for it.
        assert_eq!(written_of(&report, Format::Csv), written(Format::Csv));
    }
}
