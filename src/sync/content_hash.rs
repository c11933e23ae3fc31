//! What the bytes of a message hash to: as they are, and in the two forms in which copies are known again that a server
//! changed when it stored them.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::LazyLock,
};

use highway::{HighwayHash as _, HighwayHasher, Key};

use super::trace_hash::TraceHasher;

/// The key of this process' hashes: whoever writes mail can't know it, and so can't write two messages that hash alike.
/// The standard library takes it from the system.
static HASH_KEY: LazyLock<Key> = LazyLock::new(|| {
    let random = RandomState::new();
    Key(std::array::from_fn(|part| random.hash_one(part)))
});

/// A hash of 256 bits over a stream of bytes, several times as fast as a cryptographic one without a key: each byte of both
/// servers goes through two of them. It is compared within the process, and never kept.
#[derive(Debug, Clone)]
struct StreamHash(HighwayHasher);

impl StreamHash {
    fn new() -> Self {
        Self(HighwayHasher::new(*HASH_KEY))
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.append(bytes);
    }

    fn finish(self) -> [u8; 32] {
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(8).zip(self.0.finalize256()) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        digest
    }
}

/// What a message's bytes hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash {
    /// Hash of the bytes as they are.
    pub exact: [u8; 32],
    /// Hash after everything that widely used servers are known to rewrite is made equal.
    pub canonical: [u8; 32],
    /// Hash of what is left when all is taken away that any known server rewrites: equal messages may still be two. None
    /// where it was not asked for.
    pub loose: Option<[u8; 32]>,
    /// Hash of the trace fields: which way the message took before it was stored.
    pub trace: [u8; 16],
    /// How many bytes came.
    pub bytes: u64,
}

/// Hashes a message as it streams by, in constant memory.
///
/// Canonical form, by what servers were seen to do: each CR is dropped (Courier drops lone ones and adds those before
/// LF), NUL equals 0x80 (Dovecot), newlines at the end are dropped (Courier adds one), and in the header NUL and each
/// byte from 0x80 on is `X` (Cyrus).
///
/// Loose form: the canonical one without white space and control characters (pymap begins a message without a header with
/// a blank line, makes a line end of each CR, and folds in its own way), with one `X` for several in the header
/// (`GreenMail` makes three bytes of one that is no UTF-8), and without the line `From ` of an mbox at the beginning
/// (pymap takes it away).
#[derive(Debug, Clone)]
pub struct ContentHasher {
    exact: StreamHash,
    canonical: StreamHash,
    loose: Option<StreamHash>,
    trace: TraceHasher,
    bytes: u64,
    in_body: bool,
    /// The last byte but CRs was LF, or there was none: an LF now ends the header.
    in_line: bool,
    /// LFs that are only hashed when something follows.
    held_newlines: u64,
    scratch: Vec<u8>,
    loose_scratch: Vec<u8>,
    start: MessageStart,
    /// The last byte of the header's loose form was X.
    after_mask: bool,
}

/// Where the line `From ` of an mbox may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageStart {
    /// So many of its bytes came, and nothing else.
    Prefix(usize),
    /// In the line, after its first word.
    InLine,
    /// Behind it, or it is not there.
    Over,
}

impl Default for MessageStart {
    fn default() -> Self {
        Self::Prefix(0)
    }
}

/// How an mbox separates messages.
const MBOX_LINE: &[u8] = b"From ";

/// So many bytes of the loose form are put together at a time.
const BLOCK: usize = 64;

/// What Dovecot makes of NUL.
const NUL_AT_DOVECOT: u8 = 0x80;

