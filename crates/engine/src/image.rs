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
//!
//! Much of what the guest's module brings is never written: its constants are in every app's memory at the same place. Such
//! rows of pages are holes in the app's file, and are mapped from the module's own image, which exists once.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
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
    base: Option<Base>,
    view: Mutex<Weak<View>>,
}

/// What an image has in common with another.
pub(crate) struct Base {
    pub(crate) image: Arc<Image>,
    /// The bytes, whole pages, that are taken from there, in order.
    pub(crate) rows: Vec<Range<usize>>,
}

/// Fewest pages of a row. Each row is a mapping of its own in each instance, of which a process may have some 65,000.
const ROW: usize = 16;

/// Most tries to seal an image; the kernel itself waits 75 ms in each.
const SEAL_TRIES: usize = 40;

/// Seals a file that nobody else knows. The kernel refuses to while anything holds one of its pages, itself included: one
/// that it is moving or reclaiming just then is held for a moment.
fn while_busy(mut seal: impl FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    for _ in 1..SEAL_TRIES {
        match seal() {
            Err(Errno::BUSY) => {}
            done => return done,
        }
    }
    seal()
}

/// Most rows of an image. The constants of the guest are one or two.
pub(crate) const MAX_ROWS: usize = 8;

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
        let mut memory = vec![0; length];
        for (at, bytes) in parts {
            let place = memory.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len()));
            place
                .ok_or_else(|| io::Error::other("a part lies outside the memory"))?
                .copy_from_slice(bytes);
        }
        Self::of_memory(&memory, None)
    }

    /// The image that a file holds from `offset` on, but for what it takes from a base.
    ///
    /// # Errors
    /// If the rows are not whole pages of both, one behind the other.
    ///
    /// # Safety
    /// The file has `length` bytes from there, and nobody changes or cuts them as long as the image, a view of it or a
    /// memory made from it is alive.
    pub(crate) unsafe fn of_file(
        file: OwnedFd,
        offset: u64,
        length: usize,
        base: Option<Base>,
    ) -> io::Result<Self> {
        if let Some(Base { image, rows }) = &base {
            let mut end = 0;
            for row in rows {
                if row.start < end || row.end <= row.start || row.start % PAGE != 0 || row.end % PAGE != 0 {
                    return Err(io::Error::other("its rows are not in order"));
                }
                end = row.end;
            }
            if end > length.min(image.length) {
                return Err(io::Error::other("a row lies outside"));
            }
        }
        Ok(Self {
            file,
            offset,
            length,
            base,
            view: Mutex::default(),
        })
    }

    /// An image of `memory`. Pages that are zero are left out, and so are rows of pages that are as in `base`.
    pub(crate) fn of_memory(memory: &[u8], base: Option<&Arc<Image>>) -> io::Result<Self> {
        let base = match base {
            None => None,
            Some(image) => {
                let rows = common_rows(memory, &image.view()?);
                Some(Base {
                    image: image.clone(),
                    rows,
                })
            }
        };
        let file = File::from(rustix::fs::memfd_create(
            "wasgi-image",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?);
        file.set_len(memory.len() as u64)?;
        let rows = base.as_ref().map_or(&[][..], |base| &base.rows);
        for (at, bytes) in used_parts(memory, rows) {
            file.write_all_at(bytes, at as u64)?;
        }
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        while_busy(|| rustix::fs::fcntl_add_seals(&file, seals))?;
        // SAFETY: the file has this length, and the seals keep it as it is.
        unsafe { Self::of_file(file.into(), 0, memory.len(), base) }
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
        let (length, null) = (self.length, std::ptr::null_mut());
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
        let bytes =
            unsafe { rustix::mm::mmap_anonymous(null, length, ProtFlags::empty(), MapFlags::PRIVATE)? };
        let new = Arc::new(View {
            bytes: NonNull::new(bytes.cast()).expect("mmap does not return null"),
            length: self.length,
        });
        // SAFETY: the range is `new`'s, and nobody has seen it yet.
        unsafe { self.map(new.bytes, ProtFlags::READ, MapFlags::SHARED)? };
        *view = Arc::downgrade(&new);
        Ok(new)
    }

    /// What of it is taken from another image.
    pub(crate) fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// Maps the image at `at`, writable and private, in place of whatever was there.
    ///
    /// # Safety
    /// `at` is page-aligned, the [`len`](Self::len) bytes from there belong to the caller, and no reference to them is
    /// alive.
    pub(crate) unsafe fn map_at(&self, at: NonNull<u8>) -> io::Result<()> {
        // SAFETY: what is asked of the caller.
        unsafe { self.map(at, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }
    }

    /// # Safety
    /// That of [`map_at`](Self::map_at).
    unsafe fn map(&self, at: NonNull<u8>, protection: ProtFlags, flags: MapFlags) -> io::Result<()> {
        let flags = flags | MapFlags::FIXED;
        // SAFETY: the caller owns the range, which is all that MAP_FIXED replaces.
        unsafe {
            let at = at.as_ptr().cast();
            rustix::mm::mmap(at, self.length, protection, flags, &self.file, self.offset)?;
        }
        let Some(Base { image, rows }) = &self.base else {
            return Ok(());
        };
        for row in rows {
            let offset = image.offset + row.start as u64;
            // SAFETY: `of_file` has seen that the row lies in this range, and in the base.
            unsafe {
                let at = at.as_ptr().add(row.start).cast();
                rustix::mm::mmap(at, row.len(), protection, flags, &image.file, offset)?;
            }
        }
        Ok(())
    }
}

/// The bytes of `memory` from page to page, as few pieces as possible, without pages that are zero and those of `rows`.
pub(crate) fn used_parts<'a>(
    memory: &'a [u8],
    rows: &'a [Range<usize>],
) -> impl Iterator<Item = (usize, &'a [u8])> {
    let mut pages = used_pages(memory)
        .filter(|(at, _)| !rows.iter().any(|row| row.contains(at)))
        .peekable();
    std::iter::from_fn(move || {
        let (start, page) = pages.next()?;
        let mut end = start + page.len();
        while let Some((_, page)) = pages.next_if(|(at, _)| *at == end) {
            end += page.len();
        }
        Some((start, &memory[start..end]))
    })
}

