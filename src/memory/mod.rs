//! The program's allocator: what is freed is overwritten first, and given back after the start.
//!
//! Messages, frames, decoders' rows and vectors pass through buffers of many crates, and each of
//! them frees what it used. One place that all of them go through wipes it, whoever it belonged to.
//!
//! # Invariants
//! - Every byte that was allocated is zero before it goes back to the system's allocator.
//! - A block that grows or shrinks moves into a new one, and the old one is wiped: the system's
//!   own `realloc` may move a block and leave a copy where it was.
//!
//! # Not here
//! What is allocated still: a buffer that is kept for later holds what it held. Blocks of libraries
//! in other languages, which never pass here: see SECURITY.md. Stacks and registers.

#![expect(unsafe_code, reason = "an allocator deals in raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, with a wipe before each free. To be made the program's own by
/// `#[global_allocator]`.
#[derive(Debug, Clone, Copy)]
pub struct WipingAllocator;

// SAFETY: blocks are the system allocator's from first to last. All that is added is a write of
// zeros to a whole block in `dealloc`, when nobody else may touch it any more; no call here
// allocates, panics or unwinds. `realloc` is the trait's own, made of `alloc`, a copy of the lesser
// size and `dealloc`.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps this trait's contract, which is the system allocator's too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`. The kernel's fresh pages are zero: no second pass over them.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller owns the block, of `layout.size()` bytes, and gives it up here, so
        // that nobody else reads or writes it.
        unsafe { start.write_bytes(0, layout.size()) };
        // SAFETY: the line above has initialised these very bytes, and the slice ends before the
        // block does. The barrier reads them, as far as the compiler knows: it cannot drop the
        // write before a free.
        zeroize::optimization_barrier(unsafe {
            std::slice::from_raw_parts(start.cast_const(), layout.size())
        });
        // SAFETY: `start` came from `alloc` or `alloc_zeroed` above with this layout.
        unsafe { System.dealloc(start, layout) };
    }
}

/// Keeps the C heap in two pieces, however many threads there are: each further one keeps tens of
/// megabytes of what models needed while they loaded. To be called before there are threads.
pub fn gather() {
    // SAFETY: the call sets one number of the C heap.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives back to the system what the C heap holds free. Loading models leaves a third of what the
/// process then holds as free pieces between live ones.
pub fn trim() {
    // SAFETY: the call takes no pointer and changes no block that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a block holds once it is free. Reading it then is what no program may do, so the block
    /// lies in a page that the test keeps: a bump allocator of one block would be another
    /// allocator. The forensics test looks at the real thing; here only that blocks stay whole.
    #[test]
    fn a_block_keeps_its_bytes_while_it_grows_and_shrinks() {
        let small = Layout::from_size_align(48, 16).unwrap();
        // SAFETY: a layout that is not empty; the block is checked, used within its size, and freed
        // once with the layout that it last had.
        unsafe {
            let start = WipingAllocator.alloc_zeroed(small);
            assert!(!start.is_null());
            for i in 0..48 {
                assert_eq!(start.add(i).read(), 0);
                start.add(i).write(u8::try_from(i).unwrap());
            }
            let grown = WipingAllocator.realloc(start, small, 100_000);
            assert!(!grown.is_null() && grown.addr().is_multiple_of(16));
            let large = Layout::from_size_align(100_000, 16).unwrap();
            let shrunk = WipingAllocator.realloc(grown, large, 20);
            assert!((0..20).all(|i| usize::from(shrunk.add(i).read()) == i));
            WipingAllocator.dealloc(shrunk, Layout::from_size_align(20, 16).unwrap());
        }
    }
}
