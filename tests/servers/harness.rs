//! The harness itself: servers start, take mail, give it back, and leave nothing behind.

use std::{fs, net::TcpStream};

use mailferry_testkit::{CorpusMessage, RunningServer, ServerMake, eventually, so};

use crate::{can_run, truth};

async fn takes_mail_and_gives_it_back(make: ServerMake) {
    if !can_run(&[make]) {
        return;
    }
    let account = make.shared().account();
    let mut imap = account.connect().await;
    let namespace = imap.namespace().await;
    let folder = namespace.raw("one/two");
    for path in ["one", "one/two"] {
        imap.command_ok(&format!("CREATE \"{}\"", namespace.raw(path))).await;
    }
    let message = CorpusMessage::new("Message-ID: <a@example.org>\r\nSubject: a\r\n\r\nhello\r\n").flagged(&["\\Seen"]);
    let reply = imap.append_one(&folder, &message).await;
    assert_eq!(reply.status, "OK", "{}", reply.text);
    let mailbox = truth::read(&account).await;
    let found = mailbox["one/two"].messages.as_ref().unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].flags.contains("\\seen"), "{:?}", found[0].flags);
    assert_eq!(found[0].date, 1_614_931_750);
    let body = String::from_utf8_lossy(&found[0].body).replace('\r', "");
    assert_eq!(body.trim_end(), "Message-ID: <a@example.org>\nSubject: a\n\nhello");
    // Another account knows nothing of it.
    assert_eq!(
        truth::read(&make.shared().account())
            .await
            .values()
            .filter_map(|f| f.messages.as_ref())
            .map(Vec::len)
            .sum::<usize>(),
        0
    );
}

async fn leaves_nothing_behind(make: ServerMake) {
    if !can_run(&[make]) {
        return;
    }
    let server = tokio::task::spawn_blocking(move || RunningServer::start(make)).await.unwrap();
    server.account().connect().await;
    let (port, folder) = (server.port(), server.folder().to_owned());
    assert!(fs::exists(&folder).unwrap());
    drop(server);
    eventually("the server's end", async || {
        so(!fs::exists(&folder).unwrap() && TcpStream::connect(("127.0.0.1", port)).is_err(), "still there")
    })
    .await;
}

macro_rules! each_make {
    ($($name:ident: $make:ident),*) => {$(
        mod $name {
            use mailferry_testkit::ServerMake;

            #[tokio::test(flavor = "multi_thread")]
            async fn takes_mail_and_gives_it_back() {
                super::takes_mail_and_gives_it_back(ServerMake::$make).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn leaves_nothing_behind() {
                super::leaves_nothing_behind(ServerMake::$make).await;
            }
        }
    )*};
}

each_make!(cyrus: Cyrus, courier: Courier, greenmail: GreenMail, goimap: GoImap, pymap: Pymap);
