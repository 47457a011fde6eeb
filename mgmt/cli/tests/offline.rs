//! What works without a node: help, completions, manual pages, refusals.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

fn run(args: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut terminal =
        cli::Terminal { out: &mut out, err: &mut err, input: &mut &b""[..], interactive: false };
    let code = cli::run([&["holdfast"], args].concat(), &mut terminal);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn help_lists_every_exit_code() {
    let (code, out, err) = run(&["--help"]);
    assert_eq!((code, err.as_str()), (0, ""));
    for (exit_code, meaning) in cli::EXIT_CODES {
        assert!(out.contains(&format!("  {exit_code}  {}", &meaning[..9])), "{out}");
    }
}

#[test]
fn the_operators_manual_lists_every_exit_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    for (exit_code, meaning) in cli::EXIT_CODES {
        let meaning = meaning.split(':').next().unwrap();
        assert!(text.contains(&format!("| {exit_code} | {meaning}")), "{exit_code}: {meaning}");
    }
}

#[test]
fn completions_know_the_commands_in_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, _) = run(&["completions", shell]);
        assert_eq!(code, 0);
        for word in ["volume", "export", "force-overwrite", "allow-any-host"] {
            assert!(out.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let dir = tempfile::tempdir().unwrap();
    let man = dir.path().join("man1");
    assert_eq!(run(&["man", man.to_str().unwrap()]).0, 0);
    for page in ["holdfast.1", "holdfast-store-init.1", "holdfast-export-hosts-add.1"] {
        let text = std::fs::read_to_string(man.join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    let (code, _, err) = run(&["man", "/proc/none"]);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn an_error_is_one_json_object_for_scripts() {
    let (code, out, err) = run(&["volume", "delete", "db", "-o", "json"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert_eq!(err.matches('\n').count(), 1);
    assert!(err.starts_with("{\"error\":{\"exit_code\":2,"), "{err}");
    let (code, _, err) = run(&["node", "info", "--server", "http://127.0.0.1:1"]);
    assert_eq!(code, 6, "{err}");
}

#[test]
fn keys_are_made_without_a_node_and_each_is_another() {
    let make = |args: &[&str]| {
        let (code, out, err) = run(&[&["host", "gen-dhchap-key"], args].concat());
        assert_eq!((code, err.as_str()), (0, ""));
        out.trim().to_owned()
    };
    for (hmac, len) in [("0", 59), ("1", 59), ("2", 83), ("3", 103)] {
        let (one, other) = (make(&["-m", hmac]), make(&["-m", hmac]));
        assert!(one.starts_with(&format!("DHHC-1:0{hmac}:")) && one != other, "{one}");
        assert_eq!(one.len(), len, "{one}");
        assert!(one.parse::<api::DhchapKey>().is_ok());
    }
    assert_eq!(make(&["-l", "64"]).parse::<api::DhchapKey>().unwrap().secret().len(), 64);
    assert_eq!(run(&["host", "gen-dhchap-key", "-l", "33"]).0, 2);
    assert_eq!(run(&["host", "gen-dhchap-key", "-m", "4"]).0, 2);
}

#[test]
fn a_key_that_is_none_is_refused_and_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", dir.path().join("nobody").display());
    let host = "nqn.2014-08.com.example:h";
    let file = dir.path().join("key");
    std::fs::write(&file, "DHHC-1:00:c2VjcmV0:\n").unwrap();
    let in_file = format!("@{}", file.display());
    for key in ["DHHC-1:00:c2VjcmV0:", &in_file] {
        let (_, out, err) = run(&["--server", &socket, "host", "set", host, "--dhchap-key", key]);
        assert!(!(out + &err).contains("c2VjcmV0"), "{err}");
    }
}
