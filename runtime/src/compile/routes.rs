//! Routes and the router's index.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::chains::Chains;
use crate::check::Checked;
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::gateway::RouterFlavor;
use crate::model::{Model, Route as Written};
use crate::route::{Options, RouteError, RouteSpec, Router};
use crate::snapshot::shared::Shared;
use crate::snapshot::{Labels, Protocols, Route, ServiceId};
use crate::source::{Span, Spanned};

/// Labels that were given out, for the life of the process.
#[derive(Default)]
struct Interned(Mutex<HashSet<Arc<Labels>>>);

impl Interned {
    fn get(&self, labels: Labels) -> Arc<Labels> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = seen.get(&labels) {
            return Arc::clone(known);
        }
        let new = Arc::new(labels);
        seen.insert(Arc::clone(&new));
        new
    }
}

/// Builds the index and the table of routes. Routes of a disabled service do not exist, as in Kong.
pub fn build(
    model: &Checked<Model>,
    shared: &Arc<Shared>,
    chains: &Chains<'_>,
    diags: &mut Diags,
) -> (Router, Box<[Route]>) {
    let interned = shared.get::<Interned>();
    let mut routes = Vec::with_capacity(model.routes.len());
    for (i, r) in model.routes.iter().enumerate() {
        let service = service_of(model, i);
        let (chain, class_chains) = chains.of_route[i].clone();
        routes.push(Route {
            id: r.id.clone(),
            name: r.name.as_ref().map(|n| n.value.clone()),
            service: service.map(|s| ServiceId(s as u32)),
            protocols: protocols(&r.protocols),
            https_redirect_status_code: r.https_redirect_status_code,
            strip_path: r.strip_path,
            preserve_host: r.preserve_host,
            path_handling_v1: r.path_handling_v1 && model.gateway.router_flavor == RouterFlavor::Traditional,
            request_buffering: r.request_buffering,
            response_buffering: r.response_buffering,
            chain,
            labels: interned.get(labels(model, r, service)),
            class_chains,
        });
    }
    let options = Options {
        flavor: model.gateway.router_flavor,
        documented_order: model.gateway.router_order_documented,
    };
    let served = |i: usize| service_of(model, i).is_none_or(|s| model.services[s].enabled);
    let written = model.routes.iter().enumerate().filter(|(i, _)| served(*i));
    let (router, errors) = Router::new(written.map(|(i, r)| spec(i, r)), options);
    for e in errors {
        let span = place(&model.routes[e.route as usize], &e);
        let diagnostic = Diagnostic::new(&codes::INVALID_VALUE, span, e.message);
        diags.push(match e.help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        });
    }
    (router, routes.into())
}

fn service_of(model: &Checked<Model>, route: usize) -> Option<usize> {
    model.links().route_service.get(route).copied().flatten()
}

/// Where the text stands that the router could not use.
fn place(route: &Written, error: &RouteError) -> Span {
    let text = match error.field {
        "paths" => route.paths.get(error.item),
        "hosts" => route.hosts.get(error.item),
        "headers" => route.headers.get(error.item).map(|(name, _)| name),
        "expression" => route.expression.as_ref(),
        _ => None,
    };
    let Some(Spanned { value, span }) = text else { return route.span };
    // Exact where the text stands in the file as it is, perhaps between quotes; else the whole text.
    let quotes = ((span.end - span.start) as usize).checked_sub(value.len());
    match (&error.range, quotes) {
        (Some(range), Some(extra @ (0 | 2))) => {
            let start = span.start as usize + extra / 2;
            Span::new(span.file, start + range.start, start + range.end)
        }
        _ => *span,
    }
}

fn labels(model: &Model, r: &Written, service: Option<usize>) -> Labels {
    let service = service.map(|s| &model.services[s]);
    Labels {
        service: service.map_or_else(String::new, |s| {
            s.name.as_ref().map_or_else(|| s.host.value.clone(), |n| n.value.clone())
        }),
        route: r.name.as_ref().map_or_else(|| r.id.clone(), |n| n.value.clone()),
    }
}

fn protocols(written: &[Spanned<String>]) -> Protocols {
    let has = |p: &str| written.iter().any(|w| w.value == p);
    Protocols { http: has("http"), https: has("https"), grpc: has("grpc"), grpcs: has("grpcs") }
}

fn spec(index: usize, r: &Written) -> RouteSpec {
    let texts = |list: &[Spanned<String>]| list.iter().map(|s| s.value.clone()).collect();
    RouteSpec {
        index: index as u32,
        id: r.id.clone(),
        methods: texts(&r.methods),
        hosts: texts(&r.hosts),
        paths: texts(&r.paths),
        headers: r.headers.iter().map(|(name, values)| (name.value.clone(), texts(values))).collect(),
        snis: texts(&r.snis),
        sources: r.sources.clone(),
        destinations: r.destinations.clone(),
        regex_priority: r.regex_priority,
        expression: r.expression.as_ref().map(|e| e.value.clone()),
        priority: r.priority,
        created_at: r.created_at,
        protocols: texts(&r.protocols),
    }
}
