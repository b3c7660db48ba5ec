//! Reloads of a running gateway.

use crate::cli::wayfarer;
use nix::{sys::stat::Mode, unistd::mkfifo};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

#[test]
fn gateway_ends_while_a_reload_waits_for_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut frames = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1, 0, 0, 60, 60]);
    frames.extend([0x55; 60]);
    fs::write(folder.path().join("frames.pcap"), frames).unwrap();
    let config = folder.path().join("gateway.toml");
    let text = "[gateway]\ncontrol = \"none\"\n[[port]]\nname = \"load\"\nkind = \"generator\"\n\
                input = \"frames.pcap\"\n[[port]]\nname = \"bin\"\nkind = \"sink\"\n";
    fs::write(&config, text).unwrap();

    let mut command = wayfarer(&["gateway", "--config", config.to_str().unwrap()]);
    let mut gateway = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(gateway.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("the gateway is running")));
    let process = gateway.id().to_string();
    let signal =
        |name: &str| assert!(Command::new("kill").args([name, &process]).status().unwrap().success());

    fs::remove_file(&config).unwrap();
    mkfifo(&config, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    signal("-HUP");
    // Opens once the gateway has opened it too. The gateway then reads until it is closed.
    let unfinished = File::options().write(true).open(&config).unwrap();
    signal("-TERM");
    let (to, ended) = mpsc::channel();
    thread::spawn(move || to.send(gateway.wait().unwrap()));
    let status = ended.recv_timeout(Duration::from_secs(20));
    drop(unfinished);
    assert!(status.is_ok_and(|status| status.success()));
}
