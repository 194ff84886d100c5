//! The dot product of a row and a probe, once per instruction set.
//!
//! # Invariants
//! - All kernels return the same `i32` for the same input, whatever the input: none saturates.
//! - A [`Dot`] exists only for a kernel whose instructions this processor was seen to have.
//!
//! ```
//! use assent::index::Kernel;
//! let dot = Kernel::best();
//! assert_eq!(dot.apply(&[255; 64], &[-127; 64]), -64 * 255 * 127);
//! ```

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dispatch;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use serde::{Deserialize, Serialize};

pub use self::dispatch::Dot;

/// A way to compute dot products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// AVX-512 with VNNI.
    Avx512Vnni,
    /// AVX2.
    Avx2,
    /// NEON.
    Neon,
    /// Plain Rust.
    Portable,
}

impl Kernel {
    /// All kernels, fastest first.
    pub const ALL: [Self; 4] = [Self::Avx512Vnni, Self::Avx2, Self::Neon, Self::Portable];

    /// The kernel's name, as in the settings and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// The kernel ready for use; `None` when this processor lacks its instructions.
    #[must_use]
    pub fn dot(self) -> Option<Dot> {
        Dot::detect(self)
    }

    /// The fastest kernel that this processor has.
    #[must_use]
    pub fn best() -> Dot {
        Self::ALL.into_iter().find_map(Self::dot).unwrap_or_else(Dot::portable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testkit::Random;

    fn check(row: &[u8], probe: &[i8]) {
        let expected: i32 = row.iter().zip(probe).map(|(r, p)| i32::from(*r) * i32::from(*p)).sum();
        for dot in Kernel::ALL.into_iter().filter_map(Kernel::dot) {
            let name = dot.kernel().name();
            assert_eq!(dot.apply(row, probe), expected, "{name}, {} bytes", row.len());
        }
    }

    #[test]
    fn all_kernels_agree_on_random_input_at_every_width() {
        let mut random = Random::new(7);
        for len in (64..=1024).step_by(64) {
            for _ in 0..50 {
                let row: Vec<u8> = (0..len).map(|_| random.byte()).collect();
                let probe: Vec<i8> = (0..len).map(|_| random.byte().cast_signed()).collect();
                check(&row, &probe);
            }
        }
    }

    #[test]
    fn no_kernel_saturates_on_extreme_input() {
        for len in (64..=1024).step_by(64) {
            for row in [0, 1, 127, 128, 255] {
                for probe in [-128, -127, -1, 0, 1, 127] {
                    check(&vec![row; len], &vec![probe; len]);
                }
            }
        }
    }

    #[test]
    fn names_are_what_the_settings_read() {
        for kernel in Kernel::ALL {
            let read: Kernel = serde_json::from_value(kernel.name().into()).unwrap();
            assert_eq!(read, kernel);
        }
    }
}
