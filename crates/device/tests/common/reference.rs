//! The reference interpreter: the meaning of the kernel IR, written as plainly as possible. Executors are
//! tested against it.
//!
//! It computes one value at a time, row by row in row-major order. Every F32 operation is computed in f64 and
//! rounded once, and reductions of floats accumulate in f64. It shares no code with the executors.

use wgrad_device::kernel::{
    Access, BinaryOp, Gives, Instr, Kernel, Level, Loop, Matmul, Range, ReduceOp, Scan, Scatter, ScatterOp,
    Sort, Ty, UnaryOp,
};
use wgrad_device::{DType, Error, Scalar, philox4x32_10};

use half::{bf16, f16};

/// The value of a register.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    U32(u32),
    I32(i32),
    I64(i64),
    F32(f32),
    F64(f64),
}
use Value::*;

/// Runs a kernel on these buffers. An index out of range is the error that executors report.
pub fn run(kernel: &Kernel, buffers: &mut [Vec<u8>], params: &[Scalar]) -> Result<(), Error> {
    match kernel {
        Kernel::Loop(kernel) => {
            run_loop(kernel, buffers, params, &|_| unreachable!("no accumulator in a loop"))
        }
        Kernel::Matmul(kernel) => run_matmul(kernel, buffers, params),
        Kernel::Scatter(kernel) => run_scatter(kernel, buffers),
        Kernel::Scan(kernel) => run_scan(kernel, buffers),
        Kernel::Sort(kernel) => run_sort(kernel, buffers),
    }
}

/// All indices of a space, in row-major order.
fn indices(sizes: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for &size in sizes {
        all = all.iter().flat_map(|head| (0..size).map(move |i| [&head[..], &[i]].concat())).collect();
    }
    all
}

fn affine(strides: &[isize], offset: isize, index: &[usize]) -> isize {
    offset + strides.iter().zip(index).map(|(&s, &i)| s * i as isize).sum::<isize>()
}

fn in_range(range: &Range, index: &[usize]) -> bool {
    let value = affine(&range.strides, range.offset, index);
    value >= 0 && value < range.size as isize
}

pub fn read(buffer: &[u8], dtype: DType, element: isize) -> Value {
    let at = usize::try_from(element).expect("an element before its buffer") * dtype.size();
    let bytes = &buffer[at..at + dtype.size()];
    match dtype {
        DType::Bool => Bool(bytes[0] != 0),
        DType::U8 => I32(i32::from(bytes[0])),
        DType::I32 => I32(i32::from_le_bytes(bytes.try_into().unwrap())),
        DType::I64 => I64(i64::from_le_bytes(bytes.try_into().unwrap())),
        DType::F16 => F32(f16::from_le_bytes(bytes.try_into().unwrap()).to_f32()),
        DType::BF16 => F32(bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32()),
        DType::F32 => F32(f32::from_le_bytes(bytes.try_into().unwrap())),
        DType::F64 => F64(f64::from_le_bytes(bytes.try_into().unwrap())),
    }
}

pub fn write(buffer: &mut [u8], dtype: DType, element: isize, value: Value) {
    let at = usize::try_from(element).expect("an element before its buffer") * dtype.size();
    let bytes = match (dtype, value) {
        (DType::Bool, Bool(v)) => vec![u8::from(v)],
        (DType::U8, I32(v)) => vec![v as u8],
        (DType::I32, I32(v)) => v.to_le_bytes().to_vec(),
        (DType::I64, I64(v)) => v.to_le_bytes().to_vec(),
        (DType::F16, F32(v)) => f16::from_f32(v).to_le_bytes().to_vec(),
        (DType::BF16, F32(v)) => bf16::from_f32(v).to_le_bytes().to_vec(),
        (DType::F32, F32(v)) => v.to_le_bytes().to_vec(),
        (DType::F64, F64(v)) => v.to_le_bytes().to_vec(),
        _ => panic!("{value:?} stored as {dtype}"),
    };
    buffer[at..at + bytes.len()].copy_from_slice(&bytes);
}

