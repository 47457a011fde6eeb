//! What every state store promises, checked on each of them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;

use cluster::{
    Expected, HISTORY_KEPT, MemoryStateStore, RedbStateStore, Revision, StateError, StateStore,
    VALUE_LEN_MAX,
};

fn run<F: Future<Output = ()>>(case: impl Fn(Arc<dyn StateStore>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(case(Arc::new(MemoryStateStore::new())));
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(case(Arc::new(open(dir.path()))));
}

fn open(dir: &Path) -> RedbStateStore {
    RedbStateStore::open(&dir.join("state.redb")).unwrap()
}

async fn put(store: &Arc<dyn StateStore>, key: &str, value: &str) -> Revision {
    let expected = match store.read(key).await.unwrap() {
        None => Expected::Absent,
        Some(entry) => Expected::At(entry.revision),
    };
    store.swap(key, expected, Some(value.into())).await.unwrap()
}

#[test]
fn a_written_value_is_read_with_its_revision() {
    run(async |store| {
        assert_eq!(store.read("a").await.unwrap(), None);
        let first = put(&store, "a", "1").await;
        let second = put(&store, "b", "2").await;
        assert!(second > first);
        let entry = store.read("a").await.unwrap().unwrap();
        assert_eq!((entry.value.as_slice(), entry.revision), (b"1".as_slice(), first));
    });
}

#[test]
fn a_swap_that_finds_something_else_changes_nothing() {
    run(async |store| {
        let first = put(&store, "a", "1").await;
        let second = put(&store, "a", "2").await;
        for expected in [Expected::Absent, Expected::At(first), Expected::At(Revision(99))] {
            for value in [Some(b"3".to_vec()), None] {
                let error = store.swap("a", expected, value).await.unwrap_err();
                let StateError::Conflict { found, .. } = error else { panic!("{error}") };
                assert_eq!(found, Some(second));
            }
        }
        assert_eq!(store.read("a").await.unwrap().unwrap().value, b"2");
        assert_eq!(store.list("").await.unwrap().revision, second);
        let error = store.swap("b", Expected::At(first), None).await.unwrap_err();
        assert!(matches!(error, StateError::Conflict { found: None, .. }));
    });
}

#[test]
fn a_list_is_the_prefix_in_order_at_one_revision() {
    run(async |store| {
        for key in ["b/2", "a/1", "b/1", "b-1", "c"] {
            put(&store, key, key).await;
        }
        let listing = store.list("b/").await.unwrap();
        let keys: Vec<_> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["b/1", "b/2"]);
        assert_eq!(listing.revision, Revision(5));
        assert_eq!(store.list("").await.unwrap().entries.len(), 5);
        assert_eq!(store.list("zz").await.unwrap().entries.len(), 0);
    });
}

#[test]
fn a_removed_key_is_gone_and_can_be_created_again() {
    run(async |store| {
        let first = put(&store, "a", "1").await;
        let removed = store.swap("a", Expected::At(first), None).await.unwrap();
        assert!(removed > first);
        assert_eq!(store.read("a").await.unwrap(), None);
        let unchanged = store.swap("a", Expected::Absent, None).await.unwrap();
        assert_eq!(unchanged, removed);
        assert!(put(&store, "a", "2").await > removed);
    });
}

#[test]
fn a_watch_sees_every_change_of_its_prefix_after_its_start() {
    run(async |store| {
        put(&store, "a/1", "before").await;
        let start = store.list("a/").await.unwrap().revision;
        let mut watch = store.watch("a/", start);
        put(&store, "b/1", "elsewhere").await;
        let second = put(&store, "a/2", "new").await;
        let third = store.swap("a/2", Expected::At(second), None).await.unwrap();
        let change = watch.next().await.unwrap();
        assert_eq!((change.key.as_str(), change.value.as_deref()), ("a/2", Some(&b"new"[..])));
        assert_eq!(change.revision, second);
        let change = watch.next().await.unwrap();
        assert_eq!((change.value, change.revision), (None, third));

        // Resumed after a break, from the last change that was seen.
        let mut resumed = store.watch("a/", second);
        assert_eq!(resumed.next().await.unwrap().revision, third);
    });
}

#[test]
fn a_waiting_watch_wakes_up_for_the_next_change() {
    run(async |store| {
        let mut watch = store.watch("", Revision(0));
        let writer = async {
            tokio::task::yield_now().await;
            put(&store, "a", "1").await
        };
        let (change, revision) = tokio::join!(watch.next(), writer);
        assert_eq!(change.unwrap().revision, revision);
    });
}

#[test]
fn a_watch_that_fell_behind_is_told_so() {
    // Only in memory: the redb store would fsync 4096 times.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStateStore::new());
        for number in 0..=HISTORY_KEPT {
            put(&store, "a", &number.to_string()).await;
        }
        let error = store.watch("", Revision(0)).next().await.unwrap_err();
        assert!(matches!(error, StateError::Compacted { oldest: Revision(2) }), "{error}");
        assert_eq!(store.watch("", Revision(1)).next().await.unwrap().revision, Revision(2));
    });
}

#[test]
fn keys_and_values_are_bounded() {
    run(async |store| {
        let long = "k".repeat(257);
        for key in ["", "a b", "a\n", "\u{e4}", long.as_str()] {
            let error = store.swap(key, Expected::Absent, Some(vec![])).await.unwrap_err();
            assert!(matches!(error, StateError::InvalidKey { .. }), "{key:?}");
        }
        let fits = store.swap("a", Expected::Absent, Some(vec![0; VALUE_LEN_MAX])).await;
        assert!(fits.is_ok());
        let error = store.swap("b", Expected::Absent, Some(vec![0; VALUE_LEN_MAX + 1])).await;
        assert!(matches!(error.unwrap_err(), StateError::ValueTooLarge { .. }));
    });
}

#[test]
fn the_file_keeps_entries_revision_and_history() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let last = runtime.block_on(async {
        let store: Arc<dyn StateStore> = Arc::new(open(dir.path()));
        put(&store, "a", "1").await;
        put(&store, "b", "2").await
    });
    runtime.block_on(async {
        let store: Arc<dyn StateStore> = Arc::new(open(dir.path()));
        assert_eq!(store.list("").await.unwrap().revision, last);
        assert_eq!(store.watch("", Revision(1)).next().await.unwrap().revision, last);
        assert!(put(&store, "a", "3").await > last);
    });
}

#[test]
fn a_second_process_cannot_open_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let error = RedbStateStore::open(&dir.path().join("state.redb")).err().unwrap();
    assert!(error.to_string().starts_with("the state store failed: open"), "{error}");
}
