//! Several limits under keys of their own, decided on together.
//!
//! Keys may live on different servers of a cluster, so no single step can decide on all. They are asked at the same time;
//! where one refuses, the others are given back what they charged. Between the two a request may be refused that would
//! have passed, never the other way round.

use std::rc::Rc;

use futures_util::future::join_all;

use super::redis::RedisLimiter;
use crate::limit::{Ask, Outcome, StoreError};

/// Decides under all keys. What one of them charged for a request that another refused is given back in the background.
pub async fn take(limiter: &RedisLimiter, asks: Vec<Ask>) -> Result<Vec<Outcome>, StoreError> {
    let answers = join_all(asks.iter().map(|a| limiter.take(&a.request))).await;
    let refuses = |(ask, answer): (&Ask, &Result<Outcome, StoreError>)| {
        !ask.dry_run && !answer.as_ref().is_ok_and(|o| o.admitted)
    };
    if asks.iter().zip(&answers).any(refuses) {
        let charged = |(ask, answer): (Ask, &Result<Outcome, StoreError>)| {
            let counts = ask.request.rules.count_rejected || ask.request.hits == 0;
            (!counts && answer.as_ref().is_ok_and(|o| o.admitted)).then_some(ask.request)
        };
        let charged: Rc<[_]> = asks.into_iter().zip(&answers).filter_map(charged).collect();
        if !charged.is_empty() {
            let limiter = limiter.clone();
            tokio::task::spawn_local(async move {
                join_all(charged.iter().map(|request| limiter.give_back(request))).await;
            });
        }
    }
    answers.into_iter().collect()
}
