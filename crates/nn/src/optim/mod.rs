//! Optimisers and schedules of their learning rates.
