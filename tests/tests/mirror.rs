//! Copies of requests that go to another service besides.

use std::time::{Duration, Instant};

use gw_tests::scripted::{Scripted, answer};
use gw_tests::serving::{Serving, get, post};

fn config(own: &Scripted, other: &str, plugin: &str) -> String {
    format!(
        "_format_version: \"3.0\"\nservices:\n- {{ name: own, url: \"http://{}/v1\", routes: [{{ name: r, paths: [/api] }}], \
         plugins: [{{ name: mirror, config: {{ service: other, {plugin} }} }}] }}\n\
         - {{ name: other, url: \"{other}\", retries: 0, connect_timeout: 500 }}\n",
        own.addr()
    )
}

fn results(gw: &Serving, result: &str) -> f64 {
    gw.metric(&format!("gw_mirrored_requests_total{{result=\"{result}\"}}"))
}

#[test]
fn the_other_service_gets_what_the_service_gets() {
    let own = Scripted::start(|_| answer(200, "", b"own"));
    let other = Scripted::start(|_| answer(500, "", b"other"));
    let url = format!("http://{}/next", other.addr());
    let mut gw = Serving::start(&config(&own, &url, "max_body: 10"));
    assert_eq!(get(gw.http, "/api/a?b=c").body, "own");
    assert_eq!(post(gw.http, "/api/b", "X-Trace: 7\r\n", "0123456789").body, "own");
    assert_eq!(post(gw.http, "/api/c", "", "0123456789x").body, "own");
    gw.until("the copies are answered", |gw| results(gw, "answered") == 2.0);
    assert_eq!(results(&gw, "uncopied"), 1.0);
    let mut seen = other.seen();
    seen.sort_by_key(|m| m.target().to_owned());
    let targets: Vec<_> = seen.iter().map(|m| format!("{} {}", m.method(), m.target())).collect();
    assert_eq!(targets, ["GET /next/a?b=c", "POST /next/b"]);
    assert_eq!((seen[1].text().as_str(), seen[1].field("x-trace")), ("0123456789", Some("7")));
    let host = other.addr().to_string();
    assert_eq!(seen[1].field("host"), Some(host.as_str()));
    let of_own = own.seen();
    assert_eq!(of_own.iter().map(|m| m.target()).collect::<Vec<_>>(), ["/v1/a?b=c", "/v1/b", "/v1/c"]);
    for m in &seen {
        let forwarded = of_own[0].field("x-forwarded-for");
        assert_eq!(m.field("x-forwarded-for"), forwarded, "it is told about the client as the service is");
    }
}

#[test]
fn a_service_that_hangs_or_is_gone_delays_nobody() {
    let own = Scripted::start(|_| answer(200, "", b"own"));
    let hangs = Scripted::start(|_| {
        std::thread::sleep(Duration::from_secs(3));
        answer(200, "", b"late")
    });
    let url = format!("http://{}", hangs.addr());
    let mut gw = Serving::start(&config(&own, &url, "timeout: 1500, max_in_flight: 2"));
    let since = Instant::now();
    for _ in 0..5 {
        assert_eq!(get(gw.http, "/api").body, "own");
    }
    assert!(since.elapsed() < Duration::from_millis(1400), "{:?}", since.elapsed());
    assert_eq!(results(&gw, "dropped"), 3.0);
    gw.until("the copies time out", |gw| results(gw, "failed") == 2.0);
    assert!(gw.reload(&config(&own, "http://127.0.0.1:1", "share: 50")));
    for _ in 0..20 {
        assert_eq!(get(gw.http, "/api").body, "own");
    }
    gw.until("nobody listens there", |gw| results(gw, "failed") > 8.0);
    assert!(results(&gw, "failed") < 18.0, "half of them are copied");
}
