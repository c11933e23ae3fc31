//! The sockets by which Cyrus and Courier ask whether a login is right: answered here, so that accounts need no files.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Result, Write as _},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
};

use super::{MAIL, PASSWORD};

/// Answers as `saslauthd` does: four strings, each after its length, come in; one goes out.
pub fn answer_as_saslauthd(socket: &Path) {
    serve(socket, |mut stream| {
        let mut fields = Vec::new();
        for _ in 0..4 {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut field = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut field)?;
            fields.push(field);
        }
        let answer = if fields[1] == PASSWORD.as_bytes() { "OK" } else { "NO" };
        stream.write_all(&[0, 2])?;
        stream.write_all(answer.as_bytes())
    });
}

/// Answers as Courier's `authdaemond` does, and makes an account's maildir below `homes` when it logs in.
pub fn answer_as_authdaemon(socket: &Path, homes: &Path) {
    let homes = homes.to_owned();
    serve(socket, move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        // Lines about the client come first.
        let length = loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(length) = line.strip_prefix("AUTH ") {
                break length.trim().parse().unwrap_or(0);
            }
        };
        let mut request = vec![0; length];
        reader.read_exact(&mut request)?;
        let request = String::from_utf8_lossy(&request).into_owned();
        // The service, the kind of login, the user, the password.
        let fields: Vec<&str> = request.lines().collect();
        if fields.len() < 4 || fields[3] != PASSWORD {
            return stream.write_all(b"FAIL\n");
        }
        let home = homes.join(fields[2]);
        make_maildir(&home)?;
        let (home, user) = (home.display(), fields[2]);
        write!(stream, "UID={MAIL}\nGID={MAIL}\nHOME={home}\nADDRESS={user}\nMAILDIR={home}/Maildir\n.\n")
    });
}

fn make_maildir(home: &Path) -> Result<()> {
    let folders = ["", "Maildir", "Maildir/cur", "Maildir/new", "Maildir/tmp"].map(|name| home.join(name));
    for folder in folders {
        fs::create_dir_all(&folder)?;
        chown(&folder, Some(MAIL), Some(MAIL))?;
    }
    Ok(())
}

/// Answers every connection by a thread of its own, until this process ends.
fn serve(socket: &Path, answer: impl Fn(UnixStream) -> Result<()> + Clone + Send + 'static) {
    let socket: PathBuf = socket.to_owned();
    let listener = UnixListener::bind(&socket).expect("socket");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).expect("permissions");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            thread::spawn(move || answer(stream).ok());
        }
    });
}
