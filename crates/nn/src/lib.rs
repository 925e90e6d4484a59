//! What programs that train are made of: layers and what is known of all of them, initialisers, losses, optimisers
//! and schedules of learning rates. Names, defaults and values are those of PyTorch's `torch.nn` and `torch.optim`.

pub mod optim;
