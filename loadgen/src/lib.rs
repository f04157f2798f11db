//! An honest load generator.
//!
//! A [`plan`] says what to send; the [`schedule`] says when each request is due, whatever the target does; [`run`] sends
//! and times them on one thread a core. Latency counts from when a request was due, classes of answers are never mixed
//! ([`tally`], [`histogram`]), [`limits`] proves what a rate limiter let through, [`validity`] says whether the run can be
//! believed, and [`report`] shows it all. This crate knows nothing of gateways or their configs.

pub mod assert;
mod connection;
pub mod histogram;
pub mod limits;
mod pacer;
pub mod plan;
pub mod progress;
pub mod report;
pub mod run;
pub mod schedule;
mod slot;
pub mod tally;
mod template;
mod tls;
pub mod units;
pub mod validity;
mod worker;

#[cfg(test)]
mod tests {
    #[test]
    fn the_generator_does_not_depend_on_the_gateway_that_it_measures() {
        let manifest = include_str!("../Cargo.toml");
        let dependencies = manifest.split("[dependencies]").nth(1).expect("the crate has dependencies");
        assert!(!dependencies.contains("gw-"), "{dependencies}");
    }
}
