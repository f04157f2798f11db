//! Helpers for end-to-end tests of the real binary.

pub mod binary;
pub mod dev;
pub mod folder;
pub mod gateway;
pub mod http;
pub mod redis;
pub mod upstream;