/// The value of a scalar as a parameter or constant of this type.
fn scalar(value: Scalar, ty: Ty) -> Value {
    match ty {
        Ty::Bool => Bool(value.as_bool()),
        Ty::U32 => U32(value.as_i64() as u32),
        Ty::I32 => I32(value.as_i64() as i32),
        Ty::I64 => I64(value.as_i64()),
        Ty::F32 => F32(value.as_f64() as f32),
        Ty::F64 => F64(value.as_f64()),
    }
}

/// Loads an element, or 0 where a guard fails. The values of the indexed dims are checked.
fn load(
    access: &Access,
    ranges: &[Range],
    buffers: &[Vec<u8>],
    index: &[usize],
    values: &[Value],
) -> Result<Value, Error> {
    if !access.guards.iter().all(|&g| in_range(&ranges[g], index)) {
        return Ok(scalar(Scalar::Int(0), Ty::of(access.dtype)));
    }
    let mut element = affine(&access.strides, access.offset, index);
    for (dim, value) in access.indexed.iter().zip(values) {
        let i = match value {
            I32(i) => i64::from(*i),
            I64(i) => *i,
            other => panic!("index of type {other:?}"),
        };
        if i < 0 || i >= dim.size as i64 {
            return Err(Error::Index { op: dim.op, index: i, size: dim.size, called_at: None });
        }
        element += i as isize * dim.stride;
    }
    Ok(read(&buffers[access.buffer], access.dtype, element))
}

/// The block of random words of an element under the key and stream in `params`, and the element's number.
fn random_words(index: Value, params: &[Scalar]) -> ([u32; 4], usize) {
    let I32(index) = index else { panic!("an element's number of type {index:?}") };
    let index = index as u32;
    let word = |i: usize| params[i].as_i64() as u32;
    (philox4x32_10([index / 4, 0, word(2), word(3)], [word(0), word(1)]), index as usize)
}

/// The normal number of an element, by the formula of [`Instr::Normal`] in f64.
fn normal(words: [u32; 4], index: usize) -> f32 {
    let pair = index % 4 / 2 * 2;
    let [a, b] = [words[pair], words[pair + 1]];
    let (u, v) = (f64::from(a | 1) / 2f64.powi(32), (f64::from(b) + 0.5) / 2f64.powi(32));
    let turn = (v + (index % 2) as f64 / 4.0) * std::f64::consts::TAU;
    ((-2.0 * (-(1.0 - u)).ln_1p()).sqrt() * turn.sin()) as f32
}

