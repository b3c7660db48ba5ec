//! What the compiler made of the kernels, as objdump shows it.

#![cfg(target_arch = "x86_64")]

use std::{env, hint::black_box, process::Command};
use wayfarer_crypto::{open, seal};

/// The functions of kernels for vectors that are longer than the stack's own alignment.
const KERNELS: [&str; 2] = ["burst::vaes256::", "burst::vaes512::"];

/// Returns the alignment in bytes that a function gives its stack frame, if this is the instruction.
fn alignment(instruction: &str) -> Option<u64> {
    let mask = instruction.strip_prefix("and")?.trim_start().strip_prefix("$0x")?.strip_suffix(",%rsp")?;
    Some(u64::from_str_radix(mask, 16).ok()?.wrapping_neg())
}

/// Returns the length in bytes of a vector that an instruction reads from or writes to the stack.
fn vector_on_stack(instruction: &str) -> Option<u64> {
    let on_stack = ["(%rsp", "(%rbp"].iter().any(|base| instruction.contains(base));
    let length = if instruction.contains("%zmm") {
        64
    } else if instruction.contains("%ymm") {
        32
    } else {
        return None;
    };
    on_stack.then_some(length)
}

/// A vector on the stack that lies across two cache lines takes many times as long to read back.
#[test]
fn no_kernel_keeps_a_vector_on_an_unaligned_stack() {
    black_box((seal as fn(&mut _), open as fn(&mut _)));
    let mut objdump = Command::new("objdump");
    objdump.args(["--syms", "--disassemble", "--demangle", "--no-show-raw-insn"]);
    objdump.arg(env::current_exe().unwrap());
    let output = objdump.output().expect("objdump, of the package binutils");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    if text.contains("SYMBOL TABLE:\nno symbols\n") {
        eprintln!("nothing was checked: the profile strips symbols");
        return;
    }
    let functions = text.split("\n\n").filter(|function| {
        let name = function.trim_start().lines().next().unwrap_or_default();
        KERNELS.iter().any(|kernel| name.contains(kernel))
    });
    let mut checked = 0;
    for function in functions {
        let instructions = || function.lines().filter_map(|line| line.split('\t').nth(1)).map(str::trim);
        let Some(longest) = instructions().filter_map(vector_on_stack).max() else { continue };
        let aligned = instructions().find_map(alignment).unwrap_or(16);
        assert!(aligned >= longest, "{aligned} bytes are too few for {longest}:\n{function}");
        checked += 1;
    }
    assert!(checked > 20, "only {checked} kernels with vectors on the stack were found");
}
