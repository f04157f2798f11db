//! What was checked of a token, as data: the verifier says it, whoever asks listens.
//!
//! There is one verifier. The gateway runs it with [`Quiet`], which ends at the first failure and costs nothing; `gw
//! token explain` runs the same code with a [`Report`], which goes on as far as the token can be read at all.

use super::check::Denial;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Fail,
    /// It was not made: the config does not ask for it, or what it needs is missing.
    Skip,
}

impl Outcome {
    /// `pass`, `fail` or `skip`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// What a check looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What the token has.
    pub actual: String,
    /// What it had to have.
    pub expected: String,
}

impl Evidence {
    /// What the token has, and what it had to have.
    pub fn new(actual: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { actual: actual.into(), expected: expected.into() }
    }
}

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Always the same word for the same check.
    pub name: &'static str,
    pub outcome: Outcome,
    pub evidence: Evidence,
    /// Why it was skipped, or what to do about a failure.
    pub note: String,
}

/// Listens to a verifier.
pub trait Trace {
    /// Takes note of a check. `Err` ends the judgement with what `denial` says.
    fn check<E: Into<Denial>>(
        &mut self,
        name: &'static str,
        good: bool,
        evidence: impl FnOnce() -> Evidence,
        denial: impl FnOnce() -> E,
    ) -> Result<(), E>;

    /// Takes note of one of several checks that are answered together; the verifier itself says how.
    fn observe(&mut self, name: &'static str, good: bool, evidence: impl FnOnce() -> Evidence);

    /// Takes note of a failure after which nothing more can be said; gives the denial back.
    fn fatal<E: Into<Denial> + Clone>(
        &mut self,
        name: &'static str,
        evidence: impl FnOnce() -> Evidence,
        denial: E,
    ) -> E;

    /// Takes note of a check that is not made.
    fn skip(&mut self, name: &'static str, why: impl FnOnce() -> String);
}

/// Listens to nothing: the first failure ends the judgement.
pub struct Quiet;

impl Trace for Quiet {
    #[inline]
    fn check<E: Into<Denial>>(
        &mut self,
        _: &'static str,
        good: bool,
        _: impl FnOnce() -> Evidence,
        denial: impl FnOnce() -> E,
    ) -> Result<(), E> {
        if good { Ok(()) } else { Err(denial()) }
    }

    #[inline]
    fn observe(&mut self, _: &'static str, _: bool, _: impl FnOnce() -> Evidence) {}

    #[inline]
    fn fatal<E: Into<Denial> + Clone>(
        &mut self,
        _: &'static str,
        _: impl FnOnce() -> Evidence,
        denial: E,
    ) -> E {
        denial
    }

    #[inline]
    fn skip(&mut self, _: &'static str, _: impl FnOnce() -> String) {}
}

/// Writes every check down, and goes on after a failure.
#[derive(Debug, Default)]
pub struct Report {
    pub checks: Vec<Check>,
    /// The first failure: what the gateway answers with.
    pub denial: Option<Denial>,
}

impl Report {
    fn note(&mut self, name: &'static str, outcome: Outcome, evidence: Evidence, note: String) {
        self.checks.push(Check { name, outcome, evidence, note });
    }

    /// The judgement ended with this, unless something failed before.
    pub fn failed(&mut self, denial: impl Into<Denial>) {
        if self.denial.is_none() {
            self.denial = Some(denial.into());
        }
    }

    /// Adds, as skipped, those of `all` that the judgement did not come to.
    pub fn fill(&mut self, all: &[&'static str]) {
        for name in all {
            if self.checks.iter().all(|c| c.name != *name) {
                self.note(name, Outcome::Skip, Evidence::default(), "not reached".into());
            }
        }
    }
}

impl Trace for Report {
    fn check<E: Into<Denial>>(
        &mut self,
        name: &'static str,
        good: bool,
        evidence: impl FnOnce() -> Evidence,
        denial: impl FnOnce() -> E,
    ) -> Result<(), E> {
        self.observe(name, good, evidence);
        if !good {
            self.failed(denial());
        }
        Ok(())
    }

    fn observe(&mut self, name: &'static str, good: bool, evidence: impl FnOnce() -> Evidence) {
        let outcome = if good { Outcome::Pass } else { Outcome::Fail };
        self.note(name, outcome, evidence(), String::new());
    }

    fn fatal<E: Into<Denial> + Clone>(
        &mut self,
        name: &'static str,
        evidence: impl FnOnce() -> Evidence,
        denial: E,
    ) -> E {
        self.note(name, Outcome::Fail, evidence(), String::new());
        self.failed(denial.clone());
        denial
    }

    fn skip(&mut self, name: &'static str, why: impl FnOnce() -> String) {
        self.note(name, Outcome::Skip, Evidence::default(), why());
    }
}

/// A claim or header parameter as a report shows it.
pub fn shown(value: Option<&serde_json::Value>) -> String {
    const MOST: usize = 120;
    let Some(value) = value else { return "(absent)".into() };
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Texts as a report lists them; of many only the first ones.
pub fn listed<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    const MOST: usize = 8;
    let mut all = texts.into_iter();
    let first: Vec<String> = all.by_ref().take(MOST).map(|t| format!("{t:?}")).collect();
    match all.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_goes_on_where_the_gateway_ends() {
        fn judge(trace: &mut impl Trace) -> Result<(), Denial> {
            let evidence = || Evidence::new("a", "b");
            trace.check("first", true, evidence, || Denial::new("no first"))?;
            trace.check("second", false, evidence, || Denial::new("no second"))?;
            trace.skip("third", || "nobody asks".into());
            Err(trace.fatal("fourth", evidence, Denial::new("no fourth")))
        }
        assert_eq!(judge(&mut Quiet), Err(Denial::new("no second")));
        let mut report = Report::default();
        assert_eq!(judge(&mut report), Err(Denial::new("no fourth")));
        report.fill(&["first", "fifth"]);
        assert_eq!(report.denial, Some(Denial::new("no second")));
        let all: Vec<_> = report.checks.iter().map(|c| (c.name, c.outcome.word())).collect();
        let want =
            [("first", "pass"), ("second", "fail"), ("third", "skip"), ("fourth", "fail"), ("fifth", "skip")];
        assert_eq!(all, want);
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(shown(None), "(absent)");
        assert_eq!(shown(Some(&serde_json::json!(["é"]))), "[\"é\"]");
        assert!(shown(Some(&serde_json::json!("é".repeat(500)))).len() < 300);
        assert_eq!(listed(["a"; 10]), "\"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\" and 2 more");
    }
}
