//! A small upstream that answers with what it received. `gw echo` runs it, and so can anything that needs an upstream.
//!
//! It runs on a thread of its own, speaks HTTP/1.1 and HTTP/2 in clear text (told apart by the first bytes), and can be
//! asked for slow, failing or large answers, for all requests or for one ([`knobs`]), or told what to answer ([`canned`]).

mod answer;
mod body;
mod canned;
mod knobs;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::LocalSet;

pub use canned::Canned;
pub use knobs::{Knobs, parse_body_size, parse_delay, parse_status};

/// A running echo server. Dropping it stops it.
#[derive(Debug)]
pub struct Echo {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// How long requests may take to finish once the server shall stop.
const DRAIN: Duration = Duration::from_secs(10);
/// A peer that connects and says nothing is let go after this time.
const SILENCE: Duration = Duration::from_secs(60);
/// Pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What to answer.
#[derive(Debug, Default)]
pub struct Answers {
    /// Hold for requests that ask for nothing else.
    pub defaults: Knobs,
    /// Given instead of descriptions of the requests, where there are any.
    pub canned: Canned,
}

/// Serves `listener` on a thread of its own.
pub fn spawn(listener: TcpListener, answers: Answers) -> io::Result<Echo> {
    let addr = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let (stop, stopped) = watch::channel(false);
    let work = move || LocalSet::new().block_on(&runtime, serve(listener, answers, stopped));
    let thread = std::thread::Builder::new().name("echo".to_owned()).spawn(work)?;
    Ok(Echo { addr, stop, thread: Some(thread) })
}

impl Echo {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Finishes what is under way and ends.
    pub fn stop(self) {}
}

impl Drop for Echo {
    fn drop(&mut self) {
        // A server that has ended by itself needs no telling.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: tokio::net::TcpListener, answers: Answers, mut stopped: watch::Receiver<bool>) {
    let answers = Rc::new(answers);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            a = listener.accept() => a,
            _ = stopped.changed() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn_local(connection(stream, peer, Rc::clone(&answers), stopped.clone()));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN, finished).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    answers: Rc<Answers>,
    mut stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let http2 = tokio::select! {
        told = tokio::time::timeout(SILENCE, speaks_http2(&stream)) => match told {
            Ok(Ok(http2)) => http2,
            Ok(Err(_)) | Err(_) => return,
        },
        _ = stopped.changed() => return,
    };
    let service = service_fn(move |request| {
        let answers = Rc::clone(&answers);
        async move { Ok::<_, Infallible>(answer::answer(request, peer, &answers).await) }
    });
    let io = TokioIo::new(stream);
    // What goes wrong on a connection concerns its client alone, who notices.
    if http2 {
        let mut serving = std::pin::pin!(
            hyper::server::conn::http2::Builder::new(OnThisThread)
                .timer(TokioTimer::new())
                .serve_connection(io, service)
        );
        tokio::select! {
            _ = serving.as_mut() => return,
            _ = stopped.changed() => serving.as_mut().graceful_shutdown(),
        }
        let _ = serving.await;
    } else {
        let mut serving = std::pin::pin!(
            hyper::server::conn::http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service)
        );
        tokio::select! {
            _ = serving.as_mut() => return,
            _ = stopped.changed() => serving.as_mut().graceful_shutdown(),
        }
        let _ = serving.await;
    }
}

/// Whether the client begins as an HTTP/2 client that knows what it speaks to. Takes nothing off the stream.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut seen = [0; PREFACE.len()];
    loop {
        let n = stream.peek(&mut seen).await?;
        if n == 0 || seen[..n] != PREFACE[..n] {
            return Ok(false);
        }
        if n == PREFACE.len() {
            return Ok(true);
        }
        // The stream stays readable, so that waiting for it would not wait.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Runs the tasks of an HTTP/2 connection where the connection runs.
#[derive(Clone)]
struct OnThisThread;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

#[cfg(test)]
mod tests;
