//! The virtual machine: QEMU without KVM, the host's root as its root, one port to talk through.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::guest::Guest;
use crate::initramfs;
use crate::kernel::Kernel;
use crate::tools;
use crate::wait;
use crate::workdir::guarded;

/// Time a boot may take; 7 to 15 seconds, minutes when ten others want the two cores.
const BOOT_TIMEOUT: Duration = Duration::from_secs(300);

/// Time for a guest to power off before it is killed.
const OFF_TIMEOUT: Duration = Duration::from_secs(5);

const KERNEL_OPTIONS: &str = "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off";

/// The processor's own counter is twice as fast to read as an emulated timer, and everything in a
/// network stack reads the time. But the guest may misjudge its rate (14 times too fast was seen),
/// which breaks NVMe keep-alive: so it is checked, and the slow clock is the second choice.
const CLOCKS: [&str; 2] = ["tsc=nowatchdog", "tsc=unstable clocksource=hpet"];

/// A guest whose uptime is more than this share of the time since QEMU was started has a clock
/// that runs too fast: part of that time went by before its kernel ran.
const UPTIME_SHARE_MAX: f64 = 1.1;

/// A booted guest.
pub(crate) struct Vm {
    process: Child,
    console: PathBuf,
    /// The agent in it.
    pub(crate) guest: Guest,
}

impl Vm {
    /// Boots a kernel. `work` is scratch space; `work/share` is the guest's `/lab`; behind the
    /// socket `drive` is the network block device that is its `/dev/vda`.
    pub(crate) fn boot(
        kernel: &Kernel,
        scripts: &Path,
        work: &Path,
        drive: Option<&Path>,
    ) -> Result<Self> {
        for clock in CLOCKS {
            let start = Instant::now();
            let (vm, uptime) = Self::boot_with(kernel, scripts, work, drive, clock)?;
            if uptime.as_secs_f64() <= start.elapsed().as_secs_f64() * UPTIME_SHARE_MAX {
                return Ok(vm);
            }
            println!("lab: with {clock} the guest's clock is wrong ({uptime:?}): once more");
        }
        bail!("the guest's clock runs too fast");
    }

    fn boot_with(
        kernel: &Kernel,
        scripts: &Path,
        work: &Path,
        drive: Option<&Path>,
        clock: &str,
    ) -> Result<(Self, Duration)> {
        let share = work.join("share");
        copy_tree(scripts, &share.join("guest"))?;
        // This program has workloads for the guest, too. A copy: the guest does not see all places.
        fs::copy(std::env::current_exe()?, share.join("hw-lab"))?;
        let initrd = work.join("initrd");
        let busybox = tools::find("busybox").context("busybox is not installed")?;
        let init = fs::read_to_string(scripts.join("init.sh"))?;
        fs::write(&initrd, initramfs::build(kernel, &busybox, &init)?)?;
        let console = work.join("console");
        let _ = fs::remove_file(share.join("kmsg"));

        let mut command = command(kernel, &initrd, &console, &share, clock)?;
        if let Some(socket) = drive {
            command.args(drive_options(socket));
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(work.join("qemu"))?)
            .spawn()
            .context("cannot start QEMU")?;
        let orders = process.stdin.take().context("no pipe to QEMU")?;
        let answers = process.stdout.take().context("no pipe from QEMU")?;
        let guest = Guest::new(Box::new(orders), answers, &share)?;
        let mut vm = Self { process, console, guest };
        match vm.guest.wait_ready(BOOT_TIMEOUT) {
            Ok((uptime, source)) => {
                println!("lab: guest ready, uptime {:.1} s by {source}", uptime.as_secs_f64());
                Ok((vm, uptime))
            }
            Err(error) => {
                let qemu = fs::read_to_string(work.join("qemu")).unwrap_or_default();
                bail!("{error:#}\nQEMU: {qemu}\nconsole: {}", vm.console_tail());
            }
        }
    }

    /// Takes the power away.
    pub(crate) fn cut(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        self.guest.hear_the_end();
        Ok(())
    }

    /// The end of what the kernel wrote to its console: a panic would be here.
    pub(crate) fn console_tail(&self) -> String {
        let console = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&console);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let off = self.guest.power_off().and_then(|()| {
            wait::until(OFF_TIMEOUT, "the guest is off", || Ok(self.process.try_wait()?))
        });
        if off.is_err() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

fn command(
    kernel: &Kernel,
    initrd: &Path,
    console: &Path,
    share: &Path,
    clock: &str,
) -> Result<std::process::Command> {
    let qemu = tools::find("qemu-system-x86_64").context("QEMU is not installed")?;
    let share_of = |path: &str, tag: &str, more: &str| {
        format!("local,path={path},mount_tag={tag},security_model=none,multidevs=remap{more}")
    };
    let options = format!("{KERNEL_OPTIONS} {clock} lab.modules={}", kernel.modules.display());
    let mut command = guarded(&qemu);
    command
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-accel", "tcg,thread=multi", "-M", "pc", "-cpu", "max", "-smp", "2", "-m", "1024"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", &options])
        .args(["-serial", &format!("file:{}", console.display())])
        .args(["-virtfs", &share_of("/", "host", ",readonly=on")])
        .args(["-virtfs", &share_of(&share.display().to_string(), "lab", "")])
        .args(["-netdev", "user,id=net"])
        .args(["-device", "virtio-net-pci,netdev=net,romfile="])
        .args(["-chardev", "stdio,id=agent,signal=off"])
        .args(["-device", "virtio-serial-pci"])
        .args(["-device", "virtserialport,chardev=agent,name=holdfast.lab"]);
    Ok(command)
}

/// The guest's cache on top is none: it flushes when it wants to, and the drive sees that.
fn drive_options(socket: &Path) -> [String; 4] {
    let file = format!("file=nbd+unix:///drive?socket={}", socket.display());
    [
        "-drive".to_owned(),
        format!("if=none,id=drive,format=raw,cache=writeback,discard=ignore,{file}"),
        "-device".to_owned(),
        "virtio-blk-pci,drive=drive,discard=off,write-zeroes=off".to_owned(),
    ]
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
