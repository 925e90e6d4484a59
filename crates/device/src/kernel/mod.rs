//! The kernel IR: what the scheduler asks an executor to run, and what both executors agree on.
//!
//! A [`Kernel`] is plain data: index spaces, accesses to numbered buffers, and for the fused ones a
//! straight-line body in SSA form. An executor turns it into something it can launch
//! ([`crate::Executor::prepare`]), again and again with other buffers and parameters. Everything that is a
//! number here (sizes, strides, offsets) may change without changing what an executor compiles; only the
//! structure decides that.
//!
//! Guarantees that every kernel given to an executor keeps (`check` refuses what breaks one that would do
//! harm):
//! - body operands come before their users; their types agree ([`Loop::types`]);
//! - every unguarded access stays inside its buffer for every index of the space; indexed accesses are
//!   checked by the executor while it runs;
//! - strides of dims of size 1 are 0, and the sizes of a space are never negative; a size may be 0;
//! - every buffer is either only read, only written, or read and written by accesses with equal strides and
//!   offset in a kernel without inner dims (an element is then read before it is written);
//! - an output's accesses reach all of it, each element once.

mod analysis;
mod check;
mod display;
mod op;
mod visit;

pub use analysis::{Level, Traffic};
pub use display::{Bytes, NamedKernel};
pub use op::{BinaryOp, Domain, Gives, ReduceOp, Ty, UnaryOp};

use smallvec::SmallVec;

use crate::layout::{Dims, Strides};
use crate::{DType, Scalar};

/// A value in a loop's body: the position of the instruction that made it.
pub type Reg = u32;

/// One unit of work for an executor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "a kernel is made once for a plan, and there are few")]
pub enum Kernel {
    /// Fused elementwise work and reductions.
    Loop(Loop),
    /// A batched matrix product with an elementwise epilogue.
    Matmul(Matmul),
    /// Values written to indexed places.
    Scatter(Scatter),
    /// A running reduction along a dim.
    Scan(Scan),
    /// The order of the elements along a dim.
    Sort(Sort),
}

/// A fused loop nest over an index space of `outer` dims (rows) and `inner` dims (the elements of a row).
///
/// With `inner == 0` it is elementwise: each index is a row of one element. Otherwise [`Instr::Reduce`] folds
/// a value over all elements of its row; its result belongs to the row, and instructions after it may mix it
/// with elements again, so that a softmax is one loop: as many passes over the row as there are reductions
/// that wait for each other ([`Loop::stages`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Loop {
    /// Sizes of the dims, outermost first: the outer ones, then the inner ones.
    pub sizes: Dims,
    /// How many of the last dims are inner.
    pub inner: usize,
    /// Where elements are read and written.
    pub accesses: Vec<Access>,
    /// Range checks that guard accesses.
    pub ranges: Vec<Range>,
    /// The computation, in SSA form.
    pub body: Vec<Instr>,
    /// What is written.
    pub stores: Vec<Store>,
}

/// An affine map from an index of a space to an element of a buffer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// Which of the buffers given at launch.
    pub buffer: usize,
    /// The dtype of its elements.
    pub dtype: DType,
    /// The step of each dim of the space, in elements.
    pub strides: Strides,
    /// Where the element at index 0 lies; negative only where guards keep that from being read.
    pub offset: isize,
    /// Positions in [`Loop::ranges`]: unless all hold, a load gives 0, touches no memory, and its indices
    /// aren't checked. Never on stores.
    pub guards: SmallVec<[usize; 2]>,
    /// Dims addressed by values of the body, for [`Instr::Load`]'s `indices`, in their order. Never on
    /// stores.
    pub indexed: SmallVec<[IndexedDim; 1]>,
    /// Its buffer holds other elements beside those of the access, which a store leaves as they are. Without
    /// it what lies behind the last element stored may be written over.
    pub partial: bool,
}

/// A dim of a buffer that is addressed by a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IndexedDim {
    /// Elements from one index to the next.
    pub stride: isize,
    /// Valid indices are 0..size; others are an [`crate::Error::Index`].
    pub size: usize,
    /// The operation, for that error.
    pub op: &'static str,
}

