//! Check, scrub, and what stores say of themselves.

use api::{CheckFinding, CheckReport, HealthState, StoreCheck};
use daemon::{PlaneNotice, PlaneNotices};

use crate::stand::{Running, Stand};

/// Waits for an event of this kind; its message.
async fn event(node: &Running, kind: &str) -> String {
    loop {
        let text = node.ok("node events -o json").await;
        let found = text.lines().find_map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            let message = event["message"].as_str().unwrap().to_owned();
            (event["kind"] == kind).then_some(message)
        });
        if let Some(message) = found {
            return message;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_finds_something_prints_it_and_ends_with_8() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    let finding = |kind: &str, repaired| CheckFinding {
        kind: kind.to_owned(),
        message: "extent 77".to_owned(),
        repaired,
    };
    let findings = vec![finding("leaked", true), finding("extent_twice", false)];
    let report = CheckReport { findings, dropped: 5, ..CheckReport::default() };
    node.plane.check_ends(StoreCheck::Done(report));
    let printed = node.holdfast("store check").await;
    assert_eq!(printed.code, 8, "{printed:?}");
    assert!(
        printed.out.contains("leaked: extent 77 (mended)\nextent_twice: extent 77\nand 5 more")
    );
    assert!(printed.out.ends_with("7 finding(s), 1 mended\n"), "{printed:?}");
    assert!(printed.err.starts_with("check 50%\n"), "{printed:?}");
    assert_eq!(event(&node, "store_check_finished").await, "2 finding(s), 0B given back");
    let printed = node.holdfast("store check -o json").await;
    assert_eq!(printed.code, 8, "{printed:?}");
    let report: serde_json::Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(report["clean"], false);
    assert_eq!(report["findings"][0]["repaired"], true);

    let reason = "hosts fill the log faster than the check is done".to_owned();
    node.plane.check_ends(StoreCheck::Aborted { reason });
    let printed = node.holdfast("store check main").await;
    assert_eq!(printed.code, 6, "{printed:?}");
    assert!(printed.err.contains("hosts fill the log"), "{printed:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_scrub_and_its_rate_survive_a_restart() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    node.ok("store scrub resume --rate 32MiB").await;
    node.ok("store scrub pause").await;
    node.kill().await;
    let node = stand.start().await;
    let scrub = node.json("store scrub status").await;
    assert_eq!((&scrub["paused"], &scrub["rate_bytes"]), (&true.into(), &(32 << 20).into()));
    node.plane.stores_say(|store| assert_eq!(store.scrub_rate, 0));
    node.ok("store scrub resume").await;
    node.plane.stores_say(|store| assert_eq!(store.scrub_rate, 32 << 20));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_an_event_with_the_name_of_its_volume() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    let mut uuid = None;
    node.plane.stores_say(|store| uuid = Some(store.volumes[0].uuid));
    let place = "byte 8192 of the device".to_owned();
    let notices = vec![PlaneNotice::Block { of: uuid, block: 3, place }];
    node.plane.notice(PlaneNotices { notices, missed: 2 });
    let message = event(&node, "integrity_error").await;
    assert!(message.starts_with("block 3 of volume db (byte 12288 of it; byte 8192"), "{message}");
    assert!(node.ok("node events").await.contains("2 more block(s) or page(s) are damaged"));
    assert!(node.plane.time() > 1_700_000_000, "the data plane was told the time");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantined_store_degrades_the_node_and_is_not_checked() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    node.ok("export add db --allow-any-host").await;
    let failure = "the device is quarantined for one error after the other";
    node.plane.stores_say(|store| {
        store.numbers.health.state = HealthState::Quarantined;
        store.failure = failure.to_owned();
    });
    assert_eq!(event(&node, "store_quarantined").await, failure);
    assert_eq!(node.json("store list").await[0]["state"], "failed");
    while node.json("node info").await["health"] != "degraded" {
        tokio::task::yield_now().await;
    }
    let complaint = node.json("node info").await["complaints"][0].clone();
    assert_eq!(complaint, format!("store main: {failure}"));
    for command in ["store check", "store scrub start"] {
        let printed = node.holdfast(command).await;
        assert_eq!(printed.code, 5, "{printed:?}");
        assert!(printed.err.contains(failure), "{printed:?}");
    }
    node.ok("store add main --device DIR/disk").await;
    assert_eq!(node.json("store list").await[0]["state"], "online");
    while node.json("node info").await["health"] != "ready" {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.json("export list").await[0]["online"], true);
    assert_eq!(node.holdfast("store check").await.code, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_comparison_left_over_is_gone_after_a_restart() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    node.ok("volume snapshot create db@one").await;
    assert_eq!(node.holdfast("volume diff db --base db@one").await.code, 0);
    let mut left = 0;
    node.plane.stores_say(|store| {
        // As if the node had been killed while it compared.
        let mut frozen = store.snapshots[0].clone();
        (frozen.name, frozen.uuid) = ("tmp.diff.0".to_owned(), uuid::Uuid::new_v4());
        store.snapshots.push(frozen);
        left = store.snapshots.len();
    });
    assert_eq!(left, 2, "only the one that is left over by hand");
    node.kill().await;
    let node = stand.start().await;
    let list = node.json("volume snapshot list").await;
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list[0]["name"], "db@one");
    node.stop().await;
}
