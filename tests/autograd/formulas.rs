//! Formulas: what they compute and record is what the methods of tensors do, and an error names the line of its part.

use wgrad::{Error, GradFn, Result, Tensor, TensorExpr};

use crate::support::devices;

fn numbers(expr: TensorExpr) -> Result<Vec<f32>> {
    expr.done()?.to_vec()
}

#[test]
fn operators_take_parts_tensors_and_numbers_on_either_side() -> Result<()> {
    for device in devices() {
        let (a, b) = (Tensor::new([6f32, -8.0], &device)?, Tensor::new([2f32, 4.0], &device)?);
        let (x, y) = (a.expr(), b.expr());
        assert_eq!(numbers(&x + &y)?, [8.0, -4.0]);
        assert_eq!(numbers(x.clone() - y.clone())?, [4.0, -12.0]);
        assert_eq!(numbers(&x * y.clone())?, [12.0, -32.0]);
        assert_eq!(numbers(x.clone() / &y)?, [3.0, -2.0]);
        assert_eq!(numbers(&x + &b)?, [8.0, -4.0]);
        assert_eq!(numbers(&x - b.clone())?, [4.0, -12.0]);
        assert_eq!(numbers(&a * &y)?, [12.0, -32.0]);
        assert_eq!(numbers(a.clone() / y.clone())?, [3.0, -2.0]);
        assert_eq!(numbers(&x + 1)?, [7.0, -7.0]);
        assert_eq!(numbers(&x - 1.5f32)?, [4.5, -9.5]);
        assert_eq!(numbers(x.clone() * 2i64)?, [12.0, -16.0]);
        assert_eq!(numbers(&x / 2.0)?, [3.0, -4.0]);
        assert_eq!(numbers(1.0 + &x)?, [7.0, -7.0]);
        assert_eq!(numbers(1 - &x)?, [-5.0, 9.0]);
        assert_eq!(numbers(2.0 * x.clone())?, [12.0, -16.0]);
        assert_eq!(numbers(1.0 / &y)?, [0.5, 0.25]);
        assert_eq!(numbers(-&x)?, [-6.0, 8.0]);
        assert_eq!(numbers(-x.clone())?, [-6.0, 8.0]);
        let mut z = x.clone();
        z += &y;
        z -= 1.0;
        z *= &b;
        z /= 2;
        assert_eq!(numbers(z)?, [7.0, -10.0]);
        // What it was made of stays.
        assert_eq!(a.to_vec::<f32>()?, [6.0, -8.0]);
    }
    Ok(())
}

#[test]
fn methods_take_parts_and_tensors() -> Result<()> {
    for device in devices() {
        let x = Tensor::new([[1f32, 2.0], [3.0, 4.0]], &device)?;
        let e = x.expr();
        assert_eq!(numbers(e.ge(2.0).where_cond(&e, -1.0))?, [-1.0, 2.0, 3.0, 4.0]);
        assert_eq!(numbers(e.masked_fill(e.gt(&x - 1.0).logical_not(), 0.0))?, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(numbers(e.matmul(&x).select(0, 1))?, [15.0, 22.0]);
        assert_eq!(numbers(e.matmul(&e * 2).select(0, 1))?, [30.0, 44.0]);
        assert_eq!(numbers(e.sum_dim(-1, true) - e.max())?, [-1.0, 3.0]);
        assert_eq!(numbers(e.maximum(2.5).pow(2))?, [6.25, 6.25, 9.0, 16.0]);
        assert_eq!(numbers(e.map(|x| Ok(x.max_dim(1, false)?.0)))?, [2.0, 4.0]);
        let softmax: Result<Tensor> = (&e - e.amax(1, true)).softmax(1).into();
        assert_eq!(softmax?.to_vec::<f32>()?, x.softmax(1)?.to_vec::<f32>()?);
    }
    Ok(())
}

#[test]
fn a_formula_records_what_its_calls_record() -> Result<()> {
    for device in devices() {
        let leaf = || Tensor::new([0.5f32, -1.5, 2.0], &device)?.requires_grad_(true);
        let (x, z) = (leaf()?, leaf()?);
        let y = x.expr();
        let y = (&y * (1.0 - &y * &y).tanh() / 2.0).done()?;
        let w = z.mul(z.mul(&z)?.rsub(1.0)?.tanh()?)?.div(2.0)?;
        let mut nodes = (y.grad_fn(), w.grad_fn());
        while let (Some(a), Some(b)) = &nodes {
            assert_eq!(a.name(), b.name());
            let last = |node: &GradFn| Some(node.next_functions().pop()??.0);
            nodes = (last(a), last(b));
        }
        assert!(nodes.0.is_none() && nodes.1.is_none());
        y.sum()?.backward()?;
        w.sum()?.backward()?;
        let gradients = [x, z].map(|x| x.grad().unwrap().to_vec::<f32>().unwrap());
        assert_eq!(gradients[0], gradients[1]);
    }
    Ok(())
}

#[test]
fn the_first_error_comes_with_the_line_of_its_part() -> Result<()> {
    for device in devices() {
        let (x, y) = (Tensor::ones(2, &device)?, Tensor::ones(3, &device)?);
        let formula = x.expr() * 2.0;
        let (formula, line) = (formula + &y, line!());
        let formula = (formula.softmax(7) - 1.0).abs();
        let error = formula.clone().done().unwrap_err();
        assert!(matches!(error, Error::At { .. }), "{error:?}");
        assert!(matches!(error.root(), Error::ShapeMismatch { op: "add", .. }), "{error:?}");
        let at = format!("/autograd/formulas.rs:{line}:");
        assert!(error.to_string().contains(&at), "{error}");
        assert_eq!(error.root(), &(&x + &y).unwrap_err());
        // On the right, and as an argument, it is the same one.
        for formula in [&x * &formula, 1.0 - &formula, x.expr().matmul(&formula), x.expr().maximum(&formula)]
        {
            assert_eq!(formula.done().unwrap_err(), error);
        }
        let mut sum = x.expr();
        sum += formula;
        assert_eq!(sum.done().unwrap_err(), error);
        let (mapped, line) = (x.expr().map(|x| x.sum_dim(4, false)), line!());
        let error = mapped.done().unwrap_err();
        assert!(matches!(error.root(), Error::Dim { dim: 4, rank: 1, .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("formulas.rs:{line}:")), "{error}");
    }
    Ok(())
}

#[test]
fn methods_of_tensors_give_their_errors_as_they_are() -> Result<()> {
    for device in devices() {
        // Its derivative is a formula of the library's own, whose lines are nobody's business.
        let x = Tensor::ones([2, 3], &device)?.requires_grad_(true)?;
        let y = x.tanh()?;
        let hook = |g: &Tensor| g.reshape(7).map(Some);
        y.register_hook(hook)?;
        let error = y.sum()?.backward().unwrap_err();
        assert!(!matches!(error, Error::At { .. }), "{error:?}");
        assert!(!x.mul(Tensor::ones(2, &device)?).unwrap_err().to_string().contains(".rs:"));
    }
    Ok(())
}