fn run_loop(
    kernel: &Loop,
    buffers: &mut [Vec<u8>],
    params: &[Scalar],
    accumulator: &dyn Fn(&[usize]) -> Value,
) -> Result<(), Error> {
    let levels = kernel.levels();
    let outer = kernel.outer();
    let elements = indices(&kernel.sizes[outer..]);
    for row in indices(&kernel.sizes[..outer]) {
        // The index at which row values are computed, since they do not depend on inner dims.
        let row_index = [&row[..], &vec![0; kernel.inner]].concat();
        let all: Vec<Vec<usize>> = elements.iter().map(|e| [&row[..], e].concat()).collect();
        // The results of each instruction: one for a value of the row, else one for each element.
        let mut values: Vec<Vec<Value>> = Vec::new();
        for (position, instr) in kernel.body.iter().enumerate() {
            let at: &[Vec<usize>] =
                if levels[position] == Level::Row { std::slice::from_ref(&row_index) } else { &all };
            let mut result = Vec::new();
            for (n, index) in at.iter().enumerate() {
                let get = |reg: u32| {
                    let values: &Vec<Value> = &values[reg as usize];
                    if levels[reg as usize] == Level::Row { values[0] } else { values[n] }
                };
                result.push(match instr {
                    Instr::Load { access, indices } => {
                        let indices: Vec<Value> = indices.iter().map(|&r| get(r)).collect();
                        load(&kernel.accesses[*access], &kernel.ranges, buffers, index, &indices)?
                    }
                    Instr::Accumulator => accumulator(index),
                    Instr::Param { index, ty } => scalar(params[*index], *ty),
                    Instr::Const(value) => scalar(value.value(), value.ty()),
                    Instr::Coord { dim } => I32(index[*dim] as i32),
                    Instr::InRange { range } => Bool(in_range(&kernel.ranges[*range], index)),
                    Instr::Unary { op, a } => unary(*op, get(*a)),
                    Instr::Binary { op, a, b } => binary(*op, get(*a), get(*b)),
                    Instr::Select { cond, a, b } => match get(*cond) {
                        Bool(true) => get(*a),
                        Bool(false) => get(*b),
                        other => panic!("condition {other:?}"),
                    },
                    Instr::Cast { a, to } => cast(get(*a), *to),
                    Instr::Philox { index, params: first } => {
                        let (words, index) = random_words(get(*index), &params[*first..first + 4]);
                        U32(words[index % 4])
                    }
                    Instr::Normal { index, params: first } => {
                        let (words, index) = random_words(get(*index), &params[*first..first + 4]);
                        F32(normal(words, index))
                    }
                    Instr::Reduce { op, a } => {
                        let elements: Vec<Value> = if levels[*a as usize] == Level::Row {
                            vec![values[*a as usize][0]; all.len()]
                        } else {
                            values[*a as usize].clone()
                        };
                        let ty = kernel.types(Ty::F32)[*a as usize];
                        reduce(*op, ty, &elements)
                    }
                });
            }
            values.push(result);
        }
        for store in &kernel.stores {
            let access = &kernel.accesses[store.access];
            let value = &values[store.value as usize];
            let per_row = kernel.store_level(access) == Level::Row;
            let at = if per_row { std::slice::from_ref(&row_index) } else { &all[..] };
            for (n, index) in at.iter().enumerate() {
                let value = if levels[store.value as usize] == Level::Row { value[0] } else { value[n] };
                let element = affine(&access.strides, access.offset, index);
                write(&mut buffers[access.buffer], access.dtype, element, value);
            }
        }
    }
    Ok(())
}

/// The index of a factor's element, in which row and column are split into the dims that they are composed
/// of.
fn parted(batch: &[usize], sizes: &[impl AsRef<[usize]>; 2], index: [usize; 2]) -> Vec<usize> {
    let mut all = batch.to_vec();
    for (sizes, mut index) in sizes.iter().zip(index) {
        let mut parts = Vec::new();
        for &size in sizes.as_ref().iter().rev() {
            parts.insert(0, index % size);
            index /= size;
        }
        all.extend(parts);
    }
    all
}

fn run_matmul(kernel: &Matmul, buffers: &mut [Vec<u8>], params: &[Scalar]) -> Result<(), Error> {
    let inputs = buffers.to_vec();
    let rank = kernel.epilogue.sizes.len();
    let product = |index: &[usize]| {
        let (batch, m, n) = (&index[..rank - 2], index[rank - 2], index[rank - 1]);
        let [lhs_sizes, rhs_sizes] = [
            kernel.lhs_parts.of(kernel.epilogue.sizes[rank - 2], kernel.k),
            kernel.rhs_parts.of(kernel.k, kernel.epilogue.sizes[rank - 1]),
        ];
        let terms: Vec<Value> = (0..kernel.k)
            .map(|k| {
                let lhs = affine(&kernel.lhs.strides, kernel.lhs.offset, &parted(batch, &lhs_sizes, [m, k]));
                let rhs = affine(&kernel.rhs.strides, kernel.rhs.offset, &parted(batch, &rhs_sizes, [k, n]));
                let lhs = read(&inputs[kernel.lhs.buffer], kernel.lhs.dtype, lhs);
                let rhs = read(&inputs[kernel.rhs.buffer], kernel.rhs.dtype, rhs);
                match (lhs, rhs) {
                    (F32(a), F32(b)) => F64(f64::from(a) * f64::from(b)),
                    (Bool(a), Bool(b)) => Bool(a && b),
                    (a, b) => binary(BinaryOp::Mul, a, b),
                }
            })
            .collect();
        match kernel.accumulator() {
            Ty::F32 => cast(reduce(ReduceOp::Sum, Ty::F64, &terms), DType::F32),
            Ty::Bool => reduce(ReduceOp::Max, Ty::Bool, &terms),
            ty => reduce(ReduceOp::Sum, ty, &terms),
        }
    };
    run_loop(&kernel.epilogue, buffers, params, &product)
}

