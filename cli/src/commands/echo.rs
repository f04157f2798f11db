//! `gw echo`: an upstream to try a gateway with.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::echo::{self, Answers, Canned, Knobs, parse_body_size, parse_delay, parse_status};
use crate::exit::{Code, WithCode};

/// Arguments of `gw echo`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "A request can ask for its own answer: `?status=503&delay=200ms&size=64k&chunked=1`, or the \
                        headers X-Echo-Status, X-Echo-Delay, X-Echo-Size and X-Echo-Chunked."
)]
pub struct Args {
    /// Where to listen; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Wait before each answer, for example `20ms`
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = parse_delay)]
    delay: Duration,
    /// Status of each answer
    #[arg(long, value_name = "STATUS", default_value = "200", value_parser = parse_status)]
    status: u16,
    /// Answer with so many bytes, for example `64k`, instead of a description of the request
    #[arg(long, value_name = "BYTES", value_parser = parse_body_size)]
    size: Option<u64>,
    /// Answer with what is written in this file instead, and 404 to everything else
    #[arg(long, value_name = "FILE", long_help = ANSWERS)]
    answers: Option<PathBuf>,
}

const ANSWERS: &str = "\
Answer with what is written in this file instead, and 404 to everything else.

A YAML list of `path` (`*` at its end stands for any rest; the query counts if it has one), and where they matter `host`, \
`method`, `status`, `delay`, `headers` and `body` (JSON, or a text that is sent as it is). The first that fits is given:

  - { host: inventory.internal, path: /products/7, body: { name: Lamp }, delay: 20ms }";

/// Reads answers, where there are any.
pub fn canned(file: Option<&Path>) -> Result<Canned, WithCode> {
    let read = file.map(Canned::read).transpose();
    read.map(Option::unwrap_or_default).map_err(|what| WithCode(Code::Usage, what))
}

/// Runs it until SIGTERM or SIGINT.
pub fn run(args: Args) -> anyhow::Result<Code> {
    let listener = TcpListener::bind(args.listen)
        .map_err(|e| WithCode(Code::Environment, format!("cannot listen on {}: {e}", args.listen)))?;
    let knobs = Knobs { delay: args.delay, status: args.status, size: args.size, chunked: false };
    let canned = canned(args.answers.as_deref())?;
    let echo =
        echo::spawn(listener, Answers { defaults: knobs, canned }).context("cannot start the server")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut term, mut int) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    // Said only now: whoever reads it may ask the server to stop at once.
    crate::output::print(&format!("gw echo listens on http://{}\n", echo.addr()))?;
    runtime.block_on(async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    });
    echo.stop();
    Ok(Code::Ok)
}
