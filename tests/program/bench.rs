//! `wayfarer bench`: its rows are complete and checked. Speed is not tested, because other tests
//! run at the same time.

use serde_json::Value;
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    process::{Command, Output},
};

fn bench(arguments: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_wayfarer");
    Command::new(program).arg("bench").args(arguments.split(' ')).output().unwrap()
}

/// Runs a benchmark, and returns its JSON rows.
fn rows(arguments: &str) -> Vec<Value> {
    let output = bench(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or_else(|| panic!("{field}: {row}"))
}

#[test]
fn esp_carries_every_packet_in_each_direction() {
    let rows = rows("esp --direction out,in,both --size 64,imix --sas 100 --seconds 0.01 --json");
    let combinations: Vec<_> =
        rows.iter().map(|row| (row["direction"].to_string(), row["size"].to_string())).collect();
    let expected =
        ["out", "in", "both"].map(|way| ["64", "\"imix\""].map(|size| (format!("{way:?}"), size.to_owned())));
    assert_eq!(combinations, expected.concat());
    for row in &rows {
        assert_eq!(number(row, "lost"), 0.0, "{row}");
        assert_eq!(number(row, "replay_drops"), 0.0, "{row}");
        assert_eq!((number(row, "sas"), number(row, "workers")), (100.0, 1.0));
        assert_eq!(row["cipher"], "aes128gcm16");
        assert!(number(row, "packets") >= 10_000.0 && number(row, "checked") >= 100.0, "{row}");
        for field in ["ns_per_packet", "ns_min", "ns_max", "mpps", "gbps", "setup_seconds"] {
            assert!(number(row, field) > 0.0, "{field}: {row}");
        }
        assert!(number(row, "ns_min") <= number(row, "ns_per_packet"));
        assert!(number(row, "ns_per_packet") <= number(row, "ns_max"));
        let crypto = ["seal", "open"].map(|stage| number(&row["stages"], stage));
        assert!(crypto.iter().sum::<f64>() > 0.0 && number(&row["stages"], "receive") > 0.0, "{row}");
    }
}

#[test]
fn esp_makes_a_row_for_every_combination() {
    let rows =
        rows("esp --direction in --size 80 --sas 1,7 --cipher aes256gcm,aes128-sha256 --seconds 0.01 --json");
    let combinations: Vec<_> =
        rows.iter().map(|row| (row["cipher"].as_str().unwrap(), number(row, "sas"))).collect();
    let expected =
        [("aes256gcm16", 1.0), ("aes256gcm16", 7.0), ("aes128-sha256", 1.0), ("aes128-sha256", 7.0)];
    assert_eq!(combinations, expected);
    assert!(rows.iter().all(|row| number(row, "lost") == 0.0));
}

#[test]
fn esp_loses_nothing_while_terminals_move_and_tunnels_change() {
    let rows = rows(
        "esp --direction out,in,both --size 200 --sas 5000 --seconds 0.02 --roam 5000 --churn 5000 --json",
    );
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert_eq!(number(row, "lost"), 0.0, "{row}");
        assert!(number(row, "moves") > 0.0 && number(row, "churns") > 0.0, "{row}");
        assert!(number(row, "moves_followed") > 0.0 && number(row, "astray") == 0.0, "{row}");
    }
}

#[test]
fn esp_joins_fragments_and_a_flood_of_others_costs_no_packet() {
    let of = |more: &str| {
        rows(&format!("esp --direction in --size 200,1420 --sas 10,100 --seconds 0.01 --json{more}"))
    };
    let loads =
        [" --fragments", " --fragments=4", " --fragments 32 --flood 50", " --flood 50 --flow-cache 0"];
    for row in loads.map(of).iter().flatten() {
        assert_eq!(number(row, "lost"), 0.0, "{row}");
        assert!(number(row, "checked") >= 20.0, "{row}");
        // All but those that are kept at the end.
        let share = number(row, "flood_drops") / number(row, "packets");
        assert!(if row["flood"] == 0 { share == 0.0 } else { share > 0.3 }, "{row}");
    }
}

#[test]
fn two_workers_share_one_sa() {
    let rows = rows("esp --direction out,in --size 64 --sas 1 --workers 2 --seconds 0.01 --json");
    let [outbound, inbound] = &rows[..] else { panic!("{rows:?}") };
    // An interrupted worker loses the packets that come too late for the window.
    for row in &rows {
        assert_eq!(number(row, "workers"), 2.0);
        assert_eq!(number(row, "lost"), number(row, "replay_drops"), "{row}");
        assert!(row["drops"].as_object().unwrap().keys().all(|reason| reason == "ReplayStale"), "{row}");
    }
    assert_eq!(number(outbound, "lost"), 0.0, "no window is in the way: {outbound}");
    assert!(number(inbound, "lost") < number(inbound, "packets"), "{inbound}");
}

