//! Buffers: one mapping per shard, carved into 4 KiB-aligned segments, named by 4-byte handles.
//!
//! A [`BufMut`] is the only handle to its segment; [`BufMut::freeze`] turns it into a [`Buf`] that
//! can be cloned (a plain count, not an atomic one) and sliced. One received payload can so feed a
//! log write, every peer's socket and the extent write without a copy. The last handle gives the
//! segment back to its pool when it is dropped.
//!
//! # Safety argument
//!
//! Handles are plain numbers: pool (8 bits) and page (24 bits). They are only made by
//! [`Pool::take`] and by cloning or slicing, so a handle that exists names a live segment of a live
//! mapping:
//!
//! - *The mapping outlives its handles.* [`Pool`]'s drop unmaps only when every segment is back in
//!   the free lists; otherwise the mapping is leaked on purpose, with its place in the table.
//! - *No aliasing of `&mut`.* A segment's count is one while a `BufMut` exists: `take` sets it to
//!   one, `try_unique` checks it, and `BufMut` has no clone. `Buf` gives shared slices only.
//! - *One thread at a time.* Handles are `!Send`. The only way to another thread is a [`Parcel`],
//!   which is made from the *sole* handle of a segment, so all handles of a segment live on one
//!   thread, and counts need no atomic read-modify-write. Whoever moves the parcel (a ring, a
//!   channel) orders the accesses. Free lists are touched by the home thread alone; other
//!   threads push onto an atomic return stack that the home thread empties.
//! - *Checksums* are plain numbers in a side table: a wrong one harms no memory.
//! - *Devices.* A segment that a device may still write is inside a request, out of reach.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapMut, MmapOptions};

use crate::Data;
use crate::checksum::CHECKSUM_BYTES;
use crate::limits::{CLASS_BYTES, POOL_PAGES_MAX, POOLS_MAX, SEGMENT_ALIGN};

/// How many segments of each class a pool has, and where its memory comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Segments of 4 KiB, 16 KiB, 64 KiB, 256 KiB and 1 MiB.
    pub segments: [u32; 5],
    /// Try 2 MiB huge pages first.
    pub huge_pages: bool,
}

impl PoolConfig {
    /// A pool of about 3 MiB, for tests and examples.
    pub fn tiny() -> PoolConfig {
        PoolConfig { segments: [64, 16, 8, 4, 1], huge_pages: false }
    }

    /// A pool of about `bytes`: an eighth in 4 KiB, an eighth in 16 KiB, a quarter in each of
    /// 64 KiB, 256 KiB and 1 MiB segments, at least one of each.
    pub fn for_bytes(bytes: u64) -> PoolConfig {
        let share = |part: u64, class: usize| {
            let count = bytes / part / CLASS_BYTES[class] as u64;
            u32::try_from(count.max(1)).unwrap_or(u32::MAX)
        };
        let segments = [share(8, 0), share(8, 1), share(4, 2), share(4, 3), share(4, 4)];
        PoolConfig { segments, huge_pages: true }
    }

    /// The memory such a pool takes, in bytes.
    pub fn byte_len(&self) -> u64 {
        self.segments.iter().zip(CLASS_BYTES).map(|(&n, size)| u64::from(n) * size as u64).sum()
    }
}

/// What kind of pages a pool got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// 2 MiB huge pages.
    HugePages,
    /// Ordinary pages, asked to be merged transparently.
    Pages,
}

/// Why a pool could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolError {
    /// The configuration has no segment, or more than 64 GiB.
    Size {
        /// The bytes asked for.
        bytes: u64,
    },
    /// More than [`POOLS_MAX`] pools are alive in this process.
    TooMany,
    /// The system has no memory for it.
    Map(std::io::Error),
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoolError::Size { bytes } => {
                write!(f, "a buffer pool of {bytes} bytes: must be between 4 KiB and 64 GiB")
            }
            PoolError::TooMany => write!(f, "more than {POOLS_MAX} buffer pools in one process"),
            PoolError::Map(source) => write!(f, "mapping memory for a buffer pool: {source}"),
        }
    }
}

impl std::error::Error for PoolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PoolError::Map(source) => Some(source),
            _ => None,
        }
    }
}

/// How full a pool is, in segments of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Segments in all.
    pub total: [u32; 5],
    /// Segments that can be taken now.
    pub free: [u32; 5],
}

impl PoolStats {
    /// Segments that handles still hold.
    pub fn taken(&self) -> u32 {
        self.total.iter().sum::<u32>() - self.free.iter().sum::<u32>()
    }

