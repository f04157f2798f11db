//! `rate-limiting`: so many requests a period.

mod config;
mod fields;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::limit_by::LimitBy;
use super::limit_notes::{Verdict, note};
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::limit::headers::{self, Standing};
use crate::limit::local::{Announced, Part, SyncStore};
use crate::limit::{self, Ask, Key, LeaseStore, LocalStore, Outcome, RedisSettings, Rule, Rules, StoreError};
use crate::message::{FieldName, names};
use crate::model::schema::Record;
use fields::PLUGIN;

/// See the module.
pub struct RateLimiting {
    /// At least one; those that refuse nothing are last.
    groups: Vec<Group>,
    store: Store,
    local: Arc<LocalStore>,
    on_error: OnError,
    show: bool,
    ietf: bool,
    problem: bool,
    warn_at: Option<f64>,
    /// Most that may wait for their turn at once, and how many do; none where nobody may.
    queue: Option<(usize, Arc<AtomicUsize>)>,
    /// None where the config names no error status, for which Kong answers 500.
    error_code: Option<u16>,
    error_message: String,
    /// The consumer group that the plugin belongs to.
    plan: Option<String>,
}

/// Limits with one key and one weight: they are decided on in one step.
pub(super) struct Group {
    rules: Arc<Rules>,
    /// The same for requests that may wait for their turn.
    queued: Option<Arc<Rules>>,
    by: LimitBy,
    scope: String,
    weight: Weight,
    dry_run: bool,
}

/// How many requests a request counts as.
#[derive(Clone, Debug, PartialEq)]
enum Weight {
    Constant(u32),
    /// What this request header says, else so many.
    Header(FieldName, u32),
    /// What this response header says, else so many.
    Cost(FieldName, u32),
}

enum Store {
    Local,
    Redis {
        settings: Arc<RedisSettings>,
        sync: Option<Arc<SyncStore>>,
        /// What is known without asking; only where one step decides.
        lease: Option<Arc<LeaseStore>>,
        /// For what responses cost: it is charged while nobody waits.
        costs: Arc<SyncStore>,
    },
}

/// What happens when Redis gives no answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnError {
    Allow,
    /// Kong's 500.
    Fail,
    Deny,
    Local,
}

/// A place among those who may wait; given back when the request has had its turn or has gone.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What the response is to be charged under, by group.
struct Owed {
    keys: Vec<(usize, Key)>,
    _announced: Option<Announced>,
}

