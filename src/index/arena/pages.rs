//! Memory pages that stay in RAM and out of dumps.
//!
//! # Invariants
//! - A mapping belongs to one [`Pages`]; its start and length never change.
//! - Its bytes are zeroised before they go back to the kernel.
//!
//! # Not here
//! What the bytes mean, and what to do when locking fails: that is the arena's affair.

#![expect(unsafe_code, reason = "mapping and locking memory is done by raw system calls")]

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use rustix::io;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use zeroize::Zeroize;

/// An anonymous private mapping, zero at first.
pub(super) struct Pages {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: `Pages` owns its mapping as a `Vec<u8>` owns its buffer: nothing else holds the address,
// and a mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Pages {}
// SAFETY: through `&Pages` the bytes can only be read; writing takes `&mut Pages`.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps `len` bytes, rounded up to whole pages by the kernel.
    pub(super) fn map(len: usize) -> io::Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a null hint without MAP_FIXED lets the kernel choose an unused range, so no
        // memory that Rust knows of is replaced.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), len, prot, MapFlags::PRIVATE) }?;
        NonNull::new(start.cast()).map(|start| Self { start, len }).ok_or(io::Errno::NOMEM)
    }

    /// Keeps the pages out of core dumps and child processes, and locks them in RAM.
    ///
    /// # Errors
    /// The first call that the kernel refused, for want of `RLIMIT_MEMLOCK` as a rule.
    pub(super) fn protect(&mut self) -> io::Result<()> {
        let start = self.start.as_ptr().cast();
        // Scans run through many megabytes: large pages spare them most of the address translation.
        // Not having them is no fault.
        // SAFETY: the range is our own mapping, and the advice changes how it is backed, not what
        // it holds.
        let _ordinary_pages = unsafe { madvise(start, self.len, Advice::LinuxHugepage) };
        for advice in [Advice::LinuxDontDump, Advice::LinuxDontFork] {
            // SAFETY: the range is our own mapping, and neither advice touches its contents in
            // this process. A forked child loses the range, but the service never forks without
            // exec, and exec replaces all memory.
            unsafe { madvise(start, self.len, advice) }?;
        }
        // SAFETY: the range is our own mapping; locking changes residency, not contents.
        unsafe { mlock(start, self.len) }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is readable, `len` bytes long, zero or written since, and lives as
        // long as `self`. The borrow of `self` keeps `deref_mut` and `drop` away meanwhile.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the exclusive borrow of `self` makes this the only slice.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.zeroize();
        // SAFETY: `start` and `len` are what `mmap` returned, and no slice of them outlives `self`.
        // A failure leaves zeroised pages mapped: a leak, never a dangling pointer.
        let _leaked = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags that the kernel reports for the mapping that holds `address`.
    fn kernel_flags(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|word| word.split_once('-'));
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) =
                    (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&address);
            } else if inside && line.starts_with("VmFlags:") {
                return line.to_owned();
            }
        }
        String::new()
    }

    #[test]
    fn the_kernel_confirms_locked_undumped_and_unforked_pages() {
        let mut pages = Pages::map(8192).unwrap();
        if pages.protect().is_err() {
            return; // No right to lock memory here: the arena's tests cover that side.
        }
        let flags = kernel_flags(pages.as_ptr().addr());
        for flag in ["lo", "dd", "dc"] {
            assert!(flags.split(' ').any(|f| f == flag), "{flag} is missing in {flags:?}");
        }
    }

    #[test]
    fn fresh_pages_are_zero_and_hold_what_is_written() {
        let mut pages = Pages::map(100).unwrap();
        assert!(pages.iter().all(|b| *b == 0));
        pages[99] = 7;
        assert_eq!(pages[99], 7);
    }
}
