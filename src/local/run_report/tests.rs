use super::*;
use crate::{
    error::{ErrorClass, Side},
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

/// The report of a run over these mailboxes.
fn report_of(reports: Vec<MailboxReport>) -> String {
    report(&RunOutcome { reports, took: Duration::from_secs(75) }, TextLayout::default())
}

fn report_at(width: usize, reports: Vec<MailboxReport>) -> String {
    let layout = TextLayout { width: Some(width), ..TextLayout::default() };
    report(&RunOutcome { reports, took: Duration::from_secs(75) }, layout)
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
fn the_report_shows_folders_where_something_happened_and_everything_that_was_not_plain_success() {
    insta::assert_snapshot!(report_of(vec![done()]), @r#"
    Look at this
      folders.exclude `Spam` matches no folder

    alice: done, 7 not copied, in 12s: 205 messages (37.01 MB) copied, 2 adopted, 7 with changed flags
      folder              source  before  now  adopted  not copied  left out  flags  state
      INBOX                 1200    1000  196        2           0         0      7  done
      Sent Items -> Sent      12       0    9        0           2         1      0  done
      and 1 folder with nothing new
      Not copied
        7 messages: 5 in folders that Mailferry leaves out by itself, 1 refused, 1 too large
        Sent Items (UIDVALIDITY 1500000000): 1 refused, 1 too large
        Sent Items: UID 17, 41.94 MB, 01-Mar-2024 10:00:00 +0100: the destination takes 26214400 bytes
        Sent Items: UID 18, 41.94 MB, 01-Mar-2024 10:00:00 +0100: NO [CANNOT] \u{1b}[31mbad mail
      In doubt, so left as it was
        Sent Items: 3 of 4 copies vanished; nothing was deleted
      Copied with a difference
        Sent Items: 1 keyword refused
        Sent Items: UID 4: $MDNSent
      Messages left out by a rule
        Sent Items: 1 older than 2020-01-01

    (source: messages there; before: copied by earlier runs; now: copied by this run; adopted: were at the destination already; left out: by a rule; flags: changed at the destination)

    Folders left out
      [Gmail]/All Mail (5 messages): it is a view of all messages
      Junk: it is excluded by `Junk`

    Notes
      the checkpoint was for other accounts

    `mailferry export --not-copied DIR` writes the messages that were not copied to files.
    `messages.acceptNotCopied` in the migration accepts them; until then a run ends with exit code 3.

    1 mailbox: 1 done, 7 messages not copied. 205 messages (37.01 MB) copied, 2 adopted, 7 with changed flags in 1m15s.
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
    insta::assert_snapshot!(report_of(vec![report.clone()]), @r#"
    Problems (2)
      source old.example:993: Network: connection lost 6 times in a row. Run again when the server is back
      destination new.example:993: Quota: mailbox is full

    Look at this
      folders.exclude `Spam` matches no folder

    bob: failed, 7 not copied, after 12s: 13 messages (37.01 MB) copied, 2 adopted, 7 with changed flags
      folder              source  before  now  adopted  not copied  left out  flags  state
      INBOX                 1200    1000   12        2           0         0      7  unfinished
      Sent Items -> Sent      12       0    1        0           2         1      0  failed: Quota
      Not copied
        7 messages: 5 in folders that Mailferry leaves out by itself, 1 refused, 1 too large
        Sent Items (UIDVALIDITY 1500000000): 1 refused, 1 too large
        Sent Items: UID 17, 41.94 MB, 01-Mar-2024 10:00:00 +0100: the destination takes 26214400 bytes
        Sent Items: UID 18, 41.94 MB, 01-Mar-2024 10:00:00 +0100: NO [CANNOT] \u{1b}[31mbad mail
      In doubt, so left as it was
        Sent Items: 3 of 4 copies vanished; nothing was deleted
      Copied with a difference
        Sent Items: 1 keyword refused
        Sent Items: UID 4: $MDNSent
      Messages left out by a rule
        Sent Items: 1 older than 2020-01-01

    (source: messages there; before: copied by earlier runs; now: copied by this run; adopted: were at the destination already; left out: by a rule; flags: changed at the destination)

    Folders left out
      [Gmail]/All Mail (5 messages): it is a view of all messages
      Junk: it is excluded by `Junk`

    Notes
      the checkpoint was for other accounts

    `mailferry export --not-copied DIR` writes the messages that were not copied to files.
    `messages.acceptNotCopied` in the migration accepts them; until then a run ends with exit code 3.

    1 mailbox: 1 failed, 7 messages not copied. 13 messages (37.01 MB) copied, 2 adopted, 7 with changed flags in 1m15s.
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
    insta::assert_snapshot!(report_of(vec![report.clone()]), @r#"
    Dry run: nothing was changed. The numbers say what a run would do.

    alice: interrupted (dry run), 5 would not be copied, after 12s: 100 messages (37.00 MB) to copy, 2 adopted, 7 with changed flags
      folder  source  before  to copy  adopted  flags  state
      INBOX     1200    1000      100        2      7  unfinished
      Not copied
        5 messages: 5 in folders that Mailferry leaves out by itself

    (source: messages there; before: copied by earlier runs; adopted: were at the destination already; flags: changed at the destination)

    Folders left out
      [Gmail]/All Mail (5 messages): it is a view of all messages

    Interrupted: run the same command again to go on from here.

    1 mailbox: 1 interrupted, 5 messages that would not be copied. 100 messages (37.00 MB) to copy, 2 adopted, 7 with changed flags in 1m15s.
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
    insta::assert_snapshot!(report_of(vec![report.clone()]), @r#"
    alice: done, 1 not copied, in 12s: 9 messages (12.35 kB) copied, 1 not copied as accepted
      folder              source  now  not copied  accepted  state
      Sent Items -> Sent      12    9           1         1  done
      Not copied
        1 message: 1 refused
        accepted (messages.acceptNotCopied): 1 too large
        Sent Items (UIDVALIDITY 1500000000): 1 refused, 1 too large; of these accepted: 1 too large
        Sent Items: UID 17, 41.94 MB, 01-Mar-2024 10:00:00 +0100: the destination takes 26214400 bytes
        Sent Items: UID 18, 41.94 MB, 01-Mar-2024 10:00:00 +0100: NO [CANNOT] \u{1b}[31mbad mail
      Copied with a difference
        Sent Items: 1 keyword refused
        Sent Items: UID 4: $MDNSent

    (source: messages there; now: copied by this run; accepted: not copied, as accepted)

    `mailferry export --not-copied DIR` writes the messages that were not copied to files.
    `messages.acceptNotCopied` in the migration accepts them; until then a run ends with exit code 3.

    1 mailbox: 1 done, 1 message not copied. 9 messages (12.35 kB) copied, 1 not copied as accepted in 1m15s.
    "#);
    report.folders[0].accepted.insert("refused".into(), 1);
    report.count_not_copied();
    assert!(line(&report).starts_with("alice: done in 12s: 9 messages"), "{}", line(&report));
    assert!(line(&report).contains("2 not copied as accepted"), "{}", line(&report));
}

#[test]
fn the_last_line_counts_endings_and_what_was_not_copied() {
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
    insta::assert_snapshot!(report_of(reports.to_vec()), @r#"
    Problems (1)
      source old.example:993: Authentication: wrong password (bob)

    Look at this
      folders.exclude `Spam` matches no folder (alice)

    alice: done, 7 not copied, in 12s: 205 messages (37.01 MB) copied, 2 adopted, 7 with changed flags
      folder              source  before  now  adopted  not copied  left out  flags  state
      INBOX                 1200    1000  196        2           0         0      7  done
      Sent Items -> Sent      12       0    9        0           2         1      0  done
      and 1 folder with nothing new
      Not copied
        7 messages: 5 in folders that Mailferry leaves out by itself, 1 refused, 1 too large
        Sent Items (UIDVALIDITY 1500000000): 1 refused, 1 too large
        Sent Items: UID 17, 41.94 MB, 01-Mar-2024 10:00:00 +0100: the destination takes 26214400 bytes
        Sent Items: UID 18, 41.94 MB, 01-Mar-2024 10:00:00 +0100: NO [CANNOT] \u{1b}[31mbad mail
      In doubt, so left as it was
        Sent Items: 3 of 4 copies vanished; nothing was deleted
      Copied with a difference
        Sent Items: 1 keyword refused
        Sent Items: UID 4: $MDNSent
      Messages left out by a rule
        Sent Items: 1 older than 2020-01-01

    bob: failed

    carol: interrupted

    (source: messages there; before: copied by earlier runs; now: copied by this run; adopted: were at the destination already; left out: by a rule; flags: changed at the destination)

    Folders left out
      [Gmail]/All Mail (5 messages): it is a view of all messages (alice)
      Junk: it is excluded by `Junk` (alice)

    Notes
      the checkpoint was for other accounts (alice)

    `mailferry export --not-copied DIR` writes the messages that were not copied to files.
    `messages.acceptNotCopied` in the migration accepts them; until then a run ends with exit code 3.

    Interrupted: run the same command again to go on from here.

    3 mailboxes: 1 done, 1 failed, 1 interrupted, 7 messages not copied. 205 messages (37.01 MB) copied, 2 adopted, 7 with changed flags in 1m15s.
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

/// So many mailboxes, each with two folders; every third had nothing new, and the host of every tenth does not exist.
fn many(number: u64) -> Vec<MailboxReport> {
    let of = |n: u64| {
        let folder = |source: &str, copied_now| FolderReport {
            source: source.into(),
            destination: source.into(),
            source_messages: 10 * n,
            copied_before: 10 * n - copied_now,
            copied_now,
            bytes_now: copied_now * 5_000,
            complete: true,
            ..FolderReport::default()
        };
        let mailbox = format!("user{n}@customer.example");
        let error = n.is_multiple_of(10).then(|| {
            let no_host = Error::network("there is no host of this name").advice("Check the spelling");
            no_host.on(Side::Source, "imap.oldhsot.example:993").in_mailbox(&mailbox)
        });
        let folders = if error.is_some() { Vec::new() } else { vec![folder("Work", n % 3), folder("INBOX", n % 3)] };
        MailboxReport { mailbox, folders, error, duration_ms: 1000, ..MailboxReport::default() }
    };
    (1..=number).map(of).collect()
}

#[test]
fn many_mailboxes_are_a_table_of_those_where_something_happened() {
    let text = report_at(80, many(30));
    assert!(text.lines().all(|line| unicode_width::UnicodeWidthStr::width(line) <= 80), "{text}");
    insta::assert_snapshot!(text, @r#"
    Problems (1)
      source imap.oldhsot.example:993: Network: there is no host of this name. Check
        the spelling (3 mailboxes: user10@customer.example, user20@customer.example,
        user30@customer.example)

    Mailboxes
      mailbox                  copied      size  state
      user1@customer.example        2  10.00 kB  done
      user2@customer.example        4  20.00 kB  done
      user4@customer.example        2  10.00 kB  done
      user5@customer.example        4  20.00 kB  done
      user7@customer.example        2  10.00 kB  done
      user8@customer.example        4  20.00 kB  done
      user11@customer.example       4  20.00 kB  done
      user13@customer.example       2  10.00 kB  done
      user14@customer.example       4  20.00 kB  done
      user16@customer.example       2  10.00 kB  done
      user17@customer.example       4  20.00 kB  done
      user19@customer.example       2  10.00 kB  done
      user22@customer.example       2  10.00 kB  done
      user23@customer.example       4  20.00 kB  done
      user25@customer.example       2  10.00 kB  done
      user26@customer.example       4  20.00 kB  done
      user28@customer.example       2  10.00 kB  done
      user29@customer.example       4  20.00 kB  done
      9 mailboxes: nothing new
      The folders of each: --verbose.

    (copied: messages)

    30 mailboxes: 27 done, 3 failed. 54 messages (270.00 kB) copied in 1m15s.
    "#);
    insta::assert_snapshot!(report_at(120, many(5)), @r#"
    user1@customer.example: done in 1.0s: 2 messages (10.00 kB) copied
      folder  source  before  now  state
      INBOX       10       9    1  done
      Work        10       9    1  done

    user2@customer.example: done in 1.0s: 4 messages (20.00 kB) copied
      folder  source  before  now  state
      INBOX       20      18    2  done
      Work        20      18    2  done

    user3@customer.example: done in 1.0s: 0 messages (0 B) copied

    user4@customer.example: done in 1.0s: 2 messages (10.00 kB) copied
      folder  source  before  now  state
      INBOX       40      39    1  done
      Work        40      39    1  done

    user5@customer.example: done in 1.0s: 4 messages (20.00 kB) copied
      folder  source  before  now  state
      INBOX       50      48    2  done
      Work        50      48    2  done

    (source: messages there; before: copied by earlier runs; now: copied by this run)

    5 mailboxes: 5 done. 12 messages (60.00 kB) copied in 1m15s.
    "#);
}

#[test]
fn one_mailbox_with_long_names_fits_a_narrow_terminal_with_nothing_cut_in_silence() {
    let mut report = done();
    report.folders[1].source = "Archive/2019/Projects/日本語の長い名前のフォルダ".into();
    for width in [40, 80, 120] {
        let text = report_at(width, vec![report.clone()]);
        // A single word is never broken.
        let wide = |line: &&str| unicode_width::UnicodeWidthStr::width(*line) > width && line.trim().contains(' ');
        assert_eq!(text.lines().find(wide), None, "{text}");
    }
    insta::assert_snapshot!(report_at(80, vec![report]), @r#"
    Look at this
      folders.exclude `Spam` matches no folder

    alice: done, 7 not copied, in 12s: 205 messages (37.01 MB) copied, 2 adopted, 7
      with changed flags
      folder        source  before  now  adopted  not copied  left out  flags  state
      INBOX           1200    1000  196        2           0         0      7  done
      Archive/201…      12       0    9        0           2         1      0  done
      and 1 folder with nothing new
      Not copied
        7 messages: 5 in folders that Mailferry leaves out by itself, 1 refused, 1
          too large
        Archive/2019/Projects/日本語の長い名前のフォルダ (UIDVALIDITY 1500000000): 1
          refused, 1 too large
        Archive/2019/Projects/日本語の長い名前のフォルダ: UID 17, 41.94 MB,
          01-Mar-2024 10:00:00 +0100: the destination takes 26214400 bytes
        Archive/2019/Projects/日本語の長い名前のフォルダ: UID 18, 41.94 MB,
          01-Mar-2024 10:00:00 +0100: NO [CANNOT] \u{1b}[31mbad mail
      In doubt, so left as it was
        Archive/2019/Projects/日本語の長い名前のフォルダ: 3 of 4 copies vanished;
          nothing was deleted
      Copied with a difference
        Archive/2019/Projects/日本語の長い名前のフォルダ: 1 keyword refused
        Archive/2019/Projects/日本語の長い名前のフォルダ: UID 4: $MDNSent
      Messages left out by a rule
        Archive/2019/Projects/日本語の長い名前のフォルダ: 1 older than 2020-01-01

    (source: messages there; before: copied by earlier runs; now: copied by this
      run; adopted: were at the destination already; left out: by a rule; flags:
      changed at the destination)

    Folders left out
      [Gmail]/All Mail (5 messages): it is a view of all messages
      Junk: it is excluded by `Junk`

    Notes
      the checkpoint was for other accounts

    `mailferry export --not-copied DIR` writes the messages that were not copied to
      files.
    `messages.acceptNotCopied` in the migration accepts them; until then a run ends
      with exit code 3.

    1 mailbox: 1 done, 7 messages not copied. 205 messages (37.01 MB) copied, 2
      adopted, 7 with changed flags in 1m15s.
    "#);
}

#[test]
fn where_all_is_asked_for_every_folder_is_shown() {
    let layout = TextLayout { detail: ReportDetail::All, ..TextLayout::default() };
    let text = report(&RunOutcome { reports: vec![done()], took: Duration::from_secs(75) }, layout);
    assert!(text.contains("Entwürfe") && text.contains("unchanged"), "{text}");
    assert!(!report_of(vec![done()]).contains("Entwürfe"));
}
