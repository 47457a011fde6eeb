//! Compiles the schema with a pure-Rust compiler: no `protoc` is needed.

use std::error::Error;

const FILES: [&str; 7] = [
    "holdfast/v1/discovery.proto",
    "holdfast/v1/export.proto",
    "holdfast/v1/host.proto",
    "holdfast/v1/node.proto",
    "holdfast/v1/snapshot.proto",
    "holdfast/v1/store.proto",
    "holdfast/v1/volume.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed=proto/{file}");
    }
    println!("cargo::rerun-if-changed=proto/holdfast/v1/error.proto");
    let mut files = FILES.to_vec();
    files.push("holdfast/v1/error.proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
