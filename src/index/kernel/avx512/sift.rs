//! The sieve with AVX-512: eight rows a register, and no branch on which rows pass.
//!
//! The sixteen registers of a group's fronts stay loaded while all probes go over them. A 64-bit
//! lane holds rows `r`, `r + 8`, `r + 16` and `r + 24` in turn; their distances are shifted
//! together into its four 16-bit parts, so that one comparison judges 32 rows. Rows that pass are
//! compressed in a register and stored at the end of the probe's shortlist. A shortlist that is
//! long enough is settled eight rows at a time, in the same manner.
//!
//! # Invariants
//! - The rows of a shortlist and the eight entries that follow them are rows of the piece at hand.

#![expect(unsafe_code, reason = "vector loads and stores take raw pointers")]

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_add_epi16, _mm_loadu_si128, _mm_mask_cmple_epu16_mask,
    _mm_set1_epi16, _mm_unpacklo_epi64, _mm256_castsi256_si128, _mm256_loadu_si256,
    _mm512_add_epi16, _mm512_add_epi64, _mm512_broadcast_i64x4, _mm512_castsi256_si512,
    _mm512_castsi512_si256, _mm512_cvtepu16_epi64, _mm512_extracti64x4_epi64, _mm512_inserti64x4,
    _mm512_loadu_si512, _mm512_mask_cmple_epu16_mask, _mm512_maskz_compress_epi16,
    _mm512_maskz_compress_epi64, _mm512_or_si512, _mm512_permutex_epi64, _mm512_popcnt_epi64,
    _mm512_set1_epi16, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_shrdi_epi64,
    _mm512_shuffle_epi32, _mm512_slli_epi64, _mm512_storeu_si512, _mm512_xor_si512, _pdep_u32,
};
use std::mem::{MaybeUninit, offset_of};

use crate::index::kernel::MOST_PROBES;
use crate::index::kernel::prefetch::prefetch;
use crate::index::kernel::sketch::{
    GROUP_ROWS, GroupHalf, HALF_BYTES, HALF_WORDS, Run, Sifted, SketchProbe, cut16,
};

/// Rows of a group, as a step of row numbers.
const GROUP_ROW_STEP: i16 = 32;
/// Rows of a register.
const LANES: usize = 8;
/// Registers of one word of a group, and distances of a lane.
const PARTS: usize = GROUP_ROWS / LANES;
/// Bytes of a register, and of a cache line.
const LINE: usize = 64;
/// Groups in a piece: its rows have 16-bit numbers.
const PIECE_GROUPS: usize = (1 << 16) / GROUP_ROWS;
/// With so many probes nearly every line of the backs is wanted, and there is time to ask for
/// every line between probes; with fewer the processor's own prefetching of the fronts is faster.
const MANY_PROBES: usize = 5;
/// Groups ahead of the one at hand whose lines are asked for.
const AHEAD: usize = 4;
/// Registers of a shortlist ahead of the one at hand whose backs are asked for.
const EIGHTS_AHEAD: usize = 8;
/// A shortlist of this length is settled, with many probes ...
const ENOUGH_OF_MANY: usize = 256;
/// ... and with few, when rows of backs should seldom come among the fronts.
const ENOUGH_OF_FEW: usize = 512;
/// Room of a shortlist: the group that made it enough, and the zeros that follow the last entry.
const ROOM: usize = ENOUGH_OF_FEW + 2 * GROUP_ROWS;
/// Swaps the halves of a register's halves, in 64-bit parts.
const SWAP_PAIRS: i32 = 0b01_00_11_10;

/// The row in each 16-bit part of packed distances.
const PART_ROWS: [u16; GROUP_ROWS] = [
    0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27, 4, 12, 20, 28, 5, 13, 21, 29, 6, 14,
    22, 30, 7, 15, 23, 31,
];

