//! Linear memories made from images.
//!
//! ```text
//!   base                          size            mapped                    reserved         guard
//!   |------- the instance's ------|--- can grow ---|----- not yet mapped -----|---- never -----|
//! ```

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use crate::guest_module::WASM_PAGE;
use crate::image::Image;
use crate::ticks::{TickMemory, Ticks};

thread_local! {
    /// The image that the next memory made on this thread comes from: wasmtime's interface has no place for it.
    static NEXT: RefCell<Option<Arc<Image>>> = const { RefCell::new(None) };
}

/// Runs `make`, which instantiates a module, with its memory made from `image`.
pub(crate) async fn with_image<F: Future>(image: &Arc<Image>, make: F) -> F::Output {
    let mut make = pin!(make);
    poll_fn(|cx| {
        // Set around each poll alone: what else this thread polls must not see it.
        NEXT.set(Some(image.clone()));
        let polled = make.as_mut().poll(cx);
        NEXT.set(None);
        polled
    })
    .await
}

/// Address space of each memory: all that 32 bits can name, so that compiled code need not compare addresses.
pub(crate) const RESERVED: usize = 4 << 30;
/// Address space behind it, for what an instruction adds to its address.
pub(crate) const GUARD: usize = 32 << 20;

/// Makes linear memories for wasmtime: the guest's own from an image, and the one of a single page that `checks` adds
/// to its module, which is the same for all.
pub(crate) struct Memories(pub(crate) Arc<Ticks>);

// SAFETY: both kinds reserve what is asked for and its guard, and leave them inaccessible beyond their size.
// `ImageMemory` gives fresh memory the image's bytes, which for the first image of a module are what instantiation would
// have made of it: its data segments and zero. `TickMemory` is read by our own checks alone.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let reserved = reserved.ok_or("a memory without a reservation could move")?;
        if maximum == Some(WASM_PAGE) {
            if reserved > RESERVED || guard > GUARD {
                return Err("the count of ticks has less address space than is asked for".into());
            }
            return Ok(Box::new(TickMemory(self.0.clone())));
        }
        let image = NEXT.take().ok_or("a memory was made without an image")?;
        let memory = ImageMemory::new(&image, minimum, reserved, guard)
            .map_err(|error| format!("cannot map memory: {error}"))?;
        Ok(Box::new(memory))
    }
}

struct ImageMemory {
    base: NonNull<u8>,
    /// Bytes the guest may use now.
    size: usize,
    /// Bytes that are readable and writable, at least `size`.
    mapped: usize,
    reserved: usize,
    /// All of the address space taken, guard included.
    total: usize,
}

// SAFETY: the mapping belongs to the value; wasmtime orders access to it.
unsafe impl Send for ImageMemory {}
// SAFETY: `&self` methods only read the fields.
unsafe impl Sync for ImageMemory {}

impl ImageMemory {
    fn new(image: &Image, minimum: usize, reserved: usize, guard: usize) -> io::Result<Self> {
        if image.len() < minimum || image.len() > reserved {
            return Err(io::Error::other("the image does not fit the module"));
        }
        let total = reserved + guard;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
        let base =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), total, ProtFlags::empty(), flags)? };
        let base = NonNull::new(base.cast()).expect("mmap does not return null");
        // From here on, dropping `memory` unmaps.
        let memory = Self {
            base,
            size: minimum,
            mapped: image.len(),
            reserved,
            total,
        };
        // SAFETY: `base` is page-aligned as mmap gave it, and `image.len() <= reserved` bytes from it are ours alone.
        unsafe { image.map_at(base)? };
        Ok(memory)
    }
}

// SAFETY: `as_ptr` never changes, `byte_size` bytes from it are mapped, and `total` keeps the guard inaccessible.
unsafe impl LinearMemory for ImageMemory {
    fn byte_size(&self) -> usize {
        self.size
    }

    fn byte_capacity(&self) -> usize {
        self.reserved
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        wasmtime::ensure!(
            new_size <= self.reserved,
            "memory cannot grow past its reservation"
        );
        if new_size > self.mapped {
            // SAFETY: `mapped..new_size` lies in our reservation, and nothing refers to what was inaccessible.
            unsafe {
                let start = self.base.as_ptr().add(self.mapped);
                rustix::mm::mprotect(
                    start.cast(),
                    new_size - self.mapped,
                    MprotectFlags::READ | MprotectFlags::WRITE,
                )?;
            }
            self.mapped = new_size;
        }
        self.size = new_size;
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for ImageMemory {
    fn drop(&mut self) {
        // SAFETY: `total` bytes from `base` were mapped in `new`; wasmtime drops the memory after its last use.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.total) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::PAGE;

    /// What the first bytes of a memory hold.
    fn read(memory: &ImageMemory, at: usize) -> u8 {
        assert!(at < memory.size);
        // SAFETY: in bounds, and nothing writes meanwhile.
        unsafe { memory.as_ptr().add(at).read() }
    }

    fn write(memory: &ImageMemory, at: usize, value: u8) {
        assert!(at < memory.size);
        // SAFETY: in bounds, and the memory is ours.
        unsafe { memory.as_ptr().add(at).write(value) }
    }

    #[test]
    fn what_one_memory_writes_neither_its_image_nor_another_has() {
        let image = Image::of_parts(4 * PAGE, [(PAGE, &b"x"[..])]).expect("image");
        let [a, b] = [(); 2].map(|()| ImageMemory::new(&image, PAGE, 16 * PAGE, PAGE).expect("memory"));
        let (mut a, mut b) = (a, b);
        for memory in [&mut a, &mut b] {
            memory.grow_to(4 * PAGE).expect("grows");
        }
        write(&a, PAGE, b'y');
        assert_eq!(
            (read(&a, PAGE), read(&b, PAGE), image.view().expect("view")[PAGE]),
            (b'y', b'x', b'x')
        );
    }

    #[test]
    fn growth_is_zero_and_ends_at_the_reservation() {
        let image = Image::of_parts(PAGE, []).expect("image");
        let mut memory = ImageMemory::new(&image, PAGE, 4 * PAGE, PAGE).expect("memory");
        memory.grow_to(4 * PAGE).expect("grows");
        assert_eq!(read(&memory, 4 * PAGE - 1), 0);
        write(&memory, 4 * PAGE - 1, 1);
        assert!(memory.grow_to(5 * PAGE).is_err());
    }
}
