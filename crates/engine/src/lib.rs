//! Runs WSGI applications on one CPython compiled to WebAssembly.
//!
//! An [`Engine`] holds the compiled interpreter; [`Engine::app`] binds it to what one app may see ([`AppSpec`]);
//! [`App::start`] makes an [`Instance`], and [`Instance::handle`] takes it through one request.
//!
//! The engine knows the environ block and the bytes of a reply. It does not know HTTP, configuration files or the
//! names of apps on a server.

mod abi;
mod allocator;
mod app;
mod background;
mod block;
mod checked_images;
mod checks;
mod clock;
mod code_cache;
mod cpu;
mod early_pages;
mod engine;
mod exchange;
mod fair;
mod files;
mod first_start;
mod folder_state;
mod guest;
mod guest_module;
mod host;
mod image;
mod image_cache;
mod image_file;
mod image_key;
mod instance;
mod lines;
mod local;
mod locks;
mod looks;
mod memory;
mod minute;
mod mounts;
mod private_folder;
mod python;
mod python_stack;
mod quota;
mod repeats;
mod reply;
mod rewind;
mod room;
mod scratch;
mod snapshot;
mod spec;
mod stack_log;
mod ticker;
mod ticks;
mod time_limit;
mod track;
mod warmup;
mod wasi;

pub use allocator::give_back_memory;
pub use app::{App, StartError};
pub use engine::{Engine, EngineError, WASMTIME_VERSION};
pub use exchange::{
    AppLog, BodyError, Failure, FilePart, PeerGone, ReplyHead, ReplySink, Request, RequestBody,
};
pub use first_start::{BuildError, NotStored};
pub use guest::{Exchange, Sent};
pub use guest_module::ModuleError;
pub use image_cache::StoredImage;
pub use instance::{Instance, Report, RewindError, Rewound, WhyNot};
pub use local::{Keeper, Kept};
pub use mounts::MountError;
pub use python::PythonFiles;
pub use repeats::{COUNTED, News, Repeats};
pub use rewind::open_pagemap;
pub use room::{HeldRoom, Room};
pub use spec::{AppSpec, Entry, Isolation, Limits, Mount, Quota, Secret};
pub use track::{At, Track};
