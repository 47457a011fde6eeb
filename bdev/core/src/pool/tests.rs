//! Claims about buffers and their pools.

use super::*;
use crate::Rng;

#[test]
fn segments_come_from_the_smallest_class_that_fits() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    for (len, capacity) in [(0, 4096), (4096, 4096), (4097, 16384), (1 << 20, 1 << 20)] {
        assert_eq!(pool.take(len).unwrap().capacity(), capacity);
    }
    assert!(pool.take((1 << 20) + 1).is_none());
}

#[test]
fn exhausted_pool_says_none_and_recovers() {
    let config = PoolConfig { segments: [2, 1, 0, 0, 0], huge_pages: false };
    let pool = Pool::new(&config).unwrap();
    let held: Vec<_> = (0..3).map(|_| pool.take(4096).unwrap()).collect();
    assert_eq!(held[2].capacity(), 16384, "a larger class steps in");
    assert!(pool.take(1).is_none());
    drop(held);
    assert_eq!(pool.stats().taken(), 0);
    assert!(pool.take(16384).is_some());
}

#[test]
fn last_handle_gives_the_segment_back() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let mut block = pool.take(16384).unwrap();
    block.bytes_mut()[4096] = 9;
    let whole = block.freeze();
    let part = whole.slice(4096);
    assert_eq!((part.bytes()[0], part.capacity()), (9, 12288));
    assert!(!part.is_unique());
    drop(whole);
    assert_eq!(pool.stats().taken(), 1);
    let part = part.try_unique().expect("the only handle left");
    assert_eq!(part.bytes()[0], 9);
    drop(part);
    assert_eq!(pool.stats().taken(), 0);
}

#[test]
fn parcels_carry_sole_handles_across_threads() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let buf = pool.take(4096).unwrap().freeze();
    let other = buf.clone();
    let buf = match Parcel::pack(Data::From(buf)) {
        Err(Data::From(buf)) => buf,
        _ => panic!("a shared segment must not travel"),
    };
    drop(other);
    let parcel = Parcel::pack(Data::From(buf)).expect("the sole handle");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let Data::From(buf) = parcel.unpack() else { panic!("packed as From") };
            let clone = buf.clone();
            assert_eq!(clone.bytes()[0], 0);
        });
    });
    assert_eq!(pool.stats().taken(), 0, "the segment came home through the return stack");
}

#[test]
fn pool_with_live_handles_leaves_its_memory_mapped() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let mut block = pool.take(4096).unwrap();
    drop(pool);
    block.bytes_mut()[0] = 1;
    assert_eq!(block.bytes()[0], 1);
}

#[test]
fn sizes_at_the_edge_are_refused() {
    let none = PoolConfig { segments: [0; 5], huge_pages: false };
    assert!(matches!(Pool::new(&none), Err(PoolError::Size { bytes: 0 })));
    let vast = PoolConfig { segments: [0, 0, 0, 0, 65537], huge_pages: false };
    assert!(matches!(Pool::new(&vast), Err(PoolError::Size { .. })));
    assert!(PoolConfig::for_bytes(64 << 20).byte_len() <= 64 << 20);
}

/// Random takes, freezes, clones, slices and drops; a shadow of every segment's bytes must hold.
#[test]
fn no_segment_is_handed_out_twice() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let mut rng = Rng::new(3);
    let mut held: Vec<(Buf, u8)> = Vec::new();
    for step in 0..5000u32 {
        let stamp = step.to_le_bytes()[0];
        match rng.below(4) {
            0 | 1 => {
                if let Some(mut block) = pool.take(1 << rng.between(8, 17)) {
                    block.bytes_mut().fill(stamp);
                    held.push((block.freeze(), stamp));
                }
            }
            2 => {
                if let Some(i) = rng.index(held.len()) {
                    let (buf, stamp) = &held[i];
                    let pages = buf.capacity() / SEGMENT_ALIGN;
                    let copy = buf.slice(rng.index(pages).unwrap() * SEGMENT_ALIGN);
                    let stamp = *stamp;
                    held.push((copy, stamp));
                }
            }
            _ => {
                if let Some(i) = rng.index(held.len()) {
                    let (buf, stamp) = held.swap_remove(i);
                    let bytes = buf.bytes();
                    assert!(bytes[0] == stamp && bytes[bytes.len() - 1] == stamp);
                }
            }
        }
    }
    held.clear();
    assert_eq!(pool.stats().taken(), 0);
}

#[test]
fn checksums_travel_with_the_bytes_and_end_when_they_can_change() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let mut buf = pool.take(16384).unwrap();
    for block in 0..3 {
        buf.note_checksum(block, 70 + u32::try_from(block).unwrap());
    }
    buf.mark_summed(2);
    let buf = buf.freeze();
    assert_eq!([0, 1, 2].map(|block| buf.checksum(block)), [Some(70), Some(71), None]);
    assert_eq!(buf.slice(4096).checksum(0), Some(71));
    assert_eq!(buf.slice(4096).checksum(1), None);
    assert_eq!(buf.checksum(1 << 20), None);
    let mut buf = buf.try_unique().unwrap();
    buf.bytes_mut();
    let buf = buf.freeze();
    assert_eq!(buf.checksum(0), None, "the bytes may have changed");
    let mut buf = buf.try_unique().unwrap();
    buf.mark_summed(1);
    drop(buf);
    let all: Vec<_> = std::iter::from_fn(|| pool.take(16384)).map(BufMut::freeze).collect();
    assert!(all.iter().all(|buf| buf.checksum(0).is_none()), "the segment is somebody else's");
}

#[test]
fn free_bytes_are_those_of_segments_that_are_large_enough() {
    let pool = Pool::new(&PoolConfig::tiny()).unwrap();
    let stats = pool.stats();
    assert_eq!(stats.free_bytes(0), PoolConfig::tiny().byte_len());
    assert_eq!(stats.free_bytes(64 << 10), (8 * 64 + 4 * 256 + 1024) << 10);
    let _large = pool.take(1 << 20).unwrap();
    assert_eq!(pool.stats().free_bytes((256 << 10) + 1), 0);
    assert_eq!(pool.stats().free_bytes(256 << 10), 1 << 20);
}
