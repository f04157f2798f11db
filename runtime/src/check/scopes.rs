//! Plugins on consumers and groups that run before anyone knows who is calling.

use crate::diag::{Diagnostic, Diags, codes};
use crate::model::{Model, Ref};
use crate::policy::registry;

pub(super) fn check(model: &Model, diags: &mut Diags) {
    for plugin in &model.plugins {
        if registry::find(&plugin.name).is_none_or(|d| d.consumer_scope) {
            continue;
        }
        for (field, reference) in [("consumer", &plugin.consumer), ("consumer_group", &plugin.consumer_group)]
        {
            let Some(reference) = reference else { continue };
            let span = match reference {
                Ref::Name(name) => name.span,
                Ref::Parent(_) => plugin.name.span,
            };
            let name = &plugin.name.value;
            let message = format!("`{field}`: value must be null for the plugin `{name}`");
            let mut diagnostic = Diagnostic::new(&codes::NO_CONSUMER_SCOPE, span, message)
                .label(format!("`{name}` runs before the consumer is known"))
                .help("attach the plugin to a service or a route, or to nothing for all requests");
            if span != plugin.name.span {
                diagnostic = diagnostic.also(plugin.name.span, "the plugin");
            }
            diags.push(diagnostic);
        }
    }
}
