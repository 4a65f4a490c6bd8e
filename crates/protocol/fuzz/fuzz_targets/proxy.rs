//! How a header of the PROXY protocol is split up makes no difference to what is found in it; what holds of that is in
//! tests/found.
#![no_main]

#[path = "../../tests/found/proxy.rs"]
mod found;
mod split;

libfuzzer_sys::fuzz_target!(|data: &[u8]| split::makes_no_difference(data, found::found));
