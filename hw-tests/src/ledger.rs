//! A workload that knows exactly which bytes must be there after a crash.
//!
//! It writes numbered 4 KiB records to pseudo-random slots of a file or block device, past the page
//! cache, and calls fsync after each batch. Before a batch it notes the highest number *issued*,
//! after the fsync the highest number *durable*, in a state file that lives elsewhere (in the lab:
//! on the host). A record is a pure function of seed, number and slot, so that verifying needs
//! nothing but the state file: each slot must hold its last durable record or a later one that
//! was issued.
//!
//! A device that stalls while its host reconnects only makes a write take longer; an error from the
//! device ends the run, because a kernel that still has reconnect time left must not report one.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// Bytes per record and per slot.
const RECORD: usize = 4096;

/// `O_DIRECT` on x86-64.
const O_DIRECT: i32 = 0o40_000;

/// How many wrong slots are described before the rest is only counted.
const WRONG_SLOTS_SHOWN: usize = 5;

/// Where a ledger lives.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The file or block device that holds the records.
    pub path: PathBuf,
    /// The file that says which records were issued and which are durable.
    pub state: PathBuf,
    /// Number of slots; the records take `slots * 4096` bytes.
    pub slots: u64,
    /// What makes this ledger's records different from another's.
    pub seed: u64,
    /// Whether to go past the page cache (tests on a tmpfs cannot).
    pub direct: bool,
}

/// The highest record numbers; numbers start at 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Handed to the device, perhaps.
    pub issued: u64,
    /// Covered by an fsync that returned.
    pub durable: u64,
}

impl Progress {
    /// Reads a state file; one that does not exist yet, or was just created, means that nothing was
    /// issued.
    ///
    /// # Errors
    /// When the file is not a state file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut numbers = text.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(issued)), Some(Ok(durable))) => Ok(Self { issued, durable }),
            _ => bail!("{} is not a state file: {text:?}", path.display()),
        }
    }

    /// Fixed width, written in place: a reader never sees half of a number.
    fn store(self, path: &Path) -> Result<()> {
        let text = format!("{:020} {:020}\n", self.issued, self.durable);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        file.write_all_at(text.as_bytes(), 0)?;
        Ok(())
    }
}

impl Ledger {
    /// Writes `records` more records, an fsync after each `batch`.
    ///
    /// # Errors
    /// When the device reports an error.
    pub fn write(&self, records: u64, batch: u64) -> Result<Progress> {
        ensure!(batch > 0, "a batch holds at least one record");
        let file = self.open(true)?;
        let mut progress = Progress::load(&self.state)?;
        ensure!(progress.issued == progress.durable, "the last run did not end well: {progress:?}");
        let end = progress.durable + records;
        let mut buffer = Aligned::new();
        while progress.durable < end {
            progress.issued = end.min(progress.durable + batch);
            progress.store(&self.state)?;
            for number in progress.durable + 1..=progress.issued {
                let slot = self.slot(number);
                self.fill(number, slot, buffer.bytes());
                file.write_all_at(buffer.bytes(), slot * RECORD as u64)
                    .with_context(|| format!("write of record {number} to slot {slot}"))?;
            }
            file.sync_data().with_context(|| format!("fsync of record {}", progress.issued))?;
            progress.durable = progress.issued;
            progress.store(&self.state)?;
        }
        Ok(progress)
    }

    /// Checks every slot; returns how many hold a record.
    ///
    /// # Errors
    /// When a durable record is not there, or a slot holds what was never written.
    pub fn verify(&self) -> Result<u64> {
        let file = self.open(false)?;
        let progress = Progress::load(&self.state)?;
        let mut allowed: Vec<Vec<u64>> = vec![Vec::new(); usize::try_from(self.slots)?];
        for number in 1..=progress.issued {
            let slot = &mut allowed[usize::try_from(self.slot(number))?];
            if number <= progress.durable {
                slot.clear();
            }
            slot.push(number);
        }
        let (mut held, mut wrong) = (0, Vec::new());
        let (mut found, mut expected) = (Aligned::new(), Aligned::new());
        for (slot, numbers) in (0_u64..).zip(&allowed) {
            // A slot that was only issued may hold anything it held before.
            if numbers.first().is_none_or(|first| *first > progress.durable) {
                continue;
            }
            file.read_exact_at(found.bytes(), slot * RECORD as u64)
                .with_context(|| format!("read of slot {slot}"))?;
            held += 1;
            let right = numbers.iter().any(|number| {
                self.fill(*number, slot, expected.bytes());
                expected.bytes() == found.bytes()
            });
            if !right {
                wrong.push(describe(slot, numbers, found.bytes()));
            }
        }
        if !wrong.is_empty() {
            let count = wrong.len();
            wrong.truncate(WRONG_SLOTS_SHOWN);
            bail!("{count} of {held} slots are wrong ({progress:?}):\n{}", wrong.join("\n"));
        }
        Ok(held)
    }

