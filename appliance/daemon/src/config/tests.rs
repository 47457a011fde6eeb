//! Every key is read, has an effect and is documented; every mistake is explained.

use std::path::{Path, PathBuf};

use super::*;

/// Compares with a golden file; `UPDATE_GOLDEN=1` writes it.
fn golden(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    let name = path.display();
    assert_eq!(actual, expected, "{name} differs; UPDATE_GOLDEN=1 writes it anew");
}

fn manifest_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One key with one value, as a file.
fn file(path: &str, value: &str) -> String {
    match path.split_once('.') {
        Some((table, key)) => format!("[{table}]\n{key} = {value}\n"),
        None => format!("{path} = {value}\n"),
    }
}

#[test]
fn the_document_is_current() {
    golden(&manifest_dir().join("../../docs/configuration.md"), &document());
}

#[test]
fn every_documented_key_changes_the_configuration() {
    // Row S172: a key without effect must not exist.
    for key in KEYS {
        let mut text = file(key.path, key.example);
        if key.path == "reactor.idle" {
            text.push_str("cores = [1]\n");
        }
        let mut with = Config::parse("test", &text).unwrap();
        if key.path == "reactor.idle" {
            with.reactor.cores.clear();
        }
        assert_ne!(with, Config::default(), "{} = {} has no effect", key.path, key.example);
    }
}

#[test]
fn every_documented_default_is_the_default() {
    for key in KEYS {
        if key.default.starts_with('(') {
            continue;
        }
        let config = Config::parse("test", &file(key.path, key.default)).unwrap();
        assert_eq!(config, Config::default(), "{} = {}", key.path, key.default);
    }
}

#[test]
fn the_example_of_the_document_is_valid() {
    let document = document();
    let example = document.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    Config::parse("example", example).unwrap();
}

#[test]
fn words_are_read_in_any_case() {
    for text in ["io_uring", "IO_URING", "Io_Uring"] {
        let config = Config::parse("test", &file("io_backend", &format!("{text:?}"))).unwrap();
        assert_eq!(config.io_backend, IoBackend::IoUring);
    }
}

#[test]
fn mistakes_are_explained() {
    let dir = manifest_dir().join("testdata/config");
    let mut cases = 0;
    let mut files: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "toml")) {
        let text = std::fs::read_to_string(path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let error = Config::parse(name, &text).unwrap_err().to_string();
        assert!(error.is_ascii(), "{error}");
        golden(&path.with_extension("txt"), &format!("{error}\n"));
        cases += 1;
    }
    assert!(cases >= 5, "only {cases} cases in {}", dir.display());
}
