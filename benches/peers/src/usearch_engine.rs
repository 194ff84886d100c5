//! usearch (C++): HNSW over quantised vectors.

use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use crate::engine::{Engine, insert_all};
use crate::gallery::Gallery;
use crate::{Options, Outcome};

pub(crate) struct Usearch {
    index: Index,
}

impl Usearch {
    pub(crate) fn build(
        quantization: ScalarKind,
        gallery: &Gallery,
        options: &Options,
    ) -> Outcome<Self> {
        let index = Index::new(&IndexOptions {
            dimensions: gallery.width(),
            metric: MetricKind::Cos,
            quantization,
            connectivity: options.m,
            expansion_add: options.ef_construction,
            expansion_search: options.ef_construction,
            multi: false,
        })?;
        index.reserve_capacity_and_threads(gallery.len(), options.threads)?;
        insert_all(gallery.len(), options.threads, |i| {
            Ok(index.add(i as u64, gallery.template(i))?)
        })?;
        Ok(Self { index })
    }
}

impl Engine for Usearch {
    fn nearest(&self, probe: &[f32], ef: usize, _floor: f32) -> Outcome<Option<usize>> {
        self.index.change_expansion_search(ef);
        let found = self.index.search(probe, 1)?;
        Ok(found.keys.first().map(|key| usize::try_from(*key)).transpose()?)
    }

    fn is_graph(&self) -> bool {
        true
    }
}