fn run_scatter(kernel: &Scatter, buffers: &mut [Vec<u8>]) -> Result<(), Error> {
    let dtype = kernel.target.dtype;
    let mut output: Vec<Value> = (0..kernel.elements as isize)
        .map(|i| match kernel.base {
            Some(base) => read(&buffers[base], dtype, i),
            None => scalar(Scalar::Int(0), Ty::of(dtype)),
        })
        .collect();
    for index in indices(&kernel.sizes) {
        let mut element = affine(&kernel.target.strides, kernel.target.offset, &index);
        for (dim, access) in kernel.target.indexed.iter().zip(&kernel.indices) {
            let i = match load(access, &[], buffers, &index, &[])? {
                I32(i) => i64::from(i),
                I64(i) => i,
                other => panic!("index of type {other:?}"),
            };
            if i < 0 || i >= dim.size as i64 {
                return Err(Error::Index { op: dim.op, index: i, size: dim.size, called_at: None });
            }
            element += i as isize * dim.stride;
        }
        let value = load(&kernel.source, &[], buffers, &index, &[])?;
        let old = output[element as usize];
        output[element as usize] = match (kernel.op, old) {
            (ScatterOp::Assign, _) => value,
            (ScatterOp::Add | ScatterOp::Max, Bool(_)) => binary(BinaryOp::Or, old, value),
            (ScatterOp::Mul | ScatterOp::Min, Bool(_)) => binary(BinaryOp::And, old, value),
            (ScatterOp::Add, _) => binary(BinaryOp::Add, old, value),
            (ScatterOp::Mul, _) => binary(BinaryOp::Mul, old, value),
            (ScatterOp::Max, _) => binary(BinaryOp::Max, old, value),
            (ScatterOp::Min, _) => binary(BinaryOp::Min, old, value),
        };
    }
    for (i, value) in output.into_iter().enumerate() {
        write(&mut buffers[kernel.target.buffer], dtype, i as isize, value);
    }
    Ok(())
}

fn run_scan(kernel: &Scan, buffers: &mut [Vec<u8>]) -> Result<(), Error> {
    let inputs = buffers.to_vec();
    let ty = Ty::of(kernel.source.dtype);
    for index in indices(&kernel.sizes) {
        let (row, last) = index.split_at(index.len() - 1);
        let prefix: Vec<Value> = (0..=last[0])
            .map(|i| load(&kernel.source, &[], &inputs, &[row, &[i]].concat(), &[]))
            .collect::<Result<_, _>>()?;
        let element = affine(&kernel.target.strides, kernel.target.offset, &index);
        write(
            &mut buffers[kernel.target.buffer],
            kernel.target.dtype,
            element,
            reduce(kernel.op, ty, &prefix),
        );
    }
    Ok(())
}

fn run_sort(kernel: &Sort, buffers: &mut [Vec<u8>]) -> Result<(), Error> {
    let inputs = buffers.to_vec();
    let (rows, n) = kernel.sizes.split_at(kernel.sizes.len() - 1);
    for row in indices(rows) {
        let keys: Vec<Value> = (0..n[0])
            .map(|i| load(&kernel.source, &[], &inputs, &[&row[..], &[i]].concat(), &[]))
            .collect::<Result<_, _>>()?;
        let mut order: Vec<usize> = (0..n[0]).collect();
        // The position of an element is the number of elements that come before it.
        let before =
            |a: Value, b: Value| if kernel.descending { beats(a, b, true) } else { beats(b, a, true) };
        order.sort_by_key(|&i| keys.iter().filter(|&&key| before(key, keys[i])).count());
        for i in 0..kernel.count {
            let element = affine(&kernel.target.strides, kernel.target.offset, &[&row[..], &[i]].concat());
            let place = I64(order[kernel.first + i] as i64);
            write(&mut buffers[kernel.target.buffer], kernel.target.dtype, element, place);
        }
    }
    Ok(())
}

