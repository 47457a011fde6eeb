//! What the command line prints, word for word.
//!
//! `testdata/cli/*.script` holds commands (`$ ...`, with `y>` before one that is answered with
//! yes); the `.golden` file beside it holds them with output and exit code. UPDATE_GOLDEN=1 writes
//! it.

use std::path::{Path, PathBuf};

use crate::stand::{Printed, Stand};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_print_what_is_recorded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cli");
    let mut scripts: Vec<PathBuf> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "script"));
    scripts.sort();
    assert!(scripts.len() >= 4, "only {} scripts in {}", scripts.len(), dir.display());
    for script in scripts {
        let transcript = play(&script).await;
        let golden = script.with_extension("golden");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &transcript).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert!(transcript.is_ascii(), "{}", script.display());
        assert_eq!(transcript, expected, "{}; UPDATE_GOLDEN=1 writes it", golden.display());
    }
}

async fn play(script: &Path) -> String {
    let stand = Stand::new();
    let node = stand.start().await;
    let mut transcript = String::new();
    for line in std::fs::read_to_string(script).unwrap().lines() {
        let (answer, command) = match line.strip_prefix("y> ") {
            Some(rest) => (Some("y\n"), rest),
            None => (None, line),
        };
        let Some(command) = command.strip_prefix("$ ") else {
            transcript.push_str(&format!("{line}\n"));
            continue;
        };
        if let Some(arguments) = command.strip_prefix("connect ") {
            let (subsystem, host) = arguments.split_once(' ').unwrap();
            let connected = node.plane.connect(subsystem, host);
            transcript.push_str(&format!("$ {command}\n(connected: {connected})\n"));
            continue;
        }
        let Printed { code, out, err } = node.holdfast_answering(command, answer).await;
        let text = format!("{line}\n{out}{err}(exit {code})\n");
        transcript.push_str(&text.replace(&stand.path(""), "DIR/"));
    }
    node.stop().await;
    neutral(&transcript)
}

/// Replaces what is different in each run: identities and times.
fn neutral(text: &str) -> String {
    let mut result = String::new();
    for word in text.split_inclusive([' ', '\n', '"', '(', ')', ',']) {
        let bare = word.trim_end_matches([' ', '\n', '"', '(', ')', ',', ':']);
        let rest = &word[bare.len()..];
        if bare.len() == 36 && uuid::Uuid::try_parse(bare).is_ok() {
            result.push_str("UUID");
        } else if bare.len() == 24 && bare.ends_with('Z') && bare.contains('T') {
            result.push_str("TIME");
        } else if let Some(number) = milliseconds(bare) {
            result.push_str(&bare.replace(number, "MILLISECONDS"));
        } else {
            result.push_str(bare);
        }
        result.push_str(rest);
    }
    result
}

/// The milliseconds since 1970 in a word of JSON.
fn milliseconds(word: &str) -> Option<&str> {
    let number = word.trim_matches([':', '}']);
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    (number.len() == 13 && digits && number != "1099511627776").then_some(number)
}
