//! Generators of random numbers: a seed, and how many random tensors were made with it.
//!
//! Random numbers are a function of the seed, of the number of the random operation and of the element's place, so that a generator's
//! state is two numbers, and the same on every device.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock, Mutex};

use crate::tape::lock;

/// Where a generator is: its seed, and the number of its next random operation. A state that is saved and set again gives the same
/// numbers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct GeneratorState {
    /// What [`manual_seed`] set.
    pub seed: u64,
    /// How many random operations there were since.
    pub next: u64,
}

/// A generator of random numbers of its own; `torch.Generator`. Cloning copies the handle.
///
/// Every random operation takes its numbers from the generator in whose [`Generator::run`] it stands, on this thread; outside of all, from
/// [`default_generator`].
///
/// ```
/// use wgrad::{Device, Generator, Tensor};
/// let generator = Generator::new(7);
/// let first = generator.run(|| Tensor::rand([3], &Device::cpu()))?;
/// let state = generator.state();
/// let second = generator.run(|| Tensor::rand([3], &Device::cpu()))?;
/// generator.set_state(state);
/// let again = generator.run(|| Tensor::rand([3], &Device::cpu()))?;
/// assert_ne!(first.to_vec::<f32>()?, second.to_vec::<f32>()?);
/// assert_eq!(second.to_vec::<f32>()?, again.to_vec::<f32>()?);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Generator(Arc<Mutex<GeneratorState>>);

static DEFAULT: LazyLock<Generator> = LazyLock::new(Generator::default);

thread_local! {
    /// The generators in whose `run` this thread is, the innermost last.
    static RUNNING: RefCell<Vec<Generator>> = const { RefCell::new(Vec::new()) };
}

impl Generator {
    /// A generator that starts with this seed.
    pub fn new(seed: u64) -> Generator {
        let generator = Generator::default();
        generator.set_state(GeneratorState { seed, next: 0 });
        generator
    }

    /// Runs a closure whose random operations, on this thread, take their numbers from this generator. Calls may be nested; the innermost
    /// counts.
    pub fn run<R>(&self, run: impl FnOnce() -> R) -> R {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                RUNNING.with_borrow_mut(|running| drop(running.pop()));
            }
        }
        RUNNING.with_borrow_mut(|running| running.push(self.clone()));
        let _leave = Leave;
        run()
    }

    /// Where it is.
    pub fn state(&self) -> GeneratorState {
        *lock(&self.0)
    }

    /// Puts it where it was when [`Generator::state`] was read, on this or another generator.
    pub fn set_state(&self, state: GeneratorState) {
        *lock(&self.0) = state;
    }

    /// Starts it anew with a seed.
    pub fn manual_seed(&self, seed: u64) {
        self.set_state(GeneratorState { seed, next: 0 });
    }
}

/// The process's generator, which random operations take their numbers from where no other is named. Its seed is 0 until
/// [`manual_seed`] sets one.
pub fn default_generator() -> Generator {
    DEFAULT.clone()
}

/// Starts the process's generator anew; `torch.manual_seed`. Without it the seed is 0.
///
/// The same calls after it give the same numbers, on every device.
pub fn manual_seed(seed: u64) {
    DEFAULT.manual_seed(seed);
}

/// A seed, and a stream that nobody else gets.
pub(crate) fn next_stream() -> (u64, u64) {
    let generator = RUNNING.with_borrow(|running| running.last().cloned());
    let mut state = lock(&generator.as_ref().unwrap_or(&DEFAULT).0);
    state.next = state.next.wrapping_add(1);
    (state.seed, state.next.wrapping_sub(1))
}