/// Whether `a` beats `b` as the largest (or the smallest). NaN beats numbers, and equal values do not beat
/// each other.
fn beats(a: Value, b: Value, largest: bool) -> bool {
    let greater = |order: Option<std::cmp::Ordering>| {
        order == Some(if largest { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less })
    };
    match (a, b) {
        (F32(a), F32(b)) => (a.is_nan() && !b.is_nan()) || greater(a.partial_cmp(&b)),
        (F64(a), F64(b)) => (a.is_nan() && !b.is_nan()) || greater(a.partial_cmp(&b)),
        (Bool(a), Bool(b)) => greater(a.partial_cmp(&b)),
        (U32(a), U32(b)) => greater(a.partial_cmp(&b)),
        (I32(a), I32(b)) => greater(a.partial_cmp(&b)),
        (I64(a), I64(b)) => greater(a.partial_cmp(&b)),
        _ => panic!("{a:?} against {b:?}"),
    }
}

/// Reduces the values of a row.
pub fn reduce(op: ReduceOp, ty: Ty, values: &[Value]) -> Value {
    let best = |largest: bool| {
        let mut best = 0;
        for i in 1..values.len() {
            if beats(values[i], values[best], largest) {
                best = i;
            }
        }
        best
    };
    match (op, ty) {
        (ReduceOp::ArgMax, _) => I64(best(true) as i64),
        (ReduceOp::ArgMin, _) => I64(best(false) as i64),
        (ReduceOp::Max | ReduceOp::Sum, Ty::Bool) => Bool(values.contains(&Bool(true))),
        (ReduceOp::Min | ReduceOp::Prod, Ty::Bool) => Bool(!values.contains(&Bool(false))),
        (ReduceOp::Max, _) => values[best(true)],
        (ReduceOp::Min, _) => values[best(false)],
        (ReduceOp::Sum | ReduceOp::Prod, Ty::F32) => {
            let wide: Vec<Value> = values.iter().map(|&v| cast(v, DType::F64)).collect();
            cast(reduce(op, Ty::F64, &wide), DType::F32)
        }
        (ReduceOp::Sum, _) => {
            values.iter().fold(scalar(Scalar::Int(0), ty), |sum, &v| binary(BinaryOp::Add, sum, v))
        }
        (ReduceOp::Prod, _) => {
            values.iter().fold(scalar(Scalar::Int(1), ty), |product, &v| binary(BinaryOp::Mul, product, v))
        }
    }
}

/// The value that an element of a dtype holds after this value was stored in it.
pub fn cast(value: Value, to: DType) -> Value {
    let int = match value {
        Bool(v) => i64::from(v),
        U32(v) => i64::from(v),
        I32(v) => i64::from(v),
        I64(v) => v,
        F32(v) => v as i64,
        F64(v) => v as i64,
    };
    let float = match value {
        F32(v) => f64::from(v),
        F64(v) => v,
        _ => int as f64,
    };
    let truth = match value {
        F32(_) | F64(_) => float != 0.0,
        _ => int != 0,
    };
    match to {
        DType::Bool => Bool(truth),
        DType::U8 => I32(i32::from(int as u8)),
        DType::I32 => I32(int as i32),
        DType::I64 => I64(int),
        DType::F16 => F32(f16::from_f64(float).to_f32()),
        DType::BF16 => F32(bf16::from_f64(float).to_f32()),
        DType::F32 if matches!(value, F32(_) | F64(_)) => F32(float as f32),
        DType::F32 => F32(int as f32),
        DType::F64 => F64(float),
    }
}

