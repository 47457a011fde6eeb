//! Metrics and health, as Prometheus and a load balancer see them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stand::Stand;

/// Head and body of an answer.
async fn fetch(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_open_metrics_and_show_the_volume() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    node.ok("export add db --allow-any-host").await;
    node.holdfast("volume show nobody").await;
    let (head, body) = fetch(&node.http, "/metrics").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let expected = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.contains(expected), "{head}");
    assert!(body.ends_with("# EOF\n"));
    for line in [
        "holdfast_node_ready 1.0",
        "holdfast_volume_operations_total{volume=\"db\",operation=\"read\"} 3",
        "holdfast_store_capacity_bytes{store=\"main\"} 1073741824.0",
        "holdfast_requests_total{method=\"volume.show\",outcome=\"not_found\"} 1",
        "holdfast_requests_total{method=\"volume.create\",outcome=\"ok\"} 1",
        "holdfast_shard_turns_total{shard=\"0\",core=\"none\"} 7",
    ] {
        assert!(body.lines().any(|found| found == line), "{line}\nis not in\n{body}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_alive_from_ready_from_degraded() {
    let stand = Stand::new();
    let node = stand.start().await;
    assert_eq!(fetch(&node.http, "/healthz").await.1, "ok\n");
    assert_eq!(fetch(&node.http, "/readyz").await.1, "ready\n");
    assert!(fetch(&node.http, "/elsewhere").await.0.starts_with("http/1.1 404"));
    node.with_volume().await;
    node.stop().await;

    // The disk is gone: the node serves what it can, and says what it cannot.
    stand.devices.lock().unwrap().clear();
    let node = stand.start().await;
    let (head, body) = fetch(&node.http, "/readyz").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(body.starts_with("degraded\n"), "{body}");
    assert!(body.contains("store main: ") && body.contains("holds no store"), "{body}");
    node.stop().await;
}
