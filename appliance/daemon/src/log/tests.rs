//! Lines are ASCII, whole, and carry their request.

use std::sync::{Arc, Mutex};

use super::*;
use crate::config::LogLevel;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn written(format: LogFormat, work: impl FnOnce()) -> String {
    let memory = Memory::default();
    let config = LogConfig { format, level: LogLevel::Info };
    let writer = {
        let memory = memory.clone();
        move || memory.clone()
    };
    match format {
        LogFormat::Text => tracing::subscriber::with_default(text(&config, writer), work),
        LogFormat::Json => tracing::subscriber::with_default(json(&config, writer), work),
    }
    let bytes = memory.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn hostile() {
    let span = tracing::info_span!("request", request_id = %"job-7", method = "volume.create");
    span.in_scope(|| {
        tracing::info!(name = "caf\u{e9}\nFORGED", "a \u{1f512} message\x1b[31m\r\n");
        tracing::debug!("not at this level");
    });
}

#[test]
fn every_line_is_printable_ascii_and_one_event() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let log = written(format, hostile);
        assert_eq!(log.matches('\n').count(), 1, "{log}");
        let line = log.strip_suffix('\n').unwrap();
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
    }
}

#[test]
fn every_line_carries_its_request() {
    let log = written(LogFormat::Text, hostile);
    assert!(log.contains("request_id=job-7") && log.contains("method=\"volume.create\""), "{log}");
    let log = written(LogFormat::Json, hostile);
    let line: serde_json::Value = serde_json::from_str(&log).unwrap();
    assert_eq!(line["span"]["request_id"], "job-7", "{log}");
    assert_eq!(line["level"], "INFO");
}
