//! Identity providers: the key sets and metadata that they publish, fetched off the request path and kept over reloads.
//!
//! Here is what is known and when it is to be asked for again; [`crate::effect::provider`] does the asking, in one
//! place for all workers. What was fetched stays in force while the provider is down, up to a bound.

mod documents;
mod schedule;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

pub use documents::{Metadata, check_type, lifetime};
use schedule::Schedule;

use crate::clock;
use crate::policy::call::{Endpoint, Transport, Url};
use crate::token::jwk::JwkSet;

/// Longest document that is taken, in bytes.
pub const DOCUMENT_MAX: usize = 512 * 1024;
/// How long one round may take.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a request waits for keys: long enough to hear of a round that took too long.
const WAIT_MAX: Duration = Duration::from_secs(6);
/// How long keys stay in force that cannot be refreshed.
pub const STALE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most requests that wait for one provider at the same time; more are answered as if it did not answer.
const WAITING_MAX: u64 = 10_000;

/// Where a provider's keys are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The key set itself.
    Jwks(String),
    /// The provider's metadata (OpenID Connect Discovery, RFC 8414), which says where the keys are.
    Discovery {
        /// Of the metadata.
        url: String,
        /// What the metadata must say its issuer is.
        issuer: String,
    },
}

impl Source {
    /// The metadata of an issuer, at the place that OpenID Connect gives it.
    pub fn discovery(issuer: &str) -> Self {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        Self::Discovery { url, issuer: issuer.to_owned() }
    }

    /// The first URL to ask, which the config names.
    pub fn url(&self) -> &str {
        match self {
            Self::Jwks(url) | Self::Discovery { url, .. } => url,
        }
    }
}

/// What a provider has published, as last fetched.
#[derive(Debug)]
pub struct Published {
    pub keys: JwkSet,
    /// Where the source is one.
    pub metadata: Option<Metadata>,
    /// Of the documents' bytes.
    digest: [u8; 32],
    fetched: Instant,
}

/// Why keys are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// They were asked for, and did not come in time or could not be used.
    Failed,
    /// Too many requests are waiting already.
    Busy,
}

/// One provider, shared by all policies and workers that name it alike.
pub struct Provider {
    pub source: Source,
    transport: Transport,
    current: ArcSwapOption<Published>,
    /// Counts up when the keys change; 0 while there have been none.
    generation: AtomicU64,
    schedule: Mutex<Schedule>,
    /// Told after each round of asking.
    changed: Notify,
    waiting: AtomicU64,
    pub counts: Counts,
    wake: Arc<Notify>,
}

/// What happened so far, for metrics.
#[derive(Default)]
pub struct Counts {
    pub succeeded: AtomicU64,
    pub failed: AtomicU64,
    /// Rounds that a token with an unknown key brought about.
    pub asked: AtomicU64,
    /// Requests that could not be judged for want of keys.
    pub unavailable: AtomicU64,
}

/// The keys that a request waits for.
#[derive(Clone)]
pub struct Wanted {
    pub provider: Arc<Provider>,
    /// The round after which there is nothing more to wait for.
    round: u64,
    need: Need,
}

/// What ends a wait before its round.
#[derive(Clone, Debug)]
enum Need {
    Any,
    Key(String),
    /// Nothing: only a round that began after the token came can tell.
    Round,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted").field("source", &self.provider.source).finish_non_exhaustive()
    }
}

impl Provider {
    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was published, if anything is known that is not too old.
    pub fn published(&self) -> Option<Arc<Published>> {
        self.current.load_full()
    }

    /// Counts up when the keys change.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Has the provider asked, because there are no keys (yet).
    pub fn want_any(self: &Arc<Self>) -> Wanted {
        let round = self.lock().next_round(clock::monotonic());
        Wanted { provider: Arc::clone(self), round, need: Need::Any }
    }

    /// Has the provider asked again, because the set lacks the key of a token: the one of this name, if it gives one.
    /// `None` if that was done too often lately: whoever sends such tokens must not decide how often a provider is
    /// asked.
    pub fn want_other(self: &Arc<Self>, kid: Option<&str>) -> Option<Wanted> {
        let need = kid.map_or(Need::Round, |kid| Need::Key(kid.to_owned()));
        let wanted = |round| Wanted { provider: Arc::clone(self), round, need };
        let mut schedule = self.lock();
        // It may have come since.
        if kid.is_some_and(|kid| self.names(kid)) {
            return Some(wanted(0));
        }
        let round = schedule.ask(clock::monotonic())?;
        drop(schedule);
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
        Some(wanted(round))
    }

    fn names(&self, kid: &str) -> bool {
        self.current.load().as_ref().is_some_and(|p| p.keys.names(kid))
    }

