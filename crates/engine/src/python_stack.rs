//! The Python stack of a guest, read by the host from its memory: no code runs for it, so it can be had of one that waits, is
//! in C code, or has crashed.
//!
//! CPython describes itself for debuggers: `_PyRuntime` begins with a cookie and the offsets of what they look for
//! (`_Py_DebugOffsets` in `Include/internal/pycore_runtime.h` of 3.13). The offsets are taken from the guest's module,
//! before anything has run. What they lead to is the guest's word: a guest can make up any stack, but every read is
//! within its memory, and as many as there are limits for.

use std::fmt;

/// Frames that are read, from the innermost on.
const MAX_FRAMES: usize = 50;

/// Frames that are passed over, such as those that stand for C code.
const MAX_PASSED: usize = 4 * MAX_FRAMES;

/// Characters of a name or path.
const MAX_TEXT: usize = 200;

/// Bytes of a function's table of lines that are read.
const MAX_TABLE: usize = 32 << 10;

const COOKIE: &[u8; 8] = b"xdebugpy";

/// `FRAME_OWNED_BY_CSTACK`: stands for a call from C, and has no code.
const OF_C: u8 = 3;

/// Where things are in the guest's objects: offsets in bytes.
#[derive(Clone, Debug)]
pub(crate) struct PythonLayout {
    /// Address of `_PyRuntime`.
    runtime: u32,
    interpreters_head: u32,
    threads_head: u32,
    current_frame: u32,
    previous: u32,
    executable: u32,
    instr_ptr: u32,
    owner: u32,
    filename: u32,
    qualname: u32,
    linetable: u32,
    firstlineno: u32,
    code: u32,
    bytes_size: u32,
    bytes_start: u32,
    str_state: u32,
    str_length: u32,
    str_ascii: u32,
}

/// A function that is running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    function: String,
    file: String,
    line: Option<u32>,
}

/// As a traceback has it.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  File \"{}\", line ", self.file)?;
        match self.line {
            Some(line) => write!(f, "{line}")?,
            None => f.write_str("?")?,
        }
        write!(f, ", in {}", self.function)
    }
}

impl Frame {
    /// In a few words.
    pub(crate) fn place(&self) -> String {
        let line = self.line.map_or("?".to_owned(), |line| line.to_string());
        format!("{}:{line} in {}", self.file, self.function)
    }
}

impl PythonLayout {
    /// Finds the offsets in memory as the guest's module makes it. `None` if that is not CPython 3.13.
    pub(crate) fn find(image: &[u8]) -> Option<Self> {
        let at = image.chunks_exact(8).position(|word| word == COOKIE)? * 8;
        let table = image.get(at + COOKIE.len()..)?;
        let number = |index: usize| -> Option<u32> {
            let bytes = table.get(index * 8..)?.first_chunk::<8>()?;
            u32::try_from(u64::from_le_bytes(*bytes)).ok()
        };
        // PY_VERSION_HEX: another version has other fields.
        if number(0)? >> 16 != 0x030d {
            return None;
        }
        Some(Self {
            runtime: u32::try_from(at).ok()?,
            interpreters_head: number(4)?,
            threads_head: number(8)?,
            current_frame: number(22)?,
            previous: number(28)?,
            executable: number(29)?,
            instr_ptr: number(30)?,
            owner: number(32)?,
            filename: number(34)?,
            qualname: number(36)?,
            linetable: number(37)?,
            firstlineno: number(38)?,
            code: number(42)?,
            bytes_size: number(64)?,
            bytes_start: number(65)?,
            str_state: number(67)?,
            str_length: number(68)?,
            str_ascii: number(69)?,
        })
    }

    /// What Python is doing, the innermost frame last as in a traceback. Empty if it runs no Python code, or if its memory
    /// makes no sense.
    pub(crate) fn stack(&self, memory: &[u8]) -> Vec<Frame> {
        let memory = Memory(memory);
        let mut frames = Vec::new();
        let mut next = self.innermost(memory);
        for _ in 0..MAX_PASSED {
            let Some(at) = next.filter(|at| *at != 0 && frames.len() < MAX_FRAMES) else {
                break;
            };
            frames.extend(self.frame(memory, at));
            next = memory.word(at, self.previous);
        }
        frames.reverse();
        frames
    }

