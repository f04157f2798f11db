//! Helpers for end-to-end tests of the real binary.

pub mod binary;
pub mod canned;
pub mod counting_upstream;
pub mod dev;
pub mod folder;
pub mod gateway;
pub mod h2;
pub mod h2_upstream;
pub mod http;
pub mod pebble;
pub mod readme;
pub mod redis;
pub mod redis_cluster;
pub mod scripted;
pub mod serving;
pub mod slapd;
pub mod tcp_proxy;
pub mod upstream;
