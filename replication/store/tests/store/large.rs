//! A device whose space map is three levels high, kept as the pages that were written.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bdev::{Completion, Data, Fifo, Info, Op, OpSet, Queue, Request, Status};
use store::{
    CheckOptions, Edit, Event, ExtentState, Format, LogTail, Lookup, Mount, Options, Store,
    VolumeId, VolumeSpec, check, turn,
};

use crate::rig::{LOG_BYTES, UUID, options, pool};

/// 600 GiB: 305 pages of space map below 2 inner pages and a root.
const BLOCKS: u64 = 600 << 18;

/// Pages that were written, and completions.
type Inner = (BTreeMap<u64, Vec<u8>>, Vec<Completion>);

#[derive(Clone)]
struct Sparse(Rc<RefCell<Inner>>);

impl Queue for Sparse {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        let (pages, done) = &mut *self.0.borrow_mut();
        while let Some(mut request) = requests.pop() {
            for block in 0..u64::from(request.blocks) {
                let at = usize::try_from(block).unwrap() * 4096;
                match &mut request.data {
                    Data::Into(buf) => match pages.get(&(request.lba.0 + block)) {
                        Some(page) => buf.bytes_mut()[at..at + 4096].copy_from_slice(page),
                        None => buf.bytes_mut()[at..at + 4096].fill(0),
                    },
                    Data::From(buf) => {
                        pages.insert(request.lba.0 + block, buf.bytes()[at..at + 4096].to_vec());
                    }
                    Data::None => {}
                }
            }
            done.push(request.complete(Status::Ok));
        }
    }

    fn kick(&mut self) {}

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        while !completions.is_full() {
            let Some(completion) = self.0.borrow_mut().1.pop() else { return };
            assert!(completions.push(completion).is_ok());
        }
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.0.borrow().1.len()).unwrap()
    }
}

fn checkpoint(store: &mut Store, disk: &mut Sparse, pool: &bdev::Pool) {
    assert!(store.begin_checkpoint(LogTail::START));
    while store.is_checkpointing() {
        turn(store, disk, pool);
    }
    assert!(matches!(store.poll_event(), Some(Event::CheckpointDone(_))));
}

#[test]
fn space_map_of_three_levels_survives_checkpoints_and_mounts() {
    let mut info = Info::new(4096, BLOCKS);
    info.ops = OpSet::of(&[Op::Read, Op::Write, Op::Flush]);
    let (pool, mut disk) = (pool(), Sparse(Rc::default()));
    let mut format = Format::new(&info, &options(LOG_BYTES)).unwrap();
    while format.take_result().is_none() {
        turn(&mut format, &mut disk, &pool);
    }
    let volume = VolumeId(1);
    let ends = [18, 32255, 32256, 252 * 32256 - 1, 252 * 32256, (600 << 14) - 1];
    for round in 0..3 {
        let mut mount = Mount::new(&info, &Options { frames: 64 });
        let mut store = loop {
            turn(&mut mount, &mut disk, &pool);
            if let Some(result) = mount.take_result() {
                break result.unwrap().store;
            }
        };
        let spec =
            VolumeSpec { id: volume, uuid: UUID, name: "v", size: 1 << 45, block_bytes: 512 };
        store.create_volume(&spec).unwrap();
        for (index, number) in (0..).zip(ends) {
            let extent = store.extent(number).unwrap();
            let birth = store.birth(volume);
            let Edit::Entry(entry) = store.edit(volume, index) else {
                assert!(round > 0);
                turn(&mut store, &mut disk, &pool);
                continue;
            };
            if round == 0 {
                entry.set_extent(extent, birth);
                assert_eq!(store.claim(extent), ExtentState::Free);
                store.commit(extent);
            }
            assert_eq!(store.extent_state(extent), ExtentState::Mapped);
        }
        checkpoint(&mut store, &mut disk, &pool);
        for (index, number) in (0..).zip(ends).filter(|&(index, _)| index > 0) {
            let Lookup::Entry(entry) = store.lookup(volume, index) else { panic!("in memory") };
            assert_eq!(entry.extent().unwrap().number(), number);
        }
        let report = check(&mut disk, &info, &pool, &CheckOptions::default());
        assert!(report.is_clean(), "{:?}", report.findings);
        assert_eq!(report.extents, ends.len() as u64);
        assert_eq!(store.extent(600 << 14), None);
    }
}
