//! A loaded app as memory: what every worker of it comes from.

use std::io;
use std::sync::Arc;

use rand::RngExt;
use wasmtime::{Store, Val};

use crate::clock::{Clock, Moment};
use crate::early_pages::EarlyPages;
use crate::guest::Guest;
use crate::guest_module::STACK_POINTER;
use crate::image::Image;
use crate::time_limit::InterruptWords;

/// Most places with entropy of their own that a guest may name.
pub(crate) const MAX_ENTROPY: usize = 1024;

/// An app at the end of its start: memory, and the little state beside it.
pub(crate) struct Snapshot {
    pub(crate) image: Arc<Image>,
    pub(crate) manifest: Manifest,
    /// What every copy reads as its monotonic clock.
    pub(crate) clock: Clock,
}

/// What a snapshot holds beside memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) stack_pointer: i32,
    pub(crate) interrupt_words: Option<InterruptWords>,
    /// Address and length of what each copy has random bytes of its own in.
    pub(crate) entropy: Vec<(u32, u32)>,
    /// What a request writes, as far as one was tried.
    pub(crate) early: EarlyPages,
    pub(crate) taken: Moment,
}

impl Snapshot {
    /// Takes the state of an instance whose app has been sealed and that is not running.
    ///
    /// What it has unchanged of `bare`, which the instance was made from, it takes from there.
    pub(crate) fn take(
        store: &mut Store<Guest>,
        instance: &wasmtime::Instance,
        bare: &Arc<Image>,
    ) -> io::Result<Self> {
        let guest = store.data_mut();
        let entropy = std::mem::take(&mut guest.entropy);
        let interrupt_words = guest.interrupt_words;
        let clock = guest.clock;
        let memory = guest
            .memory
            .ok_or_else(|| io::Error::other("the guest has no memory"))?;
        let image = Image::of_memory(memory.data(&*store), Some(bare))?;
        let stack_pointer = instance
            .get_global(&mut *store, STACK_POINTER)
            .and_then(|global| global.get(&mut *store).i32())
            .ok_or_else(|| io::Error::other("the guest has no stack pointer"))?;
        Ok(Self {
            image: Arc::new(image),
            manifest: Manifest {
                stack_pointer,
                interrupt_words,
                entropy,
                early: EarlyPages::default(),
                taken: clock.moment(),
            },
            clock,
        })
    }

    /// Brings an instance made from the image to the snapshot's state.
    pub(crate) fn restore(
        &self,
        store: &mut Store<Guest>,
        instance: &wasmtime::Instance,
    ) -> wasmtime::Result<()> {
        let memory = store
            .data()
            .memory
            .ok_or_else(|| wasmtime::format_err!("the guest has no memory"))?;
        let missing = self.image.len() - memory.data_size(&*store);
        memory.grow(&mut *store, (missing / crate::guest_module::WASM_PAGE) as u64)?;
        self.manifest.early.fetch(memory.data_mut(&mut *store));
        if let Some(global) = instance.get_global(&mut *store, STACK_POINTER) {
            global.set(&mut *store, Val::I32(self.manifest.stack_pointer))?;
        }
        store.data_mut().interrupt_words = self.manifest.interrupt_words;
        self.refresh_entropy(store);
        Ok(())
    }

    /// Gives a copy, new or rewound, random bytes of its own.
    pub(crate) fn refresh_entropy(&self, store: &mut Store<Guest>) {
        let Some(memory) = store.data().memory else { return };
        let bytes = memory.data_mut(store);
        for &(at, length) in &self.manifest.entropy {
            if let Some(words) = bytes
                .get_mut(at as usize..)
                .and_then(|rest| rest.get_mut(..length as usize))
            {
                rand::rng().fill(words);
            }
        }
    }
}
