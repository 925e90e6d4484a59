//! Arrays against values computed by hand or by plain loops, on the CPU; and their errors.

use wgrad_array::{
    Array, BinaryOp, DType, Device, Error, ReduceOp, Scalar, ScatterOp, UnaryOp, philox4x32_10,
};

fn f32s(data: &[f32], shape: &[usize]) -> Array {
    Array::from_slice(data, shape, &Device::cpu()).unwrap()
}

fn i64s(data: &[i64], shape: &[usize]) -> Array {
    Array::from_slice(data, shape, &Device::cpu()).unwrap()
}

#[test]
fn random_bits_are_philox_words() {
    let (seed, stream) = (0x1234_5678_9abc_def0u64, 7u64 << 32 | 3);
    let bits = Array::random_bits(&[3, 5], seed, stream, &Device::cpu()).unwrap().to_vec::<i64>().unwrap();
    let uniform = Array::uniform(&[15], seed, stream, &Device::cpu()).unwrap().to_vec::<f32>().unwrap();
    for (i, (&word, &number)) in bits.iter().zip(&uniform).enumerate() {
        let block = philox4x32_10([i as u32 / 4, 0, 3, 7], [0x9abc_def0, 0x1234_5678]);
        assert_eq!(word, i64::from(block[i % 4]));
        assert_eq!(number, (block[i % 4] >> 8) as f32 / 16_777_216.0);
    }
}

#[test]
fn views_of_pending_and_evaluated_arrays_agree() {
    let data: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let views: [fn(&Array) -> Array; 7] = [
        |x| x.permute(&[2, 0, 1]).unwrap(),
        |x| x.slice(2, 1, 2, 2).unwrap().flip(&[0, 2]).unwrap(),
        |x| x.reshape(&[4, 6]).unwrap().diagonal(1, 0, 1).unwrap(),
        |x| x.permute(&[2, 1, 0]).unwrap().reshape(&[2, 12]).unwrap(),
        |x| x.unfold(2, 3, 1).unwrap(),
        |x| x.pad(&[(1, 0), (0, 2), (-1, 1)]).unwrap(),
        |x| x.slice(0, 1, 1, 1).unwrap().expand(&[5, 3, 4]).unwrap(),
    ];
    for (i, view) in views.iter().enumerate() {
        let there = f32s(&data, &[2, 3, 4]);
        let pending = there.binary_scalar(BinaryOp::Add, 1.0).unwrap();
        let of_pending = view(&pending).to_vec::<f32>().unwrap();
        let of_there = view(&f32s(&data.iter().map(|x| x + 1.0).collect::<Vec<_>>(), &[2, 3, 4]));
        assert_eq!(of_pending, of_there.to_vec::<f32>().unwrap(), "view {i}");
    }
}

#[test]
fn a_reshape_that_strides_cannot_express_after_its_base_was_evaluated() {
    let x = f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[3, 2]).binary_scalar(BinaryOp::Add, 0.0).unwrap();
    let transposed = x.permute(&[1, 0]).unwrap();
    let reshaped = transposed.reshape(&[3, 2]).unwrap().binary_scalar(BinaryOp::Mul, 2.0).unwrap();
    transposed.eval().unwrap();
    assert_eq!(reshaped.to_vec::<f32>().unwrap(), [0.0, 4.0, 8.0, 2.0, 6.0, 10.0]);
}

#[test]
fn promotion_and_scalars() {
    let x = i64s(&[-7, 7], &[2]);
    let half = x.binary_scalar(BinaryOp::Div, 2).unwrap();
    assert_eq!((half.dtype(), half.to_vec::<f32>().unwrap()), (DType::F32, vec![-3.5, 3.5]));
    assert_eq!(x.binary_scalar(BinaryOp::Mul, 2).unwrap().dtype(), DType::I64);
    assert_eq!(x.binary_scalar(BinaryOp::Mul, 2.0).unwrap().dtype(), DType::F32);
    assert_eq!(x.binary_scalar(BinaryOp::Rem, 4).unwrap().to_vec::<i64>().unwrap(), [1, 3]);
    assert_eq!(x.div_trunc(&i64s(&[2], &[1])).unwrap().to_vec::<i64>().unwrap(), [-3, 3]);
    let bytes = Array::from_slice(&[250u8, 3], &[2], &Device::cpu()).unwrap();
    assert_eq!(bytes.binary_scalar(BinaryOp::Add, 10).unwrap().to_vec::<u8>().unwrap(), [4, 13]);
    let flags = bytes.binary_scalar(BinaryOp::Gt, 100).unwrap();
    assert_eq!(flags.to_vec::<bool>().unwrap(), [true, false]);
    assert_eq!(flags.reduce(ReduceOp::Sum, &[0], false).unwrap().item().unwrap(), Scalar::Int(1));
}

