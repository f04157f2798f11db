//! Proving, before there is a request, that parts do not fall upon each other when they are merged.

use super::merge::OnConflict;
use super::plan::{Part, Plan};
use super::shape::Has;
use crate::diag::{Code, Diagnostic, codes};
use crate::json::Pointer;
use crate::model::schema::Record;
use crate::policy::Cx;
use crate::source::Span;

/// What can be said of two parts.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They cannot meet, or it is said what holds if they do.
    Apart,
    /// They meet at this place if the answers have it, which the config does not say.
    Perhaps(Pointer),
    /// They meet at this place.
    Meet(Pointer),
}

/// Two parts in one place: an error where it is certain, a warning where the config does not say enough.
pub fn check(plan: &Plan, config: &Record, cx: &mut Cx<'_>) -> bool {
    let spans: Vec<Span> = config
        .records("parts")
        .map(|p| if p.given("into") { p.span_of("into") } else { p.span_of("name") })
        .collect();
    let mut good = true;
    for (b, later) in plan.parts.iter().enumerate() {
        for (a, earlier) in plan.parts[..b].iter().enumerate() {
            let (code, message): (&'static Code, _) = match judge(earlier, later) {
                Verdict::Apart => continue,
                Verdict::Meet(at) => {
                    good = false;
                    let message = format!("`{}` and `{}` both write `{at}`", earlier.name, later.name);
                    (&codes::MERGE_CONFLICT, message)
                }
                Verdict::Perhaps(at) => {
                    let message = format!("`{}` and `{}` may both write `{at}`", earlier.name, later.name);
                    (&codes::POSSIBLE_MERGE_CONFLICT, message)
                }
            };
            cx.diags.push(
                Diagnostic::new(code, spans[b], message)
                    .also(spans[a], format!("`{}` writes here", earlier.name))
                    .help(format!(
                        "say what holds with `on_conflict` on `{}`, or keep them apart with `select`, `drop` or `into`",
                        later.name
                    )),
            );
        }
    }
    good
}

/// Judges a part and one that is merged later.
pub fn judge(earlier: &Part, later: &Part) -> Verdict {
    if later.place.on_conflict != OnConflict::Error {
        return Verdict::Apart;
    }
    let (above, below) = (&earlier.place.into, &later.place.into);
    if above == below {
        return same_place(earlier, later);
    }
    if let Some(rest) = below.below(above) {
        return member(earlier, above, rest);
    }
    match above.below(below) {
        Some(rest) => member(later, below, rest),
        None => Verdict::Apart,
    }
}

/// One part's object and a place within it that another part takes.
fn member(part: &Part, at: &Pointer, rest: &[String]) -> Verdict {
    let Some(first) = rest.first() else { return Verdict::Apart };
    let place = at.then(first);
    if part.is_list() {
        return Verdict::Meet(at.clone());
    }
    match part.shape.has(first) {
        Has::Never => Verdict::Apart,
        Has::Stated if rest.len() == 1 => Verdict::Meet(place),
        Has::Stated | Has::Perhaps => Verdict::Perhaps(place),
    }
}

fn same_place(earlier: &Part, later: &Part) -> Verdict {
    let at = &later.place.into;
    if later.place.concat {
        return Verdict::Apart;
    }
    if earlier.is_list() || later.is_list() {
        return Verdict::Meet(at.clone());
    }
    match (earlier.shape.names(), later.shape.names()) {
        (Some(names), _) => by_names(&names, later, at),
        (_, Some(names)) => by_names(&names, earlier, at),
        (None, None) => Verdict::Perhaps(at.clone()),
    }
}

/// All the members that one part can have, against the other part.
fn by_names(names: &[&str], other: &Part, at: &Pointer) -> Verdict {
    let mut verdict = Verdict::Apart;
    for name in names {
        match other.shape.has(name) {
            Has::Never => {}
            Has::Stated => return Verdict::Meet(at.then(name)),
            Has::Perhaps => verdict = Verdict::Perhaps(at.then(name)),
        }
    }
    verdict
}
