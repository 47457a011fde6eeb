//! Damage that leaves one good copy: of each page of metadata one copy at most, and one copy of the
//! superblock while both say the same. Nobody may notice but the log of events.

use std::collections::HashMap;

use bdev::Rng;
use bdev_sim::{Image, SimDisk};
use store::format::Superblock;

/// What is done to the copies of a disk's metadata.
pub(crate) struct Scars {
    rng: Rng,
    /// Whether the first or the second copy of pages suffers: never both.
    is_first: bool,
    /// What a copy of the superblock was at an earlier start, and which copy.
    former: Option<(u64, Vec<u8>)>,
}

/// Bytes in a page, and in an extent.
const PAGE: u64 = 4096;
/// Where the copies of the superblock are; their checksums, and which copy they are, differ.
const SUPERS: [u64; 2] = [0, store::EXTENT_BYTES];
const SUPER_CRC: std::ops::Range<usize> = 8..12;
const SUPER_SLOT: std::ops::Range<usize> = 236..240;
/// How a page of metadata begins, and where it says which page it is.
const PAGE_MAGIC: [u8; 4] = *b"HFPG";
const PAGE_NUMBER: std::ops::Range<usize> = 32..40;

impl Scars {
    pub(crate) fn new(mut rng: Rng) -> Scars {
        let is_first = rng.chance(1, 2);
        Scars { rng, is_first, former: None }
    }

    /// Damages copies while no engine is on the disk.
    pub(crate) fn before_start(&mut self, disk: &SimDisk, area: u64) {
        let image = disk.image();
        self.superblock(disk, &image);
        if self.rng.chance(1, 2) {
            for _ in 0..self.rng.between(1, 8) {
                self.page(disk, &image, area);
            }
        }
    }

    /// Damages a copy under a running engine.
    pub(crate) fn at_work(&mut self, disk: &SimDisk, area: u64) {
        self.page(disk, &disk.image(), area);
    }

    /// Rots one copy of the superblock, or brings back what it was: a write of it was lost.
    fn superblock(&mut self, disk: &SimDisk, image: &Image) {
        let copies = SUPERS.map(|offset| page_at(image, offset));
        let good = (0..).zip(&copies).all(|(slot, copy)| Superblock::parse(copy, slot).is_ok());
        if !good || bare(&copies[0]) != bare(&copies[1]) {
            return; // A crash has come between the two: one of them may be torn.
        }
        let copy = self.rng.index(2).expect("two");
        let (offset, bytes) = (SUPERS[copy], copies[copy].clone());
        match self.rng.below(4) {
            0 => {
                // Not what `bare` leaves out: the next start must see that the copies differ.
                let at = self.rng.index(bytes.len()).expect("a page");
                let hidden = SUPER_CRC.contains(&at) || SUPER_SLOT.contains(&at);
                let at = if hidden { 0 } else { at as u64 };
                disk.rot(offset + at, 1 << self.rng.below(8));
            }
            1 => self.former = Some((offset, bytes)),
            2 => {
                if let Some((offset, bytes)) = self.former.take() {
                    disk.overwrite(offset, &bytes);
                }
            }
            _ => {}
        }
    }

    /// Damages one copy of a page that has two.
    fn page(&mut self, disk: &SimDisk, image: &Image, area: u64) {
        let numbers = area / PAGE..image.byte_len() / PAGE;
        let pages = numbers.map(|page| (page, page_at(image, page * PAGE)));
        let mut firsts: HashMap<Vec<u8>, u64> = HashMap::new();
        let mut pairs = Vec::new();
        for (page, bytes) in pages.filter(|(_, bytes)| bytes.starts_with(&PAGE_MAGIC)) {
            let number =
                bytes[PAGE_NUMBER].try_into().map(u64::from_le_bytes).expect("eight bytes");
            if number == page {
                firsts.insert(bytes, page);
            } else if firsts.get(&bytes) == Some(&number) {
                pairs.push((number, page));
            }
        }
        let Some(pair) = self.rng.index(pairs.len()) else { return };
        let page = if self.is_first { pairs[pair].0 } else { pairs[pair].1 };
        let other = pairs[self.rng.index(pairs.len()).expect("there is one")].0;
        match self.rng.below(4) {
            0 => disk.overwrite(page * PAGE, &[0; 4096]),
            1 => disk.overwrite(page * PAGE, &page_at(image, other * PAGE)),
            _ => disk.rot(page * PAGE + self.rng.below(PAGE), 1 << self.rng.below(8)),
        }
    }
}

fn page_at(image: &Image, offset: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    image.read(offset, &mut bytes);
    bytes
}

/// A copy of the superblock without what the other has different.
fn bare(copy: &[u8]) -> Vec<u8> {
    let mut bytes = copy.to_vec();
    bytes[SUPER_CRC].fill(0);
    bytes[SUPER_SLOT].fill(0);
    bytes
}
