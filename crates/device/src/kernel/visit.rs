//! One walk over the accesses of a kernel. It gives the memory that the kernel moves, the buffers that it
//! writes, the types that it uses, how far it reaches, and its structure without numbers. No other code lists
//! the parts of a kernel.

use smallvec::{SmallVec, smallvec};

use super::{Access, Kernel, Loop, Ty};
use crate::layout::Dims;

/// An access of a kernel, and its use.
pub(crate) struct Touched<'k> {
    pub(crate) access: &'k Access,
    /// The sizes that the access's strides belong to.
    pub(crate) sizes: Dims,
    /// Whether its elements are written; else they are read.
    pub(crate) is_written: bool,
}

impl Kernel {
    /// The loop that is its body or its epilogue, and the type of the value that an epilogue gets.
    pub(crate) fn body(&self) -> Option<(&Loop, Ty)> {
        match self {
            Kernel::Loop(kernel) => Some((kernel, Ty::F32)),
            Kernel::Matmul(kernel) => Some((&kernel.epilogue, kernel.accumulator())),
            Kernel::Scatter(_) | Kernel::Scan(_) | Kernel::Sort(_) => None,
        }
    }

    /// All accesses. The base of a scatter has none, since it is read as a whole.
    pub(crate) fn accesses(&self) -> SmallVec<[Touched<'_>; 8]> {
        let touched = |access, sizes: Dims, is_written| Touched { access, sizes, is_written };
        let mut all: SmallVec<[Touched<'_>; 8]> = match self {
            Kernel::Loop(_) => smallvec![],
            Kernel::Matmul(kernel) => {
                kernel.factors().into_iter().map(|(access, sizes)| touched(access, sizes, false)).collect()
            }
            Kernel::Scatter(kernel) => {
                let read = kernel.indices.iter().chain([&kernel.source]);
                let written = touched(&kernel.target, kernel.sizes.clone(), true);
                read.map(|access| touched(access, kernel.sizes.clone(), false)).chain([written]).collect()
            }
            Kernel::Scan(kernel) => smallvec![
                touched(&kernel.source, kernel.sizes.clone(), false),
                touched(&kernel.target, kernel.sizes.clone(), true),
            ],
            Kernel::Sort(kernel) => smallvec![
                touched(&kernel.source, kernel.sizes.clone(), false),
                touched(&kernel.target, kernel.target_sizes(), true),
            ],
        };
        if let Some((body, _)) = self.body() {
            let is_written = |at| body.stores.iter().any(|store| store.access == at);
            let accesses = body.accesses.iter().enumerate();
            all.extend(accesses.map(|(at, access)| touched(access, body.sizes.clone(), is_written(at))));
        }
        all
    }

    /// The numbers of the buffers that it writes.
    #[cfg(feature = "gpu")]
    pub(crate) fn written(&self) -> SmallVec<[usize; 4]> {
        self.accesses()
            .iter()
            .filter(|touched| touched.is_written)
            .map(|touched| touched.access.buffer)
            .collect()
    }

    /// Whether it reads, writes or computes values of a type.
    #[cfg(feature = "gpu")]
    pub(crate) fn uses(&self, ty: Ty) -> bool {
        self.accesses().iter().any(|touched| Ty::of(touched.access.dtype) == ty)
            || self.body().is_some_and(|(body, accumulator)| body.types(accumulator).contains(&ty))
    }

    /// The structure of the kernel, for which an executor compiles: the kernel without sizes, strides,
    /// offsets and constants.
    pub(crate) fn structure(&self) -> Kernel {
        let mut kernel = self.clone();
        let mut body = None;
        let accesses: SmallVec<[&mut Access; 4]> = match &mut kernel {
            Kernel::Loop(kernel) => {
                body = Some(kernel);
                smallvec![]
            }
            Kernel::Matmul(kernel) => {
                kernel.k = 0;
                let parts = [&mut kernel.lhs_parts, &mut kernel.rhs_parts];
                let sizes = parts.into_iter().flat_map(|parts| [&mut parts.rows, &mut parts.columns]);
                sizes.for_each(|sizes| sizes.fill(0));
                body = Some(&mut kernel.epilogue);
                smallvec![&mut kernel.lhs, &mut kernel.rhs]
            }
            Kernel::Scatter(kernel) => {
                kernel.sizes.fill(0);
                kernel.elements = 0;
                kernel.indices.iter_mut().chain([&mut kernel.source, &mut kernel.target]).collect()
            }
            Kernel::Scan(kernel) => {
                kernel.sizes.fill(0);
                smallvec![&mut kernel.source, &mut kernel.target]
            }
            Kernel::Sort(kernel) => {
                kernel.sizes.fill(0);
                (kernel.first, kernel.count) = (0, 0);
                smallvec![&mut kernel.source, &mut kernel.target]
            }
        };
        accesses.into_iter().for_each(Access::erase_numbers);
        if let Some(body) = body {
            body.sizes.fill(0);
            body.accesses.iter_mut().for_each(Access::erase_numbers);
            for range in &mut body.ranges {
                range.strides.fill(0);
                range.offset = 0;
                range.size = 0;
            }
        }
        kernel
    }
}

impl Access {
    fn erase_numbers(&mut self) {
        self.strides.fill(0);
        self.offset = 0;
        for dim in &mut self.indexed {
            dim.stride = 0;
            dim.size = 0;
        }
    }
}
