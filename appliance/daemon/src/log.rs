//! Logs: one event a line, on standard error, ASCII only.
//!
//! Text is for people and for the journal, JSON is for collectors. Both carry the fields of the
//! request a line belongs to: `request_id` and `method`.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat};

/// Begins to log to standard error. The second call in a process has no effect.
pub(crate) fn start(config: &LogConfig) {
    let result = match config.format {
        LogFormat::Text => tracing::subscriber::set_global_default(text(config, io::stderr)),
        LogFormat::Json => tracing::subscriber::set_global_default(json(config, io::stderr)),
    };
    if result.is_err() {
        tracing::debug!("logging was started already");
    }
}

fn filter(config: &LogConfig) -> EnvFilter {
    EnvFilter::new(config.level.as_str())
}

fn text<W>(config: &LogConfig, writer: W) -> impl tracing::Subscriber + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_ansi(false).with_target(false);
    builder.with_env_filter(filter(config)).with_writer(AsciiWriter(writer)).finish()
}

fn json<W>(config: &LogConfig, writer: W) -> impl tracing::Subscriber + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().json().flatten_event(true).with_target(false);
    builder.with_env_filter(filter(config)).with_writer(AsciiWriter(writer)).finish()
}

/// Escapes what is not printable ASCII, so that no name, path or message from outside can damage a
/// log or forge a line of it.
struct AsciiWriter<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for AsciiWriter<W> {
    type Writer = Ascii<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Ascii(self.0.make_writer())
    }
}

struct Ascii<W>(W);

impl<W: Write> Write for Ascii<W> {
    /// Takes a whole line at once: the formatter writes each event in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let end = line.strip_suffix(b"\n").map_or(line.len(), <[u8]>::len);
        let mut clean = Vec::with_capacity(line.len());
        for character in String::from_utf8_lossy(&line[..end]).chars() {
            match u8::try_from(character) {
                Ok(byte @ b' '..=b'~') => clean.push(byte),
                // UTF-16 units, as JSON strings have them.
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        clean.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                    }
                }
            }
        }
        clean.extend_from_slice(&line[end..]);
        self.0.write_all(&clean)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests;