#[test]
fn more_workers_or_threads_than_cores_are_refused() {
    let cores = core_affinity::get_core_ids().unwrap().len();
    let (more, only) = (cores + 1, format!("need as many cores, but this process may use {cores} only\n"));
    let mut runs = vec![(format!("esp --sas 1,2 --seconds 0.01 --workers {more}"), "workers")];
    // Beyond this number, it is not a valid option on any machine.
    if more <= 64 {
        runs.push((format!("rate --port lo --threads {more} --json"), "threads"));
    }
    for (arguments, what) in runs {
        let Output { status, stdout, stderr } = bench(&arguments);
        assert_eq!((status.code(), &stdout[..]), (Some(1), &b""[..]), "{arguments}");
        assert_eq!(String::from_utf8(stderr).unwrap(), format!("no figure: {more} {what} {only}"));
    }
}

#[test]
fn rate_without_a_device_still_writes_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let all = ["run.json", "run.csv", "run.html"].map(|name| file(name).display().to_string());
    let output = bench(&format!("rate --port wf-nowhere --size imix --report {}", all.join(",")));
    let why = "port wf-nowhere: no device named \"wf-nowhere\"";
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(1), format!("{why}\n").as_bytes()));
    let report: Value = serde_json::from_slice(&std::fs::read(file("run.json")).unwrap()).unwrap();
    assert_eq!((&report["rows"], &report["error"]), (&Value::Array(vec![]), &Value::from(why)));
    assert_eq!(report["arguments"][1], "rate");
    assert!(std::fs::read_to_string(file("run.csv")).unwrap().starts_with("test,direction,size,"));
    assert!(std::fs::read_to_string(file("run.html")).unwrap().contains("wf-nowhere: no device named"));
}

#[test]
fn rate_that_fails_at_once_leaves_an_older_report_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    std::fs::write(&path, "of yesterday").unwrap();
    let output = bench(&format!("rate --port lo --test rate --report {}", path.display()));
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(1), &b"--test rate needs --rate\n"[..]));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "of yesterday");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn rate_takes_arguments_that_are_not_utf8() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wayfarer"));
    command.args(["bench", "rate", "--port", "lo", "--test", "latency", "--replay"]);
    command.arg(OsStr::from_bytes(b"in\xff.pcap")).arg("--report").arg(&path);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(report["arguments"][7], "in\u{fffd}.pcap");
}

