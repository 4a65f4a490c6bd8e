//! Takes a memory back to its image: every page that was written since it was mapped gets its bytes back.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::{Arc, OnceLock};

use crate::image::{Image, PAGE, View};

/// What is known of one memory between its rewinds.
#[derive(Default)]
pub(crate) struct Rewind {
    /// Parts that had been written when the kernel was last asked, in bytes. They stay the memory's own.
    written: Vec<Range<usize>>,
    /// The process's page faults at that time.
    asked_at: Option<u64>,
    /// The image's bytes, once they have been needed.
    view: Option<Arc<View>>,
}

impl Rewind {
    /// Takes `memory` back to `image`. Returns how many pages had been written since the memory was made,
    /// if the kernel tells.
    ///
    /// `memory` is what a [`memory`](crate::memory) maps from the same image, of the image's length, and the same at each
    /// call.
    ///
    /// # Errors
    /// If the kernel does not tell which pages were written, and does not map the image again either: the memory must
    /// not be used any more then.
    pub(crate) fn rewind(&mut self, memory: &mut [u8], image: &Image) -> io::Result<Option<usize>> {
        assert_eq!(
            memory.len(),
            image.len(),
            "only a memory of the image's size can go back to it"
        );
        let Some(pagemap) = pagemap() else {
            return remap(memory, image).map(|()| None);
        };
        self.find_written(pagemap, memory, page_faults()?)?;
        let view = match &self.view {
            Some(view) => view,
            None => self.view.insert(image.view()?),
        };
        let mut pages = 0;
        for part in &self.written {
            memory[part.clone()].copy_from_slice(&view[part.clone()]);
            pages += part.len() / PAGE;
        }
        Ok(Some(pages))
    }

    /// How many pages of `memory` are its own, if the kernel tells.
    pub(crate) fn own_pages(&mut self, memory: &[u8]) -> io::Result<Option<usize>> {
        let own = self.own_parts(memory)?;
        Ok(own.map(|parts| parts.iter().map(|part| part.len() / PAGE).sum()))
    }

    /// Which parts of `memory` are its own, in bytes, if the kernel tells.
    pub(crate) fn own_parts(&mut self, memory: &[u8]) -> io::Result<Option<&[Range<usize>]>> {
        let Some(pagemap) = pagemap() else { return Ok(None) };
        self.find_written(pagemap, memory, page_faults()?)?;
        Ok(Some(&self.written))
    }

    /// Brings `written` up to date. The kernel looks at every page of the memory for that, which takes several times as
    /// long as all the rest; but the first write to a page is a page fault, so where there was none since it last looked
    /// it would find the same.
    fn find_written(&mut self, pagemap: &File, memory: &[u8], faults: u64) -> io::Result<()> {
        if self.asked_at == Some(faults) {
            return Ok(());
        }
        self.asked_at = None;
        self.written.clear();
        let base = memory.as_ptr() as usize;
        let mut from = base;
        let mut regions = [Region::default(); 256];
        while from < base + memory.len() {
            let (found, next) = scan(pagemap, from, base + memory.len(), &mut regions)?;
            let parts = found
                .iter()
                .map(|region| region.start as usize - base..region.end as usize - base);
            self.written.extend(parts);
            from = next;
        }
        self.asked_at = Some(faults);
        Ok(())
    }
}

/// Page faults of the whole process so far, those of threads that have ended included.
fn page_faults() -> io::Result<u64> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: `usage` has room for the structure that the call writes.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled in `usage`; any bytes are integers.
    let usage = unsafe { usage.assume_init() };
    Ok((usage.ru_minflt as u64).wrapping_add(usage.ru_majflt as u64))
}

/// The first byte at which a memory is not as its image.
pub(crate) fn difference(memory: &[u8], image: &[u8]) -> Option<usize> {
    let pages = memory.chunks(PAGE).zip(image.chunks(PAGE));
    let (page, (a, b)) = pages.enumerate().find(|(_, (a, b))| a != b)?;
    let within = a.iter().zip(b).position(|(a, b)| a != b)?;
    Some(page * PAGE + within)
}

/// Drops every page that is the memory's own: the slower sound way back, for kernels before 6.7.
pub(crate) fn remap(memory: &mut [u8], image: &Image) -> io::Result<()> {
    let at = std::ptr::NonNull::from(&mut *memory).cast();
    // SAFETY: the range is `memory`, borrowed here alone and of the image's length; it was mapped from whole pages.
    unsafe { image.map_at(at) }
}

/// Opens what tells written pages, for as long as the process lasts: once it has changed its user, the system does not let
/// it.
pub fn open_pagemap() {
    let _ = pagemap();
}

