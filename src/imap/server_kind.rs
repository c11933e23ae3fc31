//! What kind of server it is, by how it introduces itself.

use super::capability::Capabilities;

/// What is known about a server beyond what it announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerKind {
    /// Trust what the server announces.
    #[default]
    Generic,
    /// Gmail: labels are folders; \All and \Flagged show other folders' messages again; throttles by bandwidth.
    Gmail,
    /// Microsoft Exchange and 365: throttles by its own texts; rewrites headers.
    Exchange,
    /// Cyrus: 8-bit header bytes become `X`.
    Cyrus,
    /// Courier: names, dates and line ends rewritten; UIDNEXT only in STATUS.
    Courier,
    /// Dovecot.
    Dovecot,
}

/// The kind as configured, or else as the server says in its greeting, its ID and its capabilities.
#[must_use]
pub(super) fn detect_server_kind(
    configured: ServerKind,
    capabilities: &Capabilities,
    greeting: &str,
    id: Option<&str>,
) -> ServerKind {
    if configured != ServerKind::Generic {
        return configured;
    }
    if capabilities.has("X-GM-EXT-1") {
        return ServerKind::Gmail;
    }
    let said = format!("{} {greeting}", id.unwrap_or_default()).to_ascii_lowercase();
    [
        ("dovecot", ServerKind::Dovecot),
        ("cyrus", ServerKind::Cyrus),
        ("courier", ServerKind::Courier),
        ("gimap", ServerKind::Gmail),
        ("gmail", ServerKind::Gmail),
        ("microsoft exchange", ServerKind::Exchange),
        ("microsoft.exchange", ServerKind::Exchange),
    ]
    .into_iter()
    .find(|(name, _)| said.contains(name))
    .map_or(ServerKind::Generic, |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(configured: ServerKind, greeting: &str, id: Option<&str>, capabilities: &str) -> ServerKind {
        detect_server_kind(configured, &capabilities.split(' ').map(str::to_owned).collect(), greeting, id)
    }

    #[test]
    fn a_server_is_known_by_how_it_introduces_itself_unless_the_manifest_says() {
        assert_eq!(kind(ServerKind::Generic, "Dovecot (Debian) ready.", None, "IMAP4rev1"), ServerKind::Dovecot);
        assert_eq!(kind(ServerKind::Generic, "ready", Some("Cyrus IMAPD"), "IMAP4rev1"), ServerKind::Cyrus);
        assert_eq!(kind(ServerKind::Generic, "ready", None, "IMAP4rev1 X-GM-EXT-1"), ServerKind::Gmail);
        assert_eq!(kind(ServerKind::Generic, "hello", None, "IMAP4rev1"), ServerKind::Generic);
        assert_eq!(kind(ServerKind::Gmail, "Dovecot ready", None, "IMAP4rev1"), ServerKind::Gmail);
    }
}