/// `0 <= offset + sum(strides * index) < size`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// The step of each dim of the space.
    pub strides: Strides,
    /// The value at index 0.
    pub offset: isize,
    /// One above the largest value that is in range.
    pub size: usize,
}

/// A value written to memory. A store of a loop with inner dims whose access steps along none of them writes
/// once a row ([`Loop::store_level`]); its value then belongs to the row too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// Where: an access without guards and indices, whose dtype has the value's type.
    pub access: usize,
    /// What.
    pub value: Reg,
}

/// One instruction. Operands are registers of earlier instructions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instr {
    /// The element that an access addresses, moved by the values (I32 or I64) of its indexed dims. Gives the
    /// access's dtype's type.
    Load {
        /// Position in [`Loop::accesses`].
        access: usize,
        /// A value for each of the access's indexed dims.
        indices: SmallVec<[Reg; 1]>,
    },
    /// The matrix product's element, in an epilogue; of [`Matmul::accumulator`]'s type.
    Accumulator,
    /// A number given at launch.
    Param {
        /// Its position among the launch's parameters.
        index: usize,
        /// Its type.
        ty: Ty,
    },
    /// A number that belongs to the operation itself, such as the 0.5 in a gelu.
    Const(Const),
    /// The index along a dim of the space, as I32.
    Coord {
        /// The dim.
        dim: usize,
    },
    /// Whether a range check holds, as Bool.
    InRange {
        /// Position in [`Loop::ranges`].
        range: usize,
    },
    /// An operation on one value.
    Unary {
        /// Which.
        op: UnaryOp,
        /// The operand.
        a: Reg,
    },
    /// An operation on two values of one type.
    Binary {
        /// Which.
        op: BinaryOp,
        /// The left operand.
        a: Reg,
        /// The right operand.
        b: Reg,
    },
    /// `a` where `cond` holds, else `b`; both of one type.
    Select {
        /// A Bool.
        cond: Reg,
        /// The value where it holds.
        a: Reg,
        /// The value where it doesn't.
        b: Reg,
    },
    /// The value that an element of this dtype holds after storing `a` in it, as the dtype's register type:
    /// floats are rounded to f16 and bf16, cut off towards zero for integers, which wrap; anything is `!= 0`
    /// as Bool.
    Cast {
        /// The operand, of any type.
        a: Reg,
        /// The dtype.
        to: DType,
    },
    /// Random bits (U32): word `index % 4` of Philox4x32-10 with the counter (index / 4, 0, stream low,
    /// stream high) and the key (seed low, seed high).
    Philox {
        /// The element's number: an I32 whose bits are taken as unsigned.
        index: Reg,
        /// The first of four parameters: seed low, seed high, stream low, stream high.
        params: usize,
    },
    /// A number of the standard normal distribution (F32), the same bits everywhere: with the pair of words
    /// a, b of Philox that word `index % 4` is of (as of [`Instr::Philox`]), u = (a | 1) / 2^32 and v = (b +
    /// 1/2) / 2^32, it is `sqrt(-2 ln u) sin(2πv)` for an even index and `sqrt(-2 ln u) cos(2πv)` for an odd
    /// one, within one unit in the last place.
    Normal {
        /// The element's number: an I32 whose bits are taken as unsigned.
        index: Reg,
        /// The first of four parameters: seed low, seed high, stream low, stream high.
        params: usize,
    },
    /// Folds an element value over the row.
    Reduce {
        /// How.
        op: ReduceOp,
        /// The value to fold.
        a: Reg,
    },
}

/// A typed constant that can be compared and hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Const {
    ty: Ty,
    bits: u64,
}

impl Const {
    /// A constant of this type, converted as a cast would.
    pub fn new(value: impl Into<Scalar>, ty: Ty) -> Const {
        let value: Scalar = value.into();
        let bits = match ty {
            Ty::Bool => u64::from(value.as_bool()),
            Ty::U32 => u64::from(value.as_i64() as u32),
            Ty::I32 => value.as_i64() as i32 as i64 as u64,
            Ty::I64 => value.as_i64() as u64,
            Ty::F32 => f64::from(value.as_f64() as f32).to_bits(),
            Ty::F64 => value.as_f64().to_bits(),
        };
        Const { ty, bits }
    }

