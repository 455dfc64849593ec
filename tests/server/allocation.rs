//! Once a server runs, it allocates nothing for what its clients do: neither for bytes, also such as are not
//! read, nor for connections that come and go. Counted by the allocator of this process, in which the server
//! runs.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Allocations of threads that do not [look away](UNCOUNTED).
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The calling thread's allocations are not counted: it is the client, or looks after the workers.
    static UNCOUNTED: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor unwinds (the
// cell is const-initialised and has no destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !UNCOUNTED.get() {
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

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("an address").port()
}

fn connect(address: SocketAddr) -> TcpStream {
    for _ in 0..1000 {
        if let Ok(stream) = TcpStream::connect(address) {
            stream.set_nodelay(true).expect("set TCP_NODELAY");
            return stream;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no server at {address}");
}

fn echo(stream: &mut TcpStream, bytes: &[u8], answer: &mut [u8]) {
    stream.write_all(bytes).expect("send");
    stream.read_exact(&mut answer[..bytes.len()]).expect("receive");
    assert_eq!(&answer[..bytes.len()], bytes);
}

/// Old connections that talk, in small and large messages, and new ones that come and go.
fn exchange(address: SocketAddr, old: &mut [TcpStream], bytes: &[u8], answer: &mut [u8]) {
    for round in 0..50 {
        for stream in &mut *old {
            echo(stream, &bytes[..64], answer);
            if round % 10 == 0 {
                echo(stream, bytes, answer);
            }
        }
        for _ in 0..10 {
            echo(&mut connect(address), &bytes[..1000], answer);
        }
    }
}

/// A client that sends until the connection is full in both directions, and then reads.
fn stall(address: SocketAddr, bytes: &[u8], answer: &mut [u8]) {
    let mut stream = connect(address);
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("set a timeout");
    let mut left = 0;
    while let Ok(sent) = stream.write(bytes) {
        left += sent;
    }
    while left > 0 {
        left -= stream.read(answer).expect("receive");
    }
}

#[test]
fn nothing_is_allocated_while_clients_talk_come_and_go() {
    UNCOUNTED.set(true);
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let listen = address.to_string();
    let server = std::thread::spawn(move || {
        // Every second it sees to it that the workers are on their CPUs, whatever the clients do.
        UNCOUNTED.set(true);
        server::cli::run(["server", "--listen", &listen].map(std::ffi::OsString::from))
    });
    let bytes: Vec<u8> = (0..100_000).map(|i: u32| i.to_le_bytes()[0]).collect();
    let mut answer = vec![0; bytes.len()];
    let mut old: Vec<TcpStream> = (0..20).map(|_| connect(address)).collect();
    // The first connections of a slot may touch what was reserved.
    exchange(address, &mut old, &bytes, &mut answer);
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > 0, "the start allocates: it is counted");
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    exchange(address, &mut old, &bytes, &mut answer);
    stall(address, &bytes, &mut answer);
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "allocations while 521 connections talked");
    drop(old);
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).expect("signal");
    assert_eq!(
        format!("{:?}", server.join().expect("no panic")),
        format!("{:?}", std::process::ExitCode::SUCCESS)
    );
}
