//! Loops that move lanes (copies, broadcasts, gathers, selections), and those of random numbers.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use super::{Full, Lean, Plain, Raw, SimdArgs, SimdBody, SimdLevel, Versions, input, output};
use crate::normal::normal;
use crate::philox4x32_10;

/// Calls `$call` with `$t` being the unsigned integer of `$width` bytes.
macro_rules! by_width {
    ($width:expr, $t:ident => $call:expr) => {
        match $width {
            1 => {
                type $t = u8;
                $call
            }
            2 => {
                type $t = u16;
                $call
            }
            4 => {
                type $t = u32;
                $call
            }
            _ => {
                type $t = u64;
                $call
            }
        }
    };
}

/// `dst[i * dst_step] = src[i * src_step]` for i below n, in elements of `width` bytes.
///
/// # Safety
/// All these elements are valid, and those that are written overlap none that is read.
#[inline]
pub unsafe fn copy(dst: *mut u8, dst_step: isize, src: *const u8, src_step: isize, n: usize, width: usize) {
    // SAFETY: the caller promises that all elements are valid and do not overlap.
    unsafe {
        if dst_step == 1 && src_step == 1 {
            std::ptr::copy_nonoverlapping(src, dst, n * width);
            return;
        }
        by_width!(width, T => {
            let (dst, src) = (dst.cast::<T>(), src.cast::<T>());
            if src_step == 0 {
                let value = src.read();
                if dst_step == 1 {
                    std::slice::from_raw_parts_mut(dst.cast::<std::mem::MaybeUninit<T>>(), n)
                        .fill(std::mem::MaybeUninit::new(value));
                } else {
                    for i in 0..n as isize {
                        dst.offset(i * dst_step).write(value);
                    }
                }
            } else if dst_step == 1 {
                for i in 0..n as isize {
                    dst.offset(i).write(src.offset(i * src_step).read());
                }
            } else {
                for i in 0..n as isize {
                    dst.offset(i * dst_step).write(src.offset(i * src_step).read());
                }
            }
        });
    }
}

/// Copies a grid of elements, with a step from row to row and one from column to column on both sides. It
/// copies along rows or, where rows are short or a column's elements lie closer together, along columns.
///
/// # Safety
/// As [`copy`].
pub unsafe fn copy_grid(
    (dst, dst_row, dst_column): (*mut u8, isize, isize),
    (src, src_row, src_column): (*const u8, isize, isize),
    (rows, columns): (usize, usize),
    width: usize,
) {
    let (dst_bytes, src_bytes) = (dst_row * width as isize, src_row * width as isize);
    let closer = |row: isize, column: isize| row != 0 && row.abs() < column.abs();
    let along_columns = rows > 1
        && (closer(src_row, src_column) || closer(dst_row, dst_column) || (columns < rows && columns <= 8));
    // SAFETY: the caller promises that all elements are valid and do not overlap.
    unsafe {
        if along_columns {
            let (dst_step, src_step) = (dst_column * width as isize, src_column * width as isize);
            for i in 0..columns as isize {
                copy(dst.offset(i * dst_step), dst_row, src.offset(i * src_step), src_row, rows, width);
            }
        } else {
            for i in 0..rows as isize {
                let (dst, src) = (dst.offset(i * dst_bytes), src.offset(i * src_bytes));
                copy(dst, dst_column, src, src_column, columns, width);
            }
        }
    }
}

/// `dst[i] = src[offsets[i]]`, or 0 where the mask is 0.
///
/// # Safety
/// `dst` and the mask have as many lanes as `offsets`, and all offsets whose mask is not 0 address valid
/// elements.
pub unsafe fn gather(dst: *mut u8, src: *const u8, offsets: &[i64], mask: Option<&[u8]>, width: usize) {
    // SAFETY: the caller promises that all elements are valid and do not overlap.
    unsafe {
        by_width!(width, T => {
            let (dst, src) = (dst.cast::<T>(), src.cast::<T>());
            match mask {
                None => {
                    for (i, &offset) in offsets.iter().enumerate() {
                        dst.add(i).write(src.offset(offset as isize).read());
                    }
                }
                Some(mask) => {
                    for (i, (&offset, &inside)) in offsets.iter().zip(mask).enumerate() {
                        dst.add(i).write(if inside != 0 { src.offset(offset as isize).read() } else { 0 });
                    }
                }
            }
        });
    }
}

/// `dst[i] = if c[i] { a[i] } else { b[i] }`. `A` and `B` say which of the two have lanes; the other has one
/// value.
struct Select<T, const A: bool, const B: bool>(PhantomData<T>);

impl<T: Copy, const A: bool, const B: bool> SimdBody for Select<T, A, B> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        let n = args.n;
        // SAFETY: the caller promises n lanes, or one value for an operand without lanes.
        let (dst, a, b, c) = unsafe {
            (
                output::<T>(args.dst, n),
                input::<T>(args.a, if A { n } else { 1 }),
                input::<T>(args.b, if B { n } else { 1 }),
                input::<u8>(args.c, n),
            )
        };
        if A && B {
            for (((dst, &c), &a), &b) in dst.iter_mut().zip(c).zip(a).zip(b) {
                *dst = if c != 0 { a } else { b };
            }
        } else if A {
            let b = b[0];
            for ((dst, &c), &a) in dst.iter_mut().zip(c).zip(a) {
                *dst = if c != 0 { a } else { b };
            }
        } else if B {
            let a = a[0];
            for ((dst, &c), &b) in dst.iter_mut().zip(c).zip(b) {
                *dst = if c != 0 { a } else { b };
            }
        } else {
            let (a, b) = (a[0], b[0]);
            for (dst, &c) in dst.iter_mut().zip(c) {
                *dst = if c != 0 { a } else { b };
            }
        }
    }
}

