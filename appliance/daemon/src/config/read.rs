//! From TOML to [`Config`], with every complaint.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use api::{ByteLen, StoreName};
use toml::de::{DeTable, DeValue};

use super::schema::KEYS;
use super::{
    Complaint, Config, Idle, IoBackend, LogConfig, LogFormat, LogLevel, ManagementConfig,
    MemoryConfig, NvmeTcpConfig, ReactorConfig,
};
use crate::limits::DRAIN_SECONDS_DEFAULT;

/// The configuration in `text`, or everything that is wrong with it.
pub(super) fn read(text: &str) -> Result<Config, Vec<Complaint>> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(0, |span| line_of(text, &span));
        vec![Complaint { line, reason: one_line(error.message()), hint: String::new() }]
    })?;
    let mut reader = Reader { text, found: BTreeMap::new(), complaints: Vec::new() };
    reader.collect("", table.get_ref());
    let config = reader.config();
    reader.complaints.sort_by_key(|complaint| complaint.line);
    if reader.complaints.is_empty() { Ok(config) } else { Err(reader.complaints) }
}

struct Reader<'t> {
    text: &'t str,
    /// Known keys that are in the file: value and line.
    found: BTreeMap<&'static str, (DeValue<'t>, usize)>,
    complaints: Vec<Complaint>,
}

impl<'t> Reader<'t> {
    /// Sorts the file into known keys and complaints.
    fn collect(&mut self, prefix: &str, table: &DeTable<'t>) {
        for (key, value) in table {
            let path = format!("{prefix}{}", key.get_ref());
            let line = line_of(self.text, &key.span());
            let inside = format!("{path}.");
            let is_table = KEYS.iter().any(|known| known.path.starts_with(&inside));
            match (KEYS.iter().find(|known| known.path == path), value.get_ref()) {
                (Some(known), value) => {
                    self.found.insert(known.path, (value.clone(), line));
                }
                (None, DeValue::Table(table)) if is_table => self.collect(&inside, table),
                (None, _) if is_table => {
                    let reason = format!("{path:?} is a table, not a value");
                    self.complain(line, reason, format!("write [{path}] above its keys"));
                }
                (None, _) => self.unknown(&path, line),
            }
        }
    }

    fn unknown(&mut self, path: &str, line: usize) {
        let tables = KEYS.iter().filter_map(|key| key.path.split_once('.')).map(|(table, _)| table);
        let known = KEYS.iter().map(|key| key.path).chain(tables);
        // A key in the wrong table is nearer to what was meant than a similar word.
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let nearness = |known: &str| {
            let whole = strsim::jaro_winkler(known, path);
            let part = strsim::jaro_winkler(&last(known), &last(path)) - 0.01;
            whole.max(part)
        };
        let nearest = known
            .map(|known| (nearness(known), known))
            .max_by(|(one, _), (other, _)| one.total_cmp(other));
        let hint = match nearest {
            Some((nearness, known)) if nearness >= 0.8 => format!("did you mean {known:?}?"),
            _ => "docs/configuration.md lists all keys".to_owned(),
        };
        self.complain(line, format!("unknown key {:?}", ascii(path)), hint);
    }

    fn complain(&mut self, line: usize, reason: impl Into<String>, hint: impl Into<String>) {
        let (reason, hint) = (reason.into(), hint.into());
        self.complaints.push(Complaint { line, reason, hint });
    }

    fn config(&mut self) -> Config {
        let config = Config {
            node_name: self.value("node_name", node_name).unwrap_or_else(host_name),
            state_dir: self.value("state_dir", path).unwrap_or_else(|| "/var/lib/holdfast".into()),
            io_backend: self.value("io_backend", io_backend).unwrap_or(IoBackend::Auto),
            reactor: ReactorConfig {
                cores: self.value("reactor.cores", cores).unwrap_or_default(),
                idle: self.value("reactor.idle", idle).unwrap_or(Idle::Adaptive),
            },
            memory: MemoryConfig {
                buffers_per_core: self
                    .value("memory.buffers_per_core", buffers)
                    .unwrap_or(256 << 20),
            },
            nvme_tcp: NvmeTcpConfig {
                listen: self
                    .value("nvme_tcp.listen", some_addresses)
                    .unwrap_or_else(|| vec![([0, 0, 0, 0], 4420).into()]),
                discovery: self
                    .value("nvme_tcp.discovery", addresses)
                    .unwrap_or_else(|| vec![([0, 0, 0, 0], 8009).into()]),
            },
            management: ManagementConfig {
                socket: self
                    .value("management.socket", optional(path))
                    .unwrap_or_else(|| Some("/run/holdfast/holdfastd.sock".into())),
                socket_mode: self.value("management.socket_mode", mode).unwrap_or(0o660),
                grpc: self.value("management.grpc", optional(address)).unwrap_or_default(),
                http: self.value("management.http", optional(address)).unwrap_or_default(),
            },
            log: LogConfig {
                format: self.value("log.format", log_format).unwrap_or(LogFormat::Text),
                level: self.value("log.level", log_level).unwrap_or(LogLevel::Info),
            },
            drain_seconds: self
                .value("drain_seconds", drain_seconds)
                .unwrap_or(DRAIN_SECONDS_DEFAULT),
        };
        self.refuse_without_effect(&config);
        config
    }

    /// Reads one key; a value that is wrong is a complaint, and then the default stands in.
    fn value<T>(
        &mut self,
        path: &str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let key = KEYS.iter().find(|key| key.path == path).expect("the table has every key");
        let (value, line) = self.found.get(path)?;
        match parse(value) {
            Ok(value) => Some(value),
            Err(reason) => {
                let (line, reason) = (*line, format!("{path}: {reason}"));
                self.complain(line, reason, format!("it takes {}", key.takes));
                None
            }
        }
    }