    /// Bytes in free segments that are large enough for `len` bytes.
    pub fn free_bytes(&self, len: usize) -> u64 {
        let large = self.free.iter().zip(CLASS_BYTES).filter(|(_, size)| *size >= len);
        large.map(|(&count, size)| u64::from(count) * size as u64).sum()
    }
}

/// One shard's buffers. Stays on the thread that made it.
pub struct Pool {
    number: usize,
    backing: Backing,
    not_send: PhantomData<*const ()>,
}

impl Pool {
    /// Maps the memory and carves it. The calling thread becomes the pool's home.
    ///
    /// # Errors
    /// See [`PoolError`].
    pub fn new(config: &PoolConfig) -> Result<Pool, PoolError> {
        let bytes = config.byte_len();
        let len = usize::try_from(bytes).map_err(|_| PoolError::Size { bytes })?;
        if len == 0 || len / SEGMENT_ALIGN > POOL_PAGES_MAX {
            return Err(PoolError::Size { bytes });
        }
        let (memory, backing) = map(len, config.huge_pages).map_err(PoolError::Map)?;
        let mapping = Box::into_raw(Box::new(Mapping::carve(memory, len, &config.segments)));
        for (number, slot) in POOLS.iter().enumerate().skip(1) {
            let null = std::ptr::null_mut();
            if slot.compare_exchange(null, mapping, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Ok(Pool { number, backing, not_send: PhantomData });
            }
        }
        // SAFETY: `mapping` came from `Box::into_raw` above and was not put into the table.
        drop(unsafe { Box::from_raw(mapping) });
        Err(PoolError::TooMany)
    }

    /// A segment of at least `len` bytes, or `None` when none is free (or `len` exceeds 1 MiB):
    /// that is back-pressure, try again when something was given back.
    pub fn take(&self, len: usize) -> Option<BufMut> {
        let mapping = self.mapping();
        let first = CLASS_BYTES.iter().position(|&size| len <= size)?;
        let page = mapping.take_from(first).or_else(|| {
            mapping.drain_returned();
            mapping.take_from(first)
        })?;
        let head = &mapping.counts[page as usize];
        head.handles.store(1, Ordering::Relaxed);
        head.summed.store(0, Ordering::Relaxed);
        let number = u32::try_from(self.number).expect("at most 255 pools");
        let raw = NonZeroU32::new(number << 24 | page).expect("pool numbers start at one");
        Some(BufMut { raw: Raw(raw), not_send: PhantomData })
    }

    /// What kind of pages the pool got.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// How full the pool is.
    pub fn stats(&self) -> PoolStats {
        let mapping = self.mapping();
        mapping.drain_returned();
        PoolStats { total: mapping.total, free: mapping.free.each_ref().map(|l| l.len()) }
    }

    /// The whole mapping as address and length, to register it with a device.
    pub fn region(&self) -> (*mut u8, usize) {
        let mapping = self.mapping();
        (mapping.base, mapping.len)
    }

    /// True when `buf` lies in this pool (and so in the region that was registered).
    pub fn owns(&self, buf: &Buf) -> bool {
        buf.raw.pool() == self.number
    }

    /// True when `buf` lies in this pool (and so in the region that was registered).
    pub fn owns_mut(&self, buf: &BufMut) -> bool {
        buf.raw.pool() == self.number
    }

    fn mapping(&self) -> &Mapping {
        mapping_of(self.number)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.stats().taken() > 0 {
            return; // Handles are alive: the mapping must stay. See the safety argument.
        }
        let mapping = POOLS[self.number].swap(std::ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: the pointer came from `Box::into_raw` in `new`, nobody else removes it, and no
        // handle names it any more: every segment is free.
        drop(unsafe { Box::from_raw(mapping) });
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("number", &self.number).field("stats", &self.stats()).finish()
    }
}

/// The only handle to a segment: its bytes may be changed.
pub struct BufMut {
    raw: Raw,
    not_send: PhantomData<*const ()>,
}

impl BufMut {
    /// The segment's bytes.
    pub fn bytes(&self) -> &[u8] {
        let (pointer, len) = self.raw.span();
        // SAFETY: a live handle names `len` initialised bytes (see the safety argument); the
        // mapping is zero-filled when made; `&self` forbids a concurrent `&mut`.
        unsafe { std::slice::from_raw_parts(pointer, len) }
    }

