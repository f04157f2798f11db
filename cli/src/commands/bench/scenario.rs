//! Scenario files: several phases, consumers and requests in one run.
//!
//! ```yaml
//! version: 1
//! target: http://127.0.0.1:8000
//! config: kong.yaml
//! consumers: [alice, bob]
//! requests:
//!   - { name: list, path: /orders }
//!   - { name: create, method: POST, path: /orders, body: '{"item":1}', headers: { content-type: application/json } }
//! phases:
//!   - { name: warm-up, duration: 5s, rate: 50/s }
//!   - { name: ramp, duration: 20s, rate: 50/s..500/s, consumers: { alice: 3, bob: 1 }, requests: { list: 9, create: 1 } }
//! assert: ['p99<50ms', 'limits.excess==0']
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gw_loadgen::assert::Assertion;
use gw_loadgen::plan::{Draft, Phase, Share, Target};
use gw_loadgen::schedule::Pace;
use gw_loadgen::units::{parse_duration, parse_rate};
use gw_runtime::diag::suggest::nearest;
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::request;
use crate::exit::{Code, WithCode};

/// A scenario, ready but for what flags and config add.
pub struct Scenario {
    pub draft: Draft,
    pub config: Option<PathBuf>,
    pub consumers: Vec<String>,
    pub assertions: Vec<Assertion>,
}

/// The file.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u64,
    /// `http://HOST:PORT`, before each request's path.
    target: String,
    config: Option<PathBuf>,
    #[serde(default)]
    consumers: Vec<String>,
    connections: Option<usize>,
    streams: Option<usize>,
    #[serde(default)]
    http2: bool,
    timeout: Option<Time>,
    seed: Option<u64>,
    requests: Vec<WrittenRequest>,
    phases: Vec<WrittenPhase>,
    #[serde(default)]
    assert: Vec<WrittenAssertion>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct WrittenRequest {
    name: Option<String>,
    #[serde(default)]
    method: Option<WrittenMethod>,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    /// Draws among the requests of a phase that names none.
    weight: Option<u32>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct WrittenPhase {
    name: Option<String>,
    duration: Time,
    rate: Option<Rates>,
    /// Name to weight; all consumers alike if not given.
    consumers: Option<BTreeMap<String, u32>>,
    requests: Option<BTreeMap<String, u32>>,
}

/// Declares a type that is read from a text. A mistake in it has the place of the text, because it is found while the text is
/// being read.
macro_rules! from_text {
    ($name:ident($inner:ty), $parse:expr, $what:literal) => {
        #[derive(Debug)]
        struct $name($inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reader;
                impl Visitor<'_> for Reader {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $parse(text).map($name).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Reader)
            }
        }
    };
}

from_text!(Time(Duration), parse_duration, "a duration such as `10s`");
from_text!(Rates((f64, f64)), parse_rates, "a rate such as `500/s`");
from_text!(WrittenMethod(http::Method), request::parse_method, "an HTTP method");
from_text!(
    WrittenAssertion(Assertion),
    |text: &str| text.parse::<Assertion>(),
    "an assertion such as `p99<50ms`"
);

/// The only version of the format.
const VERSION: u64 = 1;

/// `500/s`, or `50/s..500/s` for a ramp.
fn parse_rates(text: &str) -> Result<(f64, f64), String> {
    match text.split_once("..") {
        None => parse_rate(text).map(|rate| (rate, rate)),
        Some((from, to)) => Ok((parse_rate(from.trim())?, parse_rate(to.trim())?)),
    }
}

/// Reads a scenario file; `-` is standard input. Paths in it are relative to it.
pub fn read(path: &Path) -> anyhow::Result<Scenario> {
    let unreadable =
        |e: std::io::Error| WithCode(Code::Usage, format!("cannot read `{}`: {e}", path.display()));
    let text = match path.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()).map_err(unreadable)?,
        false => std::fs::read_to_string(path).map_err(unreadable)?,
    };
    parse(&text, path.parent().unwrap_or(Path::new(""))).map_err(|error| {
        let name = path.display();
        let place = error.place.map_or(String::new(), |(line, column)| format!(":{line}:{column}"));
        WithCode(Code::Usage, format!("{name}{place}: {}", error.message)).into()
    })
}

