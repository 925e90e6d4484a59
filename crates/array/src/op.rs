//! The operations of pending nodes. The planner (`plan`) turns them into kernels.

use smallvec::SmallVec;
use wgrad_device::Scalar;
use wgrad_device::kernel::{BinaryOp, ReduceOp, ScatterOp, UnaryOp};
use wgrad_device::layout::Dims;

/// An operation. The inputs of an elementwise operation have the node's own shape, and the dtype in which it
/// computes: broadcasting is an explicit [`View`], and conversions are explicit casts. Scalars are parameters
/// of a kernel, never part of its structure.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Every element is this number. No inputs.
    Full(Scalar),
    /// The index along a dim, as I32. No inputs.
    Coordinate {
        /// The dim.
        dim: usize,
    },
    /// Random numbers, a word of Philox for each element. No inputs.
    Random {
        /// What the words become.
        kind: RandomKind,
        /// The generator's seed.
        seed: u64,
        /// Which of the seed's streams.
        stream: u64,
    },
    /// The input itself, contiguous. It allows evaluation to store a view's elements where that is necessary.
    Copy,
    /// The input itself, always stored: for values that are read several times in different orders, and cost
    /// more to recompute than to load.
    Store,
    /// An operation on each element.
    Unary(UnaryOp),
    /// An operation on pairs of elements.
    Binary(BinaryOp, Operands),
    /// `inputs[0] ? a : b`, where either may be a scalar.
    Select(Option<Scalar>, Option<Scalar>),
    /// Conversion to the node's dtype.
    Cast,
    /// Reduces dims (in ascending order) to size 1.
    Reduce {
        /// The reduction.
        op: ReduceOp,
        /// The dims.
        dims: SmallVec<[usize; 4]>,
    },
    /// The input's elements in another arrangement.
    View(View),
    /// `inputs[0] @ inputs[1]`, both with the node's batch dims. Products of halves are summed in f32, and
    /// the sums are rounded to the node's dtype.
    Matmul,
    /// The element of `inputs[0]` at the index that `inputs[1]` holds for one dim, and at the node's own
    /// index for the others.
    Gather {
        /// The dim.
        dim: usize,
        /// The name of the operation in errors.
        name: &'static str,
        /// Whether an index may be out of range. Only then can the operation fail.
        checked: bool,
    },
    /// The elements of `inputs[0]` are combined into the array at the indices that `inputs[1]` holds for one
    /// dim. The array starts as `inputs[2]`, or as zeros.
    Scatter {
        /// The way in which elements are combined.
        op: ScatterOp,
        /// The dim.
        dim: usize,
        /// The name of the operation in errors.
        name: &'static str,
        /// Whether an index may be out of range. Only then can the operation fail.
        checked: bool,
    },
    /// `inputs[0]` with a box of its elements replaced by `inputs[1]`, which has the box's sizes. If nothing
    /// else reads the replaced array, the box is written into its memory.
    Update {
        /// The position of the box's first element in row-major order, rounded down to a multiple of
        /// [`ALIGNED`]. It is a scalar argument and not part of the key.
        start: usize,
        /// The distance from `start` to the box's first element.
        beyond: usize,
    },
    /// A cumulative reduction along a dim.
    Scan {
        /// Sum, Prod, Max or Min.
        op: ReduceOp,
        /// The dim.
        dim: usize,
    },
    /// The indices that sort the elements along a dim. The size of the node's shape there is the number of
    /// ranks.
    Sort {
        /// The dim.
        dim: usize,
        /// Whether the largest comes first.
        descending: bool,
        /// The first rank.
        first: usize,
    },
}

/// The memory that a kernel reads or writes begins at a multiple of this many elements, so that the kernel
/// may load and store as many at once.
pub(crate) const ALIGNED: usize = 4;

impl Op {
    /// Whether it fails if its data turn out to be out of range.
    pub(crate) fn may_fail(&self) -> bool {
        matches!(self, Op::Gather { checked: true, .. } | Op::Scatter { checked: true, .. })
    }
}

/// The operands of a binary operation, of which one may be a scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operands {
    /// `inputs[0] op inputs[1]`
    Arrays,
    /// `inputs[0] op number`
    ArrayScalar(Scalar),
    /// `number op inputs[0]`
    ScalarArray(Scalar),
}

/// The numbers that are made of random words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RandomKind {
    /// The word itself, as I64 in 0..2^32.
    Bits,
    /// `(word >> 8) / 2^24`, as F32 in [0, 1).
    Uniform,
    /// Two numbers of the standard normal distribution for each pair of words, as F32.
    Normal,
}

/// How a view's indices lead to its input's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum View {
    /// The index for each dim of the input is an affine function of the view's index, and always in range.
    Affine(Box<[Axis]>),
    /// The elements in row-major order under another shape.
    Reshape,
    /// The input's element at `index - before`, or 0 outside of the input. The sizes are those of the node's
    /// shape.
    Pad {
        /// For each dim the number of elements before the input's first; a negative number crops.
        before: SmallVec<[isize; 4]>,
    },
}

/// The index along one dim of a view's input: `offset + sum(step * view index)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Axis {
    /// The index at the view's index 0.
    pub(crate) offset: isize,
    /// The view's dims, each with its step.
    pub(crate) terms: SmallVec<[(usize, isize); 2]>,
}

impl Axis {
    /// The view's index along one of its dims.
    pub(crate) fn dim(dim: usize) -> Axis {
        Axis { offset: 0, terms: smallvec::smallvec![(dim, 1)] }
    }

    /// A constant index.
    pub(crate) fn fixed(offset: isize) -> Axis {
        Axis { offset, terms: SmallVec::new() }
    }
}

/// The identity view of an array with this rank.
pub(crate) fn identity_axes(rank: usize) -> SmallVec<[Axis; 4]> {
    (0..rank).map(Axis::dim).collect()
}

/// The shape with some dims reduced to size 1.
pub(crate) fn reduced_shape(shape: &[usize], dims: &[usize]) -> Dims {
    shape.iter().enumerate().map(|(d, &size)| if dims.contains(&d) { 1 } else { size }).collect()
}
