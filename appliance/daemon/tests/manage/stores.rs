//! Devices: foreign data, wrong disks, disks that come back.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::stand::Stand;

fn disk(path: &str, offset: u64, bytes: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(128 << 20).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_data_is_refused_by_name_and_left_alone() {
    let stand = Stand::new();
    let node = stand.start().await;
    let path = stand.path("disk");
    for (offset, bytes, name) in [
        (0x438, &b"\x53\xef"[..], "an ext2, ext3 or ext4 file system"),
        (512, b"EFI PART", "a GPT partition table"),
        (512, b"LABELONE", "an LVM physical volume"),
        ((128 << 20) - 3, b"x", "unknown data"),
    ] {
        disk(&path, offset, bytes);
        let printed = node.holdfast("store init main --device DIR/disk").await;
        assert_eq!(printed.code, 5, "{printed:?}");
        assert!(printed.err.contains(name), "{printed:?}");
        assert!(printed.err.contains("--force-overwrite"), "{printed:?}");
        let found = std::fs::read(&path).unwrap();
        assert!(found[usize::try_from(offset).unwrap()..].starts_with(bytes));
    }
    let refused = node.holdfast("store init main --device DIR/disk --force-overwrite").await;
    assert_eq!(refused.code, 2, "asked without a terminal: {refused:?}");
    node.ok("store init main --device DIR/disk --force-overwrite --yes").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_belongs_to_one_store() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.ok("store init main --device DIR/disk --size 128MiB").await;
    let printed = node.holdfast("store init other --device DIR/./disk").await;
    assert_eq!(printed.code, 5, "{printed:?}");
    assert!(printed.err.contains("is used by store \"main\""), "{printed:?}");
    let printed = node.holdfast("store init main --device DIR/disk2 --size 128MiB").await;
    assert_eq!(printed.code, 4, "{printed:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_to_another_node_with_its_volumes() {
    let (one, other) = (Stand::new(), Stand::new());
    let node = one.start().await;
    node.with_volume().await;
    node.stop().await;

    let device: api::DevicePath = other.path("moved").parse().unwrap();
    let store = one.devices.lock().unwrap().values().next().unwrap().clone();
    other.devices.lock().unwrap().insert(device, store);
    let node = other.start().await;
    node.ok("store add main --device DIR/moved").await;
    assert_eq!(node.json("volume show db").await["state"], "online");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_comes_back_is_opened_by_adding_it_again() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    node.ok("export add db --allow-any-host").await;
    node.stop().await;
    let kept = std::mem::take(&mut *stand.devices.lock().unwrap());

    let node = stand.start().await;
    assert_eq!(node.json("store list").await[0]["state"], "offline");
    assert_eq!(node.holdfast("store add main --device DIR/disk").await.code, 5);
    assert_eq!(node.holdfast("volume create v2 --size 1MiB").await.code, 5);
    *stand.devices.lock().unwrap() = kept;
    node.ok("store add main --device DIR/disk").await;
    assert_eq!(node.json("store list").await[0]["state"], "online");
    assert_eq!(node.json("export list").await[0]["online"], true);
    assert_eq!(node.json("node info").await["health"], "ready");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_disk_in_the_same_place_is_not_served() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    node.stop().await;
    stand.devices.lock().unwrap().values_mut().for_each(|store| store.uuid = uuid::Uuid::new_v4());

    let node = stand.start().await;
    let store = node.json("store list").await[0].clone();
    assert_eq!(store["state"], "offline");
    assert!(store["reason"].as_str().unwrap().contains("was added under this name"), "{store}");
    node.stop().await;
}
