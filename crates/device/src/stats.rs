//! Counters of what a device did.

/// The work that a device has done since it was opened, and the memory that it holds now; see
/// `Device::stats`.
///
/// Counters only grow. [`Stats::since`] gives the difference of two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Kernels run: dispatches on a GPU, kernel launches on the CPU.
    pub dispatches: u64,
    /// Kernels of a GPU that the CPU ran on copies of their memory, because a part of it that cannot be split
    /// is larger than the GPU binds at a time.
    pub hosted: u64,
    /// Command buffers handed to the driver; 0 on the CPU.
    pub submits: u64,
    /// Kernels compiled: compute pipelines on a GPU, programs of the interpreter on the CPU.
    pub pipelines_compiled: u64,
    /// Kernels whose code had been compiled before when they were prepared.
    pub pipeline_hits: u64,
    /// Pending graphs that had to be scheduled.
    pub plans_built: u64,
    /// Pending graphs whose plan was cached.
    pub plan_hits: u64,
    /// Buffers requested from the driver or the system.
    pub buffers_requested: u64,
    /// Bytes that kernels planned to read.
    pub bytes_read: u64,
    /// Bytes that kernels planned to write.
    pub bytes_written: u64,
    /// Bytes of live buffers.
    pub bytes_in_use: u64,
    /// Bytes kept for reuse.
    pub bytes_pooled: u64,
    /// The most bytes that were in use at one time since the last reset.
    pub bytes_peak: u64,
}

impl Stats {
    /// The growth of the counters since an earlier reading. The figures of memory are those of this reading.
    pub fn since(&self, earlier: &Stats) -> Stats {
        Stats {
            dispatches: self.dispatches - earlier.dispatches,
            hosted: self.hosted - earlier.hosted,
            submits: self.submits - earlier.submits,
            pipelines_compiled: self.pipelines_compiled - earlier.pipelines_compiled,
            pipeline_hits: self.pipeline_hits - earlier.pipeline_hits,
            plans_built: self.plans_built - earlier.plans_built,
            plan_hits: self.plan_hits - earlier.plan_hits,
            buffers_requested: self.buffers_requested - earlier.buffers_requested,
            bytes_read: self.bytes_read - earlier.bytes_read,
            bytes_written: self.bytes_written - earlier.bytes_written,
            ..*self
        }
    }
}
