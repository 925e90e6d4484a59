//! Products of vectors and matrices by name, sums of products by equation, and products added to something.

pub(super) mod einsum;
pub(super) mod matmul;

use wgrad_array::layout::normalize_dim;
use wgrad_array::{DType, Error, Result, Scalar};

use crate::{IntArray, Tensor};

/// # Products by name
#[wgrad_macros::call_sites]
impl Tensor {
    /// Products of matrices, one for each place of the first dim, which both have.
    ///
    /// # Errors
    /// If the operands are not 3-dim, or the sizes do not fit.
    pub fn bmm(&self, other: &Tensor) -> Result<Tensor> {
        self.batches("bmm", other)?.matmul(other)
    }

    /// This tensor, if it and the other are as many matrices.
    fn batches(&self, op: &'static str, other: &Tensor) -> Result<&Tensor> {
        ranks(op, &[(self, 3), (other, 3)])?;
        if self.shape()[0] != other.shape()[0] {
            return Err(mismatch(op, self, other, "need as many matrices on both sides"));
        }
        Ok(self)
    }

    /// A matrix times a vector.
    ///
    /// # Errors
    /// If the operands are something else, or the sizes do not fit.
    pub fn mv(&self, vec: &Tensor) -> Result<Tensor> {
        ranks("mv", &[(self, 2), (vec, 1)])?;
        self.matmul(vec)
    }

    /// The sum of the products of two lists.
    ///
    /// # Errors
    /// If the operands are not lists of one length and dtype.
    pub fn dot(&self, other: &Tensor) -> Result<Tensor> {
        ranks("dot", &[(self, 1), (other, 1)])?;
        self.matmul(other)
    }

    /// All products of two lists, as a matrix.
    ///
    /// # Errors
    /// If the operands are not lists.
    pub fn outer(&self, other: &Tensor) -> Result<Tensor> {
        ranks("outer", &[(self, 1), (other, 1)])?;
        self.unsqueeze(1)?.mul(other.unsqueeze(0)?)
    }

    /// `beta * self + alpha * product`, with a product of tensors of this dtype that is not rounded yet. A `beta` of 0 leaves `self` out,
    /// NaN or not.
    fn plus_product(
        &self,
        op: &'static str,
        product: &Tensor,
        dtype: DType,
        beta: Scalar,
        alpha: Scalar,
    ) -> Result<Tensor> {
        if self.dtype() != dtype {
            let reason = format!("does not go with a product of {dtype}; cast one");
            return Err(Error::DType { op, dtype: self.dtype(), reason });
        }
        if !self.dtype().is_float() && [alpha, beta].iter().any(|s| matches!(s, Scalar::Float(_))) {
            let reason = "takes no fractions as alpha or beta; cast the tensors".to_owned();
            return Err(Error::DType { op, dtype: self.dtype(), reason });
        }
        self.broadcast_to(product.shape())?;
        let product = if alpha.as_f64() == 1.0 { product.clone() } else { product.mul(alpha)? };
        let sum = match beta.as_f64() {
            0.0 => product,
            1.0 => self.widened()?.add(&product)?,
            _ => self.widened()?.mul(beta)?.add(&product)?,
        };
        sum.rounded_to(dtype)
    }

    /// `beta * self + alpha * (mat1 @ mat2)`; PyTorch's defaults are 1.
    ///
    /// # Errors
    /// If the shapes do not fit or dtypes or devices differ.
    pub fn addmm(
        &self,
        mat1: &Tensor,
        mat2: &Tensor,
        beta: impl Into<Scalar>,
        alpha: impl Into<Scalar>,
    ) -> Result<Tensor> {
        ranks("mm", &[(mat1, 2), (mat2, 2)])?;
        let product = mat1.matmul_unrounded(mat2)?;
        self.plus_product("addmm", &product, mat1.dtype(), beta.into(), alpha.into())
    }

    /// `beta * self + alpha * (mat @ vec)`; PyTorch's defaults are 1.
    ///
    /// # Errors
    /// If the shapes do not fit or dtypes or devices differ.
    pub fn addmv(
        &self,
        mat: &Tensor,
        vec: &Tensor,
        beta: impl Into<Scalar>,
        alpha: impl Into<Scalar>,
    ) -> Result<Tensor> {
        ranks("mv", &[(mat, 2), (vec, 1)])?;
        let product = mat.matmul_unrounded(vec)?;
        self.plus_product("addmv", &product, mat.dtype(), beta.into(), alpha.into())
    }