    fn innermost(&self, memory: Memory<'_>) -> Option<u32> {
        let interpreter = memory.word(self.runtime, self.interpreters_head)?;
        let thread = memory.word(interpreter, self.threads_head)?;
        memory.word(thread, self.current_frame)
    }

    fn frame(&self, memory: Memory<'_>, at: u32) -> Option<Frame> {
        if memory.bytes(at, self.owner, 1)? == [OF_C] {
            return None;
        }
        let code = memory.word(at, self.executable)?;
        let instruction = memory.word(at, self.instr_ptr)?;
        Some(Frame {
            function: self.text(memory, memory.word(code, self.qualname)?)?,
            file: self.text(memory, memory.word(code, self.filename)?)?,
            line: self.line(memory, code, instruction),
        })
    }

    fn line(&self, memory: Memory<'_>, code: u32, instruction: u32) -> Option<u32> {
        let table = memory.word(code, self.linetable)?;
        let length = memory.word(table, self.bytes_size)? as usize;
        let table = memory.bytes(table, self.bytes_start, length.min(MAX_TABLE))?;
        let first = memory.word(code, self.firstlineno)?;
        let offset = instruction.checked_sub(code.checked_add(self.code)?)?;
        line_at(table, first, offset / 2)
    }

    /// A `str`, if it is compact, as all are that the compiler makes.
    fn text(&self, memory: Memory<'_>, at: u32) -> Option<String> {
        let state = memory.word(at, self.str_state)?;
        let (kind, is_compact, is_ascii) = (state >> 2 & 7, state >> 5 & 1 == 1, state >> 6 & 1 == 1);
        if !is_compact {
            return None;
        }
        let length = (memory.word(at, self.str_length)? as usize).min(MAX_TEXT);
        // PyCompactUnicodeObject has its UTF-8 form, a length and a pointer, before the characters.
        let start = if is_ascii {
            self.str_ascii
        } else {
            self.str_ascii + 8
        };
        let bytes = memory.bytes(at, start, length * kind as usize)?;
        let character = |code: u32| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        Some(match kind {
            1 => bytes.iter().map(|&byte| char::from(byte)).collect(),
            2 => (bytes.as_chunks::<2>().0.iter())
                .map(|unit| character(u16::from_le_bytes(*unit).into()))
                .collect(),
            4 => (bytes.as_chunks::<4>().0.iter())
                .map(|unit| character(u32::from_le_bytes(*unit)))
                .collect(),
            _ => return None,
        })
    }
}

/// The guest's memory, where nothing is believed.
#[derive(Clone, Copy)]
struct Memory<'a>(&'a [u8]);

impl<'a> Memory<'a> {
    fn bytes(self, at: u32, offset: u32, length: usize) -> Option<&'a [u8]> {
        let start = at.checked_add(offset)? as usize;
        self.0.get(start..)?.get(..length)
    }

    fn word(self, at: u32, offset: u32) -> Option<u32> {
        let bytes = self.bytes(at, offset, 4)?;
        Some(u32::from_le_bytes(*bytes.first_chunk()?))
    }
}

/// The line of the instruction at `unit`, counted in units of two bytes.
///
/// Source: CPython 3.13, `InternalDocs/code_objects.md`, "Format of the locations table".
fn line_at(table: &[u8], first: u32, unit: u32) -> Option<u32> {
    let mut bytes = table.iter().copied();
    let (mut line, mut end) = (i64::from(first), 0);
    while let Some(start) = bytes.next() {
        end += u32::from(start & 7) + 1;
        let kind = start >> 3 & 15;
        let mut has_line = true;
        match kind {
            // Short forms: one byte of columns, on the same line.
            0..=9 => {
                bytes.next()?;
            }
            // One line, two bytes of columns.
            10..=12 => {
                line += i64::from(kind) - 10;
                bytes.nth(1)?;
            }
            13 => line += signed(&mut bytes)?,
            14 => {
                line += signed(&mut bytes)?;
                for _ in 0..3 {
                    varint(&mut bytes)?;
                }
            }
            _ => has_line = false,
        }
        if unit < end {
            return u32::try_from(line).ok().filter(|_| has_line);
        }
    }
    None
}

