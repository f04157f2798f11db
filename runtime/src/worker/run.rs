//! A worker's thread: takes connections, serves them, and ends when it has drained.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::context::{Common, Worker};
use super::h1::{self, End};
use super::h2;
use super::io::Io;
use super::listen::{Accepted, Listener, Slot, accept};
use crate::exchange::Client;
use crate::http1::Buffer;
use crate::telemetry::Sink;

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
    Ok(())
}

async fn serve(start: Start) {
    let Start { common, sink, mut incoming, slot, own, mut stop } = start;
    let worker = Worker::new(common, sink);
    tokio::task::spawn_local(Rc::clone(&worker.deadlines).run());
    tokio::task::spawn_local(housekeeping(Rc::clone(&worker)));
    let accepting: Vec<_> =
        own.into_iter().map(|l| tokio::task::spawn_local(accept(l, vec![slot.clone()]))).collect();
    loop {
        tokio::select! {
            accepted = incoming.recv() => match accepted {
                Some(accepted) => {
                    let (worker, slot) = (Rc::clone(&worker), slot.clone());
                    tokio::task::spawn_local(async move {
                        let _counted = Counted(slot);
                        connection(worker, accepted).await;
                    });
                }
                None => break,
            },
            _ = stop.wait_for(|s| *s) => break,
        }
    }
    for task in accepting {
        task.abort();
    }
    drain(&worker, incoming).await;
}

/// Counts a connection out of its worker's load.
struct Counted(Slot);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves what was accepted before the end, tells every connection, and waits for them.
async fn drain(worker: &Rc<Worker>, mut incoming: UnboundedReceiver<Accepted>) {
    worker.draining.set(true);
    while let Ok(accepted) = incoming.try_recv() {
        tokio::task::spawn_local(connection(Rc::clone(worker), accepted));
    }
    tokio::task::yield_now().await;
    worker.deadlines.end_idle();
    worker.drain.notify_waiters();
    let patience = worker.snapshot().gateway.drain;
    let idle = async {
        while worker.open.get() > 0 {
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
    }
}

/// One client connection.
async fn connection(worker: Rc<Worker>, accepted: Accepted) {
    let Ok(stream) = tokio::net::TcpStream::from_std(accepted.stream) else { return };
    let Some(_admitted) = worker.admit(accepted.peer.ip()) else { return };
    let mut client = Client {
        peer: accepted.peer,
        peer_text: Rc::from(accepted.peer.ip().to_canonical().to_string()),
        ip: accepted.peer.ip(),
        trusted: false,
        tls: accepted.tls,
        sni: None,
        local: accepted.local,
        connection: worker.common.next_connection.fetch_add(1, Ordering::Relaxed),
        connection_requests: 0,
    };
    if !accepted.tls {
        return finish(h1::serve(Rc::clone(&worker), Io::Tcp(stream), client.clone()).await, worker, client)
            .await;
    }
    let snapshot = worker.snapshot();
    let Some(config) = snapshot.server_tls.clone() else { return };
    let patience = snapshot.gateway.timeouts.tls_handshake;
    drop(snapshot);
    let handshake = Box::pin(tokio_rustls::TlsAcceptor::from(config).accept(stream));
    let Ok(Ok(stream)) = tokio::time::timeout(patience, handshake).await else { return };
    let (_, session) = stream.get_ref();
    client.sni = session.server_name().map(|n| Rc::from(n.to_ascii_lowercase()));
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    let io = Io::Server(Box::new(stream));
    match is_h2 {
        true => h2::serve(worker, io, Buffer::default(), client).await,
        false => finish(h1::serve(Rc::clone(&worker), io, client.clone()).await, worker, client).await,
    }
}

async fn finish(end: End, worker: Rc<Worker>, client: Client) {
    if let End::H2(io, before) = end {
        Box::pin(h2::serve(worker, io, before, client)).await;
    }
}
