//! `aggregate`: one request, several calls, one answer.

mod answer;
mod ask;
mod choose;
mod compile;
mod config;
mod conflict;
mod graph;
mod merge;
mod outcome;
pub mod plan;
mod run;
mod shape;
mod stale;

use std::any::Any;
use std::sync::Arc;

use ask::Request;
use choose::Choice;
use outcome::{Outcome, Why};
use plan::Plan;
use run::Run;
use stale::Stale;

use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::json::{self, Json};
use crate::model::schema::Record;

static PLUGIN: Descriptor = Descriptor {
    name: "aggregate",
    summary: "answer one request from several services",
    doc: include_str!("doc.md"),
    fields: config::FIELDS,
    consumer_scope: true,
    extension: true,
    identity_headers: &[],
};

/// See the module.
pub struct Aggregate {
    plan: Arc<Plan>,
    stale: Arc<Stale>,
}

impl Aggregate {
    /// What the config says.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn begin(&self, x: &mut Exchange) -> Flow {
        let body = match (self.plan.reads_body, x.body.as_ref().filter(|b| !b.is_empty())) {
            (true, Some(body)) => match json::parse(body, &json::Limits::of_depth(self.plan.max_depth)) {
                Ok(json) => Some(json),
                Err(error) => {
                    let message = format!("the body is no JSON: {error}");
                    return Flow::Reply(Reply::error(&x.request, x.request_id, 400, &message));
                }
            },
            (true, None) => Some(Json::Null),
            (false, _) => None,
        };
        let request = Request::of(x, body);
        let choice = match Choice::of(&self.plan, x, &request) {
            Ok(choice) => choice,
            Err(name) => {
                let known: Vec<String> = self
                    .plan
                    .fields
                    .iter()
                    .map(|f| f.to_string().trim_start_matches('/').to_owned())
                    .collect();
                let message = format!("`fields` may not name `{name}`; there are {}", known.join(", "));
                return Flow::Reply(Reply::error(&x.request, x.request_id, 400, &message));
            }
        };
        let needed = choice.needed(&self.plan);
        let now_s = x.now.unix_ms / 1000;
        let run = Run::new(Arc::clone(&self.plan), request, &needed, now_s, Arc::clone(&self.stale));
        x.keep(choice);
        Flow::Await(Effect::Series(Box::new(run)))
    }

    fn end(&self, x: &mut Exchange, mut run: Run) -> Flow {
        let choice = x.kept::<Choice>();
        let nothing = Choice::default();
        let reply = answer::reply(&mut run, choice.unwrap_or(&nothing), x);
        let failed = run.plan.parts.iter().zip(&run.outcomes).filter_map(|(part, outcome)| match outcome {
            Some(Outcome::Failed { why, .. }) if *why != Why::Cancelled => {
                Some(format!("part `{}`: {}", part.name, why.detail()))
            }
            _ => None,
        });
        let failed: Vec<String> = failed.collect();
        if !failed.is_empty() {
            x.keep(crate::telemetry::Why(failed.join("; ")));
        }
        Flow::Reply(reply)
    }
}

impl Policy for Aggregate {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let plan = Arc::new(compile::plan(config, cx)?);
        Some(Self { plan, stale: cx.shared.get() })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if self.plan.reads_body && x.body.is_none() {
            return Flow::Await(Effect::ReadBody { limit: x.snapshot.gateway.limits.buffered_body });
        }
        self.begin(x)
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        match answer {
            Answer::Body(Ok(())) => self.begin(x),
            Answer::Body(Err(error)) => Flow::Reply(Reply::unread(x, error)),
            Answer::Series(series) => match (series as Box<dyn Any>).downcast::<Run>() {
                Ok(run) => self.end(x, *run),
                Err(_) => Flow::Reply(Reply::exit(500, "An unexpected error occurred")),
            },
            _ => Flow::Reply(Reply::exit(500, "An unexpected error occurred")),
        }
    }
}

#[cfg(test)]
mod tests;