/// What is wrong with a scenario, and where.
#[derive(Debug)]
struct ScenarioError {
    message: String,
    place: Option<(usize, usize)>,
}

impl From<String> for ScenarioError {
    fn from(message: String) -> Self {
        Self { message, place: None }
    }
}

fn parse(text: &str, folder: &Path) -> Result<Scenario, ScenarioError> {
    let written: Written = serde_yaml::from_str(text).map_err(|e| {
        let place = e.location().map(|l| (l.line(), l.column()));
        // The place is told before the message, so it need not be repeated at its end.
        let full = e.to_string();
        let message = full.split(" at line ").next().unwrap_or(&full).to_owned();
        ScenarioError { message, place }
    })?;
    if written.version != VERSION {
        let version = written.version;
        return Err(format!("version {version} of scenarios is not known; there is version {VERSION}").into());
    }
    let targets = targets(&written, folder)?;
    let names: Vec<_> = targets.iter().map(|t| t.name.clone()).collect();
    let weights: Vec<_> = written.requests.iter().map(|r| r.weight.unwrap_or(1)).collect();
    let mut phases = Vec::with_capacity(written.phases.len());
    for (i, phase) in written.phases.iter().enumerate() {
        phases.push(self::phase(i, phase, &written.consumers, &names, &weights)?);
    }
    let draft = Draft {
        targets,
        phases,
        connections: written.connections.unwrap_or(0),
        streams: written.streams.unwrap_or(1),
        timeout: written.timeout.map_or(Duration::ZERO, |t| t.0),
        http2: written.http2,
        seed: written.seed.unwrap_or(0),
        ..Draft::default()
    };
    if !written.consumers.is_empty() && written.config.is_none() {
        return Err("`consumers` are those of a config; name it with `config`".to_owned().into());
    }
    let assertions = written.assert.into_iter().map(|a| a.0).collect();
    let config = written.config.map(|c| folder.join(c));
    Ok(Scenario { draft, config, consumers: written.consumers, assertions })
}

fn targets(written: &Written, folder: &Path) -> Result<Vec<Target>, String> {
    let base = written.target.trim_end_matches('/');
    let mut out: Vec<Target> = Vec::with_capacity(written.requests.len());
    for (i, r) in written.requests.iter().enumerate() {
        let wrong = |e: &dyn std::fmt::Display| format!("requests[{i}]: {e}");
        if !r.path.starts_with('/') {
            return Err(wrong(&format!("`path` is `{}`, but paths begin with `/`", r.path)));
        }
        let url = format!("{base}{}", r.path);
        let url = url.parse().map_err(|e| wrong(&format!("`{url}` is not a URL: {e}")))?;
        let mut headers = Vec::new();
        for (name, value) in &r.headers {
            headers.push(request::header(name, value).map_err(|e| wrong(&e))?);
        }
        let body = r.body.as_deref().map(|body| match body.strip_prefix('@') {
            Some(file) => format!("@{}", folder.join(file).display()),
            None => body.to_owned(),
        });
        let method = r.method.as_ref().map(|m| &m.0);
        let mut target = request::target(&url, method, &headers, body.as_deref()).map_err(|e| wrong(&e))?;
        if let Some(name) = &r.name {
            target.name.clone_from(name);
        }
        if out.iter().any(|other| other.name == target.name) {
            return Err(wrong(&format!("there is a request `{}` already; give each a `name`", target.name)));
        }
        out.push(target);
    }
    Ok(out)
}

fn phase(
    index: usize,
    written: &WrittenPhase,
    consumers: &[String],
    requests: &[String],
    weights: &[u32],
) -> Result<Phase, String> {
    let pace = written.rate.as_ref().map_or(Pace::Closed, |r| Pace::Rate { from: r.0.0, to: r.0.1 });
    let all = |n: usize| (0..n).map(|i| (i, 1)).collect();
    let senders = match &written.consumers {
        Some(named) => weighted(named, consumers).map_err(|e| format!("phases[{index}].consumers: {e}"))?,
        None => all(consumers.len()),
    };
    let targets = match &written.requests {
        Some(named) => weighted(named, requests).map_err(|e| format!("phases[{index}].requests: {e}"))?,
        None => weights.iter().copied().enumerate().collect(),
    };
    let senders: Vec<(Option<usize>, u32)> = match consumers.is_empty() {
        true => vec![(None, 1)],
        false => senders.into_iter().map(|(c, weight): (usize, u32)| (Some(c), weight)).collect(),
    };
    let mut mix = Vec::with_capacity(senders.len() * targets.len());
    for &(consumer, c) in &senders {
        for &(target, t) in &targets {
            mix.push(Share { consumer, target, weight: c.saturating_mul(t) });
        }
    }
    let name = written.name.clone().unwrap_or_else(|| format!("phase {}", index + 1));
    Ok(Phase { name, pace, duration: Some(written.duration.0), mix })
}