/// Pushes the rows of `run` that are within both cuts of a probe, of which there are at most
/// [`MOST_PROBES`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,avx512vpopcntdq,bmi1,bmi2,popcnt")]
pub(in crate::index::kernel) fn sift(
    run: Run<'_>,
    probes: &[SketchProbe<'_>],
    sifted: &mut Vec<Sifted>,
) {
    let many = probes.len() >= MANY_PROBES;
    let enough = if many { ENOUGH_OF_MANY } else { ENOUGH_OF_FEW };
    let mut lists = Shortlists::new();
    for (first_row, piece) in run.pieces(PIECE_GROUPS) {
        let backs = piece.back_rows();
        let mut longest = 0;
        let mut rows = load_shorts(&PART_ROWS);
        for (group, (front, live)) in piece.fronts.iter().zip(piece.live).enumerate() {
            let next = (group + AHEAD).min(piece.live.len() - 1);
            let next = [&piece.fronts[next], &piece.backs[next]];
            let (words, live) = (load_front(front), in_part_order(*live));
            for (number, probe) in probes.iter().enumerate() {
                if many {
                    prefetch_share(next, number, probes.len());
                }
                let distances = distances(&words, probe.front());
                let cut = _mm512_set1_epi16(cut16(probe.front_cut).cast_signed());
                let passed = _mm512_mask_cmple_epu16_mask(live, distances, cut);
                longest = longest.max(lists.list(number).push(passed, rows, distances));
            }
            if longest >= enough {
                lists.settle(backs, probes, first_row, sifted);
                longest = 0;
            }
            rows = _mm512_add_epi16(rows, _mm512_set1_epi16(GROUP_ROW_STEP));
        }
        lists.settle(backs, probes, first_row, sifted);
    }
}

/// One of `shares` parts of the lines of two halves: all are asked for once all shares are.
#[inline]
fn prefetch_share(halves: [&GroupHalf; 2], share: usize, shares: usize) {
    for half in halves {
        for line in half.as_chunks::<LINE>().0.iter().skip(share).step_by(shares) {
            prefetch(line);
        }
    }
}

/// What all entries of a settled shortlist have in common, as the bits of a [`Sifted`].
fn tag(first_row: u32, number: usize) -> u64 {
    (number as u64) << 32 | u64::from(first_row)
}

/// Rows within the front cut of each probe, by their number in the piece, and their distances.
struct Shortlists {
    rows: [[MaybeUninit<u16>; ROOM]; MOST_PROBES],
    fronts: [[MaybeUninit<u16>; ROOM]; MOST_PROBES],
    lens: [usize; MOST_PROBES],
}

/// One of the shortlists. Its first `len` entries are written.
struct Shortlist<'a> {
    rows: &'a mut [MaybeUninit<u16>; ROOM],
    fronts: &'a mut [MaybeUninit<u16>; ROOM],
    len: &'a mut usize,
}

impl Shortlists {
    fn new() -> Self {
        #[expect(clippy::large_stack_arrays, reason = "40 KiB that are not written at the start")]
        let uninit = [[MaybeUninit::uninit(); ROOM]; MOST_PROBES];
        Self { rows: uninit, fronts: uninit, lens: [0; MOST_PROBES] }
    }

    #[inline]
    fn list(&mut self, number: usize) -> Shortlist<'_> {
        Shortlist {
            rows: &mut self.rows[number],
            fronts: &mut self.fronts[number],
            len: &mut self.lens[number],
        }
    }

    #[target_feature(
        enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,avx512vpopcntdq,bmi1,bmi2,popcnt"
    )]
    #[inline(never)]
    fn settle(
        &mut self,
        backs: &[[u8; HALF_BYTES]],
        probes: &[SketchProbe<'_>],
        first_row: u32,
        sifted: &mut Vec<Sifted>,
    ) {
        for (number, probe) in probes.iter().enumerate() {
            self.list(number).settle(backs, *probe, tag(first_row, number), sifted);
        }
    }
}

