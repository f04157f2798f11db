//! The parts of an aggregate: who waits for whom, and how long at the longest.

use gw_runtime::policy::aggregate::plan::{Fallback, Plan};
use gw_runtime::policy::call::CallTo;
use gw_runtime::snapshot::Snapshot;

use super::request::line;

/// Appends the graph.
pub fn render(out: &mut String, plan: &Plan, snapshot: &Snapshot) {
    let (ends, longest) = plan.worst_case();
    let width = plan.parts.iter().map(|p| p.name.len()).max().unwrap_or(0);
    for (i, (part, end)) in plan.parts.iter().zip(ends).enumerate() {
        let service = match &part.to {
            CallTo::Service(id) | CallTo::Exactly(id) => {
                snapshot.services[id.0 as usize].name.as_deref().unwrap_or(&part.service)
            }
            CallTo::Endpoint(endpoint) => &endpoint.service.authority,
        };
        let mut text = format!("{:<width$} {service}", part.name);
        if !part.needs.is_empty() {
            let names: Vec<&str> = part.needs.iter().map(|n| plan.parts[*n].name.as_str()).collect();
            text.push_str(&format!(", waits for {}", names.join(" and ")));
        }
        if let Some(each) = &part.each {
            text.push_str(&format!(", up to {} items, {} at a time", each.max_items, each.concurrency));
        }
        text.push_str(&format!(", there after at most {end} ms"));
        text.push_str(match &part.fallback {
            Fallback::Fail => ", required",
            Fallback::Null => ", else null",
            Fallback::Omit => ", else left out",
            Fallback::Value(_) => ", else a fixed value",
            Fallback::Stale(_) => ", else its last good answer",
        });
        line(out, if i == 0 { "parts" } else { "" }, &text);
    }
    line(out, "at most", &format!("{longest} ms for all parts (deadline {} ms)", plan.deadline.as_millis()));
}
