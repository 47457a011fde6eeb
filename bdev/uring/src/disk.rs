//! A file or block device as a disk: opening, claiming, geometry.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bdev::{Bdev, Info, Op, OpSet, OpenError, Queue, QueueCx, Status};

use crate::backend::{Backend, IoBackend, Notice, Selection};
use crate::counters::{Counters, IoCounts};
use crate::limits::{CLAIM_POLL, CLAIM_WAIT_DEFAULT, NOTICES_MAX};
use crate::standard_queue::StandardQueue;
use crate::sysfs::QueueAttributes;
use crate::uring_queue::UringQueue;
use crate::{ring, system};

/// How to open a disk.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// What does the I/O.
    pub backend: IoBackend,
    /// Block size in bytes, 512 or 4096. `None` picks the device's own, or 4096 for a file.
    pub block_size: Option<u32>,
    /// Bypass the page cache (`O_DIRECT`) where the file system allows it.
    pub direct: bool,
    /// Register buffers with the kernel where it allows that.
    pub register_buffers: bool,
    /// How long to wait for somebody else who has the disk. A process that was killed gives it up
    /// only when its last I/O has ended.
    pub claim_wait: Duration,
    /// Says whether `io_uring` can be had; tests replace it to play a kernel that forbids it.
    pub probe: fn() -> io::Result<()>,
}

impl Default for FileOptions {
    fn default() -> FileOptions {
        FileOptions {
            backend: IoBackend::Auto,
            block_size: None,
            direct: true,
            register_buffers: true,
            claim_wait: CLAIM_WAIT_DEFAULT,
            probe: ring::probe,
        }
    }
}

/// A file or block device. Claimed by this process until it and all its queues are dropped.
#[derive(Debug)]
pub struct FileDisk {
    pub(crate) shared: Arc<Shared>,
    selection: Selection,
}

/// What the disk and its queues share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) file: File,
    pub(crate) info: Info,
    pub(crate) register_buffers: bool,
    /// A sync failed: the kernel may have dropped what it should have made durable, and says so
    /// once. Every later flush and forced write of this disk fails too, until it is opened again.
    sync_failed: AtomicBool,
    notices: Mutex<Vec<Notice>>,
    counters: Mutex<Vec<Arc<Counters>>>,
}

impl FileDisk {
    /// Opens and claims the file or block device at `path`. Its size is rounded down to blocks.
    ///
    /// # Errors
    /// [`OpenError::Unavailable`] when somebody else has it, it is no file or block device, or it
    /// cannot have the block size; [`OpenError::System`] when the system refuses, and when
    /// [`IoBackend::IoUring`] was asked for and cannot be had.
    pub fn open(path: &Path, options: &FileOptions) -> Result<FileDisk, OpenError> {
        let selection = select(options)?;
        let opened = Opened::new(path, options)?;
        let (info, can_poll) = opened.info(path, options)?;
        let mut selection = selection;
        if selection.selected == Backend::IoUring && can_poll {
            selection.selected = Backend::IoUringPolled;
        }
        let shared = Shared {
            file: opened.file,
            info,
            register_buffers: options.register_buffers,
            sync_failed: AtomicBool::new(false),
            notices: Mutex::new(opened.notices),
            counters: Mutex::new(Vec::new()),
        };
        Ok(FileDisk { shared: Arc::new(shared), selection })
    }

    /// Which backend was chosen and why, to be logged once.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// What works, but not as well as it could; each is returned once. Ask again when the queues
    /// are open.
    pub fn take_notices(&self) -> Vec<Notice> {
        let mut notices = self.shared.notices.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut notices)
    }

    /// What all queues have asked the system for so far.
    pub fn counts(&self) -> IoCounts {
        let counters = self.shared.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = IoCounts::default();
        counters.iter().for_each(|counters| counters.add_to(&mut counts));
        counts
    }
}

impl Bdev for FileDisk {
    fn info(&self) -> &Info {
        &self.shared.info
    }

    fn open(&self, cx: &QueueCx<'_>) -> Result<Box<dyn Queue>, OpenError> {
        let shared = Arc::clone(&self.shared);
        let polled = match self.selection.selected {
            Backend::Standard => return Ok(Box::new(StandardQueue::new(shared, cx.depth)?)),
            Backend::IoUring => false,
            Backend::IoUringPolled => true,
        };
        match UringQueue::new(shared, cx, polled) {
            Ok(queue) => Ok(Box::new(queue)),
            Err(source) => Err(OpenError::System { what: "io_uring_setup".to_owned(), source }),
        }
    }
}

impl Shared {
    pub(crate) fn fail_syncs(&self) {
        self.sync_failed.store(true, Ordering::Relaxed);
    }

    /// How every flush ends after one has failed.
    pub(crate) fn check_syncs(&self) -> Result<(), Status> {
        if self.sync_failed.load(Ordering::Relaxed) { Err(Status::Io) } else { Ok(()) }
    }

    pub(crate) fn notice(&self, notice: Notice) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() < NOTICES_MAX && !notices.contains(&notice) {
            notices.push(notice);
        }
    }

    /// Counters for a new queue.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        let mut all = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = Arc::new(Counters::default());
        all.push(Arc::clone(&counters));
        counters
    }
}

fn select(options: &FileOptions) -> Result<Selection, OpenError> {
    let requested = options.backend;
    let selected = |selected, reason| Ok(Selection { requested, selected, reason });
    if requested == IoBackend::Standard {
        return selected(Backend::Standard, "as configured".to_owned());
    }
    match (options.probe)() {
        Ok(()) => selected(Backend::IoUring, "io_uring is available".to_owned()),
        Err(source) if requested == IoBackend::Auto => {
            selected(Backend::Standard, format!("io_uring cannot be had: {source}"))
        }
        Err(source) => {
            let what = "io_backend = \"io_uring\" was asked for, but io_uring_setup failed";
            Err(OpenError::System { what: what.to_owned(), source })
        }
    }
}