impl Shortlist<'_> {
    /// Adds the rows that passed, and writes zeros for the rest of 32 entries.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    #[inline]
    fn push(&mut self, passed: u32, rows: __m512i, distances: __m512i) -> usize {
        let at = *self.len..*self.len + GROUP_ROWS;
        store(&mut self.rows[at.clone()], _mm512_maskz_compress_epi16(passed, rows));
        store(&mut self.fronts[at], _mm512_maskz_compress_epi16(passed, distances));
        *self.len += passed.count_ones() as usize;
        *self.len
    }

    /// Pushes what is within the full cut, and empties the list.
    #[target_feature(
        enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,avx512vpopcntdq,bmi1,bmi2,popcnt"
    )]
    fn settle(
        &mut self,
        backs: &[[u8; HALF_BYTES]],
        probe: SketchProbe<'_>,
        tag: u64,
        sifted: &mut Vec<Sifted>,
    ) {
        self.push(0, _mm512_setzero_si512(), _mm512_setzero_si512());
        let end = *self.len + LANES;
        sifted.reserve(end);
        let back = _mm512_broadcast_i64x4(load_words(probe.back()));
        let cut = _mm_set1_epi16(cut16(probe.full_cut).cast_signed());
        let tag = _mm512_set1_epi64(tag.cast_signed());
        // SAFETY: the entries up to `len` were written by `push`, those up to `end` just now.
        let (rows, fronts) =
            unsafe { (self.rows[..end].assume_init_ref(), self.fronts[..end].assume_init_ref()) };
        let mut left = *self.len;
        let eights = rows.as_chunks::<LANES>().0;
        for (at, (rows, fronts)) in eights.iter().zip(fronts.as_chunks().0).enumerate() {
            for row in eights.get(at + EIGHTS_AHEAD).into_iter().flatten() {
                prefetch(&backs[usize::from(*row)]);
            }
            let lanes = low_lanes(left);
            left = left.saturating_sub(LANES);
            let full = _mm_add_epi16(load_eight(fronts), back_distances(backs, rows, back));
            let passed = _mm_mask_cmple_epu16_mask(lanes, full, cut);
            let row = _mm512_add_epi64(tag, _mm512_cvtepu16_epi64(load_eight(rows)));
            let distance = _mm512_slli_epi64::<48>(_mm512_cvtepu16_epi64(full));
            append(sifted, passed, _mm512_or_si512(row, distance));
        }
        *self.len = 0;
    }
}

/// A mask of the first `count` lanes, at most all.
#[expect(clippy::cast_possible_truncation, reason = "all eight lanes are eight ones")]
fn low_lanes(count: usize) -> u8 {
    ((1_u32 << count.min(LANES)) - 1) as u8
}

/// Live rows in the order of packed distances.
#[target_feature(enable = "bmi2")]
fn in_part_order(live: u32) -> u32 {
    const FIRST_PARTS: u32 = 0x1111_1111;
    let [a, b, c, d] = live.to_le_bytes().map(|eight| _pdep_u32(u32::from(eight), FIRST_PARTS));
    a | b << 1 | c << 2 | d << 3
}

/// Distances of 32 rows from a probe over the front, packed.
#[target_feature(enable = "avx512f,avx512vbmi2,avx512vpopcntdq")]
#[inline]
fn distances(words: &[[__m512i; PARTS]; HALF_WORDS], probe: &[u64; HALF_WORDS]) -> __m512i {
    let probe = [0, 1, 2, 3].map(|word| _mm512_set1_epi64(probe[word].cast_signed()));
    let apart = |word: usize, part: usize| {
        _mm512_popcnt_epi64(_mm512_xor_si512(words[word][part], probe[word]))
    };
    let mut packed = _mm512_setzero_si512();
    for part in 0..PARTS {
        let low = _mm512_add_epi64(apart(0, part), apart(1, part));
        let high = _mm512_add_epi64(apart(2, part), apart(3, part));
        packed = _mm512_shrdi_epi64::<16>(packed, _mm512_add_epi64(low, high));
    }
    packed
}

