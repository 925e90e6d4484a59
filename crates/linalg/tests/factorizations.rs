//! The factorizations are checked by their definitions, on matrices of many shapes, including singular ones
//! and ones that are not finite.

#![allow(missing_docs)]

use wgrad_linalg::{Lu, Matrix, Triangle, Vectors, cholesky, cofactor, eigh, qr, solve_triangular, svd};

fn matrix(data: &[f64], rows: usize, columns: usize) -> Matrix<'_> {
    Matrix::new(data, rows, columns).expect("as many elements as rows and columns say")
}

/// Pseudo-random numbers in -1..1.
fn numbers(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn product(a: &[f64], b: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            out[i * n + j] = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
        }
    }
    out
}

fn transposed(a: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..rows * columns).map(|i| a[(i % rows) * columns + i / rows]).collect()
}

fn close(a: &[f64], b: &[f64], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < 1e-10 * (1.0 + b.abs()), "{what}: {a} instead of {b}");
    }
}

fn eye(n: usize) -> Vec<f64> {
    (0..n * n).map(|i| if i % (n + 1) == 0 { 1.0 } else { 0.0 }).collect()
}

/// The determinant by Laplace expansion along the first row.
fn determinant(a: &[f64], n: usize) -> f64 {
    if n == 0 {
        return 1.0;
    }
    (0..n).map(|j| a[j] * (1.0 - 2.0 * (j % 2) as f64) * determinant(&minor(a, n, 0, j), n - 1)).sum()
}

fn minor(a: &[f64], n: usize, row: usize, column: usize) -> Vec<f64> {
    (0..n * n).filter(|i| i / n != row && i % n != column).map(|i| a[i]).collect()
}

#[test]
fn lu_solves_and_has_the_determinant() {
    for n in [0, 1, 2, 3, 5, 6] {
        let (a, b) = (numbers(n * n, 1 + n as u64), numbers(n * 2, 9));
        let lu = Lu::new(matrix(&a, n, n));
        assert_eq!(lu.zero_pivot(), None);
        close(&product(&a, &lu.solve(matrix(&b, n, 2)), [n, n, 2]), &b, "A X");
        close(&[lu.determinant()], &[determinant(&a, n)], "determinant");
        let (sign, log) = lu.sign_and_log();
        close(&[sign * log.exp()], &[lu.determinant()], "sign and log");
    }
    let (n, a) = (40, numbers(1600, 4));
    let b = numbers(n, 5);
    close(&product(&a, &Lu::new(matrix(&a, n, n)).solve(matrix(&b, n, 1)), [n, n, 1]), &b, "A x");
}

#[test]
fn singular_matrices_are_known() {
    let singular: [&[f64]; 4] = [
        &[0.0; 9],
        &[0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 3.0],
        &[1.0, 2.0, 3.0, 2.0, 4.0, 6.0, 1.0, 1.0, 1.0],
        &[1.0, 0.0, 1.0, 2.0, 0.0, 5.0, 3.0, 0.0, 9.0],
    ];
    for a in singular {
        let lu = Lu::new(matrix(a, 3, 3));
        assert!(lu.zero_pivot().is_some(), "{a:?}");
        assert_eq!(lu.determinant(), 0.0);
        assert_eq!(lu.sign_and_log(), (0.0, f64::NEG_INFINITY));
        assert!(lu.solve(matrix(&[1.0; 3], 3, 1)).iter().all(|x| x.is_nan()));
    }
}

#[test]
fn cofactors_at_any_rank() {
    let n = 4;
    for rank in 0..=n {
        let a = product(&numbers(n * rank, 2), &numbers(rank * n, 3), [n, rank, n]);
        let sign = |i: usize| 1.0 - 2.0 * ((i / n + i % n) % 2) as f64;
        let expected: Vec<f64> =
            (0..n * n).map(|i| sign(i) * determinant(&minor(&a, n, i / n, i % n), n - 1)).collect();
        close(&cofactor(matrix(&a, n, n)), &expected, &format!("rank {rank}"));
    }
    assert!(cofactor(matrix(&[], 0, 0)).is_empty());
    assert_eq!(cofactor(matrix(&[0.0], 1, 1)), [1.0]);
}

#[test]
fn cholesky_reads_one_triangle() {
    for n in [0, 1, 3, 20] {
        let x = numbers(n * n, 7);
        let mut a = product(&x, &transposed(&x, n, n), [n, n, n]);
        a.iter_mut().step_by(n + 1).for_each(|d| *d += 1.0);
        for triangle in [Triangle::Lower, Triangle::Upper] {
            let mut half = a.clone();
            for i in 0..n {
                for j in 0..i {
                    half[if triangle == Triangle::Lower { j * n + i } else { i * n + j }] = f64::NAN;
                }
            }
            let factor = cholesky(matrix(&half, n, n), triangle).expect("positive definite");
            let other = transposed(&factor, n, n);
            let (l, u) = if triangle == Triangle::Lower { (&factor, &other) } else { (&other, &factor) };
            close(&product(l, u, [n, n, n]), &a, "L Lᵀ");
            assert!((0..n).all(|i| (i + 1..n).all(|j| l[i * n + j] == 0.0)));
        }
    }
    assert_eq!(cholesky(matrix(&[1.0, 2.0, 2.0, 1.0], 2, 2), Triangle::Lower), Err(2));
    assert_eq!(cholesky(matrix(&[f64::NAN; 4], 2, 2), Triangle::Lower), Err(1));
}

