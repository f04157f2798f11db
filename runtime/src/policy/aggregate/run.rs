//! One request's way through the parts: each is asked as soon as what it refers to is there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ask::{self, Request, View};
use super::outcome::{Outcome, Why};
use super::plan::{Fallback, Part, Plan};
use super::stale::{self, Stale};
use crate::clock;
use crate::json::{self, Json};
use crate::message::Fields;
use crate::policy::call::{Call, CallError, CallResponse, Series};

/// The state of a request's parts. The driver asks it what to send next, and hands it the answers.
#[derive(Debug)]
pub struct Run {
    pub plan: Arc<Plan>,
    pub request: Request,
    /// What each part answered, its fallback in it, whole.
    pub answers: Vec<Option<Json>>,
    pub fields: Vec<Fields>,
    pub outcomes: Vec<Option<Outcome>>,
    /// Whether what stands in `answers` was answered, now or earlier, and is no fallback.
    pub real: Vec<bool>,
    /// Whether an earlier answer stands in for one that failed.
    pub old: Vec<bool>,
    /// Whether an earlier answer, fresh still, is in it.
    pub cached: Vec<bool>,
    /// The first required part that failed.
    pub failed: Option<usize>,
    progress: Vec<Progress>,
    /// Calls on their way, by their number.
    sent: Vec<Sent>,
    bytes: usize,
    began: Instant,
    /// Seconds since 1970.
    now_s: u64,
    stale: Arc<Stale>,
}

/// Where a part is on its way.
#[derive(Debug, Default)]
struct Progress {
    started: Option<Instant>,
    /// Items that nobody asked for yet.
    waiting: VecDeque<(usize, Json)>,
    /// What came of each item; a part that is asked once has one.
    results: Vec<Item>,
    in_flight: usize,
    /// Why an item is not what it should be, though the part goes on.
    flaw: Option<Why>,
    /// Status of the last answer that was fine.
    status: u16,
    fields: Fields,
}

#[derive(Clone, Debug, Default)]
enum Item {
    #[default]
    Wanted,
    There(Json),
    /// It failed, and is to be left out.
    Omitted,
}

#[derive(Debug)]
struct Sent {
    part: usize,
    item: usize,
    /// Where a good answer is remembered.
    key: Option<stale::Key>,
}

impl Run {
    /// A run of those parts that are `needed`.
    pub fn new(plan: Arc<Plan>, request: Request, needed: &[bool], now_s: u64, stale: Arc<Stale>) -> Self {
        let n = plan.parts.len();
        let skipped = |i: usize| (!needed[i]).then_some(Outcome::Skipped);
        Self {
            request,
            answers: vec![None; n],
            fields: vec![Fields::default(); n],
            outcomes: (0..n).map(skipped).collect(),
            real: vec![false; n],
            old: vec![false; n],
            cached: vec![false; n],
            failed: None,
            progress: (0..n).map(|_| Progress::default()).collect(),
            sent: Vec::new(),
            bytes: 0,
            began: clock::monotonic(),
            now_s,
            stale,
            plan,
        }
    }

    /// Starts a part whose references are all there.
    fn start(&mut self, at: usize, now: Instant) {
        let plan = Arc::clone(&self.plan);
        self.progress[at].started = Some(now);
        let Some(each) = &plan.parts[at].each else {
            self.progress[at].results.push(Item::Wanted);
            self.progress[at].waiting.push_back((0, Json::Null));
            return;
        };
        let items = match ask::value(&each.list, &self.view(None)) {
            Ok(Json::List(items)) => items,
            Ok(other) => {
                let what = format!("`for_each` needs a list, not {}", other.kind());
                return self.fail(at, Why::Value(what));
            }
            Err(error) => return self.fail(at, Why::Value(error.to_string())),
        };
        if items.len() > each.max_items {
            return self.fail(at, Why::TooManyItems(each.max_items));
        }
        self.progress[at].results.resize(items.len(), Item::Wanted);
        self.progress[at].waiting.extend(items.into_iter().enumerate());
        if self.progress[at].waiting.is_empty() {
            self.finish(at);
        }
    }

