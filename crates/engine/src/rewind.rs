//! Takes a memory back to its image: every page that was written since it was mapped gets its bytes back.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use crate::image::{Image, PAGE};

/// Takes `memory` back to `image`. Returns how many pages had been written since the memory was made.
///
/// `memory` is what a [`memory`](crate::memory) maps from the same image, of the image's length.
///
/// # Errors
/// If the kernel does not tell which pages were written, and does not map the image again either: the memory must not
/// be used any more then.
pub(crate) fn rewind(memory: &mut [u8], image: &Image) -> io::Result<usize> {
    assert_eq!(
        memory.len(),
        image.len(),
        "only a memory of the image's size can go back to it"
    );
    match pagemap() {
        Some(pagemap) => copy_written(pagemap, memory, image),
        None => remap(memory, image).map(|()| 0),
    }
}

/// The first byte at which a memory is not as its image.
pub(crate) fn difference(memory: &[u8], image: &Image) -> Option<usize> {
    memory.iter().zip(image.bytes()).position(|(a, b)| a != b)
}

/// The slower sound way, for kernels before 6.7: drops every page that is the memory's own.
fn remap(memory: &mut [u8], image: &Image) -> io::Result<()> {
    let at = std::ptr::NonNull::from(&mut *memory).cast();
    // SAFETY: the range is `memory`, borrowed here alone and of the image's length; it was mapped from whole pages.
    unsafe { image.map_at(at) }
}

fn copy_written(pagemap: &File, memory: &mut [u8], image: &Image) -> io::Result<usize> {
    let base = memory.as_ptr() as usize;
    let mut from = base;
    let mut written = 0;
    let mut regions = [Region::default(); 256];
    while from < base + memory.len() {
        let (found, next) = scan(pagemap, from, base + memory.len(), &mut regions)?;
        for region in found {
            let range = region.start as usize - base..region.end as usize - base;
            written += range.len() / PAGE;
            memory[range.clone()].copy_from_slice(&image.bytes()[range]);
        }
        from = next;
    }
    Ok(written)
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
