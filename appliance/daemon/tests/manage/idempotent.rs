//! Asking again changes nothing; asking for something else is refused; ids correlate.

use api::{ApiError, ErrorKind};
use proto::v1;
use proto::v1::volume_service_client::VolumeServiceClient;
use tonic::Request;

use crate::stand::Stand;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mutation_can_be_repeated() {
    let stand = Stand::new();
    let node = stand.start().await;
    let host = "nqn.2014-08.com.example:h";
    let lines = [
        "store init main --device DIR/disk --size 1GiB".to_owned(),
        "volume create db --size 100MiB --block-size 512".to_owned(),
        "volume resize db --size 200MiB".to_owned(),
        "export add db".to_owned(),
        format!("export hosts add db {host}"),
        format!("export hosts remove db {host} --yes"),
        "export remove db --if-exists --yes".to_owned(),
        "volume delete db --if-exists --yes".to_owned(),
    ];
    for line in lines {
        assert_eq!(node.json(&line).await["changed"], true, "{line}");
        assert_eq!(node.json(&line).await["changed"], false, "{line}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_is_in_the_answer_the_error_and_the_events() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", node.grpc));
    let channel = endpoint.unwrap().connect().await.unwrap();
    let mut client = VolumeServiceClient::new(channel);
    let mut request = Request::new(v1::VolumeResizeRequest {
        name: "db".to_owned(),
        size_bytes: 200 << 20,
        shrink: false,
    });
    request.metadata_mut().insert(proto::REQUEST_ID_KEY, "job-7".parse().unwrap());
    let answer = client.resize(request).await.unwrap();
    assert_eq!(answer.metadata().get(proto::REQUEST_ID_KEY).unwrap(), "job-7");

    let mut request = Request::new(v1::VolumeShowRequest { name: "nobody".to_owned() });
    request.metadata_mut().insert(proto::REQUEST_ID_KEY, "job-8".parse().unwrap());
    let status = client.show(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert_eq!(proto::request_id_of_status(&status).unwrap().as_str(), "job-8");

    // An id that could damage a log is refused, under an id of the node's own.
    let mut request = Request::new(v1::VolumeShowRequest { name: "db".to_owned() });
    request.metadata_mut().insert(proto::REQUEST_ID_KEY, "a b".parse().unwrap());
    let status = client.show(request).await.unwrap_err();
    assert_eq!(proto::error_from_status(&status).kind(), ErrorKind::InvalidArgument);
    assert_ne!(proto::request_id_of_status(&status).unwrap().as_str(), "a b");

    let events = node.ok("node events -o json").await;
    let resized = events.lines().find(|line| line.contains("volume_resized")).unwrap();
    assert!(resized.contains("\"request_id\":\"job-7\""), "{resized}");
    drop(client);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_refuses_leaves_nothing_behind() {
    let stand = Stand::new();
    let node = stand.start().await;
    node.with_volume().await;
    node.plane.fail_next(ApiError::exhausted("the store is full", "delete a volume"));
    let printed = node.holdfast("volume create big --size 1TiB").await;
    assert_eq!(printed.code, 7, "{printed:?}");
    assert_eq!(node.holdfast("volume show big").await.code, 3);
    node.plane.fail_next(ApiError::exhausted("the store is full", "delete a volume"));
    assert_eq!(node.holdfast("volume resize db --size 1TiB").await.code, 7);
    assert_eq!(node.json("volume show db").await["size_bytes"], 100 << 20);
    node.plane.fail_next(ApiError::exhausted("too many subsystems", ""));
    assert_eq!(node.holdfast("export add db").await.code, 7);
    assert_eq!(node.json("export list").await.as_array().unwrap().len(), 0);
    node.stop().await;
}
