//! The page cache: a fixed number of frames for pages of the volumes' trees.
//!
//! ```text
//!   Empty --load--> Loading --arrived--> Ready --touch_dirty--> Dirty --checkpoint--> Ready
//!     ^                 `--bad--> Damaged --.                     |
//!     `------------- evicted (clock) -------'----- removed -------'
//! ```
//!
//! Ready and damaged frames may be evicted; loading and dirty ones are pinned. The parent of a
//! dirty page is dirty too, so a checkpoint finds every pointer that it must change in memory.

use crate::format::{NodeId, Page, PageFault, PagePtr};
use crate::limits::PAGE_BYTES;
use crate::table::Table;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameState {
    Empty,
    Loading,
    Ready,
    Dirty,
    Damaged,
}

/// One frame's bookkeeping.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) node: NodeId,
    /// Where the page is on the device. Of a dirty page: the page that it replaces, to be freed;
    /// none when it was never written, or is an ancestor's.
    pub(crate) ptr: PagePtr,
    /// The owner that the header of a page that is being loaded must name.
    pub(crate) family: u32,
    pub(crate) state: FrameState,
    /// Mapped entries when the leaf was last counted.
    pub(crate) mapped: u8,
    /// Loads of this page that failed so far, of either copy.
    pub(crate) attempts: u8,
    /// What is wrong with its first copy.
    pub(crate) fault: Option<PageFault>,
    /// The device failed to read one of its copies: the page may well be whole.
    pub(crate) unreadable: bool,
    referenced: bool,
}

/// Frames, and which page is in which.
pub(crate) struct Cache {
    /// Never written memory of fresh frames costs nothing: one zeroed allocation.
    memory: Vec<u8>,
    frames: Vec<Frame>,
    index: Table,
    empty: Vec<u32>,
    hand: usize,
    dirty: u32,
}

impl Cache {
    pub(crate) fn new(count: u32) -> Cache {
        let frames = count as usize;
        let node = NodeId { owner: 0, level: 0, index: 0 };
        let ptr = PagePtr::NONE;
        let state = FrameState::Empty;
        let blank = Frame {
            node,
            ptr,
            family: 0,
            state,
            mapped: 0,
            attempts: 0,
            fault: None,
            unreadable: false,
            referenced: false,
        };
        Cache {
            memory: vec![0; frames * PAGE_BYTES],
            frames: vec![blank; frames],
            index: Table::new(frames),
            empty: (0..count).rev().collect(),
            hand: 0,
            dirty: 0,
        }
    }

    pub(crate) fn capacity(&self) -> u32 {
        u32::try_from(self.frames.len()).expect("frames are limited")
    }

    pub(crate) fn dirty(&self) -> u32 {
        self.dirty
    }

    /// True when the page with this number could not be used, and the device was to blame.
    pub(crate) fn is_unreadable(&self, page: u64) -> bool {
        let damaged = self.frames.iter().filter(|frame| frame.state == FrameState::Damaged);
        damaged.filter(|frame| frame.ptr.number() == page).any(|frame| frame.unreadable)
    }

    /// The frame that holds `node`, which counts as a use of it.
    pub(crate) fn find(&mut self, node: NodeId) -> Option<u32> {
        let frame = self.index.get(key_of(node))?;
        self.frames[frame as usize].referenced = true;
        Some(frame)
    }

    pub(crate) fn frame(&self, frame: u32) -> &Frame {
        &self.frames[frame as usize]
    }

    pub(crate) fn frame_mut(&mut self, frame: u32) -> &mut Frame {
        &mut self.frames[frame as usize]
    }

    pub(crate) fn page(&self, frame: u32) -> &Page {
        let at = frame as usize * PAGE_BYTES;
        Page::from_bytes(&self.memory[at..at + PAGE_BYTES])
    }

    pub(crate) fn page_mut(&mut self, frame: u32) -> &mut Page {
        let at = frame as usize * PAGE_BYTES;
        Page::from_bytes_mut(&mut self.memory[at..at + PAGE_BYTES])
    }

    /// A frame for `node` in state `state`, evicting what was not used for longest (about). `None`
    /// when every frame is pinned.
    pub(crate) fn take(&mut self, node: NodeId, ptr: PagePtr, state: FrameState) -> Option<u32> {
        assert!(matches!(state, FrameState::Loading | FrameState::Dirty));
        let frame = self.empty.pop().or_else(|| self.evict())?;
        self.frames[frame as usize] = Frame {
            node,
            ptr,
            family: 0,
            state,
            mapped: 0,
            attempts: 0,
            fault: None,
            unreadable: false,
            referenced: true,
        };
        self.index.insert(key_of(node), frame);
        if state == FrameState::Dirty {
            self.dirty += 1;
            self.page_mut(frame).clear();
        }
        Some(frame)
    }

