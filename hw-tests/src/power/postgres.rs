//! PostgreSQL as Debian ships it: the installed one, or packages that are downloaded and unpacked
//! into the cache beside the kernel, never installed.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::kernel::{output, run};
use crate::workdir::guarded;

/// Below the root of a file system.
const PROGRAMS: &str = "usr/lib/postgresql";

/// The user that runs it, here and in the guest.
const NOBODY: u32 = 65_534;

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Postgres {
    /// The root that holds it: `/`, or a folder of the cache.
    pub(super) root: PathBuf,
    /// Its programs, below the root.
    pub(super) programs: PathBuf,
}

impl Postgres {
    /// The installed one, else the cached one, else what apt has.
    ///
    /// # Errors
    /// When there is none and apt does not deliver.
    pub(super) fn obtain(cache: &Path) -> Result<Self> {
        if let Some(installed) = Self::below(Path::new("/")) {
            return Ok(installed);
        }
        let package = package()?;
        let root = cache.join(&package);
        if let Some(cached) = Self::below(&root) {
            return Ok(cached);
        }
        let scratch = cache.join(format!(".fetch-{}", std::process::id()));
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(&scratch)?;
        let unpacked = unpack_into(&package, &scratch);
        if unpacked.is_ok() {
            let _ = fs::remove_dir_all(&root);
            fs::rename(scratch.join("root"), &root).context("cannot move it into place")?;
        }
        let _ = fs::remove_dir_all(&scratch);
        unpacked?;
        Self::below(&root).context("the packages hold no server and client of one version")
    }

    /// A new cluster as an archive in `directory`, made here where it takes seconds and not
    /// minutes. Where that does not work (it refuses root, and another user may not see the place)
    /// there is none, and the guest makes it.
    pub(super) fn new_cluster(&self, directory: &Path) {
        let cluster = directory.join("pg");
        if self.initialise(&cluster) {
            let archive = directory.join("pg.tar");
            let mut tar = Command::new("tar");
            tar.arg("-C").arg(directory).args(["-c", "--numeric-owner", "-f"]);
            if run(tar.arg(&archive).arg("pg")).is_err() {
                let _ = fs::remove_file(archive);
            }
        }
        let _ = fs::remove_dir_all(cluster);
    }

    fn initialise(&self, directory: &Path) -> bool {
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        let made =
            fs::create_dir(directory).is_ok() && chown(directory, Some(NOBODY), None).is_ok();
        let mut command = guarded(Path::new("setpriv"));
        command
            .args(["--reuid", &NOBODY.to_string(), "--clear-groups"])
            .arg(self.root.join(&self.programs).join("initdb"))
            .args(["-A", "trust", "-U", "postgres", "-k", "--wal-segsize=1", "--no-locale"])
            .args(["-E", "UTF8", "--no-sync", "-D"])
            .arg(directory)
            .env("LD_LIBRARY_PATH", libraries);
        made && command.output().is_ok_and(|output| output.status.success())
    }

    /// The newest version below a root that has server and client.
    fn below(root: &Path) -> Option<Self> {
        let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
        let mut versions: Vec<PathBuf> =
            fs::read_dir(root.join(PROGRAMS)).ok()?.map_while(|e| Some(e.ok()?.path())).collect();
        versions.sort_by_key(|path| number(path));
        let whole = |bin: &PathBuf| {
            ["postgres", "initdb", "psql"].iter().all(|name| bin.join(name).is_file())
        };
        let bin = versions.iter().rev().map(|path| path.join("bin")).find(whole)?;
        let programs = bin.strip_prefix(root).ok()?.to_owned();
        Some(Self { root: root.to_owned(), programs })
    }
}

/// The versioned package that `postgresql` stands for.
fn package() -> Result<String> {
    let depends = output(Command::new("apt-cache").args(["depends", "postgresql"]))?;
    let mut names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let name = names.find(|name| name.starts_with("postgresql-") && !name.contains("common"));
    name.map(ToOwned::to_owned).context("apt knows no postgresql (apt-get update may help)")
}

/// Downloads the package with everything that it needs and this machine lacks.
fn unpack_into(package: &str, scratch: &Path) -> Result<()> {
    let plan = ["-qq", "--print-uris", "--no-install-recommends", "install", package];
    let plan = output(Command::new("apt-get").args(plan))?;
    let names: Vec<&str> = plan.lines().filter_map(package_of_uri).collect();
    run(Command::new("apt-get").args(["-q", "download"]).args(names).current_dir(scratch))?;
    for entry in fs::read_dir(scratch)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg").arg("-x").arg(&path).arg(scratch.join("root")))?;
        }
    }
    Ok(())
}

/// `'http://.../libpq5_15.1-0_amd64.deb' libpq5_15.1-0_amd64.deb 12345 SHA256:..` names `libpq5`.
fn package_of_uri(line: &str) -> Option<&str> {
    let (name, _) = line.split_whitespace().nth(1)?.split_once('_')?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_of_apt_names_packages() {
        let line = "'http://m/pool/main/p/libpq5_15.1_amd64.deb' libpq5_15.1_amd64.deb 188 MD5:0";
        assert_eq!(package_of_uri(line), Some("libpq5"));
        assert_eq!(package_of_uri("Reading package lists..."), None);
    }

    #[test]
    fn newest_whole_version_is_taken() {
        let root = tempfile::tempdir().unwrap();
        for (version, programs) in
            [("9", &["postgres", "initdb", "psql"][..]), ("15", &["postgres"]), ("x", &[])]
        {
            let bin = root.path().join(PROGRAMS).join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            programs.iter().for_each(|name| fs::write(bin.join(name), "").unwrap());
        }
        let found = Postgres::below(root.path()).unwrap();
        assert_eq!(found.programs, Path::new("usr/lib/postgresql/9/bin"));
        assert_eq!(Postgres::below(Path::new("/nonexistent")), None);
    }
}
