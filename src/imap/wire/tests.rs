//! Connections whose bytes are paced.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const MESSAGE: usize = 600_000;

/// A connection that moves 10 kB in a second and bears a silence of five seconds; and the server's end of it.
fn paced() -> (FramedConnection, DuplexStream) {
    let (ours, theirs) = duplex(64 << 10);
    let mut connection =
        FramedConnection::new(Transport::Deflate(Box::new(ours)), Duration::from_secs(5), Arc::default());
    connection.accept_long_responses();
    connection.set_pace(Some(Arc::new(BytePace::new(10_000))));
    (connection, theirs)
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_read_slowly_on_purpose_is_no_silence() {
    let (mut connection, mut server) = paced();
    let began = Instant::now();
    let sends = async {
        server.write_all(format!("* 1 FETCH (BODY[] {{{MESSAGE}}}\r\n").as_bytes()).await.unwrap();
        server.write_all(&vec![b'x'; MESSAGE]).await.unwrap();
        server.write_all(b")\r\n").await.unwrap();
    };
    connection.set_reply_due(true);
    let (frame, ()) = tokio::join!(connection.next(), sends);
    assert!(matches!(frame, Ok(IncomingFrame::Response(_))), "{frame:?}");
    assert_eq!(began.elapsed().as_secs(), 59, "the last step may go ahead of its time");
    assert!(connection.paced_at().is_some_and(|paced| paced > began));
    // From here on it is the server that says nothing.
    let silent = connection.next().await.unwrap_err();
    assert!(silent.what.contains("silent for 5 s"), "{silent}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_written_slowly_on_purpose_is_no_silence() {
    let (mut connection, mut server) = paced();
    let began = Instant::now();
    connection.queue(1, vec![b'x'; MESSAGE]);
    connection.set_reply_due(true);
    let takes = async {
        let mut taken = vec![0; MESSAGE];
        server.read_exact(&mut taken).await.unwrap();
        server.write_all(b"* OK taken\r\n").await.unwrap();
    };
    let (frame, ()) = tokio::join!(connection.next(), takes);
    assert!(matches!(frame, Ok(IncomingFrame::Response(_))), "{frame:?}");
    assert_eq!(began.elapsed().as_secs(), 59);
}
