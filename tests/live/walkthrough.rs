//! The documentation's walk-through, run as its reader would.

use super::{lab::program, traffic::lost};
use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

const PAGE: &str = include_str!("../../docs/walkthrough.md");

/// Returns the content of the page's only block of this language.
fn block(language: &str) -> &'static str {
    let (_, rest) =
        PAGE.split_once(&format!("\n```{language}\n")).expect("the page has a block of the language");
    let (block, rest) = rest.split_once("```\n").expect("the block has an end");
    assert!(!rest.contains(&format!("\n```{language}\n")), "more than one block of {language}");
    block
}

/// Returns the rows of `show sa` without the columns that depend on time.
fn tunnels(output: &str) -> Vec<Vec<&str>> {
    let rows = output.lines().filter(|line| line.starts_with("TUNNEL") || line.starts_with("alice"));
    rows.map(|row| row.split_whitespace().take(6).collect()).collect()
}

/// Checks that the pasted commands do what the page says, without output on standard error.
#[test]
fn works_when_pasted() {
    let script = block("sh").replace("target/release/wayfarer", program());
    assert!(script.contains(program()));
    let dir = tempfile::tempdir().unwrap();
    let [out, err] = ["out", "err"].map(|name| dir.path().join(name));
    let mut bash = Command::new("timeout");
    bash.args(["-k", "1", "40", "bash", "-e", "-c", &script]).stdin(Stdio::null()).process_group(0);
    bash.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut bash = bash.spawn().unwrap();
    let status = bash.wait().unwrap();
    // Removes leftovers of a failed script: its process group and its namespaces.
    let clean = |program: &str, arguments: &[&str]| {
        let done = Command::new(program).args(arguments).output().unwrap();
        assert!(!status.success() || !done.status.success(), "left: {arguments:?}");
    };
    clean("kill", &["-KILL", "--", &format!("-{}", bash.id())]);
    clean("ip", &["netns", "del", "wf-gateway"]);
    clean("ip", &["netns", "del", "wf-terminal"]);
    let [output, errors] = [out, err].map(|file| fs::read_to_string(file).unwrap());
    assert!(status.success(), "{status}: {output}{errors}");
    assert_eq!(errors, "");
    assert_eq!(tunnels(&output), tunnels(block("text")), "{output}");
    // One ping while the terminal had no address, and the answer to the first one afterwards.
    assert!(lost(&output) <= 2, "{output}");
}
