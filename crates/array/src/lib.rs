//! wgrad-array
