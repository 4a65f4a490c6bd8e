//! How a connection's bytes come in pieces.

use std::fmt::Debug;

/// What is found in `data` must be the same however it is split up. Its first byte says where.
pub fn makes_no_difference<T: PartialEq + Debug>(data: &[u8], found: impl Fn(&[&[u8]]) -> T) {
    let Some((&at, data)) = data.split_first() else {
        return;
    };
    let whole = found(&[data]);
    let (start, end) = data.split_at(usize::from(at) % (data.len() + 1));
    assert_eq!(found(&[start, end]), whole, "split at {}", start.len());
    let bytes: Vec<_> = data.chunks(1).collect();
    assert_eq!(found(&bytes), whole, "byte by byte");
}
