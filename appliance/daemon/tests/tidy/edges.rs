//! Which crate may depend on which, and where `unsafe` and the asynchronous runtime may live.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::{assert_none, root, sources};

/// The house's arrows. A new one needs a line here and an ADR that says why.
const EDGES: [(&str, &[&str]); 23] = [
    ("bdev", &[]),
    ("nvme-spec", &[]),
    ("bdev-sim", &["bdev"]),
    ("bdev-uring", &["bdev"]),
    ("wal", &["bdev"]),
    ("store", &["bdev"]),
    ("volume", &["bdev", "store", "wal"]),
    ("net", &["bdev"]),
    ("net-uring", &["bdev", "net"]),
    ("reservation", &[]),
    ("nvmf", &["bdev", "net", "nvme-spec", "reservation"]),
    ("api", &[]),
    ("proto", &["api"]),
    ("cluster", &["api"]),
    ("server", &["api", "proto"]),
    ("cli", &["api", "load", "proto"]),
    ("reactor", &["bdev"]),
    ("load", &["bdev", "net", "net-uring", "nvme-spec", "nvmf"]),
    ("node", &["bdev", "net", "nvmf", "reactor", "reservation", "store", "volume", "wal"]),
    ("sim", &["bdev", "bdev-sim", "net", "node", "nvmf", "reactor", "store", "volume", "wal"]),
    (
        "daemon",
        &[
            "api",
            "bdev",
            "bdev-uring",
            "cluster",
            "net",
            "net-uring",
            "node",
            "nvmf",
            "proto",
            "reactor",
            "server",
            "store",
            "volume",
            "wal",
        ],
    ),
    (
        "bench",
        &[
            "bdev",
            "bdev-uring",
            "load",
            "net",
            "net-uring",
            "node",
            "nvmf",
            "reactor",
            "store",
            "volume",
            "wal",
        ],
    ),
    ("hw-tests", &[]),
];

/// Further crates, from the registry, that only these may use.
const CONFINED: [(&str, &[&str]); 7] = [
    ("io-uring", &["bdev-uring", "net-uring"]),
    ("memmap2", &["bdev"]),
    ("anyhow", &["cli", "daemon", "hw-tests"]),
    ("tokio", &["api", "cli", "cluster", "daemon", "proto", "server"]),
    ("tonic", &["cli", "daemon", "proto", "server"]),
    ("prost", &["cli", "daemon", "proto", "server"]),
    ("axum", &["daemon", "server"]),
];

/// The folders whose crates may say `unsafe`. (Tests may, for a counting allocator.)
const UNSAFE: [&str; 5] =
    ["bdev/core", "bdev/uring", "bdev/nvme", "transports/net-uring", "appliance/reactor"];

struct Manifest {
    name: String,
    folder: String,
    dependencies: BTreeSet<String>,
}

fn manifests() -> Vec<Manifest> {
    let parse = |path: &str| -> toml::Table {
        let text = fs::read_to_string(root().join(path)).expect("a manifest");
        text.parse().expect("cargo accepts it")
    };
    let workspace = parse("Cargo.toml");
    let members = workspace["workspace"]["members"].as_array().expect("a list of members");
    let folders = members.iter().map(|member| member.as_str().expect("a path").to_owned());
    folders
        .map(|folder| {
            let manifest = parse(&format!("{folder}/Cargo.toml"));
            let name = manifest["package"]["name"].as_str().expect("a name").to_owned();
            let dependencies = manifest.get("dependencies").and_then(|table| table.as_table());
            let dependencies = dependencies.into_iter().flat_map(|table| table.keys().cloned());
            Manifest { name, folder, dependencies: dependencies.collect() }
        })
        .collect()
}

#[test]
fn arrows_point_one_way() {
    let manifests = manifests();
    let allowed: BTreeMap<&str, &[&str]> = EDGES.into_iter().collect();
    let members: BTreeSet<&str> = manifests.iter().map(|manifest| &*manifest.name).collect();
    let mut complaints = Vec::new();
    for manifest in &manifests {
        let Some(targets) = allowed.get(&*manifest.name) else {
            complaints.push(format!("{}: not in the list of crates in tidy", manifest.folder));
            continue;
        };
        for target in manifest.dependencies.iter().filter(|name| members.contains(&***name)) {
            if !targets.contains(&&**target) {
                complaints.push(format!("{} -> {target}: this edge needs an ADR", manifest.name));
            }
        }
    }
    assert_none("crate edges", complaints);
}

#[test]
fn confined_libraries_stay_where_they_are_allowed() {
    let mut complaints = Vec::new();
    for manifest in manifests() {
        for (library, crates) in CONFINED {
            let used = manifest.dependencies.contains(library);
            if used && !crates.contains(&&*manifest.name) {
                complaints.push(format!("{} uses {library}", manifest.folder));
            }
        }
    }
    assert_none("confined libraries", complaints);
}

#[test]
fn every_crate_inherits_the_workspace_rules() {
    let mut complaints = Vec::new();
    for manifest in manifests() {
        let text =
            fs::read_to_string(root().join(&manifest.folder).join("Cargo.toml")).expect("read");
        let may_be_unsafe = UNSAFE.contains(&&*manifest.folder);
        if !text.contains("[lints]\nworkspace = true") && !may_be_unsafe {
            complaints.push(format!("{}: lints are not the workspace's", manifest.folder));
        }
        if !text.contains("publish.workspace = true") {
            complaints.push(format!("{}: could be published", manifest.folder));
        }
    }
    assert_none("manifests", complaints);
}

#[test]
fn unsafe_lives_in_five_crates_and_explains_itself() {
    let mut complaints = Vec::new();
    for source in sources() {
        let is_test = source.path.contains("/tests/") || source.path.ends_with("/tests.rs");
        let uses = source.lines().find(|(_, line)| {
            let code = line.split("//").next().unwrap_or_default();
            code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
        });
        let Some((number, _)) = uses else { continue };
        if !source.is_in(&UNSAFE) && !is_test && source.path != file!() {
            complaints
                .push(format!("{}:{number}: unsafe is not allowed in this crate", source.path));
        } else if !source.text.contains("# Safety argument") && !is_test {
            complaints.push(format!("{}: no \"Safety argument\" section", source.path));
        }
    }
    assert_none("unsafe", complaints);
}

#[test]
fn crates_without_unsafe_forbid_it() {
    let mut complaints = Vec::new();
    for manifest in manifests() {
        for file in ["src/lib.rs", "src/main.rs"] {
            let Ok(text) = fs::read_to_string(root().join(&manifest.folder).join(file)) else {
                continue;
            };
            let place = format!("{}/{file}", manifest.folder);
            if !text.starts_with("//!") {
                complaints.push(format!("{place}: does not start with its documentation"));
            }
            let forbids = text.contains("#![forbid(unsafe_code)]");
            if !forbids && !UNSAFE.contains(&&*manifest.folder) {
                complaints.push(format!("{place}: lacks #![forbid(unsafe_code)]"));
            }
        }
    }
    assert_none("crate roots", complaints);
}
