//! SIGTERM: no new changes, everything finished, nothing left behind.

use api::{Node, RequestId, VolumeName};

use crate::stand::Stand;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_drains_the_data_plane_and_removes_socket_and_endpoints() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    assert!(stand.state_dir().join("endpoints.json").exists());
    let (plane, socket) = (node.plane.clone(), node.socket().to_owned());
    node.stop().await;
    assert!(plane.is_drained());
    assert!(!socket.exists());
    assert!(!stand.state_dir().join("endpoints.json").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_does_not_hold_up_the_end() {
    let stand = Stand::new();
    let node = stand.start().await;
    let server = format!("unix:{}", node.socket().display());
    let follower = tokio::task::spawn_blocking(move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = cli::Terminal {
            out: &mut out,
            err: &mut err,
            input: &mut &b""[..],
            interactive: false,
        };
        let args = ["holdfast", "--server", &server, "node", "events", "--follow"];
        let code = cli::run(args, &mut terminal);
        (code, String::from_utf8(out).unwrap())
    });
    // The follower is connected when its request was answered; whether before or after the drain
    // began, it ends by itself.
    node.ok("store list").await;
    node.stop().await;
    let (code, out) = follower.await.unwrap();
    assert!(code == 0 || code == 6, "{code}");
    if code == 0 {
        assert!(out.contains("node_ready"), "{out}");
    }
}

#[tokio::test]
async fn a_draining_node_answers_questions_and_refuses_changes() {
    let stand = Stand::new();
    let plane = crate::memory_plane::MemoryPlane::new(stand.devices.clone());
    let daemon = daemon::Daemon::start(&stand.config(), std::sync::Arc::new(plane)).await.unwrap();
    let node: std::sync::Arc<dyn Node> = daemon.node();
    daemon.run(std::future::ready(())).await.unwrap();
    assert!(!node.health().is_ready());
    assert!(node.volume_list().await.unwrap().is_empty());
    let id: RequestId = "r".parse().unwrap();
    let name: VolumeName = "v".parse().unwrap();
    let error =
        node.volume_delete(&id, api::VolumeDelete { name, snapshots: false }).await.unwrap_err();
    assert_eq!(error.kind(), api::ErrorKind::Unavailable);
}
