//! The kernel IR: the form in which the scheduler asks an executor to run work, and whose meaning both
//! executors implement.
//!
//! A [`Kernel`] is plain data: index spaces, accesses to numbered buffers and, for fused work, a
//! straight-line body in SSA form. An executor prepares it ([`crate::Executor::prepare`]) and can then launch
//! it again and again with other buffers and parameters. Only its structure decides what an executor
//! compiles; numbers (sizes, strides, offsets) are data of the compiled code.
//!
//! Guarantees of every kernel that is given to an executor (`check` refuses a kernel that breaks one in a way
//! that would do harm):
//! - operands of the body come before their users, and their types agree ([`Loop::types`]);
//! - every unguarded access stays inside its buffer for every index of the space; indexed accesses are
//!   checked by the executor at run time;
//! - strides of dims of size 1 are 0; a size may be 0;
//! - every buffer is only read, only written, or read and written by accesses with equal strides and offset
//!   in a kernel without inner dims, where each element is read before it is written;
//! - the stores to an output reach all of it, each element once.

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

/// A register: a value of a loop's body, numbered by the position of the instruction that defines it.
pub type Reg = u32;

/// One unit of work for an executor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "a kernel is made once for a plan, and there are few")]
pub enum Kernel {
    /// Fused elementwise work and reductions.
    Loop(Loop),
    /// A batched matrix product with an elementwise epilogue.
    Matmul(Matmul),
    /// Values that are written to indexed places.
    Scatter(Scatter),
    /// A running reduction along a dim.
    Scan(Scan),
    /// The order of the elements along a dim.
    Sort(Sort),
}

/// A fused loop nest over an index space of `outer` dims (rows) and `inner` dims (the elements of a row).
///
/// With `inner == 0` the loop is elementwise: each index is a row of one element. Otherwise [`Instr::Reduce`]
/// folds a value over all elements of its row. Its result is a value of the row, and later instructions may
/// combine it with elements again. So a softmax is one loop, with as many passes over the row as there are
/// reductions that depend on each other ([`Loop::stages`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Loop {
    /// Sizes of the dims, outermost first: the outer ones, then the inner ones.
    pub sizes: Dims,
    /// The number of inner dims, which are the last ones.
    pub inner: usize,
    /// The accesses through which elements are read and written.
    pub accesses: Vec<Access>,
    /// The range checks that guard accesses.
    pub ranges: Vec<Range>,
    /// The computation, in SSA form.
    pub body: Vec<Instr>,
    /// The values that are written.
    pub stores: Vec<Store>,
}

/// An affine map from an index of a space to an element of a buffer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// The number of the buffer among those that a launch gives.
    pub buffer: usize,
    /// The dtype of its elements.
    pub dtype: DType,
    /// The stride of each dim of the space, in elements.
    pub strides: Strides,
    /// The position of the element at index 0. It may be negative only if guards prevent that element's
    /// access.
    pub offset: isize,
    /// Positions in [`Loop::ranges`]. Unless all of these ranges hold, a load gives 0, touches no memory, and
    /// does not check its indices. Stores have no guards.
    pub guards: SmallVec<[usize; 2]>,
    /// The dims that are addressed by values of the body, in the order of the `indices` of [`Instr::Load`].
    /// Stores have none.
    pub indexed: SmallVec<[IndexedDim; 1]>,
    /// Whether the buffer holds other elements besides those of the access, which a store must leave
    /// unchanged. If not, a store may overwrite memory behind the last element.
    pub partial: bool,
}

/// A dim of a buffer that is addressed by a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IndexedDim {
    /// The stride from an index to the next, in elements.
    pub stride: isize,
    /// The size: valid indices are `0..size`, and others are an [`crate::Error::Index`].
    pub size: usize,
    /// The operation that the error names.
    pub op: &'static str,
}

/// A range check: `0 <= offset + sum(strides * index) < size`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// The stride of each dim of the space.
    pub strides: Strides,
    /// The value at index 0.
    pub offset: isize,
    /// The bound, which values in range are below.
    pub size: usize,
}

/// A value that is written to memory. In a loop with inner dims, a store whose access has stride 0 along all
/// of them writes once for each row ([`Loop::store_level`]); its value must then be a value of the row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// The access, which has no guards and no indices, and whose dtype has the value's register type.
    pub access: usize,
    /// The value.
    pub value: Reg,
}

