//! Makes the guest look at the clock: adds checks to its code, before it is compiled.
//!
//! A check compares the count of ticks (`ticks.rs`), which is a second memory's, with the one the instance has seen last,
//! a global, and calls the import `tick` if they differ:
//!
//! ```text
//!   (if (i32.ne (global.get $seen) (i32.load $ticks (i32.const 0)))
//!     (then (global.set $seen (call $tick))))
//! ```
//!
//! Each loop begins with one. A function that calls `tick` itself is left to say where it looks: each of its calls becomes
//! a check, and its loops get none. CPython's eval loop does so (`patches/wasgi/tick.patch`), which would look at the clock
//! once for each bytecode otherwise. There is no check at the start of a function: recursion ends with the stack.
//!
//! wasmtime's epochs do the same with more looks, at every function and loop, which cost a Flask app a tenth of its
//! time.

use wasmparser::{BinaryReader, BinaryReaderError, FunctionBody, Operator, Parser, Payload, TypeRef};

use crate::abi;
use crate::guest_module::{DATA, DATA_COUNT, ModuleError, push_leb128};

/// To be changed with what is added, so that code compiled before is not taken.
pub(crate) const VERSION: u32 = 1;

// Sections of the binary format.
const MEMORY: u8 = 5;
const GLOBAL: u8 = 6;
const CODE: u8 = 10;

/// What the memory section gets: one page, never more.
const TICK_MEMORY: [u8; 3] = [1, 1, 1];
/// What the global section gets: `(mut i32) (i32.const 0)`.
const SEEN: [u8; 5] = [0x7f, 1, 0x41, 0, 0x0b];

/// The module without its data segments, and with checks in its code. `wasm` is one that
/// [`first_memory`](crate::guest_module::first_memory) has taken.
///
/// # Errors
/// [`ModuleError::State`] if it does not import `tick`: it is not our guest.
pub(crate) fn add(wasm: &[u8]) -> Result<Vec<u8>, ModuleError> {
    let mut module = Vec::with_capacity(wasm.len() * 5 / 4);
    let mut check = Check::default();
    let mut functions = 0;
    let mut tick = None;
    let mut code = Code::default();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        match &payload {
            Payload::Version { range, .. } => module.extend_from_slice(&wasm[range.clone()]),
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    let import = import?;
                    if let TypeRef::Func(_) = import.ty {
                        if (import.module, import.name) == (abi::MODULE, abi::TICK) {
                            tick = Some(functions);
                        }
                        functions += 1;
                    }
                }
            }
            Payload::CodeSectionStart { .. } => {
                check.tick = tick.ok_or(ModuleError::State("does not look at the clock"))?;
                code.first = functions;
            }
            Payload::CodeSectionEntry(body) => code.push(wasm, body, &check)?,
            _ => {}
        }
        let Some((id, range)) = payload.as_section() else {
            continue;
        };
        let content = &wasm[range];
        match id {
            DATA | DATA_COUNT => {}
            MEMORY => push_longer(&mut module, id, content, &TICK_MEMORY)?,
            GLOBAL => {
                check.seen = BinaryReader::new(content, 0).read_var_u32()?;
                push_longer(&mut module, id, content, &SEEN)?;
            }
            // Its entries come next.
            CODE => {}
            _ => push_section(&mut module, id, content),
        }
    }
    code.finish(&mut module);
    Ok(module)
}

/// Indices that a check names.
#[derive(Default)]
struct Check {
    tick: u32,
    seen: u32,
}

impl Check {
    /// Appends a check. Returns where its `if` is.
    fn push(&self, to: &mut Vec<u8>) -> usize {
        to.push(0x23); // global.get
        push_leb128(to, self.seen as usize);
        to.extend([0x41, 0]); // i32.const 0
        to.extend([0x28, 0x42, 1, 0]); // i32.load align=4, memory 1, offset 0
        to.push(0x47); // i32.ne
        let branch = to.len();
        to.extend([0x04, 0x40]); // if
        to.push(0x10); // call
        push_leb128(to, self.tick as usize);
        to.push(0x24); // global.set
        push_leb128(to, self.seen as usize);
        to.push(0x0b); // end
        branch
    }
}

