//! The L2-normalised vector that stands for a face.

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Narrowest and widest embeddings that the index can hold.
const WIDTHS: std::ops::RangeInclusive<usize> = 128..=1024;

/// An L2-normalised `f32` vector of 128 to 1,024 dimensions. Secret: zeroised on drop, never
/// printed.
///
/// ```
/// use assent::types::Embedding;
/// let e = Embedding::normalise(vec![2.0; 512])?;
/// assert!((e.cosine(&e).get() - 1.0).abs() < 1e-5);
/// # Ok::<(), assent::types::EmbeddingError>(())
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// Normalises `values` to length 1.
    ///
    /// # Errors
    /// A width outside 128 to 1,024, a value that is not finite, or a vector of length zero. The
    /// values are zeroised then too.
    pub fn normalise(mut values: Vec<f32>) -> Result<Self, EmbeddingError> {
        match norm(&values) {
            Ok(length) => {
                for v in &mut values {
                    // Narrowing is wanted: the quotient is at most 1 and f32 is the model's width.
                    #[expect(clippy::cast_possible_truncation, reason = "f32 is the model's type")]
                    {
                        *v = (f64::from(*v) / length) as f32;
                    }
                }
                Ok(Self(values))
            }
            Err(fault) => {
                values.zeroize();
                Err(fault)
            }
        }
    }

    /// The mean direction of `parts`: the template fused from several frames of one face.
    ///
    /// # Errors
    /// No parts, parts of different widths, or parts that cancel out.
    pub fn fuse(parts: &[Self]) -> Result<Self, EmbeddingError> {
        let width = parts.first().map_or(0, Self::width);
        let mut sum = vec![0.0_f32; width];
        for part in parts {
            if part.width() != width {
                sum.zeroize();
                return Err(EmbeddingError::Width { width: part.width() });
            }
            for (s, v) in sum.iter_mut().zip(&part.0) {
                *s += v;
            }
        }
        Self::normalise(sum)
    }

    /// Number of dimensions.
    #[must_use]
    pub fn width(&self) -> usize {
        self.0.len()
    }

    /// The plain values, for the index and for sealing. Callers copy them only into memory that
    /// is zeroised.
    #[must_use]
    pub fn expose(&self) -> &[f32] {
        &self.0
    }

    /// Cosine similarity; 0 for embeddings of different widths, which are never comparable.
    #[must_use]
    pub fn cosine(&self, other: &Self) -> Similarity {
        if self.width() != other.width() {
            return Similarity::new(0.0);
        }
        Similarity::new(self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum())
    }
}

impl std::fmt::Debug for Embedding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Embedding({} dimensions)", self.width())
    }
}

fn norm(values: &[f32]) -> Result<f64, EmbeddingError> {
    if !WIDTHS.contains(&values.len()) {
        return Err(EmbeddingError::Width { width: values.len() });
    }
    if values.iter().any(|v| !v.is_finite()) {
        return Err(EmbeddingError::NotFinite);
    }
    let square: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    if square < f64::from(f32::MIN_POSITIVE) {
        return Err(EmbeddingError::Zero);
    }
    Ok(square.sqrt())
}

/// Why a vector is no embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EmbeddingError {
    /// Too narrow, too wide, or not as wide as its companions.
    #[error("an embedding of {width} dimensions does not fit here")]
    Width {
        /// The width found.
        width: usize,
    },
    /// NaN or infinite.
    #[error("an embedding value is not a finite number")]
    NotFinite,
    /// No direction.
    #[error("the embedding has length zero")]
    Zero,
}

/// Cosine similarity, clamped to -1..=1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Similarity(f32);

impl Similarity {
    /// Clamps rounding noise away; NaN becomes -1, which matches nobody.
    #[must_use]
    pub fn new(value: f32) -> Self {
        if value.is_nan() { Self(-1.0) } else { Self(value.clamp(-1.0, 1.0)) }
    }

    /// The cosine.
    #[must_use]
    pub fn get(self) -> f32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_what_has_no_direction() {
        assert_eq!(Embedding::normalise(vec![0.0; 512]).unwrap_err(), EmbeddingError::Zero);
        assert_eq!(
            Embedding::normalise(vec![f32::NAN; 512]).unwrap_err(),
            EmbeddingError::NotFinite
        );
        assert_eq!(
            Embedding::normalise(vec![1.0; 3]).unwrap_err(),
            EmbeddingError::Width { width: 3 }
        );
    }

    #[test]
    fn huge_and_tiny_values_normalise_without_overflow() {
        for scale in [1e30_f32, 1e-15] {
            let e = Embedding::normalise(vec![scale; 512]).unwrap();
            assert!((e.cosine(&e).get() - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn fusing_gives_the_mean_direction() {
        let mut a = vec![0.0; 128];
        let mut b = a.clone();
        a[0] = 1.0;
        b[1] = 1.0;
        let parts = [Embedding::normalise(a).unwrap(), Embedding::normalise(b).unwrap()];
        let fused = Embedding::fuse(&parts).unwrap();
        assert!((fused.cosine(&parts[0]).get() - 0.5_f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn debug_tells_nothing_of_the_content() {
        let e = Embedding::normalise(vec![0.5; 128]).unwrap();
        assert_eq!(format!("{e:?}"), "Embedding(128 dimensions)");
    }
}
