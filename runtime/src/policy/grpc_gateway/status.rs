//! How a call ended, as an answer of HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use prost_reflect::DescriptorPool;
use serde_json::{Value as Json, json};

use super::transcode::{self, Mapping};
use crate::message::{FieldName, Fields};
use crate::policy::{Reply, grpc, reply};

/// A gRPC status with its message and details.
#[derive(Debug, Clone)]
pub struct Status {
    pub code: u8,
    message: String,
    /// `google.rpc.Status`, where the service gave one.
    details: Option<prost_reflect::DynamicMessage>,
    written: Vec<Json>,
}

/// The most of the details' JSON, in bytes.
const DETAILS: usize = 64 * 1024;

impl Status {
    /// A status of the gateway's own.
    pub fn own(code: u8, message: String) -> Self {
        Self { code, message, details: None, written: Vec::new() }
    }

    /// The status in the fields that end a call.
    pub fn read(ending: &Fields, pool: &DescriptorPool) -> Self {
        let text = |name: &str| ending.text(&FieldName::new(name));
        let code = text("grpc-status").and_then(|c| c.trim().parse().ok()).unwrap_or(grpc::UNKNOWN);
        let message = text("grpc-message").map(|m| crate::message::form_decode(&m.replace('+', "%2B")));
        let details = text("grpc-status-details-bin").and_then(|encoded| {
            let encoded = encoded.trim().trim_end_matches('=');
            let bytes = STANDARD_NO_PAD.decode(encoded).or_else(|_| STANDARD.decode(encoded)).ok()?;
            transcode::decode(&pool.get_message_by_name("google.rpc.Status")?, &bytes).ok()
        });
        Self { code, message: message.unwrap_or_default(), details, written: Vec::new() }
    }

    /// With its details in JSON: those whose types the description knows.
    pub fn written(mut self, mapping: &Mapping) -> Self {
        let Some(details) = self.details.take() else { return self };
        let list = details.get_field_by_name("details").map(std::borrow::Cow::into_owned);
        let items = list.as_ref().and_then(|l| l.as_list()).unwrap_or_default();
        let mut left = DETAILS;
        for message in items.iter().filter_map(prost_reflect::Value::as_message) {
            let Ok(bytes) = mapping.write(message, None, left) else { continue };
            left -= bytes.len();
            self.written.extend(serde_json::from_slice::<Json>(&bytes));
        }
        self
    }

    /// The status as JSON.
    pub fn json(&self) -> Vec<u8> {
        let body = json!({ "code": self.code, "message": self.message, "details": self.written });
        body.to_string().into_bytes()
    }

    /// The answer that says so.
    pub fn reply(&self) -> Reply {
        self.reply_as(http_status(self.code))
    }

    /// The same with another HTTP status.
    pub fn reply_as(&self, status: u16) -> Reply {
        Reply::with_body(status, reply::JSON, self.json())
    }
}

/// Kong's table.
fn http_status(code: u8) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
