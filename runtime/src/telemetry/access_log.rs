//! One JSON line a request. A worker gathers lines and hands them to one writing thread; a slow disk costs lines, which
//! are counted, and never a request.

use std::cell::RefCell;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::time::Duration;

use crate::exchange::Exchange;
use crate::limit::StoreError;
use crate::message::Version;
use crate::policy::reply::json_string;
use crate::upstream::unix;
use crate::worker::respond::Ending;

/// Lines are handed on when so many bytes of them are gathered, or at the worker's next tick.
const BATCH: usize = 16 * 1024;
/// Batches that may wait for the writing thread.
const WAITING: usize = 256;

/// The writing thread's end.
#[derive(Clone)]
pub struct Log {
    send: SyncSender<Vec<u8>>,
    pub dropped: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
}

impl Log {
    /// Starts a thread that writes to `to`.
    pub fn start(mut to: Box<dyn std::io::Write + Send>) -> std::io::Result<Self> {
        let (send, receive) = mpsc::sync_channel::<Vec<u8>>(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicBool::new(false));
        let (lost, ended) = (Arc::clone(&dropped), Arc::clone(&done));
        std::thread::Builder::new().name("gw-log".into()).spawn(move || {
            while let Ok(batch) = receive.recv() {
                if to.write_all(&batch).and_then(|()| to.flush()).is_err() {
                    lost.fetch_add(batch.iter().filter(|b| **b == b'\n').count() as u64, Ordering::Relaxed);
                }
            }
            ended.store(true, Ordering::Release);
        })?;
        Ok(Self { send, dropped, done })
    }

    /// Waits until what was handed on is written, at most so long. To be called when all writers are gone.
    pub fn close(self, patience: Duration) {
        let done = Arc::clone(&self.done);
        drop(self.send);
        let until = crate::clock::monotonic() + patience;
        while !done.load(Ordering::Acquire) && crate::clock::monotonic() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// One worker's writer.
    pub fn writer(&self) -> Writer {
        Writer { log: self.clone(), lines: RefCell::default() }
    }
}

/// One worker's lines.
pub struct Writer {
    log: Log,
    lines: RefCell<Vec<u8>>,
}

impl Writer {
    /// Hands on what is gathered.
    pub fn flush(&self) {
        let batch = std::mem::take(&mut *self.lines.borrow_mut());
        if batch.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) =
            self.log.send.try_send(batch)
        {
            let lost = batch.iter().filter(|b| **b == b'\n').count() as u64;
            self.log.dropped.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Adds a request's line. The query is left out: credentials travel in it.
    pub fn request(&self, x: &Exchange, ending: &Ending, took: Duration) {
        {
            let mut out = self.lines.borrow_mut();
            line(&mut out, x, ending, took);
        }
        if self.lines.borrow().len() >= BATCH {
            self.flush();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}

fn ms(took: Duration) -> f64 {
    (took.as_micros() as f64 / 10.0).round() / 100.0
}

fn line(out: &mut Vec<u8>, x: &Exchange, ending: &Ending, took: Duration) {
    let text = |t: &str| json_string(t);
    let route = x.route.map(|r| &x.snapshot.routes[r.0 as usize]);
    let named = |name: Option<&str>| name.map_or("null".to_owned(), json_string);
    let version = match x.request.version {
        Version::H10 => "1.0",
        Version::H11 => "1.1",
        Version::H2 => "2",
    };
    let _ = write!(
        out,
        "{{\"time\":\"{}\",\"request_id\":\"{}\",\"client_ip\":\"{}\",\"method\":{},\"host\":{},\"path\":{},\"http\":\"{version}\",\
         \"tls\":{},\"status\":{},\"route\":{},\"service\":{},\"consumer\":{}",
        timestamp(x.now.unix_ms),
        x.request_id,
        x.client.ip,
        text(&x.request.method),
        text(&x.request.host),
        text(&x.request.raw_path),
        x.client.tls,
        x.response.status,
        named(route.map(|r| &*r.labels.route)),
        named(route.map(|r| &*r.labels.service).filter(|s| !s.is_empty())),
        named(x.consumer().and_then(|c| c.username.as_deref().or(c.custom_id.as_deref()))),
    );
    match x.upstream.addr {
        Some(addr) => {
            let _ = match unix::path_of(addr) {
                Some(path) => write!(out, ",\"upstream\":{}", text(&format!("unix:{}", path.display()))),
                None => write!(out, ",\"upstream\":\"{addr}\""),
            };
        }
        None => out.extend_from_slice(b",\"upstream\":null"),
    }
    match x.upstream.status {
        Some(status) => {
            let _ = write!(out, ",\"upstream_status\":{status}");
        }
        None => out.extend_from_slice(b",\"upstream_status\":null"),
    }
    let waited = match (x.upstream.began, x.upstream.first_byte) {
        (Some(began), Some(first)) => Some(first.duration_since(began)),
        _ => None,
    };
    let gateway = x.upstream.began.map_or(took, |b| b.duration_since(x.now.instant));
    let _ = write!(
        out,
        ",\"request_bytes\":{},\"response_bytes\":{},\"total_ms\":{},\"gateway_ms\":{},\"upstream_ms\":{}",
        ending.request_bytes,
        ending.response_bytes,
        ms(took),
        ms(gateway),
        waited.map_or("null".to_owned(), |w| ms(w).to_string()),
    );
    if let Some(id) = &x.correlation_id {
        let _ = write!(out, ",\"correlation_id\":{}", text(id));
    }
    if let Some(super::Why(why)) = x.kept() {
        let _ = write!(out, ",\"error\":{}", text(why));
    }
    if !x.limit_notes.is_empty() {
        out.extend_from_slice(b",\"limits\":[");
        for (i, note) in x.limit_notes.iter().enumerate() {
            let (comma, limit) = (if i > 0 { "," } else { "" }, text(&note.limit));
            let (result, used) = (note.verdict.name(), note.used_percent);
            let _ =
                write!(out, "{comma}{{\"limit\":{limit},\"result\":\"{result}\",\"used_percent\":{used}}}");
        }
        out.push(b']');
    }
    if let Some(error) = x.kept::<StoreError>() {
        let _ = write!(out, ",\"limit_store_error\":{}", text(&error.to_string()));
    }
    if ending.broken {
        out.extend_from_slice(b",\"aborted\":true");
    }
    out.extend_from_slice(b"}\n");
}

/// RFC 3339 in UTC, with milliseconds.
pub(crate) fn timestamp(unix_ms: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(unix_ms as i64).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(timestamp(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
