//! Images of linear memory: what instances are made from, and what they go back to.
//!
//! ```text
//!   image (a file)     |aaaa|bbbb|    |cccc|            holes are zero and take no room
//!                        |    |         |
//!   instance 1         |aaaa|BBBB|    |cccc|....        B: written, a page of its own; the rest is shared
//!   instance 2         |aaaa|bbbb|    |cccC|........    ....: grown beyond the image, its own
//! ```
//!
//! Instances map the image privately: reading shares its pages, the first write to a page copies it. The file is a sealed
//! memfd, or one of the [image cache](crate::image_cache), where the memory begins at an offset.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// Unit in which memory is shared, copied and compared: the system's page on x86-64, and a divisor of wasm's.
pub(crate) const PAGE: usize = 4096;

/// The memory of a guest at one moment. It cannot change any more.
///
/// While nobody looks at its bytes it is an open file and nothing else: an app without instances has no mapping.
pub(crate) struct Image {
    file: OwnedFd,
    /// Where in the file the memory begins, on a page.
    offset: u64,
    length: usize,
    view: Mutex<Weak<View>>,
}

/// The bytes of an image, mapped for reading. All who look at an image at the same time share one.
pub(crate) struct View {
    bytes: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is only read, and belongs to the value until it is dropped.
unsafe impl Send for View {}
// SAFETY: as above; nobody writes it: a memfd is sealed against writing before it is mapped, and the maker of an image of
// another file answers for that.
unsafe impl Sync for View {}

impl Image {
    /// An image of `length` bytes, zero but for the parts given.
    pub(crate) fn of_parts<'a>(
        length: usize,
        parts: impl IntoIterator<Item = (usize, &'a [u8])>,
    ) -> io::Result<Self> {
        let file = File::from(rustix::fs::memfd_create(
            "wasgi-image",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?);
        file.set_len(length as u64)?;
        for (at, bytes) in parts {
            file.write_all_at(bytes, at as u64)?;
        }
        rustix::fs::fcntl_add_seals(
            &file,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
        )?;
        // SAFETY: the file has this length, and the seals keep it as it is.
        Ok(unsafe { Self::of_file(file.into(), 0, length) })
    }

    /// The image that a file holds from `offset` on.
    ///
    /// # Safety
    /// The file has `length` bytes from there, and nobody changes or cuts them as long as the image, a view of it or a
    /// memory made from it is alive.
    pub(crate) unsafe fn of_file(file: OwnedFd, offset: u64, length: usize) -> Self {
        Self {
            file,
            offset,
            length,
            view: Mutex::default(),
        }
    }

    /// An image of `memory`; pages that are zero are left out.
    pub(crate) fn of_memory(memory: &[u8]) -> io::Result<Self> {
        Self::of_parts(memory.len(), used_pages(memory))
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The image's bytes, for as long as somebody holds them.
    ///
    /// # Errors
    /// When they cannot be mapped.
    pub(crate) fn view(&self) -> io::Result<Arc<View>> {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = view.upgrade() {
            return Ok(view);
        }
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
        let bytes = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                self.length,
                ProtFlags::READ,
                MapFlags::SHARED,
                &self.file,
                self.offset,
            )?
        };
        let new = Arc::new(View {
            bytes: NonNull::new(bytes.cast()).expect("mmap does not return null"),
            length: self.length,
        });
        *view = Arc::downgrade(&new);
        Ok(new)
    }

    /// Maps the image at `at`, writable and private, in place of whatever was there.
    ///
    /// # Safety
    /// `at` is page-aligned, the [`len`](Self::len) bytes from there belong to the caller, and no reference to them is
    /// alive.
    pub(crate) unsafe fn map_at(&self, at: NonNull<u8>) -> io::Result<()> {
        // SAFETY: the caller owns the range, which is all that MAP_FIXED replaces.
        unsafe {
            rustix::mm::mmap(
                at.as_ptr().cast(),
                self.length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED,
                &self.file,
                self.offset,
            )?;
        }
        Ok(())
    }
}

/// The pages of `memory` that are not all zero, with their places.
pub(crate) fn used_pages(memory: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    const ZERO: [u8; PAGE] = [0; PAGE];
    let pages = memory.chunks(PAGE).enumerate();
    pages
        .filter(|(_, page)| *page != &ZERO[..page.len()])
        .map(|(index, page)| (index * PAGE, page))
}

impl Deref for View {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `bytes` maps `length` readable bytes until `self` is dropped, and nobody changes or cuts them: seals, or
        // whoever called `of_file`, see to that.
        unsafe { slice::from_raw_parts(self.bytes.as_ptr(), self.length) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the range was mapped in `Image::view`, and with `self` goes the last reference to it.
        let unmapped = unsafe { rustix::mm::munmap(self.bytes.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_holds_its_parts_and_zero_elsewhere() {
        let image = Image::of_parts(4 * PAGE, [(5, &b"hello"[..]), (3 * PAGE, b"x")]).expect("image");
        let bytes = image.view().expect("view");
        assert_eq!(&bytes[4..11], b"\0hello\0");
        assert_eq!(bytes[3 * PAGE], b'x');
        let copy = Image::of_memory(&bytes).expect("image");
        assert_eq!(copy.view().expect("view")[..], bytes[..]);
    }

    #[test]
    fn an_image_is_mapped_once_and_only_while_somebody_looks() {
        let image = Image::of_parts(PAGE, []).expect("image");
        let [a, b] = [(); 2].map(|()| image.view().expect("view"));
        assert!(Arc::ptr_eq(&a, &b));
        drop((a, b));
        assert_eq!(image.view.lock().expect("view").strong_count(), 0);
        assert_eq!(image.view().expect("again")[..], [0; PAGE]);
    }

    #[test]
    fn zero_pages_take_no_room() {
        let mut memory = vec![0; 1000 * PAGE];
        memory[700 * PAGE] = 1;
        let image = Image::of_memory(&memory).expect("image");
        let blocks = rustix::fs::fstat(&image.file).expect("fstat").st_blocks;
        assert_eq!(blocks as usize * 512, PAGE);
    }

    #[test]
    fn an_image_cannot_be_changed_through_its_file() {
        let image = Image::of_parts(PAGE, [(0, &b"x"[..])]).expect("image");
        let file = File::from(image.file.try_clone().expect("dup"));
        assert!(file.write_at(b"y", 0).is_err());
        assert!(file.set_len(0).is_err());
    }
}
