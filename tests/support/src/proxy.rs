//! A TCP proxy that adds delay and breaks connections.
//!
//! What it models: a link of unlimited bandwidth whose every byte takes a fixed time each way, in order. Opening a
//! connection costs a round trip as well: the kernel accepts for us at once, so the client's first bytes are held
//! back by the round trip that its handshake would have taken, and the server is called when the last part of that
//! handshake would have reached it.
//!
//! It works with threads and the kernel's clock (accurate to about 0.1 ms), apart from any async runtime.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

/// Bytes on their way in one direction of one connection; a sender above that waits, as for a full window.
const IN_FLIGHT: usize = 32 << 20;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// How a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakMode {
    /// Both ends see an orderly end of stream.
    Close,
    /// Both ends see a reset.
    Reset,
    /// Nothing more is carried either way, and nobody is told.
    Stall,
}

/// When.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BreakPoint {
    /// After exactly so many bytes went this way.
    Bytes(Direction, u64),
    /// After these bytes went this way (in plaintext only).
    Seen(Direction, Vec<u8>),
}

/// One way to break a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionFault {
    /// At which moment.
    pub when: BreakPoint,
    /// In what way.
    pub how: BreakMode,
}

/// A running proxy; ends, with its connections, when dropped.
#[derive(Debug)]
pub struct FaultyProxy {
    address: SocketAddr,
    shared: Arc<ProxyState>,
}

#[derive(Debug)]
struct ProxyState {
    target: SocketAddr,
    /// Nanoseconds, one way.
    delay: AtomicU64,
    /// For the connections to come: one entry each.
    faults: Mutex<Vec<Option<ConnectionFault>>>,
    open: Mutex<Vec<Arc<ProxiedConnection>>>,
    accepted: AtomicUsize,
    carried: [AtomicU64; 2],
    /// Told whenever bytes were delivered.
    moved: (Mutex<()>, Condvar),
    ended: AtomicBool,
}

impl ProxyState {
    fn delay(&self) -> Duration {
        Duration::from_nanos(self.delay.load(Ordering::SeqCst))
    }
}

impl ProxyState {
    fn count(&self, direction: Direction, bytes: u64) {
        self.carried[direction as usize].fetch_add(bytes, Ordering::SeqCst);
        drop(lock(&self.moved.0));
        self.moved.1.notify_all();
    }
}

/// One connection's two sockets.
#[derive(Debug)]
struct ProxiedConnection {
    client: TcpStream,
    server: TcpStream,
    broken: Mutex<Option<BreakMode>>,
}

impl ProxiedConnection {
    fn break_off(&self, how: BreakMode) {
        *lock(&self.broken) = Some(how);
        match how {
            BreakMode::Stall => {}
            BreakMode::Close => self.shutdown(),
            BreakMode::Reset => {
                for socket in [&self.client, &self.server] {
                    SockRef::from(socket).set_linger(Some(Duration::ZERO)).ok();
                }
                // The reset goes out when the last handle is closed, which the ended threads do.
                for socket in [&self.client, &self.server] {
                    socket.shutdown(Shutdown::Read).ok();
                }
            }
        }
    }

    fn shutdown(&self) {
        self.client.shutdown(Shutdown::Both).ok();
        self.server.shutdown(Shutdown::Both).ok();
    }
}