    /// The calls of a started part that may go out now.
    fn send(&mut self, at: usize, now: Instant, calls: &mut Vec<(usize, Call)>) {
        let plan = Arc::clone(&self.plan);
        let part = &plan.parts[at];
        let most = part.each.as_ref().map_or(1, |e| e.concurrency);
        while self.outcomes[at].is_none() && self.progress[at].in_flight < most {
            let Some((item, value)) = self.progress[at].waiting.pop_front() else { return };
            let left = plan.deadline.saturating_sub(now.duration_since(self.began));
            if left.is_zero() {
                return self.fail(at, Why::Deadline);
            }
            if self.sent.len() >= plan.max_calls {
                return self.fail(at, Why::TooManyCalls);
            }
            let timeout = part.timeout.map_or(left, |t| t.min(left));
            match self.call(part, part.each.is_some().then_some(&value), timeout) {
                Ok(call) => {
                    let remembers = part.cache_for > 0 || matches!(part.fallback, Fallback::Stale(_));
                    let key = remembers.then(|| stale::key(&part.service, &call));
                    if part.cache_for > 0
                        && let Some(key) = &key
                        && self.answer_again(at, item, key)
                    {
                        continue;
                    }
                    calls.push((self.sent.len(), call));
                    self.sent.push(Sent { part: at, item, key });
                    self.progress[at].in_flight += 1;
                }
                Err(error) => self.fail(at, Why::Value(error.to_string())),
            }
        }
    }

    /// Answers a call with what is kept of an earlier one, if that is fresh.
    fn answer_again(&mut self, at: usize, item: usize, key: &stale::Key) -> bool {
        let Some((status, fields, body)) = self.stale.fresh(key, self.now_s) else { return false };
        let Ok(json) = read(&body, self.plan.max_depth) else { return false };
        if self.bytes + body.len() > self.plan.max_bytes {
            return false;
        }
        self.bytes += body.len();
        self.cached[at] = true;
        let progress = &mut self.progress[at];
        progress.status = status;
        progress.fields = fields;
        progress.results[item] = Item::There(json);
        if progress.results.iter().all(|i| !matches!(i, Item::Wanted)) {
            self.finish(at);
        }
        true
    }

    fn call(
        &self,
        part: &Part,
        item: Option<&Json>,
        timeout: Duration,
    ) -> Result<Call, crate::template::EvalError> {
        let view = self.view(item);
        Ok(Call {
            to: part.to.clone(),
            method: part.method.clone(),
            path: ask::path(part, &view)?,
            fields: ask::fields(part, &view)?,
            body: ask::body(part, &view)?,
            timeout,
            max_body: part.max_bytes.min(self.plan.max_bytes.saturating_sub(self.bytes)),
        })
    }

    fn view<'a>(&'a self, item: Option<&'a Json>) -> View<'a> {
        View { request: &self.request, answers: &self.answers, parts: &self.plan.parts, item }
    }

    /// Reads a good answer.
    fn take(&mut self, sent: usize, response: CallResponse) -> Result<(), Why> {
        if !(200..300).contains(&response.status) {
            return Err(Why::Status(response.status));
        }
        self.bytes += response.body.len();
        if self.bytes > self.plan.max_bytes {
            return Err(Why::TooManyBytes);
        }
        let json = read(&response.body, self.plan.max_depth)?;
        let Sent { part, item, key } = &self.sent[sent];
        if let Some(key) = key {
            let part = &self.plan.parts[*part];
            let stale = if let Fallback::Stale(seconds) = part.fallback { seconds } else { 0 };
            self.stale.put(*key, &response, self.now_s, stale, part.cache_for);
        }
        let progress = &mut self.progress[*part];
        progress.status = response.status;
        progress.fields = response.fields;
        progress.results[*item] = Item::There(json);
        Ok(())
    }

    /// The last good answer to the same call.
    fn remembered(&self, sent: usize) -> Option<Json> {
        let body = self.stale.get(self.sent[sent].key.as_ref()?, self.now_s)?;
        read(&body, self.plan.max_depth).ok()
    }

