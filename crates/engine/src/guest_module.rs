//! The guest's wasm, looked through: that an image can hold its state, and its data segments.
//!
//! Instances get their memory from an image, so instantiating must not copy the data segments again: they are taken
//! out of the module (`checks.rs`) and become the first image.

use wasmparser::{DataKind, Operator, Parser, Payload, TypeRef};

/// Size of a WebAssembly page.
pub(crate) const WASM_PAGE: usize = 64 << 10;

/// Sections of the binary format that are taken out.
pub(crate) const DATA: u8 = 11;
pub(crate) const DATA_COUNT: u8 = 12;

/// The only state outside linear memory that an image has to keep, since `first_memory` finds no other.
pub(crate) const STACK_POINTER: &str = "__stack_pointer";

/// The memory that a guest module starts with.
pub(crate) struct FirstMemory<'a> {
    /// What its data segments put where, in bytes from the start of memory.
    pub(crate) data: Vec<(usize, &'a [u8])>,
    /// In bytes.
    pub(crate) length: usize,
}

/// Why a module cannot be a guest.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// It is not a WebAssembly module, or a damaged one.
    #[error("not a WebAssembly module: {0}")]
    Parse(#[from] wasmparser::BinaryReaderError),
    /// It keeps state where an image would not have it.
    #[error("the module {0}: an image of its memory would not be all of its state")]
    State(&'static str),
}

/// The first memory of a module whose state an image can hold.
///
/// # Errors
/// [`ModuleError::State`] if an instance could have state beside its memory and `__stack_pointer`, which is all that an
/// image keeps: passive data, several memories, mutable globals that are not exported.
pub(crate) fn first_memory(wasm: &[u8]) -> Result<FirstMemory<'_>, ModuleError> {
    let mut data = Vec::new();
    let mut minimum = None;
    let mut mutable_globals = Vec::new();
    let mut exported_globals = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        match &payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    if matches!(
                        import?.ty,
                        TypeRef::Memory(_) | TypeRef::Global(_) | TypeRef::Table(_)
                    ) {
                        return Err(ModuleError::State("imports memory, globals or tables"));
                    }
                }
            }
            Payload::MemorySection(memories) => {
                if memories.count() != 1 {
                    return Err(ModuleError::State("has several memories"));
                }
                for memory in memories.clone() {
                    minimum = usize::try_from(memory?.initial)
                        .ok()
                        .and_then(|it| it.checked_mul(WASM_PAGE));
                }
            }
            Payload::GlobalSection(globals) => {
                for (index, global) in globals.clone().into_iter().enumerate() {
                    if global?.ty.mutable {
                        mutable_globals.push(index as u32);
                    }
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    if export.kind == wasmparser::ExternalKind::Global && export.name == STACK_POINTER {
                        exported_globals.push(export.index);
                    }
                }
            }
            Payload::DataSection(segments) => {
                for segment in segments.clone() {
                    let segment = segment?;
                    let DataKind::Active {
                        memory_index: 0,
                        offset_expr,
                    } = segment.kind
                    else {
                        return Err(ModuleError::State("has passive data"));
                    };
                    let Operator::I32Const { value } = offset_expr.get_operators_reader().read()? else {
                        return Err(ModuleError::State("places its data by a computation"));
                    };
                    data.push((value as u32 as usize, segment.data));
                }
            }
            _ => {}
        }
    }
    if mutable_globals != exported_globals {
        return Err(ModuleError::State("has mutable globals beside its stack pointer"));
    }
    let length = minimum.ok_or(ModuleError::State("has no memory"))?;
    if data
        .iter()
        .any(|(at, bytes)| at.checked_add(bytes.len()).is_none_or(|end| end > length))
    {
        return Err(ModuleError::State("places data outside its memory"));
    }
    Ok(FirstMemory { data, length })
}

pub(crate) fn push_leb128(to: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(module (memory 1) (global (mut i32) (i32.const 7)) (export "__stack_pointer" (global 0))
    ///   (data (i32.const 16) "hello"))`, with the export or without.
    fn module(export: bool) -> Vec<u8> {
        let mut wasm = b"\0asm\x01\0\0\0".to_vec();
        wasm.extend([5, 3, 1, 0, 1]);
        wasm.extend([6, 6, 1, 0x7f, 1, 0x41, 7, 0x0b]);
        if export {
            wasm.extend([7, 19, 1, 15]);
            wasm.extend(STACK_POINTER.as_bytes());
            wasm.extend([3, 0]);
        }
        wasm.extend([11, 11, 1, 0, 0x41, 16, 0x0b, 5]);
        wasm.extend(b"hello");
        wasm
    }

    #[test]
    fn data_is_found_where_it_goes() {
        let wasm = module(true);
        let first = first_memory(&wasm).expect("a guest");
        assert_eq!(first.data, [(16, &b"hello"[..])]);
        assert_eq!(first.length, WASM_PAGE);
    }

    #[test]
    fn state_that_an_image_would_miss_is_refused() {
        let error = first_memory(&module(false)).err().expect("refused").to_string();
        assert!(error.contains("mutable globals"), "{error}");
    }
}
