//! The bytes of a member's row, and of the row that says who votes.
//!
//! ```text
//! member     1 | name | n | peer url … | n | client url …       a member that left: 0
//! membership 1 | auto_leave | n voters … | n learners … | n outgoing … | n learners next …
//! ```
//! Strings are a length and bytes, counts and lengths are 4 bytes, ids are 8, all little endian. The first byte is the format.

use super::Record;
use crate::types::{ConfState, MemberId};
use bytes::{Buf, BufMut, Bytes};

const LEFT: u8 = 0;
const FORMAT: u8 = 1;

/// `None` is a member that left.
pub(super) fn encode_record(record: Option<&Record>) -> Bytes {
    let Some(record) = record else { return Bytes::from_static(&[LEFT]) };
    let mut out = vec![FORMAT];
    put_string(&mut out, &record.name);
    for urls in [&record.peer_urls, &record.client_urls] {
        out.put_u32_le(urls.len() as u32);
        urls.iter().for_each(|url| put_string(&mut out, url));
    }
    out.into()
}

/// `Some(None)` is a member that left, `None` a row that is none of ours.
pub(super) fn decode_record(mut row: &[u8]) -> Option<Option<Record>> {
    let row = &mut row;
    match row.try_get_u8().ok()? {
        LEFT => Some(None),
        FORMAT => {
            let name = get_string(row)?;
            let peer_urls = get_list(row, get_string)?;
            let client_urls = get_list(row, get_string)?;
            row.is_empty().then_some(Some(Record { name, peer_urls, client_urls }))
        }
        _ => None,
    }
}

pub(super) fn encode_conf_state(state: &ConfState) -> Bytes {
    let mut out = vec![FORMAT, state.auto_leave.into()];
    for ids in [&state.voters, &state.learners, &state.voters_outgoing, &state.learners_next] {
        out.put_u32_le(ids.len() as u32);
        ids.iter().for_each(|id| out.put_u64_le(id.0));
    }
    out.into()
}

/// Who votes and who learns, from its row; `None` if it is none of ours.
pub fn decode_conf_state(mut row: &[u8]) -> Option<ConfState> {
    let row = &mut row;
    if row.try_get_u8().ok()? != FORMAT {
        return None;
    }
    let auto_leave = row.try_get_u8().ok()? != 0;
    let id = |row: &mut &[u8]| row.try_get_u64_le().ok().map(MemberId);
    let (voters, learners) = (get_list(row, id)?, get_list(row, id)?);
    let (voters_outgoing, learners_next) = (get_list(row, id)?, get_list(row, id)?);
    row.is_empty().then_some(ConfState { voters, learners, voters_outgoing, learners_next, auto_leave })
}

fn put_string(out: &mut Vec<u8>, string: &str) {
    out.put_u32_le(string.len() as u32);
    out.put_slice(string.as_bytes());
}

fn get_string(row: &mut &[u8]) -> Option<String> {
    let length = row.try_get_u32_le().ok()? as usize;
    let bytes = row.split_off(..length)?;
    String::from_utf8(bytes.to_vec()).ok()
}

/// Collects without reserving: the count is not to be trusted before the items have been seen.
fn get_list<T>(row: &mut &[u8], item: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = row.try_get_u32_le().ok()?;
    (0..count).map(|_| item(row)).collect()
}