/// The loops of a selection.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Both values have lanes.
    pub lanes: Raw,
    /// Only `a` has no lanes, only `b` has none, neither has. Without these forms, single numbers are
    /// broadcast to lanes first.
    pub single: Option<[Raw; 3]>,
}

/// The loops of a selection among values of this many bytes.
pub fn select(width: usize) -> Choice {
    match width {
        1 => Choice { lanes: Plain::pick::<Select<u8, true, true>>(), single: None },
        4 => Choice {
            lanes: Full::pick::<Select<u32, true, true>>(),
            single: Some([
                Full::pick::<Select<u32, false, true>>(),
                Full::pick::<Select<u32, true, false>>(),
                Full::pick::<Select<u32, false, false>>(),
            ]),
        },
        _ => Choice { lanes: Lean::pick::<Select<u64, true, true>>(), single: None },
    }
}

/// The random numbers that a block of four words of the generator gives: one for each of the four elements
/// that share the block.
trait Draw {
    type Lane: Copy + Default;
    /// The numbers of all four elements.
    fn all(words: [u32; 4]) -> [Self::Lane; 4];
    /// The number of element `index % 4`, computed without branches.
    fn one(words: [u32; 4], index: u32) -> Self::Lane;
}

/// Random bits: the words themselves.
struct RandomBits;

impl Draw for RandomBits {
    type Lane = u32;
    #[inline(always)]
    fn all(words: [u32; 4]) -> [u32; 4] {
        words
    }
    #[inline(always)]
    fn one(words: [u32; 4], index: u32) -> u32 {
        let [even, odd] = pair(words, index);
        if index & 1 != 0 { odd } else { even }
    }
}

/// Normal numbers, two from each pair of words.
struct Normals;

impl Draw for Normals {
    type Lane = f32;
    #[inline(always)]
    fn all([a, b, c, d]: [u32; 4]) -> [f32; 4] {
        [normal([a, b], 0), normal([a, b], 1), normal([c, d], 0), normal([c, d], 1)]
    }
    #[inline(always)]
    fn one(words: [u32; 4], index: u32) -> f32 {
        normal(pair(words, index), index & 1)
    }
}

/// The pair of words that contains word `index % 4`.
#[inline(always)]
fn pair(words: [u32; 4], index: u32) -> [u32; 2] {
    if index & 2 != 0 { [words[2], words[3]] } else { [words[0], words[1]] }
}

/// `dst[i]` is the number of element `a[i] % 4` in the generator's block at the counter `(a[i] / 4, 0, b[2],
/// b[3])` under the key `(b[0], b[1])`.
struct RandomBody<D>(PhantomData<D>);

/// The generator's block at a counter. This is a function because a closure with so many uses is not inlined,
/// and the loops then do not vectorise.
#[inline(always)]
fn block(words: [u32; 4], counter: u32) -> [u32; 4] {
    philox4x32_10([counter, 0, words[2], words[3]], [words[0], words[1]])
}

impl<D: Draw> SimdBody for RandomBody<D> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises n lanes of 32 bits at `dst` and `a`, and four words at `b`.
        let (dst, a, words) = unsafe {
            (output::<D::Lane>(args.dst, args.n), input::<u32>(args.a, args.n), input::<u32>(args.b, 4))
        };
        let words = [words[0], words[1], words[2], words[3]];
        let Some(&first) = a.first() else { return };
        let consecutive = a.iter().enumerate().all(|(i, &x)| x == first.wrapping_add(i as u32));
        if !consecutive {
            for (dst, a) in dst.chunks_mut(16).zip(a.chunks(16)) {
                let (mut indices, mut found) = ([0u32; 16], [D::Lane::default(); 16]);
                indices[..a.len()].copy_from_slice(a);
                for i in 0..16 {
                    found[i] = D::one(block(words, indices[i] / 4), indices[i]);
                }
                dst.copy_from_slice(&found[..a.len()]);
            }
            return;
        }
        // From the first index that is a multiple of four on, each block gives four consecutive elements.
        let head = (first.wrapping_neg() % 4) as usize;
        let (start, rest) = dst.split_at_mut(head.min(a.len()));
        for (dst, &x) in start.iter_mut().zip(a) {
            *dst = D::one(block(words, x / 4), x);
        }
        let counter = first.wrapping_add(head as u32) / 4;
        let whole = rest.len() / 4;
        for group in 0..whole.div_ceil(16) {
            let mut four = [[D::Lane::default(); 16]; 4];
            for i in 0..16 {
                // The counter is a quarter of an index that wraps at 2^32, so it wraps at 2^30.
                let words = block(words, counter.wrapping_add((group * 16 + i) as u32) & (u32::MAX >> 2));
                for (lane, drawn) in four.iter_mut().zip(D::all(words)) {
                    lane[i] = drawn;
                }
            }
            for (i, dst) in rest[group * 64..].chunks_exact_mut(4).take(16).enumerate() {
                for (dst, lane) in dst.iter_mut().zip(&four) {
                    *dst = lane[i];
                }
            }
        }
        let tail = rest.len() % 4;
        for (dst, &x) in rest[whole * 4..].iter_mut().zip(&a[a.len() - tail..]) {
            *dst = D::one(block(words, x / 4), x);
        }
    }
}

/// The loop of [`crate::kernel::Instr::Philox`].
pub fn random() -> Raw {
    Full::pick::<RandomBody<RandomBits>>()
}

/// The loop of [`crate::kernel::Instr::Normal`].
pub fn normals() -> Raw {
    Full::pick::<RandomBody<Normals>>()
}
