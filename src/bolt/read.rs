//! Reading a database: bucket by bucket, in the order of keys.

use super::{
    Error, Result,
    page::{BUCKET, HEADER, Header, Item, META, Meta, Page, u64_at},
};
use std::{io, ops::ControlFlow};

/// Page sizes that are tried where the first meta page does not tell.
const PAGE_BYTES_MIN: u64 = 512;
const PAGE_BYTES_MAX: u64 = 1 << 20;
/// Deeper than any tree with two children a branch can be.
const DEPTH_MAX: usize = 64;
/// Most bytes that one page may take with what overflows from it; etcd's largest requests are far smaller.
const RUN_BYTES_MAX: u64 = 1 << 30;

/// Who is shown key and value of one row after the other, and says whether to go on.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;
/// Who is shown each item of a tree, and where it stands.
type VisitItem<'a> = &'a mut dyn FnMut(&Page, usize, Item<'_>) -> Result<ControlFlow<()>>;

/// Where the bytes of a database are.
pub trait ReadAt {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// How many bytes there are.
    fn bytes(&self) -> io::Result<u64>;
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// A database, open for reading.
pub struct Reader<'a, R: ReadAt + ?Sized> {
    source: &'a R,
    meta: Meta,
}

/// A bucket of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: Vec<u8>,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Page(u64),
    /// The page itself, and where in the file it stands.
    Inline(Vec<u8>, u64),
}

impl<'a, R: ReadAt + ?Sized> Reader<'a, R> {
    /// Takes the newer of the two meta pages that is whole. Bytes after the database (such as a hash) are no harm.
    ///
    /// # Errors
    /// [`Error::Foreign`] if neither is, [`Error::Damaged`] if the file is shorter than the meta page says.
    pub fn open(source: &'a R) -> Result<Reader<'a, R>> {
        let bytes = source.bytes().map_err(|source| Error::Io { offset: 0, source })?;
        let first = meta_at(source, 0)?;
        let second = match first {
            Ok(meta) => meta_at(source, u64::from(meta.page_bytes))?.ok(),
            Err(_) => {
                // A torn write of the first: the second is one page further, however long that is.
                let mut sizes = (9..=20).map(|power| 1_u64 << power);
                sizes.find_map(|at| meta_at(source, at).ok()?.ok().filter(|meta| u64::from(meta.page_bytes) == at))
            }
        };
        let meta = match (first, second) {
            (Ok(first), Some(second)) if second.transaction > first.transaction => second,
            (Ok(first), _) => first,
            (Err(_), Some(second)) => second,
            (Err(why), None) => return Err(Error::Foreign(format!("this is no bbolt database: {why}"))),
        };
        let page_bytes = u64::from(meta.page_bytes);
        if !page_bytes.is_power_of_two() || !(PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes) {
            return Err(Error::Foreign(format!("pages of {page_bytes} bytes are not supported")));
        }
        match meta.pages.checked_mul(page_bytes) {
            Some(expected) if expected <= bytes => Ok(Reader { source, meta }),
            _ => {
                let what = format!("the file ends here, but should have {} pages of {page_bytes} bytes", meta.pages);
                Err(Error::Damaged { offset: bytes, what })
            }
        }
    }

    /// Bytes of the database; the file may be longer.
    pub fn database_bytes(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_bytes)
    }