/// One instruction. Operands are registers of earlier instructions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instr {
    /// The element that an access addresses, with indexed dims addressed by values (I32 or I64). The result
    /// has the register type of the access's dtype.
    Load {
        /// Position in [`Loop::accesses`].
        access: usize,
        /// A value for each of the access's indexed dims.
        indices: SmallVec<[Reg; 1]>,
    },
    /// The element of the matrix product in an epilogue; its type is [`Matmul::accumulator`].
    Accumulator,
    /// A number that is given at launch.
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
        /// The operation.
        op: UnaryOp,
        /// The operand.
        a: Reg,
    },
    /// An operation on two values of one type.
    Binary {
        /// The operation.
        op: BinaryOp,
        /// The left operand.
        a: Reg,
        /// The right operand.
        b: Reg,
    },
    /// `a` where `cond` holds, else `b`. Both have one type.
    Select {
        /// A Bool.
        cond: Reg,
        /// The value where it holds.
        a: Reg,
        /// The value where it does not hold.
        b: Reg,
    },
    /// The value that an element of this dtype holds after `a` was stored in it, in the dtype's register
    /// type. Floats are rounded to f16 and bf16, and truncated towards zero for integers, which wrap. A Bool
    /// is `a != 0`.
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
    /// A number of the standard normal distribution (F32), with the same bits on every device. Let a, b be
    /// the pair of Philox words that contains word `index % 4` (as in [`Instr::Philox`]), u = (a | 1) / 2^32
    /// and v = (b + 1/2) / 2^32. The number is `sqrt(-2 ln u) sin(2πv)` for an even index and `sqrt(-2 ln u)
    /// cos(2πv)` for an odd one, within one unit in the last place.
    Normal {
        /// The element's number: an I32 whose bits are taken as unsigned.
        index: Reg,
        /// The first of four parameters: seed low, seed high, stream low, stream high.
        params: usize,
    },
    /// The reduction of an element value over the row.
    Reduce {
        /// The reduction.
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
    /// A constant of this type; the value is converted as a cast converts it.
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
/// Both operands have one dtype. Halves are multiplied and summed in f32, f64 in f64, and integers wrap in
/// their own type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matmul {
    /// The inner size, summed over; 0 gives a product of zeros.
    pub k: usize,
    /// The left factor. Its strides are those of the batch dims, then of m, then of k. It has no guards and
    /// no indices.
    pub lhs: Access,
    /// The right factor. Its strides are those of the batch dims, then of k, then of n. It has no guards and
    /// no indices.
    pub rhs: Access,
    /// The dims that m and k of `lhs` are composed of.
    pub lhs_parts: Parts,
    /// The dims that k and n of `rhs` are composed of.
    pub rhs_parts: Parts,
    /// The epilogue: a loop without inner dims over `batch.., m, n`, in which [`Instr::Accumulator`] is the
    /// product. It must not write to the buffers of `lhs` and `rhs`.
    pub epilogue: Loop,
}

/// The dims that the rows and columns of a product's factor are composed of: sizes, outermost first, whose
/// row-major order the index of a row or column counts. The factor's access has a stride for each of them
/// instead of one. An empty list is a single dim.
///
/// This lets a product read windows in place: of an image, row (channel, y, x within the window) and column
/// (y, x) address the element (channel, y + y, x + x).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parts {
    /// The sizes that the rows are composed of.
    pub rows: Dims,
    /// The sizes that the columns are composed of.
    pub columns: Dims,
}

impl Parts {
    /// Whether rows and columns are single dims.
    pub fn are_single(&self) -> bool {
        self.rows.is_empty() && self.columns.is_empty()
    }

    /// The sizes that `rows` rows and `columns` columns are composed of.
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

    /// The factors, each with the sizes that the strides of its access belong to.
    pub fn factors(&self) -> [(&Access, Dims); 2] {
        let (batch, matrix) = self.epilogue.sizes.split_at(self.epilogue.sizes.len().saturating_sub(2));
        let (m, n) = (matrix.first().map_or(1, |&m| m), matrix.get(1).map_or(1, |&n| n));
        let sizes = |[rows, columns]: [Dims; 2]| batch.iter().copied().chain(rows).chain(columns).collect();
        [(&self.lhs, sizes(self.lhs_parts.of(m, self.k))), (&self.rhs, sizes(self.rhs_parts.of(self.k, n)))]
    }

    /// Whether the factors fit the space: they have its batch dims, m and k or k and n, one dtype and a
    /// stride for each size that their rows and columns are composed of, and the products of these sizes are
    /// the numbers of rows and columns. Executors refuse other products.
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

    /// The type in which products are summed, and which the epilogue gets.
    pub const fn accumulator(&self) -> Ty {
        Ty::of(self.lhs.dtype)
    }
}

/// Sets `output = base` (or zeros), then for every index of the space, in row-major order, `output[target] =
/// op(output[target], source)`. Every run gives the same result.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scatter {
    /// How a value is combined with the output's element.
    pub op: ScatterOp,
    /// The sizes of the index space of source elements.
    pub sizes: Dims,
    /// The values that are written.
    pub source: Access,
    /// The I64 or I32 indices, one access for each of the target's indexed dims.
    pub indices: Vec<Access>,
    /// The places in the output: an affine part and indexed dims, in elements. It has the source's dtype.
    pub target: Access,
    /// The buffer whose elements the output starts from, with as many elements as the output in the same
    /// order; `None` for zeros.
    pub base: Option<usize>,
    /// The number of elements of the output, which is contiguous.
    pub elements: usize,
}

/// How a [`Scatter`] combines values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScatterOp {
    /// The last value in row-major order of the source wins.
    Assign,
    /// The sum; halves are summed in f32.
    Add,
    /// The product.
    Mul,
    /// The larger value, or NaN if either is.
    Max,
    /// The smaller value, or NaN if either is.
    Min,
}

/// A running reduction along the last dim of the space: `target[.., i] = source[.., 0] op … op source[..,
/// i]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    /// The operation: Sum, Prod, Max or Min.
    pub op: ReduceOp,
    /// The sizes of the space; the scan runs along the last dim.
    pub sizes: Dims,
    /// The elements that are read.
    pub source: Access,
    /// The elements that are written, of the source's dtype. Halves accumulate in f32.
    pub target: Access,
}

/// The stable order of the elements along the last dim of the space: `target[.., i]` is the position (I64) of
/// the element that comes `first + i`-th. Equal elements keep their order, also if descending. NaN is larger
/// than every number; all NaN are equal, and so are -0 and 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sort {
    /// Whether the largest comes first.
    pub descending: bool,
    /// The sizes of the space; the order runs along the last dim.
    pub sizes: Dims,
    /// The elements that are read.
    pub source: Access,
    /// The positions that are written, as I64. Its last stride is that of the wanted places.
    pub target: Access,
    /// The first place that is wanted.
    pub first: usize,
    /// The number of wanted places; `first + count` is at most the last size.
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
    /// Whether it has `rank` strides, no guards and no indices.
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
