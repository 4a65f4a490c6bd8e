//! How a uwsgi packet is split up makes no difference to what is found in it; what holds of that is in tests/found.
#![no_main]

#[path = "../../tests/found/gateway.rs"]
mod found;
mod split;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    split::makes_no_difference(data, |pieces| {
        found::found(wasgi_protocol::uwsgi::head, 4096, pieces)
    });
});
