//! What a pending node computes. The scheduler (`plan`) turns these into kernels.

use smallvec::SmallVec;
use wgrad_device::Scalar;
use wgrad_device::kernel::{BinaryOp, ReduceOp, ScatterOp, UnaryOp};
use wgrad_device::layout::Dims;

/// An operation. Elementwise inputs have the node's own shape: broadcasting is an explicit [`View`]; and the compute
/// dtype: casts are explicit too. Scalars are parameters of a kernel, never part of its structure.
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
    /// The input itself, dense: a place where evaluation can store a view.
    Copy,
    /// The input itself, always in memory: what is read several times, in several orders, and costs more than reading it.
    Store,
    /// An operation on each element.
    Unary(UnaryOp),
    /// An operation on pairs of elements.
    Binary(BinaryOp, Operands),
    /// `inputs[0] ? a : b`, where either may be a number.
    Select(Option<Scalar>, Option<Scalar>),
    /// To the node's dtype.
    Cast,
    /// Folds dims (ascending) to size 1.
    Reduce {
        /// How.
        op: ReduceOp,
        /// Which dims.
        dims: SmallVec<[usize; 4]>,
    },
    /// The input's elements, arranged anew.
    View(View),
    /// `inputs[0] @ inputs[1]`, both of the node's batch dims. The sums of halves, which are in f32, are rounded to the node's dtype.
    Matmul,
    /// `inputs[0]` at `inputs[1]` along a dim, at the node's own index along the others.
    Gather {
        /// The dim.
        dim: usize,
        /// For errors.
        name: &'static str,
        /// An index may be out of range: only then can the operation fail.
        checked: bool,
    },
    /// `inputs[0]` (source) put to `inputs[1]` (index) along a dim, onto `inputs[2]` or zeros.
    Scatter {
        /// How.
        op: ScatterOp,
        /// The dim.
        dim: usize,
        /// For errors.
        name: &'static str,
        /// An index may be out of range: only then can the operation fail.
        checked: bool,
    },
    /// `inputs[0]` with a box of its elements replaced by `inputs[1]`, which has the box's sizes. If nobody else reads what is
    /// replaced, the box is written into its memory.
    Update {
        /// Where the box's first element is among those of the node in row-major order, rounded down to a multiple of
        /// [`ALIGNED`]: a number.
        start: usize,
        /// How far behind that it is.
        beyond: usize,
    },
    /// A running fold along a dim.
    Scan {
        /// Sum, Prod, Max or Min.
        op: ReduceOp,
        /// The dim.
        dim: usize,
    },
    /// The order of the elements along a dim: as many places of it as the node's shape has there.
    Sort {
        /// The dim.
        dim: usize,
        /// Whether the largest comes first.
        descending: bool,
        /// The first place that is wanted.
        first: usize,
    },
}

/// Where memory begins that a kernel reads or writes is a multiple of this many elements, so that it may take so many at a time.
pub(crate) const ALIGNED: usize = 4;

impl Op {
    /// Whether its data may turn out to have a fault.
    pub(crate) fn may_fail(&self) -> bool {
        matches!(self, Op::Gather { checked: true, .. } | Op::Scatter { checked: true, .. })
    }
}

/// Which sides of a binary operation are arrays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operands {
    /// `inputs[0] op inputs[1]`
    Arrays,
    /// `inputs[0] op number`
    ArrayScalar(Scalar),
    /// `number op inputs[0]`
    ScalarArray(Scalar),
}

/// What random words become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RandomKind {
    /// The word itself, as I64 in 0..2^32.
    Bits,
    /// `(word >> 8) / 2^24`, as F32 in [0, 1).
    Uniform,
    /// Two numbers of the standard normal distribution for each pair of words, as F32.
    Normal,
}

/// How a view's elements lie in its input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum View {
    /// For each dim of the input: an affine function of the view's index, always in range.
    Affine(Box<[Axis]>),
    /// The same elements in row-major order under another shape.
    Reshape,
    /// The input at `index - before`, 0 outside. The node's shape has the sizes.
    Pad {
        /// Elements before the input, for each dim; negative crops.
        before: SmallVec<[isize; 4]>,
    },
}

/// The index along one dim of a view's input: `offset + sum(step * view index)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Axis {
    /// The index at the view's index 0.
    pub(crate) offset: isize,
    /// View dims and their steps.
    pub(crate) terms: SmallVec<[(usize, isize); 2]>,
}

impl Axis {
    /// The view's own dim.
    pub(crate) fn dim(dim: usize) -> Axis {
        Axis { offset: 0, terms: smallvec::smallvec![(dim, 1)] }
    }

    /// Always the same index.
    pub(crate) fn fixed(offset: isize) -> Axis {
        Axis { offset, terms: SmallVec::new() }
    }
}

/// The identity view of a rank.
pub(crate) fn identity_axes(rank: usize) -> SmallVec<[Axis; 4]> {
    (0..rank).map(Axis::dim).collect()
}

/// The shape with some dims folded to size 1.
pub(crate) fn reduced_shape(shape: &[usize], dims: &[usize]) -> Dims {
    shape.iter().enumerate().map(|(d, &size)| if dims.contains(&d) { 1 } else { size }).collect()
}
