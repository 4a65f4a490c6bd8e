//! How HTTP/1 is split up makes no difference to what is found in it; what holds of that is in tests/found.
#![no_main]

#[path = "../../tests/found/http.rs"]
mod found;
mod split;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    split::makes_no_difference(data, |pieces| found::found(4096, pieces));
});
