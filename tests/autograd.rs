//! Autograd seen from outside: gradients, graphs, modes, hooks, writing in place, printing.

mod autograd {
    mod article;
    mod derivatives;
    mod errors;
    mod graph;
    mod grid_and_ctc;
    mod hooks;
    mod in_place;
    mod linalg;
    mod modes;
    mod printing;
    mod random;
    mod tape;
}