/// Where `memory` has rows of pages that are as in `base`, the longest ones, in their order.
fn common_rows(memory: &[u8], base: &[u8]) -> Vec<Range<usize>> {
    let mut rows: Vec<Range<usize>> = Vec::new();
    let pages = used_pages(base).filter(|(at, page)| memory.get(*at..*at + PAGE) == Some(page));
    for (at, _) in pages {
        match rows.last_mut() {
            Some(row) if row.end == at => row.end += PAGE,
            _ => rows.push(at..at + PAGE),
        }
    }
    rows.retain(|row| row.len() >= ROW * PAGE);
    rows.sort_by_key(|row| std::cmp::Reverse(row.len()));
    rows.truncate(MAX_ROWS);
    rows.sort_by_key(|row| row.start);
    rows
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
    fn a_page_that_the_kernel_holds_for_a_moment_is_waited_for_not_for_ever() {
        let sealed_by = |mut answers: Vec<rustix::io::Result<()>>| {
            let answered = while_busy(|| answers.pop().unwrap_or(Err(Errno::BUSY)));
            (answered, answers.len())
        };
        let busy = Err(Errno::BUSY);
        assert_eq!(sealed_by(vec![Err(Errno::PERM), Ok(()), busy, busy]), (Ok(()), 1));
        assert_eq!(sealed_by(vec![Ok(()), Err(Errno::PERM)]), (Err(Errno::PERM), 1));
        assert_eq!(sealed_by(vec![]), (busy, 0));
    }

    #[test]
    fn an_image_holds_its_parts_and_zero_elsewhere() {
        let image = Image::of_parts(4 * PAGE, [(5, &b"hello"[..]), (3 * PAGE, b"x")]).expect("image");
        let bytes = image.view().expect("view");
        assert_eq!(&bytes[4..11], b"\0hello\0");
        assert_eq!(bytes[3 * PAGE], b'x');
        let copy = Image::of_memory(&bytes, None).expect("image");
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
        let image = Image::of_memory(&memory, None).expect("image");
        assert_eq!(room(&image), PAGE);
    }

    /// What an image takes.
    fn room(image: &Image) -> usize {
        rustix::fs::fstat(&image.file).expect("fstat").st_blocks as usize * 512
    }

    #[test]
    fn what_a_base_has_takes_no_room_and_reads_the_same() {
        let base = Arc::new(Image::of_parts(100 * PAGE, [(0, &[7; 100 * PAGE][..])]).expect("image"));
        let mut memory = vec![7; 120 * PAGE];
        memory[40 * PAGE] = 8;
        memory[43 * PAGE] = 8;
        memory[90 * PAGE..].fill(0);
        let image = Image::of_memory(&memory, Some(&base)).expect("image");
        let rows = &image.base().expect("base").rows;
        // The two pages between those that differ are too few for a row.
        assert_eq!(rows[..], [0..40 * PAGE, 44 * PAGE..90 * PAGE]);
        assert_eq!(room(&image), 4 * PAGE);
        assert!(image.view().expect("view")[..] == memory[..]);
    }

    #[test]
    fn rows_that_no_memory_could_have_are_refused() {
        let base = Arc::new(Image::of_parts(8 * PAGE, []).expect("image"));
        // Not whole pages, empty, out of order, over each other, outside.
        for rows in [
            [0..PAGE, 2 * PAGE..3 * PAGE + 1],
            [0..PAGE, 2 * PAGE - 1..3 * PAGE],
            [0..PAGE, PAGE..PAGE],
            [2 * PAGE..3 * PAGE, 0..PAGE],
            [0..2 * PAGE, PAGE..3 * PAGE],
            [0..PAGE, 7 * PAGE..9 * PAGE],
        ] {
            let file = tempfile::tempfile().expect("file");
            let base = Some(Base {
                image: base.clone(),
                rows: rows.to_vec(),
            });
            // SAFETY: nothing is mapped from what is not made.
            assert!(unsafe { Image::of_file(file.into(), 0, 16 * PAGE, base) }.is_err());
        }
    }

    #[test]
    fn an_image_cannot_be_changed_through_its_file() {
        let image = Image::of_parts(PAGE, [(0, &b"x"[..])]).expect("image");
        let file = File::from(image.file.try_clone().expect("dup"));
        assert!(file.write_at(b"y", 0).is_err());
        assert!(file.set_len(0).is_err());
    }
}
