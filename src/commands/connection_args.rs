//! The flags about connections, for manifests and for accounts of the command line alike.

use std::{fs, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::{
    api::{self, cel_rules},
    error::{Error, Result, Side},
    imap::{ConnectionSecurity, Endpoint},
    local::account_pair::ExtraTrust,
    sync::spec::SyncSpec,
};

/// How servers are connected to, whatever manifests say.
#[derive(Debug, Clone, Default, Args)]
pub struct ConnectionArgs {
    /// A file with certificates (PEM) of authorities that are trusted, too, on both sides.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Accept any certificate on this side: whoever is on the way can read the password and the mail. May be repeated.
    #[arg(long, value_enum, value_name = "SIDE")]
    pub insecure: Vec<InsecureSide>,

    /// The longest wait for a connection, a TLS handshake and a greeting, each, written as in manifests (`30s`, `1m30s`).
    /// Wins over the manifests.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout_connect: Option<Duration>,

    /// The longest silence while a server owes an answer, written as in manifests (`30s`, `1m30s`). Wins over
    /// the manifests.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout_reply: Option<Duration>,
}

/// A side whose certificate is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InsecureSide {
    /// The account that mail is read from.
    Source,
    /// The account that mail is written to.
    Destination,
}

impl From<InsecureSide> for Side {
    fn from(side: InsecureSide) -> Self {
        match side {
            InsecureSide::Source => Self::Source,
            InsecureSide::Destination => Self::Destination,
        }
    }
}

/// A length of time above zero, written as in manifests.
fn duration(text: &str) -> Result<Duration, String> {
    let length = text.parse::<api::Duration>()?.as_std();
    if length.is_zero() { Err("it must be longer than nothing, such as 30s".to_owned()) } else { Ok(length) }
}

impl ConnectionArgs {
    /// Which certificates the command line has this side trust.
    ///
    /// # Errors
    /// Configuration when the file can't be read or holds no certificate.
    pub(super) fn trust(&self, side: Side) -> Result<ExtraTrust> {
        if self.insecure.iter().any(|insecure| Side::from(*insecure) == side) {
            return Ok(ExtraTrust::Anything);
        }
        let Some(path) = &self.ca_file else { return Ok(ExtraTrust::Nothing) };
        let wrong = |what: String| {
            Error::configuration(format!("--ca-file {}: {what}", path.display()))
                .advice("Give a file with certificates as PEM text")
        };
        let text = fs::read_to_string(path).map_err(|error| wrong(format!("it can't be read: {error}")))?;
        if text.contains("-----BEGIN CERTIFICATE-----") {
            Ok(ExtraTrust::Authorities(text))
        } else {
            Err(wrong(cel_rules::PEM.message.to_owned()))
        }
    }

    /// The timeouts that the command line says, as a manifest has them.
    pub(super) fn timeouts(&self) -> Map<String, Value> {
        let said = [("connect", self.timeout_connect), ("reply", self.timeout_reply)];
        said.into_iter().filter_map(|(key, length)| Some((key.to_owned(), json!(written(length?))))).collect()
    }

    /// Has mailboxes of manifests be connected to as the command line says.
    ///
    /// # Errors
    /// Configuration when --ca-file is wrong.
    pub(super) fn apply(&self, mailboxes: &mut [Result<SyncSpec>]) -> Result<()> {
        let trust = [self.trust(Side::Source)?, self.trust(Side::Destination)?];
        for spec in mailboxes.iter_mut().flatten() {
            for (side, trust) in [&mut spec.source, &mut spec.destination].into_iter().zip(&trust) {
                trust_also(side, trust);
                side.timeouts.connect = self.timeout_connect.unwrap_or(side.timeouts.connect);
                side.timeouts.reply = self.timeout_reply.unwrap_or(side.timeouts.reply);
            }
        }
        Ok(())
    }
}

/// As a manifest writes it; kept to the millisecond, as it was read.
fn written(length: Duration) -> api::Duration {
    api::Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

/// Trusts more at a side. Where there is no TLS there is nothing to trust.
fn trust_also(side: &mut Endpoint, trust: &ExtraTrust) {
    match trust {
        _ if side.tls.mode == ConnectionSecurity::None => {}
        ExtraTrust::Nothing => {}
        ExtraTrust::Anything => side.tls.insecure_skip_verify = true,
        ExtraTrust::Authorities(pem) => {
            side.tls.ca_bundle.push(b'\n');
            side.tls.ca_bundle.extend(pem.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::sync::testing::spec;

    #[derive(Debug, Parser)]
    struct ConnectionCli {
        #[command(flatten)]
        connection: ConnectionArgs,
    }

    fn args(more: &[&str]) -> ConnectionArgs {
        ConnectionCli::try_parse_from(["test"].iter().chain(more)).unwrap().connection
    }

    fn applied(more: &[&str]) -> SyncSpec {
        let mut mailboxes = [Ok(spec("alice"))];
        args(more).apply(&mut mailboxes).unwrap();
        let [mailbox] = mailboxes;
        mailbox.unwrap()
    }

    #[test]
    fn timeouts_of_the_command_line_win_over_the_manifests() {
        let (alice, before) = (applied(&["--timeout-reply", "5m"]), spec("alice"));
        for (now, before) in [(&alice.source, &before.source), (&alice.destination, &before.destination)] {
            assert_eq!(now.timeouts.reply, Duration::from_mins(5));
            assert_eq!(now.timeouts.connect, before.timeouts.connect);
        }
        for wrong in ["0s", "0h0m", "-3s", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn certificates_are_accepted_on_the_side_that_is_named_and_no_other() {
        let spec = applied(&["--insecure", "source"]);
        assert_eq!((spec.source.tls.insecure_skip_verify, spec.destination.tls.insecure_skip_verify), (true, false));
    }

    #[test]
    fn an_authority_is_trusted_besides_those_of_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem").display().to_string();
        fs::write(&path, "-----BEGIN CERTIFICATE-----\nnew").unwrap();
        let mut mailboxes = [Ok(spec("alice"))];
        mailboxes[0].as_mut().unwrap().source.tls.ca_bundle = b"old".to_vec();
        args(&["--ca-file", &path, "--insecure", "destination"]).apply(&mut mailboxes).unwrap();
        let alice = mailboxes[0].as_ref().unwrap();
        assert_eq!(alice.source.tls.ca_bundle, b"old\n-----BEGIN CERTIFICATE-----\nnew");
        assert!(alice.destination.tls.ca_bundle.is_empty(), "it would say more than what is looked at");
        fs::write(&path, "nothing").unwrap();
        let error = args(&["--ca-file", &path]).apply(&mut mailboxes).unwrap_err();
        assert!(error.what.contains("--ca-file") && error.what.contains("BEGIN CERTIFICATE"), "{error}");
    }

    #[test]
    fn the_command_line_takes_the_durations_that_a_manifest_takes_and_no_others() {
        let in_manifest =
            |text: &str| serde_json::from_value::<api::Duration>(text.into()).ok().map(api::Duration::as_std);
        let same = ["30s", "2m", "1h30m", "500ms", "1m1m", "1d", "1d12h"];
        for text in same.into_iter().chain(["PT30S", "2 minutes", "1h 30m", "1.5h", "30", "12h1d", ""]) {
            assert_eq!(duration(text).ok(), in_manifest(text), "{text}");
        }
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("1d12h"), Ok(Duration::from_hours(36)));
        assert!(duration("PT30S").unwrap_err().contains("such as 7d, 6h, 1h30m, 90s or 500ms"));
    }
}