/// The new code section, and the hints that checks seldom call.
#[derive(Default)]
struct Code {
    /// Index of the first function that is not an import.
    first: u32,
    count: u32,
    bodies: Vec<u8>,
    hinted: u32,
    hints: Vec<u8>,
}

impl Code {
    fn push(&mut self, wasm: &[u8], body: &FunctionBody<'_>, check: &Check) -> Result<(), BinaryReaderError> {
        let start = body.range().start;
        let places = places(body, check.tick)?;
        let mut new = Vec::with_capacity(body.range().len() + places.len() * 16);
        let (mut copied, mut branches) = (start, Vec::with_capacity(places.len()));
        for place in &places {
            new.extend_from_slice(&wasm[copied..place.from]);
            branches.push(check.push(&mut new));
            if place.is_call() {
                new.extend([0x41, 0]); // i32.const 0, in place of the call's result
            }
            copied = place.to;
        }
        new.extend_from_slice(&wasm[copied..body.range().end]);
        if !branches.is_empty() {
            self.hinted += 1;
            push_leb128(&mut self.hints, (self.first + self.count) as usize);
            push_leb128(&mut self.hints, branches.len());
            for branch in branches {
                push_leb128(&mut self.hints, branch);
                self.hints.extend([1, 0]); // one byte: unlikely
            }
        }
        push_leb128(&mut self.bodies, new.len());
        self.bodies.extend(new);
        self.count += 1;
        Ok(())
    }

    fn finish(self, module: &mut Vec<u8>) {
        let with_count = |count: u32, entries: &[u8]| {
            let mut content = Vec::with_capacity(entries.len() + 5);
            push_leb128(&mut content, count as usize);
            content.extend_from_slice(entries);
            content
        };
        const NAME: &[u8] = b"metadata.code.branch_hint";
        let mut hints = vec![NAME.len() as u8];
        hints.extend_from_slice(NAME);
        hints.extend(with_count(self.hinted, &self.hints));
        push_section(module, 0, &hints);
        push_section(module, CODE, &with_count(self.count, &self.bodies));
    }
}

/// Where a check goes: `from..to` of the module is left out for it.
struct Place {
    from: usize,
    to: usize,
}

impl Place {
    fn is_call(&self) -> bool {
        self.from < self.to
    }
}

/// In the place of each call of `tick`; without one, after the start of each loop.
fn places(body: &FunctionBody<'_>, tick: u32) -> Result<Vec<Place>, BinaryReaderError> {
    let (mut loops, mut calls) = (Vec::new(), Vec::new());
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        let (operator, from) = operators.read_with_offset()?;
        let to = operators.original_position();
        match operator {
            Operator::Loop { .. } => loops.push(Place { from: to, to }),
            Operator::Call { function_index } if function_index == tick => calls.push(Place { from, to }),
            _ => {}
        }
    }
    Ok(if calls.is_empty() { loops } else { calls })
}

fn push_section(module: &mut Vec<u8>, id: u8, content: &[u8]) {
    module.push(id);
    push_leb128(module, content.len());
    module.extend_from_slice(content);
}

