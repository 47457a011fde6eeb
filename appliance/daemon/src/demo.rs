//! `holdfastd demo`: one node, one file, one volume, ready to be connected to.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use api::{
    BlockSize, ByteLen, DevicePath, Export, ExportAdd, HostAccess, Node, NodeInfo, RequestId,
    StoreInit, VolumeCreate,
};
use tokio::net::TcpListener;

use crate::config::Config;

/// What a demonstration may be asked for.
#[derive(clap::Args, Debug)]
pub(crate) struct DemoOptions {
    /// Where to keep everything [default: target/holdfast-demo in the current directory]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The address to listen on; any host that reaches it may connect
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    listen: IpAddr,
}

/// Bytes of the file, which takes space as it is written.
const FILE_SIZE: ByteLen = ByteLen::from_bytes(4 << 30);
/// Bytes of the volume.
const VOLUME_SIZE: ByteLen = ByteLen::from_bytes(1 << 30);
/// The usual ports; others are taken where these are in use.
const PORTS: [u16; 2] = [4420, 8009];

/// The configuration of a demonstration.
pub(crate) async fn config(options: &DemoOptions) -> Result<Config> {
    let here = std::env::current_dir().context("there is no current directory")?;
    let dir = match &options.state_dir {
        Some(dir) => here.join(dir),
        None => here.join("target/holdfast-demo"),
    };
    let [port, discovery] =
        [free(options.listen, PORTS[0]).await, free(options.listen, PORTS[1]).await];
    let mut config = Config::parse("demo", "node_name = \"demo\"\n[log]\nlevel = \"warn\"\n")?;
    config.management.socket = Some(dir.join("holdfastd.sock"));
    config.management.http = Some(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0));
    config.nvme_tcp.listen = vec![SocketAddr::new(options.listen, port)];
    config.nvme_tcp.discovery = vec![SocketAddr::new(options.listen, discovery)];
    config.state_dir = dir;
    Ok(config)
}

/// `port` if nobody listens on it, else 0.
async fn free(ip: IpAddr, port: u16) -> u16 {
    if TcpListener::bind((ip, port)).await.is_ok() { port } else { 0 }
}

/// Creates store, volume and export, unless they are there from an earlier run; says how to use
/// them.
pub(crate) async fn prepare(
    config: &Config,
    node: &dyn Node,
    http: Option<SocketAddr>,
) -> Result<String> {
    let id: RequestId = "demo".parse()?;
    let device = config.state_dir.join("disk");
    let device: DevicePath = device.to_str().context("the directory is not UTF-8")?.parse()?;
    let file_size = Some(FILE_SIZE);
    let (name, force_overwrite) = ("demo".parse()?, false);
    node.store_init(
        &id,
        StoreInit { name, device: device.clone(), file_size, log_size: None, force_overwrite },
    )
    .await?;
    let volume = VolumeCreate::new("demo".parse()?, None, VOLUME_SIZE, BlockSize::B4096)?;
    // It may have been grown since the first run.
    if node.volume_show(volume.name().clone()).await.is_err() {
        node.volume_create(&id, volume).await?;
    }
    let export = ExportAdd {
        volume: "demo".parse()?,
        nqn: None,
        nsid: None,
        access: HostAccess::Any,
        require_authentication: false,
    };
    let export = node.export_add(&id, export).await?.value;
    if !export.online {
        bail!("the volume cannot be exported: {}", export.reason);
    }
    let info = node.node_info().await?;
    Ok(instructions(config, &info, &export, &device, http))
}

fn instructions(
    config: &Config,
    info: &NodeInfo,
    export: &Export,
    device: &DevicePath,
    http: Option<SocketAddr>,
) -> String {
    let mut text = String::new();
    let mut line = |words: &str| writeln!(text, "{words}").expect("a string has room");
    line(&format!("holdfastd {} serves a volume of {VOLUME_SIZE} from {device}", info.version));
    line("");
    line("On a Linux host with nvme-cli, as root:");
    line("    modprobe nvme-tcp");
    if let Some(address) = info.discovery.first() {
        line(&format!("    nvme discover -t tcp {}", reach(address)));
    }
    if let Some(address) = info.nvme_tcp.first() {
        line(&format!("    nvme connect -t tcp {} -n {}", reach(address), export.nqn));
    }
    line("    mkfs.ext4 /dev/nvme0n1      # the name that `nvme list` shows");
    line(&format!("    nvme disconnect -n {}", export.nqn));
    line("");
    let holdfast = beside("holdfast");
    line("Here:");
    if let Some(socket) = &config.management.socket {
        line(&format!("    export HOLDFAST_SERVER=unix:{}", socket.display()));
    }
    for command in ["node info", "volume list", "session list", "volume resize demo --size 2GiB"] {
        line(&format!("    {holdfast} {command}"));
    }
    line(&format!("    {holdfast} node events --follow"));
    if let Some(http) = http {
        line(&format!("    curl http://{http}/metrics"));
    }
    line("");
    line("Ctrl-C stops it. What was written stays: the same command serves it again.");
    text
}

/// An address as options of `nvme`.
fn reach(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            format!("-a 127.0.0.1 -s {}", address.port())
        }
        Ok(address) => format!("-a {} -s {}", address.ip(), address.port()),
        Err(_) => address.to_owned(),
    }
}

/// A program in the directory of this one, if it is there.
fn beside(name: &str) -> String {
    let found = std::env::current_exe().ok().and_then(|program| {
        let program = program.parent()?.join(name);
        program.exists().then(|| shorten(&program))
    });
    found.unwrap_or_else(|| name.to_owned())
}

/// A path relative to the current directory, where that is shorter.
fn shorten(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here.as_ref().and_then(|here| path.strip_prefix(here).ok());
    relative.unwrap_or(path).display().to_string()
}
