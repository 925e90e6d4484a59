//! A short run of hostile calls in worker processes, as in the long runs, with each method at least once.

use std::process::Command;

#[test]
fn hostile_calls_end_with_values_or_errors() {
    let output = Command::new(env!("CARGO_BIN_EXE_fuzz"))
        .args(["--calls", "500", "--seed", "2", "--devices", "cpu"])
        .output()
        .expect("the fuzzer starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("500 hostile calls") && said.contains(" 0 faults"), "{said}");
}

#[test]
fn an_unknown_option_is_an_error() {
    let status = Command::new(env!("CARGO_BIN_EXE_fuzz"))
        .args(["--nonsense", "1"])
        .status()
        .expect("the fuzzer starts");
    assert_eq!(status.code(), Some(2));
}