    /// The segment's bytes, to change them. Their checksums are forgotten.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.raw.head().summed.store(0, Ordering::Relaxed);
        let (pointer, len) = self.raw.span();
        // SAFETY: as in `bytes`, and this is the segment's only handle, borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(pointer, len) }
    }

    /// How many bytes the segment has.
    pub fn capacity(&self) -> usize {
        self.raw.span().1
    }

    /// Where the bytes are, for a device that writes them while a request owns this handle. Their
    /// checksums are forgotten.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.raw.head().summed.store(0, Ordering::Relaxed);
        self.raw.span().0
    }

    /// Notes the CRC32C of one 4 KiB block of the segment, for [`BufMut::mark_summed`].
    ///
    /// # Panics
    /// When the segment has no such block.
    pub fn note_checksum(&mut self, block: usize, crc: u32) {
        assert!(block < self.capacity() / CHECKSUM_BYTES, "blocks lie inside their segment");
        self.raw.mapping().sums[self.raw.page() + block].store(crc, Ordering::Relaxed);
    }

    /// From now on the first `blocks` blocks have the checksums that were noted: they travel with
    /// the bytes, into [`Buf`] and to other threads, until the bytes can be changed again.
    ///
    /// # Panics
    /// When the segment has fewer blocks.
    pub fn mark_summed(&mut self, blocks: usize) {
        assert!(blocks <= self.capacity() / CHECKSUM_BYTES, "blocks lie inside their segment");
        let blocks = u32::try_from(blocks).expect("a segment has at most 256 blocks");
        self.raw.head().summed.store(blocks, Ordering::Relaxed);
    }

    /// Gives up changing the bytes, so that they can be shared.
    pub fn freeze(self) -> Buf {
        let raw = self.raw;
        std::mem::forget(self);
        Buf { raw, not_send: PhantomData }
    }
}

impl Drop for BufMut {
    fn drop(&mut self) {
        self.raw.release();
    }
}

impl fmt::Debug for BufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufMut({:#x}, {} bytes)", self.raw.0, self.capacity())
    }
}

/// A shared handle to a segment, or to the part of one from a page on.
pub struct Buf {
    raw: Raw,
    not_send: PhantomData<*const ()>,
}

impl Buf {
    /// The bytes from this handle's start to the end of the segment.
    pub fn bytes(&self) -> &[u8] {
        let (pointer, len) = self.raw.span();
        // SAFETY: a live handle names `len` initialised bytes; while a `Buf` exists no `BufMut` of
        // the segment does, so nobody writes them.
        unsafe { std::slice::from_raw_parts(pointer, len) }
    }

    /// How many bytes there are from this handle's start to the end of the segment.
    pub fn capacity(&self) -> usize {
        self.raw.span().1
    }

    /// Where the bytes are, for a device that reads them while a request owns this handle.
    pub fn as_ptr(&self) -> *const u8 {
        self.raw.span().0
    }

    /// A handle to the same segment that starts `offset` bytes further on.
    ///
    /// # Panics
    /// When `offset` is not a multiple of 4 KiB below [`Buf::capacity`].
    #[must_use]
    pub fn slice(&self, offset: usize) -> Buf {
        assert!(offset.is_multiple_of(SEGMENT_ALIGN), "slices start on a page");
        assert!(offset < self.capacity(), "slices lie inside their segment");
        let pages = u32::try_from(offset / SEGMENT_ALIGN).expect("inside a segment");
        let mut shared = self.clone();
        let moved = shared.raw.0.get() + pages;
        shared.raw = Raw(NonZeroU32::new(moved).expect("grew from a nonzero number"));
        shared
    }

    /// The CRC32C of a 4 KiB block, counted from this handle's start, if whoever filled the segment
    /// knew it.
    pub fn checksum(&self, block: usize) -> Option<u32> {
        let (mapping, page) = (self.raw.mapping(), self.raw.page() + block);
        let head = mapping.heads[self.raw.page()] as usize;
        let summed = mapping.counts[head].summed.load(Ordering::Relaxed) as usize;
        (page < head + summed).then(|| mapping.sums[page].load(Ordering::Relaxed))
    }

    /// True when this is the segment's only handle.
    pub fn is_unique(&self) -> bool {
        self.raw.count().load(Ordering::Relaxed) == 1
    }

