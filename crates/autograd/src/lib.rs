//! wgrad-autograd
