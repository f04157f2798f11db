//! An HTTP/2 server without TLS that answers frame by frame, as a function says.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::h2::{Frame, PING, SETTINGS};

/// A part of what is sent.
pub enum Part {
    Frame(Frame),
    Pause(Duration),
    /// The connection ends here.
    Close,
}

/// What is sent upon a frame of connection number so-and-so, from 0.
type Script = dyn Fn(usize, &Frame) -> Vec<Part> + Send + Sync;

/// A running server. SETTINGS and PINGs it answers by itself.
pub struct H2Upstream {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Frame>>>,
}

impl H2Upstream {
    /// Starts one on a free port, which begins each connection with these `settings`: identifiers and values.
    pub fn start(
        settings: &[(u16, u32)],
        script: impl Fn(usize, &Frame) -> Vec<Part> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let addr = listener.local_addr().expect("it is bound");
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, v)| [&id.to_be_bytes()[..], &v.to_be_bytes()].concat()).collect();
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::<Mutex<Vec<Frame>>>::default();
        let script: Arc<Script> = Arc::new(script);
        let (count, all) = (Arc::clone(&connections), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let n = count.fetch_add(1, Ordering::SeqCst);
                let (script, seen, payload) = (Arc::clone(&script), Arc::clone(&all), payload.clone());
                std::thread::spawn(move || serve(stream, n, payload, &*script, &seen));
            }
        });
        Self { addr, connections, seen }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// All frames so far that the script was asked about.
    pub fn seen(&self) -> Vec<Frame> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(mut stream: TcpStream, n: usize, settings: Vec<u8>, script: &Script, seen: &Mutex<Vec<Frame>>) {
    let mut preface = [0; 24];
    let _ = stream.set_nodelay(true);
    if stream.read_exact(&mut preface).is_err()
        || stream.write_all(&Frame::new(SETTINGS, 0, 0, settings).bytes()).is_err()
    {
        return;
    }
    while let Some(frame) = Frame::read(&mut stream) {
        if matches!(frame.kind, SETTINGS | PING) {
            if frame.flags & 1 == 0 {
                let answer = if frame.kind == PING { frame.payload } else { Vec::new() };
                let _ = stream.write_all(&Frame::new(frame.kind, 1, 0, answer).bytes());
            }
            continue;
        }
        let parts = script(n, &frame);
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
        for part in parts {
            match part {
                Part::Frame(frame) => {
                    if stream.write_all(&frame.bytes()).is_err() {
                        return;
                    }
                }
                Part::Pause(time) => std::thread::sleep(time),
                Part::Close => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }
}
