//! Free blocks that a thread keeps for its next allocations.
//!
//! The C heap has two arenas here ([`super::gather`]), each with a lock that every block of more
//! than a kilobyte takes, and every smaller one of which a thread has none left. A holder of that
//! lock who loses its core makes all others wait for a slice of the scheduler. What a thread has
//! given back it takes from here, without a lock.
//!
//! # Invariants
//! - A block of a class has exactly its class's size, whatever was asked for: whoever takes it from
//!   here may be another than the one who gave it.
//! - A block is on one shelf, of one thread, or is somebody's.
//! - No thread keeps more than [`MOST_BYTES`], and none after its end.
//!
//! Thread locals in a global allocator: the standard library promises that they work since 1.93.
//! They lie on each thread's stack, C++ threads included: 12 KiB with [`PLACES`] as it is.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// What `malloc` aligns to: blocks that need more are not kept.
const ALIGN: usize = 16;
/// Up to here a class for each 16 bytes,
const FINE: usize = 1 << FINE_BITS;
const FINE_BITS: usize = 10;
/// from there on four for each doubling,
const STEPS: usize = 4;
/// up to here.
const LARGEST: usize = 64 << 10;
const FINE_CLASSES: usize = FINE / ALIGN;
const CLASSES: usize = FINE_CLASSES + (LARGEST.ilog2() as usize - FINE_BITS) * STEPS;
/// Blocks on one shelf.
const PLACES: usize = 16;
/// Bytes that one thread keeps.
const MOST_BYTES: usize = 1 << 20;

/// A size that blocks are rounded up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(usize);

impl Class {
    /// `None` for blocks that are not kept.
    pub(super) fn of(layout: Layout) -> Option<Self> {
        let size = layout.size();
        if layout.align() > ALIGN || size > LARGEST {
            return None;
        }
        if size <= FINE {
            return Some(Self(size.saturating_sub(1) / ALIGN));
        }
        // 2^bits < size <= 2^(bits + 1), and the step of it that reaches `size`.
        let bits = (size - 1).ilog2() as usize;
        let step = ((size - 1) >> (bits - 2)) - STEPS;
        Some(Self(FINE_CLASSES + (bits - FINE_BITS) * STEPS + step))
    }

    /// Bytes.
    fn size(self) -> usize {
        match self.0.checked_sub(FINE_CLASSES) {
            None => (self.0 + 1) * ALIGN,
            Some(above) => (STEPS + above % STEPS + 1) << (FINE_BITS - 2 + above / STEPS),
        }
    }

    fn layout(self) -> Layout {
        // SAFETY: the alignment is a power of two, and no class comes near `isize::MAX`.
        unsafe { Layout::from_size_align_unchecked(self.size(), ALIGN) }
    }

    /// A block of this class, from the shelf or new. Null where there is no memory.
    pub(super) fn take(self) -> *mut u8 {
        // During a thread's end there are no shelves any more.
        let kept = SHELVES.try_with(|shelves| shelves.take(self)).unwrap_or(ptr::null_mut());
        if !kept.is_null() {
            return kept;
        }
        // SAFETY: no class is empty.
        unsafe { System.alloc(self.layout()) }
    }

    /// Puts a block back.
    ///
    /// # Safety
    /// `block` came from [`Class::take`] of the same class, and nobody uses it any more.
    pub(super) unsafe fn give(self, block: *mut u8) {
        if !SHELVES.try_with(|shelves| shelves.put(self, block)).unwrap_or(false) {
            // SAFETY: by the caller's word it is a block of this class, and of nobody.
            unsafe { self.free(block) };
        }
    }

    /// # Safety
    /// As for [`Class::give`].
    unsafe fn free(self, block: *mut u8) {
        // SAFETY: each block of a class came from `System.alloc` with the class's layout.
        unsafe { System.dealloc(block, self.layout()) };
    }
}

/// Frees what this thread keeps.
pub(super) fn clear() {
    // Without shelves there is nothing on them.
    let _none = SHELVES.try_with(Shelves::clear);
}

