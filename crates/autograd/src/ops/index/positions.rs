//! Positions, computed where they are used: a table of them on the host would be as large as an argument says.

use wgrad_array::{Array, DType, Device, Error, Expr, Result};

/// The numbers 0 to before `len`, as i64.
///
/// # Errors
/// If there are more than i32 counts.
pub(in crate::ops) fn counted(op: &'static str, len: usize, device: &Device) -> Result<Expr> {
    if len > i32::MAX as usize {
        return Err(Error::SizeOverflow { op, shape: vec![len] });
    }
    Ok(Expr::from(Array::coordinate(&[len], 0, device)).cast(DType::I64))
}

/// The same as a column `[len, 1]`, which broadcasts against a row.
///
/// # Errors
/// As [`counted`].
pub(in crate::ops) fn column(op: &'static str, len: usize, device: &Device) -> Result<Expr> {
    Ok(counted(op, len, device)?.map(|numbers| numbers.reshape(&[len, 1])))
}

/// The integer quotient of integers that are not negative by a positive one.
pub(in crate::ops) fn quotient(numbers: &Expr, divisor: usize) -> Expr {
    numbers.map(|numbers| numbers.div_trunc(&Array::full(&[], divisor as i64, DType::I64, numbers.device())?))
}