/// A section that is a list, with one entry more.
fn push_longer(module: &mut Vec<u8>, id: u8, content: &[u8], entry: &[u8]) -> Result<(), BinaryReaderError> {
    let mut reader = BinaryReader::new(content, 0);
    let count = reader.read_var_u32()?;
    let mut longer = Vec::with_capacity(content.len() + entry.len() + 5);
    push_leb128(&mut longer, count as usize + 1);
    longer.extend_from_slice(&content[reader.original_position()..]);
    longer.extend_from_slice(entry);
    push_section(module, id, &longer);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wasmtime::{Caller, Linker, Store};

    use super::*;
    use crate::memory::{GUARD, RESERVED, with_image};
    use crate::ticks::Ticks;
    use crate::{engine, image::Image};

    // (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if 0 (i32.lt_s (local.get $i) (i32.const 10)))
    const COUNT_I: &[u8] = &[0x20, 0, 0x41, 1, 0x6a, 0x22, 0, 0x41, 10, 0x48, 0x0d, 0];
    const COUNT_J: &[u8] = &[0x20, 1, 0x41, 1, 0x6a, 0x22, 1, 0x41, 10, 0x48, 0x0d, 0];
    const LOOP: &[u8] = &[0x03, 0x40];
    const END: &[u8] = &[0x0b];
    const CALL_TICK: &[u8] = &[0x10, 0, 0x1a];
    const ZERO_J: &[u8] = &[0x41, 0, 0x21, 1];

    /// A module that imports `tick` and exports the function `f` with this body and the locals $i and $j.
    fn module(body: &[&[u8]]) -> Vec<u8> {
        let body = [&[1, 2, 0x7f], body.concat().as_slice(), END].concat();
        let mut wasm = b"\0asm\x01\0\0\0".to_vec();
        for (id, content) in [
            (1, [2, 0x60, 0, 1, 0x7f, 0x60, 0, 0].to_vec()),
            (2, [&[1, 5], &b"wasgi"[..], &[4], b"tick", &[0, 0]].concat()),
            (3, vec![1, 1]),
            (5, vec![1, 0, 1]),
            (6, vec![1, 0x7f, 0, 0x41, 0, 0x0b]),
            (7, vec![1, 1, b'f', 0, 1]),
            (10, [&[1, body.len() as u8], body.as_slice()].concat()),
        ] {
            push_section(&mut wasm, id, &content);
        }
        wasm
    }

    /// How often `f` calls `tick`, when each call lets the clock go on, or when it stands after the first.
    fn calls(body: &[&[u8]], goes_on: bool) -> u32 {
        let ticks = Arc::new(Ticks::new(RESERVED, GUARD).expect("ticks"));
        ticks.advance();
        let engine = wasmtime::Engine::new(&engine::config(ticks.clone())).expect("engine");
        let module = add(&module(body)).expect("checks");
        let module = wasmtime::Module::new(&engine, module).expect("module");
        let mut linker = Linker::new(&engine);
        linker
            .func_wrap(abi::MODULE, abi::TICK, move |mut caller: Caller<'_, u32>| {
                *caller.data_mut() += 1;
                let seen = ticks.count();
                if goes_on {
                    ticks.advance();
                }
                seen as i32
            })
            .expect("tick");
        let mut store = Store::new(&engine, 0);
        let image = Arc::new(Image::of_parts(crate::guest_module::WASM_PAGE, []).expect("image"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let made = with_image(&image, linker.instantiate_async(&mut store, &module)).await;
            let f = made
                .and_then(|instance| instance.get_typed_func::<(), ()>(&mut store, "f"))
                .expect("f");
            f.call_async(&mut store, ()).await.expect("returns");
        });
        *store.data()
    }

    #[test]
    fn every_turn_of_a_loop_looks_at_the_clock() {
        let body = [LOOP, COUNT_I, END];
        assert_eq!(calls(&body, true), 10);
        assert_eq!(calls(&body, false), 1);
    }

    #[test]
    fn an_inner_loop_looks_again() {
        // Nothing is stored in either: what the outer loop has read must not be taken for what the inner one would read.
        let body = [LOOP, ZERO_J, LOOP, COUNT_J, END, COUNT_I, END];
        assert_eq!(calls(&body, true), 110);
    }

    #[test]
    fn a_function_that_says_where_it_looks_looks_there_alone() {
        let body = [CALL_TICK, LOOP, COUNT_I, END];
        assert_eq!(calls(&body, true), 1);
        let in_its_loop = [LOOP, CALL_TICK, COUNT_I, END];
        assert_eq!(calls(&in_its_loop, true), 10);
        assert_eq!(calls(&in_its_loop, false), 1);
    }

    #[test]
    fn a_module_without_a_clock_is_not_our_guest() {
        let error = add(b"\0asm\x01\0\0\0\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b").expect_err("refused");
        assert!(error.to_string().contains("the clock"), "{error}");
    }
}
