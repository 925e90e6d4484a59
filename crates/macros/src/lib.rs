//! The `#[no_grad]` attribute.