    /// All buckets, in the order of their names.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Damaged`].
    pub fn buckets(&self) -> Result<Vec<Bucket>> {
        let mut buckets = Vec::new();
        let root = self.page(self.meta.root)?;
        self.walk(root, &mut |page, at, item| {
            match bucket(page, at, &item) {
                Ok(bucket) => buckets.push(bucket),
                Err(error) => return Err(error),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(buckets)
    }

    /// Calls `visit(key, value)` for what is in a bucket, in ascending order of keys, until it breaks or the bucket ends.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Damaged`]; a bucket within the bucket counts as damage.
    pub fn scan(&self, bucket: &Bucket, visit: Visit<'_>) -> Result<()> {
        let root = match &bucket.place {
            Place::Page(id) => self.page(*id)?,
            Place::Inline(bytes, offset) => {
                let page = Page::new(bytes.clone(), *offset)?;
                if page.is_branch {
                    return Err(page.damaged(0, "a branch page inside of a leaf"));
                }
                page
            }
        };
        self.walk(root, &mut |page, at, item| match item.is_bucket {
            true => Err(page.damaged(HEADER + at * 16, "a bucket within a bucket, which etcd never makes")),
            false => Ok(visit(item.key, item.value)),
        })
    }

    /// Visits all items below a page. Keys must ascend, which also ends any walk through pages that refer to each other in a circle. In a
    /// sound tree neither pages nor items overlap, so all of them together are no larger than the file: that bounds what a walk holds, what it
    /// reads, and what it shows.
    fn walk(&self, root: Page, visit: VisitItem<'_>) -> Result<()> {
        let mut pages_left = self.database_bytes().saturating_sub(root.len());
        let mut items_left = self.database_bytes();
        let mut stack = vec![(root, 0)];
        let mut last_key = Vec::new();
        while let Some((page, at)) = stack.last_mut() {
            if *at == page.count {
                stack.pop();
                continue;
            }
            *at += 1;
            let at = *at - 1;
            if page.is_branch {
                let child = self.page(page.child(at))?;
                pages_left = match pages_left.checked_sub(child.len()) {
                    Some(left) => left,
                    None => return Err(child.damaged(0, "pages that overlap")),
                };
                if stack.len() == DEPTH_MAX {
                    return Err(child.damaged(0, "a tree that is deeper than any can be"));
                }
                if child.count == 0 {
                    return Err(child.damaged(0, "a page without elements below a branch"));
                }
                stack.push((child, 0));
                continue;
            }
            let item = page.item(at)?;
            if item.key <= &last_key[..] {
                return Err(page.damaged(HEADER + at * 16, "a key that is not greater than the one before"));
            }
            items_left = match items_left.checked_sub((item.key.len() + item.value.len()) as u64) {
                Some(left) => left,
                None => return Err(page.damaged(HEADER + at * 16, "items that overlap")),
            };
            last_key.clear();
            last_key.extend_from_slice(item.key);
            if visit(page, at, item)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// A leaf or branch page with all that overflows from it.
    fn page(&self, id: u64) -> Result<Page> {
        let page_bytes = u64::from(self.meta.page_bytes);
        if id < 2 || id >= self.meta.pages {
            return Err(Error::Damaged { offset: 0, what: format!("a reference to page {id}, which does not exist") });
        }
        let offset = id * page_bytes;
        let mut head = [0; HEADER];
        self.read(offset, &mut head)?;
        let header = Header::decode(&head);
        if header.id != id {
            return Err(Error::Damaged { offset, what: format!("page {id} says that it is page {}", header.id) });
        }
        let run = u64::from(header.overflow) + 1;
        if run > self.meta.pages - id || run * page_bytes > RUN_BYTES_MAX {
            return Err(Error::Damaged { offset, what: format!("a page that goes on for {run} pages") });
        }
        let len = usize::try_from(run * page_bytes).expect("at most a gigabyte");
        let mut bytes = vec![0; len];
        self.read(offset, &mut bytes)?;
        Page::new(bytes, offset)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        read_exactly(self.source, offset, buffer).map_err(|source| Error::Io { offset, source })
    }
}

fn read_exactly(source: &(impl ReadAt + ?Sized), offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read_at(offset + filled as u64, &mut buffer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(())
}

/// The meta page at `offset`; the inner `Err` says why there is none.
fn meta_at(source: &(impl ReadAt + ?Sized), offset: u64) -> Result<std::result::Result<Meta, &'static str>> {
    let mut bytes = [0; HEADER + META];
    match read_exactly(source, offset, &mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Err("it is too short")),
        Err(source) => return Err(Error::Io { offset, source }),
    }
    Ok(Meta::decode(bytes[HEADER..].first_chunk().expect("as long as a meta page")))
}

fn bucket(page: &Page, at: usize, item: &Item<'_>) -> Result<Bucket> {
    let damaged = |what| page.damaged(HEADER + at * 16, what);
    if !item.is_bucket {
        return Err(damaged("a key outside of any bucket"));
    }
    if item.value.len() < BUCKET {
        return Err(damaged("a bucket without a place"));
    }
    let place = match u64_at(item.value, 0) {
        0 => Place::Inline(item.value[BUCKET..].to_vec(), page.offset()),
        id => Place::Page(id),
    };
    Ok(Bucket { name: item.key.to_vec(), place })
}
