//! `Proxy-Status` (RFC 9209): what the gateway has to do with an answer, for those who look for an error's cause. Names
//! no addresses: the field goes to everybody.

use super::forward::Failure;
use super::proxy::ProxyError;
use crate::message::Fields;
use crate::upstream::connect::ConnectError;
use crate::upstream::target::NoTarget;

const NAME: &[u8] = b"Proxy-Status";

/// Tells of an upstream's answer, behind what others have told.
pub fn received(fields: &mut Fields, status: u16) {
    fields.push(NAME, format!("gw; received-status={status}").as_bytes());
}

/// Tells of the gateway's own answer, and why there is no other.
pub fn own(fields: &mut Fields, status: u16, cause: Option<&Cause>) {
    let kind = cause.map_or_else(|| by_status(status), |c| c.0);
    fields.push(NAME, format!("gw; error={kind}").as_bytes());
}

/// Why a request failed at its upstream, kept with the exchange.
pub struct Cause(&'static str);

impl Cause {
    /// The registered type of an error.
    pub fn of(error: &ProxyError) -> Self {
        Self(match error {
            ProxyError::NoTarget(NoTarget::NoPeer) => "destination_unavailable",
            ProxyError::NoTarget(NoTarget::Name) => "dns_error",
            ProxyError::NoTarget(NoTarget::Private) => "destination_ip_prohibited",
            ProxyError::NoTarget(NoTarget::Full) => "connection_limit_reached",
            ProxyError::Connect(ConnectError::Timeout) => "connection_timeout",
            ProxyError::Connect(ConnectError::Refused(e))
                if e.kind() == std::io::ErrorKind::ConnectionRefused =>
            {
                "connection_refused"
            }
            ProxyError::Connect(ConnectError::Refused(_)) => "destination_ip_unroutable",
            ProxyError::Connect(ConnectError::Tls(_)) => "tls_protocol_error",
            ProxyError::Exchange(Failure::Timeout) => "http_response_timeout",
            ProxyError::Exchange(Failure::Closed | Failure::Reset(_)) => "connection_terminated",
            ProxyError::Exchange(Failure::Malformed(_)) => "http_protocol_error",
            ProxyError::Exchange(Failure::Body(_)) => "http_request_error",
        })
    }
}

/// What can be said of an answer that no upstream has to do with.
fn by_status(status: u16) -> &'static str {
    match status {
        400 | 405 | 408 | 411 | 413..=415 | 417 | 426 | 431 | 501 | 505 => "http_request_error",
        404 => "destination_not_found",
        400..=499 => "http_request_denied",
        _ => "proxy_internal_response",
    }
}
