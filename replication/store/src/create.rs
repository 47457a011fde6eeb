//! Making a device a store.

use bdev::{Buffers, Completion, Data, Fifo, Info, Request, Status};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use crate::format::{SUPERBLOCK_MAGIC, Superblock, VERSION};
use crate::io::{Geometry, SuperStep, SuperWriter, key_of};
use crate::limits::{
    AREA_EXTENTS_MIN, DEVICE_EXTENTS_MAX, EXTENT_BLOCKS, EXTENT_BYTES, LOG_BYTES_DEFAULT_MAX,
    LOG_BYTES_DEFAULT_MIN, LOG_BYTES_MIN, PAGE_BYTES,
};
use crate::{FormatError, LogRegion, LogTail};

/// How to make a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatOptions {
    /// The store's UUID. It must be fresh: the remains of an older log are told apart by it.
    pub uuid: [u8; 16],
    /// Size of the log region in bytes; by default an eighth of the device, 16 MiB to 1 GiB.
    pub log_bytes: Option<u64>,
    /// Format the device even when it holds data.
    pub overwrite: bool,
}

/// A fresh store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formatted {
    /// Where its log region is.
    pub log: LogRegion,
    /// Extents for data and metadata.
    pub extents: u64,
}

/// The machine that writes a fresh store: looks whether the device is empty, then writes the two
/// superblocks. An empty store has no other metadata.
pub struct Format {
    geometry: Geometry,
    superblock: Superblock,
    pair: SuperWriter,
    /// The pages that must be zero: where superblocks, partition tables and file systems start, and
    /// where copies of partition tables end.
    probes: [u64; PROBES],
    probed: usize,
    overwrite: bool,
    waiting: bool,
    failed: bool,
    result: Option<Result<Formatted, FormatError>>,
}

impl Format {
    /// Plans the layout for a device.
    ///
    /// # Errors
    /// [`FormatError::TooSmall`], [`FormatError::TooLarge`] and [`FormatError::LogSize`].
    pub fn new(info: &Info, options: &FormatOptions) -> Result<Format, FormatError> {
        let superblock = plan(info, options)?;
        let geometry = Geometry::new(info);
        let pages = info.byte_len() / PAGE_BYTES as u64;
        let extent = EXTENT_BLOCKS as u64;
        // The last extent may reach past what the store uses: probe what the device has.
        let probes = [0, extent, pages - extent];
        let pair = SuperWriter::new(geometry);
        let (overwrite, probed) = (options.overwrite, 0);
        let (waiting, failed, result) = (false, false, None);
        Ok(Format {
            geometry,
            superblock,
            pair,
            probes,
            probed,
            overwrite,
            waiting,
            failed,
            result,
        })
    }

    /// Appends the requests that are due.
    pub fn poll_requests(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) {
        if self.failed || requests.is_full() {
            return;
        }
        if self.overwrite || self.probed == PROBES {
            if self.pair.step() == SuperStep::Idle {
                self.pair.start(1);
            }
            return self.pair.poll_requests(&mut self.superblock, requests, pool);
        }
        if self.waiting {
            return;
        }
        let bytes = EXTENT_BLOCKS * PAGE_BYTES;
        let Some(buf) = pool.take(bytes) else { return };
        let pages = u32::try_from(EXTENT_BLOCKS).expect("16");
        let request = self.geometry.read(KEY_PROBE, self.probes[self.probed], pages, buf);
        assert!(requests.push(request).is_ok(), "room was checked");
        self.waiting = true;
    }

    /// Takes the end of one of this machine's requests.
    pub fn on_completion(&mut self, completion: Completion) {
        if key_of(completion.tag) == KEY_PROBE {
            self.waiting = false;
            return self.on_probe(completion.status, completion.data);
        }
        self.pair.on_completion(completion.status);
        match self.pair.step() {
            SuperStep::Done => self.result = Some(Ok(self.formatted())),
            SuperStep::Failed(status) => {
                self.fail(FormatError::Device { what: "writing the superblock", status });
            }
            _ => {}
        }
    }

    /// How it ended, once.
    pub fn take_result(&mut self) -> Option<Result<Formatted, FormatError>> {
        self.result.take()
    }

    fn on_probe(&mut self, status: Status, data: Data) {
        let Data::Into(buf) = data else { return };
        if !status.is_ok() {
            return self.fail(FormatError::Device { what: "looking for data", status });
        }
        let bytes = &buf.bytes()[..EXTENT_BLOCKS * PAGE_BYTES];
        for slot in 0..2 {
            if let Ok(found) = Superblock::parse(bytes, slot) {
                return self.fail(FormatError::Store { uuid: found.uuid });
            }
        }
        if let Some(at) = bytes.iter().position(|&byte| byte != 0) {
            let offset = self.probes[self.probed] * PAGE_BYTES as u64 + at as u64;
            return self.fail(FormatError::NotEmpty { offset });
        }
        self.probed += 1;
    }

    fn formatted(&self) -> Formatted {
        let superblock = &self.superblock;
        Formatted {
            log: LogRegion { start: superblock.log_start.get(), bytes: superblock.log_bytes.get() },
            extents: superblock.area_end.get() - superblock.area_first.get(),
        }
    }

    fn fail(&mut self, error: FormatError) {
        self.failed = true;
        self.result = Some(Err(error));
    }
}

const PROBES: usize = 3;
const KEY_PROBE: u32 = 0;

/// The superblock of a fresh store on such a device.
fn plan(info: &Info, options: &FormatOptions) -> Result<Superblock, FormatError> {
    let bytes = info.byte_len();
    let most = DEVICE_EXTENTS_MAX * EXTENT_BYTES;
    if bytes > most {
        return Err(FormatError::TooLarge { bytes, most });
    }
    let default = (bytes / 8).clamp(LOG_BYTES_DEFAULT_MIN, LOG_BYTES_DEFAULT_MAX);
    let log = options.log_bytes.unwrap_or(default / EXTENT_BYTES * EXTENT_BYTES);
    if log < LOG_BYTES_MIN || !log.is_multiple_of(EXTENT_BYTES) {
        return Err(FormatError::LogSize { bytes: log });
    }
    let log_start = 2 * EXTENT_BYTES;
    let needed = log.saturating_add(log_start + AREA_EXTENTS_MIN * EXTENT_BYTES);
    if bytes < needed {
        return Err(FormatError::TooSmall { bytes, needed });
    }
    let mut superblock = Superblock::new_zeroed();
    superblock.magic = SUPERBLOCK_MAGIC;
    superblock.version.set(VERSION);
    superblock.uuid = options.uuid;
    superblock.generation = U64::new(1);
    superblock.block_bytes.set(u32::try_from(PAGE_BYTES).expect("4096"));
    superblock.extent_bytes.set(u32::try_from(EXTENT_BYTES).expect("65536"));
    superblock.area_end.set(bytes / EXTENT_BYTES);
    superblock.device_bytes.set(bytes / EXTENT_BYTES * EXTENT_BYTES);
    superblock.log_start.set(log_start);
    superblock.log_bytes.set(log);
    superblock.area_first.set((log_start + log) / EXTENT_BYTES);
    superblock.next_volume = U32::new(1);
    superblock.set_tail(LogTail::START);
    debug_assert_eq!(superblock.as_bytes().len(), PAGE_BYTES);
    Ok(superblock)
}
