//! `-D`, `-W`, `-A`: which findings are errors, warnings or nothing.

use std::collections::HashSet;

use gw_runtime::diag::{Code, Diags, Severity};
use gw_runtime::lint;

use crate::commands::explain::code as explain;

/// The flags.
#[derive(clap::Args, Debug, Default)]
#[group(id = "levels", multiple = true)]
pub struct LevelArgs {
    /// Make a code an error: GW4002, jwt-without-exp, or `warnings` for all
    #[arg(short = 'D', long, value_name = "CODE")]
    deny: Vec<String>,
    /// Report a lint that is off by default, or `all` of them
    #[arg(short = 'W', long, value_name = "CODE")]
    warn: Vec<String>,
    /// Do not report a lint
    #[arg(short = 'A', long, value_name = "CODE")]
    allow: Vec<String>,
}

/// The flags, understood. `-A` of a code wins over `-D` of it, and that over `-W`; a code wins over `warnings` and `all`.
#[derive(Debug, Default)]
pub struct Levels {
    deny: HashSet<&'static str>,
    deny_all: bool,
    warn: HashSet<&'static str>,
    warn_all: bool,
    allow: HashSet<&'static str>,
}

impl Levels {
    /// Understands the flags; an unknown code is an error of usage.
    pub fn new(args: &LevelArgs) -> anyhow::Result<Self> {
        let mut levels = Self::default();
        for text in &args.deny {
            match text.as_str() {
                "warnings" => levels.deny_all = true,
                _ => drop(levels.deny.insert(explain::find(text)?.id)),
            }
        }
        for text in &args.warn {
            match text.as_str() {
                "all" => levels.warn_all = true,
                _ => drop(levels.warn.insert(lint_called(text)?)),
            }
        }
        for text in &args.allow {
            levels.allow.insert(lint_called(text)?);
        }
        Ok(levels)
    }

    /// Whether findings of this code are to be made at all.
    pub fn wants(&self, code: &Code) -> bool {
        let asked = self.warn_all || self.warn.contains(code.id) || self.deny.contains(code.id);
        !self.allow.contains(code.id) && (asked || !lint::is_quiet(code))
    }

    /// Drops what is allowed and raises what is denied.
    pub fn apply(&self, diags: &mut Diags) {
        diags.retain(|d| d.severity == Severity::Error || !self.allow.contains(d.code.id));
        for d in diags {
            let kept = self.warn.contains(d.code.id) && !self.deny.contains(d.code.id);
            if self.deny.contains(d.code.id) || self.deny_all && !kept && d.severity == Severity::Warning {
                d.severity = Severity::Error;
            }
        }
    }
}

/// A code that may be silenced. An error may not: the config would not mean what it says.
fn lint_called(text: &str) -> anyhow::Result<&'static str> {
    let code = explain::find(text)?;
    if code.severity == Severity::Error {
        anyhow::bail!(
            "{} ({}) is an error of the config, not a lint, and cannot be lowered",
            code.id,
            code.name
        );
    }
    Ok(code.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gw_runtime::diag::{Diagnostic, codes};
    use gw_runtime::source::Span;

    fn level(deny: &[&str], warn: &[&str], allow: &[&str]) -> Option<Severity> {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let levels = Levels::new(&LevelArgs { deny: own(deny), warn: own(warn), allow: own(allow) })
            .expect("known codes");
        let mut diags = vec![Diagnostic::new(&codes::JWT_WITHOUT_EXP, Span::default(), "x")];
        levels.apply(&mut diags);
        diags.first().map(|d| d.severity)
    }

    #[test]
    fn flags_set_the_level_of_a_finding() {
        let code = "jwt-without-exp";
        for (deny, warn, allow, want) in [
            (&[][..], &[][..], &[][..], Some(Severity::Warning)),
            (&[code], &[], &[], Some(Severity::Error)),
            (&["warnings"], &[], &[], Some(Severity::Error)),
            (&["warnings"], &[code], &[], Some(Severity::Warning)),
            (&["warnings"], &[], &["GW4002"], None),
            (&["GW4001"], &[], &[], Some(Severity::Warning)),
        ] {
            assert_eq!(level(deny, warn, allow), want, "-D {deny:?} -W {warn:?} -A {allow:?}");
        }
    }

    #[test]
    fn errors_cannot_be_lowered_and_slips_are_corrected() {
        for (allow, want) in [
            (
                "unknown-field",
                "GW1002 (unknown-field) is an error of the config, not a lint, and cannot be lowered",
            ),
            (
                "jwt-witout-exp",
                "there is no diagnostic code `jwt-witout-exp`; did you mean `jwt-without-exp`?",
            ),
        ] {
            let args = LevelArgs { allow: vec![allow.to_owned()], ..LevelArgs::default() };
            assert_eq!(Levels::new(&args).expect_err(allow).to_string(), want);
        }
    }

    #[test]
    fn quiet_lints_speak_when_asked() {
        let wants = |warn: &str| {
            let args = LevelArgs { warn: vec![warn.to_owned()], ..LevelArgs::default() };
            Levels::new(&args).expect("known").wants(&codes::LIMITER_FAILS_OPEN)
        };
        assert!(!Levels::default().wants(&codes::LIMITER_FAILS_OPEN));
        assert!(wants("limiter-fails-open") && wants("all"));
        assert!(!wants("jwt-without-exp"));
    }
}
