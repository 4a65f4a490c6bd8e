//! Pages of a copy that a request writes at once, had before it comes.
//!
//! The first write to a page of a memory that is mapped privately is a page fault, which takes several times as long as the
//! copy that it is for. Which pages a request of the app's writes is much the same for all; they are noted when the snapshot
//! is taken, and every copy is given its own of these before it runs, in a few calls.

use std::ops::Range;

use rustix::mm::{Advice, madvise};

use crate::image::PAGE;

/// Most parts, and most pages in all: 4 MiB, ten times what a request of a Flask app writes.
pub(crate) const MAX_PARTS: usize = 1024;
const MAX_PAGES: usize = 1024;

/// Parts of a memory as first page and number of pages, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EarlyPages(pub(crate) Vec<(u32, u32)>);

impl EarlyPages {
    /// Of parts in bytes, as far as they are few.
    pub(crate) fn of(written: &[Range<usize>]) -> Self {
        let mut left = MAX_PAGES;
        let parts = written.iter().take(MAX_PARTS).map_while(|part| {
            let pages = part.len() / PAGE;
            left = left.checked_sub(pages)?;
            Some((u32::try_from(part.start / PAGE).ok()?, pages as u32))
        });
        Self(parts.collect())
    }

    /// Makes them the memory's own, as a write to each would. What the system does not do, faults will.
    pub(crate) fn fetch(&self, memory: &mut [u8]) {
        for &(first, count) in &self.0 {
            let start = first as usize * PAGE;
            let Some(part) = memory
                .get_mut(start..)
                .and_then(|it| it.get_mut(..count as usize * PAGE))
            else {
                return;
            };
            // SAFETY: the range is `part`, borrowed here alone; what its bytes are does not change.
            let done = unsafe { madvise(part.as_mut_ptr().cast(), part.len(), Advice::LinuxPopulateWrite) };
            // Before Linux 5.14 there is no such advice.
            if done.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_bounded() {
        let page = |at: usize| at * PAGE..(at + 1) * PAGE;
        assert_eq!(EarlyPages::of(&[page(3), 5 * PAGE..9 * PAGE]).0, [(3, 1), (5, 4)]);
        let all: Vec<_> = (0..5000).map(|at| page(2 * at)).collect();
        assert_eq!(EarlyPages::of(&all).0.len(), MAX_PARTS.min(MAX_PAGES));
        assert_eq!(
            EarlyPages::of(&[page(3), 5 * PAGE..(5 + MAX_PAGES) * PAGE]).0,
            [(3, 1)]
        );
    }

    #[test]
    fn parts_outside_of_the_memory_are_passed_over() {
        let mut memory = vec![7; 4 * PAGE];
        EarlyPages(vec![(4, 1), (u32::MAX, u32::MAX)]).fetch(&mut memory);
        assert!(memory.iter().all(|byte| *byte == 7));
    }
}
