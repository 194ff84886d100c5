//! The kernels with AVX-512.

mod dot;
mod lean;
mod sift;

pub(super) use self::dot::{dot, dots};
pub(super) use self::lean::lean;
pub(super) use self::sift::sift;

/// Whether this processor has all instructions that the functions here are compiled for.
pub(super) fn is_here() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512vbmi2")
        && is_x86_feature_detected!("avx512vpopcntdq")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt")
}
