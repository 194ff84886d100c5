//! hnsw_rs: HNSW over f32 in Rust, with its SIMD distances.

use hnsw_rs::prelude::{DistDot, Hnsw};

use crate::engine::{Engine, insert_all};
use crate::gallery::Gallery;
use crate::{Options, Outcome};

/// As its examples have it.
const LAYERS: usize = 16;

pub(crate) struct HnswRs {
    index: Hnsw<'static, f32, DistDot>,
}

impl HnswRs {
    pub(crate) fn build(gallery: &Gallery, options: &Options) -> Outcome<Self> {
        let Options { m, ef_construction, .. } = *options;
        let mut index = Hnsw::new(m, gallery.len(), LAYERS, ef_construction, DistDot);
        insert_all(gallery.len(), options.threads, |i| {
            index.insert_slice((gallery.template(i), i));
            Ok(())
        })?;
        index.set_searching_mode(true);
        Ok(Self { index })
    }
}

impl Engine for HnswRs {
    fn nearest(&self, probe: &[f32], ef: usize, _floor: f32) -> Outcome<Option<usize>> {
        Ok(self.index.search(probe, 1, ef).first().map(|found| found.d_id))
    }

    fn is_graph(&self) -> bool {
        true
    }
}
