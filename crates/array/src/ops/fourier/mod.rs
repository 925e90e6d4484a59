//! Discrete Fourier transforms, composed of products with small matrices.
//!
//! `n = r1 r2 … rs` points are transformed in `s` steps (the Cooley-Tukey algorithm). A step splits the index
//! `j = j1 m + j2` (with `n = r1 m`), transforms over `j1`, and multiplies the result for `k1` by the twiddle
//! factor `exp(∓2πi j2 k1 / n)`. Transforms of `m` points remain for each `k1`; their result `k2` belongs at
//! `k1 + r1 k2`. The real and the imaginary parts of complex numbers are two planes, a dim beside `j1`, so
//! that a complex product is one real product of twice the size. The pass that multiplies by the twiddle
//! factors also moves `k1` behind `j2`, to the columns. So every product is one of a small matrix with a wide
//! one, and the results of the last step are in order.
//!
//! A number of points with a large prime factor is transformed by a convolution whose number of points has
//! small factors (Bluestein's algorithm). An even number of real points is transformed as half as many
//! complex ones.
//!
//! The plan for a number of points, a direction and a dtype is cached with the device (`plan`), so that a
//! repeated transform uploads nothing. The cache is bounded and evicts the least recently used plans.

mod plan;

use std::cmp::Ordering;

use smallvec::SmallVec;
use wgrad_device::kernel::{BinaryOp, UnaryOp};
use wgrad_device::layout::Dims;
use wgrad_device::{Error, Result};

pub(crate) use self::plan::FourierTables;
use self::plan::{Packed, RadixStep, Real, TransformPlan, Twiddles};
use crate::{Array, Expr};

const OP: &str = "fft";

impl Array {
    /// The discrete Fourier transform along a dim. The last dim holds the real and the imaginary parts of
    /// complex numbers: `out[k] = sum of self[j] exp(-2πi jk / n)`, or with a plus instead of the minus if
    /// `inverse` is set. The result is not scaled.
    ///
    /// ```
    /// use wgrad_array::{Array, Device};
    /// let x = Array::from_slice(&[1.0f64, 0.0, 3.0, 0.0], &[2, 2], &Device::cpu())?; // 1, 3
    /// assert_eq!(x.fourier(0, false)?.to_vec::<f64>()?, [4.0, 0.0, -2.0, 0.0]);
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the last dim is not 2 or is the one to transform, the dim is not there, the dtype is not f32 or
    /// f64, or memory runs out.
    pub fn fourier(&self, dim: usize, inverse: bool) -> Result<Array> {
        self.check_fourier(dim, true)?;
        let n = self.shape()[dim];
        if n <= 1 || self.elements() == 0 {
            return Ok(self.clone());
        }
        let plan = plan::complex(n, inverse, self.dtype(), self.device())?;
        plan.run(&self.planes(dim)?)?.pairs(self.shape(), dim)
    }

