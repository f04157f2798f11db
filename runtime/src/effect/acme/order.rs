//! One order, from the account to the certificate (RFC 8555 section 7).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::client::{Answer, Client, Failure};
use super::storage::Storage;
use crate::acme::Acme;
use crate::acme::account::{Account, By, base64url};
use crate::acme::certificate::{Ours, Request};
use crate::acme::messages::{Authorization, Challenge, Order, Problem, Status, is_token};
use crate::acme::state::Pending;
use crate::worker::context::Worker;

/// Gateways with a common storage look once a second; by then all of them can answer a challenge.
const TELL: Duration = Duration::from_millis(2500);
/// Bounds what the server may say about when to ask again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What an order needs.
pub struct Ordering<'a> {
    pub worker: &'a Worker,
    pub acme: &'a Acme,
    pub storage: &'a Storage,
    /// Makes this gateway answer a challenge, or none any more.
    pub prove: &'a dyn Fn(Option<Pending>),
}

/// Whose requests they are.
struct Session<'a> {
    client: Client<'a>,
    account: Account,
    url: String,
}

impl Session<'_> {
    async fn post(&self, what: &str, url: &str, payload: Option<&Value>) -> Result<Answer, Failure> {
        self.client.post(what, url, &self.account, By::Url(&self.url), payload).await
    }
}

