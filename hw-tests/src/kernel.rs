//! The stock Debian kernel that the guest boots: found in the cache, or fetched from apt.
//!
//! It is downloaded and unpacked, never installed: the host's own kernel is not touched. The cache
//! is keyed by package name and version, so a newer kernel is a new directory and an unpacking
//! that was interrupted is never mistaken for a whole one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Only these packages are taken: the stock 6.12 kernel as Debian 12 and 13 ship it.
const PACKAGE_PREFIX: &str = "linux-image-6.12.";
const PACKAGE_SUFFIX: &str = "-amd64";

/// An unpacked kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// What `uname -r` says in the guest.
    pub(crate) release: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// `lib/modules/<release>`, with `modules.dep` built.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// The newest cached kernel, or else the newest that apt offers.
    ///
    /// # Errors
    /// When nothing is cached and apt cannot deliver one.
    pub(crate) fn obtain(cache: &Path) -> Result<Self> {
        if let Some(kernel) = Self::cached(cache) {
            return Ok(kernel);
        }
        Self::download(cache)
    }

    /// The newest kernel in the cache.
    pub(crate) fn cached(cache: &Path) -> Option<Self> {
        let mut roots: Vec<PathBuf> = fs::read_dir(cache)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| file_name(path).starts_with(PACKAGE_PREFIX))
            .collect();
        roots.sort_by_key(|path| version_key(&file_name(path)));
        roots.iter().rev().find_map(|root| Self::unpacked(root).ok())
    }

    fn unpacked(root: &Path) -> Result<Self> {
        let modules = root.join("lib/modules");
        let release = fs::read_dir(&modules)?.next().context("no module directory")??.file_name();
        let release = release.to_str().context("release is not text")?.to_owned();
        let kernel = Self {
            image: root.join("boot").join(format!("vmlinuz-{release}")),
            modules: modules.join(&release),
            release,
        };
        if !kernel.image.is_file() || !kernel.modules.join("modules.dep").is_file() {
            bail!("{} is not a whole kernel", root.display());
        }
        Ok(kernel)
    }

    fn download(cache: &Path) -> Result<Self> {
        let package = newest_package()?;
        let version = candidate_version(&package)?;
        let root = cache.join(format!("{package}_{version}"));
        let scratch = cache.join(format!(".fetch-{}", std::process::id()));
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(&scratch)
            .with_context(|| format!("cannot create {}", scratch.display()))?;
        let unpacked = unpack_into(&package, &scratch);
        if unpacked.is_ok() {
            let _ = fs::remove_dir_all(&root);
            fs::rename(scratch.join("root"), &root).context("cannot move the kernel into place")?;
        }
        let _ = fs::remove_dir_all(&scratch);
        unpacked?;
        Self::unpacked(&root)
    }
}

fn unpack_into(package: &str, scratch: &Path) -> Result<()> {
    let root = scratch.join("root");
    run(Command::new("apt-get").args(["-q", "download", package]).current_dir(scratch))?;
    let archive = fs::read_dir(scratch)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no archive")?;
    run(Command::new("dpkg").arg("-x").arg(&archive).arg(&root))?;
    let release = fs::read_dir(root.join("lib/modules"))?
        .next()
        .context("the package holds no modules")??
        .file_name();
    run(Command::new("depmod").arg("-b").arg(&root).arg(&release).env("PATH", super::tools::PATH))
}

fn newest_package() -> Result<String> {
    let listed = output(Command::new("apt-cache").args(["pkgnames", PACKAGE_PREFIX]))?;
    listed
        .lines()
        .filter(|name| is_stock(name))
        .max_by_key(|name| version_key(name))
        .map(ToOwned::to_owned)
        .context("apt knows no stock 6.12 kernel (apt-get update may help)")
}

/// `linux-image-6.12.117+deb12-amd64`, but neither the cloud, the real-time nor a debug flavour.
fn is_stock(name: &str) -> bool {
    let inner =
        name.strip_prefix(PACKAGE_PREFIX).and_then(|rest| rest.strip_suffix(PACKAGE_SUFFIX));
    inner.is_some_and(|middle| {
        middle.split_once("+deb").is_some_and(|(patch, release)| {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits(patch) && digits(release)
        })
    })
}

fn candidate_version(package: &str) -> Result<String> {
    let policy = output(Command::new("apt-cache").args(["policy", package]))?;
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
        .map(|version| version.replace(['/', ':'], "_"))
        .with_context(|| format!("apt has no candidate for {package}"))
}

/// The numbers in a name, in order: enough to sort kernel versions.
fn version_key(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

pub(crate) fn output(command: &mut Command) -> Result<String> {
    let result = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !result.status.success() {
        let complaint = String::from_utf8_lossy(&result.stderr).trim().to_owned();
        bail!("{command:?} failed ({}): {complaint}", result.status);
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stock_flavour_is_taken() {
        assert!(is_stock("linux-image-6.12.117+deb12-amd64"));
        assert!(is_stock("linux-image-6.12.48+deb13-amd64"));
        for other in [
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-rt-amd64",
            "linux-image-6.12.117+deb12-amd64-dbg",
            "linux-image-6.12.117+deb12-amd64-unsigned",
            "linux-image-6.12-amd64",
            "linux-image-6.1.0-40-amd64",
        ] {
            assert!(!is_stock(other), "{other}");
        }
    }

    #[test]
    fn versions_sort_by_number() {
        assert!(
            version_key("linux-image-6.12.117+deb12") > version_key("linux-image-6.12.43+deb12")
        );
    }

    #[test]
    fn half_a_kernel_in_the_cache_is_not_used() {
        let cache = tempfile::tempdir().unwrap();
        let root = cache.path().join("linux-image-6.12.1+deb12-amd64_6.12.1-1");
        let release = "6.12.1+deb12-amd64";
        fs::create_dir_all(root.join("lib/modules").join(release)).unwrap();
        assert_eq!(Kernel::cached(cache.path()), None);
        fs::create_dir_all(root.join("boot")).unwrap();
        fs::write(root.join("boot").join(format!("vmlinuz-{release}")), b"k").unwrap();
        fs::write(root.join("lib/modules").join(release).join("modules.dep"), b"").unwrap();
        assert_eq!(Kernel::cached(cache.path()).unwrap().release, release);
    }
}
