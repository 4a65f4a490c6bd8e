//! The engine's clock as compiled code sees it: a count of ticks, in a memory that no code of the guest's own can name.
//!
//! ```text
//!   base     4        64 KiB                    reserved         guard
//!   |- count -|- zero --|----------- never ---------------------------|
//! ```

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use wasmtime::LinearMemory;

use crate::guest_module::WASM_PAGE;

/// The count of ticks, mapped once for all instances of an engine.
pub(crate) struct Ticks {
    base: NonNull<u8>,
    reserved: usize,
    /// All of the address space taken, guard included.
    total: usize,
}

// SAFETY: the mapping belongs to the value, and is reached through atomics alone.
unsafe impl Send for Ticks {}
// SAFETY: as above.
unsafe impl Sync for Ticks {}

impl Ticks {
    /// A count of 0, as a memory with `reserved` bytes of address space and `guard` bytes behind it.
    pub(crate) fn new(reserved: usize, guard: usize) -> io::Result<Self> {
        let total = reserved + guard;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
        let base =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), total, ProtFlags::empty(), flags)? };
        // From here on, dropping `ticks` unmaps.
        let ticks = Self {
            base: NonNull::new(base.cast()).expect("mmap does not return null"),
            reserved,
            total,
        };
        // SAFETY: the first page of our own reservation, to which nothing refers yet.
        unsafe { rustix::mm::mprotect(base, WASM_PAGE, MprotectFlags::READ | MprotectFlags::WRITE)? };
        Ok(ticks)
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: `base` is page-aligned and a page from it is mapped as long as `self` lives. It is written through this
        // atomic alone; compiled code only reads it, in one piece.
        unsafe { self.base.cast().as_ref() }
    }

    /// The count. Compiled code that has not seen it yet calls `tick`.
    pub(crate) fn count(&self) -> u32 {
        self.word().load(Ordering::Relaxed)
    }

    /// Counts one more. Wraps around.
    pub(crate) fn advance(&self) {
        self.word().fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        // SAFETY: `total` bytes from `base` were mapped in `new`; every memory over them holds an `Arc` of this.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.total) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

/// The count as one instance's second memory.
pub(crate) struct TickMemory(pub(crate) Arc<Ticks>);

// SAFETY: `as_ptr` never changes; one page from it is mapped, and `Ticks` keeps the rest of the reservation and the
// guard inaccessible. All instances have the same page: their code does not write to it (`guest_module` takes no module
// that names a second memory, and `checks` adds nothing but loads), and the host makes no reference to it through
// wasmtime.
unsafe impl LinearMemory for TickMemory {
    fn byte_size(&self) -> usize {
        WASM_PAGE
    }

    fn byte_capacity(&self) -> usize {
        self.0.reserved
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        wasmtime::ensure!(new_size <= WASM_PAGE, "the count of ticks does not grow");
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.base.as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_at_the_memorys_start() {
        let ticks = Arc::new(Ticks::new(16 * WASM_PAGE, WASM_PAGE).expect("ticks"));
        ticks.advance();
        ticks.advance();
        assert_eq!(ticks.count(), 2);
        // SAFETY: the first word of a mapped page, which nobody writes now.
        assert_eq!(unsafe { TickMemory(ticks).as_ptr().cast::<u32>().read() }, 2);
    }
}