    /// The right to change the bytes again, if this is the segment's only handle.
    ///
    /// # Errors
    /// The handle itself, when there are others.
    pub fn try_unique(self) -> Result<BufMut, Buf> {
        if !self.is_unique() {
            return Err(self);
        }
        let raw = self.raw;
        std::mem::forget(self);
        Ok(BufMut { raw, not_send: PhantomData })
    }
}

impl Clone for Buf {
    fn clone(&self) -> Buf {
        let count = self.raw.count();
        let handles = count.load(Ordering::Relaxed);
        assert!(handles > 0 && handles < u32::MAX, "a live segment has a sane count");
        count.store(handles + 1, Ordering::Relaxed);
        Buf { raw: self.raw, not_send: PhantomData }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.raw.release();
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({:#x}, {} bytes)", self.raw.0, self.capacity())
    }
}

/// A request's buffer on its way to another thread: the sole handle of its segment.
#[derive(Debug)]
pub struct Parcel(Data);

// SAFETY: the parcel holds the only handle of its segment (checked in `pack`), so the whole segment
// with its count changes threads; whoever moves the parcel orders the accesses, and `Raw::release`
// sends segments home through an atomic stack.
unsafe impl Send for Parcel {}

impl Parcel {
    /// Packs `data` for the journey.
    ///
    /// # Errors
    /// The data itself, when other handles to its segment exist.
    pub fn pack(data: Data) -> Result<Parcel, Data> {
        match data {
            Data::From(buf) if !buf.is_unique() => Err(Data::From(buf)),
            data => Ok(Parcel(data)),
        }
    }

    /// Unpacks it at the other end.
    pub fn unpack(self) -> Data {
        self.0
    }
}

/// Pool number in the top 8 bits, page in the lower 24. Never zero: pool numbers start at one.
#[derive(Clone, Copy)]
struct Raw(NonZeroU32);

impl Raw {
    fn pool(self) -> usize {
        (self.0.get() >> 24) as usize
    }

    fn page(self) -> usize {
        (self.0.get() & 0x00ff_ffff) as usize
    }

    fn mapping(self) -> &'static Mapping {
        mapping_of(self.pool())
    }

    fn span(self) -> (*mut u8, usize) {
        let mapping = self.mapping();
        let page = self.page();
        let end = mapping.ends[page] as usize;
        // SAFETY: `page` is inside the mapping because the handle was made by this pool.
        let pointer = unsafe { mapping.base.add(page * SEGMENT_ALIGN) };
        (pointer, (end - page) * SEGMENT_ALIGN)
    }

    fn head(self) -> &'static Head {
        let mapping = self.mapping();
        &mapping.counts[mapping.heads[self.page()] as usize]
    }

    fn count(self) -> &'static AtomicU32 {
        &self.head().handles
    }

    fn release(self) {
        let count = self.count();
        let handles = count.load(Ordering::Relaxed);
        assert!(handles > 0, "a segment is given back once");
        count.store(handles - 1, Ordering::Relaxed);
        if handles == 1 {
            let mapping = self.mapping();
            let head = mapping.heads[self.page()];
            if mapping.home == thread_number() {
                mapping.put(head);
            } else {
                mapping.put_returned(head);
            }
        }
    }
}

/// The mappings of this process, by pool number.
static POOLS: [AtomicPtr<Mapping>; POOLS_MAX + 1] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; POOLS_MAX + 1];

fn mapping_of(number: usize) -> &'static Mapping {
    let pointer = POOLS[number].load(Ordering::Relaxed);
    assert!(!pointer.is_null(), "a handle names a live pool");
    // SAFETY: the mapping is unmapped only when no handle and no `Pool` names it (see the safety
    // argument), and the caller is one of these. It was published with release ordering; a handle
    // reaches another thread only through a parcel, whose mover orders that publication too.
    unsafe { &*pointer }
}

/// Memory and its bookkeeping. All fields but `returned` and `links` belong to the home thread,
/// or are never changed after `carve`.
struct Mapping {
    base: *mut u8,
    len: usize,
    home: u64,
    /// For each page: the first page of its segment.
    heads: Box<[u32]>,
    /// For each page: the page after its segment.
    ends: Box<[u32]>,
    /// For each first page: how many handles the segment has, and how many checksums.
    counts: Box<[Head]>,
    /// For each page: its CRC32C, if the segment's head says so.
    sums: Box<[AtomicU32]>,
    /// For each first page: the next segment of the list that it is in, plus one.
    links: Box<[AtomicU32]>,
    free: [FreeList; 5],
    total: [u32; 5],
    /// Segments given back by other threads: first page plus one, zero when there is none.
    returned: AtomicU32,
    /// Keeps the memory mapped; only ever reached through `base`.
    _memory: MmapMut,
}