    /// Ready -> Dirty. The page that it replaces is to be freed when it is `owned`.
    pub(crate) fn touch_dirty(&mut self, frame: u32, owned: bool) {
        let frame = &mut self.frames[frame as usize];
        match frame.state {
            FrameState::Ready => {
                frame.state = FrameState::Dirty;
                if !owned {
                    frame.ptr = PagePtr::NONE;
                }
                self.dirty += 1;
            }
            FrameState::Dirty => {}
            other => panic!("only whole pages are edited, not {other:?}"),
        }
    }

    /// Dirty -> Ready: the page is durable where `ptr` says.
    pub(crate) fn clean(&mut self, frame: u32) {
        let frame = &mut self.frames[frame as usize];
        assert_eq!(frame.state, FrameState::Dirty);
        frame.state = FrameState::Ready;
        self.dirty -= 1;
    }

    /// Forgets a page that left the tree.
    pub(crate) fn remove(&mut self, frame: u32) {
        let slot = &mut self.frames[frame as usize];
        assert!(matches!(slot.state, FrameState::Ready | FrameState::Dirty));
        if slot.state == FrameState::Dirty {
            self.dirty -= 1;
        }
        slot.state = FrameState::Empty;
        let removed = self.index.remove(key_of(slot.node));
        assert_eq!(removed, Some(frame));
        self.empty.push(frame);
    }

    /// All pages of one node become those of another, which has none yet: one look at each frame.
    pub(crate) fn rename(&mut self, from: u32, to: u32) {
        for (frame, number) in self.frames.iter_mut().zip(0u32..) {
            if frame.state == FrameState::Empty || frame.node.owner != from {
                continue;
            }
            let removed = self.index.remove(key_of(frame.node));
            assert_eq!(removed, Some(number));
            frame.node.owner = to;
            self.index.insert(key_of(frame.node), number);
        }
    }

    /// Every dirty frame, into `into`.
    pub(crate) fn collect_dirty(&self, into: &mut Vec<u32>) {
        let dirty = self.frames.iter().zip(0u32..).filter(|(f, _)| f.state == FrameState::Dirty);
        into.extend(dirty.map(|(_, number)| number));
    }

    fn evict(&mut self) -> Option<u32> {
        // Two rounds: the first may only clear marks.
        for _ in 0..self.frames.len() * 2 {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.frames.len();
            let frame = &mut self.frames[at];
            if !matches!(frame.state, FrameState::Ready | FrameState::Damaged) {
                continue;
            }
            if std::mem::take(&mut frame.referenced) {
                continue;
            }
            let number = u32::try_from(at).expect("frames are limited");
            let removed = self.index.remove(key_of(frame.node));
            assert_eq!(removed, Some(number));
            frame.state = FrameState::Empty;
            return Some(number);
        }
        None
    }
}

/// Owner, level (3 bits) and index (29 bits) in one number; never zero because owners are not.
fn key_of(node: NodeId) -> u64 {
    assert!(node.owner != 0);
    assert!(node.level < 8);
    assert!(node.index < 1 << 29);
    u64::from(node.owner) << 32 | u64::from(node.level) << 29 | node.index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(index: u64) -> NodeId {
        NodeId { owner: 1, level: 0, index }
    }

    #[test]
    fn pinned_frames_are_not_evicted() {
        let mut cache = Cache::new(4);
        let loading = cache.take(leaf(0), PagePtr::NONE, FrameState::Loading).unwrap();
        let dirty = cache.take(leaf(1), PagePtr::NONE, FrameState::Dirty).unwrap();
        for index in 2..4 {
            let frame = cache.take(leaf(index), PagePtr::NONE, FrameState::Dirty).unwrap();
            cache.clean(frame);
        }
        let third = cache.take(leaf(4), PagePtr::NONE, FrameState::Loading).unwrap();
        let fourth = cache.take(leaf(5), PagePtr::NONE, FrameState::Loading).unwrap();
        assert_ne!(third, fourth);
        assert!(cache.take(leaf(6), PagePtr::NONE, FrameState::Loading).is_none());
        assert_eq!(cache.find(leaf(0)), Some(loading));
        assert_eq!(cache.find(leaf(1)), Some(dirty));
        assert_eq!(cache.find(leaf(2)), None);
        cache.remove(dirty);
        assert_eq!((cache.dirty(), cache.find(leaf(1))), (0, None));
        assert!(cache.take(leaf(6), PagePtr::NONE, FrameState::Loading).is_some());
    }
}