/// `/proc/self/pagemap`, if this kernel has PAGEMAP_SCAN on it.
fn pagemap() -> Option<&'static File> {
    static PAGEMAP: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let file = File::open("/proc/self/pagemap").ok()?;
        let page = [0u8; 2 * PAGE];
        let start = (page.as_ptr() as usize).next_multiple_of(PAGE);
        scan(&file, start, start + PAGE, &mut [Region::default()]).ok()?;
        Some(file)
    };
    PAGEMAP.get_or_init(open).as_ref()
}

// <linux/fs.h>, kernel 6.7.
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
/// `_IOWR('f', 16, struct pm_scan_arg)`
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;

/// `struct page_region`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// Pages from `start` to `end` that are no longer the file's: present or swapped out, and the process's own. Returns
/// those found, and where to go on.
fn scan<'a>(
    pagemap: &File,
    start: usize,
    end: usize,
    regions: &'a mut [Region],
) -> io::Result<(&'a [Region], usize)> {
    let mut arg = ScanArg {
        size: size_of::<ScanArg>() as u64,
        start: start as u64,
        end: end as u64,
        vec: regions.as_mut_ptr() as u64,
        vec_len: regions.len() as u64,
        category_inverted: PAGE_IS_FILE,
        category_mask: PAGE_IS_FILE,
        category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        return_mask: PAGE_IS_FILE,
        ..ScanArg::default()
    };
    // SAFETY: `arg` has the layout the kernel knows by its `size`, and `vec` names `vec_len` regions, borrowed mutably.
    let count = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
    if count < 0 {
        return Err(io::Error::last_os_error());
    }
    let walked = (arg.walk_end as usize).clamp(start, end);
    // It stops early only when `regions` is full.
    let next = if walked > start { walked } else { end };
    Ok((&regions[..count as usize], next))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A private mapping of an image, as an instance's memory is.
    fn with_memory(image: &Image, test: impl FnOnce(&mut [u8])) {
        let (null, flags) = (std::ptr::null_mut(), rustix::mm::MapFlags::PRIVATE);
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
        let base = unsafe {
            rustix::mm::mmap_anonymous(null, image.len(), rustix::mm::ProtFlags::empty(), flags)
                .expect("mmap")
        };
        // SAFETY: the range has just been mapped, and nothing refers to it yet.
        unsafe { image.map_at(std::ptr::NonNull::new(base.cast()).expect("not null")) }.expect("mapped");
        // SAFETY: the range is readable and writable now, and only this slice refers to it.
        test(unsafe { std::slice::from_raw_parts_mut(base.cast(), image.len()) });
        // SAFETY: the slice is gone.
        unsafe { rustix::mm::munmap(base, image.len()) }.expect("unmapped");
    }

    #[test]
    fn each_rewind_finds_what_was_written_since_the_last() {
        let image = Image::of_parts(64 * PAGE, [(0, &[7; 64 * PAGE][..])]).expect("image");
        with_memory(&image, |memory| {
            let (mut rewind, bytes) = (Rewind::default(), image.view().expect("view"));
            for round in 0..20 {
                memory[round * 3 * PAGE..][..5000].fill(round as u8);
                memory[PAGE] += 1;
                rewind.rewind(memory, &image).expect("rewinds");
                assert_eq!(difference(memory, &bytes), None, "round {round}");
            }
        });
    }

    #[test]
    fn the_kernel_is_asked_only_after_page_faults() {
        let Some(pagemap) = pagemap() else { return };
        let image = Image::of_parts(8 * PAGE, []).expect("image");
        with_memory(&image, |memory| {
            let mut rewind = Rewind::default();
            let mut found = |memory: &[u8], faults| -> Vec<_> {
                rewind.find_written(pagemap, memory, faults).expect("scans");
                rewind.written.iter().map(|part| part.start / PAGE).collect()
            };
            memory[5 * PAGE] = 1;
            assert_eq!(found(memory, 10), [5]);
            memory[2 * PAGE] = 1;
            assert_eq!(found(memory, 10), [5]);
            assert_eq!(found(memory, 11), [2, 5]);
        });
    }

    #[test]
    fn a_first_write_to_a_page_counts_as_a_page_fault() {
        let image = Image::of_parts(PAGE, [(0, &b"x"[..])]).expect("image");
        with_memory(&image, |memory| {
            assert_eq!(memory[0], b'x');
            let before = page_faults().expect("counts");
            memory[0] = b'y';
            assert!(page_faults().expect("counts") > before);
        });
    }

    #[test]
    fn the_first_byte_that_differs_is_found_in_any_page() {
        let image = Image::of_parts(4 * PAGE, [(PAGE, &b"hello"[..])]).expect("image");
        let bytes = image.view().expect("view");
        let mut memory = bytes.to_vec();
        assert_eq!(difference(&memory, &bytes), None);
        for at in [4 * PAGE - 1, 2 * PAGE, PAGE + 4, 0] {
            memory[at] ^= 1;
            assert_eq!(difference(&memory, &bytes), Some(at));
        }
    }
}
