//! Asking identity providers for their keys: one thread for the process, so that no worker waits for it and no two ask
//! the same.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use tokio::sync::watch;

use super::call;
use crate::clock;
use crate::exchange::{Client, Exchange};
use crate::message::{FieldName, Fields};
use crate::policy::call::{Call, CallResponse, CallTo, Endpoint};
use crate::provider::{
    DOCUMENT_MAX, Metadata, PATIENCE, Provider, Providers, Source, Unavailable, Wanted, check_type, lifetime,
};
use crate::telemetry::Sink;
use crate::token::jwk::JwkSet;
use crate::worker::context::{Common, Worker};

/// How soon a provider of a new config is noticed at the latest; those that are wanted are told of.
const LOOK: Duration = Duration::from_secs(1);

/// Starts the thread. It ends with the process's workers.
pub fn spawn(common: Arc<Common>, stop: watch::Receiver<bool>) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name("gw-providers".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, run(common, stop));
        Ok(())
    })
}

async fn run(common: Arc<Common>, mut stop: watch::Receiver<bool>) {
    let providers = common.publisher.current().shared.get::<Providers>();
    // It asks over connections of its own, by a worker's rules, but counts in no metrics of requests.
    let worker = Worker::new(common, Sink { metrics: Arc::default(), log: None });
    tokio::task::spawn_local(Rc::clone(&worker.deadlines).run());
    loop {
        let wait = look(&worker, &providers);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = providers.wake.notified() => {}
            _ = stop.wait_for(|s| *s) => return,
        }
    }
}

/// Asks a provider on this thread and waits for what comes of it: for tools, which have no thread that asks.
///
/// # Errors
/// There is no runtime to be had.
pub fn ask_now(common: Arc<Common>, wanted: &Wanted) -> io::Result<Result<(), Unavailable>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, async {
        let worker = Worker::new(common, Sink { metrics: Arc::default(), log: None });
        tokio::task::spawn_local(Rc::clone(&worker.deadlines).run());
        if wanted.provider.begin(clock::monotonic()).is_ok() {
            round(&worker, &wanted.provider).await;
        }
        wanted.wait().await
    }))
}

/// Begins the rounds that are due; tells when to look again.
fn look(worker: &Rc<Worker>, providers: &Arc<Providers>) -> Duration {
    let now = clock::monotonic();
    let mut wait = LOOK;
    // An old config must not stay in memory for want of something to ask.
    drop(worker.snapshot());
    worker.pool.sweep(Duration::from_secs(30));
    for provider in providers.all() {
        match provider.begin(now) {
            Ok(()) => {
                let worker = Rc::clone(worker);
                let wake = Arc::clone(&providers.wake);
                tokio::task::spawn_local(async move {
                    round(&worker, &provider).await;
                    // What was asked for meanwhile is due now.
                    wake.notify_one();
                });
            }
            Err(rest) => wait = wait.min(rest),
        }
    }
    wait
}

/// One round, which ends well or not, but ends.
async fn round(worker: &Worker, provider: &Provider) {
    // A panic in reading what a provider said must not end its rounds for good.
    let guard = Unfinished(provider);
    let result = tokio::time::timeout(PATIENCE, ask(worker, provider)).await;
    std::mem::forget(guard);
    match result.unwrap_or_else(|_| Err("it took too long".to_owned())) {
        Ok(found) => provider.succeed(found.keys, found.metadata, found.digest, found.lifetime),
        Err(why) => provider.fail(why),
    }
}

struct Unfinished<'a>(&'a Provider);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.fail("its answer could not be read".to_owned());
    }
}

struct Found {
    keys: JwkSet,
    metadata: Option<Metadata>,
    digest: [u8; 32],
    lifetime: Duration,
}

async fn ask(worker: &Worker, provider: &Provider) -> Result<Found, String> {
    let first = provider.named(provider.source.url()).map_err(|e| format!("its URL is wrong: {e}"))?;
    let first = get(worker, first).await?;
    let mut digest = Context::new(&SHA256);
    let (metadata, set) = match &provider.source {
        Source::Jwks(_) => (None, first),
        Source::Discovery { issuer, .. } => {
            let metadata = Metadata::parse(&first.body, issuer)?;
            digest.update(&first.body);
            let endpoint = provider.told(&metadata.jwks_uri).map_err(|e| format!("`jwks_uri`: {e}"))?;
            let set = get(worker, endpoint).await.map_err(|e| format!("`jwks_uri`: {e}"))?;
            (Some(metadata), set)
        }
    };
    let keys = JwkSet::parse_public(&set.body)?;
    digest.update(&set.body);
    let mut sum = [0; 32];
    sum.copy_from_slice(digest.finish().as_ref());
    Ok(Found { keys, metadata, digest: sum, lifetime: lifetime(&set.fields) })
}

/// Gets a document.
async fn get(worker: &Worker, endpoint: Endpoint) -> Result<CallResponse, String> {
    let mut fields = Fields::default();
    fields.append(&FieldName::new("Accept"), "application/json, application/jwk-set+json");
    fields.append(&FieldName::new("User-Agent"), concat!("gw/", env!("CARGO_PKG_VERSION")));
    let path = endpoint.path.clone();
    let call = Call {
        to: CallTo::Endpoint(Arc::new(endpoint)),
        method: "GET".to_owned(),
        path,
        fields,
        body: Bytes::new(),
        timeout: PATIENCE,
        max_body: DOCUMENT_MAX,
    };
    let x = nobody(worker);
    let answer = call::perform(worker, &x, vec![call]).await.pop();
    let answer = answer.unwrap_or(Err(crate::policy::call::CallError::Broken)).map_err(|e| e.to_string())?;
    match answer.status {
        200 => {}
        301 | 302 | 303 | 307 | 308 => {
            return Err(format!("it redirects ({}), which is not followed", answer.status));
        }
        status => return Err(format!("it answered {status}")),
    }
    check_type(&answer.fields)?;
    Ok(answer)
}

/// The request that is not there: these calls are on nobody's behalf.
fn nobody(worker: &Worker) -> Box<Exchange> {
    let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
    worker.exchange(&Client { connection: 0, connection_requests: 0, ..Client::plain(unknown, unknown) })
}

#[cfg(test)]
mod tests;