/// An operation on one value.
pub fn unary(op: UnaryOp, a: Value) -> Value {
    match (op, a) {
        (UnaryOp::IsNan, F32(a)) => Bool(a.is_nan()),
        (UnaryOp::IsNan, F64(a)) => Bool(a.is_nan()),
        (UnaryOp::IsFinite, F32(a)) => Bool(a.is_finite()),
        (UnaryOp::IsFinite, F64(a)) => Bool(a.is_finite()),
        (_, F32(a)) => F32(float_unary(op, f64::from(a)) as f32),
        (_, F64(a)) => F64(float_unary(op, a)),
        (UnaryOp::Not, Bool(a)) => Bool(!a),
        (UnaryOp::Neg, U32(a)) => U32(a.wrapping_neg()),
        (UnaryOp::Neg, I32(a)) => I32(a.wrapping_neg()),
        (UnaryOp::Neg, I64(a)) => I64(a.wrapping_neg()),
        (UnaryOp::Abs, U32(a)) => U32(a),
        (UnaryOp::Abs, I32(a)) => I32(a.wrapping_abs()),
        (UnaryOp::Abs, I64(a)) => I64(a.wrapping_abs()),
        (UnaryOp::Sign, U32(a)) => U32(a.min(1)),
        (UnaryOp::Sign, I32(a)) => I32(a.signum()),
        (UnaryOp::Sign, I64(a)) => I64(a.signum()),
        (UnaryOp::Not, U32(a)) => U32(!a),
        (UnaryOp::Not, I32(a)) => I32(!a),
        (UnaryOp::Not, I64(a)) => I64(!a),
        _ => panic!("{op:?} of {a:?}"),
    }
}

fn float_unary(op: UnaryOp, a: f64) -> f64 {
    match op {
        UnaryOp::Neg => -a,
        UnaryOp::Abs => a.abs(),
        UnaryOp::Sign => f64::from(i8::from(a > 0.0) - i8::from(a < 0.0)),
        UnaryOp::Floor => a.floor(),
        UnaryOp::Ceil => a.ceil(),
        UnaryOp::Round => a.round_ties_even(),
        UnaryOp::Trunc => a.trunc(),
        UnaryOp::Reciprocal => 1.0 / a,
        UnaryOp::Sqrt => a.sqrt(),
        UnaryOp::Rsqrt => 1.0 / a.sqrt(),
        UnaryOp::Exp => a.exp(),
        UnaryOp::Expm1 => a.exp_m1(),
        UnaryOp::Log => a.ln(),
        UnaryOp::Log1p => a.ln_1p(),
        UnaryOp::Sin => a.sin(),
        UnaryOp::Cos => a.cos(),
        UnaryOp::Tanh => a.tanh(),
        UnaryOp::Sigmoid => 1.0 / (1.0 + (-a).exp()),
        UnaryOp::Erf => erf(a),
        _ => panic!("{op:?} of a float"),
    }
}

/// The error function: its Taylor series near 0, its continued fraction beyond.
pub fn erf(x: f64) -> f64 {
    let square = x * x;
    if x.is_nan() {
        x
    } else if x.abs() < 2.5 {
        // erf(x) = 2/sqrt(pi) * exp(-x^2) * sum of 2^n x^(2n+1) / (2n+1)!!, whose terms all have one sign.
        let mut term = x;
        let mut sum = x;
        for n in 1..100 {
            term *= 2.0 * square / f64::from(2 * n + 1);
            sum += term;
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-square).exp() * sum
    } else if x.abs() < 7.0 {
        let x_abs = x.abs();
        let mut fraction = x_abs;
        for n in (1..200).rev() {
            fraction = x_abs + f64::from(n) / 2.0 / fraction;
        }
        let complement = (-square).exp() / fraction / std::f64::consts::PI.sqrt();
        (1.0 - complement).copysign(x)
    } else {
        1f64.copysign(x)
    }
}

