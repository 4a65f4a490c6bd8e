//! Names and values: 3.4, "Name-Value Pairs".

use super::{GET_VALUES_RESULT, header};
use crate::environ::EnvironBlock;
use crate::gateway::Refusal;

/// The variables of a request's params as an environ block.
pub(super) fn block(params: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut block = EnvironBlock::with_capacity(params.len() + params.len() / 8);
    let mut rest = params;
    while !rest.is_empty() {
        let (name, value) = pair(&mut rest)?;
        block.push(name, value).map_err(|_| Refusal::TooLong)?;
    }
    Ok(block.into_bytes())
}

/// Takes a name and its value off the front.
fn pair<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Refusal> {
    let (name, value) = (length(rest)?, length(rest)?);
    let mut take = |length| -> Result<&'a [u8], Refusal> {
        let (taken, after) = rest.split_at_checked(length).ok_or(Refusal::Params)?;
        *rest = after;
        Ok(taken)
    };
    Ok((take(name)?, take(value)?))
}

/// A byte below 128, or four of which the first has its highest bit set.
fn length(rest: &mut &[u8]) -> Result<usize, Refusal> {
    let (length, after) = match **rest {
        [short @ 0..=0x7f, ref after @ ..] => (usize::from(short), after),
        [a, b, c, d, ref after @ ..] => {
            let long = u32::from_be_bytes([a & 0x7f, b, c, d]);
            (usize::try_from(long).map_err(|_| Refusal::Params)?, after)
        }
        _ => return Err(Refusal::Params),
    };
    *rest = after;
    Ok(length)
}

/// The answer to FCGI_GET_VALUES (4.1): of what is asked for, what is known.
pub(super) fn values(asked: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut known = Vec::new();
    let mut rest = asked;
    while !rest.is_empty() {
        let (name, _) = pair(&mut rest)?;
        // One request at a time on a connection.
        if name == b"FCGI_MPXS_CONNS" && known.is_empty() {
            known.extend_from_slice(b"\x0f\x01FCGI_MPXS_CONNS0");
        }
    }
    let mut record = header(GET_VALUES_RESULT, 0, known.len()).to_vec();
    record.extend(known);
    Ok(record)
}