struct Opened {
    file: File,
    direct: bool,
    notices: Vec<Notice>,
}

impl Opened {
    fn new(path: &Path, options: &FileOptions) -> Result<Opened, OpenError> {
        let system = |what: &str| {
            let what = format!("{what} {}", path.display());
            move |source: io::Error| {
                if is_claimed(&source) {
                    return OpenError::Unavailable(format!("{what}: somebody else is using it"));
                }
                OpenError::System { what, source }
            }
        };
        let kind = std::fs::metadata(path).map_err(system("looking at"))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let why = format!("{} is neither a file nor a block device", path.display());
            return Err(OpenError::Unavailable(why));
        }
        // On a block device O_EXCL claims it: the kernel refuses to mount or claim it elsewhere.
        let claim = if kind.is_block_device() { libc::O_EXCL } else { 0 };
        let open = |flags| {
            let mut how = OpenOptions::new();
            how.read(true).write(true).custom_flags(flags);
            patiently(options.claim_wait, || how.open(path))
        };
        let mut notices = Vec::new();
        let mut direct = options.direct;
        let mut file = open(claim | if direct { libc::O_DIRECT } else { 0 });
        if let Err(error) = &file
            && direct
            && error.raw_os_error() == Some(libc::EINVAL)
        {
            notices.push(Notice::Buffered { reason: error.to_string() });
            direct = false;
            file = open(claim);
        }
        let file = file.map_err(system("opening"))?;
        patiently(options.claim_wait, || system::lock(&file)).map_err(system("claiming"))?;
        Ok(Opened { file, direct, notices })
    }

    /// What the device is, and whether it can be polled.
    fn info(&self, path: &Path, options: &FileOptions) -> Result<(Info, bool), OpenError> {
        let system =
            |source| OpenError::System { what: format!("looking at {}", path.display()), source };
        let metadata = self.file.metadata().map_err(system)?;
        let is_device = metadata.file_type().is_block_device();
        let smallest = if is_device {
            system::device_block_size(&self.file).map_err(system)?
        } else {
            system::direct_granularity(&self.file).filter(|_| self.direct).unwrap_or(1)
        };
        let own = if is_device && smallest <= 512 { 512 } else { 4096 };
        let block_size = options.block_size.unwrap_or(own);
        if !matches!(block_size, 512 | 4096) || !block_size.is_multiple_of(smallest) {
            let why = format!(
                "{}: a block size of {block_size} bytes is not possible, the device has {smallest}",
                path.display(),
            );
            return Err(OpenError::Unavailable(why));
        }
        if is_device {
            let bytes = system::device_bytes(&self.file).map_err(system)?;
            let number = metadata.rdev();
            let queue = QueueAttributes::of(libc::major(number), libc::minor(number));
            let mut info = Info::new(block_size, bytes / u64::from(block_size));
            info.atomic_blocks = (queue.physical_block_size / block_size).max(1);
            info.volatile_cache = queue.volatile_cache || !self.direct;
            info.ops = ops(queue.can_discard, true);
            return Ok((info, queue.can_poll && self.direct));
        }
        let mut info = Info::new(block_size, metadata.len() / u64::from(block_size));
        info.volatile_cache = true;
        // A hole beyond the end changes nothing, and tells whether the file system has holes.
        let can_punch = system::fallocate(
            &self.file,
            system::PUNCH,
            metadata.len().next_multiple_of(1 << 20),
            u64::from(block_size),
        );
        info.ops = ops(can_punch.is_ok(), can_punch.is_ok());
        Ok((info, false))
    }
}

fn ops(deallocate: bool, write_zeroes: bool) -> OpSet {
    match (deallocate, write_zeroes) {
        (true, true) => {
            OpSet::of(&[Op::Read, Op::Write, Op::Flush, Op::Deallocate, Op::WriteZeroes])
        }
        (true, false) => OpSet::of(&[Op::Read, Op::Write, Op::Flush, Op::Deallocate]),
        (false, true) => OpSet::of(&[Op::Read, Op::Write, Op::Flush, Op::WriteZeroes]),
        (false, false) => OpSet::of(&[Op::Read, Op::Write, Op::Flush]),
    }
}

/// Tries `act` again for `patience` while somebody else has the disk.
fn patiently<T>(patience: Duration, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut left = patience;
    loop {
        match act() {
            Err(error) if is_claimed(&error) && !left.is_zero() => {
                system::pause(CLAIM_POLL.min(left));
                left = left.saturating_sub(CLAIM_POLL);
            }
            result => return result,
        }
    }
}

fn is_claimed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EWOULDBLOCK))
}

/// Whether a new file's space is taken from the file system at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// When it is first written: the file system may run full later.
    Sparse,
    /// At once: later writes do not run out of space, and need no new metadata.
    Full,
}

/// Makes a new file of `bytes` bytes for a [`FileDisk`], durably.
///
/// # Errors
/// What the system answered; `AlreadyExists` when there is something at `path`. A file that could
/// not be completed is removed.
pub fn create_file(path: &Path, bytes: u64, allocation: Allocation) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let fill = || {
        if allocation == Allocation::Full && bytes > 0 {
            system::fallocate(&file, 0, 0, bytes).map_err(io::Error::from_raw_os_error)?;
        }
        file.set_len(bytes)?;
        file.sync_all()?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        OpenOptions::new().read(true).open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    fill().inspect_err(|_| {
        // The first error is the one to report.
        let _ = std::fs::remove_file(path);
    })
}
