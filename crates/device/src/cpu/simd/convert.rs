//! Conversions between the elements of memory and the values of registers, and between register types.
#![allow(unsafe_code)]

use super::Raw;
use super::unary::map;
use crate::DType;
use crate::kernel::Ty;

#[inline(always)]
fn f16_to_f32(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7fff) << 13;
    let sign = u32::from(half & 0x8000) << 16;
    // Multiplying by a power of two moves the exponent's bias, and converts subnormal numbers correctly as
    // well.
    let scaled = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let bits = if half & 0x7c00 == 0x7c00 { magnitude | 0x7f80_0000 } else { scaled };
    f32::from_bits(bits | sign)
}

#[inline(always)]
fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Rounding to the nearest, ties to even: add just under half of the last place, and the last place's own
    // bit.
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + ((magnitude >> 13) & 1)) >> 13;
    // Subnormal halves have the last place of 0.5 in f32, so adding 0.5 rounds to it.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    let huge = if magnitude > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
    (sign | if magnitude >= (127 + 16) << 23 { huge } else { finite }) as u16
}

#[inline(always)]
fn bf16_to_f32(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

#[inline(always)]
fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    (if x.is_nan() { (bits >> 16) | 0x40 } else { rounded }) as u16
}

/// Rounds to odd: an inexact result has its last bit set. Rounding such a result to fewer bits gives the same
/// as rounding `x` once.
#[inline(always)]
fn to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    let back = f64::from(nearest);
    let bits = nearest.to_bits();
    let inexact = (back != x) & (bits & 1 == 0) & (nearest.abs() < f32::INFINITY);
    // Of the two f32 beside x, the one with the last bit set is taken.
    let away = (x.abs() > back.abs()) as u32;
    let odd = if away == 1 { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    if inexact { f32::from_bits(odd) } else { nearest }
}

/// The loop from the elements of a dtype to its register type; `None` if they have the same bits.
pub fn load(dtype: DType) -> Option<Raw> {
    match dtype {
        DType::Bool => Some(map!(Lean, u8 => u8, |x| u8::from(x != 0))),
        DType::U8 => Some(map!(Lean, u8 => i32, |x| i32::from(x))),
        DType::F16 => Some(map!(Lean, u16 => f32, |x| f16_to_f32(x))),
        DType::BF16 => Some(map!(Lean, u16 => f32, |x| bf16_to_f32(x))),
        DType::I32 | DType::I64 | DType::F32 | DType::F64 => None,
    }
}

/// The loop from a register type to the elements of its dtype; `None` if they have the same bits.
pub fn store(dtype: DType) -> Option<Raw> {
    match dtype {
        DType::U8 => Some(map!(Lean, i32 => u8, |x| x as u8)),
        DType::F16 => Some(map!(Lean, f32 => u16, |x| f32_to_f16(x))),
        DType::BF16 => Some(map!(Lean, f32 => u16, |x| f32_to_bf16(x))),
        DType::Bool | DType::I32 | DType::I64 | DType::F32 | DType::F64 => None,
    }
}

macro_rules! from_integer {
    ($from:ty, $to:expr) => {
        match $to {
            DType::Bool => map!(Lean, $from => u8, |x| u8::from(x != 0)),
            DType::U8 => map!(Lean, $from => i32, |x| i32::from(x as u8)),
            DType::I32 => map!(Lean, $from => i32, |x| x as i32),
            DType::I64 => map!(Lean, $from => i64, |x| x as i64),
            DType::F16 => map!(Lean, $from => f32, |x| f16_to_f32(f32_to_f16(to_odd(x as f64)))),
            DType::BF16 => map!(Lean, $from => f32, |x| bf16_to_f32(f32_to_bf16(to_odd(x as f64)))),
            DType::F32 => map!(Lean, $from => f32, |x| x as f32),
            DType::F64 => map!(Lean, $from => f64, |x| x as f64),
        }
    };
}

/// The loop of [`crate::kernel::Instr::Cast`].
pub fn cast(from: Ty, to: DType) -> Raw {
    match from {
        Ty::Bool => from_integer!(u8, to),
        Ty::U32 => from_integer!(u32, to),
        Ty::I32 => from_integer!(i32, to),
        Ty::I64 => from_integer!(i64, to),
        Ty::F32 => match to {
            DType::Bool => map!(Lean, f32 => u8, |x| u8::from(x != 0.0)),
            DType::U8 => map!(Lean, f32 => i32, |x| i32::from(x as i64 as u8)),
            DType::I32 => map!(Lean, f32 => i32, |x| x as i64 as i32),
            DType::I64 => map!(Lean, f32 => i64, |x| x as i64),
            DType::F16 => map!(Lean, f32 => f32, |x| f16_to_f32(f32_to_f16(x))),
            DType::BF16 => map!(Lean, f32 => f32, |x| bf16_to_f32(f32_to_bf16(x))),
            DType::F32 => map!(Lean, f32 => f32, |x| x),
            DType::F64 => map!(Lean, f32 => f64, |x| f64::from(x)),
        },
        Ty::F64 => match to {
            DType::Bool => map!(Lean, f64 => u8, |x| u8::from(x != 0.0)),
            DType::U8 => map!(Lean, f64 => i32, |x| i32::from(x as i64 as u8)),
            DType::I32 => map!(Lean, f64 => i32, |x| x as i64 as i32),
            DType::I64 => map!(Lean, f64 => i64, |x| x as i64),
            DType::F16 => map!(Lean, f64 => f32, |x| f16_to_f32(f32_to_f16(to_odd(x)))),
            DType::BF16 => map!(Lean, f64 => f32, |x| bf16_to_f32(f32_to_bf16(to_odd(x)))),
            DType::F32 => map!(Lean, f64 => f32, |x| x as f32),
            DType::F64 => map!(Lean, f64 => f64, |x| x),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn halves_convert_as_the_half_crate_does() {
        for bits in 0..=u16::MAX {
            let (a, b) = (f16_to_f32(bits), f16::from_bits(bits).to_f32_const());
            assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{bits:x}: {a} {b}");
            let (a, b) = (bf16_to_f32(bits), bf16::from_bits(bits).to_f32_const());
            assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{bits:x}: {a} {b}");
        }
        for bits in (0..=u32::MAX).step_by(4093).chain((0..=u32::MAX).step_by(0x1000)) {
            let x = f32::from_bits(bits);
            let (a, b) = (f16::from_bits(f32_to_f16(x)), f16::from_f32_const(x));
            assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{x}: {a} {b}");
            let (a, b) = (bf16::from_bits(f32_to_bf16(x)), bf16::from_f32_const(x));
            assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{x}: {a} {b}");
            // An f64 just beside an f32, which rounding twice would round wrongly: no neighbour of the result
            // may be nearer.
            let beside = f64::from_bits(f64::from(x).to_bits() ^ 1);
            if beside.is_nan() {
                continue;
            }
            let distance = |half: f64| (half - beside).abs();
            let found = f32_to_f16(to_odd(beside));
            if found & 0x7fff != 0 && (found + 1) & 0x7c00 != 0x7c00 {
                let value = |bits| distance(f16::from_bits(bits).to_f64_const());
                assert!(value(found) <= value(found + 1) && value(found) <= value(found - 1), "{beside}");
            }
            let found = f32_to_bf16(to_odd(beside));
            if found & 0x7fff != 0 && (found + 1) & 0x7f80 != 0x7f80 {
                let value = |bits| distance(bf16::from_bits(bits).to_f64_const());
                assert!(value(found) <= value(found + 1) && value(found) <= value(found - 1), "{beside}");
            }
        }
    }
}
