//! Metadata pages in an image: which there are, where their copies are, how to change them.

fn u64_at(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
}

fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes)).unwrap()
}

/// A metadata page, by where its two copies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copies {
    pub(crate) first: usize,
    pub(crate) second: usize,
}

impl Copies {
    /// The byte of the page with this offset, in its first copy.
    pub(crate) fn at(self, offset: usize) -> usize {
        self.first * 4096 + offset
    }

    /// Makes both copies what the first is.
    fn copy(self, image: &mut [u8]) {
        image.copy_within(self.first * 4096..(self.first + 1) * 4096, self.second * 4096);
    }

    /// The first eight bytes of pointers to it.
    fn pointer(self) -> u64 {
        ((self.second - self.first) as u64 / 16) << 48 | self.first as u64
    }
}

/// Every metadata page of an image, and the superblock (page 0 and page 16).
pub(crate) fn all_pages(image: &[u8]) -> Vec<Copies> {
    let mut pages = vec![Copies { first: 0, second: 16 }];
    pages.extend(metadata_pages(image));
    pages
}

/// Every metadata page of an image.
pub(crate) fn metadata_pages(image: &[u8]) -> Vec<Copies> {
    let pages = (0..image.len() / 4096).filter(|page| image[page * 4096..].starts_with(b"HFPG"));
    let copies = pages.map(|second| {
        let first = usize::try_from(u64_at(image, second * 4096 + 32)).unwrap();
        Copies { first, second }
    });
    copies.filter(|copies| copies.first != copies.second).collect()
}

/// Gives a changed page its checksum and its second copy, and every pointer to it, up to the
/// superblocks. `pages` are those of the image before it was changed.
pub(crate) fn mend(image: &mut [u8], pages: &[Copies], page: Copies) {
    let at = page.at(0);
    if page.first == 0 {
        for (slot, start) in [(0, 0), (1, 16 * 4096)] {
            image.copy_within(0..4096, start);
            image[start + 236] = slot;
            let crc = crc32c(&image[start + 12..start + 4096]);
            image[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
        }
        return;
    }
    let old = image[at + 4..at + 8].to_vec();
    let new = crc32c(&image[at + 8..at + 4096]).to_le_bytes();
    image[at + 4..at + 8].copy_from_slice(&new);
    page.copy(image);
    let mut pointer = page.pointer().to_le_bytes().to_vec();
    pointer.extend(&old);
    for &parent in pages {
        let start = parent.at(0);
        let found = |i: &usize| image[i + start..].starts_with(&pointer);
        if let Some(found) = (0..4096 - 16).step_by(4).find(found) {
            image[start + found + 8..start + found + 12].copy_from_slice(&new);
            mend(image, pages, parent);
        }
    }
}