#[test]
fn products_with_batches() {
    let naive = |a: &[f32], b: &[f32], (m, k, n): (usize, usize, usize)| -> Vec<f32> {
        (0..m * n).map(|i| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum()).collect()
    };
    let data: Vec<f32> = (0..60).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
    // Batches with a common matrix, of vectors, and of single products; and an epilogue that uses its
    // indices.
    for shape in [[5, 3, 4], [15, 1, 4], [1, 15, 4], [5, 1, 4], [3, 5, 4]] {
        let rows = shape[0] * shape[1];
        let (a, b) = (f32s(&data[..rows * 4], &shape), f32s(&data[..8], &[4, 2]));
        let product = a.matmul(&b).unwrap();
        let coordinate = Array::coordinate(product.shape(), 0, &Device::cpu()).unwrap();
        let shifted = product.binary(BinaryOp::Add, &coordinate).unwrap();
        let expected = naive(&data[..rows * 4], &data[..8], (rows, 4, 2));
        let counted: Vec<f32> =
            expected.iter().enumerate().map(|(i, x)| x + (i / (2 * shape[1])) as f32).collect();
        assert_eq!(shifted.to_vec::<f32>().unwrap(), counted, "{shape:?}");
        assert_eq!(product.to_vec::<f32>().unwrap(), expected, "{shape:?}");
    }
}

#[test]
fn gather_and_scatter() {
    let x = f32s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
    let index = i64s(&[2, 0, 1, 1], &[2, 2]);
    assert_eq!(x.gather(1, &index).unwrap().to_vec::<f32>().unwrap(), [3.0, 1.0, 5.0, 5.0]);
    let added = x.scatter(ScatterOp::Add, 1, &index, &f32s(&[10.0, 20.0, 30.0, 40.0], &[2, 2])).unwrap();
    assert_eq!(added.to_vec::<f32>().unwrap(), [21.0, 2.0, 13.0, 4.0, 75.0, 6.0]);
    let rows = x.permute(&[1, 0]).unwrap().index_select(0, &i64s(&[1, 1, 0], &[3])).unwrap();
    assert_eq!(rows.to_vec::<f32>().unwrap(), [2.0, 5.0, 2.0, 5.0, 1.0, 4.0]);
}

#[test]
fn an_index_out_of_range_is_an_error_and_leaves_everything_intact() {
    let x = f32s(&[1.0, 2.0], &[2]);
    let error = Err(Error::Index { op: "gather", index: 2, size: 2, called_at: None });
    assert_eq!(x.gather(0, &i64s(&[0, 2], &[2])).map(|_| ()), error.clone());
    // This index has no bounds before it is computed, so it is checked by the kernel.
    let index = f32s(&[0.0, 2.0], &[2]).cast(DType::I64).unwrap();
    let bad = x.gather(0, &index).unwrap();
    assert_eq!(bad.to_vec::<f32>().map(|_| ()), error.clone());
    assert_eq!(bad.to_vec::<f32>().map(|_| ()), error);
    assert_eq!(x.to_vec::<f32>().unwrap(), [1.0, 2.0]);
}

#[test]
fn empty_and_0_dim_arrays() {
    let device = Device::cpu();
    let empty = Array::from_slice::<f32>(&[], &[0, 3], &device).unwrap();
    assert_eq!(empty.unary(UnaryOp::Exp).unwrap().to_vec::<f32>().unwrap(), []);
    assert_eq!(empty.reduce(ReduceOp::Sum, &[0], false).unwrap().to_vec::<f32>().unwrap(), [0.0; 3]);
    assert!(matches!(empty.reduce(ReduceOp::Max, &[0], false), Err(Error::EmptyReduction { .. })));
    let product = f32s(&[], &[2, 0]).matmul(&empty).unwrap();
    assert_eq!(product.to_vec::<f32>().unwrap(), [0.0; 6]);
    let scalar = f32s(&[3.0], &[]);
    assert_eq!(scalar.binary(BinaryOp::Mul, &scalar).unwrap().item().unwrap(), Scalar::Float(9.0));
    let joined = Array::cat(&[empty, f32s(&[1.0, 2.0, 3.0], &[1, 3])], 0).unwrap();
    assert_eq!((joined.shape(), joined.to_vec::<f32>().unwrap()), (&[1, 3][..], vec![1.0, 2.0, 3.0]));
}

#[test]
fn bad_calls_are_typed_errors_at_their_own_line() {
    let x = f32s(&[0.0; 6], &[2, 3]);
    assert!(matches!(
        x.binary(BinaryOp::Add, &f32s(&[0.0; 4], &[2, 2])),
        Err(Error::ShapeMismatch { op: "add", .. })
    ));
    assert!(matches!(x.reshape(&[4]), Err(Error::ShapeMismatch { op: "reshape", .. })));
    assert!(matches!(x.permute(&[0, 0]), Err(Error::DuplicateDim { .. })));
    assert!(matches!(x.slice(1, 2, 2, 1), Err(Error::Index { index: 3, size: 3, .. })));
    assert!(matches!(x.matmul(&x), Err(Error::ShapeMismatch { op: "matmul", .. })));
    assert!(matches!(x.unary(UnaryOp::Not), Err(Error::DType { .. })));
    assert!(matches!(x.gather(0, &x), Err(Error::DType { .. })));
    assert!(matches!(x.to_vec::<i64>(), Err(Error::DType { .. })));
    assert!(matches!(x.item(), Err(Error::Shape { .. })));
    let huge = Array::full(&[usize::MAX, 3], 0.0, DType::F32, &Device::cpu());
    assert!(matches!(huge, Err(Error::SizeOverflow { .. })));
    assert!(matches!(x.strided(&[3, 3], &[3, 1], 0), Err(Error::Shape { .. })));
}
