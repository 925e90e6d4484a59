//! Autograd seen from outside: gradients, graphs, modes, hooks, writing in place, printing.

/// Asserts that each call fails, with an error of its variant.
macro_rules! fails {
    ($($call:expr => $variant:ident;)*) => {$(
        match $call {
            Err(wgrad::Error::$variant { .. }) => {}
            other => panic!("{} gave {other:?}", stringify!($call)),
        }
    )*};
}

#[path = "../crates/device/tests/support/mod.rs"]
mod support;

mod autograd {
    mod article;
    mod custom;
    mod digits;
    mod double;
    mod errors;
    mod faults;
    mod finite_differences;
    mod formulas;
    mod fourier;
    mod graph;
    mod grid_and_ctc;
    mod hardware;
    mod hooks;
    mod hostile;
    mod in_place;
    mod linalg;
    mod lines;
    mod modes;
    mod multi_hooks;
    mod printing;
    mod random;
    mod saved;
    mod sorting;
    mod tape;
    mod updates;
    mod values;
    mod warnings;
    mod windows;
}
