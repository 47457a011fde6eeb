//! The options, as clap sees them. Doc comments here are the help text.

mod bench;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use api::{
    AnaState, ApiError, BlockSize, ByteLen, DevicePath, DhchapGroup, DhchapHash, DiffTarget,
    LogSize, Nqn, RequestId, ScrubRate, SnapshotPath, StoreName, VolumeName,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use bench::BenchArgs;

/// Operates a Holdfast node: stores, volumes and their exports.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = crate::exit::help(), max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// The node: unix:/path/of/socket or http://host:port
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_SERVER",
        default_value = "unix:/run/holdfast/holdfastd.sock",
        value_name = "ADDRESS"
    )]
    pub(crate) server: String,
    /// How to print: a table for people, JSON for scripts
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Seconds to wait for an answer
    #[arg(long, global = true, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    /// Names this request in the node's logs; chosen freely if not given
    #[arg(long, global = true, value_name = "ID", value_parser = parsed::<RequestId>)]
    pub(crate) request_id: Option<RequestId>,
}

/// How to print.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The node itself
    #[command(subcommand)]
    Node(NodeCommand),
    /// Stores: devices that hold volumes
    #[command(subcommand)]
    Store(StoreCommand),
    /// Volumes: thin, durable ranges of blocks
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Exports: volumes that hosts can reach
    #[command(subcommand)]
    Export(ExportCommand),
    /// Discovery: what hosts are told besides the exports
    #[command(subcommand)]
    Discovery(DiscoveryCommand),
    /// Hosts that prove who they are, and their keys
    #[command(subcommand)]
    Host(HostCommand),
    /// Sessions: hosts that are connected
    #[command(subcommand)]
    Session(SessionCommand),
    /// Measures a volume over NVMe/TCP: rates and latencies, as a host sees them
    ///
    /// A polled initiator in this process: no root, no kernel module, no other program. Workloads
    /// that write overwrite the volume and ask before. Interrupting it prints what was measured so
    /// far.
    Bench(Box<BenchArgs>),
    /// Prints the completion script of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Writes the manual pages
    Man {
        /// The directory to write them to
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Shows who the node is and whether it is ready
    Info,
    /// Prints what happened
    Events {
        /// Begin with this event; without it, with the oldest that is remembered
        #[arg(long, default_value_t = 0, value_name = "NUMBER")]
        from: u64,
        /// Wait for events to come, until interrupted
        #[arg(long, short)]
        follow: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Writes a new, empty store onto a device and opens it
    ///
    /// A device that holds anything (a file system, a partition table, another store, or any data
    /// at its beginning or end) is refused unless --force-overwrite is given.
    Init {
        /// The name of the new store
        #[arg(value_parser = parsed::<StoreName>)]
        name: StoreName,
        /// The block device or file, as an absolute path on the node
        #[arg(long, value_name = "PATH", value_parser = parsed::<DevicePath>)]
        device: DevicePath,
        /// Create a file of this size if the device does not exist
        #[arg(long, value_parser = parsed::<ByteLen>)]
        size: Option<ByteLen>,
        /// How large its log shall be, a multiple of 64KiB; without it, an eighth of the device,
        /// 16MiB to 1GiB
        #[arg(long, value_name = "SIZE", value_parser = parsed::<LogSize>)]
        log_size: Option<LogSize>,
        /// Destroy what is on the device
        #[arg(long)]
        force_overwrite: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Opens a store that is already on a device, now and at every start
    Add {
        /// The name under which this node shall know it
        #[arg(value_parser = parsed::<StoreName>)]
        name: StoreName,
        /// The block device or file, as an absolute path on the node
        #[arg(long, value_name = "PATH", value_parser = parsed::<DevicePath>)]
        device: DevicePath,
    },
    /// Lists the stores
    List,
    /// Proves that maps, owners and space of a store agree, while its volumes are served
    ///
    /// Leaked space is given back and damaged copies of metadata are rewritten; everything else is
    /// named and left as it is. It reads metadata only; data is read by the scrub. When hosts fill
    /// the log meanwhile it gives way (exit code 6): start it again. Exit code 8 says that
    /// something was found, mended or not. Interrupting this command does not end the check.
    Check {
        /// The store; not needed when there is only one
        #[arg(value_parser = parsed::<StoreName>)]
        name: Option<StoreName>,
    },
    /// Scrub: everything that is written is read and compared with its checksums
    #[command(subcommand)]
    Scrub(ScrubCommand),
    /// Says how large a log should be, or what the log of a store bears
    Advise(AdviseArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScrubCommand {
    /// Begins a pass now, or goes on with the one that was interrupted
    Start {
        /// The store; not needed when there is only one
        #[arg(value_parser = parsed::<StoreName>)]
        name: Option<StoreName>,
        /// Read at most so many bytes a second, from now on; without it, as many as before
        #[arg(long, value_name = "SIZE", value_parser = parsed::<ScrubRate>)]
        rate: Option<ScrubRate>,
        /// Wait until the pass is over; exit code 8 says that it found damage
        #[arg(long)]
        wait: bool,
    },
    /// Holds the scrub where it is, until it is resumed or started
    Pause {
        /// The store; not needed when there is only one
        #[arg(value_parser = parsed::<StoreName>)]
        name: Option<StoreName>,
    },
    /// Lets the scrub go on when it is time, or sets its rate
    Resume {
        /// The store; not needed when there is only one
        #[arg(value_parser = parsed::<StoreName>)]
        name: Option<StoreName>,
        /// Read at most so many bytes a second, from now on; without it, as many as before
        #[arg(long, value_name = "SIZE", value_parser = parsed::<ScrubRate>)]
        rate: Option<ScrubRate>,
    },
    /// Shows how far the scrub is, and what the last pass found
    Status {
        /// The store; not needed when there is only one
        #[arg(value_parser = parsed::<StoreName>)]
        name: Option<StoreName>,
    },
}

/// What a log has to bear.
#[derive(Args, Debug)]
pub(crate) struct AdviseArgs {
    /// Judge the log of this store; without it no node is asked
    #[arg(value_parser = parsed::<StoreName>, conflicts_with = "log_size")]
    pub(crate) name: Option<StoreName>,
    /// Bytes a second that hosts write in a burst, like 400MiB
    #[arg(long, value_name = "SIZE", value_parser = parsed::<ByteLen>)]
    pub(crate) write_rate: ByteLen,
    /// Bytes a second that the drive destages meanwhile: for small random writes about half of what
    /// it writes at most
    #[arg(long, value_name = "SIZE", value_parser = parsed::<ByteLen>)]
    pub(crate) destage_rate: ByteLen,
    /// How long a burst is
    #[arg(long, value_name = "SECONDS")]
    pub(crate) burst: u64,
    /// Judge a log of this size
    #[arg(long, value_name = "SIZE", value_parser = parsed::<LogSize>)]
    pub(crate) log_size: Option<LogSize>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Creates a thin volume: it takes space as it is written
    Create {
        /// The name of the new volume
        #[arg(value_parser = parsed::<VolumeName>)]
        name: VolumeName,
        /// The store to put it in; not needed when there is only one
        #[arg(long, value_parser = parsed::<StoreName>)]
        store: Option<StoreName>,
        /// Its size, like 10GiB
        #[arg(long, value_parser = parsed::<ByteLen>)]
        size: ByteLen,
        /// The logical block size that hosts see: 512 or 4096
        #[arg(
            long,
            default_value = "4096",
            value_name = "BYTES",
            value_parser = parsed::<BlockSize>
        )]
        block_size: BlockSize,
    },
    /// Lists the volumes
    List,
    /// Shows one volume
    Show {
        /// The volume
        #[arg(value_parser = parsed::<VolumeName>)]
        name: VolumeName,
    },
    /// Changes the size of a volume; connected hosts see the new size at once
    Resize {
        /// The volume
        #[arg(value_parser = parsed::<VolumeName>)]
        name: VolumeName,
        /// Its new size, like 20GiB
        #[arg(long, value_parser = parsed::<ByteLen>)]
        size: ByteLen,
        /// Make it smaller; refused when anything is written beyond the new size
        #[arg(long)]
        shrink: bool,
    },
    /// Limits how fast the hosts of a volume are served; without options, shows the limits
    Qos(QosArgs),
    /// Snapshots: what a volume held at one moment
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Makes a writable volume from a snapshot, at once and without copying
    Clone {
        /// The snapshot, as VOLUME@SNAPSHOT
        #[arg(value_parser = parsed::<SnapshotPath>)]
        snapshot: SnapshotPath,
        /// The name of the new volume
        #[arg(value_parser = parsed::<VolumeName>)]
        name: VolumeName,
    },
    /// Takes a volume back to a snapshot; what was written since is lost
    ///
    /// Connected hosts stay connected: their I/O waits until it is done. Unmount file systems
    /// first: a host that has one mounted does not know that its blocks change.
    Restore {
        /// The snapshot, as VOLUME@SNAPSHOT
        #[arg(value_parser = parsed::<SnapshotPath>)]
        snapshot: SnapshotPath,
        /// Take back this volume, a clone that descends from the snapshot
        #[arg(long, value_parser = parsed::<VolumeName>)]
        volume: Option<VolumeName>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Prints what changed between two snapshots, or since one, in units of 64 KiB
    ///
    /// What a volume holds now is looked at through a snapshot that is taken for it, and deleted
    /// afterwards. With -o json: one object a line, as they are found.
    Diff {
        /// What to look at, as VOLUME@SNAPSHOT, or VOLUME for what it holds now
        #[arg(value_name = "SNAPSHOT|VOLUME", value_parser = parsed::<DiffTarget>)]
        of: DiffTarget,
        /// An older one to compare with; without it, everything that was ever written is shown
        #[arg(long, value_name = "SNAPSHOT", value_parser = parsed::<SnapshotPath>)]
        base: Option<SnapshotPath>,
    },
    /// Deletes a volume and all of its data
    Delete {
        /// The volume
        #[arg(value_parser = parsed::<VolumeName>)]
        name: VolumeName,
        /// Delete its snapshots as well
        #[arg(long)]
        snapshots: bool,
        /// Succeed when there is no such volume
        #[arg(long)]
        if_exists: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Limits of a volume.
#[derive(Args, Debug)]
pub(crate) struct QosArgs {
    /// The volume
    #[arg(value_parser = parsed::<VolumeName>)]
    pub(crate) name: VolumeName,
    /// Operations a second
    #[arg(long, value_name = "NUMBER")]
    pub(crate) iops: Option<u64>,
    /// Operations at once after a quiet time; as many as --iops if not given
    #[arg(long, value_name = "NUMBER", requires = "iops")]
    pub(crate) iops_burst: Option<u64>,
    /// Bytes a second, like 100MiB
    #[arg(long, value_name = "SIZE", value_parser = parsed::<ByteLen>)]
    pub(crate) bandwidth: Option<ByteLen>,
    /// Bytes at once after a quiet time; as many as --bandwidth if not given
    #[arg(long, value_name = "SIZE", requires = "bandwidth", value_parser = parsed::<ByteLen>)]
    pub(crate) bandwidth_burst: Option<ByteLen>,
    /// Lift all limits
    #[arg(long, conflicts_with_all = ["iops", "bandwidth"])]
    pub(crate) unlimited: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Takes snapshots; of several volumes, all at the same moment
    Create {
        /// The new snapshots, as VOLUME@SNAPSHOT, one for each volume
        #[arg(required = true, value_name = "SNAPSHOT", value_parser = parsed::<SnapshotPath>)]
        snapshots: Vec<SnapshotPath>,
    },
    /// Lists snapshots, the oldest first
    List {
        /// Of this volume alone
        #[arg(value_parser = parsed::<VolumeName>)]
        volume: Option<VolumeName>,
        /// With the space that each has to itself: takes a walk of each map
        #[arg(long)]
        space: bool,
    },
    /// Shows one snapshot, with its space
    Show {
        /// The snapshot, as VOLUME@SNAPSHOT
        #[arg(value_parser = parsed::<SnapshotPath>)]
        snapshot: SnapshotPath,
    },
    /// Deletes a snapshot; clones of it and other snapshots stay as they are
    Delete {
        /// The snapshot, as VOLUME@SNAPSHOT
        #[arg(value_parser = parsed::<SnapshotPath>)]
        snapshot: SnapshotPath,
        /// Succeed when there is no such snapshot
        #[arg(long)]
        if_exists: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Sets the keys of a host; from then on it must prove that it has them wherever it connects
    ///
    /// All keys are set at once: what is not given the host does not have any more. Sessions that
    /// were opened without a key end; those that were authenticated stay.
    Set(HostSetArgs),
    /// Forgets the keys of a host: it is not asked any more who it is
    Remove {
        /// The host
        #[arg(value_parser = parsed::<Nqn>)]
        nqn: Nqn,
        /// Succeed when the host has no keys
        #[arg(long)]
        if_exists: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Lists the hosts with keys, without the keys
    List,
    /// Makes a key and prints it; no node is asked
    GenDhchapKey {
        /// The hash with which the key is bound to a name before it is used: 0 (none), 1
        /// (SHA-256), 2 (SHA-384) or 3 (SHA-512)
        #[arg(long, short = 'm', value_name = "NUMBER", default_value_t = 0,
              value_parser = clap::value_parser!(u8).range(0..=3))]
        hmac: u8,
        /// Its bytes: 32, 48 or 64; without it as many as the hash has
        #[arg(long, short = 'l', value_name = "BYTES")]
        key_length: Option<usize>,
    },
}

/// The keys of a host.
#[derive(Args, Debug)]
pub(crate) struct HostSetArgs {
    /// The host
    #[arg(value_parser = parsed::<Nqn>)]
    pub(crate) nqn: Nqn,
    /// With what the host proves who it is: a key, or @FILE with a key in it
    #[arg(long, value_name = "KEY", value_parser = KeyText::parse)]
    pub(crate) dhchap_key: KeyText,
    /// With what the node proves to the host that it is the node: a key, or @FILE with a key in it
    #[arg(long, value_name = "KEY", value_parser = KeyText::parse)]
    pub(crate) dhchap_ctrl_key: Option<KeyText>,
    /// Use this hash only: sha256, sha384 or sha512
    #[arg(long, value_name = "HASH", value_parser = parsed::<DhchapHash>)]
    pub(crate) dhchap_hash: Option<DhchapHash>,
    /// Use this group only: null, ffdhe2048, ffdhe3072, ffdhe4096, ffdhe6144 or ffdhe8192
    #[arg(long, value_name = "GROUP", value_parser = parsed::<DhchapGroup>)]
    pub(crate) dhchap_dhgroup: Option<DhchapGroup>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExportCommand {
    /// Exports a volume over NVMe/TCP
    ///
    /// Without --host and --allow-any-host nobody can connect until hosts are added.
    Add {
        /// The volume
        #[arg(value_parser = parsed::<VolumeName>)]
        volume: VolumeName,
        /// The name of the subsystem; chosen by the node if not given. With the name of another
        /// export the volume becomes a further namespace of its subsystem
        #[arg(long, value_parser = parsed::<Nqn>)]
        nqn: Option<Nqn>,
        /// The number of the namespace in the subsystem; chosen by the node if not given
        #[arg(long, value_name = "NUMBER", requires = "nqn", value_parser = nsid)]
        nsid: Option<u32>,
        /// A host that may connect; may be repeated
        #[arg(
            long = "host",
            value_name = "NQN",
            conflicts_with = "allow_any_host",
            value_parser = parsed::<Nqn>
        )]
        hosts: Vec<Nqn>,
        /// Any host that reaches the node may connect
        #[arg(long)]
        allow_any_host: bool,
        /// Refuse hosts without keys (see: holdfast host), also those that may connect otherwise
        #[arg(long)]
        require_authentication: bool,
    },
    /// Removes an export: disconnects its hosts, keeps the data
    Remove {
        /// The volume
        #[arg(value_parser = parsed::<VolumeName>)]
        volume: VolumeName,
        /// Succeed when the volume is not exported
        #[arg(long)]
        if_exists: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Lists the exports
    List,
    /// The hosts that may connect to an export and see its namespace
    #[command(subcommand)]
    Hosts(HostsCommand),
    /// Sets how good a path this node is to a volume; connected hosts are told
    ///
    /// The states are optimized, non-optimized, inaccessible, persistent-loss and change. Hosts use
    /// optimized paths first, and others when there is none; they wait on a path in state change,
    /// for 10 s at most. Of a state of the node and one of a listener the worse holds.
    SetAnaState {
        /// The volume
        #[arg(value_parser = parsed::<VolumeName>)]
        volume: VolumeName,
        /// The new state
        #[arg(value_parser = parsed::<AnaState>)]
        state: AnaState,
        /// Only for the paths through this listener
        #[arg(long, value_name = "IP:PORT")]
        listener: Option<SocketAddr>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DiscoveryCommand {
    /// Referrals: other discovery services that hosts are told of
    #[command(subcommand)]
    Referral(ReferralCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReferralCommand {
    /// Tells hosts of another discovery service
    Add {
        /// Where it listens
        #[arg(value_name = "IP:PORT")]
        address: SocketAddr,
        /// Its unique name, if it has one
        #[arg(long, value_parser = parsed::<Nqn>)]
        nqn: Option<Nqn>,
    },
    /// Tells hosts no more of a discovery service
    Remove {
        /// Where it listens
        #[arg(value_name = "IP:PORT")]
        address: SocketAddr,
        /// Succeed when there is no such referral
        #[arg(long)]
        if_exists: bool,
    },
    /// Lists the referrals
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostsCommand {
    /// Admits hosts
    Add {
        /// The exported volume
        #[arg(value_parser = parsed::<VolumeName>)]
        volume: VolumeName,
        /// The hosts
        #[arg(required = true, value_name = "NQN", value_parser = parsed::<Nqn>)]
        hosts: Vec<Nqn>,
    },
    /// Takes hosts off the list and ends their sessions
    Remove {
        /// The exported volume
        #[arg(value_parser = parsed::<VolumeName>)]
        volume: VolumeName,
        /// The hosts
        #[arg(required = true, value_name = "NQN", value_parser = parsed::<Nqn>)]
        hosts: Vec<Nqn>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Lists the hosts
    List {
        /// The exported volume
        #[arg(value_parser = parsed::<VolumeName>)]
        volume: VolumeName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Lists the connected hosts
    List,
}

/// A key, or where it is. It is looked at later: what clap refuses it quotes.
#[derive(Clone)]
pub(crate) struct KeyText(pub(crate) String);

impl KeyText {
    #[expect(clippy::unnecessary_wraps, reason = "the form of a parser")]
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for KeyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyText(..)")
    }
}

/// Parses an `api` type; the error says what to write instead, and leaves the field to clap.
fn parsed<T: FromStr<Err = ApiError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| match error {
        ApiError::InvalidArgument { reason, hint, .. } if hint.is_empty() => reason,
        ApiError::InvalidArgument { reason, hint, .. } => format!("{reason}; {hint}"),
        other => other.to_string(),
    })
}

/// Parses the number of a namespace.
fn nsid(text: &str) -> Result<u32, String> {
    let number: u32 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    api::check_nsid(number).map_err(|error| format!("{error}; {}", error.hint()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_are_consistent() {
        Cli::command().debug_assert();
    }
}
