//! The waits that policies can cause, performed for them: a policy says what it needs, this does it.

pub mod acme;
pub mod call;
mod ldap;
mod limits;
pub mod provider;
pub mod redis;

use crate::policy::{Answer, BodyError, Effect, Step};
use crate::snapshot::Snapshot;

/// One worker's means to perform effects.
#[derive(Default)]
pub struct Effects {
    limiter: redis::RedisLimiter,
    directories: ldap::Directories,
}

impl Effects {
    /// Gets ready for what a snapshot may ask.
    pub fn prepare(&self, snapshot: &Snapshot) {
        self.limiter.prepare(snapshot.steps.iter().filter_map(Step::redis));
    }

    /// Performs an effect that needs nothing of the request itself.
    pub async fn perform(&self, effect: Effect) -> Answer {
        match effect {
            Effect::Limit(request) => Answer::Limit(self.limiter.take(&request).await),
            Effect::Limits(asks) => Answer::Limits(limits::take(&self.limiter, asks).await),
            Effect::Sleep(time) => {
                tokio::time::sleep(time).await;
                Answer::Slept
            }
            Effect::Landing(landing, most) => {
                landing.wait(most).await;
                Answer::Landing
            }
            Effect::Ldap(bind) => Answer::Ldap(self.directories.bind(&bind).await),
            Effect::Keys(wanted) => Answer::Keys(wanted.wait().await),
            // The driver reads bodies and makes calls; it never hands these on.
            Effect::ReadBody { .. } => Answer::Body(Err(BodyError::Broken)),
            Effect::Call(_) => Answer::Call(Vec::new()),
            Effect::Series(series) => Answer::Series(series),
            Effect::Later(..) => Answer::Begun,
        }
    }
}
