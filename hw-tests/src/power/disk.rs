//! A disk with a volatile write cache that loses what was not flushed when its power is cut.
//!
//! A cut draws what became of each write that no flush covered: written, lost, or torn at any of
//! its sectors; in whatever order, as a drive's cache writes back what it likes first. What a flush
//! covered is in the file.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::ledger::mix;

/// Bytes that are written or lost as one.
const SECTOR: usize = 512;

/// The cache: a write beyond it makes room by writing the oldest back, as a drive does.
const CACHE_BYTES_MAX: usize = 32 << 20;

/// What the drive is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    On,
    /// On for this many more writes.
    Short(u64),
    Off,
}

/// What became of the writes in the cache when the power was cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) kept: usize,
    pub(super) torn: usize,
    pub(super) lost: usize,
}

/// The drive.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    bytes: u64,
    /// Oldest first.
    cache: Vec<(u64, Vec<u8>)>,
    cache_bytes: usize,
    /// The newest contents of each sector in the cache.
    newest: HashMap<u64, [u8; SECTOR]>,
    random: u64,
    pub(super) power: Power,
    pub(super) loss: Loss,
    pub(super) writes: u64,
    pub(super) flushes: u64,
}

impl Disk {
    /// A drive of `bytes` that keeps what it was flushed in `file`.
    pub(super) fn new(file: File, bytes: u64, seed: u64) -> Self {
        Self {
            file,
            bytes,
            cache: Vec::new(),
            cache_bytes: 0,
            newest: HashMap::new(),
            random: seed,
            power: Power::On,
            loss: Loss::default(),
            writes: 0,
            flushes: 0,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a request lies on the disk, in whole sectors.
    pub(super) fn holds(&self, offset: u64, len: usize) -> bool {
        let sector = SECTOR as u64;
        let end = offset.checked_add(len as u64);
        offset.is_multiple_of(sector)
            && len.is_multiple_of(SECTOR)
            && end.is_some_and(|end| end <= self.bytes)
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)?;
        for (sector, bytes) in (offset / SECTOR as u64..).zip(into.chunks_mut(SECTOR)) {
            if let Some(newest) = self.newest.get(&sector) {
                bytes.copy_from_slice(newest);
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        for (sector, bytes) in (offset / SECTOR as u64..).zip(bytes.chunks(SECTOR)) {
            let mut newest = [0; SECTOR];
            newest.copy_from_slice(bytes);
            self.newest.insert(sector, newest);
        }
        self.writes += 1;
        self.cache_bytes += bytes.len();
        self.cache.push((offset, bytes));
        if self.cache_bytes > CACHE_BYTES_MAX {
            self.write_back()?;
        }
        self.power = match self.power {
            Power::Short(left) if left > 1 => Power::Short(left - 1),
            Power::Short(_) => return self.cut(),
            power => power,
        };
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.flushes += 1;
        self.write_back()
    }

    fn write_back(&mut self) -> io::Result<()> {
        for (offset, bytes) in std::mem::take(&mut self.cache) {
            self.file.write_all_at(&bytes, offset)?;
        }
        self.cache_bytes = 0;
        self.newest.clear();
        Ok(())
    }

    /// The power is gone.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        if self.power == Power::Off {
            return Ok(());
        }
        self.power = Power::Off;
        self.loss = Loss::default();
        // How much of the cache had been written back: from nothing to nearly everything.
        let kept_of_8 = self.below(8);
        for (offset, bytes) in std::mem::take(&mut self.cache) {
            let whole = self.below(8) < kept_of_8;
            let torn = !whole && self.below(4) == 0;
            let (mut sectors, mut written) = (0, 0);
            for (sector, bytes) in bytes.chunks(SECTOR).enumerate() {
                sectors += 1;
                if whole || (torn && self.below(2) == 0) {
                    written += 1;
                    self.file.write_all_at(bytes, offset + (sector * SECTOR) as u64)?;
                }
            }
            match written {
                0 => self.loss.lost += 1,
                all if all == sectors => self.loss.kept += 1,
                _ => self.loss.torn += 1,
            }
        }
        self.cache_bytes = 0;
        self.newest.clear();
        Ok(())
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.random) % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(seed: u64) -> Disk {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        Disk::new(file, 1 << 20, seed)
    }

    fn first(disk: &Disk, offset: u64) -> u8 {
        let mut bytes = [0; SECTOR];
        disk.read(offset, &mut bytes).unwrap();
        bytes[0]
    }

    #[test]
    fn what_was_flushed_survives_and_the_rest_is_drawn() {
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..64 {
            let mut disk = disk(seed);
            disk.write(0, vec![1; 4096]).unwrap();
            disk.flush().unwrap();
            disk.write(0, vec![2; 4096]).unwrap();
            disk.write(8192, vec![3; 4096]).unwrap();
            assert_eq!((first(&disk, 0), first(&disk, 8192)), (2, 3), "reads see the cache");
            disk.cut().unwrap();
            assert!([1, 2].contains(&first(&disk, 0)), "the flushed write, or the one after it");
            assert!([0, 3].contains(&first(&disk, 8192)));
            assert_eq!(disk.loss.kept + disk.loss.lost + disk.loss.torn, 2);
            (lost, kept, torn) =
                (lost + disk.loss.lost, kept + disk.loss.kept, torn + disk.loss.torn);
        }
        assert!(lost > 10 && kept > 10 && torn > 2, "{lost} lost, {kept} kept, {torn} torn");
    }

    #[test]
    fn power_that_is_short_ends_with_the_last_write() {
        let mut disk = disk(1);
        disk.power = Power::Short(2);
        disk.write(0, vec![1; 512]).unwrap();
        assert_eq!(disk.power, Power::Short(1));
        disk.write(0, vec![1; 512]).unwrap();
        assert_eq!(disk.power, Power::Off);
    }

    #[test]
    fn full_cache_is_written_back() {
        let mut disk = disk(1);
        for _ in 0..CACHE_BYTES_MAX / (1 << 20) + 1 {
            disk.write(0, vec![7; 1 << 20]).unwrap();
        }
        assert!(disk.cache.is_empty());
        assert_eq!(first(&disk, 512), 7);
    }

    #[test]
    fn only_whole_sectors_on_the_disk_are_held() {
        let disk = disk(1);
        assert!(disk.holds(0, 1 << 20));
        assert!(!disk.holds(512, 1 << 20));
        assert!(!disk.holds(1, 512) && !disk.holds(0, 100) && !disk.holds(u64::MAX - 511, 512));
    }
}
