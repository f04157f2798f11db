//! What `rate-limiting` and `response-ratelimiting` share: their limits by period.

use super::Cx;
use crate::diag::{Diagnostic, codes};
use crate::limit::{Algorithm, Period, Rule};
use crate::model::schema::{Kind, Record};

/// A number of requests; fractions are allowed, as in Kong.
pub const AMOUNT: Kind = Kind::Num { min: f64::MIN_POSITIVE, max: f64::MAX };

/// The limits of `config` by period, shortest first; bursts are the limits. `None` after a finding. `path` stands
/// before the fields' names in messages.
pub fn periods(config: &Record, path: &str, algorithm: Algorithm, cx: &mut Cx<'_>) -> Option<Vec<Rule>> {
    let rule = |period: Period| {
        let limit = config.num(period.name())?;
        Some(Rule::new(algorithm, period, limit))
    };
    let rules: Vec<Rule> = Period::KONG.into_iter().filter_map(rule).collect();
    if rules.is_empty() {
        let names = Period::KONG.map(|p| format!("'{path}{}'", p.name())).join(", ");
        let finding = Diagnostic::new(
            &codes::MISSING_ALTERNATIVE,
            config.span,
            format!("at least one of these fields must be non-empty: {names}"),
        );
        cx.diags.push(finding.help("add a limit, such as `minute: 60`"));
        return None;
    }
    for pair in rules.windows(2) {
        let [short, long] = pair else { continue };
        if long.limit < short.limit {
            let finding = Diagnostic::new(
                &codes::CONFLICTING_FIELDS,
                config.span_of(long.period.name()),
                format!(
                    "the limit for {}({:.1}) cannot be lower than the limit for {}({:.1})",
                    long.period.name(),
                    long.limit,
                    short.period.name(),
                    short.limit
                ),
            );
            let also = config.span_of(short.period.name());
            cx.diags.push(
                finding.label("less in a longer period").also(also, "more in a shorter one").help(format!(
                    "raise `{}` or lower `{}`",
                    long.period.name(),
                    short.period.name()
                )),
            );
            return None;
        }
    }
    Some(rules)
}
