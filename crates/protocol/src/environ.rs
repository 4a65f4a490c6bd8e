//! The environ block: a request's environ as bytes, the way a uwsgi packet carries it.

/// Builds an environ block: (u16 little-endian length, bytes) key, value, key, value...
///
/// Values are raw bytes. Keys are written as given; a repeated key is the caller's mistake.
///
/// Source: uwsgi protocol, "The uwsgi vars".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironBlock {
    bytes: Vec<u8>,
}

/// A key or value is longer than a block can say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {length} bytes do not fit an environ block, whose keys and values have at most 65,535 each")]
pub struct TooLong {
    /// The key, or its first 64 bytes.
    pub key: String,
    /// Length of what does not fit, in bytes.
    pub length: usize,
}

/// What [`iter`] refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{what} runs past the environ block (offset {offset} of {length})")]
pub struct Broken {
    /// "key" or "value".
    pub what: &'static str,
    /// Where its length field is.
    pub offset: usize,
    /// Length of the block.
    pub length: usize,
}

impl EnvironBlock {
    /// An empty block with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
        }
    }

    /// Adds one key and its value.
    ///
    /// # Errors
    /// [`TooLong`] when one of them has more than 65,535 bytes; the block is then as before.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), TooLong> {
        self.push_parts(&[key], &[value])
    }

    /// As [`push`](Self::push), with key and value given in parts that are put together.
    pub(crate) fn push_parts(&mut self, key: &[&[u8]], value: &[&[u8]]) -> Result<(), TooLong> {
        let start = self.bytes.len();
        for parts in [key, value] {
            let length = parts.iter().map(|part| part.len()).sum::<usize>();
            let Ok(short) = u16::try_from(length) else {
                self.bytes.truncate(start);
                return Err(TooLong {
                    key: shown(key),
                    length,
                });
            };
            self.bytes.extend_from_slice(&short.to_le_bytes());
            for part in parts {
                self.bytes.extend_from_slice(part);
            }
        }
        Ok(())
    }

    /// Adds a key in parts, and a value that `write` appends to the block's bytes.
    pub(crate) fn push_with(
        &mut self,
        key: &[&[u8]],
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), TooLong> {
        let start = self.bytes.len();
        self.push_parts(key, &[])?;
        let value = self.bytes.len();
        write(&mut self.bytes);
        let length = self.bytes.len() - value;
        match u16::try_from(length) {
            Ok(short) => {
                self.bytes[value - 2..value].copy_from_slice(&short.to_le_bytes());
                Ok(())
            }
            Err(_) => {
                self.bytes.truncate(start);
                Err(TooLong {
                    key: shown(key),
                    length,
                })
            }
        }
    }

    /// The block.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The block so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn shown(key: &[&[u8]]) -> String {
    let key: Vec<u8> = key
        .iter()
        .flat_map(|part| part.iter().copied())
        .take(64)
        .collect();
    String::from_utf8_lossy(&key).into_owned()
}

/// Walks the (key, value) pairs of a block in wire order.
///
/// After an error nothing more comes.
pub fn iter(block: &[u8]) -> Pairs<'_> {
    Pairs { block, offset: 0 }
}

/// The pairs of a block; made by [`iter`].
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    block: &'a [u8],
    offset: usize,
}

impl<'a> Pairs<'a> {
    fn take(&mut self, what: &'static str) -> Result<&'a [u8], Broken> {
        let broken = Broken {
            what,
            offset: self.offset,
            length: self.block.len(),
        };
        let (length, rest) = self.block[self.offset..].split_first_chunk::<2>().ok_or(broken)?;
        let length = usize::from(u16::from_le_bytes(*length));
        let found = rest.get(..length).ok_or(broken)?;
        self.offset += 2 + length;
        Ok(found)
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset == self.block.len() {
            return None;
        }
        let pair = self.take("key").and_then(|key| Ok((key, self.take("value")?)));
        if pair.is_err() {
            self.offset = self.block.len();
        }
        Some(pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_the_bytes_of_uwsgi_vars() {
        let mut block = EnvironBlock::default();
        block.push(b"REQUEST_METHOD", b"GET").unwrap();
        block.push(b"A", b"").unwrap();
        assert_eq!(block.as_bytes(), b"\x0e\0REQUEST_METHOD\x03\0GET\x01\0A\0\0");
        let pairs: Vec<_> = iter(block.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(pairs, [(&b"REQUEST_METHOD"[..], &b"GET"[..]), (b"A", b"")]);
    }

    #[test]
    fn the_longest_value_fits_and_one_more_byte_leaves_the_block_as_it_was() {
        let mut block = EnvironBlock::default();
        block.push(b"K", &[b'x'; 65_535]).unwrap();
        let before = block.clone();
        let error = block.push(b"KEY", &[b'x'; 65_536]).unwrap_err();
        assert_eq!((error.key.as_str(), error.length), ("KEY", 65_536));
        let error = block
            .push_with(&[b"KEY"], |value| value.extend([b'x'; 65_536]))
            .unwrap_err();
        assert_eq!(error.length, 65_536);
        assert!(block.push(&[b'K'; 65_536], b"").is_err());
        assert_eq!(block, before);
    }

    #[test]
    fn a_cut_block_names_the_offset_and_ends() {
        let block = b"\x01\0A\x05\0abc";
        let mut pairs = iter(block);
        assert_eq!(
            pairs.next(),
            Some(Err(Broken {
                what: "value",
                offset: 3,
                length: 8
            }))
        );
        assert_eq!(pairs.next(), None);
        assert!(iter(b"\x01").next().unwrap().is_err());
    }
}
