//! What an answer shall be like: from the command line for all, from the query or the headers of a request for one.

use std::time::Duration;

use gw_loadgen::units::{parse_duration, parse_size};
use http::HeaderMap;

/// Everything that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// Wait this long before answering.
    pub delay: Duration,
    /// 200 to 599.
    pub status: u16,
    /// A body of so many bytes instead of the description of the request.
    pub size: Option<u64>,
    /// Send the body without saying its length beforehand.
    pub chunked: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Self { delay: Duration::ZERO, status: 200, size: None, chunked: false }
    }
}

/// More would be a mistake.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);
const LARGEST_SIZE: u64 = 16 << 30;

impl Knobs {
    /// These knobs as changed by a request: `?status=503&delay=200ms&size=64k&chunked=1`, or the headers `X-Echo-Status`,
    /// `X-Echo-Delay`, `X-Echo-Size` and `X-Echo-Chunked`. Headers win.
    pub fn of_request(self, query: Option<&str>, headers: &HeaderMap) -> Result<Self, String> {
        let mut knobs = self;
        for pair in query.unwrap_or("").split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if matches!(name, "status" | "delay" | "size" | "chunked") {
                knobs.set(name, value)?;
            }
        }
        for name in ["status", "delay", "size", "chunked"] {
            // A header value that is not text is no value that any knob takes.
            if let Some(value) = headers.get(format!("x-echo-{name}")) {
                knobs.set(name, value.to_str().unwrap_or("?"))?;
            }
        }
        Ok(knobs)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let named = |e| format!("`{name}`: {e}");
        match name {
            "status" => self.status = parse_status(value).map_err(named)?,
            "delay" => self.delay = parse_delay(value).map_err(named)?,
            "size" => self.size = Some(parse_body_size(value).map_err(named)?),
            _ => self.chunked = parse_switch(value).map_err(named)?,
        }
        Ok(())
    }
}

/// Reads a status that can end an exchange.
pub fn parse_status(text: &str) -> Result<u16, String> {
    let status = text.parse().ok().filter(|s| (200..600).contains(s));
    status.ok_or_else(|| format!("`{text}` is not a status between 200 and 599"))
}

/// Reads a delay of at most an hour.
pub fn parse_delay(text: &str) -> Result<Duration, String> {
    let delay = parse_duration(text)?;
    if delay > LONGEST_DELAY { Err(format!("`{text}` is longer than an hour")) } else { Ok(delay) }
}

/// Reads the size of a body.
pub fn parse_body_size(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if size > LARGEST_SIZE { Err(format!("`{text}` is more than 16g")) } else { Ok(size) }
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" | "yes" | "on" | "" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(format!("`{text}` is neither `1` nor `0`")),
    }
}