impl Ordering<'_> {
    /// Orders a certificate, with which challenges are answered as they come.
    pub async fn run(&self, domain: &str) -> Result<Ours, Failure> {
        let session = self.session().await?;
        let result = self.order(&session, domain).await;
        if result.as_ref().is_err_and(|f| f.kind == "accountDoesNotExist") {
            // The server has forgotten it: with the same key there will be another next time.
            let mut account = session.account;
            account.url = None;
            self.storage.keep_account(&account.to_text()).await.map_err(Failure::of)?;
            return result.map_err(|f| Failure { refused: false, ..f });
        }
        result
    }

    async fn session(&self) -> Result<Session<'_>, Failure> {
        let client = Client::connect(self.worker, self.acme).await?;
        let kept = self.storage.account().await.map_err(Failure::of)?;
        let mut account = match kept {
            Some(text) => Account::from_text(&text).map_err(Failure::of)?,
            None => {
                let account = Account::generate().map_err(Failure::of)?;
                // Before the server knows it: a key that got lost would leave an account behind.
                self.storage.keep_account(&account.to_text()).await.map_err(Failure::of)?;
                account
            }
        };
        if let Some(url) = account.url.clone() {
            return Ok(Session { client, account, url });
        }
        let what = "the account";
        let mut wanted = json!({ "termsOfServiceAgreed": true });
        if let Some(email) = &self.acme.email {
            wanted["contact"] = json!([format!("mailto:{email}")]);
        }
        let url = client.directory.new_account.clone();
        match &self.acme.external_account {
            Some(binding) => wanted["externalAccountBinding"] = binding.sign(&url, &account),
            None if client.directory.meta.external_account_required => {
                let why = "the server asks for an account of yours: set `gateway.acme.external_account`";
                return Err(Failure { refused: true, ..Failure::of(format!("{what}: {why}")) });
            }
            None => {}
        }
        let answer = client.post(what, &url, &account, By::Key, Some(&wanted)).await?;
        let url =
            answer.location.ok_or_else(|| Failure::of(format!("{what}: the server does not name it")))?;
        account.url = Some(url.clone());
        self.storage.keep_account(&account.to_text()).await.map_err(Failure::of)?;
        Ok(Session { client, account, url })
    }

    async fn order(&self, session: &Session<'_>, domain: &str) -> Result<Ours, Failure> {
        let what = "the order";
        let wanted = json!({ "identifiers": [{ "type": "dns", "value": domain }] });
        let answer = session.post(what, &session.client.directory.new_order, Some(&wanted)).await?;
        let order: Order = answer.read(what)?;
        let url =
            answer.location.ok_or_else(|| Failure::of(format!("{what}: the server does not name it")))?;
        for authorization in &order.authorizations {
            self.authorize(session, domain, authorization).await?;
        }
        let order = settle(session, &url, Status::Ready).await?;
        let request = Request::new(domain, self.acme.key_type).map_err(Failure::of)?;
        if order.status != Status::Valid {
            let csr = json!({ "csr": base64url(&request.der) });
            session.post(what, &order.finalize, Some(&csr)).await?;
        }
        let order = settle(session, &url, Status::Valid).await?;
        let what = "the certificate";
        let url =
            order.certificate.ok_or_else(|| Failure::of(format!("{what}: the server does not name it")))?;
        let answer = session.post(what, &url, None).await?;
        let chain = std::str::from_utf8(&answer.body)
            .map_err(|_| Failure::of(format!("{what}: the server's answer is no text")))?;
        let pem = format!("{}{chain}", request.key);
        Ours::read(&pem, domain).map_err(|e| Failure::of(format!("{what}: {e}")))
    }

    /// Proves one name.
    async fn authorize(&self, session: &Session<'_>, domain: &str, url: &str) -> Result<(), Failure> {
        let what = "the authorization";
        let authorization: Authorization = session.post(what, url, None).await?.read(what)?;
        if !authorization.identifier.value.eq_ignore_ascii_case(domain) {
            return Err(Failure::of(format!("{what}: it is for another name than `{domain}`")));
        }
        if authorization.status == Status::Valid {
            return Ok(());
        }
        let kind = self.acme.challenge;
        let offered = authorization.challenges.iter().find(|c| c.kind == kind.name());
        let Some(challenge) = offered.filter(|c| is_token(&c.token)) else {
            let message = format!("{what}: the server offers no {} for `{domain}`", kind.name());
            return Err(Failure { refused: true, ..Failure::of(message) });
        };
        let token = challenge.token.clone();
        let key_authorization = session.account.key_authorization(&token).map_err(Failure::of)?;
        let pending = Pending { kind, domain: domain.to_owned(), token, key_authorization };
        let _proving = Proving(self.prove);
        (self.prove)(Some(pending.clone()));
        if self.storage.is_shared() {
            self.storage.publish(&pending).await.map_err(Failure::of)?;
            sleep(TELL).await;
        }
        let proved = self.challenge(session, url, challenge).await;
        self.storage.withdraw(domain).await;
        proved
    }

    /// Has the server check, and waits for what it finds.
    async fn challenge(&self, session: &Session<'_>, url: &str, offered: &Challenge) -> Result<(), Failure> {
        let what = "the challenge";
        session.post(what, &offered.url, Some(&json!({}))).await?;
        loop {
            let answer = session.post(what, url, None).await?;
            let authorization: Authorization = answer.read(what)?;
            match authorization.status {
                Status::Valid => return Ok(()),
                Status::Pending | Status::Processing => pause(&answer).await,
                _ => {
                    let error = authorization.challenges.into_iter().find_map(|c| c.error);
                    let what = format!("the challenge ({})", offered.kind);
                    return Err(Failure::refused(&what, &error.unwrap_or_default()));
                }
            }
        }
    }
}

/// Ends what was pending, however the order ends.
struct Proving<'a>(&'a dyn Fn(Option<Pending>));

impl Drop for Proving<'_> {
    fn drop(&mut self) {
        (self.0)(None);
    }
}

/// Waits until the order is as far as this.
async fn settle(session: &Session<'_>, url: &str, wanted: Status) -> Result<Order, Failure> {
    let what = "the order";
    loop {
        let answer = session.post(what, url, None).await?;
        let order: Order = answer.read(what)?;
        match order.status {
            Status::Valid => return Ok(order),
            Status::Ready if wanted == Status::Ready => return Ok(order),
            Status::Pending | Status::Ready | Status::Processing => pause(&answer).await,
            _ => return Err(Failure::refused(what, &order.error.unwrap_or_else(|| odd(order.status)))),
        }
    }
}

fn odd(status: Status) -> Problem {
    Problem { detail: format!("it is {status:?}").to_ascii_lowercase(), ..Problem::default() }
}

/// The whole order has a deadline, so that this cannot go on for ever.
async fn pause(answer: &Answer) {
    sleep(answer.retry_after.unwrap_or(PAUSE.0).clamp(PAUSE.0, PAUSE.1)).await;
}
