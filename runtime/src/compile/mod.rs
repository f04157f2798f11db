//! From a checked model to a snapshot: names become ids, plugins become chains, texts become keys.
//!
//! Knows no sockets and no workers: `gw validate` runs all of it.

mod acme;
mod chains;
mod credentials;
pub mod plugins;
mod routes;
mod services;
mod strip;
mod upstreams;

use std::sync::Arc;

pub use chains::plugin_for;

use crate::check::Checked;
use crate::diag::{Diags, has_errors};
use crate::model::Model;
use crate::snapshot::shared::Shared;
use crate::snapshot::{Consumer, Snapshot};

/// Compiles a model. Findings that only compiling can make are reported; without errors there is a snapshot.
pub fn build(model: &Checked<Model>, shared: &Arc<Shared>) -> (Option<Snapshot>, Diags) {
    let mut diags = Diags::new();
    let chains = chains::build(model, shared, &mut diags);
    let services = services::build(model, shared, &mut diags);
    let (router, routes) = routes::build(model, shared, &chains, &mut diags);
    let credentials = credentials::build(model, &mut diags);
    let groups = credentials::acl_groups(model);
    let consumers =
        model.consumers.iter().zip(groups).zip(&chains.classes).map(|((c, acl_groups), class)| Consumer {
            id: c.id.clone(),
            username: c.username.as_ref().map(|u| u.value.clone()),
            custom_id: c.custom_id.as_ref().map(|u| u.value.clone()),
            acl_groups,
            class: *class,
        });
    let consumers = consumers.collect();
    let stripped_headers = strip::set(model, &chains.steps);
    let snapshot = Snapshot {
        generation: 0,
        gateway: model.gateway.clone(),
        router,
        routes,
        services,
        consumers,
        consumer_index: Default::default(),
        credentials,
        steps: chains.steps.into(),
        chains: chains.chains.into(),
        no_route_chain: chains.no_route,
        stripped_headers,
        server_tls: None,
        acme: acme::build(model, shared, &mut diags),
        upstreams: upstreams::build(model),
        certificates: services::certificates(model),
        shared: Arc::clone(shared),
    };
    let fine = !has_errors(&diags);
    (fine.then_some(snapshot), diags)
}
