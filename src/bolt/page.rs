//! The bytes of pages.

use super::{Error, Result};

pub(super) const HEADER: usize = 16;
pub(super) const ELEMENT: usize = 16;
/// Root page and sequence of a bucket.
pub(super) const BUCKET: usize = 16;
pub(super) const META: usize = 64;
pub(super) const MAGIC: u32 = 0xed0c_daed;
pub(super) const VERSION: u32 = 2;
/// Of a leaf's element: its value is a bucket.
pub(super) const IS_BUCKET: u32 = 1;

/// What a page is. The number is its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    Branch = 0x01,
    Leaf = 0x02,
    Meta = 0x04,
    Freelist = 0x10,
}

/// Puts a page's first bytes at the end of `out`.
pub(super) fn put_header(out: &mut Vec<u8>, id: u64, kind: Kind, count: u16, overflow: u32) {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&(kind as u16).to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&overflow.to_le_bytes());
}

/// What a meta page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_bytes: u32,
    /// First page of the bucket of buckets.
    pub(super) root: u64,
    pub(super) freelist: u64,
    /// All pages of the database have a lower number.
    pub(super) pages: u64,
    pub(super) transaction: u64,
}

impl Meta {
    pub(super) fn encode(&self) -> [u8; META] {
        let mut out = [0; META];
        for (at, number) in [MAGIC, VERSION, self.page_bytes, 0].into_iter().enumerate() {
            out[at * 4..][..4].copy_from_slice(&number.to_le_bytes());
        }
        for (at, number) in [self.root, 0, self.freelist, self.pages, self.transaction].into_iter().enumerate() {
            out[16 + at * 8..][..8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = fnv1a(&out[..META - 8]);
        out[META - 8..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads what follows the header of a meta page; `Err` says why it is none.
    pub(super) fn decode(bytes: &[u8; META]) -> std::result::Result<Meta, &'static str> {
        if u32_at(bytes, 0) != MAGIC {
            return Err("there is no mark of bbolt");
        }
        if u32_at(bytes, 4) != VERSION {
            return Err("it is of another version of bbolt");
        }
        if u64_at(bytes, META - 8) != fnv1a(&bytes[..META - 8]) {
            return Err("its checksum is wrong");
        }
        let [root, freelist, pages, transaction] = [16, 32, 40, 48].map(|at| u64_at(bytes, at));
        Ok(Meta { page_bytes: u32_at(bytes, 8), root, freelist, pages, transaction })
    }
}

pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// `at` must be within `bytes`, with 4 bytes to follow: a constant, or checked before.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// As [`u32_at`], with 8 bytes.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

/// The fields of a page's header.
pub(super) struct Header {
    pub(super) id: u64,
    pub(super) flags: u16,
    pub(super) count: u16,
    pub(super) overflow: u32,
}

impl Header {
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Header {
        Header { id: u64_at(bytes, 0), flags: u16_at(bytes, 8), count: u16_at(bytes, 10), overflow: u32_at(bytes, 12) }
    }
}

/// A leaf or branch page that was read. Its header has been checked, its elements are when they are asked for.
pub(super) struct Page {
    pub(super) is_branch: bool,
    pub(super) count: usize,
    /// Where in the file `bytes` begin.
    offset: u64,
    bytes: Vec<u8>,
}

/// An element of a leaf.
pub(super) struct Item<'a> {
    pub(super) is_bucket: bool,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Page {
    /// A page with all that overflows from it; `offset` is where it stands in the file.
    pub(super) fn new(bytes: Vec<u8>, offset: u64) -> Result<Page> {
        let Some(header) = bytes.first_chunk::<HEADER>().map(Header::decode) else {
            return Err(Error::Damaged { offset, what: "a page ends in its header".to_owned() });
        };
        let is_branch = match header.flags {
            flags if flags == Kind::Branch as u16 => true,
            flags if flags == Kind::Leaf as u16 => false,
            flags => {
                let what = format!("a page that is neither branch nor leaf (flags {flags:#x})");
                return Err(Error::Damaged { offset, what });
            }
        };
        let count = usize::from(header.count);
        if HEADER + ELEMENT * count > bytes.len() {
            return Err(Error::Damaged { offset, what: format!("{count} elements are more than fit into the page") });
        }
        Ok(Page { is_branch, count, offset, bytes })
    }

    /// Element `at` of a leaf; `at < count`.
    pub(super) fn item(&self, at: usize) -> Result<Item<'_>> {
        let element = HEADER + ELEMENT * at;
        let [flags, position, key, value] = [0, 4, 8, 12].map(|field| u32_at(&self.bytes, element + field));
        let key_start = element + position as usize;
        let key_end = key_start + key as usize;
        let key = self.slice(element, key_start, key_end)?;
        let value = self.slice(element, key_end, key_end + value as usize)?;
        if key.is_empty() {
            return Err(self.damaged(element, "an empty key"));
        }
        Ok(Item { is_bucket: flags & IS_BUCKET != 0, key, value })
    }

    /// Which page element `at` of a branch leads to; `at < count`.
    pub(super) fn child(&self, at: usize) -> u64 {
        u64_at(&self.bytes, HEADER + ELEMENT * at + 8)
    }

    /// Bytes of the page, with all that overflows from it.
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn damaged(&self, at: usize, what: &str) -> Error {
        Error::Damaged { offset: self.offset + at as u64, what: what.to_owned() }
    }

    /// Sums of 32-bit numbers do not overflow here, but they may point anywhere.
    fn slice(&self, element: usize, start: usize, end: usize) -> Result<&[u8]> {
        let elements_end = HEADER + ELEMENT * self.count;
        match self.bytes.get(start..end) {
            Some(bytes) if start >= elements_end => Ok(bytes),
            _ => Err(self.damaged(element, "an element that points out of its page")),
        }
    }
}
