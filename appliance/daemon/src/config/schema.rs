//! The table of all keys.

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// Its place: `table.key`, or `key` at the top.
    pub path: &'static str,
    /// What kind of value it takes, for people.
    pub takes: &'static str,
    /// Its default as TOML, or a sentence in parentheses.
    pub default: &'static str,
    /// Another valid value, as TOML: shown as the example.
    pub example: &'static str,
    /// What it does. One paragraph.
    pub doc: &'static str,
}

/// Every key, in the order of the documentation.
pub const KEYS: &[Key] = &[
    Key {
        path: "node_name",
        takes: "a name of a-z, 0-9, '.' and '-', at most 64 characters",
        default: "(the host name)",
        example: "\"rack1-node3\"",
        doc: "The name of this node. It appears in node info, in metrics, and in the names of \
              subsystems that the node chooses itself; exports that exist keep theirs.",
    },
    Key {
        path: "state_dir",
        takes: "an absolute path",
        default: "\"/var/lib/holdfast\"",
        example: "\"/srv/holdfast\"",
        doc: "Where the node keeps what operators asked for (`state.redb`) and where it writes \
              `endpoints.json`. Created with mode 0700 if it does not exist. One process at a time \
              can use it. The data of volumes is not here, but in the stores.",
    },
    Key {
        path: "io_backend",
        takes: "\"auto\", \"io_uring\" or \"standard\"; upper and lower case are the same",
        default: "\"auto\"",
        example: "\"standard\"",
        doc: "How files and block devices are reached. `auto` takes io_uring if the kernel allows \
              it and falls back to `standard` (pread and pwrite) with one log line that says what \
              was requested, what was selected and why. `io_uring` refuses to start without it. \
              Sockets always use io_uring: where it cannot be had at all, the node does not start, \
              whatever this says.",
    },
    Key {
        path: "drain_seconds",
        takes: "a whole number from 1 to 3600",
        default: "30",
        example: "120",
        doc: "How long SIGTERM may take to finish what is in flight and to checkpoint the stores. \
              Then the node stops all the same; nothing acknowledged is lost, the next start takes \
              a little longer.",
    },
    Key {
        path: "reactor.cores",
        takes: "a list of core numbers, none twice",
        default: "[]",
        example: "[2, 3]",
        doc: "The cores that serve I/O, each with one pinned reactor. An empty list runs one \
              reactor that is not pinned. Keep these cores free of other work.",
    },
    Key {
        path: "reactor.idle",
        takes: "\"spin\" or \"adaptive\"",
        default: "\"adaptive\"",
        example: "\"spin\"",
        doc: "What a reactor does when there is nothing to do. `adaptive` polls for a bounded time \
              and then sleeps in the kernel. `spin` never sleeps: the lowest latency for the price \
              of whole cores, so it requires `reactor.cores`.",
    },
    Key {
        path: "memory.buffers_per_core",
        takes: "a size from \"64MiB\" to \"64GiB\"",
        default: "\"256MiB\"",
        example: "\"1GiB\"",
        doc: "Memory for I/O buffers of each reactor, taken at start-up from huge pages if there \
              are any. Each open store keeps a few MiB of it, each connection 64 KiB. When all \
              buffers are in use, hosts wait; nothing fails.",
    },
    Key {
        path: "nvme_tcp.listen",
        takes: "a list of \"address:port\", at least one",
        default: "[\"0.0.0.0:4420\"]",
        example: "[\"192.0.2.10:4420\", \"[2001:db8::10]:4420\"]",
        doc: "Where hosts connect. Port 0 takes a free port; `endpoints.json` says which.",
    },
    Key {
        path: "nvme_tcp.discovery",
        takes: "a list of \"address:port\", may be empty",
        default: "[\"0.0.0.0:8009\"]",
        example: "[]",
        doc: "Where hosts ask what there is, besides `nvme_tcp.listen`, which answers as well.",
    },
    Key {
        path: "management.socket",
        takes: "an absolute path, or \"\" for none",
        default: "\"/run/holdfast/holdfastd.sock\"",
        example: "\"/run/storage/holdfastd.sock\"",
        doc: "The Unix socket for the command line (gRPC). Who may open it may do everything.",
    },
    Key {
        path: "management.socket_mode",
        takes: "a file mode in octal, as a string",
        default: "\"0660\"",
        example: "\"0600\"",
        doc: "The file mode of the socket. Without effect, and so refused, when there is no \
              socket.",
    },
    Key {
        path: "management.grpc",
        takes: "\"address:port\", or \"\" for none",
        default: "\"\"",
        example: "\"127.0.0.1:4422\"",
        doc: "gRPC on TCP. There is no authentication yet: who reaches it may do everything, so \
              it is off by default, and an address that is not loopback is logged as a warning.",
    },
    Key {
        path: "management.http",
        takes: "\"address:port\", or \"\" for none",
        default: "\"\"",
        example: "\"127.0.0.1:4423\"",
        doc: "HTTP for `/metrics` (OpenMetrics), `/healthz` and `/readyz`. Read-only.",
    },
    Key {
        path: "log.format",
        takes: "\"text\" or \"json\"",
        default: "\"text\"",
        example: "\"json\"",
        doc: "How log lines look. Both are ASCII, one event a line, on standard error.",
    },
    Key {
        path: "log.level",
        takes: "\"error\", \"warn\", \"info\" or \"debug\"",
        default: "\"info\"",
        example: "\"debug\"",
        doc: "Which log lines are written.",
    },
];
