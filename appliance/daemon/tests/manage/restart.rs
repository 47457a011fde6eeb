//! Desired state survives; what was interrupted is finished; what is lost is reported.

use api::ApiError;

use crate::stand::Stand;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_back_after_a_stop_and_after_a_kill() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    let host = "nqn.2014-08.com.example:h";
    node.ok(&format!("export add db --host {host}")).await;
    let before = node.json("export list").await;
    let info = node.json("node info").await;
    node.stop().await;

    let node = stand.start().await;
    assert_eq!(node.json("export list").await, before);
    assert_eq!(node.json("node info").await["uuid"], info["uuid"]);
    let nqn = before[0]["nqn"].as_str().unwrap();
    assert!(node.plane.connect(nqn, host));
    assert!(!node.plane.connect(nqn, "nqn.2014-08.com.example:stranger"));
    node.kill().await;

    let node = stand.start().await;
    assert_eq!(node.json("export list").await, before);
    assert_eq!(node.json("session list").await.as_array().unwrap().len(), 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_and_referrals_are_back_after_a_kill() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    node.ok("export add db --nqn nqn.2014-08.com.example:s --nsid 5 --allow-any-host").await;
    node.ok("export set-ana-state db non-optimized").await;
    node.ok("export set-ana-state db inaccessible --listener 127.0.0.1:4420").await;
    node.ok("discovery referral add 192.0.2.1:8009").await;
    let exports = node.json("export list").await;
    let referrals = node.json("discovery referral list").await;
    node.kill().await;

    let node = stand.start().await;
    assert_eq!(node.json("export list").await, exports);
    assert_eq!(exports[0]["nsid"], 5);
    assert_eq!(exports[0]["listener_states"][0]["ana_state"], "inaccessible");
    assert_eq!(node.json("discovery referral list").await, referrals);
    assert_eq!(node.plane.told_of(), ["192.0.2.1:8009"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_the_data_plane_refuses_is_not_kept() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    node.ok("export add db --allow-any-host").await;
    let before = node.json("export list").await;
    node.plane.fail_next(ApiError::unavailable("the shard is busy"));
    assert_eq!(node.holdfast("export set-ana-state db inaccessible").await.code, 6);
    assert_eq!(node.json("export list").await, before);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_creation_is_finished_at_the_next_start() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    node.plane.fail_next(ApiError::unavailable("the shard is busy"));
    assert_eq!(node.holdfast("volume create new --size 10MiB").await.code, 6);
    assert_eq!(node.json("volume show new").await["state"], "creating");
    node.kill().await;

    let node = stand.start().await;
    assert_eq!(node.json("volume show new").await["state"], "online");
    assert_eq!(node.json("node info").await["health"], "ready");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_creation_is_finished_by_asking_again() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    node.plane.fail_next(ApiError::unavailable("the shard is busy"));
    assert_eq!(node.holdfast("volume create new --size 10MiB").await.code, 6);
    assert_eq!(node.json("volume create new --size 10MiB").await["changed"], true);
    assert_eq!(node.json("volume show new").await["state"], "online");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_volume_is_reported_and_not_created_empty() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    node.ok("export add db --allow-any-host").await;
    node.stop().await;
    stand.devices.lock().unwrap().values_mut().for_each(|store| store.volumes.clear());

    let node = stand.start().await;
    let volume = node.json("volume show db").await;
    assert_eq!(volume["state"], "offline");
    assert!(volume["reason"].as_str().unwrap().contains("does not hold it"));
    assert_eq!(node.json("export list").await[0]["online"], false);
    assert_eq!(node.json("node info").await["health"], "degraded");
    assert_eq!(node.holdfast("volume resize db --size 1GiB").await.code, 5);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_in_the_same_state_directory_is_refused() {
    let stand = Stand::new();
    let node = stand.start().await;
    let plane = crate::memory_plane::MemoryPlane::new(stand.devices.clone());
    let second = daemon::Daemon::start(&stand.config(), std::sync::Arc::new(plane)).await;
    let error = format!("{:#}", second.err().unwrap());
    assert!(error.contains("is it used by another node?"), "{error}");
    assert!(stand.state_dir().join("endpoints.json").exists(), "the first one still runs");
    node.stop().await;
}
