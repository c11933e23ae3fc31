use super::*;
use crate::{
    error::Side,
    sync::{
        report::{LeftOut, MAX_LISTED},
        uid::SourceUid,
    },
};

fn set_aside(folder: &mut FolderReport, uid: u32, reason: &str, what: &str) {
    *folder.skipped.entry(reason.to_owned()).or_default() += 1;
    if folder.skipped_messages.len() < MAX_LISTED {
        let date = Some("01-Mar-2024 10:00:00 +0100".to_owned());
        folder.skipped_messages.push(MessageNote { uid, what: what.to_owned(), size: Some(41_943_040), date });
    }
}

fn done() -> MailboxReport {
    let inbox = FolderReport {
        source: "INBOX".into(),
        destination: "INBOX".into(),
        source_messages: 1200,
        copied_before: 1000,
        copied_now: 196,
        bytes_now: 37_000_000,
        adopted: 2,
        flags_updated: 7,
        ..FolderReport::default()
    };
    let mut sent = FolderReport {
        source: "Sent Items".into(),
        destination: "Sent".into(),
        source_uid_validity: 1_500_000_000,
        source_messages: 12,
        copied_now: 9,
        bytes_now: 12_345,
        left_out: BTreeMap::from([("older than 2020-01-01".into(), 1)]),
        doubts: vec!["3 of 4 copies vanished; nothing was deleted".into()],
        ..FolderReport::default()
    };
    set_aside(&mut sent, 17, "tooLarge", "the destination takes 26214400 bytes");
    set_aside(&mut sent, 18, "refused", "NO [CANNOT] \u{1b}[31mbad mail");
    sent.add_difference(SourceUid(4), "keyword refused", "$MDNSent");
    let mut report = MailboxReport {
        mailbox: "alice".into(),
        folders: vec![
            inbox,
            sent,
            FolderReport {
                source: "Entwürfe".into(),
                destination: "Entwürfe".into(),
                source_messages: 3,
                copied_before: 3,
                unchanged: true,
                ..FolderReport::default()
            },
        ],
        left_out: vec![
            LeftOut {
                folder: "[Gmail]/All Mail".into(),
                reason: "it is a view of all messages".into(),
                by_rule: false,
                messages: Some(5),
                ..LeftOut::default()
            },
            LeftOut {
                folder: "Junk".into(),
                reason: "it is excluded by `Junk`".into(),
                by_rule: true,
                messages: Some(100),
                ..LeftOut::default()
            },
        ],
        notes: vec!["the checkpoint was for other accounts".into()],
        warnings: vec!["folders.exclude `Spam` matches no folder".into()],
        duration_ms: 12_300,
        ..MailboxReport::default()
    };
    report.count_not_copied();
    report
}