    /// The first `n / 2 + 1` numbers of the transform of real numbers along a dim; their parts are a new last
    /// dim. The other numbers are the conjugates of these in reverse order.
    ///
    /// # Errors
    /// If the dim is not there, the dtype is not f32 or f64, or memory runs out.
    pub fn fourier_of_real(&self, dim: usize) -> Result<Array> {
        self.check_fourier(dim, false)?;
        let n = self.shape()[dim];
        if n == 0 {
            let reason = format!("has no points in dim {dim}");
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        let columns = self.elements() / n;
        if columns == 0 {
            let mut shape = [self.shape(), &[2]].concat();
            shape[dim] = n / 2 + 1;
            return Array::full(&shape, 0i64, self.dtype(), self.device());
        }
        let mut front: SmallVec<[usize; 6]> = (0..self.rank()).filter(|&d| d != dim).collect();
        front.insert(0, dim);
        let x = self.permute(&front)?;
        let shape = [self.shape(), &[2]].concat();
        let complex = |x: &Array| x.reshape(&[1, n, columns])?.pad(&[(0, 1), (0, 0), (0, 0)]);
        if n == 1 {
            return complex(&x)?.pairs(&shape, dim);
        }
        let out = match plan::real(n, false, self.dtype(), self.device())? {
            Real::Packed(plan) => {
                let Packed { half, twiddles, conjugate } = &*plan;
                let z = half.run(&x.reshape(&[n / 2, 2, columns])?.permute(&[1, 0, 2])?)?;
                // Stored, since each number is read four times.
                let z = Array::cat(&[z.clone(), z.slice(1, 0, 1, 1)?], 1)?.stored();
                let (even, odd) = parts(&z, &z.flip(&[1])?, &conjugate.on(self.device()))?;
                even.binary_scalar(BinaryOp::Mul, 0.5)?.binary(BinaryOp::Add, &twiddles.apply(&odd)?)?
            }
            Real::Whole(plan) => plan.run(&complex(&x)?)?.slice(1, 0, n / 2 + 1, 1)?,
        };
        // If this is stored, then in the order in which it is computed, and not in that of the final view.
        out.copied().pairs(&shape, dim)
    }

    /// The `n` real numbers of whose transform this is the first half: the inverse of
    /// [`Array::fourier_of_real`], times `n`. The imaginary parts that would make the result complex are
    /// ignored.
    ///
    /// # Errors
    /// If the dim has not `n / 2 + 1` pairs, `n` is 0, or as [`Array::fourier`].
    pub fn fourier_to_real(&self, dim: usize, n: usize) -> Result<Array> {
        self.check_fourier(dim, true)?;
        let count = self.shape()[dim];
        if n == 0 || count != n / 2 + 1 {
            let reason = format!("has {count} pairs in dim {dim}; {n} real numbers need {}", n / 2 + 1);
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        if self.elements() == 0 {
            let mut shape = Dims::from(&self.shape()[..self.rank() - 1]);
            shape[dim] = n;
            return Array::full(&shape, 0i64, self.dtype(), self.device());
        }
        let x = self.planes(dim)?;
        // The imaginary parts of the first and, for an even n, the last number are taken as 0.
        let ends = &x.shape()[..2];
        let place = |dim| Expr::from(Array::coordinate(ends, dim, self.device()));
        let ignored = place(0).eq(1i64).and(place(1).eq(0i64).or((place(1) * 2i64).eq(n as i64)));
        let zero = Array::full(&[], 0i64, self.dtype(), self.device())?;
        let x = Array::select(&ignored.done()?.reshape(&[2, count, 1])?, &zero, &x)?;
        let out = if n == 1 { x.slice(0, 0, 1, 1)? } else { x.real_of_half(n)? };
        out.reshape(&moved(n, self.shape(), dim))?.permute(&back(self.rank() - 1, dim, 1))
    }

    /// [`Array::fourier_to_real`] of an array in the form of [`Array::planes`]. The result is one plane of
    /// points.
    fn real_of_half(&self, n: usize) -> Result<Array> {
        match plan::real(n, true, self.dtype(), self.device())? {
            Real::Packed(plan) => {
                let Packed { half, twiddles, conjugate } = &*plan;
                let mirrored = self.flip(&[1])?.slice(1, 0, n / 2, 1)?;
                let (even, odd) =
                    parts(&self.slice(1, 0, n / 2, 1)?, &mirrored, &conjugate.on(self.device()))?;
                half.run(&even.binary(BinaryOp::Add, &twiddles.apply(&odd)?)?)?.permute(&[1, 0, 2])
            }
            Real::Whole(plan) => {
                let mirrored = |plane: usize| self.slice(0, plane, 1, 1)?.flip(&[1])?.slice(1, 0, n / 2, 1);
                let tail = Array::cat(&[mirrored(0)?, mirrored(1)?.unary(UnaryOp::Neg)?], 0)?;
                plan.run(&Array::cat(&[self.clone(), tail], 1)?)?.slice(0, 0, 1, 1)
            }
        }
    }

    fn check_fourier(&self, dim: usize, pairs: bool) -> Result<()> {
        let dims = self.rank().saturating_sub(usize::from(pairs));
        if pairs && self.shape().last() != Some(&2) || dim >= dims {
            let reason = format!("does not have dim {dim} with pairs of real and imaginary parts behind it");
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        if !self.dtype().is_float() || self.dtype().is_half() {
            let reason = "has no Fourier transform; cast to f32 or f64".to_owned();
            return Err(Error::DType { op: OP, dtype: self.dtype(), reason });
        }
        Ok(())
    }

    /// The array as `[2, n, columns]`: the real and the imaginary plane, the points of the dim, and all other
    /// dims as columns.
    fn planes(&self, dim: usize) -> Result<Array> {
        let last = self.rank() - 1;
        let front: SmallVec<[usize; 6]> =
            [last, dim].into_iter().chain((0..last).filter(|&d| d != dim)).collect();
        let n = self.shape()[dim];
        self.permute(&front)?.reshape(&[2, n, self.shape()[..last].iter().product::<usize>() / n.max(1)])
    }

    /// The inverse of [`Array::planes`] for an array of this shape. The number of points may have changed.
    fn pairs(&self, shape: &[usize], dim: usize) -> Result<Array> {
        let sizes: Dims = [2].into_iter().chain(moved(self.shape()[1], shape, dim)).collect();
        let order: Dims = back(shape.len() - 1, dim, 2).into_iter().chain([0]).collect();
        self.reshape(&sizes)?.permute(&order)
    }
}

/// A shape of complex numbers without its last dim, with `dim` moved to the front and its size set to `n`.
fn moved(n: usize, shape: &[usize], dim: usize) -> Dims {
    let others = (0..shape.len() - 1).filter(|&d| d != dim).map(|d| shape[d]);
    [n].into_iter().chain(others).collect()
}

/// The permutation that moves the last of the `front` first dims back to position `dim` of `rank` dims.
fn back(rank: usize, dim: usize, front: usize) -> Dims {
    let place = |d: usize| match d.cmp(&dim) {
        Ordering::Less => d + front,
        Ordering::Equal => front - 1,
        Ordering::Greater => d + front - 1,
    };
    (0..rank).map(place).collect()
}

/// The sum and the difference of `x` and the conjugate of `other`.
fn parts(x: &Array, other: &Array, conjugate: &Array) -> Result<(Array, Array)> {
    let other = other.binary(BinaryOp::Mul, conjugate)?;
    Ok((x.binary(BinaryOp::Add, &other)?, x.binary(BinaryOp::Sub, &other)?))
}

impl TransformPlan {
    /// Transforms an array `[2, n, columns]` of planes, points and columns.
    fn run(&self, x: &Array) -> Result<Array> {
        let (n, columns) = (x.shape()[1], x.shape()[2]);
        if columns == 0 {
            return Ok(x.clone());
        }
        match self {
            TransformPlan::Steps(steps) => {
                let (mut data, mut found) = (x.clone(), columns);
                for RadixStep { radix, matrix, twiddles } in steps {
                    let rest = data.elements() / 2 / radix / found;
                    let sums = matrix.on(x.device()).matmul(&data.reshape(&[2 * radix, rest * found])?)?;
                    data = sums.reshape(&[2, *radix, rest, found])?;
                    if let Some(twiddles) = twiddles {
                        data = twiddles.apply(&data.permute(&[0, 2, 1, 3])?)?;
                    }
                    found *= radix;
                }
                data.reshape(&[2, n, columns])
            }
            TransformPlan::Convolution { chirp, forward, spectrum, backward } => {
                let points = spectrum.points()[0];
                let turned = chirp.apply(x)?.pad(&[(0, 0), (0, points as isize - n as isize), (0, 0)])?;
                let product = spectrum.apply(&forward.run(&turned)?)?;
                // If this is stored, then in the order in which it is computed.
                Ok(chirp.apply(&backward.run(&product)?.slice(1, 0, n, 1)?)?.copied())
            }
        }
    }
}

impl Twiddles {
    /// The product of complex numbers `[2, points.., columns]` with these factors.
    fn apply(&self, x: &Array) -> Result<Array> {
        let straight = x.binary(BinaryOp::Mul, &self.real.on(x.device()))?;
        let across = x.flip(&[0])?.binary(BinaryOp::Mul, &self.imaginary.on(x.device()))?;
        straight.binary(BinaryOp::Add, &across)
    }
}
