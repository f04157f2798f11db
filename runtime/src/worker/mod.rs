//! The data plane: one thread per core, each with its own runtime, connections and pool.

pub mod bridge;
pub mod context;
pub mod deadline;
pub mod filtering;
pub mod forward;
pub mod grpc;
pub mod h1;
pub mod h2;
pub mod held;
pub mod io;
pub mod listen;
pub mod pipeline;
pub mod proxy;
pub mod proxy_protocol;
pub mod proxy_status;
pub mod relay;
pub mod request_body;
pub mod respond;
pub mod run;
pub mod sender;
pub mod source;
pub mod splice;
pub mod tunnel;
pub mod upstream_h2;
pub mod websocket;
