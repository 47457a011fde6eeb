//! What is on the medium: sparse, shared between forks, copied when written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::limits::{CHUNK_PAGES, PAGE_BYTES};

/// The contents of a disk. Cloning costs one pointer for each MiB that was ever written; the clones
/// share their pages until one of them is written. Bytes that nobody wrote read as zeroes.
#[derive(Clone)]
pub struct Image {
    byte_len: u64,
    pages: u64,
    chunks: BTreeMap<u64, Arc<Chunk>>,
}

type Page = [u8; PAGE_BYTES];

#[derive(Clone)]
struct Chunk {
    pages: Vec<Option<Arc<Page>>>,
    used: usize,
}

impl Image {
    /// An empty medium of `byte_len` bytes. It takes memory only for what is written.
    pub fn new(byte_len: u64) -> Image {
        Image { byte_len, pages: 0, chunks: BTreeMap::new() }
    }

    /// The size of the medium, in bytes.
    pub fn byte_len(&self) -> u64 {
        self.byte_len
    }

    /// The bytes that take memory, in whole 4 KiB pages.
    pub fn allocated_bytes(&self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }

    /// Fills `into` from `offset` on.
    ///
    /// # Panics
    /// When the range does not lie on the medium.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        self.check(offset, into.len() as u64);
        for piece in pieces(offset, into.len() as u64, PAGE_BYTES as u64) {
            let target = &mut into[piece.relative_to(offset)];
            match self.page(piece.unit) {
                Some(page) => target.copy_from_slice(&page[piece.inside()]),
                None => target.fill(0),
            }
        }
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Panics
    /// When the range does not lie on the medium.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.check(offset, bytes.len() as u64);
        for piece in pieces(offset, bytes.len() as u64, PAGE_BYTES as u64) {
            let source = &bytes[piece.relative_to(offset)];
            self.page_mut(piece.unit)[piece.inside()].copy_from_slice(source);
        }
    }

    /// Writes zeroes on `len` bytes from `offset` on, giving whole pages back.
    ///
    /// # Panics
    /// When the range does not lie on the medium.
    pub fn zero(&mut self, offset: u64, len: u64) {
        self.check(offset, len);
        let end = offset + len;
        let page_bytes = PAGE_BYTES as u64;
        let chunk_bytes = page_bytes * CHUNK_PAGES as u64;
        let first = offset / chunk_bytes;
        let chunks: Vec<u64> =
            self.chunks.range(first..end.div_ceil(chunk_bytes)).map(|(&chunk, _)| chunk).collect();
        for chunk in chunks {
            let from = offset.max(chunk * chunk_bytes);
            let to = end.min((chunk + 1) * chunk_bytes);
            for piece in pieces(from, to - from, page_bytes) {
                if self.page(piece.unit).is_none() {
                    continue;
                }
                if piece.len == page_bytes {
                    self.forget(piece.unit);
                } else {
                    self.page_mut(piece.unit)[piece.inside()].fill(0);
                }
            }
        }
    }

    /// Flips the bits of `mask` in the byte at `offset`: bit rot.
    ///
    /// # Panics
    /// When the byte does not lie on the medium.
    pub fn flip(&mut self, offset: u64, mask: u8) {
        let mut byte = [0];
        self.read(offset, &mut byte);
        self.write(offset, &[byte[0] ^ mask]);
    }

    /// How many pages a write of this range would allocate.
    pub(crate) fn new_pages(&self, offset: u64, len: u64) -> u64 {
        let missing = |piece: &Piece| self.page(piece.unit).is_none();
        pieces(offset, len, PAGE_BYTES as u64).filter(missing).count() as u64
    }

    fn check(&self, offset: u64, len: u64) {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.byte_len), "the range lies on the medium");
    }

    fn page(&self, page: u64) -> Option<&Page> {
        let (chunk, index) = place(page);
        self.chunks.get(&chunk)?.pages[index].as_deref()
    }

    fn page_mut(&mut self, page: u64) -> &mut Page {
        let (chunk, index) = place(page);
        let empty = || Arc::new(Chunk { pages: vec![None; CHUNK_PAGES], used: 0 });
        let chunk = Arc::make_mut(self.chunks.entry(chunk).or_insert_with(empty));
        let slot = &mut chunk.pages[index];
        if slot.is_none() {
            chunk.used += 1;
            self.pages += 1;
        }
        Arc::make_mut(slot.get_or_insert_with(|| Arc::new([0; PAGE_BYTES])))
    }

    fn forget(&mut self, page: u64) {
        let (number, index) = place(page);
        let Some(chunk) = self.chunks.get_mut(&number) else { return };
        let chunk = Arc::make_mut(chunk);
        if chunk.pages[index].take().is_some() {
            chunk.used -= 1;
            self.pages -= 1;
        }
        if chunk.used == 0 {
            self.chunks.remove(&number);
        }
    }
}

