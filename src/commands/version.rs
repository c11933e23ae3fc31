//! `mailferry version`: which build this is.

use clap::Args;
use serde_json::json;

use crate::{
    api::API_VERSION,
    error::{Error, Result},
};

/// Print the version, the commit and its date, and what is built in.
#[derive(Debug, Clone, Copy, Args)]
pub struct VersionArgs {
    /// As one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Set by scripts/build.sh and scripts/dist.sh, from git; a plain `cargo build` knows nothing of it.
const COMMIT: Option<&str> = option_env!("MAILFERRY_COMMIT");
const COMMIT_DATE: Option<&str> = option_env!("MAILFERRY_COMMIT_DATE");

impl VersionArgs {
    /// What is printed.
    ///
    /// # Errors
    /// Internal when it can't be shown.
    pub fn render(self) -> Result<String> {
        let (version, build) = (env!("CARGO_PKG_VERSION"), if cfg!(debug_assertions) { "debug" } else { "release" });
        let platform = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        let tls = "TLS 1.2 and 1.3 (rustls, ring)";
        let imap = "COMPRESS=DEFLATE, XOAUTH2";
        if self.json {
            let facts = json!({
                "version": version,
                "commit": COMMIT,
                "commitDate": COMMIT_DATE,
                "build": build,
                "platform": platform,
                "apiVersion": API_VERSION,
                "features": [tls, imap],
            });
            return serde_json::to_string(&facts).map_err(|e| Error::internal(format!("cannot show the version: {e}")));
        }
        let commit = match (COMMIT, COMMIT_DATE) {
            (Some(commit), Some(date)) => format!("{commit} of {date}"),
            (Some(commit), None) => commit.to_owned(),
            (None, _) => "not known".to_owned(),
        };
        Ok(format!(
            "mailferry {version}\ncommit: {commit}\nbuild: {build}, {platform}\nmanifests: {API_VERSION}\nfeatures: {tls}; {imap}"
        ))
    }
}