/// What is counted for a segment, at its first page. Who has the segment's handles has this too.
#[derive(Default)]
struct Head {
    handles: AtomicU32,
    /// Pages from the front whose checksums are known.
    summed: AtomicU32,
}

/// A list of free segments, threaded through `Mapping::links`. The home thread alone uses it.
#[derive(Default)]
struct FreeList {
    head: AtomicU32,
    len: AtomicU32,
}

impl FreeList {
    fn len(&self) -> u32 {
        self.len.load(Ordering::Relaxed)
    }
}

impl Mapping {
    fn carve(mut memory: MmapMut, len: usize, segments: &[u32; 5]) -> Mapping {
        assert!(len <= memory.len());
        let pages = len / SEGMENT_ALIGN;
        let numbers = || (0..pages).map(|_| AtomicU32::new(0)).collect::<Box<[_]>>();
        let mut mapping = Mapping {
            base: memory.as_mut_ptr(),
            len,
            home: thread_number(),
            heads: vec![0; pages].into(),
            ends: vec![0; pages].into(),
            counts: (0..pages).map(|_| Head::default()).collect(),
            sums: numbers(),
            links: numbers(),
            free: Default::default(),
            total: *segments,
            returned: AtomicU32::new(0),
            _memory: memory,
        };
        // Largest first, so that huge pages and large segments line up.
        let mut page = 0;
        for class in (0..CLASS_BYTES.len()).rev() {
            let span = CLASS_BYTES[class] / SEGMENT_ALIGN;
            for _ in 0..segments[class] {
                let head = u32::try_from(page).expect("a pool has at most 2^24 pages");
                let end = u32::try_from(page + span).expect("a pool has at most 2^24 pages");
                mapping.heads[page..page + span].fill(head);
                mapping.ends[page..page + span].fill(end);
                mapping.put(head);
                page += span;
            }
        }
        assert_eq!(page, pages);
        mapping
    }

    fn class_of(&self, head: u32) -> usize {
        let bytes = (self.ends[head as usize] - head) as usize * SEGMENT_ALIGN;
        CLASS_BYTES.iter().position(|&size| size == bytes).expect("segments come in classes")
    }

    fn take_from(&self, first: usize) -> Option<u32> {
        self.free[first..].iter().find_map(|list| {
            let head = list.head.load(Ordering::Relaxed).checked_sub(1)?;
            list.head.store(self.links[head as usize].load(Ordering::Relaxed), Ordering::Relaxed);
            list.len.store(list.len() - 1, Ordering::Relaxed);
            Some(head)
        })
    }

    fn put(&self, head: u32) {
        let list = &self.free[self.class_of(head)];
        self.links[head as usize].store(list.head.load(Ordering::Relaxed), Ordering::Relaxed);
        list.head.store(head + 1, Ordering::Relaxed);
        list.len.store(list.len() + 1, Ordering::Relaxed);
    }

    fn put_returned(&self, head: u32) {
        let mut top = self.returned.load(Ordering::Relaxed);
        loop {
            self.links[head as usize].store(top, Ordering::Relaxed);
            let (ok, err) = (Ordering::Release, Ordering::Relaxed);
            match self.returned.compare_exchange_weak(top, head + 1, ok, err) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    fn drain_returned(&self) {
        let mut top = self.returned.swap(0, Ordering::Acquire);
        while let Some(head) = top.checked_sub(1) {
            top = self.links[head as usize].load(Ordering::Relaxed);
            self.put(head);
        }
    }
}

fn map(len: usize, huge: bool) -> std::io::Result<(MmapMut, Backing)> {
    const HUGE: usize = 2 << 20;
    if huge {
        let rounded = len.next_multiple_of(HUGE);
        if let Ok(memory) = MmapOptions::new().len(rounded).huge(Some(21)).populate().map_anon() {
            return Ok((memory, Backing::HugePages));
        }
    }
    let memory = MmapOptions::new().len(len).map_anon()?;
    #[cfg(target_os = "linux")]
    if huge {
        // Advice only: where the kernel has no transparent huge pages nothing is lost.
        let _ = memory.advise(memmap2::Advice::HugePage);
    }
    Ok((memory, Backing::Pages))
}

fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NUMBER: Cell<u64> = const { Cell::new(0) });
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

#[cfg(test)]
mod tests;