impl Policy for RateLimiting {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let groups = config::groups(config, cx);
        let store = config::store(config, groups.as_deref(), cx);
        let error_code = config::error_code(config, cx);
        let waiters = config.int("delay_waiters").and_then(|n| usize::try_from(n).ok()).unwrap_or(100);
        Some(Self {
            groups: groups?,
            store: store?,
            local: cx.shared.get::<LocalStore>(),
            on_error: config::on_error(config),
            show: !config.bool("hide_client_headers"),
            ietf: config.bool("ietf_headers"),
            problem: config.bool("problem_details"),
            warn_at: config.num("warn_at"),
            queue: config.get("delay").map(|_| (waiters, Arc::default())),
            error_code,
            error_message: config.str("error_message").unwrap_or_default().to_owned(),
            plan: config::plan(cx),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if let Some((most, waiting)) = &self.queue {
            let place = Place(Arc::clone(waiting));
            if waiting.fetch_add(1, Ordering::AcqRel) < *most {
                x.keep(place);
            }
        }
        let waits = x.kept::<Place>().is_some();
        self.remember(x);
        let Store::Redis { .. } = &self.store else { return self.decide_here(x) };
        if let Some(outcome) = self.decide_unasked(x) {
            return self.conclude(x, std::slice::from_ref(&outcome));
        }
        let mut asks: Vec<Ask> = self.groups.iter().filter_map(|group| self.ask(group, waits, x)).collect();
        match (asks.len(), asks.pop()) {
            (1, Some(ask)) => Flow::Await(Effect::Limit(Box::new(ask.request))),
            (_, Some(last)) => {
                asks.push(last);
                Flow::Await(Effect::Limits(asks))
            }
            (_, None) => Flow::Next,
        }
    }

    fn redis(&self) -> Option<&Arc<RedisSettings>> {
        match &self.store {
            Store::Local => None,
            Store::Redis { settings, .. } => Some(settings),
        }
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        let error = match answer {
            Answer::Limit(Ok(outcome)) => return self.conclude(x, std::slice::from_ref(&outcome)),
            Answer::Limits(Ok(outcomes)) => return self.conclude(x, &outcomes),
            Answer::Slept => {
                x.slots.retain(|s| !s.is::<Place>());
                return Flow::Next;
            }
            Answer::Limit(Err(error)) | Answer::Limits(Err(error)) => error,
            _ => return Flow::Next,
        };
        // For the log: the limit was not applied as configured.
        x.keep::<StoreError>(error);
        note(x, "store", Verdict::Unchecked, 0);
        if self.on_error == OnError::Local {
            return self.decide_here(x);
        }
        x.slots.retain(|s| !s.is::<Place>() && !s.is::<Owed>());
        match self.on_error {
            OnError::Allow | OnError::Local => Flow::Next,
            OnError::Fail => Flow::Reply(unexpected()),
            OnError::Deny => {
                let message = "The rate limit cannot be checked at the moment";
                let reply = Reply::error(&x.request, x.request_id, 503, message);
                Flow::Reply(reply.field(names::RETRY_AFTER, "1"))
            }
        }
    }

    fn response(&self, x: &mut Exchange) {
        if self.groups.iter().all(|g| !matches!(g.weight, Weight::Cost(..))) {
            return;
        }
        let at = x.slots.iter().position(|s| s.is::<Owed>());
        let owed = at.and_then(|at| x.slots.swap_remove(at).downcast::<Owed>().ok());
        if let Some(owed) = owed.filter(|_| !x.local_response) {
            for (group, key) in &owed.keys {
                let Weight::Cost(header, otherwise) = &self.groups[*group].weight else { continue };
                let stated = x.response.fields.text(header).and_then(amount);
                let cost = stated.unwrap_or(*otherwise);
                let rules = &self.groups[*group].rules;
                match &self.store {
                    _ if cost == 0 => continue,
                    Store::Local => self.local.take(rules, key, cost, x.now.unix_ms),
                    Store::Redis { costs, .. } => costs.take(rules, key, cost, x.now.unix_ms),
                };
            }
        }
        if !x.local_response {
            for group in &self.groups {
                if let Weight::Cost(header, _) = &group.weight {
                    x.response.fields.remove(header);
                }
            }
        }
    }
}

thread_local! {
    /// The key of the request at hand; policies never wait while they hold it.
    static KEY: RefCell<Key> = RefCell::default();
}

impl RateLimiting {
    /// What `gw usage` needs to find counters: each step's limits and key.
    pub fn counters(&self) -> impl Iterator<Item = (&Arc<Rules>, &LimitBy, &str)> {
        self.groups.iter().map(|g| (&g.rules, &g.by, g.scope.as_str()))
    }

    /// Where counters live that are not in Redis.
    pub fn local_store(&self) -> &LocalStore {
        &self.local
    }

    /// The consumer group whose limits these are.
    pub fn plan(&self) -> Option<&str> {
        self.plan.as_deref()
    }

    /// Keeps the keys that the response will be charged under: what comes after may change what they are made of.
    fn remember(&self, x: &mut Exchange) {
        let costly = |(_, g): &(usize, &Group)| matches!(g.weight, Weight::Cost(..));
        let keys: Vec<_> =
            self.groups.iter().enumerate().filter(costly).map(|(i, g)| (i, g.by.key(&g.scope, x))).collect();
        if keys.is_empty() {
            return;
        }
        let announced = match &self.store {
            Store::Redis { costs, .. } => Some(costs.announce()),
            Store::Local => None,
        };
        x.keep(Owed { keys, _announced: announced });
    }

    fn ask(&self, group: &Group, waits: bool, x: &Exchange) -> Option<Ask> {
        let Store::Redis { settings, sync, lease, costs } = &self.store else { return None };
        let request = limit::Request {
            redis: Arc::clone(settings),
            rules: Arc::clone(group.rules(waits)),
            key: group.by.key(&group.scope, x),
            hits: group.hits(x),
            sync: if matches!(group.weight, Weight::Cost(..)) {
                Some(Arc::clone(costs))
            } else {
                sync.clone()
            },
            lease: lease.clone(),
            now_ms: x.now.unix_ms,
        };
        Some(Ask { request, dry_run: group.dry_run })
    }

    /// By a lease, or by a refusal that must still be true.
    fn decide_unasked(&self, x: &Exchange) -> Option<Outcome> {
        let (Store::Redis { lease: Some(lease), .. }, [group]) = (&self.store, self.groups.as_slice()) else {
            return None;
        };
        KEY.with_borrow_mut(|key| {
            group.by.write(key, &group.scope, x);
            lease.decide(&group.rules, key, group.hits(x), crate::clock::monotonic())
        })
    }

