//! A short run of programs with fixed seeds, and tests of the fuzzer itself.

use std::collections::BTreeSet;

use wgrad::Device;

use crate::hostile::{METHODS, UNKNOWN};
use crate::program::check::{ProgramVerdict, TestDevice, Truth, check};
use crate::program::{Action, generate, rules};

#[test]
fn every_public_method_is_called() {
    assert!(UNKNOWN.is_empty(), "fuzz/src/hostile/make.rs makes no arguments for {UNKNOWN:#?}");
    // If the sources were read wrongly, whole tables of methods would be missing.
    for name in
        ["add", "add_", "eq", "bitwise_and", "relu_", "conv2d", "softmax", "to_vec", "new", "backward"]
    {
        assert!(METHODS.iter().any(|&(method, _)| method == name), "{name} is missing");
    }
}

#[test]
fn random_programs_agree_on_the_cpu() {
    let cpu = Device::cpu();
    let targets = [TestDevice { name: "cpu".to_owned(), device: cpu.clone() }];
    let (mut agree, mut met) = (0, BTreeSet::new());
    for seed in 1..=120 {
        let program = generate(seed, &cpu).expect("a program");
        met.extend(program.steps.iter().filter_map(|step| match &step.action {
            Action::Call(call) => Some(call.rule.name),
            _ => None,
        }));
        match check(&program, &cpu, &targets) {
            ProgramVerdict::Agrees { .. } => agree += 1,
            ProgramVerdict::Unclear => {}
            ProgramVerdict::Fault(fault) => panic!("{program}{fault}"),
        }
    }
    assert!(agree > 100, "only {agree} of 120 programs say something");
    assert!(met.len() > rules().len() / 2, "only {} operations were met", met.len());
}

/// Two swapped elements must be found, although norms and sums stay the same.
#[test]
fn a_swapped_pair_of_elements_is_found() {
    let cpu = Device::cpu();
    let found = (1..20).filter(|&seed| {
        let program = generate(seed, &cpu).expect("a program");
        let Ok(Some(truth)) = Truth::of(&program, &cpu) else { return false };
        assert!(truth.compare(&truth.exact).is_ok());
        let mut wrong = truth.exact.clone();
        let swapped = wrong.iter_mut().any(|shown| {
            let place = shown.data.windows(2).position(|pair| (pair[0] - pair[1]).abs() > 0.3);
            place.is_some_and(|at| {
                shown.data.swap(at, at + 1);
                true
            })
        });
        assert!(!swapped || truth.compare(&wrong).is_err(), "{program}");
        swapped
    });
    assert!(found.count() > 10);
}
