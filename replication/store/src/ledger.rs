//! What a check has seen, and what it found: shared by the offline check and the one that runs
//! while volumes are served.

use std::fmt;

use bdev::Status;

use crate::format::{NodeId, NodeKind, PageFault, PagePtr, SlotFault, VolumeRecord};
use crate::limits::{EXTENT_BLOCKS, FINDINGS_MAX};
use crate::space::SpaceMap;
use crate::table::Table;
use crate::{Damage, Extent, MountError};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A copy of the superblock (0 or 1) cannot be used.
    Superblock {
        /// Which copy.
        slot: u32,
        /// What is wrong with it.
        fault: SlotFault,
    },
    /// The store cannot be mounted at all.
    Unusable(MountError),
    /// A metadata page cannot be used; everything below it is unknown.
    Page(Damage),
    /// One of the two copies of a metadata page cannot be used. Nothing is lost.
    Copy(Damage),
    /// Two places reference the same metadata page.
    PageTwice {
        /// The page.
        page: u64,
    },
    /// Two places reference the same extent.
    ExtentTwice {
        /// The extent.
        extent: u64,
        /// The second volume that references it, or none for metadata.
        volume: Option<u32>,
    },
    /// An extent is referenced, but free in the space map.
    NotAllocated {
        /// The extent.
        extent: u64,
    },
    /// An extent is in use in the space map, but nothing references it.
    Leaked {
        /// The extent.
        extent: u64,
    },
    /// A node references a page of an ancestor that its parent does not reference there.
    NotShared {
        /// Which page of which node it should be, for people.
        node: String,
        /// The page.
        page: u64,
    },
    /// A node references an extent of an ancestor that its parent does not reference there.
    ExtentNotShared {
        /// The volume or snapshot.
        volume: u32,
        /// The extent's index in it.
        index: u64,
        /// The extent.
        extent: u64,
    },
    /// A block does not match its checksum, or cannot be read.
    Block {
        /// The volume.
        volume: u32,
        /// Block of 4 KiB in the volume.
        block: u64,
        /// Extent that holds it.
        extent: u64,
        /// How the read ended: [`Status::Integrity`] for a mismatch.
        status: Status,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Superblock { slot, fault } => write!(f, "superblock copy {slot}: {fault}"),
            Finding::Unusable(error) => write!(f, "{error}"),
            Finding::Page(damage) => write!(f, "damaged metadata: {damage}"),
            Finding::Copy(damage) => write!(f, "damaged copy of metadata: {damage}"),
            Finding::PageTwice { page } => write!(f, "page {page} is referenced twice"),
            Finding::ExtentTwice { extent, volume: Some(volume) } => {
                write!(f, "extent {extent} is referenced again by volume {volume}")
            }
            Finding::ExtentTwice { extent, volume: None } => {
                write!(f, "extent {extent} is referenced again by metadata")
            }
            Finding::NotAllocated { extent } => {
                write!(f, "extent {extent} is referenced but free in the space map")
            }
            Finding::Leaked { extent } => {
                write!(f, "extent {extent} is in use in the space map but not referenced")
            }
            Finding::NotShared { node, page } => {
                write!(f, "page {page} ({node}) is shared, but not with its parent")
            }
            Finding::ExtentNotShared { volume, index, extent } => {
                write!(f, "extent {extent} (volume {volume}, extent {index} of it) is shared, ")?;
                f.write_str("but not with its parent")
            }
            Finding::Block { volume, block, extent, status } => {
                write!(f, "volume {volume} block {block} (extent {extent}): {status:?}")
            }
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// What is wrong; at most [`crate::FINDINGS_MAX`], `dropped` counts the rest.
    pub findings: Vec<Finding>,
    /// Findings beyond the limit.
    pub dropped: u64,
    /// Extents in use that nothing references; zero when damage hides part of the map.
    pub leaked: u64,
    /// Volumes, those being deleted and the remains of restored ones included.
    pub volumes: u64,
    /// Snapshots, those being deleted included.
    pub snapshots: u64,
    /// Metadata pages referenced, second copies included.
    pub pages: u64,
    /// Data extents referenced.
    pub extents: u64,
    /// Data blocks that were read.
    pub blocks: u64,
    /// Extents of `leaked` that were given back.
    pub freed: u64,
    /// Generation of the checkpoint that was checked.
    pub generation: u64,
}

