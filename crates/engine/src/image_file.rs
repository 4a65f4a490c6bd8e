//! An image as a file.
//!
//! ```text
//!   0                                             64 KiB - 16    64 KiB   2 MiB
//!   | magic, format, key, length, manifest, rows,  | checksum     | hole   | memory: |aaaa|    |cccc|  zero pages are holes
//!   | zeros                                        |              |        |
//! ```
//!
//! Numbers are little-endian. The rows are those of the guest's own image that the memory has unchanged: holes, too. The
//! checksum is over the header before it and, with its place, each page that is here and not zero.
//! The memory begins where a large page of the processor's would, and so do copies of it (`memory.rs`). Where the file
//! system keeps files in large pieces, as ext4 does since Linux 6.16, one page fault then maps hundreds of pages.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::SeekFrom;
use twox_hash::XxHash3_128;

use crate::clock::{Clock, Moment};
use crate::early_pages::{EarlyPages, MAX_PARTS};
use crate::engine::EngineError;
use crate::guest_module::WASM_PAGE;
use crate::image::{Base, Image, MAX_ROWS, PAGE, used_pages, used_parts};
use crate::image_key::Key;
use crate::snapshot::{MAX_ENTROPY, Manifest, Snapshot};
use crate::time_limit::InterruptWords;

const MAGIC: [u8; 8] = *b"wasgiimg";

/// Changes with the layout, and with what the host expects of a memory.
const FORMAT: u32 = 3;

/// What comes before the memory.
const HEADER: usize = 64 << 10;

/// Where the memory begins.
const MEMORY: usize = 2 << 20;

/// Where in the header the checksum is.
const CHECKSUM: usize = HEADER - 16;

/// How much is read at a time.
const PIECE: usize = 256 << 10;

/// Why a file cannot be used as an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it is not an image")]
    Other,
    #[error("it was written by another version of wasgi")]
    Format,
    #[error("damaged: it has {found} bytes, not {expected}")]
    Length { found: u64, expected: u64 },
    #[error("damaged: its checksum is not the one noted")]
    Checksum,
    #[error("it is the image of another state of the app")]
    Key,
    #[error(transparent)]
    System(#[from] io::Error),
    #[error(transparent)]
    Guest(#[from] EngineError),
}

/// Writes a snapshot into an empty file.
pub(crate) fn write(file: &File, key: Key, snapshot: &Snapshot) -> io::Result<()> {
    let memory = &*snapshot.image.view()?;
    let rows = snapshot.image.base().map_or(&[][..], |base| &base.rows);
    let mut header = header(key, memory.len(), &snapshot.manifest, rows);
    let mut checksum = Checksum::new(&header);
    file.set_len((MEMORY + memory.len()) as u64)?;
    for (at, part) in used_parts(memory, rows) {
        for (inside, page) in used_pages(part) {
            checksum.page(at + inside, page);
        }
        file.write_all_at(part, (MEMORY + at) as u64)?;
    }
    header.extend(checksum.0.finish_128().to_le_bytes());
    file.write_all_at(&header, 0)
}

/// How it is known that a file is whole.
#[derive(Clone, Copy)]
pub(crate) enum Whole<'p> {
    /// It was read before.
    Known,
    /// All of it is read and checked, with a call of `pause` after each piece.
    Read { pause: &'p dyn Fn() },
}

/// The snapshot that a file holds. `bare` is the guest's own image, asked for if the snapshot has rows of it.
///
/// # Errors
/// [`Unusable`].
///
/// # Safety
/// Nobody changes or cuts the file as long as the snapshot's image, or a memory made from it, is alive.
pub(crate) unsafe fn read(
    file: File,
    key: Key,
    whole: Whole<'_>,
    bare: impl FnOnce() -> Result<Arc<Image>, EngineError>,
) -> Result<Snapshot, Unusable> {
    let mut header = vec![0; HEADER];
    file.read_exact_at(&mut header, 0)
        .map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Unusable::Other,
            _ => Unusable::System(error),
        })?;
    let mut fields = Fields(&header);
    if fields.take() != MAGIC {
        return Err(Unusable::Other);
    }
    if u32::from_le_bytes(fields.take()) != FORMAT {
        return Err(Unusable::Format);
    }
    let noted_key = Key(u128::from_le_bytes(fields.take()));
    let length = u64::from_le_bytes(fields.take());
    let expected = length.saturating_add(MEMORY as u64);
    let found = file.metadata()?.len();
    if found != expected {
        return Err(Unusable::Length { found, expected });
    }
    if let Whole::Read { pause } = whole {
        let mut checksum = Checksum::new(&header[..CHECKSUM]);
        add_pages(&mut checksum, &file, found, pause)?;
        if checksum.0.finish_128().to_le_bytes() != header[CHECKSUM..] {
            return Err(Unusable::Checksum);
        }
    }
    if noted_key != key {
        return Err(Unusable::Key);
    }
    let manifest = fields.manifest();
    let rows = fields.rows();
    let length = usize::try_from(length).map_err(|_| Unusable::Other)?;
    if length == 0 || length % WASM_PAGE != 0 {
        return Err(Unusable::Other);
    }
    let base = match rows.is_empty() {
        true => None,
        false => Some(Base { image: bare()?, rows }),
    };
    // SAFETY: the file has this length, as was just seen; that it stays as it is, the caller answers for.
    let image = unsafe { Image::of_file(file.into(), MEMORY as u64, length, base)? };
    Ok(Snapshot {
        image: Arc::new(image),
        clock: Clock::since(manifest.taken),
        manifest,
    })
}

