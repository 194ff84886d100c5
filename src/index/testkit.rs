//! Reproducible random people for the tests of the index.

use std::time::Duration;

use super::planner::{Rung, Tuning};
use super::{
    Found, GraphSettings, Index, IndexError, IndexSettings, NewTemplate, PlanSetting, Query,
    RotationKey, Way,
};
use crate::consent::{ClassKey, ConsentTag, Grant};
use crate::types::{ConsentId, Embedding, RecordId, Similarity, Timestamp};

/// The instant at which the tests live.
pub(super) const NOW_MS: i64 = 1_750_000_000_000;

pub(super) fn now() -> Timestamp {
    Timestamp::from_unix_ms(NOW_MS).unwrap()
}

pub(super) fn index(width: usize) -> Index {
    Index::new(settings(width)).unwrap()
}

/// The defaults, under a fixed key.
pub(super) fn settings(width: usize) -> IndexSettings {
    IndexSettings::new(width, rotation_key())
}

/// Every way, and the choice among them.
pub(super) const PLANS: [PlanSetting; 4] =
    [PlanSetting::Auto, PlanSetting::Exact, PlanSetting::Sketch, PlanSetting::Graph];

/// Every way, forced.
pub(super) const WAYS: [(PlanSetting, Way); 3] = [
    (PlanSetting::Exact, Way::Exact),
    (PlanSetting::Sketch, Way::Sketch),
    (PlanSetting::Graph, Way::Graph),
];

/// Whether a search went the way that it was forced to go.
pub(super) fn is_forced(plan: PlanSetting, found: &Found) -> bool {
    WAYS.contains(&(plan, found.way)) || plan == PlanSetting::Auto
}

/// An index that goes one way. Its graph has few links, so that lists overflow, and an `ef` that
/// small galleries do not exceed, so that it misses nobody.
pub(super) fn planned(width: usize, plan: PlanSetting) -> Index {
    let graph = GraphSettings { links: 4, effort: 32 };
    let settings = IndexSettings { plan, graph: Some(graph), canary_every: 7, ..settings(width) };
    let index = Index::new(settings).unwrap();
    let rung = Rung { ef: 512, recall: 1.0, cost: Duration::from_micros(1) };
    index.planner.tuned(Tuning::lasting(rung));
    index
}

impl Index {
    /// The invariants of all parts.
    pub(super) fn check(&self) {
        let state = self.state.read().unwrap();
        if let Some(graph) = &state.graph {
            graph.check(|row| state.catalogue.is_used(row)).unwrap();
        }
    }
}

/// The `k` best templates whatever their similarity.
pub(super) fn search(
    index: &Index,
    grant: &Grant,
    probe: &Embedding,
    k: usize,
    at: Timestamp,
) -> Result<Found, IndexError> {
    index.search(grant, &Query { probe, k, floor: Similarity::new(-1.0) }, at)
}

/// Class `n`: three controllers, each with many scopes.
pub(super) fn class(n: u32) -> ClassKey {
    ClassKey {
        controller: format!("controller-{}", n % 3).parse().unwrap(),
        purpose: "entry".parse().unwrap(),
        scope: format!("scope-{n}").parse().unwrap(),
    }
}

pub(super) fn grant(classes: impl IntoIterator<Item = u32>) -> Grant {
    Grant::for_tests(classes.into_iter().map(class).collect())
}

/// A template of subject `n` in class `c`, live for a day, under a consent named by its record.
pub(super) fn template(n: u32, c: u32) -> NewTemplate {
    let record = RecordId::random();
    NewTemplate {
        record,
        subject: format!("subject-{n}").parse().unwrap(),
        consent: ConsentTag {
            consent_id: consent_of(record),
            class: class(c),
            notice_version: "v1".parse().unwrap(),
            granted_at: now(),
            expires_at: now().plus_days(1),
        },
        matches_until: now().plus_days(1),
    }
}

pub(super) fn consent_of(record: RecordId) -> ConsentId {
    record.to_string().parse().unwrap()
}

/// SplitMix64 (Steele, Lea and Flood 2014): small, and good enough for tests.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        b ^ (b >> 31)
    }

    pub(super) fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound)).unwrap()
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// A random direction: every coordinate the sum of four uniform ones, near enough to normal.
    pub(super) fn embedding(&mut self, width: usize) -> Embedding {
        Embedding::normalise((0..width).map(|_| self.coordinate()).collect()).unwrap()
    }

    /// A random direction whose cosine with `other` is `cosine`.
    pub(super) fn near(&mut self, other: &Embedding, cosine: f32) -> Embedding {
        let random = self.embedding(other.width());
        let along = random.cosine(other).get();
        let (a, b) = (cosine, ((1.0 - cosine * cosine) / (1.0 - along * along)).sqrt());
        let mixed = random.expose().iter().zip(other.expose());
        Embedding::normalise(mixed.map(|(r, o)| b * (r - along * o) + a * o).collect()).unwrap()
    }

    fn coordinate(&mut self) -> f32 {
        self.next().to_le_bytes().chunks(2).map(|b| f32::from(b[0]) - 127.5).sum()
    }
}

/// A quantiser under a fixed key.
pub(super) fn quantiser(width: usize) -> super::quantise::Quantiser {
    super::quantise::Quantiser::new(width, rotation_key())
}

/// A fixed key.
pub(super) fn rotation_key() -> RotationKey {
    RotationKey::new(&[7; 32])
}