/// False for white space and control characters.
const fn is_kept_loosely(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

impl Default for ContentHasher {
    fn default() -> Self {
        Self { loose: Some(StreamHash::new()), ..Self::without_loose_form() }
    }
}

impl ContentHasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same without the loose form, which costs as much as all else together.
    #[must_use]
    pub fn without_loose_form() -> Self {
        Self {
            exact: StreamHash::new(),
            canonical: StreamHash::new(),
            loose: None,
            trace: TraceHasher::default(),
            bytes: 0,
            in_body: false,
            in_line: false,
            held_newlines: 0,
            scratch: Vec::new(),
            loose_scratch: Vec::new(),
            start: MessageStart::default(),
            after_mask: false,
        }
    }

    /// Takes the next bytes of the message.
    pub fn update(&mut self, bytes: &[u8]) {
        self.exact.update(bytes);
        self.bytes += bytes.len() as u64;
        for piece in bytes.chunks(8192) {
            self.scratch.clear();
            self.loose_scratch.clear();
            let body = self.take_header(piece);
            self.take_body(body);
            self.canonical.update(&self.scratch);
            if let Some(loose) = &mut self.loose {
                loose.update(&self.loose_scratch);
            }
            self.trace.flush();
        }
    }

    /// Takes bytes one by one up to where nothing but text follows, and gives what is left of them.
    fn take_header<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let mut rest = piece;
        while let Some((&byte, after)) = rest.split_first() {
            if self.in_body && self.start == MessageStart::Over {
                break;
            }
            rest = after;
            match byte {
                b'\r' => continue,
                b'\n' => {
                    self.in_body |= !self.in_line;
                    self.in_line = false;
                    self.held_newlines += 1;
                    self.end_mbox_line();
                    self.trace.end_line();
                    continue;
                }
                _ => self.in_line = true,
            }
            if !self.in_body {
                self.trace.take(byte);
            }
            self.release_newlines();
            let canonical = match byte {
                0 | 0x80.. if !self.in_body => b'X',
                0 => NUL_AT_DOVECOT,
                other => other,
            };
            self.scratch.push(canonical);
            self.push_loose(canonical);
        }
        rest
    }

    /// Takes text behind the header, by lines: most bytes of most mail.
    fn take_body(&mut self, text: &[u8]) {
        let mut rest = text;
        while !rest.is_empty() {
            let line_end = memchr::memchr(b'\n', rest);
            let (line, after) = rest.split_at(line_end.unwrap_or(rest.len()));
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if memchr::memchr(b'\r', line).is_none() {
                self.take_text(line);
            } else {
                line.split(|byte| *byte == b'\r').for_each(|part| self.take_text(part));
            }
            self.held_newlines += u64::from(line_end.is_some());
            rest = after.split_first().map_or(after, |(_, next)| next);
        }
    }

    /// Takes text behind the header without any CR or LF.
    fn take_text(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        self.release_newlines();
        let from = self.scratch.len();
        self.scratch.extend_from_slice(text);
        let canonical = self.scratch.get_mut(from..).unwrap_or_default();
        if memchr::memchr(0, canonical).is_some() {
            canonical.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = NUL_AT_DOVECOT);
        }
        if self.loose.is_none() {
            return;
        }
        for block in canonical.chunks(BLOCK) {
            // Each byte is written, and the next over it unless it is kept: a branch would be guessed wrong at every word.
            let (mut kept, mut count) = ([0; BLOCK], 0);
            for &byte in block {
                kept[count % BLOCK] = byte;
                count += usize::from(is_kept_loosely(byte));
            }
            self.loose_scratch.extend_from_slice(kept.get(..count).unwrap_or(&kept));
        }
    }

    /// Takes the newlines that were held back: something follows.
    fn release_newlines(&mut self) {
        // A few newlines go by with the rest; a file of newlines must not grow the buffer.
        if self.held_newlines > 64 {
            self.canonical.update(&self.scratch);
            self.scratch.clear();
            while self.held_newlines > 0 {
                self.canonical.update(b"\n");
                self.held_newlines -= 1;
            }
        }
        while self.held_newlines > 0 {
            self.scratch.push(b'\n');
            self.held_newlines -= 1;
        }
    }

    /// Takes one byte of the canonical form, other than LF, for the loose one.
    fn push_loose(&mut self, byte: u8) {
        match self.start {
            MessageStart::Over => {}
            MessageStart::InLine => return,
            MessageStart::Prefix(came) if MBOX_LINE.get(came) == Some(&byte) => {
                let came = came + 1;
                self.start = if came == MBOX_LINE.len() { MessageStart::InLine } else { MessageStart::Prefix(came) };
                return;
            }
            MessageStart::Prefix(_) => self.end_prefix(),
        }
        if !is_kept_loosely(byte) {
            return;
        }
        let is_mask = byte == b'X' && !self.in_body;
        if !(is_mask && self.after_mask) {
            self.loose_scratch.push(byte);
        }
        self.after_mask = is_mask;
    }

    /// The message begins like the line of an mbox, and goes on otherwise.
    fn end_prefix(&mut self) {
        if let MessageStart::Prefix(came) = std::mem::replace(&mut self.start, MessageStart::Over) {
            self.loose_scratch.extend(MBOX_LINE.iter().take(came).filter(|byte| **byte > b' '));
        }
    }

    fn end_mbox_line(&mut self) {
        match self.start {
            MessageStart::Prefix(_) => self.end_prefix(),
            MessageStart::InLine | MessageStart::Over => self.start = MessageStart::Over,
        }
    }

    /// The hashes of everything taken.
    #[must_use]
    pub fn finish(mut self) -> ContentHash {
        self.loose_scratch.clear();
        self.end_prefix();
        let loose = self.loose.map(|mut loose| {
            loose.update(&self.loose_scratch);
            loose.finish()
        });
        ContentHash {
            exact: self.exact.finish(),
            canonical: self.canonical.finish(),
            loose,
            trace: self.trace.finish(),
            bytes: self.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(bytes: &[u8]) -> ContentHash {
        let mut hasher = ContentHasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    fn digest(bytes: &[u8]) -> [u8; 32] {
        let mut stream = StreamHash::new();
        stream.update(bytes);
        stream.finish()
    }

    fn same(a: &[u8], b: &[u8]) -> bool {
        assert!(hash(a).canonical != hash(b).canonical || hash(a).loose == hash(b).loose, "loose is looser");
        hash(a).canonical == hash(b).canonical
    }

    fn alike(a: &[u8], b: &[u8]) -> bool {
        hash(a).loose == hash(b).loose
    }

    #[test]
    fn what_servers_rewrite_does_not_change_the_canonical_hash() {
        assert!(same(b"A: b\n\nbody\n", b"A: b\r\n\r\nbody\r\n"), "bare LF");
        assert!(same(b"A: b\r\n\r\na\rb\r\r\n", b"A: b\r\n\r\nab\r\n"), "lone CR");
        assert!(same(b"A: b\r\n\r\nbody", b"A: b\r\n\r\nbody\r\n"), "no final newline");
        assert!(same(b"", b"\r\n"), "empty message");
        assert!(same(b"A: b\r\n\r\na\0b", b"A: b\r\n\r\na\x80b"), "NUL");
        assert!(same("Subject: Gr\u{fc}\u{df}e\r\n\r\nx".as_bytes(), b"Subject: GrXXXXe\r\n\r\nx"), "8-bit header");
        assert!(same(b"S: a\0b\r\n\r\nx", b"S: aXb\r\n\r\nx"), "NUL in a header");
        assert_ne!(hash(b"A: b\n\nbody\n").exact, hash(b"A: b\r\n\r\nbody\r\n").exact);
    }

    #[test]
    fn what_a_person_would_call_different_stays_different() {
        assert!(!same(b"A: b\r\n\r\ngr\xc3\xbcn", b"A: b\r\n\r\ngrXXn"), "8-bit in the body");
        assert!(!same(b"A: b\r\n\r\na\n\nb", b"A: b\r\n\r\na\nb"), "blank line in the body");
        assert!(!same(b"A: b\r\n\r\nbody", b"A: b\r\nbody"), "header end");
        assert!(!same(b"\r\n\xff", b"\r\nX"), "a message without header has only a body");
        assert!(!same(b"A: b\r\n\r\na", b"A: b\r\n\r\nb"));
        let many = [b"A: b\n\n".as_slice(), &b"\n".repeat(100), b"x"].concat();
        let fewer = [b"A: b\n\n".as_slice(), &b"\n".repeat(99), b"x"].concat();
        assert!(!same(&many, &fewer), "number of blank lines");
    }

    #[test]
    fn what_any_known_server_rewrites_does_not_change_the_loose_hash() {
        assert!(
            alike(b"S: Gr\xfc\xdfe\r\n\r\n\xe4\r\n", b"S: Gr\xef\xbf\xbd\xef\xbf\xbde\r\n\r\n\xe4\r\n"),
            "no UTF-8"
        );
        assert!(alike(b"x", b"\nx"), "a blank line before what is no header");
        assert!(alike(b"A: b\r\n\r\none\rtwo\r\n", b"A: b\n\none\ntwo\n"), "a line end of a lone CR");
        assert!(alike(b"A: b\r\n\r\na\r\r\nb\r\n", b"A: b\n\na\n\nb\n"), "two of CR CR LF");
        assert!(alike(b"A:\r\n b\r\n\r\nx\r\n", b"A: \n b\n\nx\n"), "a folded line");
        assert!(alike(b"From a@b Mon\r\nA: b\r\n\r\nFrom x\r\n", b"A: b\n\nFrom x\n"), "the line of an mbox");
    }

    #[test]
    fn other_words_change_the_loose_hash() {
        assert!(!alike(b"A: b\r\n\r\none\r\n", b"A: b\r\n\r\ntwo\r\n"));
        assert!(!alike(b"A: b\r\n\r\n\xc3\xa4\r\n", b"A: b\r\n\r\n\xc3\xb6\r\n"), "8-bit in the body");
        assert!(!alike(b"Fro: x\r\n\r\n", b": x\r\n\r\n") && !alike(b"From: x\r\n\r\n", b"\r\n\r\n"));
        assert!(!alike(b"Fro", b"") && !alike(b"Fr\nA: b\n\n", b"A: b\n\n"));
        assert!(!alike(b"A: b\r\n\r\nFrom x\r\n", b"A: b\r\n\r\n"), "an mbox separates at the beginning only");
    }

    /// The canonical and the loose form as the documentation says them, of a whole message.
    fn forms(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut text: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != b'\r').collect();
        text.truncate(text.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1));
        let blank_line = (0..text.len()).find(|at| text[*at] == b'\n' && (*at == 0 || text[at - 1] == b'\n'));
        let header_end = blank_line.unwrap_or(text.len());
        for (at, byte) in text.iter_mut().enumerate() {
            match *byte {
                0 | 0x80.. if at < header_end => *byte = b'X',
                0 => *byte = 0x80,
                _ => {}
            }
        }
        let mbox_line = if text.starts_with(MBOX_LINE) {
            text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len())
        } else {
            0
        };
        let mut loose = Vec::new();
        for (at, byte) in text.iter().enumerate().skip(mbox_line).filter(|(_, byte)| is_kept_loosely(**byte)) {
            let is_mask = |at: usize, byte: u8| at < header_end && byte == b'X';
            if !(is_mask(at, *byte) && loose.last().is_some_and(|(at, before)| is_mask(*at, *before))) {
                loose.push((at, *byte));
            }
        }
        (text, loose.into_iter().map(|(_, byte)| byte).collect())
    }

    proptest! {
        #[test]
        fn the_forms_are_as_they_are_described(
            bytes in proptest::collection::vec(
                prop_oneof![
                    Just(b'\r'), Just(b'\n'), Just(0), Just(0xfc), Just(b'a'), Just(b'X'), Just(b' '), Just(0x7f), Just(1),
                ],
                0..300,
            ),
            start in prop_oneof![Just(b"".as_slice()), Just(MBOX_LINE), Just(b"A: b\r\n\r\n".as_slice())],
        ) {
            let bytes = [start, &bytes].concat();
            let (canonical, loose) = forms(&bytes);
            prop_assert_eq!(hash(&bytes).canonical, digest(&canonical));
            prop_assert_eq!(hash(&bytes).loose, Some(digest(&loose)));
            let mut hasher = ContentHasher::without_loose_form();
            hasher.update(&bytes);
            prop_assert_eq!(hasher.finish(), ContentHash { loose: None, ..hash(&bytes) });
        }

        #[test]
        fn hashes_do_not_depend_on_how_the_bytes_arrive(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(0), Just(0xfc), Just(b'a'), Just(b'X'), Just(b' ')],
                0..300,
            ),
            from in any::<bool>(),
            cut in 0..300_usize,
        ) {
            let bytes = if from { [MBOX_LINE, &bytes].concat() } else { bytes };
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let mut hasher = ContentHasher::new();
            hasher.update(a);
            hasher.update(b);
            prop_assert_eq!(hasher.finish(), hash(&bytes));
        }
    }
}
