//! `bot-detection`: refuse clients by what they call themselves.

use regex::RegexSet;

use super::{Cx, Descriptor, Flow, Policy, Reply};
use crate::diag::{Diagnostic, codes};
use crate::exchange::Exchange;
use crate::message::names;
use crate::model::schema::{Field, Kind, Record, TEXT};

static PLUGIN: Descriptor = Descriptor {
    name: "bot-detection",
    summary: "refuse crawlers and scripts by their User-Agent",
    doc: "\
## What it does
Refuses requests whose `User-Agent` is that of a crawler, a downloader or a generic HTTP library.

## Why
It keeps away bots that say what they are. Those that lie pass: this is housekeeping, not protection.

## Example
```yaml
plugins:
  - name: bot-detection
    config: { allow: ['^monitor/\\d'], deny: [curl] }
```

## Behaviour
A client without `User-Agent` passes; one with two gets 400 `Only one User-Agent header allowed`. `allow` is looked at
first, then `deny`, then the built-in list; refusals are 403 `Forbidden`. Expressions match anywhere in the field.
",
    fields: &[
        Field::new("allow", Kind::List(&TEXT), "Regular expressions of clients that always pass."),
        Field::new("deny", Kind::List(&TEXT), "Regular expressions of clients that never pass."),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: &[],
};

/// Clients that are refused unless the config allows them, by family.
const BOTS: &[&str] = &[
    // Search engines and archives that go by a name of their own.
    r"(?i)\b(?:Googlebot|AdsBot-Google|Mediapartners-Google|Google-(?:Extended|InspectionTool|Read-Aloud)|bingbot|BingPreview|msnbot|Slurp|DuckDuckBot|Baiduspider|YandexBot|Yandex(?:Images|Metrika|Video)|Sogou|Exabot|Applebot|ia_archiver|archive\.org_bot|heritrix|CCBot|Yeti|Seznambot|Qwantify|PetalBot)\b",
    // Previews of links in social networks and messengers.
    r"(?i)\b(?:facebookexternalhit|facebookcatalog|Twitterbot|LinkedInBot|Slackbot|TelegramBot|Discordbot|Pinterest(?:bot)?/|redditbot|SkypeUriPreview|WhatsApp/)",
    // Monitors.
    r"(?i)\b(?:Pingdom(?:\.com_bot|TMS)|UptimeRobot|StatusCake|Site24x7|GomezAgent|Catchpoint|YottaaMonitor|HttpMonitor|New ?Relic ?Pinger)",
    // Rank and content analysers.
    r"(?i)\b(?:AhrefsBot|SemrushBot|MJ12bot|DotBot|rogerbot|BLEXBot|SEOkicks|Screaming Frog|DataForSeoBot|BoardReader|Genieo|Netvibes|NewsGator)",
    // Language models.
    r"(?i)\b(?:GPTBot|ChatGPT-User|OAI-SearchBot|ClaudeBot|anthropic-ai|PerplexityBot|Bytespider|Amazonbot|cohere-ai)\b",
    // Whatever calls itself a bot, spider or crawler and gives a version: `name-bot/1.0`.
    r"(?i)[a-z][a-z0-9_.-]*(?:bot|spider|crawler)[/ -]v?\d",
    r"(?i)\b(?:web)?(?:crawler|spider)\b",
    // Older crawlers by name and version.
    r"\b(?:Nutch|Grub|Steeler|EDI|Argus|WebZIP|WebCrunch|YahooSeeker|DataparkSearch|larbin|Scrapy|htdig|holmes|scooter|ZyBorg)/\d",
    // Libraries of Java and its kin.
    r"(?:Apache-HttpClient|Google-HTTP-Java-Client|AsyncHttpClient|Jakarta Commons-HttpClient|Java/\d|okhttp|JNLP|Jersey/\d)",
    // Libraries of scripting languages.
    r"(?i)(?:Python-urllib|python-requests|python-httpx|aiohttp/|libwww-perl|LWP::|PycURL|Faraday v|GuzzleHttp|http%20client|WinHTTP|TLSProber)",
    // Libraries of JavaScript and Go.
    r"(?:Go-http-client|axios/|node-fetch|undici|superagent|\bgot[/ ]\(?)",
    // SDKs of Amazon's cloud.
    r"\b(?:aws-sdk-|aws-cli/|Boto(?:3|core)?/|S3Console)",
    r"(?:MSIE \d+\.\d+.*MSIECrawler)",
    // Validators and feeds.
    r"(?i)\b(?:W3C_Validator|W3C-checklink|Feedfetcher|FeedBurner|SimplePie|SimpleRSS|Xenu)",
];

/// See the module.
pub struct BotDetection {
    allow: RegexSet,
    deny: RegexSet,
    bots: RegexSet,
}

impl Policy for BotDetection {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let allow = expressions(config, "allow", cx);
        let deny = expressions(config, "deny", cx);
        Some(Self { allow: allow?, deny: deny?, bots: RegexSet::new(BOTS).ok()? })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let error = |status, message| Flow::Reply(Reply::error(&x.request, x.request_id, status, message));
        let name = names::USER_AGENT;
        let mut agents = x.request.fields.all(&name);
        let Some(agent) = agents.next() else { return Flow::Next };
        if agents.next().is_some() {
            return error(400, "Only one User-Agent header allowed");
        }
        let agent = String::from_utf8_lossy(agent);
        if self.allow.is_match(&agent) {
            return Flow::Next;
        }
        if self.deny.is_match(&agent) || self.bots.is_match(&agent) {
            return error(403, "Forbidden");
        }
        Flow::Next
    }
}

