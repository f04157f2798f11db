//! A worker's thread: takes connections, serves them, and ends when it has drained.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::context::{Common, Worker};
use super::deadline::FRESH;
use super::h1::{self, End};
use super::h2;
use super::io::Io;
use super::listen::{Accepted, Listener, Slot, Stream, accept};
use super::proxy_protocol::{self, Header};
use crate::acme;
use crate::exchange::Client;
use crate::http1::Buffer;
use crate::overload;
use crate::telemetry::Sink;
use crate::tls::peer::PeerCertificate;

/// What a worker is started with.
pub struct Start {
    pub common: Arc<Common>,
    pub sink: Sink,
    pub incoming: UnboundedReceiver<Accepted>,
    pub slot: Slot,
    /// Listeners to accept on itself: all of them where there is only one worker.
    pub own: Vec<Listener>,
    /// Turns true when the process is to end.
    pub stop: watch::Receiver<bool>,
}

/// Runs a worker until it has drained.
pub fn run(start: Start) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, serve(start));
    drop(local);
    // A look-up of Redis's name may hang in the system's resolver for half a minute; nobody waits for its answer now.
    runtime.shutdown_background();
    Ok(())
}

async fn serve(start: Start) {
    let Start { common, sink, mut incoming, slot, own, mut stop } = start;
    let worker = Worker::new(common, sink);
    worker.effects.prepare(&worker.snapshot());
    let duty = Rc::clone(&worker);
    keep_running(move || Rc::clone(&duty.deadlines).run());
    let duty = Rc::clone(&worker);
    keep_running(move || housekeeping(Rc::clone(&duty)));
    for listener in own {
        let (slots, stop) = (vec![slot.clone()], stop.clone());
        tokio::task::spawn_local(accept(listener, slots, stop));
    }
    // The channel ends with its last sender, the acceptor's.
    let Slot { load, send } = slot;
    drop(send);
    loop {
        tokio::select! {
            accepted = incoming.recv() => match accepted {
                Some(accepted) => begin(&worker, &load, accepted),
                None => break,
            },
            _ = stop.wait_for(|s| *s) => break,
        }
    }
    drain(&worker, &load, incoming).await;
}

/// Runs a duty for the worker's life. One that panics begins again: without deadlines a worker would fill up with
/// clients that never speak.
fn keep_running<F: Future<Output = ()> + 'static>(duty: impl Fn() -> F + 'static) {
    tokio::task::spawn_local(async move {
        while tokio::task::spawn_local(duty()).await.is_err_and(|e| e.is_panic()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

/// Serves a connection in a task of its own, which is all that a panic in it ends.
fn begin(worker: &Rc<Worker>, load: &Arc<AtomicUsize>, accepted: Accepted) {
    let counted = Counted { worker: Rc::clone(worker), load: Arc::clone(load) };
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let _counted = counted;
        connection(worker, accepted).await;
    });
}

/// Counts a connection out of its worker's load.
struct Counted {
    worker: Rc<Worker>,
    load: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.load.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.worker.idle.notify_waiters();
        }
    }
}

/// Serves what was accepted before the end, tells every connection, and waits for them.
async fn drain(worker: &Rc<Worker>, load: &Arc<AtomicUsize>, mut incoming: UnboundedReceiver<Accepted>) {
    worker.draining.set(true);
    worker.deadlines.end_idle();
    worker.drain.notify_waiters();
    let patience = worker.snapshot().gateway.drain;
    let idle = async {
        while let Some(accepted) = incoming.recv().await {
            begin(worker, load, accepted);
        }
        while load.load(Ordering::Relaxed) > 0 {
            worker.idle.notified().await;
        }
    };
    let _ = tokio::time::timeout(patience, idle).await;
}

/// Regular small duties of a worker.
async fn housekeeping(worker: Rc<Worker>) {
    let every = if worker.sink.log.is_some() { Duration::from_millis(200) } else { Duration::from_secs(1) };
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Some(log) = &worker.sink.log {
            log.flush();
        }
        let idle = worker.snapshot().gateway.timeouts.upstream_idle;
        worker.pool.sweep(idle);
        worker.h2.sweep(idle);
        if overload::is_tight() {
            overload::give_back();
        }
    }
}