#[test]
fn the_report_shows_every_folder_and_everything_that_was_not_plain_success() {
    insta::assert_snapshot!(mailbox(&done()), @r#"
    alice: done, 7 not copied, in 12s: 205 messages (37.01 MB) copied, 2 adopted, 7 with changed flags
      folder              source  before  now  adopted  not copied  left out  flags  deleted  state
      INBOX                 1200    1000  196        2           0         0      7        0  done
      Sent Items -> Sent      12       0    9        0           2         1      0        0  done
      Entwürfe                 3       3    0        0           0         0      0        0  unchanged
      Look at this
        folders.exclude `Spam` matches no folder
      Not copied
        7 messages: 5 in folders that Mailferry leaves out by itself, 1 refused, 1 too large
        Sent Items (UIDVALIDITY 1500000000): 1 refused, 1 too large
        Sent Items: UID 17, 41.94 MB, 01-Mar-2024 10:00:00 +0100: the destination takes 26214400 bytes
        Sent Items: UID 18, 41.94 MB, 01-Mar-2024 10:00:00 +0100: NO [CANNOT] \u{1b}[31mbad mail
      Copied with a difference
        Sent Items: 1 keyword refused
        Sent Items: UID 4: $MDNSent
      Messages left out by a rule
        Sent Items: 1 older than 2020-01-01
      Folders left out
        [Gmail]/All Mail (5 messages): it is a view of all messages
        Junk: it is excluded by `Junk`
      In doubt, so left as it was
        Sent Items: 3 of 4 copies vanished; nothing was deleted
      Notes
        the checkpoint was for other accounts
    "#);
}

#[test]
fn a_failed_mailbox_says_where_and_what_to_do_and_which_folders_are_unfinished() {
    let mut report = done();
    report.mailbox = "bob".into();
    report.folders.truncate(2);
    report.folders[1].copied_now = 1;
    report.folders[1].error =
        Some(Error::new(ErrorClass::Quota, "mailbox is full").on(Side::Destination, "new.example:993"));
    report.folders[0].copied_now = 12;
    report.error = Some(
        Error::network("connection lost 6 times in a row")
            .advice("Run again when the server is back")
            .on(Side::Source, "old.example:993")
            .in_mailbox("bob"),
    );
    insta::assert_snapshot!(mailbox(&report), @r#"
    bob: failed, 7 not copied, after 12s: 13 messages (37.01 MB) copied, 2 adopted, 7 with changed flags
      folder              source  before  now  adopted  not copied  left out  flags  deleted  state
      INBOX                 1200    1000   12        2           0         0      7        0  unfinished
      Sent Items -> Sent      12       0    1        0           2         1      0        0  failed: Quota
      Look at this
        folders.exclude `Spam` matches no folder
      Not copied
        7 messages: 5 in folders that Mailferry leaves out by itself, 1 refused, 1 too large
        Sent Items (UIDVALIDITY 1500000000): 1 refused, 1 too large
        Sent Items: UID 17, 41.94 MB, 01-Mar-2024 10:00:00 +0100: the destination takes 26214400 bytes
        Sent Items: UID 18, 41.94 MB, 01-Mar-2024 10:00:00 +0100: NO [CANNOT] \u{1b}[31mbad mail
      Copied with a difference
        Sent Items: 1 keyword refused
        Sent Items: UID 4: $MDNSent
      Messages left out by a rule
        Sent Items: 1 older than 2020-01-01
      Folders left out
        [Gmail]/All Mail (5 messages): it is a view of all messages
        Junk: it is excluded by `Junk`
      In doubt, so left as it was
        Sent Items: 3 of 4 copies vanished; nothing was deleted
      Notes
        the checkpoint was for other accounts
      Errors
        source old.example:993: Network: connection lost 6 times in a row. Run again when the server is back
        destination new.example:993: Quota: mailbox is full
    "#);
}

#[test]
fn an_interrupted_dry_run_says_both() {
    let mut report = done();
    report.folders.truncate(1);
    report.folders[0].copied_now = 100;
    (report.notes, report.warnings) = Default::default();
    report.left_out.pop();
    report.count_not_copied();
    (report.interrupted, report.dry_run) = (true, true);
    insta::assert_snapshot!(mailbox(&report), @r#"
    alice: interrupted (dry run), 5 would not be copied, after 12s: 100 messages (37.00 MB) to copy, 2 adopted, 7 with changed flags
      Dry run: nothing was changed; the numbers say what a run would do.
      folder  source  before  now  adopted  not copied  left out  flags  deleted  state
      INBOX     1200    1000  100        2           0         0      7        0  unfinished
      Not copied
        5 messages: 5 in folders that Mailferry leaves out by itself
      Folders left out
        [Gmail]/All Mail (5 messages): it is a view of all messages
      Interrupted: run the same command again to go on from here.
    "#);
}

#[test]
fn what_the_user_accepts_is_still_shown_and_counted_apart() {
    let mut report = done();
    report.folders.drain(..1);
    report.folders.truncate(1);
    report.folders[0].accepted = BTreeMap::from([("tooLarge".into(), 1)]);
    (report.left_out, report.notes, report.warnings) = Default::default();
    (report.folders[0].doubts, report.folders[0].left_out) = Default::default();
    report.count_not_copied();
    insta::assert_snapshot!(mailbox(&report), @r#"
    alice: done, 1 not copied, in 12s: 9 messages (12.35 kB) copied, 1 not copied as accepted
      folder              source  before  now  adopted  not copied  accepted  left out  flags  deleted  state
      Sent Items -> Sent      12       0    9        0           1         1         0      0        0  done
      Not copied
        1 message: 1 refused
        accepted (messages.acceptNotCopied): 1 too large
        Sent Items (UIDVALIDITY 1500000000): 1 refused, 1 too large; of these accepted: 1 too large
        Sent Items: UID 17, 41.94 MB, 01-Mar-2024 10:00:00 +0100: the destination takes 26214400 bytes
        Sent Items: UID 18, 41.94 MB, 01-Mar-2024 10:00:00 +0100: NO [CANNOT] \u{1b}[31mbad mail
      Copied with a difference
        Sent Items: 1 keyword refused
        Sent Items: UID 4: $MDNSent
    "#);
    report.folders[0].accepted.insert("refused".into(), 1);
    report.count_not_copied();
    assert!(line(&report).starts_with("alice: done in 12s: 9 messages"), "{}", line(&report));
    assert!(line(&report).contains("2 not copied as accepted"), "{}", line(&report));
}

#[test]
fn the_summary_counts_endings_and_repeats_failures_and_what_was_not_copied() {
    let failed = |name: &str, error: Error| MailboxReport {
        mailbox: name.into(),
        error: Some(error.in_mailbox(name)),
        ..MailboxReport::default()
    };
    let reports = [
        done(),
        failed("bob", Error::new(ErrorClass::Authentication, "wrong password").on(Side::Source, "old.example:993")),
        MailboxReport { mailbox: "carol".into(), interrupted: true, ..MailboxReport::default() },
    ];
    insta::assert_snapshot!(summary(&reports, Duration::from_secs(75)), @r#"
    3 mailboxes: 1 done, 1 failed, 1 interrupted, 7 messages not copied. 205 messages (37.01 MB) copied, 2 adopted, 7 with changed flags in 1m15s.
      alice: done, 7 not copied, in 12s: 205 messages (37.01 MB) copied, 2 adopted, 7 with changed flags
      bob: failed: source old.example:993: Authentication: wrong password
    The reports name what was not copied. `mailferry export --not-copied DIR` writes these messages to files;
    `messages.acceptNotCopied` in the migration accepts them. Until then a run ends with exit code 3.
    "#);
}

#[test]
fn a_folder_that_failed_makes_its_mailbox_fail_and_the_gravest_error_names_the_class() {
    let mut report = done();
    assert_eq!(mailbox_ending(&report), MailboxEnding::Done);
    report.interrupted = true;
    assert_eq!(mailbox_ending(&report), MailboxEnding::Interrupted);
    report.folders[0].error = Some(Error::network("gone"));
    assert_eq!(mailbox_ending(&report), MailboxEnding::Failed(ErrorClass::Network));
    report.folders[1].error = Some(Error::internal("bug"));
    assert_eq!(mailbox_ending(&report), MailboxEnding::Failed(ErrorClass::Internal));
}

#[test]
fn messages_beyond_the_listed_ones_are_still_counted() {
    let mut folder = FolderReport { source: "INBOX".into(), ..FolderReport::default() };
    for uid in 1..=250 {
        set_aside(&mut folder, uid, "refused", "NO");
    }
    let mut report = MailboxReport { folders: vec![folder], ..MailboxReport::default() };
    report.count_not_copied();
    let lines = lacking(&report);
    assert_eq!(lines[..2], ["250 messages: 250 refused", "INBOX (UIDVALIDITY 0): 250 refused"]);
    assert_eq!(lines.last().unwrap(), "INBOX: and 50 more");
    assert_eq!(lines.len(), 203);
}
