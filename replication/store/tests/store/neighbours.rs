//! Deleted snapshots that cannot be reclaimed to their end, and those next to them.

use store::{Unmap, VolumeId};

use crate::pages::metadata_pages;
use crate::rig::{Rig, check_disk};

const DEVICE: usize = (128 << 10) + (1 << 20) + (16 << 20);

/// Extents of one leaf.
const LEAF: u64 = 48;
/// More leaves than there are frames.
const LEAVES: u64 = 40;
const FRAMES: u32 = 24;

/// Two snapshots under a volume. Each has a leaf of its own everywhere, with one extent that those
/// after it share.
fn two_snapshots() -> (Rig, VolumeId, [VolumeId; 2]) {
    let mut rig = Rig::new(4096, DEVICE, FRAMES);
    let volume = rig.create(1 << 30);
    let fill = |rig: &mut Rig, at: u64| {
        for leaf in 0..LEAVES {
            assert!(rig.write(volume, leaf * LEAF + at, 0, 1));
        }
        rig.checkpoint();
    };
    fill(&mut rig, 0);
    let first = rig.snapshot(volume);
    fill(&mut rig, 0);
    fill(&mut rig, 1);
    let second = rig.snapshot(volume);
    fill(&mut rig, 1);
    fill(&mut rig, 2);
    (rig, volume, [first, second])
}

/// Damages, or mends, both copies of the leaf in the middle that a snapshot has of its own.
fn flip_leaf(rig: &mut Rig, snapshot: VolumeId) {
    rig.is_damaged = true;
    let birth = rig.store.birth(snapshot).to_le_bytes();
    let image = rig.disk.view();
    let mut found = 0;
    for page in metadata_pages(&image) {
        let header = &image[page.at(0)..page.at(64)];
        let index = u64::from_le_bytes(header[16..24].try_into().unwrap());
        // Of all kinds, a leaf is 2. The birth is in it.
        if (header[8], index) == (2, LEAVES / 2) && header[56..60] == birth {
            rig.disk.flip(page.at(2000));
            rig.disk.flip(page.second * 4096 + 2000);
            found += 1;
        }
    }
    assert!(found > 0, "there is such a leaf");
}

/// Reclaims all that can be; how often a damaged page stopped it.
fn reclaim(rig: &mut Rig) -> u64 {
    let mut damaged = 0;
    loop {
        match rig.store.reclaim() {
            Unmap::Done => return damaged,
            Unmap::Damaged(_) => damaged += 1,
            Unmap::Busy => rig.checkpoint(),
            Unmap::More | Unmap::Pending => rig.turn(),
        }
    }
}

fn cut(rig: &Rig, node: VolumeId) -> u64 {
    rig.store.volume(node).unwrap().cut.get()
}

/// The page is whole again: nothing was lost and the rest of the space comes back.
fn mend_and_finish(mut rig: Rig, damaged: VolumeId) {
    rig.checkpoint();
    flip_leaf(&mut rig, damaged);
    let report = check_disk(&rig.disk, &rig.pool, false);
    assert!(report.is_clean(), "{:?}", report.findings);
    let mut rig = rig.remount().unwrap();
    rig.verify();
    assert_eq!(reclaim(&mut rig), 0);
    rig.checkpoint();
    rig.verify();
    assert_eq!(rig.verify_space().extents, 3 * LEAVES);
    assert_eq!(rig.store.nodes().count(), 1);
}

#[test]
fn snapshot_above_one_that_stopped_handing_over_waits_for_it() {
    let (mut rig, _, [first, second]) = two_snapshots();
    flip_leaf(&mut rig, second);
    rig.delete(first);
    rig.delete(second);
    assert_eq!(reclaim(&mut rig), 1);
    // Where the second has handed over already its tree lacks what the volume shares with the
    // first: who compares the first with it would release that.
    assert_eq!((cut(&rig, first), cut(&rig, second)), (0, LEAVES / 2 * LEAF));
    mend_and_finish(rig, second);
}

#[test]
fn snapshot_below_one_that_stopped_handing_over_waits_for_it() {
    let (mut rig, _, [first, second]) = two_snapshots();
    flip_leaf(&mut rig, first);
    rig.delete(first);
    assert_eq!(reclaim(&mut rig), 1);
    rig.delete(second);
    assert_eq!(reclaim(&mut rig), 0);
    assert_eq!((cut(&rig, first), cut(&rig, second)), (LEAVES / 2 * LEAF, 0));
    mend_and_finish(rig, first);
}

#[test]
fn reclaiming_waits_for_a_checkpoint_that_runs_and_asks_for_one_in_time() {
    let mut rig = Rig::new(4096, DEVICE, FRAMES);
    let volume = rig.create(1 << 30);
    for leaf in 0..LEAVES {
        assert!(rig.write(volume, leaf * LEAF, 0, 1) && rig.write(volume, leaf * LEAF + 1, 0, 1));
    }
    let snapshot = rig.snapshot(volume);
    rig.checkpoint();
    // Both children have replaced one of two extents: each leaf of the snapshot is changed.
    let clone = rig.clone_of(snapshot);
    for leaf in 0..LEAVES {
        assert!(rig.write(volume, leaf * LEAF, 0, 2) && rig.write(clone, leaf * LEAF, 0, 3));
    }
    rig.checkpoint();
    rig.delete(snapshot);
    rig.begin();
    while rig.store.is_checkpointing() {
        assert_eq!(rig.store.reclaim(), Unmap::Busy);
        rig.turn();
    }
    let mut checkpoints = 0;
    loop {
        match rig.store.reclaim() {
            Unmap::Done => break,
            Unmap::Busy => {
                checkpoints += 1;
                rig.checkpoint();
            }
            _ => rig.turn(),
        }
    }
    assert!(checkpoints >= LEAVES / u64::from(FRAMES), "{checkpoints} checkpoints");
    rig.checkpoint();
    rig.verify();
    assert_eq!(check_disk(&rig.disk, &rig.pool, false).extents, 3 * LEAVES);
}