impl FaultyProxy {
    /// Listens on a free port of 127.0.0.1 and carries to a port there, each byte `delay` later (half the round
    /// trip).
    #[must_use]
    pub fn start(target: u16, delay: Duration) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, target, delay)
    }

    /// The same on another address of this machine, for clients that can't reach its loopback.
    #[must_use]
    pub fn start_at(address: Ipv4Addr, target: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let address = listener.local_addr().expect("address");
        let shared = Arc::new(ProxyState {
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, target)),
            delay: AtomicU64::new(0),
            faults: Mutex::default(),
            open: Mutex::default(),
            accepted: AtomicUsize::default(),
            carried: Default::default(),
            moved: Default::default(),
            ended: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let proxy = Self { address, shared };
        proxy.set_delay(delay);
        thread::spawn(move || accept(&listener, &for_thread));
        proxy
    }

    /// Where clients connect, on 127.0.0.1 unless it was started elsewhere.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes the delay (one way) for all bytes that arrive from now on.
    pub fn set_delay(&self, delay: Duration) {
        let nanoseconds = u64::try_from(delay.as_nanos()).expect("a delay below centuries");
        self.shared.delay.store(nanoseconds, Ordering::SeqCst);
    }

    /// Breaks connections to come: the next one by the first entry, the one after it by the second; `None` leaves
    /// one alone. When the entries are used up, connections stay whole.
    pub fn break_next(&self, faults: impl IntoIterator<Item = Option<ConnectionFault>>) {
        lock(&self.shared.faults).extend(faults);
    }

    /// Breaks every open connection now.
    pub fn break_all(&self, how: BreakMode) {
        for link in lock(&self.shared.open).iter() {
            link.break_off(how);
        }
    }

    /// How many bytes were delivered one way so far, over all connections.
    #[must_use]
    pub fn bytes_carried(&self, direction: Direction) -> u64 {
        self.shared.carried[direction as usize].load(Ordering::SeqCst)
    }

    /// Waits until so many bytes were delivered one way, over all connections, or `give_up` says that no more will come;
    /// it is asked at least ten times a second.
    pub fn wait_for_bytes(&self, direction: Direction, bytes: u64, mut give_up: impl FnMut() -> bool) {
        let mut guard = lock(&self.shared.moved.0);
        while self.bytes_carried(direction) < bytes && !give_up() {
            let waited = self.shared.moved.1.wait_timeout(guard, Duration::from_millis(100));
            guard = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        TcpStream::connect(self.address).ok();
        self.break_all(BreakMode::Close);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<ProxyState>) {
    for client in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        let at = Instant::now();
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let fault = {
            let mut faults = lock(&shared.faults);
            if faults.is_empty() { None } else { faults.remove(0) }
        };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // An error here is a connection that one side gave up: the other side has been told.
            carry(client, &shared, fault, at).ok();
        });
    }
}