impl CheckReport {
    /// True when nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Every page and every extent that was seen to be referenced. Its memory is taken when the check
/// begins: a bit for each extent of the device, and 16 bytes for each extent of metadata.
pub(crate) struct Ledger {
    pub(crate) report: CheckReport,
    /// By extent: its pages that are referenced, second copies included.
    pages: Table<u16>,
    /// One bit for each extent: referenced as data.
    data: Vec<u64>,
    /// Damage hides part of the map.
    pub(crate) incomplete: bool,
}

impl Ledger {
    /// For a device with extents below `end`, of which about `meta` hold metadata.
    pub(crate) fn new(end: u64, meta: usize) -> Ledger {
        let words = usize::try_from(end.div_ceil(64)).expect("in memory");
        Ledger {
            report: CheckReport::default(),
            pages: Table::new(meta),
            data: vec![0; words],
            incomplete: false,
        }
    }

    /// Notes that a page, which lies in the area, is referenced. False when one of its copies was
    /// before.
    pub(crate) fn page(&mut self, ptr: &PagePtr) -> bool {
        let pages = EXTENT_BLOCKS as u64;
        let mut fresh = true;
        for page in [Some(ptr.number()), ptr.twin()].into_iter().flatten() {
            let (extent, bit) = (page / pages, 1 << (page % pages));
            if self.pages.get(extent).is_none() {
                self.pages.grow(1);
                self.pages.insert(extent, 0);
            }
            let seen = self.pages.get_mut(extent).expect("just entered");
            fresh &= *seen & bit == 0;
            self.report.pages += u64::from(*seen & bit == 0);
            *seen |= bit;
        }
        if !fresh {
            self.find(Finding::PageTwice { page: ptr.number() });
        }
        fresh
    }

    /// Notes that a volume references an extent as its own. False when somebody did before.
    pub(crate) fn extent(&mut self, volume: u32, extent: Extent) -> bool {
        let (word, mask) = (extent.index() / 64, 1 << (extent.index() % 64));
        if self.data[word] & mask != 0 {
            let volume = Some(volume);
            self.find(Finding::ExtentTwice { extent: extent.number(), volume });
            return false;
        }
        self.data[word] |= mask;
        self.report.extents += 1;
        true
    }

    pub(crate) fn count_nodes<'a>(&mut self, nodes: impl Iterator<Item = &'a VolumeRecord>) {
        for node in nodes {
            let snapshot = node.kind() == NodeKind::Snapshot;
            self.report.snapshots += u64::from(snapshot);
            self.report.volumes += u64::from(!snapshot);
        }
    }

    /// A page is lost: what is below it is unknown.
    pub(crate) fn lost(&mut self, damage: Damage) {
        self.incomplete = true;
        self.find(Finding::Page(damage));
    }

    /// Compares what is referenced with the space map, 64 extents at a time; hands out what leaked.
    pub(crate) fn compare(&mut self, space: &SpaceMap, mut leaked: impl FnMut(Extent)) {
        let mut meta = vec![0u64; self.data.len()];
        for extent in (0..self.pages.slots()).filter_map(|slot| Some(self.pages.at(slot)?.0)) {
            let at = usize::try_from(extent / 64).expect("pages were checked to lie in the area");
            meta[at] |= 1 << (extent % 64);
        }
        for (word, meta) in meta.into_iter().enumerate() {
            let (data, mapped) = (self.data[word], space.mapped_word(word));
            for extent in bits(word, data & meta) {
                self.find(Finding::ExtentTwice { extent, volume: None });
            }
            for extent in bits(word, (data | meta) & !mapped) {
                self.find(Finding::NotAllocated { extent });
            }
            if self.incomplete {
                continue; // What hides below the damage may well be referenced.
            }
            for extent in bits(word, mapped & !(data | meta)) {
                self.report.leaked += 1;
                self.find(Finding::Leaked { extent });
                leaked(Extent::from_raw(extent).expect("the map has extents of the area only"));
            }
        }
    }

    pub(crate) fn find(&mut self, finding: Finding) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        } else {
            self.report.dropped += 1;
        }
    }
}

pub(crate) fn damage_of(node: NodeId, page: u64, fault: PageFault, healed: bool) -> Damage {
    Damage { page, node: node.to_string(), fault, healed }
}

/// The numbers of the extents whose bits are set in a word.
fn bits(word: usize, mut bits: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        let bit = (bits != 0).then(|| u64::from(bits.trailing_zeros()))?;
        bits &= bits - 1;
        Some(word as u64 * 64 + bit)
    })
}