/// Names with weights, as places in the list of all names.
fn weighted(named: &BTreeMap<String, u32>, all: &[String]) -> Result<Vec<(usize, u32)>, String> {
    let find = |name: &String| {
        all.iter().position(|n| n == name).ok_or_else(|| {
            let near = nearest(name, all.iter().map(String::as_str));
            let hint = near.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            format!("there is no `{name}`{hint}")
        })
    };
    named.iter().map(|(name, weight)| Ok((find(name)?, *weight))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "version: 1\ntarget: http://127.0.0.1:8000/\n";

    #[test]
    fn phases_have_their_own_mix() {
        let text = format!(
            "{HEAD}config: k.yaml\nconsumers: [alice, bob]\nseed: 7\ntimeout: 2s\nrequests:\n  - {{ name: list, path: /o }}\n  \
             - {{ name: make, method: post, path: /o, body: x, weight: 3 }}\nphases:\n  - {{ duration: 5s, rate: 50/s }}\n  \
             - {{ name: ramp, duration: 20s, rate: 50/s..500/s, consumers: {{ bob: 2 }}, requests: {{ make: 4 }} }}\n\
             assert: ['p99<50ms']\n"
        );
        let scenario = parse(&text, Path::new("dir")).unwrap();
        assert_eq!(scenario.config.as_deref(), Some(Path::new("dir/k.yaml")));
        assert_eq!(scenario.assertions.len(), 1);
        let draft = scenario.draft;
        assert_eq!(draft.targets[1].method, http::Method::POST);
        assert_eq!(draft.targets[1].uri, "http://127.0.0.1:8000/o");
        assert_eq!(draft.phases[0].mix.iter().map(|s| s.weight).collect::<Vec<_>>(), [1, 3, 1, 3]);
        assert_eq!(draft.phases[1].pace, Pace::Rate { from: 50.0, to: 500.0 });
        let only = draft.phases[1].mix[0];
        assert_eq!((only.consumer, only.target, only.weight, draft.phases[1].mix.len()), (Some(1), 1, 8, 1));
    }

    #[test]
    fn mistakes_have_a_place_or_a_path() {
        let check = |rest: &str, place: Option<(usize, usize)>, part: &str| {
            let error = parse(&format!("{HEAD}{rest}"), Path::new("")).map(|_| ()).unwrap_err();
            assert!(error.message.contains(part), "{rest}: {error:?}");
            if place.is_some() {
                assert_eq!(error.place, place, "{rest}: {error:?}");
            }
        };
        let requests = "requests: [{ path: /o }]\n";
        check(&format!("{requests}phases:\n  - duration: 5\n    rate: 1/s\n"), Some((5, 15)), "no unit");
        check(&format!("{requests}phases:\n  - duration: 5s\n    rate: fast\n"), Some((6, 11)), "not a rate");
        check(
            &format!("{requests}phases:\n  - duration: 5s\n    rats: 1/s\n"),
            Some((6, 5)),
            "unknown field `rats`",
        );
        check(&format!("{requests}phases: []\nassert: ['p99<5']\n"), None, "no unit");
        check("requests: [{ path: o }]\nphases: []\n", None, "begin with `/`");
        check("requests: [{ path: /o }, { path: /o }]\nphases: []\n", None, "already");
        let phases = "phases: [{ duration: 1s, requests: { lisst: 1 } }]\n";
        check(&format!("requests: [{{ name: list, path: /o }}]\n{phases}"), None, "did you mean `list`");
        check(&format!("consumers: [alice]\n{requests}phases: []\n"), None, "name it with `config`");
        let error = parse("version: 2\ntarget: x\nrequests: []\nphases: []\n", Path::new(""))
            .map(|_| ())
            .unwrap_err();
        assert!(error.message.contains("version 2"), "{error:?}");
    }
}