#[test]
fn rate_refuses_options_that_do_not_fit_together() {
    for (arguments, code, part) in [
        ("rate --port lo --report run.txt", 2, "must end with .json, .csv or .html"),
        ("rate --port lo --test speed", 2, "must be throughput, latency, loss, back-to-back, rate"),
        ("rate --port lo --size 63", 2, "must be 64 to 9216, or imix"),
        ("rate --port lo --dst 198.19.0.0", 2, "--src"),
        ("rate --port lo --src 198.18.0.1/16 --dst 198.19.0.1", 2, "must be an address, or a prefix"),
        ("rate --port lo --ipv6 --replay x.pcap", 2, "cannot be used with"),
        ("rate --port lo --trial 0", 2, "must be from 0.01 to 3600"),
        ("rate --port lo --dst-mac 01:00:5e:00:00:01", 2, "must be a MAC address of one station"),
        ("rate --port lo --report nowhere/run.json", 1, "nowhere/run.json: "),
        ("rate --port lo --test rate", 1, "--test rate needs --rate"),
        ("rate --port lo --direction both", 1, "--peer-port is needed"),
        ("rate --port lo --replay x.pcap --test latency", 1, "without latencies"),
        ("rate --port lo --esp nowhere.toml", 2, "cannot be read"),
    ] {
        let output = bench(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        let arguments = format!("{arguments}: {errors}");
        assert_eq!((output.status.code(), errors.contains(part)), (Some(code), true), "{arguments}");
    }
}

#[test]
fn table_has_a_line_for_each_row() {
    let output = bench("esp --direction out --size 64,128 --sas 1,2 --seconds 0.01");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(
        lines[0].starts_with("DIRECTION") && lines[1..].iter().all(|line| line.starts_with("out ")),
        "{text}"
    );
}

#[test]
fn implementations_of_an_aead_agree() {
    let rows = rows("crypto --size 64,imix --cipher aes128gcm,chacha20poly1305 --seconds 0.01 --json");
    // Two operations, two sizes, two AEADs, four implementations.
    assert_eq!(rows.len(), 32);
    for row in &rows {
        assert!(number(row, "ns_per_packet") > 0.0 && number(row, "gbps") > 0.0, "{row}");
    }
    let by = |name: &str| rows.iter().filter(|row| row["library"] == name).count();
    assert_eq!(["wayfarer", "aws-lc-rs", "ring", "rust-crypto"].map(by), [8; 4]);
}

#[test]
fn ike_measures_peers_that_connect_move_and_stay() {
    let rows = rows("ike --only connect,move,idle --peers 400 --seconds 0.01 --json");
    let cases: Vec<_> =
        rows.iter().map(|row| (row["mode"].as_str().unwrap(), row["case"].as_str().unwrap())).collect();
    let expected = [
        ("connect", "ecdsa certificates"),
        ("connect", "shared key"),
        ("move", "protocol"),
        ("move", "slow path"),
        ("idle", "protocol"),
        ("idle", "gateway"),
    ];
    assert_eq!(cases, expected);
    for row in &rows {
        assert!(row["measured"].is_number() && row["met"].is_boolean() && row["target"].is_object(), "{row}");
    }
    let detail = |row: usize, name: &str| number(&rows[row]["details"], name);
    assert!(detail(0, "peers") >= 16.0 && detail(1, "peers") >= 16.0);
    assert!(detail(2, "moves") >= 16.0 && detail(3, "moves") >= 16.0);
    // The liveness of every second peer is checked.
    assert_eq!((detail(4, "asked_after"), detail(5, "tunnels")), (200.0, 400.0));
}

#[test]
fn ike_loses_nothing_while_peers_move_and_rekey() {
    let rows = rows("ike --only latency,rekey,flood --peers 40 --seconds 0.2 --json");
    let of_mode = |mode: &str| rows.iter().filter(|row| row["mode"] == mode).collect::<Vec<_>>();
    let rekeys = of_mode("rekey");
    assert_eq!(rekeys.len(), 3);
    for row in rekeys {
        assert_eq!((number(row, "measured"), &row["met"]), (0.0, &Value::Bool(true)), "{row}");
        for name in ["times", "packets_in", "packets_out"] {
            assert!(number(&row["details"], name) > 0.0, "{row}");
        }
    }
    let flood = of_mode("flood");
    assert!(number(&flood[0]["details"], "inits_per_s") > 0.0, "{}", flood[0]);
    for row in [of_mode("latency")[0], flood[1], flood[2]] {
        assert!(number(row, "measured") > 0.0 && number(&row["details"], "moves") > 0.0, "{row}");
    }
}

#[test]
fn reports_what_cannot_be_measured() {
    for (arguments, code, message) in [
        ("esp --size 12", 2, "36 to 9000, or imix"),
        ("esp --direction up", 2, "out, in or both"),
        ("esp --sas 0", 2, "1..=1048576"),
        ("esp --cipher rot13", 2, "rot13"),
        ("esp --seconds nan", 2, "0.01 to 60"),
        ("ike --only sleep", 2, "connect, move, idle, latency, rekey, flood"),
        ("ike --peers 0", 2, "1..=1048576"),
        ("crypto --operation mend", 2, "seal or open"),
        ("crypto --cipher null-sha256", 1, "no other library has null-sha256"),
    ] {
        let output = bench(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {stderr}");
        assert!(stderr.contains(message), "{arguments}: {stderr}");
    }
}

#[test]
fn ports_forward_every_packet() {
    let folder = tempfile::tempdir().unwrap();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for length in [60, 1514] {
        file.extend(words(&[0, 0, length, length]));
        file.extend(vec![0x55; length as usize]);
    }
    std::fs::write(folder.path().join("frames.pcap"), file).unwrap();
    let write = |kind: &str, more: &str| {
        let text = format!(
            "[[port]]\nname = \"from\"\nkind = \"{kind}\"\n{more}\n[[port]]\nname = \"to\"\nkind = \"sink\"\n"
        );
        let path = folder.path().join("ports.toml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let config = write("generator", "input = \"frames.pcap\"\ncount = 100000");
    let [row] = &rows(&format!("ports {config} --seconds 0.5 --json"))[..] else { panic!("one row") };
    assert_eq!((number(row, "packets"), number(row, "refused")), (100_000.0, 0.0));
    assert!(number(row, "ns_min") <= number(row, "ns_per_packet"), "{row}");
    assert!(number(row, "ns_per_packet") <= number(row, "ns_max"), "{row}");
    assert_eq!(row["ports"], serde_json::json!(["from (generator)", "to (sink)"]));
    let config = write("sink", "");
    let output = bench(&format!("ports {config} --seconds 0.01"));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "no figure: no packet came in by any port\n");
}