    /// Its type.
    pub const fn ty(self) -> Ty {
        self.ty
    }

    /// Its value.
    pub fn value(self) -> Scalar {
        match self.ty {
            Ty::Bool => Scalar::Bool(self.bits != 0),
            Ty::U32 | Ty::I32 | Ty::I64 => Scalar::Int(self.bits as i64),
            Ty::F32 | Ty::F64 => Scalar::Float(f64::from_bits(self.bits)),
        }
    }
}

/// `lhs[batch.., m, k] @ rhs[batch.., k, n]`, then an elementwise epilogue on the product.
///
/// Both operands have one dtype. Halves are multiplied and summed in f32, f64 in f64; integers wrap in their
/// own type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matmul {
    /// The inner size, summed over; 0 gives a product of zeros.
    pub k: usize,
    /// Its strides are those of the batch dims, then of m, then of k. No guards, no indices.
    pub lhs: Access,
    /// Its strides are those of the batch dims, then of k, then of n. No guards, no indices.
    pub rhs: Access,
    /// What m and k of `lhs` are made of.
    pub lhs_parts: Parts,
    /// What k and n of `rhs` are made of.
    pub rhs_parts: Parts,
    /// A loop without inner dims over `batch.. , m, n`; [`Instr::Accumulator`] is the product. Its outputs
    /// are not the buffers of `lhs` and `rhs`.
    pub epilogue: Loop,
}

/// What the rows and columns of a product's factor are made of: sizes, outermost first, whose row-major order
/// the row's or column's index counts. The factor's access then has a stride for each of them instead of one.
/// Empty: a single dim.
///
/// So a product reads windows where they lie: of an image, column (y, x) and row (channel, y, x within the
/// window) meet at the element (channel, y + y, x + x).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parts {
    /// The sizes that the rows are made of.
    pub rows: Dims,
    /// The sizes that the columns are made of.
    pub columns: Dims,
}

impl Parts {
    /// Whether rows and columns are single dims.
    pub fn are_single(&self) -> bool {
        self.rows.is_empty() && self.columns.is_empty()
    }

    /// The sizes that the rows and the columns are made of, where these are so many.
    pub fn of(&self, rows: usize, columns: usize) -> [Dims; 2] {
        let made = |parts: &Dims, whole: usize| {
            if parts.is_empty() { SmallVec::from_slice(&[whole]) } else { parts.clone() }
        };
        [made(&self.rows, rows), made(&self.columns, columns)]
    }
}

impl Matmul {
    /// A product of factors whose rows and columns are single dims.
    pub fn new(k: usize, lhs: Access, rhs: Access, epilogue: Loop) -> Matmul {
        Matmul { k, lhs, rhs, lhs_parts: Parts::default(), rhs_parts: Parts::default(), epilogue }
    }

    /// The factors, each with the sizes that its access's strides belong to.
    pub fn factors(&self) -> [(&Access, Dims); 2] {
        let (batch, matrix) = self.epilogue.sizes.split_at(self.epilogue.sizes.len().saturating_sub(2));
        let (m, n) = (matrix.first().map_or(1, |&m| m), matrix.get(1).map_or(1, |&n| n));
        let sizes = |[rows, columns]: [Dims; 2]| batch.iter().copied().chain(rows).chain(columns).collect();
        [(&self.lhs, sizes(self.lhs_parts.of(m, self.k))), (&self.rhs, sizes(self.rhs_parts.of(self.k, n)))]
    }