/// One client connection.
async fn connection(worker: Rc<Worker>, accepted: Accepted) {
    let Accepted { stream, mut peer, mut local, tls, proxied } = accepted;
    let local_socket = matches!(stream, Stream::Unix(_));
    let Ok(mut io) = stream.into_io() else { return };
    let Some(mut admitted) = worker.admit() else { return };
    if proxied {
        match Box::pin(proxy_header(&worker, &mut io, peer, local_socket)).await {
            Some(Header::Proxied { source, destination }) => (peer, local) = (source, destination),
            Some(Header::Own) => {}
            None => {
                worker.common.proxy_refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
    // Everyone on this machine has the same address.
    if (!local_socket || proxied) && !admitted.from_ip(peer.ip()) {
        return;
    }
    let mut client = Client {
        peer,
        peer_text: Rc::from(peer.ip().to_canonical().to_string()),
        ip: peer.ip(),
        trusted: false,
        tls,
        sni: None,
        certificate: None,
        local,
        connection: worker.common.next_connection.fetch_add(1, Ordering::Relaxed),
        connection_requests: 0,
    };
    let stream = match io {
        Io::Tcp(stream) if tls => stream,
        io => return finish(h1::serve(Rc::clone(&worker), io, client.clone()).await, worker, client).await,
    };
    let snapshot = worker.snapshot();
    let Some(config) = snapshot.server_tls.clone() else { return };
    let patience = snapshot.gateway.timeouts.tls_handshake;
    let challenges = snapshot.acme.as_ref().and_then(|a| a.challenge_tls.clone());
    drop(snapshot);
    let accepted = match challenges {
        None => {
            let accept = tokio_rustls::TlsAcceptor::from(config).accept(stream);
            within(&worker, patience, Box::pin(accept)).await
        }
        Some(challenges) => {
            let accept = Box::pin(challenge_or_client(stream, config, challenges));
            within(&worker, patience, accept).await.and_then(Result::transpose)
        }
    };
    let Some(Ok(stream)) = accepted else { return };
    let (_, session) = stream.get_ref();
    client.sni = session.server_name().map(|n| Rc::from(n.to_ascii_lowercase()));
    if let Some(chain) = session.peer_certificates() {
        // A certificate that rustls verified and that cannot be read proves nothing.
        let Some(certificate) = PeerCertificate::of(chain) else { return };
        client.certificate = Some(Rc::new(certificate));
    }
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    let io = Io::Server(Box::new(stream));
    match is_h2 {
        // Boxed, as below: a connection that speaks HTTP/1 holds none of it.
        true => Box::pin(h2::serve(worker, io, Buffer::default(), client)).await,
        false => finish(h1::serve(Rc::clone(&worker), io, client.clone()).await, worker, client).await,
    }
}

/// Accepts a client; `None` for who checks a challenge of ours, to whom the handshake has said everything.
async fn challenge_or_client(
    stream: tokio::net::TcpStream,
    config: Arc<rustls::ServerConfig>,
    challenges: Arc<rustls::ServerConfig>,
) -> std::io::Result<Option<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>> {
    let start = tokio_rustls::LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    if !acme::state::is_check(&start.client_hello()) {
        return start.into_stream(config).await.map(Some);
    }
    let mut stream = start.into_stream(challenges).await?;
    stream.shutdown().await?;
    Ok(None)
}

/// What a balancer says of the connection; none if it says nothing that can be understood, not in time, or if nobody
/// has said that it is to be believed.
async fn proxy_header(worker: &Worker, io: &mut Io, peer: SocketAddr, local_socket: bool) -> Option<Header> {
    let snapshot = worker.snapshot();
    let ip = peer.ip().to_canonical();
    // Who may open a Unix socket is a matter of its file.
    if !local_socket && !snapshot.gateway.trusted_ips.iter().any(|net| net.contains(&ip)) {
        return None;
    }
    let patience = snapshot.gateway.timeouts.header;
    drop(snapshot);
    within(worker, patience, Box::pin(proxy_protocol::read(io))).await?.ok()
}

/// Waits for what must come before a connection's first request, within its time. Draining shortens that, as it does
/// for the request itself.
async fn within<F: Future + Unpin>(worker: &Worker, patience: Duration, mut wait: F) -> Option<F::Output> {
    let watch = worker.deadlines.watch();
    match worker.draining.get() {
        true => watch.arm(patience.min(FRESH)),
        false => watch.arm_fresh(patience),
    }
    std::future::poll_fn(|cx| match Pin::new(&mut wait).poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if watch.poll_over(cx) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

async fn finish(end: End, worker: Rc<Worker>, client: Client) {
    if let End::H2(io, before) = end {
        Box::pin(h2::serve(worker, io, before, client)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_panic_ends_its_task_only_and_a_duty_begins_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let local = tokio::task::LocalSet::new();
        let before = crate::panics::count();
        crate::panics::install();
        let (served, begun) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (more, again) = (Rc::clone(&served), Rc::clone(&begun));
        local.block_on(&runtime, async move {
            for n in 0..4 {
                let served = Rc::clone(&more);
                tokio::task::spawn_local(async move {
                    assert_ne!(n, 1, "a request's secret");
                    tokio::task::yield_now().await;
                    served.set(served.get() + 1);
                });
            }
            keep_running(move || {
                let n = again.get() + 1;
                again.set(n);
                async move { assert_ne!(n, 1, "the first time fails") }
            });
            tokio::time::sleep(Duration::from_millis(400)).await;
        });
        drop(std::panic::take_hook());
        assert_eq!((served.get(), begun.get()), (3, 2));
        assert!(crate::panics::count() >= before + 2);
    }
}
