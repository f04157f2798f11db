//! Between JSON and messages, by protobuf's own mapping, within bounds.

use std::io::{self, Write};

use prost_reflect::prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor,
    ReflectMessage as _, SerializeOptions, Value,
};
use serde_json::Value as Json;

use super::rules;
use crate::json::{self, Limits};

/// How messages are written and read.
#[derive(Debug, Clone)]
pub struct Mapping {
    pub write: SerializeOptions,
    pub read: DeserializeOptions,
    /// Whether query arguments that name no field are mistakes.
    pub strict: bool,
}

impl Default for Mapping {
    fn default() -> Self {
        Self {
            write: SerializeOptions::new().skip_default_fields(false),
            read: DeserializeOptions::new().deny_unknown_fields(false),
            strict: false,
        }
    }
}

/// Most `Any` values within each other. Each is read by itself, so the reader's own bound does not see them.
const ANY_DEPTH: usize = 16;

impl Mapping {
    /// The message that a document is.
    ///
    /// # Errors
    /// It is malformed, exceeds a bound, or is no such message; a phrase for the client.
    pub fn message(&self, desc: &MessageDescriptor, document: &[u8]) -> Result<DynamicMessage, String> {
        json::check(document, &Limits::default()).map_err(|fault| fault.to_string())?;
        let mut reader = serde_json::Deserializer::from_slice(document);
        DynamicMessage::deserialize_with_options(desc.clone(), &mut reader, &self.read)
            .map_err(|error| error.to_string())
    }

    /// The messages that a sequence of documents is: one a line.
    ///
    /// # Errors
    /// As [`Mapping::message`], with the line.
    pub fn messages(&self, desc: &MessageDescriptor, lines: &[u8]) -> Result<Vec<DynamicMessage>, String> {
        let lines = lines.split(|b| *b == b'\n').enumerate();
        lines
            .filter(|(_, line)| !line.trim_ascii().is_empty())
            .map(|(n, line)| self.message(desc, line).map_err(|e| format!("message in line {}: {e}", n + 1)))
            .collect()
    }

    /// Sets a field to a document's value.
    ///
    /// # Errors
    /// As [`Mapping::message`].
    pub fn set(
        &self,
        message: &mut DynamicMessage,
        field: &FieldDescriptor,
        document: &[u8],
    ) -> Result<(), String> {
        json::check(document, &Limits::default()).map_err(|fault| fault.to_string())?;
        let value = serde_json::from_slice(document).map_err(|e| e.to_string())?;
        set_value(message, field, value, &self.read)
    }

    /// Sets the field at the end of a way to a text, or a list to several.
    ///
    /// # Errors
    /// The texts are no such value.
    pub fn set_text(
        &self,
        message: &mut DynamicMessage,
        way: &[FieldDescriptor],
        texts: &[String],
    ) -> Result<(), String> {
        match way {
            [last] => self.set_leaf(message, last, texts),
            [first, rest @ ..] => match message.get_field_mut(first).as_message_mut() {
                Some(inner) => self.set_text(inner, rest, texts),
                None => Err(format!("`{}` holds no fields", first.name())),
            },
            [] => Ok(()),
        }
    }

    fn set_leaf(
        &self,
        message: &mut DynamicMessage,
        field: &FieldDescriptor,
        texts: &[String],
    ) -> Result<(), String> {
        let name = field.name();
        if field.is_map() || !rules::takes_text(field) {
            return Err(format!("`{name}` cannot be given as a text"));
        }
        let value = if field.is_list() {
            Json::Array(texts.iter().map(|t| plain(&field.kind(), t)).collect())
        } else {
            match texts {
                [one] => plain(&field.kind(), one),
                _ => return Err(format!("`{name}` is given more than once")),
            }
        };
        // A name that the enum does not have is a mistake here, whatever becomes of unknown members of a document.
        set_value(message, field, value, &DeserializeOptions::new()).map_err(|e| format!("`{name}`: {e}"))
    }