    fn decide_here(&self, x: &mut Exchange) -> Flow {
        let waits = x.kept::<Place>().is_some();
        if let [group] = self.groups.as_slice() {
            let outcome = KEY.with_borrow_mut(|key| {
                group.by.write(key, &group.scope, x);
                self.local.take(group.rules(waits), key, group.hits(x), x.now.unix_ms)
            });
            return self.conclude(x, std::slice::from_ref(&outcome));
        }
        let keys: Vec<Key> = self.groups.iter().map(|g| g.by.key(&g.scope, x)).collect();
        let part = |(group, key)| {
            let group: &Group = group;
            Part { rules: group.rules(waits), key, hits: group.hits(x), dry_run: group.dry_run }
        };
        let parts: Vec<Part<'_>> = self.groups.iter().zip(&keys).map(part).collect();
        let outcomes = self.local.take_all(&parts, x.now.unix_ms);
        self.conclude(x, &outcomes)
    }

    /// From how the limits stood, in the order of the groups, to an answer.
    fn conclude(&self, x: &mut Exchange, outcomes: &[Outcome]) -> Flow {
        if let ([group], [outcome]) = (self.groups.as_slice(), outcomes)
            && !group.dry_run
        {
            return self.answer(x, Standing::of(&(&*group.rules, outcome)), outcome.delay_ms());
        }
        let pairs = || self.groups.iter().zip(outcomes);
        let enforced: Vec<_> = pairs().filter(|(g, _)| !g.dry_run).map(|(g, o)| (&*g.rules, o)).collect();
        for (group, outcome) in pairs().filter(|(g, o)| g.dry_run && !o.admitted) {
            for rule in Standing::of(&(&*group.rules, outcome)).violated() {
                note(x, rule.label(), Verdict::WouldRefuse, 100);
            }
        }
        let admitted = enforced.iter().all(|(_, o)| o.admitted);
        let delay_ms = enforced.iter().map(|(_, o)| o.delay_ms()).max().unwrap_or(0);
        self.answer(x, Standing { parts: &enforced, admitted }, delay_ms)
    }

    fn answer(&self, x: &mut Exchange, standing: Standing<'_>, delay_ms: u64) -> Flow {
        if self.show {
            headers::write(&mut x.response_fields, standing);
            if self.ietf {
                headers::write_ietf(&mut x.response_fields, standing);
            }
        }
        if let Some(percent) = self.warn_at
            && let Some(warning) = standing.warning(percent)
        {
            if self.show {
                headers::write_warning(&mut x.response_fields, &warning);
            }
            if standing.admitted {
                note(x, warning.limit, Verdict::Warned, warning.used_percent);
            }
        }
        if standing.admitted && delay_ms > 0 {
            note(x, "delay", Verdict::Delayed, 100);
            return Flow::Await(Effect::Sleep(Duration::from_millis(delay_ms)));
        }
        if self.queue.is_some() {
            x.slots.retain(|s| !s.is::<Place>());
        }
        if standing.admitted {
            return Flow::Next;
        }
        for rule in standing.violated() {
            note(x, rule.label(), Verdict::Refused, 100);
        }
        Flow::Reply(match self.error_code {
            Some(status) if self.problem || accepts_problem(x) => self.problem(status, standing),
            Some(status) => Reply::error(&x.request, x.request_id, status, &self.error_message),
            None => unexpected(),
        })
    }

    /// The refusal as a problem document.
    fn problem(&self, status: u16, standing: Standing<'_>) -> Reply {
        let violated: Vec<&str> = standing.violated().map(Rule::name).collect();
        let body = serde_json::json!({
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "status": status,
            "detail": self.error_message,
            "violated-policies": violated,
        });
        Reply::with_body(status, PROBLEM, body.to_string())
    }
}

/// The type of problem documents (RFC 9457).
const PROBLEM: &str = "application/problem+json";

fn accepts_problem(x: &Exchange) -> bool {
    let accept = x.request.fields.get(&names::ACCEPT).unwrap_or_default();
    accept.windows(PROBLEM.len()).any(|part| part.eq_ignore_ascii_case(PROBLEM.as_bytes()))
}

/// What Kong answers when a plugin fails.
fn unexpected() -> Reply {
    Reply::exit(500, "An unexpected error occurred")
}

/// A number of requests as a header says it; fractions are rounded up.
fn amount(text: &str) -> Option<u32> {
    let number: f64 = text.trim().parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    Some(number.ceil().min(fields::MAX_WEIGHT as f64) as u32)
}

impl Group {
    fn rules(&self, waits: bool) -> &Arc<Rules> {
        self.queued.as_ref().filter(|_| waits).unwrap_or(&self.rules)
    }

    fn hits(&self, x: &Exchange) -> u32 {
        match &self.weight {
            Weight::Constant(n) => *n,
            // Who could say 0 would have no limit.
            Weight::Header(name, otherwise) => {
                x.request.fields.text(name).and_then(amount).unwrap_or(*otherwise).max(1)
            }
            Weight::Cost(..) => 0,
        }
    }
}

#[cfg(test)]
mod tests;
