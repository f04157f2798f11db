//! `gw token serve`: an issuer small enough to run beside a test. Not for production: its keys live as long as it does.

mod issuer;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use gw_runtime::token::Algorithm;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::LocalSet;

use self::issuer::Issuer;
use super::mint::algorithm;
use super::seconds;
use crate::exit::{Code, WithCode};

/// Arguments of `gw token serve`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
It answers
  GET  /.well-known/openid-configuration   (and /.well-known/oauth-authorization-server)
  GET  /jwks.json
  POST /token        grant_type=client_credentials, with scope and audience
  POST /introspect   (RFC 7662)
  POST /revoke       (RFC 7009)
  POST /rotate       signs with a new key from now on; the old ones stay published

The client's secret is read from the environment variable that --secret-env names; without one it is made up and printed.")]
pub struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What the issuer calls itself; its own address if not given
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The algorithm that it signs with
    #[arg(long, value_name = "ALG", default_value = "ES256", value_parser = algorithm)]
    alg: Algorithm,
    /// The client that may ask for tokens and introspection
    #[arg(long, value_name = "ID", default_value = "dev")]
    client: String,
    /// The environment variable with the client's secret
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,
    /// `aud` of tokens where the request names none
    #[arg(long, value_name = "AUD")]
    audience: Option<String>,
    /// How long tokens are good
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = seconds)]
    ttl: u64,
}

/// Open connections; more wait.
const MOST_CONNECTIONS: usize = 256;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs it until the process is told to end.
pub fn run(args: Args) -> anyhow::Result<Code> {
    if args.alg.is_symmetric() {
        return Err(
            WithCode(Code::Usage, "an issuer signs with a private key, not with a secret".into()).into()
        );
    }
    let made_up = args.secret_env.is_none();
    let secret = match &args.secret_env {
        Some(name) => std::env::var(name)
            .map_err(|_| WithCode(Code::Usage, format!("there is no environment variable `{name}`")))?,
        None => super::keygen::secret(Algorithm::HS256)?,
    };
    let cannot =
        |e: std::io::Error| WithCode(Code::Environment, format!("cannot listen on {}: {e}", args.listen));
    let listener = std::net::TcpListener::bind(args.listen).map_err(cannot)?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let name = args.issuer.unwrap_or_else(|| format!("http://{addr}"));
    let issuer = Issuer::new(name.clone(), args.alg, args.client, secret.clone(), args.audience, args.ttl);
    let issuer = Rc::new(issuer.map_err(anyhow::Error::msg)?);
    eprintln!("issuer {name} listening on http://{addr}");
    if made_up {
        eprintln!("client `{}`, secret `{secret}`", issuer.client());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        serve(listener, issuer).await
    })?;
    Ok(Code::Ok)
}

async fn serve(listener: tokio::net::TcpListener, issuer: Rc<Issuer>) -> std::io::Result<()> {
    let mut connections = tokio::task::JoinSet::new();
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            _ = end.recv() => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let issuer = Rc::clone(&issuer);
        let service = service_fn(move |request| {
            let issuer = Rc::clone(&issuer);
            async move { Ok::<_, Infallible>(issuer.answer(request).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        connections.spawn_local(http.serve_connection(TokioIo::new(stream), service));
    }
}
