//! What policies have to say about their own configs where the config as a whole has errors and cannot be compiled, so
//! that one run still shows everything.

use std::sync::Arc;

use crate::diag::{Diagnostic, Diags, Severity};
use crate::model::{Model, Plugin};
use crate::policy::{Cx, Step};
use crate::snapshot::shared::Shared;
use crate::source::Span;

/// Compiles every plugin by itself, except those that `errors` are about already.
pub fn findings(model: &Model, errors: &[Diagnostic], shared: &Arc<Shared>) -> Diags {
    let mut broken: Vec<Span> =
        errors.iter().filter(|d| d.severity == Severity::Error).map(|d| d.primary.span).collect();
    broken.sort_unstable_by_key(|s| (s.file.0, s.start));
    let mut diags = Diags::new();
    for plugin in model.plugins.iter().filter(|p| p.enabled && !is_broken(p, &broken)) {
        let cx = &mut Cx {
            model,
            plugin,
            route_id: None,
            service_id: None,
            consumer_id: None,
            shared,
            diags: &mut diags,
        };
        let _ = Step::compile(&plugin.name, &plugin.config, cx);
    }
    diags
}

/// Whether an error points into the plugin's entry. `broken` is sorted.
fn is_broken(plugin: &Plugin, broken: &[Span]) -> bool {
    let (head, config) = (plugin.span, plugin.config.span);
    let within = |span: Span, end: u32| {
        let first = broken.partition_point(|b| (b.file.0, b.start) < (span.file.0, span.start));
        broken.get(first).is_some_and(|b| b.file == span.file && b.start <= end)
    };
    within(head, head.end) || within(config, config.end) || within(plugin.name.span, plugin.name.span.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::front::{Input, LoadOptions, load};
    use crate::source::Sources;

    #[test]
    fn policies_speak_up_beside_other_errors_but_not_about_what_is_broken_already() {
        let text = "_format_version: '3.0'\nservices: [{url: 'http://a.test', retires: 1}]\nplugins:\n\
                    - {name: ip-restriction}\n- {name: acl, config: {alow: [a]}}\n";
        let mut sources = Sources::default();
        let (model, errors) =
            load(&mut sources, &[Input::text("t.yaml", text)], &Env::empty(), &LoadOptions::default());
        let line = |d: &Diagnostic| (sources.line_col(d.primary.span).line, d.code.name);
        assert_eq!(errors.iter().map(line).collect::<Vec<_>>(), [(2, "unknown-field"), (5, "unknown-field")]);
        let found = findings(&model, &errors, &Arc::default());
        assert_eq!(found.iter().map(line).collect::<Vec<_>>(), [(4, "missing-alternative")]);
    }
}
