//! What fails in PyTorch and cannot, or need not, fail here.

/// Scenarios, by name.
const SCENARIOS: &[(&str, &str)] = &[
    ("inplace_saved_exp", SAVED),
    ("inplace_saved_mul", SAVED),
    ("inplace_saved_twice", SAVED),
    ("inplace_saved_view", SAVED),
    ("inplace_saved_matmul", SAVED),
    ("function_saved_modified", SAVED),
    ("inplace_inference", INFERENCE),
    ("inference_saved", INFERENCE),
    ("inference_requires_grad", INFERENCE),
    ("fill_shape", "fill_ takes a number, never a tensor: the types say so"),
    ("ragged", "nested Rust arrays have one length at each level: the types say so"),
    (
        "unpack_count",
        "unbind gives a Vec, which a pattern of another length does not match: the types say so",
    ),
    ("numpy_requires_grad", "to_vec copies, so that nobody can change a tensor behind the tape's back"),
    ("view_dtype", "there is no view of the same bytes as another dtype"),
    ("deepcopy_nonleaf", "deep_clone is PyTorch's clone: recorded, and allowed for every tensor"),
    ("device_mixed", "there is no meta device"),
    ("meta_item", "there is no meta device"),
    ("anomaly_nan", "there is no anomaly mode"),
    ("function_gradient_count", FUNCTION),
    ("function_gradient_shape", FUNCTION),
    ("function_once_differentiable", FUNCTION),
    ("load_state_dict_missing", MODULES),
    ("load_state_dict_unexpected", MODULES),
    ("load_state_dict_shape", MODULES),
    ("optimizer_empty", MODULES),
    ("optimizer_learning_rate", MODULES),
    ("optimizer_momentum", MODULES),
    ("optimizer_nesterov", MODULES),
    ("optimizer_beta", MODULES),
    ("optimizer_eps", MODULES),
    ("optimizer_nonleaf", MODULES),
    ("optimizer_duplicate", MODULES),
    ("clip_nonfinite", MODULES),
];

const SAVED: &str =
    "a saved value cannot be changed by a later in-place operation, so that the gradient is right";
const INFERENCE: &str = "there is no inference mode";
const FUNCTION: &str = "there are no user-defined functions";
const MODULES: &str = "modules, optimizers and state dicts are not part of this library";

/// Calls, by operator (empty: any) and a part of PyTorch's message.
const CALLS: &[(&str, &str, &str)] = &[
    ("", "only tensors with up to 64 dims", "there is no bound on the number of dims"),
    ("", "ZeroDivisionError", "an integer divided by 0 is 0 on every device: kernels do not trap"),
    ("", "is not a valid value for reduction", ENUM),
    ("gelu", "approximate argument must be", "there is a function for each kind: gelu and gelu_tanh"),
    ("narrow", "length must be non-negative", UNSIGNED),
    ("narrow", "start must be an 0-dim integral", "start is an isize: the types say so"),
    ("split", "split_size be non-negative", UNSIGNED),
    ("linspace", "number of steps must be non-negative", UNSIGNED),
    ("pad", "Padding length must be divisible by 2", "margins are pairs: the types say so"),
    ("gaussian_nll_loss", "is not valid", ENUM),
    ("scatter_reduce", "reduce argument must be either", ENUM),
    ("interpolate", "is not supported", ENUM),
    (
        "binary_cross_entropy",
        "between 0 and 1",
        "values are not read for a check: a loss must not stop the lazy graph",
    ),
    ("eye", "must be greater or equal to 0", UNSIGNED),
];

/// Arguments that the runner cannot hand over, by a part of its reason.
const ARGUMENTS: &[(&str, &str)] = &[
    ("negative", UNSIGNED),
    ("is not one size", "the argument is one usize: the types say so"),
    ("is not made of sizes", "the argument is a list of usize of one length: the types say so"),
    ("is given with a factor, or without one", ENUM),
    ("mode is bilinear", "linear interpolation has one name for any number of dims"),
];

/// Why a call cannot be written down in Rust, from what the runner says of its arguments.
pub fn argument(reason: &str) -> Option<&'static str> {
    ARGUMENTS.iter().find(|(part, _)| reason.contains(part)).map(|(_, why)| *why)
}

const UNSIGNED: &str = "the argument is a usize: the types say so";
const ENUM: &str = "the argument is an enum: the types say so";

/// Why a scenario is not run.
pub fn scenario(name: &str) -> Option<&'static str> {
    SCENARIOS.iter().find(|(scenario, _)| *scenario == name).map(|(_, reason)| *reason)
}

/// Why a call that PyTorch refuses is not run.
pub fn call(op: &str, message: &str) -> Option<&'static str> {
    let matches =
        |entry: &&(&str, &str, &str)| (entry.0.is_empty() || entry.0 == op) && message.contains(entry.1);
    CALLS.iter().find(matches).map(|(_, _, reason)| *reason)
}
