//! Asks directories. Each worker keeps connections of its own to each server, and uses one for one question at a time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::clock;
use crate::ldap::{self, Bind, Server, Tls, Unavailable};

/// Connections to one server that a worker has at the same time; more questions wait.
const MOST: usize = 32;
/// Idle connections to one server that a worker keeps.
const KEPT: usize = 8;
/// Servers that a worker keeps connections to. New configs make new ones.
const SERVERS: usize = 64;

trait Stream: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> Stream for T {}

struct Connection {
    stream: Pin<Box<dyn Stream>>,
    /// The number of the last message, from 1 to 127 and over again.
    id: u8,
    idle_since: Instant,
}

struct Pool {
    /// Keeps the server's address its own, by which the pool is found.
    server: Arc<Server>,
    slots: Rc<Semaphore>,
    idle: Vec<Connection>,
}

/// One worker's connections.
#[derive(Default)]
pub struct Directories(RefCell<HashMap<usize, Pool>>);

impl Directories {
    /// Whether name and password belong together.
    pub async fn bind(&self, question: &Bind) -> Result<bool, Unavailable> {
        let server = &question.server;
        match tokio::time::timeout(server.timeout, self.ask(question)).await {
            Ok(answer) => answer,
            Err(_) => Err(Unavailable::Timeout),
        }
    }

    async fn ask(&self, question: &Bind) -> Result<bool, Unavailable> {
        let slots = self.slots(&question.server);
        let _slot = slots.acquire().await.map_err(|_| Unavailable::Connection)?;
        // The server may have closed a connection that lay idle, so that its failure says nothing yet.
        if let Some(mut used) = self.take(&question.server)
            && let Ok(code) = used.bind(question).await
        {
            self.put_back(&question.server, used);
            return ldap::verdict(code);
        }
        let mut fresh = Connection::open(&question.server).await?;
        let code = fresh.bind(question).await?;
        self.put_back(&question.server, fresh);
        ldap::verdict(code)
    }

    fn slots(&self, server: &Arc<Server>) -> Rc<Semaphore> {
        let mut pools = self.0.borrow_mut();
        let key = Arc::as_ptr(server) as usize;
        if pools.len() >= SERVERS && !pools.contains_key(&key) {
            // Those that only this pool still knows are of configs that are gone.
            pools.retain(|_, pool| Arc::strong_count(&pool.server) > 1);
        }
        let pool = pools.entry(key).or_insert_with(|| Pool {
            server: Arc::clone(server),
            slots: Rc::new(Semaphore::new(MOST)),
            idle: Vec::new(),
        });
        Rc::clone(&pool.slots)
    }

    fn take(&self, server: &Arc<Server>) -> Option<Connection> {
        let mut pools = self.0.borrow_mut();
        let pool = pools.get_mut(&(Arc::as_ptr(server) as usize))?;
        let now = clock::monotonic();
        pool.idle.retain(|c| now.duration_since(c.idle_since) < server.keepalive);
        pool.idle.pop()
    }

    fn put_back(&self, server: &Arc<Server>, mut connection: Connection) {
        connection.idle_since = clock::monotonic();
        if let Some(pool) = self.0.borrow_mut().get_mut(&(Arc::as_ptr(server) as usize))
            && pool.idle.len() < KEPT
        {
            pool.idle.push(connection);
        }
    }
}

impl Connection {
    async fn open(server: &Server) -> Result<Self, Unavailable> {
        let tcp = TcpStream::connect((server.host.as_str(), server.port)).await;
        let tcp = tcp.map_err(|_| Unavailable::Connection)?;
        let _ = tcp.set_nodelay(true);
        let plain = |stream| Self { stream, id: 0, idle_since: clock::monotonic() };
        let (config, mut tcp) = match &server.tls {
            Tls::None => return Ok(plain(Box::pin(tcp))),
            Tls::Direct(config) => (config, plain(Box::pin(tcp))),
            Tls::Start(config) => {
                let mut clear = plain(Box::pin(tcp));
                let id = clear.next_id();
                if clear.exchange(id, &ldap::start_tls_request(id)).await? != 0 {
                    return Err(Unavailable::Tls);
                }
                (config, clear)
            }
        };
        let name = ServerName::try_from(server.host.clone()).map_err(|_| Unavailable::Tls)?;
        let tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp.stream).await;
        tcp.stream = Box::pin(tls.map_err(|_| Unavailable::Tls)?);
        Ok(tcp)
    }

    fn next_id(&mut self) -> u8 {
        self.id = self.id % 127 + 1;
        self.id
    }

    async fn bind(&mut self, question: &Bind) -> Result<u8, Unavailable> {
        let id = self.next_id();
        self.exchange(id, &ldap::bind_request(id, &question.name, &question.password)).await
    }

    /// Sends a request and reads the result code of its answer.
    async fn exchange(&mut self, id: u8, request: &[u8]) -> Result<u8, Unavailable> {
        let lost = |_| Unavailable::Connection;
        self.stream.write_all(request).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)?;
        let mut answer = Vec::new();
        loop {
            let need = match ldap::length(&answer)? {
                Some(whole) if answer.len() >= whole => return ldap::result_code(id, &answer),
                Some(whole) => whole - answer.len(),
                // Byte by byte, so that nothing of the next message is read.
                None => 1,
            };
            let start = answer.len();
            answer.resize(start + need, 0);
            self.stream.read_exact(&mut answer[start..]).await.map_err(lost)?;
        }
    }
}