    /// A message as JSON, or the value of one of its fields, of at most `limit` bytes.
    ///
    /// # Errors
    /// It is longer, or holds what has no form in JSON.
    pub fn write(
        &self,
        message: &DynamicMessage,
        field: Option<&FieldDescriptor>,
        limit: usize,
    ) -> Result<Vec<u8>, String> {
        shallow(message, 0)?;
        let mut out = Bounded { bytes: Vec::with_capacity(256), limit };
        let written = message.serialize_with_options(&mut serde_json::Serializer::new(&mut out), &self.write);
        written.map_err(|error| error.to_string())?;
        let Some(field) = field else { return Ok(out.bytes) };
        // A field that is not set has no member, so its default stands for it.
        let whole: Json = serde_json::from_slice(&out.bytes).map_err(|error| error.to_string())?;
        let (proto, own) = (whole.get(field.name()), whole.get(field.json_name()));
        Ok(own.or(proto).unwrap_or(&Json::Null).to_string().into_bytes())
    }
}

/// Sets a field to a JSON value.
fn set_value(
    message: &mut DynamicMessage,
    field: &FieldDescriptor,
    value: Json,
    read: &DeserializeOptions,
) -> Result<(), String> {
    let mut whole = serde_json::Map::new();
    whole.insert(field.json_name().to_owned(), value);
    let parent = field.parent_message().clone();
    let mut made = DynamicMessage::deserialize_with_options(parent, Json::Object(whole), read)
        .map_err(|error| error.to_string())?;
    match made.take_field(field) {
        Some(value) => message.set_field(field, value),
        None => message.clear_field(field),
    }
    Ok(())
}

/// A text as the JSON value that protobuf's mapping reads. Numbers may be texts there.
fn plain(kind: &Kind, text: &str) -> Json {
    let truth = || match text {
        "true" => Json::Bool(true),
        "false" => Json::Bool(false),
        _ => Json::from(text),
    };
    match kind {
        Kind::Bool => truth(),
        Kind::Message(m) if m.full_name() == "google.protobuf.BoolValue" => truth(),
        Kind::Enum(_) => text.parse::<i32>().map_or_else(|_| Json::from(text), Json::from),
        _ => Json::from(text),
    }
}

/// Reads a message of the wire.
///
/// # Errors
/// The bytes are none.
pub fn decode(desc: &MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, String> {
    DynamicMessage::decode(desc.clone(), bytes).map_err(|error| error.to_string())
}

/// A message for the wire.
pub fn encode(message: &DynamicMessage) -> Vec<u8> {
    message.encode_to_vec()
}

/// Refuses `Any` values too deep within each other.
fn shallow(message: &DynamicMessage, depth: usize) -> Result<(), String> {
    if depth > ANY_DEPTH {
        return Err("the message holds too many `Any` values within each other".to_owned());
    }
    if message.descriptor().full_name() == "google.protobuf.Any" {
        return match any(message) {
            Some(inner) => shallow(&inner, depth + 1),
            None => Ok(()),
        };
    }
    message.fields().try_for_each(|(_, value)| shallow_value(value, depth))
}

fn shallow_value(value: &Value, depth: usize) -> Result<(), String> {
    match value {
        Value::Message(inner) => shallow(inner, depth),
        Value::List(items) => items.iter().try_for_each(|v| shallow_value(v, depth)),
        Value::Map(entries) => entries.values().try_for_each(|v| shallow_value(v, depth)),
        _ => Ok(()),
    }
}

/// What an `Any` holds, if its type is known.
fn any(message: &DynamicMessage) -> Option<DynamicMessage> {
    let descriptor = message.descriptor();
    let pool: &DescriptorPool = descriptor.parent_pool();
    let url = message.get_field_by_name("type_url")?;
    let desc = pool.get_message_by_name(url.as_str()?.rsplit('/').next()?)?;
    let bytes = message.get_field_by_name("value")?;
    decode(&desc, bytes.as_bytes()?).ok()
}

/// A buffer that refuses to grow beyond a bound: a few bytes of the wire can be many of JSON.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(io::Error::other("the answer as JSON is longer than allowed"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