/// Distances of eight rows from a probe over the back: two rows a register, four registers packed
/// as in [`distances`], then the four words of a row summed.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,avx512vpopcntdq")]
#[inline]
fn back_distances(backs: &[[u8; HALF_BYTES]], rows: &[u16; LANES], probe: __m512i) -> __m128i {
    let back = |lane: usize| load_back(&backs[usize::from(rows[lane])]);
    let mut packed = _mm512_setzero_si512();
    for part in 0..PARTS {
        let low = _mm512_castsi256_si512(back(part));
        let pair = _mm512_inserti64x4::<1>(low, back(part + PARTS));
        let apart = _mm512_popcnt_epi64(_mm512_xor_si512(pair, probe));
        packed = _mm512_shrdi_epi64::<16>(packed, apart);
    }
    let two = _mm512_add_epi16(packed, _mm512_permutex_epi64::<SWAP_PAIRS>(packed));
    let four = _mm512_add_epi16(two, _mm512_shuffle_epi32::<SWAP_PAIRS>(two));
    _mm_unpacklo_epi64(
        _mm256_castsi256_si128(_mm512_castsi512_si256(four)),
        _mm256_castsi256_si128(_mm512_extracti64x4_epi64::<1>(four)),
    )
}

/// Appends the entries of the lanes in `passed`. The vector must have room for all eight.
#[target_feature(enable = "avx512f,popcnt")]
#[inline]
fn append(sifted: &mut Vec<Sifted>, passed: u8, entries: __m512i) {
    const {
        assert!(size_of::<Sifted>() == size_of::<u64>());
        assert!(offset_of!(Sifted, probe) == 4 && offset_of!(Sifted, distance) == 6);
    }
    let room = &mut sifted.spare_capacity_mut()[..LANES];
    let entries = _mm512_maskz_compress_epi64(passed, entries);
    // SAFETY: `room` is 64 writable bytes, and this store asks for no alignment. A `Sifted` is as
    // large as a lane and has no padding, and every value of its bits is one, so that the entries
    // counted here are written.
    unsafe {
        _mm512_storeu_si512(room.as_mut_ptr().cast(), entries);
        sifted.set_len(sifted.len() + passed.count_ones() as usize);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_front(front: &GroupHalf) -> [[__m512i; PARTS]; HALF_WORDS] {
    let mut words = [[_mm512_setzero_si512(); PARTS]; HALF_WORDS];
    for (register, line) in words.as_flattened_mut().iter_mut().zip(front.as_chunks::<LINE>().0) {
        // SAFETY: the line is 64 readable bytes, and this load asks for no alignment.
        *register = unsafe { _mm512_loadu_si512(line.as_ptr().cast()) };
    }
    words
}

#[target_feature(enable = "avx512f")]
fn load_back(row: &[u8; HALF_BYTES]) -> __m256i {
    // SAFETY: the row is 32 readable bytes, and this load asks for no alignment.
    unsafe { _mm256_loadu_si256(row.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn load_words(words: &[u64; HALF_WORDS]) -> __m256i {
    // SAFETY: the words are 32 readable bytes, and this load asks for no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn load_shorts(shorts: &[u16; GROUP_ROWS]) -> __m512i {
    // SAFETY: the array is 64 readable bytes, and this load asks for no alignment.
    unsafe { _mm512_loadu_si512(shorts.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn load_eight(shorts: &[u16; LANES]) -> __m128i {
    // SAFETY: the array is 16 readable bytes, and this load asks for no alignment.
    unsafe { _mm_loadu_si128(shorts.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn store(room: &mut [MaybeUninit<u16>], shorts: __m512i) {
    let room = &mut room[..GROUP_ROWS];
    // SAFETY: `room` is 64 writable bytes, and this store asks for no alignment.
    unsafe { _mm512_storeu_si512(room.as_mut_ptr().cast(), shorts) }
}
