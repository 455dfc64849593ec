//! Once a server runs, its workers allocate nothing for what its clients do: neither for bytes, also such as
//! are not read, nor for connections that come and go. Counted by the allocator of this process, in which the
//! servers run.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Allocations of workers.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_worker() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise is the one that `alloc` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the one that `dealloc` asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Whether the calling thread is called `worker-CPU`.
fn is_worker() -> bool {
    let mut name = [0u8; 16];
    // SAFETY: the kernel writes at most 16 bytes, which is what there is (`PR_GET_NAME` of prctl(2)).
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name.starts_with(b"worker-")
}

/// How long a server may take to start, or to answer: one that does not has hung.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long to wait before the next attempt to connect.
const PAUSE: Duration = Duration::from_millis(10);

/// A server with these options, and what its clients may expect.
#[derive(Clone, Copy)]
struct Setting {
    options: &'static [&'static str],
    address: SocketAddr,
}

impl Setting {
    fn new(options: &'static [&'static str]) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        // A port that was free a moment ago.
        let address = if options.contains(&"--udp") {
            UdpSocket::bind(any).and_then(|socket| socket.local_addr())
        } else {
            TcpListener::bind(any).and_then(|listener| listener.local_addr())
        };
        Self { options, address: address.expect("bind a port") }
    }

    fn says(&self, option: &str) -> bool {
        self.options.contains(&option)
    }

    /// Bytes of the messages: small ones, which are of old and of new clients, and large ones, which for a
    /// connection are larger than a buffer.
    fn sizes(&self) -> [usize; 3] {
        [64, 1000, if self.says("--udp") { 60_000 } else { 100_000 }]
    }
}

/// A client.
enum Client {
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

impl Client {
    fn connect(setting: &Setting) -> Self {
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if let Ok(client) = Self::try_connect(setting) {
                return client;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("no server at {} with {:?}", setting.address, setting.options);
    }

    fn try_connect(setting: &Setting) -> io::Result<Self> {
        if setting.says("--udp") {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(setting.address)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            // While nobody is bound there the answer is an error (ECONNREFUSED).
            socket.send(&[0])?;
            socket.recv(&mut [0])?;
            return Ok(Self::Datagrams(socket));
        }
        let stream = TcpStream::connect(setting.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::Stream(stream))
    }

    /// Sends a message and receives as many bytes.
    fn exchange(&mut self, bytes: &[u8], answer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => {
                stream.write_all(bytes)?;
                stream.read_exact(answer)
            }
            Self::Datagrams(socket) => {
                socket.send(bytes)?;
                socket.recv(answer).map(|got| assert_eq!(got, answer.len()))
            }
        }
    }

    /// The same, with a server that may have closed the connection in a pause of this process.
    fn talk(&mut self, setting: &Setting, bytes: &[u8], answer: &mut [u8]) {
        while let Err(error) = self.exchange(bytes, answer) {
            assert!(setting.says("--idle-timeout"), "{:?}: {error}", setting.options);
            *self = Self::connect(setting);
        }
        assert!(setting.says("sink-source") || bytes == answer, "other bytes come back");
    }

    /// Waits until the server closes the connection, on which nothing goes.
    fn wait_for_end(&mut self) {
        let Self::Stream(stream) = self else { panic!("datagrams have no end") };
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    }
}

/// Old clients that talk, in small and large messages, and new ones that come and go.
fn talk(setting: &Setting, old: &mut [Client], bytes: &[u8], answer: &mut [u8]) {
    let [small, middle, large] = setting.sizes();
    for round in 0..50 {
        for client in &mut *old {
            client.talk(setting, &bytes[..small], &mut answer[..small]);
            if round % 10 == 0 {
                client.talk(setting, &bytes[..large], &mut answer[..large]);
            }
        }
        for _ in 0..10 {
            Client::connect(setting).talk(setting, &bytes[..middle], &mut answer[..middle]);
        }
    }
}

/// A client that sends until the connection is full in both directions, and then reads.
fn stall(setting: &Setting, bytes: &[u8], answer: &mut [u8]) {
    let mut stream = TcpStream::connect(setting.address).expect("connect");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("set a timeout");
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    let mut left = 0;
    while let Ok(sent) = stream.write(bytes) {
        left += sent;
    }
    while left > 0 {
        left -= stream.read(answer).expect("receive");
    }
}

/// # Panics
/// If a worker of a server with these options allocates while 520 clients talk.
fn assert_allocates_nothing(options: &'static [&'static str]) {
    let setting = Setting::new(options);
    let arguments = ["server", "--listen", &setting.address.to_string()].map(str::to_owned).into_iter();
    let arguments = arguments.chain(options.iter().map(|&option| option.to_owned()));
    let arguments: Vec<_> = arguments.map(std::ffi::OsString::from).collect();
    let at_the_start = ALLOCATIONS.load(Ordering::Relaxed);
    let server = std::thread::spawn(|| server::cli::run(arguments));
    let bytes: Vec<u8> = (0..100_000).map(|i: u32| i.to_le_bytes()[0]).collect();
    let mut answer = vec![0; bytes.len()];
    let mut old: Vec<Client> = (0..20).map(|_| Client::connect(&setting)).collect();
    // The first connections of a slot may touch what was reserved.
    talk(&setting, &mut old, &bytes, &mut answer);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    assert!(before > at_the_start, "the start allocates: it is counted");
    talk(&setting, &mut old, &bytes, &mut answer);
    if options.is_empty() {
        stall(&setting, &bytes, &mut answer);
    }
    if setting.says("--idle-timeout") {
        old.iter_mut().for_each(Client::wait_for_end);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(allocations, 0, "allocations while 520 clients talked to a server with {options:?}");
    drop(old);
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).expect("signal");
    let (ended, success) = (server.join().expect("no panic"), std::process::ExitCode::SUCCESS);
    assert_eq!(format!("{ended:?}"), format!("{success:?}"));
}

/// One after the other: a signal ends all servers of a process.
#[test]
fn nothing_is_allocated_while_clients_talk_come_and_go() {
    for options in [
        &[][..],
        &["--mode", "sink-source", "--request-size", "8", "--response-size", "8"],
        &["--accept", "single"],
        &["--idle-timeout", "500ms"],
        &["--zerocopy-threshold", "1"],
        &["--udp"],
    ] {
        assert_allocates_nothing(options);
    }
}
