//! The counters that a config's consumers have.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Counter;
use crate::diag::suggest::nearest;
use crate::limit::Key;
use crate::policy::Step;
use crate::policy::limit_by::{LimitBy, Part};
use crate::policy::rate_limiting::RateLimiting;
use crate::snapshot::{ClassId, Consumer, Route, Snapshot};

/// Which counters are asked for; what is empty asks for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Usernames, custom ids or ids.
    pub consumers: Vec<String>,
    /// Names of consumer groups.
    pub plans: Vec<String>,
    /// Names or ids.
    pub routes: Vec<String>,
    /// How many counters of each limit to list that are of no consumer, the fullest first.
    pub keys: usize,
}

impl Filter {
    /// What it names that does not exist, with what may have been meant.
    pub fn check(&self, snapshot: &Snapshot) -> Result<(), String> {
        let consumers: Vec<&str> = snapshot.consumers.iter().flat_map(names).collect();
        let routes: Vec<&str> = snapshot.routes.iter().flat_map(route_names).collect();
        let plans: Vec<&str> = snapshot.steps.iter().filter_map(|s| limiter(s)?.plan()).collect();
        for (what, asked, known) in [
            ("consumer", &self.consumers, consumers),
            ("plan", &self.plans, plans),
            ("route", &self.routes, routes),
        ] {
            if let Some(name) = asked.iter().find(|n| !known.contains(&n.as_str())) {
                let near = nearest(name, known.iter().copied());
                let hint = near.map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
                return Err(format!("there is no {what} `{name}`{hint}"));
            }
        }
        Ok(())
    }

    fn wants_consumer(&self, consumer: &Consumer) -> bool {
        self.consumers.is_empty() || names(consumer).any(|n| self.consumers.iter().any(|c| c == n))
    }

    pub(super) fn wants_route(&self, route: &Route) -> bool {
        self.routes.is_empty() || route_names(route).any(|n| self.routes.iter().any(|r| r == n))
    }

    pub(super) fn wants_plan(&self, plan: Option<&str>) -> bool {
        self.plans.is_empty() || plan.is_some_and(|p| self.plans.iter().any(|n| n == p))
    }
}

fn names(consumer: &Consumer) -> impl Iterator<Item = &str> {
    let Consumer { id, username, custom_id, .. } = consumer;
    username.as_deref().into_iter().chain(custom_id.as_deref()).chain([id.as_str()])
}

fn route_names(route: &Route) -> impl Iterator<Item = &str> {
    route.name.as_deref().into_iter().chain([route.id.as_str()])
}

pub(super) fn limiter(step: &Step) -> Option<&RateLimiting> {
    match step {
        Step::RateLimiting(policy) => Some(policy),
        _ => None,
    }
}

/// All counters that the filter asks for, in the config's order of consumers.
pub fn counters(snapshot: &Snapshot, filter: &Filter) -> Vec<Counter> {
    let mut of_class: BTreeMap<Option<ClassId>, BTreeMap<u32, Vec<usize>>> = BTreeMap::new();
    let mut all = Vec::new();
    for consumer in snapshot.consumers.iter().filter(|c| filter.wants_consumer(c)) {
        let steps = of_class.entry(consumer.class).or_insert_with(|| steps(snapshot, consumer.class));
        for (step, routes) in steps.iter() {
            let Some(policy) = snapshot.steps.get(*step as usize).and_then(limiter) else { continue };
            if filter.wants_plan(policy.plan()) {
                add(&mut all, snapshot, filter, consumer, policy, routes);
            }
        }
    }
    all
}

/// The limiting steps of a class, each with the routes on which it runs.
pub(super) fn steps(snapshot: &Snapshot, class: Option<ClassId>) -> BTreeMap<u32, Vec<usize>> {
    let mut steps: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (i, route) in snapshot.routes.iter().enumerate() {
        let own = route.class_chains.iter().find(|(c, _)| Some(*c) == class);
        let chain = &snapshot.chains[own.map_or(route.chain, |(_, chain)| *chain).0 as usize];
        for (_, step) in &chain.steps {
            if limiter(&snapshot.steps[*step as usize]).is_some() {
                steps.entry(*step).or_default().push(i);
            }
        }
    }
    steps
}

fn add(
    all: &mut Vec<Counter>,
    snapshot: &Snapshot,
    filter: &Filter,
    consumer: &Consumer,
    policy: &RateLimiting,
    routes: &[usize],
) {
    let name = names(consumer).next().unwrap_or_default();
    for (rules, by, scope) in policy.counters() {
        // Routes that share a counter are one row.
        let mut keys: Vec<(Key, Vec<&Route>)> = Vec::new();
        for &i in routes {
            let route = &snapshot.routes[i];
            let service = route.service.map(|s| snapshot.services[s.0 as usize].id.as_str());
            let Some(key) = by.key_of(scope, &consumer.id, Some(&route.id), service) else { continue };
            match keys.iter_mut().find(|(k, _)| *k == key) {
                Some((_, routes)) => routes.push(route),
                None => keys.push((key, vec![route])),
            }
        }
        for (key, shared) in keys {
            if shared.iter().any(|r| filter.wants_route(r)) {
                all.push(Counter {
                    consumer: name.to_owned(),
                    plan: policy.plan().map(str::to_owned),
                    route: label(&shared, snapshot, by),
                    rules: Arc::clone(rules),
                    key,
                    redis: crate::policy::Policy::redis(policy).cloned(),
                });
            }
        }
    }
}

/// What the routes that share a counter are called together.
pub(super) fn label(shared: &[&Route], snapshot: &Snapshot, by: &LimitBy) -> String {
    const MOST: usize = 3;
    let apart = by.parts().iter().any(|p| matches!(p, Part::Route | Part::Service));
    if shared.len() == snapshot.routes.len() && !apart {
        return "*".to_owned();
    }
    let shown = shared.iter().take(MOST).filter_map(|r| route_names(r).next());
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if shared.len() > MOST {
        text.push_str(&format!(" and {} more", shared.len() - MOST));
    }
    text
}
