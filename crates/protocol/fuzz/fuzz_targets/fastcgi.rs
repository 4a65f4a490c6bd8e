//! How FastCGI is split up makes no difference to what is found in it; what holds of that is in tests/found.
#![no_main]

#[path = "../../tests/found/fastcgi.rs"]
mod found;
mod split;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    split::makes_no_difference(data, |pieces| found::found(4096, pieces));
});
