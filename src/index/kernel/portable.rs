//! The dot product in plain Rust: what the other kernels are measured against.

/// `sum(row_i * probe_i)`.
pub(super) fn dot(row: &[u8], probe: &[i8]) -> i32 {
    row.iter().zip(probe).map(|(r, p)| i32::from(*r) * i32::from(*p)).sum()
}