    /// `beta * self + alpha * outer(vec1, vec2)`; PyTorch's defaults are 1.
    ///
    /// # Errors
    /// If the shapes do not fit or dtypes or devices differ.
    pub fn addr(
        &self,
        vec1: &Tensor,
        vec2: &Tensor,
        beta: impl Into<Scalar>,
        alpha: impl Into<Scalar>,
    ) -> Result<Tensor> {
        let dtype = vec1.dtype().promote(vec2.dtype());
        let product = vec1.widened()?.outer(&vec2.widened()?)?;
        self.plus_product("addr", &product, dtype, beta.into(), alpha.into())
    }

    /// `beta * self + alpha * bmm(batch1, batch2)`; PyTorch's defaults are 1.
    ///
    /// # Errors
    /// If the shapes do not fit or dtypes or devices differ.
    pub fn baddbmm(
        &self,
        batch1: &Tensor,
        batch2: &Tensor,
        beta: impl Into<Scalar>,
        alpha: impl Into<Scalar>,
    ) -> Result<Tensor> {
        let product = batch1.batches("bmm", batch2)?.matmul_unrounded(batch2)?;
        self.plus_product("baddbmm", &product, batch1.dtype(), beta.into(), alpha.into())
    }

    /// `beta * self + alpha * sum(bmm(batch1, batch2))` over the batch; PyTorch's defaults are 1.
    ///
    /// # Errors
    /// If the shapes do not fit or dtypes or devices differ.
    pub fn addbmm(
        &self,
        batch1: &Tensor,
        batch2: &Tensor,
        beta: impl Into<Scalar>,
        alpha: impl Into<Scalar>,
    ) -> Result<Tensor> {
        let product = batch1.batches("bmm", batch2)?.matmul_unrounded(batch2)?;
        // Integers are summed in i64, whose lowest bits are those of the dtype's own sums.
        let sum = product.sum_dim(0, false)?.to_dtype(product.dtype())?;
        self.plus_product("addbmm", &sum, batch1.dtype(), beta.into(), alpha.into())
    }

