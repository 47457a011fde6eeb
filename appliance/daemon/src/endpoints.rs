//! `endpoints.json`: where this node really listens, for scripts that asked for port 0.

use std::io::Result;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The content of the file. What is not served is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Endpoints {
    pub(crate) nvme_tcp: Vec<String>,
    pub(crate) discovery: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grpc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket: Option<String>,
}

/// The written file. Dropping it removes it.
pub(crate) struct EndpointsFile(PathBuf);

impl EndpointsFile {
    /// Where it is in a state directory.
    fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("endpoints.json")
    }

    /// Removes what a killed process left behind, so that nobody trusts it.
    pub(crate) fn remove_stale(state_dir: &Path) -> Result<()> {
        match std::fs::remove_file(Self::path(state_dir)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes the file in one step: a reader sees all of it or nothing.
    pub(crate) fn write(state_dir: &Path, endpoints: &Endpoints) -> Result<Self> {
        let path = Self::path(state_dir);
        let unfinished = path.with_extension("json.new");
        let mut text = serde_json::to_string_pretty(endpoints)?;
        text.push('\n');
        std::fs::write(&unfinished, text)?;
        std::fs::rename(&unfinished, &path)?;
        Ok(Self(path))
    }
}

impl Drop for EndpointsFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
