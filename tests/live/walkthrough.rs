//! The walk-through of the documentation, pasted.

use super::{lab::program, traffic::lost};
use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

const PAGE: &str = include_str!("../../docs/walkthrough.md");

/// What stands in the page's only block of that language.
fn block(language: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("\n```{language}\n")).expect("a block");
    let (block, rest) = rest.split_once("```\n").expect("its end");
    assert!(!rest.contains(&format!("\n```{language}\n")), "more than one block of {language}");
    block
}

/// The rows of `show sa`, as far as they do not depend on time.
fn tunnels(output: &str) -> Vec<Vec<&str>> {
    let rows = output.lines().filter(|line| line.starts_with("TUNNEL") || line.starts_with("alice"));
    rows.map(|row| row.split_whitespace().take(6).collect()).collect()
}

/// It does what the page says, with no word on standard error.
#[test]
fn works_when_pasted() {
    let script = block("sh").replace("target/release/wayfarer", program());
    assert!(script.contains(program()));
    let mut bash = Command::new("timeout");
    // A group of its own: what is left of a script that fails goes with it.
    bash.args(["-k", "1", "40", "bash", "-e", "-c", &script]).stdin(Stdio::null()).process_group(0);
    let output = bash.output().unwrap();
    for space in ["wf-gateway", "wf-terminal"] {
        let left = Command::new("ip").args(["netns", "del", space]).output().unwrap();
        assert!(!output.status.success() || !left.status.success(), "{space} was left");
    }
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (said, complaints) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{}: {said}{complaints}", output.status);
    assert_eq!(complaints, "");
    assert_eq!(tunnels(&said), tunnels(block("text")), "{said}");
    assert!(lost(&said) <= 1, "{said}");
}