    /// Whether it is time to ask; then a round has begun, which must be ended by [`Provider::succeed`] or
    /// [`Provider::fail`]. Else when to look again.
    pub fn begin(&self, now: Instant) -> Result<(), Duration> {
        self.lock().begin(now)
    }

    /// Ends a round with what was published. It is to be refreshed within `lifetime`.
    pub fn succeed(&self, keys: JwkSet, metadata: Option<Metadata>, digest: [u8; 32], lifetime: Duration) {
        let now = clock::monotonic();
        let mut schedule = self.lock();
        let changed = self.current.load().as_ref().is_none_or(|p| p.digest != digest);
        self.current.store(Some(Arc::new(Published { keys, metadata, digest, fetched: now })));
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
        self.counts.succeeded.fetch_add(1, Ordering::Relaxed);
        schedule.succeeded(now, lifetime, changed);
        drop(schedule);
        self.changed.notify_waiters();
    }

    /// Ends a round that came to nothing. `why` must hold no secret.
    pub fn fail(&self, why: String) {
        let now = clock::monotonic();
        let mut schedule = self.lock();
        let too_old = |p: &Arc<Published>| now.duration_since(p.fetched) > STALE_MAX;
        if self.current.load().as_ref().is_some_and(too_old) {
            self.current.store(None);
            self.generation.fetch_add(1, Ordering::Release);
        }
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
        schedule.failed(now, why);
        drop(schedule);
        self.changed.notify_waiters();
    }

    /// Why the last round failed, if it did.
    pub fn last_error(&self) -> Option<String> {
        self.lock().last_error.clone()
    }

    /// How old what is known is.
    pub fn age(&self) -> Option<Duration> {
        self.current.load().as_ref().map(|p| p.fetched.elapsed())
    }

    /// The endpoint at a URL of the config.
    pub fn named(&self, url: &str) -> Result<Endpoint, &'static str> {
        self.transport.endpoint(url)
    }

    /// The endpoint at a URL of the provider's metadata. It must be as safe as the metadata's own, and may be at a
    /// private address only on the host and port that the config itself names.
    pub fn told(&self, url: &str) -> Result<Endpoint, &'static str> {
        let own = Url::parse(self.source.url())?;
        let told = Url::parse(url)?;
        if own.tls && !told.tls {
            return Err("it leads from https to http");
        }
        let mut endpoint = self.transport.endpoint(url)?;
        endpoint.public_only = !(told.host.eq_ignore_ascii_case(own.host) && told.port == own.port);
        Ok(endpoint)
    }
}

impl Wanted {
    /// Waits until the provider has been asked and has answered, or what is needed has come for any reason.
    pub async fn wait(&self) -> Result<(), Unavailable> {
        let provider = &self.provider;
        let waiting = Waiting(&provider.waiting);
        if provider.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(Unavailable::Busy);
        }
        let done = async {
            loop {
                let changed = provider.changed.notified();
                let has_come = match &self.need {
                    Need::Any => provider.current.load().is_some(),
                    Need::Key(kid) => provider.names(kid),
                    Need::Round => false,
                };
                if has_come {
                    return Ok(());
                }
                if let Some(good) = provider.lock().is_over(self.round) {
                    return if good { Ok(()) } else { Err(Unavailable::Failed) };
                }
                changed.await;
            }
        };
        let result = tokio::time::timeout(WAIT_MAX, done).await.unwrap_or(Err(Unavailable::Failed));
        drop(waiting);
        result
    }
}

/// Counts a waiting request out, however the wait ends.
struct Waiting<'a>(&'a AtomicU64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All providers in use.
#[derive(Default)]
pub struct Providers {
    all: Mutex<Vec<Weak<Provider>>>,
    /// Told when a provider is to be asked before its time, or is new.
    pub wake: Arc<Notify>,
}

impl Providers {
    /// The provider at this source, made only if no config in memory has it already.
    pub fn get(&self, source: Source, transport: Transport) -> Arc<Provider> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|p| p.strong_count() > 0);
        let same = |p: &Arc<Provider>| p.source == source && p.transport == transport;
        if let Some(known) = all.iter().filter_map(Weak::upgrade).find(same) {
            return known;
        }
        let provider = Arc::new(Provider {
            source,
            transport,
            current: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            schedule: Mutex::new(Schedule::new(clock::monotonic())),
            changed: Notify::new(),
            waiting: AtomicU64::new(0),
            counts: Counts::default(),
            wake: Arc::clone(&self.wake),
        });
        all.push(Arc::downgrade(&provider));
        self.wake.notify_one();
        provider
    }

    /// Those in use.
    pub fn all(&self) -> Vec<Arc<Provider>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}