/// An operation on two values of one type.
pub fn binary(op: BinaryOp, a: Value, b: Value) -> Value {
    if op.gives() == Gives::Truth {
        use std::cmp::Ordering::*;
        let order = match (a, b) {
            (Bool(a), Bool(b)) => a.partial_cmp(&b),
            (U32(a), U32(b)) => a.partial_cmp(&b),
            (I32(a), I32(b)) => a.partial_cmp(&b),
            (I64(a), I64(b)) => a.partial_cmp(&b),
            (F32(a), F32(b)) => a.partial_cmp(&b),
            (F64(a), F64(b)) => a.partial_cmp(&b),
            _ => panic!("{op:?} of {a:?} and {b:?}"),
        };
        return Bool(match op {
            BinaryOp::Eq => order == Some(Equal),
            BinaryOp::Ne => order != Some(Equal),
            BinaryOp::Lt => order == Some(Less),
            BinaryOp::Le => matches!(order, Some(Less | Equal)),
            BinaryOp::Gt => order == Some(Greater),
            _ => matches!(order, Some(Greater | Equal)),
        });
    }
    match (a, b) {
        (Bool(a), Bool(b)) => Bool(match op {
            BinaryOp::And | BinaryOp::Min => a && b,
            BinaryOp::Or | BinaryOp::Max => a || b,
            BinaryOp::Xor => a != b,
            _ => panic!("{op:?} of Bools"),
        }),
        (F32(a), F32(b)) => F32(float_binary(op, f64::from(a), f64::from(b)) as f32),
        (F64(a), F64(b)) => F64(float_binary(op, a, b)),
        (U32(a), U32(b)) => U32(int_binary(op, i128::from(a), i128::from(b), 32) as u32),
        (I32(a), I32(b)) => I32(int_binary(op, i128::from(a), i128::from(b), 32) as i32),
        (I64(a), I64(b)) => I64(int_binary(op, i128::from(a), i128::from(b), 64) as i64),
        _ => panic!("{op:?} of {a:?} and {b:?}"),
    }
}

/// The exact result, which the caller wraps.
fn int_binary(op: BinaryOp, a: i128, b: i128, bits: i128) -> i128 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div if b == 0 => 0,
        BinaryOp::Div => a / b,
        BinaryOp::Rem if b == 0 => 0,
        BinaryOp::Rem => {
            let remainder = a % b;
            if remainder != 0 && (remainder < 0) != (b < 0) { remainder + b } else { remainder }
        }
        BinaryOp::Pow if b < 0 => match a {
            1 => 1,
            -1 => 1 - 2 * (b & 1),
            _ => 0,
        },
        BinaryOp::Pow => {
            let (mut result, mut base, mut exponent) = (1u64, a as u64, b as u64);
            while exponent > 0 {
                if exponent & 1 == 1 {
                    result = result.wrapping_mul(base);
                }
                base = base.wrapping_mul(base);
                exponent >>= 1;
            }
            i128::from(result)
        }
        BinaryOp::Max => a.max(b),
        BinaryOp::Min => a.min(b),
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        BinaryOp::Xor => a ^ b,
        BinaryOp::Shl if (0..bits).contains(&b) => a << b,
        BinaryOp::Shl => 0,
        BinaryOp::Shr if (0..bits).contains(&b) => a >> b,
        BinaryOp::Shr => a >> 64,
        _ => panic!("{op:?} of integers"),
    }
}

fn float_binary(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Rem => {
            let remainder = a % b;
            if remainder != 0.0 && (remainder < 0.0) != (b < 0.0) { remainder + b } else { remainder }
        }
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Max if a.is_nan() || b.is_nan() => f64::NAN,
        BinaryOp::Max => a.max(b),
        BinaryOp::Min if a.is_nan() || b.is_nan() => f64::NAN,
        BinaryOp::Min => a.min(b),
        _ => panic!("{op:?} of floats"),
    }
}
