//! Where key bytes lie: a few pages apart from all other memory.
//!
//! ```text
//! slab     | slot 0 (32) | slot 1 (32) | ... | slot 2,047 (32) |     64 KiB, a mapping of its own
//! free     addresses of slots that hold nobody's key: kept on the heap, they say nothing
//! ```
//!
//! A slab is the strictest memory that the system gives, tried in this order:
//!
//! 1. `memfd_secret(2)`, Linux 5.14: pages that the kernel takes out of its own map of memory.
//!    Neither another process, nor root through `/proc/PID/mem`, nor a core dump reads them; they
//!    are locked in RAM.
//! 2. Ordinary pages, locked (`mlock`), out of core dumps and not inherited by forks.
//! 3. Ordinary pages out of core dumps: there was no right to lock. They may reach swap.
//!
//! Both kinds of locked memory count against `RLIMIT_MEMLOCK`: a hundred thousand keys are 3.2 MB.
//!
//! # Invariants
//! - A slot belongs to one [`Slot`] or is on the free list, never both.
//! - A slot on the free list is zero.
//! - Slabs are never unmapped, so that an address once handed out stays good for the life of the
//!   process; slots are used again.
//!
//! # Not here
//! What the bytes mean: `secret`. Copies that a cipher makes on its stack while it works.

#![expect(unsafe_code, reason = "secret memory is had by raw system calls")]

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::ftruncate;
use rustix::io;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous};
use zeroize::Zeroize;

use super::secret::KEY_BYTES;

/// Bytes of one slab: a whole number of pages on every Linux.
const SLAB_BYTES: usize = 64 << 10;

/// How key bytes are kept from the rest of the world; the weakest in use counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretMemoryKind {
    /// `memfd_secret`: out of reach of every other process and of the kernel's own map.
    MemfdSecret,
    /// Locked in RAM and out of dumps.
    Locked,
    /// Out of dumps only.
    Plain,
}

impl SecretMemoryKind {
    /// From the strictest.
    const ALL: [Self; 3] = [Self::MemfdSecret, Self::Locked, Self::Plain];

    /// The name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MemfdSecret => "memfd_secret",
            Self::Locked => "locked",
            Self::Plain => "plain",
        }
    }
}

impl fmt::Display for SecretMemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What keys lie in now: the weakest kind of memory that any slab had to take. Takes the first slab
/// when there is none.
#[must_use]
pub fn secret_memory_kind() -> SecretMemoryKind {
    let mut slabs = slabs();
    slabs.weakest.unwrap_or_else(|| slabs.grow())
}

/// Room for one key, zero at first, zeroised when dropped.
pub(super) struct Slot(NonNull<[u8; KEY_BYTES]>);

// SAFETY: a `Slot` owns its 32 bytes as a `Box` would: they are on no free list while it lives, and
// a mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Slot {}
// SAFETY: through `&Slot` the bytes can only be read; writing takes `&mut Slot`.
unsafe impl Sync for Slot {}

impl Slot {
    pub(super) fn zero() -> Self {
        let mut slabs = slabs();
        loop {
            if let Some(FreeSlot(start)) = slabs.free.pop() {
                return Self(start);
            }
            slabs.grow();
        }
    }
}

impl Deref for Slot {
    type Target = [u8; KEY_BYTES];

    fn deref(&self) -> &[u8; KEY_BYTES] {
        // SAFETY: the address is inside a slab, which is never unmapped, and 32 bytes apart from
        // every other slot's. It is zero or written since, bytes have no alignment, and `drop` and
        // `deref_mut` wait for this borrow of `self`.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8; KEY_BYTES] {
        // SAFETY: as in `deref`, and the exclusive borrow makes this the only reference.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.zeroize();
        slabs().free.push(FreeSlot(self.0));
    }
}

/// A slot that is zero and nobody's.
struct FreeSlot(NonNull<[u8; KEY_BYTES]>);

// SAFETY: a number until it becomes a `Slot` again; nobody reads or writes through it meanwhile.
unsafe impl Send for FreeSlot {}

struct Slabs {
    free: Vec<FreeSlot>,
    weakest: Option<SecretMemoryKind>,
}

/// Memory is the process's: keys of two stores in one process share it.
static SLABS: Mutex<Slabs> = Mutex::new(Slabs { free: Vec::new(), weakest: None });

/// The list is whole after every line of this file that holds the lock.
fn slabs() -> MutexGuard<'static, Slabs> {
    SLABS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slabs {
    /// Takes one more slab, of the strictest kind that there is; its kind.
    fn grow(&mut self) -> SecretMemoryKind {
        let (kind, start) = strictest();
        self.weakest = self.weakest.max(Some(kind));
        let slots = SLAB_BYTES / KEY_BYTES;
        // SAFETY: the mapping is `slots` times 32 bytes long, so that every offset is inside.
        let at = |n| FreeSlot(unsafe { start.cast::<[u8; KEY_BYTES]>().add(n) });
        // The lowest address is taken first.
        self.free.extend((0..slots).rev().map(at));
        kind
    }
}

