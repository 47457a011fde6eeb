//! Trees whose leaves live in RAM as a whole: the catalog and the space map.
//!
//! Only the pointers are kept here, level by level; the page contents are made when a checkpoint
//! writes them.

use crate::format::{INNER_CHILDREN, NodeId, PagePtr, Place};

/// Whether a page must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Clean,
    Dirty,
    /// Dirty, and its new place is chosen.
    Placed,
}

/// The pointers of one tree: level 0 to the leaf pages, the last level to the root alone.
pub(crate) struct FlatTree {
    owner: u32,
    levels: Vec<Vec<(PagePtr, Mark)>>,
}

impl FlatTree {
    /// A tree of `leaves` leaf pages, none of which exists yet.
    pub(crate) fn new(owner: u32, leaves: usize) -> FlatTree {
        assert!(leaves > 0);
        let mut levels = vec![vec![(PagePtr::NONE, Mark::Clean); leaves]];
        let mut count = leaves;
        while count > 1 {
            count = count.div_ceil(INNER_CHILDREN);
            levels.push(vec![(PagePtr::NONE, Mark::Clean); count]);
        }
        FlatTree { owner, levels }
    }

    /// The root's place in the tree.
    pub(crate) fn root_node(&self) -> NodeId {
        self.node(self.levels.len() - 1, 0)
    }

    pub(crate) fn root(&self) -> PagePtr {
        self.levels[self.levels.len() - 1][0].0
    }

    pub(crate) fn levels(&self) -> usize {
        self.levels.len()
    }

    /// Pages of one level.
    pub(crate) fn len(&self, level: usize) -> usize {
        self.levels[level].len()
    }

    /// Pages of all levels: the most that a checkpoint writes of this tree.
    pub(crate) fn page_count(&self) -> usize {
        self.levels.iter().map(Vec::len).sum()
    }

    pub(crate) fn node(&self, level: usize, index: usize) -> NodeId {
        let level = u8::try_from(level).expect("trees are a few levels high");
        NodeId { owner: self.owner, level, index: index as u64 }
    }

    pub(crate) fn ptr(&self, level: usize, index: usize) -> PagePtr {
        self.levels[level][index].0
    }

    pub(crate) fn mark(&self, level: usize, index: usize) -> Mark {
        self.levels[level][index].1
    }

    /// Sets a pointer that was read at mount. False when there is no such page.
    pub(crate) fn load(&mut self, level: usize, index: usize, ptr: PagePtr) -> bool {
        match self.levels[level].get_mut(index) {
            Some(slot) => slot.0 = ptr,
            None => return ptr.is_none(),
        }
        true
    }

    /// Marks a leaf page and everything above it.
    pub(crate) fn touch(&mut self, leaf: usize) {
        let mut index = leaf;
        for level in &mut self.levels {
            let mark = &mut level[index].1;
            if *mark == Mark::Clean {
                *mark = Mark::Dirty;
            }
            index /= INNER_CHILDREN;
        }
    }

    /// Gives a dirty page its new place.
    pub(crate) fn place(&mut self, level: usize, index: usize, place: Place) {
        let slot = &mut self.levels[level][index];
        assert_eq!(slot.1, Mark::Dirty);
        slot.0.page.set(place.raw());
        slot.1 = Mark::Placed;
    }

    /// Notes the pointer of a page that was sealed.
    pub(crate) fn seal(&mut self, level: usize, index: usize, ptr: PagePtr) {
        let slot = &mut self.levels[level][index];
        assert_eq!(slot.1, Mark::Placed);
        assert_eq!(slot.0.page, ptr.page);
        slot.0 = ptr;
        slot.1 = Mark::Clean;
    }

    /// Writes the pointers below an inner page into it.
    pub(crate) fn fill(&self, level: usize, index: usize, into: &mut [PagePtr; INNER_CHILDREN]) {
        let below = &self.levels[level - 1];
        let from = index * INNER_CHILDREN;
        for (i, child) in into.iter_mut().enumerate() {
            *child = below.get(from + i).map_or(PagePtr::NONE, |slot| slot.0);
        }
    }
}
