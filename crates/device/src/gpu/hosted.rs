//! Kernels that a device cannot run, because a part of their memory that cannot be split is larger than it
//! binds at a time. The CPU executor runs them on copies.
//!
//! Such a launch is slow: it waits for the device and moves all buffers of the kernel in both directions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::GpuShared;
use crate::kernel::Kernel;
use crate::{Device, Error, Place, Prepared, Result, Scalar};

/// A kernel that is prepared on the CPU, for buffers of a GPU.
pub(super) struct Hosted {
    prepared: Arc<dyn Prepared>,
    written: SmallVec<[usize; 4]>,
    shared: Arc<GpuShared>,
}

impl Hosted {
    /// Prepares a kernel on the CPU. `refusal`, the reason why the device cannot run it, is logged.
    pub(super) fn new(shared: &Arc<GpuShared>, kernel: &Kernel, refusal: &Error) -> Result<Hosted> {
        log::warn!("{}: a kernel runs on the CPU, on copies of its operands: {refusal}", shared.name);
        let prepared = Device::cpu().executor().prepare(kernel)?;
        Ok(Hosted { prepared, written: kernel.written(), shared: shared.clone() })
    }
}

impl Prepared for Hosted {
    fn launch_at(&self, places: &[Place<'_>], params: &[Scalar]) -> Result<()> {
        let (shared, cpu) = (&self.shared, Device::cpu());
        shared.failures.alive()?;
        let blocks = places.iter().map(|place| shared.block(place.buffer)).collect::<Result<Vec<_>>>()?;
        let mut copies = Vec::with_capacity(blocks.len());
        for (block, place) in blocks.iter().zip(places) {
            let mut bytes = vec![0; place.buffer.bytes()];
            let _turn = shared.turn();
            shared.stream().download(shared, block, 0, &mut bytes)?;
            copies.push(cpu.executor().upload(&bytes)?);
        }
        let copied = copies.iter().zip(places).map(|(buffer, place)| Place { buffer, begin: place.begin });
        self.prepared.launch_at(&copied.collect::<Vec<_>>(), params)?;
        for &number in &self.written {
            let mut bytes = vec![0; copies[number].bytes()];
            cpu.executor().download(&copies[number], 0, &mut bytes)?;
            let _turn = shared.turn();
            // The write may reach the device before commands that are encoded but not submitted. This thread
            // has encoded none since the downloads, and commands of other threads use other buffers.
            shared.stream().write(shared, blocks[number], &bytes);
        }
        shared.counters.hosted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn bytes(&self) -> usize {
        size_of::<Hosted>() + self.prepared.bytes()
    }
}