fn strictest() -> (SecretMemoryKind, NonNull<u8>) {
    for kind in SecretMemoryKind::ALL {
        match map(kind) {
            Ok(start) => return (kind, start),
            Err(fault) => tracing::warn!(%kind, %fault, "keys cannot lie in such memory here"),
        }
    }
    handle_alloc_error(Layout::new::<[u8; SLAB_BYTES]>())
}

/// A new mapping of [`SLAB_BYTES`] zeros.
fn map(kind: SecretMemoryKind) -> io::Result<NonNull<u8>> {
    match kind {
        SecretMemoryKind::MemfdSecret => map_secret(),
        SecretMemoryKind::Locked => {
            let start = map_anonymous()?;
            // SAFETY: the range is our own mapping; locking changes residency, not contents. When
            // it fails the mapping is left unused: 64 KiB of address space, once.
            unsafe { mlock(start.as_ptr().cast(), SLAB_BYTES) }?;
            Ok(start)
        }
        SecretMemoryKind::Plain => map_anonymous(),
    }
}

fn map_secret() -> io::Result<NonNull<u8>> {
    // SAFETY: the call takes one integer and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(last_fault)?;
    // SAFETY: the kernel has just given this descriptor to us, and nobody else knows it.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    ftruncate(&file, SLAB_BYTES as u64)?;
    let (prot, null) = (ProtFlags::READ | ProtFlags::WRITE, std::ptr::null_mut());
    // SAFETY: a null hint without MAP_FIXED lets the kernel choose an unused range. The file is
    // closed when this returns and was never shared, so that nobody else can map or shorten it.
    let start = unsafe { mmap(null, SLAB_BYTES, prot, MapFlags::SHARED, &file, 0) }?;
    let start: NonNull<u8> = NonNull::new(start.cast()).ok_or(io::Errno::NOMEM)?;
    keep_from_children(start)?;
    Ok(start)
}

fn map_anonymous() -> io::Result<NonNull<u8>> {
    let (prot, null) = (ProtFlags::READ | ProtFlags::WRITE, std::ptr::null_mut());
    // SAFETY: a null hint without MAP_FIXED lets the kernel choose an unused range.
    let start = unsafe { mmap_anonymous(null, SLAB_BYTES, prot, MapFlags::PRIVATE) }?;
    let start: NonNull<u8> = NonNull::new(start.cast()).ok_or(io::Errno::NOMEM)?;
    // SAFETY: the range is our own mapping, and the advice does not touch its contents.
    unsafe { madvise(start.as_ptr().cast(), SLAB_BYTES, Advice::LinuxDontDump) }?;
    keep_from_children(start)?;
    Ok(start)
}

fn keep_from_children(start: NonNull<u8>) -> io::Result<()> {
    // SAFETY: the range is our own mapping, and the advice does not touch its contents in this
    // process. A forked child loses the range; the service never forks without exec, and exec
    // replaces all memory.
    unsafe { madvise(start.as_ptr().cast(), SLAB_BYTES, Advice::LinuxDontFork) }
}

fn last_fault() -> io::Errno {
    io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(io::Errno::NOSYS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    const MANY: usize = 100_000;

    #[test]
    fn a_hundred_thousand_keys_lie_apart_and_stay_what_they_are() {
        let fill = |n: usize| {
            let mut slot = Slot::zero();
            assert_eq!(*slot, [0; KEY_BYTES], "a new slot holds nothing of the last one");
            slot[..8].copy_from_slice(&n.to_le_bytes());
            slot[24..].copy_from_slice(&(!n).to_le_bytes());
            slot
        };
        let slots: Vec<Slot> = (0..MANY).map(fill).collect();
        let places: HashSet<usize> = slots.iter().map(|slot| slot.0.addr().get()).collect();
        assert_eq!(places.len(), MANY);
        for (n, slot) in slots.iter().enumerate() {
            assert_eq!(slot[..8], n.to_le_bytes());
            assert_eq!(slot[24..], (!n).to_le_bytes());
        }
    }

    #[test]
    fn every_kind_gives_zeros_that_can_be_written() {
        for kind in SecretMemoryKind::ALL {
            let Ok(start) = map(kind) else { continue }; // Not every system has every kind.
            // SAFETY: a mapping of this many bytes that only this test knows and never unmaps.
            let bytes = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), SLAB_BYTES) };
            assert!(bytes.iter().all(|byte| *byte == 0), "{kind}");
            bytes[SLAB_BYTES - 1] = 7;
            assert_eq!(bytes[SLAB_BYTES - 1], 7);
        }
    }

    /// The claim of the strictest kind, put to the kernel; with ordinary pages as control.
    #[test]
    fn secret_pages_are_not_read_from_outside() {
        let memory = File::open("/proc/self/mem").unwrap();
        let mut read = [0; 8];
        let plain = map(SecretMemoryKind::Plain).unwrap();
        memory.read_exact_at(&mut read, plain.addr().get() as u64).unwrap();
        if let Ok(secret) = map(SecretMemoryKind::MemfdSecret) {
            // SAFETY: as in the test above.
            unsafe { secret.as_ptr().write(7) };
            assert!(memory.read_exact_at(&mut read, secret.addr().get() as u64).is_err());
        }
    }

    #[test]
    fn the_weakest_kind_counts() {
        let order = SecretMemoryKind::ALL;
        assert!(order.is_sorted());
        assert!(order.contains(&secret_memory_kind()));
    }
}