fn carry(
    client: TcpStream,
    shared: &Arc<ProxyState>,
    fault: Option<ConnectionFault>,
    accepted: Instant,
) -> io::Result<()> {
    let delay = shared.delay();
    wait_until(accepted + 3 * delay);
    let server = TcpStream::connect(shared.target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let link = Arc::new(ProxiedConnection { client, server, broken: Mutex::default() });
    lock(&shared.open).push(Arc::clone(&link));
    let fault = fault.map(Arc::new);
    // The client's bytes left when its handshake was over, however early we got them.
    let handshake_over = accepted + 2 * delay;
    let ways = [
        pump(&link, shared, Direction::ToServer, handshake_over, fault.clone())?,
        pump(&link, shared, Direction::ToClient, accepted, fault)?,
    ];
    for way in ways {
        way.join().ok();
    }
    lock(&shared.open).retain(|other| !Arc::ptr_eq(other, &link));
    Ok(())
}

/// Carries one direction: one thread reads and stamps, one writes when the time has come.
fn pump(
    link: &Arc<ProxiedConnection>,
    shared: &Arc<ProxyState>,
    direction: Direction,
    not_before: Instant,
    fault: Option<Arc<ConnectionFault>>,
) -> io::Result<thread::JoinHandle<()>> {
    let (mut from, mut to) = match direction {
        Direction::ToServer => (link.client.try_clone()?, link.server.try_clone()?),
        Direction::ToClient => (link.server.try_clone()?, link.client.try_clone()?),
    };
    let reader_shared = Arc::clone(shared);
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    let room = Arc::new((Mutex::new(0_usize), Condvar::new()));
    let reader_room = Arc::clone(&room);
    thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let due = Instant::now().max(not_before) + reader_shared.delay();
            let mut used = lock(&reader_room.0);
            while *used > IN_FLIGHT {
                used = reader_room.1.wait(used).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            *used += count;
            drop(used);
            if sender.send((due, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
        // An empty piece is the end of the stream, which takes its time like everything else.
        sender.send((Instant::now() + reader_shared.delay(), Vec::new())).ok();
    });
    let (link, shared) = (Arc::clone(link), Arc::clone(shared));
    Ok(thread::spawn(move || {
        let mut watch = FaultTrigger::new(direction, fault);
        for (due, piece) in receiver {
            wait_until(due);
            let broken = *lock(&link.broken);
            match broken {
                None if piece.is_empty() => {
                    to.shutdown(Shutdown::Write).ok();
                    break;
                }
                None => {}
                Some(BreakMode::Stall) if !piece.is_empty() => {
                    // Read on, so that the sender does not notice, and carry nothing.
                    *lock(&room.0) = 0;
                    room.1.notify_all();
                    continue;
                }
                // An end of stream now would go before the reset, or tell of a stall.
                Some(_) => break,
            }
            let (carried, broken) = watch.pass(&piece);
            if to.write_all(&piece[..carried]).is_err() {
                link.shutdown();
                break;
            }
            shared.count(direction, carried as u64);
            if let Some(how) = broken {
                link.break_off(how);
                if how != BreakMode::Stall {
                    break;
                }
            }
            let mut used = lock(&room.0);
            *used = used.saturating_sub(piece.len());
            drop(used);
            room.1.notify_all();
        }
        // A reader that waits for room would wait for ever.
        *lock(&room.0) = 0;
        room.1.notify_all();
    }))
}

/// Finds the moment at which a connection is to break.
struct FaultTrigger {
    fault: Option<Arc<ConnectionFault>>,
    passed: u64,
    recent: Vec<u8>,
}

impl FaultTrigger {
    fn new(direction: Direction, fault: Option<Arc<ConnectionFault>>) -> Self {
        let ours = |fault: &Arc<ConnectionFault>| match &fault.when {
            BreakPoint::Bytes(way, _) | BreakPoint::Seen(way, _) => *way == direction,
        };
        Self { fault: fault.filter(ours), passed: 0, recent: Vec::new() }
    }

    /// How many bytes of a piece go through, and whether the connection breaks then.
    fn pass(&mut self, piece: &[u8]) -> (usize, Option<BreakMode>) {
        let Some(fault) = &self.fault else { return (piece.len(), None) };
        let end = match &fault.when {
            BreakPoint::Bytes(_, limit) => {
                usize::try_from(limit - self.passed).ok().filter(|&left| left <= piece.len())
            }
            BreakPoint::Seen(_, pattern) => {
                let known = self.recent.len();
                self.recent.extend_from_slice(piece);
                let found = self.recent.windows(pattern.len()).position(|window| window == pattern);
                let end = found.map(|at| at + pattern.len() - known);
                let keep = self.recent.len().min(pattern.len() - 1);
                self.recent.drain(..self.recent.len() - keep);
                end
            }
        };
        let carried = end.unwrap_or(piece.len());
        self.passed += carried as u64;
        let broken = end.map(|_| fault.how);
        if broken.is_some() {
            self.fault = None;
        }
        (carried, broken)
    }
}

fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(when: BreakPoint) -> FaultTrigger {
        FaultTrigger::new(Direction::ToServer, Some(Arc::new(ConnectionFault { when, how: BreakMode::Close })))
    }

    #[test]
    fn a_connection_breaks_after_the_last_byte_of_a_pattern_though_it_comes_in_pieces() {
        let mut watch = watch(BreakPoint::Seen(Direction::ToServer, b"APPEND".to_vec()));
        assert_eq!(watch.pass(b"a1 APP"), (6, None));
        assert_eq!(watch.pass(b"END INBOX"), (3, Some(BreakMode::Close)));
    }

    #[test]
    fn a_connection_breaks_after_a_number_of_bytes_and_the_other_way_does_not_count() {
        let mut ours = watch(BreakPoint::Bytes(Direction::ToServer, 5));
        assert_eq!(ours.pass(b"abc"), (3, None));
        assert_eq!(ours.pass(b"abc"), (2, Some(BreakMode::Close)));
        let mut others = watch(BreakPoint::Bytes(Direction::ToClient, 5));
        assert_eq!(others.pass(b"abcdefgh"), (8, None));
    }
}
