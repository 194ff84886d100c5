//! Dot products of a batch with AMX: 16 rows by 16 probes, 16,384 products an instruction.
//!
//! ```text
//! C[row][probe] += sum over 64 bytes of A[row][byte] * B[byte / 4][probe][byte % 4]
//! ```
//!
//! `tdpbusd` takes rows as they lie (A: 16 rows of 64 unsigned bytes) and probes packed by fours
//! (B: 16 [lines](Line)). Sums are 32 bits wide and do not saturate. For this there are no stable
//! intrinsics, so it is written in assembly.
//!
//! It is used where the processor and the operating system have it, the process was permitted to,
//! and it has just computed the right sums. Rows that fill no tile go through AVX-512, as do
//! panels that are not packed.
//!
//! # Invariants
//! - No tile is in use outside the one block of assembly, which begins by setting up all of them
//!   and ends by giving them up: no row and no probe stays behind in one.

#![expect(unsafe_code, reason = "assembly, and detection by system call and control register")]

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};

use super::panel::{Line, Panel};
use super::{MOST_PROBES, avx512, portable};

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile.
const TILE_BYTES: usize = 64;
/// Rows multiplied at once: two tiles, whose sums need not wait for each other.
const PAIR_ROWS: usize = 2 * TILE_ROWS;

/// Every row by every probe of a packed panel, all of one probe together.
///
/// # Safety
/// [`works`] has returned true, and the processor has AVX-512 VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn dots(rows: &[u8], lines: &[Line], probes: &[&[i8]], out: &mut [i32]) {
    let (stride, count) = (probes[0].len(), out.len() / probes.len());
    let pairs = rows.chunks_exact(PAIR_ROWS * stride);
    let rest = pairs.remainder().chunks_exact(stride);
    for (at, pair) in (0..).step_by(PAIR_ROWS).zip(pairs) {
        // SAFETY: by this function's contract.
        let sums = unsafe { multiply(pair, lines) };
        for (probe, out) in out.chunks_exact_mut(count).enumerate() {
            for (out, sums) in out[at..].iter_mut().zip(&sums) {
                *out = sums[probe];
            }
        }
    }
    for (at, row) in (count - rest.len()..).zip(rest) {
        for (probe, out) in probes.iter().zip(out.chunks_exact_mut(count)) {
            out[at] = avx512::dot(row, probe);
        }
    }
}

/// Memory operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All tiles as large as they get: 16 rows of 64 bytes.
static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The dot products of 32 rows with a packed panel.
///
/// # Safety
/// The processor has AMX for bytes, and the process may use it.
unsafe fn multiply(rows: &[u8], lines: &[Line]) -> [[i32; MOST_PROBES]; PAIR_ROWS] {
    const { assert!(size_of::<Line>() == TILE_BYTES) }
    let stride = rows.len() / PAIR_ROWS;
    let steps = stride / TILE_BYTES;
    assert!(steps > 0 && rows.len() == steps * TILE_BYTES * PAIR_ROWS);
    assert!(lines.len() == steps * TILE_ROWS);
    let (low_rows, high_rows) = rows.split_at(TILE_ROWS * stride);
    let mut sums = [[0; MOST_PROBES]; PAIR_ROWS];
    let (low_sums, high_sums) = sums.split_at_mut(TILE_ROWS);
    // SAFETY: the caller vouches for the instructions. `ldtilecfg` reads the 64 bytes of `CONFIG`,
    // which asks for what palette 1 has. Step `s` of `steps` loads bytes `64 * s..64 * s + 64` of
    // the 16 rows from `low_rows` and of the 16 from `high_rows`, which lie `stride` apart, and 16
    // lines of 64 bytes from `lines[16 * s..]`: as asserted, the last step ends where these slices
    // end. The stores fill 16 lines of 64 bytes each, all of `low_sums` and all of `high_sums`.
    // Nothing else is written but the registers named and the flags.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "2:",
            "tileloadd tmm2, [{low_rows} + {stride} * 1]",
            "tileloadd tmm3, [{high_rows} + {stride} * 1]",
            "tileloadd tmm4, [{lines} + {line} * 1]",
            "tdpbusd tmm0, tmm2, tmm4",
            "tdpbusd tmm1, tmm3, tmm4",
            "add {low_rows}, 64",
            "add {high_rows}, 64",
            "add {lines}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{low_sums} + {line} * 1], tmm0",
            "tilestored [{high_sums} + {line} * 1], tmm1",
            "tilerelease",
            config = in(reg) &raw const CONFIG,
            low_rows = inout(reg) low_rows.as_ptr() => _,
            high_rows = inout(reg) high_rows.as_ptr() => _,
            lines = inout(reg) lines.as_ptr() => _,
            steps = inout(reg) steps => _,
            stride = in(reg) stride,
            line = in(reg) TILE_BYTES,
            low_sums = in(reg) low_sums.as_mut_ptr(),
            high_sums = in(reg) high_sums.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    sums
}

/// Whether this process can use AMX for bytes, and gets right sums from it. The processor must
/// have what the AVX-512 kernel needs.
pub(super) fn works() -> bool {
    // SAFETY: the check runs only after the instructions and the permission were seen.
    is_present() && is_permitted() && unsafe { computes() }
}

/// Whether the processor has the instructions and the operating system saves the tiles.
fn is_present() -> bool {
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    // SAFETY: called only where the processor has `xsave`, and the operating system uses it.
    let state = || unsafe { saved_state() };
    is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("xsave")
        && __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8
        && state() & TILE_STATE == TILE_STATE
}

/// The state that the operating system saves, as bits of the control register XCR0.
#[target_feature(enable = "xsave")]
fn saved_state() -> u64 {
    // SAFETY: the register exists on every processor with `xsave`; AVX-512, seen before, implies
    // that the operating system has made it readable.
    unsafe { _xgetbv(0) }
}

/// Asks Linux for the tiles, which it hands out a process at a time on request: threads have the
/// permission from then on. It refuses where a thread's signal stack is too small for them.
fn is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    if !cfg!(target_os = "linux") {
        return false;
    }
    let refusal: i64;
    // SAFETY: this call of x86-64 Linux reads and writes no memory of the process. The kernel
    // overwrites `rcx` and `r11`, and returns its answer in `rax`.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => refusal,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack, nomem),
        );
    }
    refusal == 0
}

/// Compares with the portable kernel, over rows that fill tiles and a row that does not.
///
/// # Safety
/// As for [`dots`], but for [`works`].
unsafe fn computes() -> bool {
    const ROWS: usize = PAIR_ROWS + 1;
    const STRIDE: usize = 3 * TILE_BYTES;
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    let rows: Vec<u8> = (0..ROWS * STRIDE).map(|_| byte()).collect();
    let probes: Vec<i8> = (0..MOST_PROBES * STRIDE).map(|_| byte().cast_signed()).collect();
    let probes: Vec<&[i8]> = probes.chunks_exact(STRIDE).collect();
    let panel = Panel::new(&probes).packed();
    let (mut sums, mut expected) = ([0; ROWS * MOST_PROBES], [0; ROWS * MOST_PROBES]);
    let Some(lines) = panel.lines() else { return false };
    // SAFETY: by this function's contract.
    unsafe { dots(&rows, lines, &probes, &mut sums) };
    portable::dots(&rows, STRIDE, &probes, &mut expected);
    sums == expected
}
