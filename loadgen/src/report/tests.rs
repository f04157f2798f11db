use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};

use super::*;
use crate::limits::{Period, Rule};
use crate::plan::{Consumer, Draft, Phase, Target};
use crate::schedule::Pace;
use crate::tally::{End, Failure, Sample, Tally};

/// 2024-05-01T12:00:30Z.
const STARTED: u64 = 1_714_564_830_000_000_000;

fn report(change: &dyn Fn(&mut Tally), assertions: &[&str]) -> Report {
    let target = Target {
        name: "orders".into(),
        method: Method::GET,
        uri: "http://h:1/orders".parse().unwrap(),
        headers: HeaderMap::new(),
        body: bytes::Bytes::new(),
    };
    let consumer = Consumer {
        name: "<alice>".into(),
        headers: vec![(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer very-secret"))],
    };
    let limit = Limit {
        name: "`rate-limiting` on route `orders`".into(),
        rule: Rule::FixedWindow { limit: 100, period: Period::Minute },
        members: vec![limits::Member { consumer: 0, target: 0 }],
        counts_rejected: false,
    };
    let duration = Some(Duration::from_secs(10));
    let plan = Draft {
        targets: vec![target],
        consumers: vec![consumer],
        phases: vec![Phase {
            name: "all".into(),
            pace: Pace::Rate { from: 100.0, to: 100.0 },
            duration,
            mix: Vec::new(),
        }],
        connections: 4,
        streams: 1,
        limits: vec![limit],
        timeout: Duration::from_secs(1),
        ..Draft::default()
    };
    let mut tally = Tally::new(true);
    for i in 0..1000 {
        let at = Duration::from_millis(i * 10);
        let (status, ms) = if i < 100 { (200, 5) } else { (429, 1) };
        let received = at + Duration::from_millis(ms);
        tally.record(&Sample {
            consumer: 0,
            target: 0,
            due: at,
            sent: at,
            received,
            end: End::Status(status),
            bytes: 10,
        });
    }
    change(&mut tally);
    let offered = 1000;
    let duration = Duration::from_secs(10);
    let outcome = Outcome { tally, duration, offered, interrupted: false, started_unix_ns: STARTED };
    let assertions: Vec<_> = assertions.iter().map(|a| a.parse().unwrap()).collect();
    Report::new(plan.check().unwrap(), outcome, &assertions)
}

fn timeout(tally: &mut Tally) {
    let end = End::Failed(Failure::Timeout);
    let (sent, received) = (Duration::from_secs(9), Duration::from_secs(10));
    tally.record(&Sample { consumer: 0, target: 0, due: sent, sent, received, end, bytes: 0 });
}

#[test]
fn the_text_says_what_matters_and_in_order() {
    let report = report(&timeout, &["p99<50ms", "errors==0"]);
    let text = text::render(&report, text::Style::default());
    let mut at = 0;
    for part in [
        "GET http://h:1/",
        "open loop 100/s for 10s",
        "offered   1 000 (100/s)",
        "from due to done",
        "2xx",
        "429",
        "errors",
        "statuses  200: 100   429: 900",
        "timeout: 1",
        "limits",
        "<alice>: 100 per minute (calendar windows)",
        "12:00:00 – 12:01:00",
        "held *",
        "* began before the run",
        "nobody was provably admitted beyond a limit",
        "ok      p99<50ms",
        "FAILED  errors==0",
    ] {
        let found = text[at..].find(part);
        assert!(found.is_some(), "`{part}` is missing or out of order:\n{text}");
        at += found.unwrap();
    }
    assert!(!text.contains("INVALID") && !text.contains('\u{1b}'), "{text}");
    assert!(!report.assertions_hold() && report.limits_hold());
}

#[test]
fn an_invalid_run_says_so_first() {
    let mut report = report(&|_| {}, &[]);
    report.validity.reasons.push("the moon was full".to_owned());
    let text = text::render(&report, text::Style::default());
    assert!(text.find("INVALID").unwrap() < text.find("offered").unwrap(), "{text}");
    assert!(html::render(&report).contains("the moon was full"));
    assert_eq!(json::render(&report)["validity"]["status"], "invalid");
}

#[test]
fn the_json_names_its_schema_and_keeps_classes_apart() {
    let report = report(&timeout, &["status.429>0"]);
    let json = json::render(&report);
    assert_eq!(json["schema"], "gw.bench/1");
    assert_eq!(json["classes"]["2xx"]["count"], 100);
    assert_eq!(json["classes"]["429"]["count"], 900);
    assert_eq!(json["classes"]["errors"]["count"], 1);
    assert_eq!(json["errors"]["timeout"]["count"], 1);
    assert_eq!(json["statuses"]["429"], 900);
    let close = |value: &serde_json::Value, want: f64| {
        let got = value.as_f64().unwrap();
        assert!((got - want).abs() <= want / 500.0, "{got}, not {want}");
    };
    close(&json["p50"], 5000.0);
    close(&json["classes"]["429"]["response_us"]["p99"], 1000.0);
    assert!(json["classes"]["2xx"]["response_us"]["p999"].is_null(), "100 samples have no p99.9");
    let window = &json["limits"][0]["windows"][0];
    assert_eq!((window["admitted"].as_u64(), window["allowed"].as_u64()), (Some(100), Some(100)));
    assert_eq!(window["verdict"], "held");
    assert_eq!(json["assertions"][0]["pass"], true);
}

#[test]
fn the_page_stands_alone_and_escapes_what_it_shows() {
    let page = html::render(&report(&timeout, &["p99<50ms"]));
    assert!(page.contains("&lt;alice&gt;") && !page.contains("<alice>"));
    assert_eq!(page.matches("<svg").count(), 3);
    for foreign in ["http-equiv", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let data = page.split("id=\"gw-bench\">").nth(1).unwrap().split("</script>").next().unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(data).unwrap()["schema"], "gw.bench/1");
}

#[test]
fn credentials_appear_in_no_format() {
    let report = report(&|_| {}, &[]);
    for output in [
        text::render(&report, text::Style { color: true }),
        html::render(&report),
        json::render(&report).to_string(),
    ] {
        assert!(!output.contains("very-secret"));
    }
}

#[test]
fn a_limit_that_was_broken_is_called_broken() {
    let report = report(
        &|tally| {
            for e in tally.events.iter_mut().take(103) {
                e.fate = crate::tally::Fate::Admitted;
            }
        },
        &["limits.excess==0"],
    );
    assert!(!report.limits_hold() && !report.assertions_hold());
    assert!(text::render(&report, text::Style::default()).contains("OVER by at least 3"));
}
