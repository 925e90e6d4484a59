//! Which cases a GPU replays in an ordinary run: so many that every operator with each of its dtypes and every part of a kernel
//! that any case has is met at least once.
//!
//! What a case's kernels are made of is found without the GPU: a device with the GPUs' limits, whose plans are a GPU's, notes the kernels
//! and has the CPU run them. The choice follows from the cases and the limits alone, so it is the same in every run.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wgrad::Device;
use wgrad_device::kernel::Kernel;
use wgrad_device::{Buffer, Executor, Limits, Prepared, Stats};

use crate::Operator;
use crate::replay::{Setting, replay};
use crate::structure::{Parts, hash};
use crate::tensors::Layout;

/// A case, by its operator's place and its own, and the layout of its inputs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Candidate {
    pub operator: usize,
    pub case: usize,
    pub layout: Layout,
}

/// A candidate with what its kernels are made of.
pub struct Surveyed {
    pub candidate: Candidate,
    parts: HashSet<u64>,
    forms: HashSet<u64>,
    kernels: usize,
}

/// A device that plans as a GPU does, and notes the kernels.
struct Noting {
    limits: Limits,
    parts: Arc<Mutex<Parts>>,
}

impl Executor for Noting {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn alloc(&self, bytes: usize) -> wgrad::Result<Buffer> {
        Device::cpu().executor().alloc(bytes)
    }

    fn upload(&self, bytes: &[u8]) -> wgrad::Result<Buffer> {
        Device::cpu().executor().upload(bytes)
    }

    fn download(&self, buffer: &Buffer, offset: usize, out: &mut [u8]) -> wgrad::Result<()> {
        Device::cpu().executor().download(buffer, offset, out)
    }

    fn prepare(&self, kernel: &Kernel) -> wgrad::Result<Arc<dyn Prepared>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).add(kernel);
        Device::cpu().executor().prepare(kernel)
    }

    fn flush(&self) -> wgrad::Result<()> {
        Ok(())
    }

    fn synchronize(&self) -> wgrad::Result<()> {
        Ok(())
    }

    fn stats(&self) -> Stats {
        Device::cpu().executor().stats()
    }

    fn trim(&self) {}

    fn set_memory_limit(&self, _limit: Option<u64>) {}

    fn reset_peak(&self) {}
}

/// The limits that plans for all of these devices keep to, with f64 if one of them has it.
pub fn limits(devices: &[Device]) -> Limits {
    let mut limits = Device::cpu().executor().limits().clone();
    limits.f64 = false;
    for device in devices {
        let own = device.executor().limits();
        limits.buffers = limits.buffers.min(own.buffers);
        limits.instructions = limits.instructions.min(own.instructions);
        limits.inlined |= own.inlined;
        limits.binding = limits.binding.min(own.binding);
        limits.allocation = limits.allocation.min(own.allocation);
        limits.f64 |= own.f64;
    }
    limits
}

/// What the kernels of candidates are made of, in their order.
pub fn survey(operators: &[Operator<'_>], candidates: &[Candidate], limits: &Limits) -> Vec<Surveyed> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let work = || {
        while let Some(&candidate) = candidates.get(next.fetch_add(1, Ordering::Relaxed)) {
            let surveyed = look(operators, candidate, limits);
            found.lock().unwrap_or_else(PoisonError::into_inner).push(surveyed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|surveyed| surveyed.candidate);
    found
}

fn look(operators: &[Operator<'_>], candidate: Candidate, limits: &Limits) -> Surveyed {
    let operator = &operators[candidate.operator];
    let case = &operator.cases[candidate.case];
    let noted = Arc::new(Mutex::new(Parts::default()));
    // A device of its own for each: one that has a plan prepares nothing.
    let noting = Noting { limits: limits.clone(), parts: noted.clone() };
    let device = Device::from_executor("survey", Box::new(noting));
    let setting =
        Setting { case, store: &operator.store, device: &device, factor: 1.0, layout: candidate.layout };
    replay(operator.op, &setting);
    let noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
    let mut parts = noted.parts.clone();
    parts.insert(hash((operator.name, &case.dtype)));
    Surveyed { candidate, parts, forms: noted.forms.clone(), kernels: noted.kernels.len() }
}

/// A choice of candidates, in their order, and how many different parts they meet.
pub struct Choice {
    pub candidates: Vec<Candidate>,
    pub parts: usize,
}

/// The same for the forms of kernels and their ways to reach memory only: what limits on bindings and workgroups change.
pub fn choose_forms<'a>(surveyed: impl Iterator<Item = &'a Surveyed>) -> Choice {
    let forms = |surveyed: &Surveyed| Surveyed {
        candidate: surveyed.candidate,
        parts: surveyed.forms.clone(),
        forms: HashSet::new(),
        kernels: surveyed.kernels,
    };
    let forms: Vec<Surveyed> = surveyed.map(forms).collect();
    choose(forms.iter())
}

/// Candidates that together have all parts that any has: at each step the one that brings most for the kernels that it costs.
pub fn choose<'a>(surveyed: impl Iterator<Item = &'a Surveyed>) -> Choice {
    let surveyed: Vec<&Surveyed> = surveyed.collect();
    let worth = |new: usize, at: usize| (new << 20) / (surveyed[at].kernels + 1);
    let mut heap: BinaryHeap<(usize, Reverse<usize>)> =
        (0..surveyed.len()).map(|at| (worth(surveyed[at].parts.len(), at), Reverse(at))).collect();
    let mut times: HashMap<u64, usize> = HashMap::new();
    let mut chosen = Vec::new();
    while let Some((before, Reverse(at))) = heap.pop() {
        let new = surveyed[at].parts.iter().filter(|part| !times.contains_key(part)).count();
        if new == 0 {
            continue;
        }
        let now = worth(new, at);
        // What others brought meanwhile makes it worth less: it waits for its turn.
        if now < before {
            heap.push((now, Reverse(at)));
            continue;
        }
        surveyed[at].parts.iter().for_each(|&part| *times.entry(part).or_default() += 1);
        chosen.push(at);
    }
    // Early ones that later ones made superfluous.
    let mut kept = Vec::new();
    for at in chosen {
        if surveyed[at].parts.iter().all(|part| times[part] > 1) {
            surveyed[at].parts.iter().for_each(|part| *times.entry(*part).or_default() -= 1);
        } else {
            kept.push(surveyed[at].candidate);
        }
    }
    kept.sort_unstable();
    Choice { candidates: kept, parts: times.len() }
}