impl PartialEq for Image {
    /// Compares contents: a page of zeroes equals a missing one.
    fn eq(&self, other: &Image) -> bool {
        let covers = |a: &Image, b: &Image| {
            a.chunks.iter().all(|(&number, chunk)| {
                if b.chunks.get(&number).is_some_and(|same| Arc::ptr_eq(same, chunk)) {
                    return true;
                }
                (number * CHUNK_PAGES as u64..).zip(&chunk.pages).all(|(page, bytes)| {
                    bytes.as_deref().unwrap_or(&ZEROES) == b.page(page).unwrap_or(&ZEROES)
                })
            })
        };
        self.byte_len == other.byte_len && covers(self, other) && covers(other, self)
    }
}

impl Eq for Image {}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} bytes, {} allocated)", self.byte_len, self.allocated_bytes())
    }
}

/// A part of a byte range inside one unit (a page, a sector).
pub(crate) struct Piece {
    /// Which unit.
    pub(crate) unit: u64,
    /// Absolute offset of the part, in bytes.
    pub(crate) offset: u64,
    /// Length of the part, in bytes.
    pub(crate) len: u64,
    unit_bytes: u64,
}

impl Piece {
    /// Where the part lies in a buffer that starts at the absolute offset `start`.
    pub(crate) fn relative_to(&self, start: u64) -> std::ops::Range<usize> {
        let from = index(self.offset - start);
        from..from + index(self.len)
    }

    fn inside(&self) -> std::ops::Range<usize> {
        let from = index(self.offset - self.unit * self.unit_bytes);
        from..from + index(self.len)
    }
}

/// The parts of a byte range, cut at multiples of `unit_bytes`.
pub(crate) fn pieces(offset: u64, len: u64, unit_bytes: u64) -> impl Iterator<Item = Piece> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at == end {
            return None;
        }
        let unit = at / unit_bytes;
        let until = end.min((unit + 1) * unit_bytes);
        let piece = Piece { unit, offset: at, len: until - at, unit_bytes };
        at = until;
        Some(piece)
    })
}

fn place(page: u64) -> (u64, usize) {
    (page / CHUNK_PAGES as u64, index(page % CHUNK_PAGES as u64))
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("an offset inside a buffer or a page")
}

static ZEROES: Page = [0; PAGE_BYTES];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn big_and_empty_costs_nothing() {
        let mut image = Image::new(64 << 40);
        image.write((64 << 40) - 3, b"end");
        assert_eq!(image.allocated_bytes(), 4096);
        let mut bytes = [9; 5];
        image.read((64 << 40) - 5, &mut bytes);
        assert_eq!(&bytes, b"\0\0end");
        image.zero(0, 64 << 40);
        assert_eq!(image.allocated_bytes(), 0);
    }

    #[test]
    fn forks_do_not_see_each_other() {
        let mut image = Image::new(1 << 20);
        image.write(4000, &[7; 200]);
        let mut fork = image.clone();
        fork.write(4090, &[8; 10]);
        fork.flip(0, 1);
        let mut bytes = [0; 2];
        image.read(4090, &mut bytes);
        assert_eq!(bytes, [7, 7]);
        assert_ne!(image, fork);
        fork.flip(0, 1);
        fork.write(4090, &[7; 10]);
        assert_eq!(image, fork);
    }

    #[test]
    fn zeroing_part_of_a_page_keeps_the_rest() {
        let mut image = Image::new(1 << 20);
        image.write(0, &[1; 12288]);
        image.zero(4000, 5000);
        let mut bytes = vec![0; 12288];
        image.read(0, &mut bytes);
        let zero_at = |i: usize| (4000..9000).contains(&i);
        assert!(bytes.iter().enumerate().all(|(i, &byte)| (byte == 0) == zero_at(i)));
        assert_eq!(image.allocated_bytes(), 8192);
    }
}