#[test]
fn triangular_systems() {
    let (n, k) = (5, 3);
    let b = numbers(n * k, 3);
    for triangle in [Triangle::Lower, Triangle::Upper] {
        for unit in [false, true] {
            let mut a = numbers(n * n, 8);
            a.iter_mut().step_by(n + 1).for_each(|d| *d += 2.0);
            let x = solve_triangular(matrix(&a, n, n), matrix(&b, n, k), triangle, unit);
            for (i, element) in a.iter_mut().enumerate() {
                let (row, column) = (i / n, i % n);
                let kept = if triangle == Triangle::Lower { column <= row } else { column >= row };
                if row == column && unit {
                    *element = 1.0;
                } else if !kept {
                    *element = 0.0;
                }
            }
            close(&product(&a, &x, [n, n, k]), &b, "A X");
        }
    }
}

#[test]
fn qr_of_every_shape() {
    for (m, n) in [(0, 0), (0, 3), (3, 0), (1, 1), (4, 4), (6, 3), (3, 6), (40, 25)] {
        let a = numbers(m * n, 11);
        for columns in [m.min(n), m] {
            let (q, r) = qr(matrix(&a, m, n), columns);
            close(&product(&q, &r, [m, columns, n]), &a, "Q R");
            close(&product(&transposed(&q, m, columns), &q, [columns, m, columns]), &eye(columns), "QᵀQ");
            assert!((0..columns).all(|i| (0..n.min(i)).all(|j| r[i * n + j] == 0.0)));
        }
    }
    // LAPACK's reflection changes the sign of the diagonal element. There is no reflection if the elements
    // below it are 0 already.
    let (_, r) = qr(matrix(&[3.0, 0.0, 4.0, -2.0], 2, 2), 2);
    close(&r, &[-5.0, 1.6, 0.0, -1.2], "R");
    let (q, r) = qr(matrix(&[f64::NAN, 1.0, 2.0, 3.0], 2, 2), 2);
    assert!(q.iter().all(|x| x.is_nan()) && r[0].is_nan() && r[2] == 0.0);
}

#[test]
fn singular_values_of_every_shape() {
    for (m, n) in [(0, 0), (0, 3), (3, 0), (1, 1), (4, 4), (6, 3), (3, 6), (30, 20)] {
        let (a, k) = (numbers(m * n, 13), m.min(n));
        let values = svd(matrix(&a, m, n), Vectors::None).expect("finite").s;
        assert!(values.is_sorted_by(|a, b| a >= b) && values.iter().all(|s| *s >= 0.0));
        for (vectors, p, q) in [(Vectors::Thin, k, k), (Vectors::Full, m, n)] {
            let parts = svd(matrix(&a, m, n), vectors).expect("finite");
            close(&parts.s, &values, "singular values");
            close(&product(&transposed(&parts.u, m, p), &parts.u, [p, m, p]), &eye(p), "UᵀU");
            close(&product(&parts.vt, &transposed(&parts.vt, q, n), [q, n, q]), &eye(q), "VᵀV");
            let scaled: Vec<f64> =
                (0..m * k).map(|i| parts.u[i / k.max(1) * p + i % k] * values[i % k]).collect();
            close(&product(&scaled, &parts.vt[..k * n], [m, k, n]), &a, "U S Vᵀ");
        }
    }
    assert!(svd(matrix(&[f64::NAN, 1.0], 1, 2), Vectors::None).is_none());
    assert!(svd(matrix(&[f64::INFINITY, 1.0], 1, 2), Vectors::Full).is_none());
    let zero = svd(matrix(&[0.0; 4], 2, 2), Vectors::Full).expect("finite");
    assert_eq!(zero.s, [0.0, 0.0]);
}

#[test]
fn eigenvalues_of_one_triangle() {
    for n in [0, 1, 2, 5, 30] {
        let x = numbers(n * n, 17);
        for triangle in [Triangle::Lower, Triangle::Upper] {
            let place = |i: usize, j: usize| {
                let (low, high) = (i.min(j), i.max(j));
                if triangle == Triangle::Lower { high * n + low } else { low * n + high }
            };
            let a: Vec<f64> = (0..n * n).map(|i| x[place(i / n, i % n)]).collect();
            let (values, vectors) = eigh(matrix(&x, n, n), triangle, true).expect("it converges");
            close(&eigh(matrix(&x, n, n), triangle, false).expect("it converges").0, &values, "eigenvalues");
            assert!(values.is_sorted());
            let scaled: Vec<f64> = (0..n * n).map(|i| vectors[i] * values[i % n]).collect();
            close(&product(&a, &vectors, [n, n, n]), &scaled, "A V");
            close(&product(&transposed(&vectors, n, n), &vectors, [n, n, n]), &eye(n), "VᵀV");
        }
    }
    let (values, vectors) = eigh(matrix(&[f64::NAN; 4], 2, 2), Triangle::Lower, true).expect("no iteration");
    assert!(values.iter().chain(&vectors).all(|x| x.is_nan()));
    let lower = [1.0, f64::NAN, 0.5, 1.0];
    let (values, _) = eigh(matrix(&lower, 2, 2), Triangle::Lower, false).expect("it converges");
    close(&values, &[0.5, 1.5], "the other triangle is not read");
}