    /// Whether the factors fit the space: they have its batch dims, m and k, k and n, one dtype, a stride for
    /// each of the sizes that their rows and columns are made of, and these sizes multiply to the rows and
    /// columns. Executors refuse other products.
    pub fn fits(&self) -> bool {
        let [.., m, n] = self.epilogue.sizes[..] else { return false };
        let made = |parts: &Dims, whole: usize| {
            let product = parts.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
            parts.is_empty() || product == Some(whole)
        };
        let parts = [
            (&self.lhs_parts.rows, m),
            (&self.lhs_parts.columns, self.k),
            (&self.rhs_parts.rows, self.k),
            (&self.rhs_parts.columns, n),
        ];
        self.epilogue.inner == 0
            && self.lhs.dtype == self.rhs.dtype
            && parts.into_iter().all(|(parts, whole)| made(parts, whole))
            && self.factors().iter().all(|(access, sizes)| access.is_plain(sizes.len()))
    }

    /// The type that products are summed in, and that the epilogue gets.
    pub const fn accumulator(&self) -> Ty {
        Ty::of(self.lhs.dtype)
    }
}

/// `output = base` (or zeros), then for every index of the space, in row-major order:
/// `output[target] = op(output[target], source)`. The same result on every run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scatter {
    /// How a value meets what is there.
    pub op: ScatterOp,
    /// The sizes of the space of source elements.
    pub sizes: Dims,
    /// The values.
    pub source: Access,
    /// I64 or I32 indices, one access for each of the target's indexed dims.
    pub indices: Vec<Access>,
    /// Where: an affine part and indexed dims, in the output's elements. Of the source's dtype.
    pub target: Access,
    /// What the output starts from: a buffer with as many elements as the output, in the same order; none:
    /// zeros.
    pub base: Option<usize>,
    /// Elements of the output, which is contiguous.
    pub elements: usize,
}

/// How [`Scatter`] combines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScatterOp {
    /// The last value in row-major order of the source stays.
    Assign,
    /// Sums; halves in f32.
    Add,
    /// Products.
    Mul,
    /// The larger; NaN wins.
    Max,
    /// The smaller; NaN wins.
    Min,
}

/// A running fold along the last dim of the space: `target[.., i] = source[.., 0] op … op source[.., i]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    /// Sum, Prod, Max or Min.
    pub op: ReduceOp,
    /// The sizes of the space; the scan runs along the last dim.
    pub sizes: Dims,
    /// What is read.
    pub source: Access,
    /// What is written; of the source's dtype. Halves accumulate in f32.
    pub target: Access,
}

/// The stable order of the elements along the last dim of the space: `target[.., i]` is the place (I64) of
/// the element that comes `first + i`-th. Equal elements keep their order, descending too; NaN counts as
/// larger than every number, all NaN as equal, and so do -0 and 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sort {
    /// Whether the largest comes first.
    pub descending: bool,
    /// The sizes of the space; the order runs along the last dim.
    pub sizes: Dims,
    /// What is read.
    pub source: Access,
    /// What is written: I64. Its last stride counts the places that are wanted.
    pub target: Access,
    /// The first place that is wanted.
    pub first: usize,
    /// How many places are wanted: `first + count` is at most the last size.
    pub count: usize,
}

impl Sort {
    /// Whether the accesses fit the space and the places that are wanted exist. Executors refuse other sorts.
    pub fn fits(&self) -> bool {
        let Some(&length) = self.sizes.last() else { return false };
        let exists = self.first.checked_add(self.count).is_some_and(|end| end <= length);
        exists
            && self.target.dtype == DType::I64
            && self.source.buffer != self.target.buffer
            && [&self.source, &self.target].iter().all(|access| access.is_plain(self.sizes.len()))
    }

    /// The sizes of the target.
    pub fn target_sizes(&self) -> Dims {
        let mut sizes = self.sizes.clone();
        if let Some(last) = sizes.last_mut() {
            *last = self.count;
        }
        sizes
    }
}

impl Access {
    /// Whether it has as many strides, and neither guards nor indices.
    pub(crate) fn is_plain(&self, rank: usize) -> bool {
        self.strides.len() == rank && self.guards.is_empty() && self.indexed.is_empty()
    }

    /// An access without guards and indices.
    pub fn new(buffer: usize, dtype: DType, strides: &[isize], offset: isize) -> Access {
        Access {
            buffer,
            dtype,
            strides: strides.into(),
            offset,
            guards: SmallVec::new(),
            indexed: SmallVec::new(),
            partial: false,
        }
    }
}