/// The header up to its checksum.
fn header(key: Key, length: usize, manifest: &Manifest, rows: &[Range<usize>]) -> Vec<u8> {
    let Manifest {
        stack_pointer,
        interrupt_words,
        entropy,
        early,
        taken,
    } = manifest;
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(FORMAT.to_le_bytes());
    header.extend(key.0.to_le_bytes());
    header.extend((length as u64).to_le_bytes());
    header.extend(stack_pointer.to_le_bytes());
    for time in [taken.monotonic, taken.wall] {
        header.extend(time.as_secs().to_le_bytes());
        header.extend(time.subsec_nanos().to_le_bytes());
    }
    let words = interrupt_words.map(|it| [it.tripped, it.is_tripped, it.eval_breaker, it.bit]);
    header.extend(u32::from(words.is_some()).to_le_bytes());
    for word in words.unwrap_or_default() {
        header.extend(word.to_le_bytes());
    }
    assert!(
        entropy.len() <= MAX_ENTROPY,
        "the host takes no more from a guest"
    );
    header.extend((entropy.len() as u32).to_le_bytes());
    for (at, length) in entropy {
        header.extend(at.to_le_bytes());
        header.extend(length.to_le_bytes());
    }
    header.extend((early.0.len() as u32).to_le_bytes());
    for (first, count) in &early.0 {
        header.extend(first.to_le_bytes());
        header.extend(count.to_le_bytes());
    }
    assert!(rows.len() <= MAX_ROWS, "an image has no more");
    header.extend((rows.len() as u32).to_le_bytes());
    for row in rows {
        header.extend((row.start as u64).to_le_bytes());
        header.extend((row.end as u64).to_le_bytes());
    }
    header.resize(CHECKSUM, 0);
    header
}

/// The header's fields, in their order.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the header holds all fields");
        self.0 = rest;
        *field
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn time(&mut self) -> Duration {
        Duration::new(u64::from_le_bytes(self.take()), self.number())
    }

    fn rows(&mut self) -> Vec<Range<usize>> {
        let count = (self.number() as usize).min(MAX_ROWS);
        let mut place = || u64::from_le_bytes(self.take()) as usize;
        (0..count).map(|_| place()..place()).collect()
    }

    fn pairs(&mut self, most: usize) -> Vec<(u32, u32)> {
        let count = (self.number() as usize).min(most);
        (0..count).map(|_| (self.number(), self.number())).collect()
    }

    fn manifest(&mut self) -> Manifest {
        let stack_pointer = i32::from_le_bytes(self.take());
        let taken = Moment {
            monotonic: self.time(),
            wall: self.time(),
        };
        let there = self.number() == 1;
        let [tripped, is_tripped, eval_breaker, bit] = [(); 4].map(|()| self.number());
        let entropy = self.pairs(MAX_ENTROPY);
        Manifest {
            stack_pointer,
            interrupt_words: there.then_some(InterruptWords {
                tripped,
                is_tripped,
                eval_breaker,
                bit,
            }),
            entropy,
            early: EarlyPages(self.pairs(MAX_PARTS)),
            taken,
        }
    }
}

struct Checksum(XxHash3_128);

impl Checksum {
    fn new(header: &[u8]) -> Self {
        let mut checksum = XxHash3_128::new();
        checksum.write(header);
        Self(checksum)
    }

    fn page(&mut self, at: usize, page: &[u8]) {
        self.0.write(&(at as u64).to_le_bytes());
        self.0.write(page);
    }
}

