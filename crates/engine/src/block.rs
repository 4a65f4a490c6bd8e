//! The block: (u16 little-endian length, bytes) key, value, key, value..., as in a uwsgi packet's vars.

/// Appends one pair.
///
/// # Panics
/// If a part is longer than 65,535 bytes: for what the engine itself writes, whose lengths are checked before.
pub(crate) fn push(block: &mut Vec<u8>, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
    for part in [key.as_ref(), value.as_ref()] {
        let length = u16::try_from(part.len()).expect("a block's parts are checked to fit 16 bits");
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(part);
    }
}

/// Takes one length-prefixed part off the front; `None` if it is cut short.
pub(crate) fn take<'a>(block: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = block.split_first_chunk::<2>()?;
    let (part, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    *block = rest;
    Some(part)
}

/// Key and value of each whole pair.
pub(crate) fn pairs(mut block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || Some((take(&mut block)?, take(&mut block)?)))
}

/// Whether `block` is whole pairs from end to end. The guest's entry relies on it.
pub(crate) fn is_whole(mut block: &[u8]) -> bool {
    while !block.is_empty() {
        if take(&mut block).is_none() || take(&mut block).is_none() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_as_they_were_pushed() {
        let mut block = Vec::new();
        push(&mut block, "REQUEST_METHOD", "GET");
        push(&mut block, "QUERY_STRING", "");
        assert!(is_whole(&block));
        assert_eq!(pairs(&block).next(), Some((&b"REQUEST_METHOD"[..], &b"GET"[..])));
        assert_eq!(pairs(&block).count(), 2);
        let mut rest = &block[..];
        let parts: Vec<_> = std::iter::from_fn(|| take(&mut rest)).collect();
        assert_eq!(parts, [&b"REQUEST_METHOD"[..], b"GET", b"QUERY_STRING", b""]);
    }

    #[test]
    fn a_block_cut_anywhere_but_between_pairs_is_not_whole() {
        let mut block = Vec::new();
        push(&mut block, "A", "1");
        let pair = block.len();
        push(&mut block, "BB", "22");
        for end in 1..block.len() {
            assert_eq!(is_whole(&block[..end]), end == pair, "cut at {end}");
        }
    }
}
