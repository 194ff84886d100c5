//! The program's allocator: what is freed is overwritten first, and kept for the thread's next
//! allocations or given back.
//!
//! Messages, frames, decoders' rows and vectors pass through buffers of many crates, and each of
//! them frees what it used. One place that all of them go through wipes it, whoever it belonged to.
//!
//! # Invariants
//! - Every byte that was allocated is zero before it goes on a shelf or back to the system's
//!   allocator.
//! - A block that grows or shrinks moves into a new one, and the old one is wiped: the system's
//!   own `realloc` may move a block and leave a copy where it was.
//!
//! # Not here
//! What is allocated still: a buffer that is kept for later holds what it held. Blocks of libraries
//! in other languages, which never pass here: see SECURITY.md. Stacks and registers.

#![expect(unsafe_code, reason = "an allocator deals in raw memory")]

mod segments;
mod shelf;

use std::alloc::{GlobalAlloc, Layout, System};

use self::shelf::Class;

/// The system's allocator, with a wipe before each free, and shelves before its locks. Blocks of
/// one may not be freed by the other. To be made the program's own by `#[global_allocator]`.
#[derive(Debug, Clone, Copy)]
pub struct WipingAllocator;

impl WipingAllocator {
    /// Gives a block back as it is: for a bench that measures what wiping costs.
    ///
    /// # Safety
    /// As for [`GlobalAlloc::dealloc`].
    #[doc(hidden)]
    pub unsafe fn give_back(&self, start: *mut u8, layout: Layout) {
        match Class::of(layout) {
            // SAFETY: by the caller's word `alloc` or `alloc_zeroed` took it from this class.
            Some(class) => unsafe { class.give(start) },
            // SAFETY: by the caller's word it came from there with this layout.
            None => unsafe { System.dealloc(start, layout) },
        }
    }
}

// SAFETY: a block of a class comes from the shelf of its class or from the system's allocator, with
// the class's layout, which is no smaller and aligns no less than what was asked for; it goes back
// the same way, for `Class::of` says the same of the same layout each time. All other blocks are
// the system allocator's from first to last. Before that, `dealloc` writes zeros to what the caller
// had of the block, when nobody else may touch it any more. No call here allocates from this
// allocator, panics or unwinds. `realloc` is the trait's own, made of `alloc`, a copy of the lesser
// size and `dealloc`.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Class::of(layout) {
            Some(class) => class.take(),
            // SAFETY: the caller keeps this trait's contract, which is the system allocator's too.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(class) = Class::of(layout) else {
            // SAFETY: as in `alloc`. The kernel's fresh pages are zero: no second pass over them.
            return unsafe { System.alloc_zeroed(layout) };
        };
        let start = class.take();
        if !start.is_null() {
            // SAFETY: a block of the class has at least as many bytes.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        start
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
        // SAFETY: the caller keeps the same contract.
        unsafe { self.give_back(start, layout) };
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

/// Gives back to the system what only loading needed: what the C heap holds free, a third of what
/// the process then holds, and pages of libraries. Free blocks that other threads keep stay.
pub fn trim() {
    shelf::clear();
    trim_heap();
    segments::let_go();
}

/// Gives back to the system what the C heap holds free. Whoever asks for memory meanwhile waits
/// for a millisecond or two.
pub fn trim_heap() {
    // SAFETY: the call takes no pointer and changes no block that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_on_the_shelf_holds_nothing_of_its_last_owner() {
        let layout = Layout::from_size_align(5_000, 8).unwrap();
        // SAFETY: a layout that is not empty; the block is filled before it is freed, once each
        // time, and what is read of it the second time are bytes that were written the first.
        unsafe {
            let start = WipingAllocator.alloc(layout);
            start.write_bytes(0xFA, 5_000);
            WipingAllocator.dealloc(start, layout);
            let again = WipingAllocator.alloc(layout);
            assert_eq!(again, start, "the thread's own shelf");
            assert!((0..5_000).all(|i| again.add(i).read() == 0));
            again.write_bytes(0xFA, 5_000);
            WipingAllocator.give_back(again, layout);
            let again = WipingAllocator.alloc(layout);
            assert!((0..5_000).all(|i| again.add(i).read() == 0xFA), "without the wipe it would");
            WipingAllocator.dealloc(again, layout);
        }
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_the_heap_holds_free_between_blocks_in_use_goes_back() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.trim_matches([' ', '\t', 'k', 'B']).parse::<usize>().unwrap()
        };
        // Tests beside this one may take as much meanwhile, but not each time.
        let gave_back = (0..10).any(|_| {
            let mut blocks: Vec<Vec<u8>> = (0..8_192).map(|_| vec![1; 16 << 10]).collect();
            let mut nth = 0..;
            blocks.retain(|_| nth.next().is_some_and(|n: usize| n.is_multiple_of(64)));
            let before = resident();
            trim_heap();
            let after = resident();
            assert!(blocks.iter().flatten().all(|byte| *byte == 1), "blocks in use stay");
            before.saturating_sub(after) > 64 << 10
        });
        assert!(gave_back);
    }

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