fn expressions(config: &Record, field: &str, cx: &mut Cx<'_>) -> Option<RegexSet> {
    let mut good = true;
    let texts = config.strings(field);
    for text in &texts {
        if let Err(error) = regex::Regex::new(text) {
            let message = format!("`{}` is not a valid regex", text.value);
            cx.diags.push(Diagnostic::new(&codes::INVALID_VALUE, text.span, message).note(error.to_string()));
            good = false;
        }
    }
    if !good {
        return None;
    }
    match RegexSet::new(texts.iter().map(|t| t.value.as_str())) {
        Ok(set) => Some(set),
        Err(error) => {
            let message = format!("the expressions of `{field}` are too large together: {error}");
            cx.report(&codes::INVALID_VALUE, config.span_of(field), message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::{check, refuses};

    fn agent(config: &serde_json::Value, agent: &str, want: &str) {
        check::<BotDetection>(config.clone(), &format!("GET /\nUser-Agent: {agent}"), want);
    }

    #[test]
    fn bots_are_refused_and_people_pass() {
        check::<BotDetection>(json!({}), "GET /", "next");
        let two = "400\nbody Only one User-Agent header allowed";
        check::<BotDetection>(json!({}), "GET /\nUser-Agent: a\nUser-Agent: b", two);
        for bot in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            "Twitterbot/1.0",
            "Some-new_crawler/3.2",
            "Go-http-client/1.1",
            "okhttp/4.9",
            "axios/1.6.0",
            "Apache-HttpClient/4.5.13 (Java/11)",
            "Python-urllib/3.11",
            "aws-sdk-java/1.12",
        ] {
            agent(&json!({}), bot, "403\nbody Forbidden");
        }
        for person in [
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
            "curl/8.5.0",
            "robotics-lab-client",
        ] {
            agent(&json!({}), person, "next");
        }
    }

    #[test]
    fn the_config_comes_before_the_built_in_list() {
        let config = json!({"allow": ["Googlebot"], "deny": ["^curl", "Googlebot"]});
        agent(&config, "Googlebot/2.1", "next");
        agent(&config, "curl/8.5.0", "403");
        agent(&config, "a curl/8.5.0", "next");
        refuses::<BotDetection>(json!({"deny": ["(["]}), "is not a valid regex");
    }
}