thread_local! {
    static SHELVES: Shelves = const { Shelves::empty() };
}

struct Shelf {
    count: Cell<usize>,
    blocks: [Cell<*mut u8>; PLACES],
}

struct Shelves {
    bytes: Cell<usize>,
    shelves: [Shelf; CLASSES],
}

impl Shelf {
    const fn empty() -> Self {
        Self { count: Cell::new(0), blocks: [const { Cell::new(ptr::null_mut()) }; PLACES] }
    }
}

impl Shelves {
    const fn empty() -> Self {
        Self { bytes: Cell::new(0), shelves: [const { Shelf::empty() }; CLASSES] }
    }

    /// Null where there is none.
    fn take(&self, class: Class) -> *mut u8 {
        let own = &self.shelves[class.0];
        let Some(left) = own.count.get().checked_sub(1) else { return ptr::null_mut() };
        own.count.set(left);
        self.bytes.set(self.bytes.get() - class.size());
        own.blocks[left].get()
    }

    /// Whether it is kept. A thread that would keep too much starts anew: what it needed an hour
    /// ago does not stay on the shelves for good.
    fn put(&self, class: Class, block: *mut u8) -> bool {
        let own = &self.shelves[class.0];
        if own.count.get() == PLACES {
            return false;
        }
        if self.bytes.get() + class.size() > MOST_BYTES {
            self.clear();
        }
        let count = own.count.get();
        own.blocks[count].set(block);
        own.count.set(count + 1);
        self.bytes.set(self.bytes.get() + class.size());
        true
    }

    fn clear(&self) {
        for (class, own) in self.shelves.iter().enumerate() {
            for place in &own.blocks[..own.count.replace(0)] {
                // SAFETY: what is below the count of a shelf was put there as a block of its class,
                // and has not been taken since. With the count at zero nobody finds it again.
                unsafe { Class(class).free(place.get()) };
            }
        }
        self.bytes.set(0);
    }
}

impl Drop for Shelves {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(size: usize) -> Option<Class> {
        Class::of(Layout::from_size_align(size, 8).unwrap())
    }

    #[test]
    fn a_class_holds_what_it_is_for_and_wastes_at_most_a_fifth() {
        let mut seen = [false; CLASSES];
        for size in 1..=LARGEST {
            let class = class(size).unwrap();
            assert!(class.size() >= size, "{size}");
            assert!(class.size() < size + ALIGN || class.size() * 4 < size * 5, "{size}");
            assert!(class.size().is_multiple_of(ALIGN));
            seen[class.0] = true;
        }
        assert!(seen.iter().all(|seen| *seen), "a class for nothing");
        assert_eq!(class(LARGEST + 1), None);
        assert_eq!(Class::of(Layout::from_size_align(64, 32).unwrap()), None);
    }

    #[test]
    fn a_block_comes_back_to_the_thread_that_gave_it() {
        std::thread::spawn(|| {
            let two_kib = class(2_000).unwrap();
            let block = two_kib.take();
            // SAFETY: taken above, used by nobody, given once each time.
            unsafe { two_kib.give(block) };
            assert_eq!(class(2_048).unwrap().take(), block, "the same class");
            // SAFETY: as above.
            unsafe { two_kib.give(block) };
            assert_ne!(class(2_049).unwrap().take(), block, "another class");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_keeps_no_more_than_it_may() {
        std::thread::spawn(|| {
            let kept = || SHELVES.with(|shelves| shelves.bytes.get());
            let mut most = 0;
            for class in (0..CLASSES).map(Class) {
                let blocks: Vec<_> = (0..2 * PLACES).map(|_| class.take()).collect();
                for block in blocks {
                    // SAFETY: taken above, used by nobody, given once.
                    unsafe { class.give(block) };
                    most = most.max(kept());
                }
            }
            assert!((MOST_BYTES / 2..=MOST_BYTES).contains(&most), "{most}");
            SHELVES.with(Shelves::clear);
            assert_eq!(kept(), 0);
        })
        .join()
        .unwrap();
    }
}