    /// Keys that would change nothing, given the others (row S172).
    fn refuse_without_effect(&mut self, config: &Config) {
        let line = |path| self.found.get(path).map(|&(_, line)| line);
        let mut complaints = Vec::new();
        if let Some(line) = line("management.socket_mode")
            && config.management.socket.is_none()
        {
            let reason = "management.socket_mode has no effect without management.socket";
            complaints.push((line, reason, "remove it, or name a socket"));
        }
        if let Some(line) = line("reactor.idle")
            && config.reactor.idle == Idle::Spin
            && config.reactor.cores.is_empty()
        {
            let reason = "reactor.idle = \"spin\" needs cores of its own";
            complaints.push((line, reason, "list them in reactor.cores"));
        }
        if config.management.socket.is_none() && config.management.grpc.is_none() {
            let line = line("management.socket").unwrap_or(0);
            let reason = "nobody could manage this node: there is no socket and no gRPC address";
            complaints.push((line, reason, "set management.socket or management.grpc"));
        }
        for (line, reason, hint) in complaints {
            self.complain(line, reason, hint);
        }
    }
}

/// The line of a span, from 1.
fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.as_bytes().get(..span.start).unwrap_or_default();
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn one_line(message: &str) -> String {
    ascii(&message.replace('\n', ", "))
}

/// Text from the file, safe to print.
fn ascii(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_ascii_graphic() || c == ' ' { vec![c] } else { c.escape_default().collect() }
        })
        .collect()
}

fn string<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("a {} is not a string", value.type_str()))
}

fn integer(value: &DeValue<'_>) -> Result<u64, String> {
    let integer = value.as_integer();
    let integer = integer.ok_or_else(|| format!("a {} is not a number", value.type_str()))?;
    let digits = integer.as_str().replace('_', "");
    u64::from_str_radix(&digits, integer.radix()).map_err(|_| format!("{digits} is out of range"))
}

fn list<T>(
    value: &DeValue<'_>,
    parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let array = value.as_array().ok_or_else(|| format!("a {} is not a list", value.type_str()))?;
    array.iter().map(|element| parse(element.get_ref())).collect()
}

/// A string, where the empty one means none.
fn optional<T>(
    parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
) -> impl Fn(&DeValue<'_>) -> Result<Option<T>, String> {
    move |value| if value.as_str() == Some("") { Ok(None) } else { parse(value).map(Some) }
}

/// One of a few words; upper and lower case are the same.
fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let text = string(value)?;
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    found
        .map(|&(_, meaning)| meaning)
        .ok_or_else(|| format!("{:?} is not one of them", ascii(text)))
}

fn node_name(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    // The same alphabet as the names of stores and volumes: it becomes a part of NQNs.
    text.parse::<StoreName>().map(|name| name.to_string()).map_err(|error| match error {
        api::ApiError::InvalidArgument { reason, .. } => reason,
        other => other.to_string(),
    })
}

fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = PathBuf::from(string(value)?);
    if path.is_absolute() { Ok(path) } else { Err(format!("{path:?} is not absolute")) }
}

fn io_backend(value: &DeValue<'_>) -> Result<IoBackend, String> {
    let words = [
        ("auto", IoBackend::Auto),
        ("io_uring", IoBackend::IoUring),
        ("standard", IoBackend::Standard),
    ];
    word(value, &words)
}

fn idle(value: &DeValue<'_>) -> Result<Idle, String> {
    word(value, &[("spin", Idle::Spin), ("adaptive", Idle::Adaptive)])
}

fn log_format(value: &DeValue<'_>) -> Result<LogFormat, String> {
    word(value, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

fn log_level(value: &DeValue<'_>) -> Result<LogLevel, String> {
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug];
    word(value, &levels.map(|level| (level.as_str(), level)))
}

fn cores(value: &DeValue<'_>) -> Result<Vec<u32>, String> {
    let cores = list(value, |core| {
        let core = integer(core)?;
        u32::try_from(core).map_err(|_| format!("{core} is not a core"))
    })?;
    let different: BTreeSet<_> = cores.iter().collect();
    if different.len() < cores.len() {
        return Err("a core is listed twice".to_owned());
    }
    Ok(cores)
}

fn buffers(value: &DeValue<'_>) -> Result<u64, String> {
    let text = string(value)?;
    let size = text.parse::<ByteLen>().map_err(|error| format!("{error}, {}", error.hint()))?;
    if (64 << 20..=64 << 30).contains(&size.bytes()) {
        return Ok(size.bytes());
    }
    Err(format!("{size} is out of range"))
}

fn drain_seconds(value: &DeValue<'_>) -> Result<u64, String> {
    let seconds = integer(value)?;
    if (1..=3600).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(format!("{seconds} is out of range"))
    }
}

fn mode(value: &DeValue<'_>) -> Result<u32, String> {
    let text = string(value)?;
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("{:?} is not a file mode", ascii(text))),
    }
}

fn address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let text = string(value)?;
    text.parse().map_err(|_| format!("{:?} is not an address and a port", ascii(text)))
}

fn addresses(value: &DeValue<'_>) -> Result<Vec<SocketAddr>, String> {
    list(value, address)
}

fn some_addresses(value: &DeValue<'_>) -> Result<Vec<SocketAddr>, String> {
    let addresses = addresses(value)?;
    if addresses.is_empty() { Err("the list is empty".to_owned()) } else { Ok(addresses) }
}

/// The host's name, reduced to the alphabet of names.
fn host_name() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let text = text.trim().to_ascii_lowercase();
    let name: String = text
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' })
        .take(64)
        .collect();
    let name = name.trim_matches(|c| c == '-' || c == '.');
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}