    /// All items are there.
    fn finish(&mut self, at: usize) {
        let progress = &mut self.progress[at];
        let flaw = progress.flaw.take();
        let mut results = std::mem::take(&mut progress.results).into_iter().filter_map(|item| match item {
            Item::There(json) => Some(json),
            Item::Wanted | Item::Omitted => None,
        });
        let value = match self.plan.parts[at].each {
            Some(_) => Json::List(results.collect()),
            None => results.next().unwrap_or_default(),
        };
        self.answers[at] = Some(value);
        self.real[at] = true;
        self.fields[at] = std::mem::take(&mut progress.fields);
        let (status, took) = (progress.status, self.took(at));
        self.outcomes[at] = Some(match flaw {
            Some(why) => Outcome::Failed { why, took },
            None => Outcome::Fine { status, took },
        });
    }

    /// A call failed. Where something may stand for its item alone, the part goes on.
    fn failed_item(&mut self, sent: usize, why: Why) {
        let Sent { part, item, .. } = self.sent[sent];
        let one_of_many = self.plan.parts[part].each.is_some();
        let instead = match &self.plan.parts[part].fallback {
            Fallback::Stale(_) => match self.remembered(sent) {
                Some(json) => {
                    self.old[part] = true;
                    Item::There(json)
                }
                None if one_of_many => Item::Omitted,
                None => return self.fail(part, why),
            },
            Fallback::Omit if one_of_many => Item::Omitted,
            Fallback::Null if one_of_many => Item::There(Json::Null),
            _ => return self.fail(part, why),
        };
        let progress = &mut self.progress[part];
        progress.results[item] = instead;
        progress.flaw.get_or_insert(why);
    }

    /// A part cannot be had: its fallback stands for it, or the request fails.
    fn fail(&mut self, at: usize, why: Why) {
        let part = &self.plan.parts[at];
        match &part.fallback {
            Fallback::Fail => self.failed = self.failed.or(Some(at)),
            Fallback::Value(json) => self.answers[at] = Some(json.clone()),
            Fallback::Null => self.answers[at] = Some(Json::Null),
            Fallback::Omit | Fallback::Stale(_) => {}
        }
        self.progress[at].waiting.clear();
        self.outcomes[at] = Some(Outcome::Failed { why, took: self.took(at) });
    }

    /// A part that was there turned out not to fit.
    pub fn spoil(&mut self, at: usize, why: Why) {
        self.answers[at] = None;
        self.real[at] = false;
        self.fail(at, why);
    }

    fn took(&self, at: usize) -> Duration {
        self.progress[at].started.map_or(Duration::ZERO, |s| clock::monotonic().duration_since(s))
    }
}

/// A body as JSON; none at all is null.
fn read(body: &Bytes, max_depth: usize) -> Result<Json, Why> {
    if body.is_empty() {
        return Ok(Json::Null);
    }
    json::parse(body, &json::Limits::of_depth(max_depth)).map_err(|e| Why::NotJson(e.to_string()))
}

impl Series for Run {
    fn next(&mut self) -> Option<Vec<(usize, Call)>> {
        let now = clock::monotonic();
        let plan = Arc::clone(&self.plan);
        let mut calls = Vec::new();
        // A part that fails or has no items at once may be what another waits for.
        loop {
            let done = |run: &Self| run.outcomes.iter().filter(|o| o.is_some()).count();
            let before = done(self);
            for (at, part) in plan.parts.iter().enumerate() {
                if self.failed.is_some() {
                    return None;
                }
                let ready = part.needs.iter().all(|n| self.outcomes[*n].is_some());
                if self.outcomes[at].is_some() || !ready {
                    continue;
                }
                if self.progress[at].started.is_none() {
                    self.start(at, now);
                }
                self.send(at, now, &mut calls);
            }
            if done(self) == before {
                return Some(calls).filter(|_| self.failed.is_none());
            }
        }
    }

    fn answered(&mut self, number: usize, result: Result<CallResponse, CallError>) {
        let part = self.sent[number].part;
        self.progress[part].in_flight -= 1;
        if self.outcomes[part].is_none() {
            let taken = match result {
                Ok(response) => self.take(number, response),
                Err(error) => Err(Why::Call(error)),
            };
            if let Err(why) = taken {
                self.failed_item(number, why);
            }
            let progress = &self.progress[part];
            let there = progress.results.iter().all(|i| !matches!(i, Item::Wanted));
            if self.outcomes[part].is_none() && there {
                self.finish(part);
            }
        }
    }
}