/// Six bits a byte, the lowest first; bit 6 says that more follow.
fn varint(bytes: &mut impl Iterator<Item = u8>) -> Option<u32> {
    let (mut value, mut shift) = (0u32, 0);
    loop {
        let byte = bytes.next()?;
        value |= u32::from(byte & 63).checked_shl(shift)?;
        shift += 6;
        if byte & 64 == 0 {
            return Some(value);
        }
    }
}

/// The sign is in the lowest bit.
fn signed(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let value = varint(bytes)?;
    let magnitude = i64::from(value >> 1);
    Some(if value & 1 == 1 { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    #[test]
    fn lines_are_found_in_each_form_of_the_table() {
        let entry = |kind: u8, units: u8| 0x80 | kind << 3 | (units - 1);
        // Lines 10, 10, 12, none, 9, 75: 13 has svarint -3 (7), 14 has svarint 66 (132: 4 and 2) and three varints.
        let table = [
            &[entry(11, 1), 0, 4][..],
            &[entry(3, 2), 0x21],
            &[entry(12, 1), 1, 2],
            &[entry(15, 1)],
            &[entry(13, 2), 7],
            &[entry(14, 1), 64 | 4, 2, 1, 1, 9],
        ]
        .concat();
        let lines: Vec<_> = (0..9).map(|unit| line_at(&table, 9, unit)).collect();
        let expected = [10, 10, 10, 12].map(Some).into_iter().chain([None]);
        let expected: Vec<_> = expected.chain([Some(9), Some(9), Some(75), None]).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn no_memory_leads_astray() {
        let layout = PythonLayout {
            runtime: 0,
            interpreters_head: 0,
            threads_head: 4,
            current_frame: 8,
            previous: 4,
            executable: 0,
            instr_ptr: 8,
            owner: 12,
            filename: 0,
            qualname: 4,
            linetable: 8,
            firstlineno: 12,
            code: 16,
            bytes_size: 0,
            bytes_start: 4,
            str_state: 4,
            str_length: 0,
            str_ascii: 8,
        };
        let mut rng = rand::rng();
        let mut memory = vec![0; 512];
        for _ in 0..20_000 {
            for byte in &mut memory {
                *byte = if rng.random_range(0..4) > 0 {
                    0
                } else {
                    rng.random()
                };
            }
            assert!(layout.stack(&memory).len() <= MAX_FRAMES);
        }
        // A frame that is its own caller.
        memory.fill(0);
        for (at, word) in [
            (0, 16u32),
            (20, 32),
            (40, 64),
            (64, 128),
            (68, 64),
            (132, 200),
            (128, 200),
            (204, 0x64),
        ] {
            memory[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        assert_eq!(layout.stack(&memory).len(), MAX_FRAMES);
        assert!(layout.stack(&memory[..130]).is_empty());
    }

    #[test]
    fn what_is_not_this_python_has_no_layout() {
        let mut image = vec![0; 1024];
        assert!(PythonLayout::find(&image).is_none());
        image[64..72].copy_from_slice(COOKIE);
        image[72..80].copy_from_slice(&0x030e_00f0u64.to_le_bytes());
        assert!(PythonLayout::find(&image).is_none());
        image[72..80].copy_from_slice(&0x030d_05f0u64.to_le_bytes());
        assert_eq!(PythonLayout::find(&image).expect("layout").runtime, 64);
        assert!(PythonLayout::find(&image[..100]).is_none());
    }
}
