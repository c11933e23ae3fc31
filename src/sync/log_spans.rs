//! Spans that name the mailbox and the folder in each log line.

/// Names the mailbox in every log line of its sync. The level is that of the gravest lines, so that a filter which lets a
/// line pass never takes the name from it; a text (no `Display`) is written with its control characters visible.
pub(super) fn mailbox_span(mailbox: &str) -> tracing::Span {
    tracing::error_span!("mailbox", mailbox)
}

/// As [`mailbox_span`], for a folder.
pub(super) fn folder_span(folder: &str) -> tracing::Span {
    tracing::error_span!("folder", folder)
}
