//! A TCP proxy that misbehaves on demand, to stand between a gateway and a server.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// What becomes of what clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Passed on after so many ms.
    Slow(u64),
    /// Answered with bytes that mean nothing.
    Garbage,
    /// Each Redis command is answered with an error.
    Errors,
    /// Each Redis command is answered with an integer.
    WrongType,
}

/// The proxy; it lives as long as the test's process.
pub struct TcpProxy {
    port: u16,
    mode: Arc<(AtomicU8, AtomicU64)>,
}

impl TcpProxy {
    /// Starts one on a free port, to this port.
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let mode = Arc::new((AtomicU8::new(0), AtomicU64::new(0)));
        let shared = Arc::clone(&mode);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mode = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
                    let (mut back, mut to_client) = match (server.try_clone(), client.try_clone()) {
                        (Ok(server), Ok(client)) => (server, client),
                        _ => return,
                    };
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut back, &mut to_client);
                        let _ = to_client.shutdown(Shutdown::Both);
                    });
                    serve(client, server, &mode);
                });
            }
        });
        Self { port, mode }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on, on connections old and new.
    pub fn set(&self, mode: Mode) {
        let (code, ms) = match mode {
            Mode::Pass => (0, 0),
            Mode::Slow(ms) => (1, ms),
            Mode::Garbage => (2, 0),
            Mode::Errors => (3, 0),
            Mode::WrongType => (4, 0),
        };
        self.mode.1.store(ms, Ordering::SeqCst);
        self.mode.0.store(code, Ordering::SeqCst);
    }
}

fn serve(mut client: TcpStream, mut server: TcpStream, mode: &(AtomicU8, AtomicU64)) {
    let mut buffer = [0; 16_384];
    loop {
        let n = match client.read(&mut buffer) {
            Ok(n) if n > 0 => n,
            _ => break,
        };
        let bytes = &buffer[..n];
        // Commands begin with a star at the start of a line.
        let commands = bytes.split(|b| *b == b'\n').filter(|line| line.first() == Some(&b'*')).count();
        let done = match mode.0.load(Ordering::SeqCst) {
            2 => client.write_all(b"\x00\xff no redis at all\r\n\r\n"),
            3 => client.write_all("-ERR out of order\r\n".repeat(commands).as_bytes()),
            4 => client.write_all(":7\r\n".repeat(commands).as_bytes()),
            slow => {
                if slow == 1 {
                    std::thread::sleep(Duration::from_millis(mode.1.load(Ordering::SeqCst)));
                }
                server.write_all(bytes)
            }
        };
        if done.is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}
