//! The graph beside hnsw_rs, over the same people with the same settings.

use hnsw_rs::prelude::{DistDot, Hnsw};

use super::settings::GraphSettings;
use super::testkit::{Random, grant, now, settings, template};
use super::{Index, IndexSettings, Query};
use crate::types::{Embedding, Similarity};

const WIDTH: usize = 128;
const PEOPLE: usize = 3_000;
const LINKS: usize = 12;
const EFFORT: usize = 64;

/// Both graphs look for the same mates with the same `ef`.
#[test]
fn the_graph_finds_as_many_mates_as_hnsw_rs_and_the_same_ones() {
    let mut random = Random::new(91);
    let faces: Vec<Embedding> = (0..PEOPLE).map(|_| random.embedding(WIDTH)).collect();
    let peer = Hnsw::<f32, DistDot>::new(LINKS, PEOPLE, 16, EFFORT, DistDot {});
    let graph = GraphSettings { links: LINKS, effort: EFFORT };
    let index = Index::new(IndexSettings { graph: Some(graph), ..settings(WIDTH) }).unwrap();
    let mut rows = Vec::new();
    for (n, face) in faces.iter().enumerate() {
        peer.insert((face.expose(), n));
        rows.push(index.insert(template(u32::try_from(n).unwrap(), 0), face).unwrap().index);
    }
    for ef in [16, 64] {
        let (mut ours, mut theirs, mut both, mut total) = (0, 0, 0, 0);
        for (n, face) in faces.iter().enumerate().step_by(3) {
            let probe = random.near(face, 0.6);
            let query = Query { probe: &probe, k: 1, floor: Similarity::new(-1.0) };
            let found = index.search_graph(&grant([0]), &query, ef, now()).unwrap();
            let found = found.candidates.first().is_some_and(|best| best.slot().index == rows[n]);
            let peers = peer.search(probe.expose(), 1, ef);
            let theirs_found = peers.first().is_some_and(|best| best.d_id == n);
            ours += u32::from(found);
            theirs += u32::from(theirs_found);
            both += u32::from(found && theirs_found);
            total += 1;
        }
        // A graph's luck with a seed differs by a few of a thousand.
        assert!(ours + total / 50 >= theirs, "ef {ef}: {ours} and {theirs} of {total}");
        assert!(both * 10 >= theirs.min(ours) * 8, "ef {ef}: {both} of {theirs} in common");
    }
}