    fn open(&self, write: bool) -> Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(write);
        if write && !self.path.exists() {
            options.create(true);
        }
        if self.direct {
            options.custom_flags(O_DIRECT);
        }
        options.open(&self.path).with_context(|| format!("open {}", self.path.display()))
    }

    fn slot(&self, number: u64) -> u64 {
        mix(self.seed ^ mix(number)) % self.slots
    }

    /// The record: its number and slot in clear, then bytes that depend on both and on the seed.
    fn fill(&self, number: u64, slot: u64, record: &mut [u8]) {
        let mut state = mix(self.seed ^ mix(number) ^ mix(!slot));
        for (at, word) in record.chunks_exact_mut(8).enumerate() {
            let value = match at {
                0 => number,
                1 => slot,
                _ => {
                    state = state.wrapping_add(GAMMA);
                    mix(state)
                }
            };
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
}

fn describe(slot: u64, numbers: &[u64], found: &[u8]) -> String {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&found[at * 8..at * 8 + 8]);
        u64::from_le_bytes(bytes)
    };
    let zero = found.iter().all(|byte| *byte == 0);
    let what =
        if zero { "zeroes".to_owned() } else { format!("number {} slot {}", word(0), word(1)) };
    format!("slot {slot}: expected one of the records {numbers:?}, found {what}")
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The splitmix64 finaliser.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One record's worth of memory, aligned as `O_DIRECT` wants it.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Self {
        let memory = vec![0; RECORD * 2];
        let start = memory.as_ptr().align_offset(RECORD);
        Self { memory, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + RECORD]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(directory: &Path) -> Ledger {
        Ledger {
            path: directory.join("data"),
            state: directory.join("state"),
            slots: 64,
            seed: 1,
            direct: false,
        }
    }

    #[test]
    fn what_was_written_is_verified_across_runs() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = ledger(directory.path());
        assert_eq!(ledger.write(100, 7).unwrap(), Progress { issued: 100, durable: 100 });
        assert_eq!(ledger.write(50, 8).unwrap(), Progress { issued: 150, durable: 150 });
        assert!(ledger.verify().unwrap() > 50);
    }

    #[test]
    fn a_lost_durable_record_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = ledger(directory.path());
        ledger.write(40, 4).unwrap();
        let before = fs::read(&ledger.path).unwrap();
        ledger.write(1, 1).unwrap();
        // The last write is undone, as a device that lied about its flush would.
        fs::write(&ledger.path, before).unwrap();
        let error = ledger.verify().unwrap_err().to_string();
        assert!(error.contains("1 of"), "{error}");
    }

    #[test]
    fn a_flipped_byte_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = ledger(directory.path());
        ledger.write(40, 4).unwrap();
        let offset = usize::try_from(ledger.slot(40)).unwrap() * RECORD + 1000;
        let mut bytes = fs::read(&ledger.path).unwrap();
        bytes[offset] ^= 1;
        fs::write(&ledger.path, bytes).unwrap();
        assert!(ledger.verify().is_err());
    }

    #[test]
    fn a_state_file_that_was_just_created_says_nothing_was_issued() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        fs::write(&state, "").unwrap();
        assert_eq!(Progress::load(&state).unwrap(), Progress::default());
        fs::write(&state, "1").unwrap();
        assert!(Progress::load(&state).is_err());
    }

    #[test]
    fn an_issued_record_may_be_there_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = ledger(directory.path());
        ledger.write(200, 4).unwrap();
        let before = fs::read(&ledger.path).unwrap();
        ledger.write(4, 4).unwrap();
        Progress { issued: 204, durable: 200 }.store(&ledger.state).unwrap();
        ledger.verify().unwrap();
        fs::write(&ledger.path, before).unwrap();
        ledger.verify().unwrap();
    }
}