    /// `self[.., i] * weight[o, i, j] * other[.., j]` summed over i and j, plus the bias: `F.bilinear`.
    ///
    /// # Errors
    /// If the shapes do not fit or dtypes or devices differ.
    pub fn bilinear<'a>(
        &self,
        other: &Tensor,
        weight: &Tensor,
        bias: impl Into<Option<&'a Tensor>>,
    ) -> Result<Tensor> {
        let bias = bias.into();
        if let Some(odd) =
            [Some(other), Some(weight), bias].into_iter().flatten().find(|x| x.dtype() != self.dtype())
        {
            let reason = format!("does not go with {} in one product; cast one of them", self.dtype());
            return Err(Error::DType { op: "bilinear", dtype: odd.dtype(), reason });
        }
        let (left, weight, right) = (self.widened()?, weight.widened()?, other.widened()?);
        let mut out = Tensor::einsum("...i,oij,...j->...o", &[&left, &weight, &right])?;
        if let Some(bias) = bias {
            out = out.add(bias.widened()?)?;
        }
        out.rounded_to(self.dtype())
    }

    /// The Kronecker product: every element of this tensor times all of the other.
    ///
    /// # Errors
    /// If the devices differ or the result is too large.
    pub fn kron(&self, other: &Tensor) -> Result<Tensor> {
        let rank = self.rank().max(other.rank());
        let (mut left, mut right, mut shape) = (Vec::new(), Vec::new(), Vec::new());
        for d in 0..rank {
            let size = |x: &Tensor| (d + x.rank()).checked_sub(rank).map_or(1, |d| x.shape()[d]);
            left.extend([size(self), 1]);
            right.extend([1, size(other)]);
            shape.push(size(self).saturating_mul(size(other)));
        }
        wgrad_array::layout::checked_elements("kron", &shape)?;
        self.reshape(left)?.mul(other.reshape(right)?)?.reshape(shape)?.owned()
    }

    /// The sum of products over the last `dims` dims of this tensor and the first of the other.
    ///
    /// # Errors
    /// If there are not so many dims, or their sizes differ.
    pub fn tensordot(&self, other: &Tensor, dims: usize) -> Result<Tensor> {
        if dims > self.rank() || dims > other.rank() {
            return Err(mismatch(
                "tensordot",
                self,
                other,
                &format!("do not both have {dims} dims to sum over"),
            ));
        }
        let own: Vec<usize> = (self.rank() - dims..self.rank()).collect();
        self.tensordot_dims(other, own, (0..dims).collect::<Vec<usize>>())
    }

    /// The sum of products over these dims of this tensor and those of the other, paired in order.
    ///
    /// # Errors
    /// If a dim is not there or named twice, the lists differ in length, or paired sizes differ.
    pub fn tensordot_dims(
        &self,
        other: &Tensor,
        own: impl Into<IntArray>,
        others: impl Into<IntArray>,
    ) -> Result<Tensor> {
        const OP: &str = "tensordot";
        let (own, others) = (own.into().dims(OP, self.rank())?, others.into().dims(OP, other.rank())?);
        let fits = own.len() == others.len()
            && own.iter().zip(&others).all(|(&a, &b)| {
                let (a, b) = (self.shape().get(a).copied(), other.shape().get(b).copied());
                a == b || a == Some(1) || b == Some(1)
            });
        if !fits {
            return Err(mismatch(OP, self, other, "have other sizes in the dims to sum over"));
        }
        let label = |n: usize| char::from_u32(0x1000 + n as u32).unwrap_or('?');
        let left: Vec<char> = (0..self.rank()).map(label).collect();
        let mut right: Vec<char> = (0..other.rank()).map(|d| label(self.rank() + d)).collect();
        for (&a, &b) in own.iter().zip(&others) {
            right[b] = left[a];
        }
        let output = left.iter().enumerate().filter(|(d, _)| !own.contains(d)).map(|(_, &c)| c);
        let rest = right.iter().enumerate().filter(|(d, _)| !others.contains(d)).map(|(_, &c)| c);
        let output: Vec<char> = output.chain(rest).collect();
        crate::ops::product::einsum::contract_all(vec![(self.clone(), left), (other.clone(), right)], &output)
    }

    /// The cross product of the 3-vectors along a dim, without one along the first dim of size 3. Other dims broadcast.
    ///
    /// # Errors
    /// If the dim is not there or not of size 3, or the shapes do not fit.
    pub fn cross(&self, other: &Tensor, dim: impl Into<Option<isize>>) -> Result<Tensor> {
        const OP: &str = "cross";
        if self.rank() != other.rank() {
            return Err(mismatch(OP, self, other, "have different numbers of dims"));
        }
        let Some(dim) =
            dim.into().or_else(|| self.shape().iter().position(|&size| size == 3).map(|d| d as isize))
        else {
            return Err(mismatch(OP, self, other, "have no dim of size 3"));
        };
        let at = normalize_dim(OP, dim, self.rank())?;
        if [self, other].iter().any(|x| x.shape().get(at) != Some(&3)) {
            return Err(mismatch(OP, self, other, &format!("do not both have 3 elements in dim {dim}")));
        }
        let dtype = self.dtype().promote(other.dtype());
        let turned = |x: &Tensor, by: isize| x.expr().widened().roll(by, at);
        // The components are moved by one and by two places.
        let product = turned(self, -1) * turned(other, -2) - turned(self, -2) * turned(other, -1);
        product.rounded_to(dtype).done()
    }
}

/// Every operand must have this many dims.
fn ranks(op: &'static str, operands: &[(&Tensor, usize)]) -> Result<()> {
    match operands.iter().find(|(x, rank)| x.rank() != *rank) {
        None => Ok(()),
        Some((x, rank)) => {
            let reason = format!("does not have {rank} dims; matmul takes all shapes");
            Err(Error::Shape { op, shape: x.shape().to_vec(), reason })
        }
    }
}

fn mismatch(op: &'static str, a: &Tensor, b: &Tensor, reason: &str) -> Error {
    Error::ShapeMismatch { op, lhs: a.shape().to_vec(), rhs: b.shape().to_vec(), reason: reason.to_owned() }
}