/// Adds the memory of a file of `end` bytes to the checksum. Holes are passed over: they are zero, as no page in the
/// checksum is.
///
/// It is read rather than mapped: a disk that fails is an error here, and the end of the process there.
fn add_pages(checksum: &mut Checksum, file: &File, end: u64, pause: &dyn Fn()) -> io::Result<()> {
    let page = |at: u64| at - at % PAGE as u64;
    let mut piece = vec![0; PIECE];
    let mut at = MEMORY as u64;
    while at < end {
        let data = match rustix::fs::seek(file.as_fd(), SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(file.as_fd(), SeekFrom::Hole(data))?;
        at = page(data);
        let stop = page(hole.saturating_add(PAGE as u64 - 1)).min(end);
        while at < stop {
            let piece = &mut piece[..PIECE.min((stop - at) as usize)];
            file.read_exact_at(piece, at)?;
            for (inside, bytes) in used_pages(piece) {
                checksum.page(at as usize - MEMORY + inside, bytes);
            }
            at += piece.len() as u64;
            pause();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const KEY: Key = Key(0x1234);

    const WHOLE: Whole<'_> = Whole::Read { pause: &|| () };

    /// What the image has in common with the guest's own.
    const ROWS: Range<usize> = 10 * PAGE..30 * PAGE;

    fn bare() -> Arc<Image> {
        let pages = [9; 20 * PAGE];
        Arc::new(Image::of_parts(WASM_PAGE * 2, [(ROWS.start, &pages[..])]).expect("image"))
    }

    fn snapshot() -> Snapshot {
        let parts = [(5, &b"hello"[..]), (9 * PAGE, b"x"), (2 * WASM_PAGE - 1, b"z")];
        let manifest = Manifest {
            stack_pointer: -7,
            interrupt_words: Some(InterruptWords {
                tripped: 1,
                is_tripped: 2,
                eval_breaker: 3,
                bit: 4,
            }),
            entropy: (0..MAX_ENTROPY as u32).map(|it| (it * 3, it)).collect(),
            early: EarlyPages((0..MAX_PARTS as u32).map(|it| (it * 2, 1)).collect()),
            taken: Moment {
                monotonic: Duration::new(5, 6),
                wall: Duration::new(7, 8),
            },
        };
        let memory = Image::of_parts(2 * WASM_PAGE, parts).expect("image");
        let mut memory = memory.view().expect("view").to_vec();
        memory[ROWS].fill(9);
        Snapshot {
            image: Arc::new(Image::of_memory(&memory, Some(&bare())).expect("image")),
            manifest,
            clock: Clock::of_process(),
        }
    }

    fn written() -> File {
        let file = tempfile::tempfile().expect("file");
        write(&file, KEY, &snapshot()).expect("writes");
        file
    }

    fn open(file: &File) -> Result<Snapshot, Unusable> {
        // SAFETY: what this returns is gone before the file is changed.
        unsafe { read(file.try_clone().expect("dup"), KEY, WHOLE, || Ok(bare())) }
    }

    fn said(file: &File) -> String {
        open(file).err().expect("refused").to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let (file, snapshot) = (written(), snapshot());
        let read = open(&file).expect("reads");
        let bytes = |snapshot: &Snapshot| snapshot.image.view().expect("view").to_vec();
        assert_eq!(bytes(&read), bytes(&snapshot));
        assert_eq!(read.manifest, snapshot.manifest);
        // Only used pages, and the header, take room.
        let blocks = file.metadata().expect("metadata").blocks() * 512;
        assert!(blocks <= (HEADER + 3 * PAGE) as u64, "{blocks}");
    }

    #[test]
    fn any_changed_byte_is_found() {
        let file = written();
        let length = file.metadata().expect("metadata").len();
        // The fields, the zeros behind them, the checksum, used pages, and holes.
        let fields = (0..200)
            .chain([HEADER as u64 - 100])
            .chain(CHECKSUM as u64..HEADER as u64);
        let memory = (0..length - MEMORY as u64)
            .step_by(1009)
            .map(|at| at + MEMORY as u64);
        for at in fields.chain(memory).chain([length - 1]) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("reads");
            file.write_all_at(&[byte[0] ^ 0x40], at).expect("writes");
            assert!(open(&file).is_err(), "at {at}");
            file.write_all_at(&byte, at).expect("writes");
        }
        open(&file).expect("as it was");
    }

    #[test]
    fn a_file_of_another_length_is_not_taken() {
        let file = written();
        let length = file.metadata().expect("metadata").len();
        for other in [
            length - 1,
            length + 1,
            length - WASM_PAGE as u64,
            length + WASM_PAGE as u64,
        ] {
            file.set_len(other).expect("set_len");
            assert!(said(&file).starts_with("damaged: it has "), "{other}");
        }
        for short in [0, 1, 100, HEADER as u64 - 1] {
            file.set_len(short).expect("set_len");
            assert_eq!(said(&file), "it is not an image", "{short}");
        }
    }

    #[test]
    fn the_image_of_something_else_is_not_taken() {
        let file = tempfile::tempfile().expect("file");
        write(&file, Key(KEY.0 + 1), &snapshot()).expect("writes");
        assert_eq!(said(&file), "it is the image of another state of the app");
        file.write_all_at(&(FORMAT + 1).to_le_bytes(), MAGIC.len() as u64)
            .expect("writes");
        assert_eq!(said(&file), "it was written by another version of wasgi");
    }

    #[test]
    fn a_page_in_another_place_is_found() {
        let file = written();
        let mut pages = [[0; PAGE]; 2];
        for (index, page) in pages.iter_mut().enumerate() {
            file.read_exact_at(page, (MEMORY + index * 9 * PAGE) as u64)
                .expect("reads");
        }
        for (index, page) in pages.iter().rev().enumerate() {
            file.write_all_at(page, (MEMORY + index * 9 * PAGE) as u64)
                .expect("writes");
        }
        assert_eq!(said(&file), "damaged: its checksum is not the one noted");
    }
}
