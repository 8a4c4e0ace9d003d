//! The canonical proto3 JSON mapping of the schema's messages (bytes in base64, 64-bit integers as strings), with the
//! schema's own snake_case field names on output; both spellings are read.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, SerializeOptions};

use crate::proto;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).expect("compiled into this binary"));

fn descriptor(name: &str) -> prost_reflect::MessageDescriptor {
    POOL.get_message_by_name(&format!("tribunal.v1.{name}")).expect("a message of the schema")
}

/// Reads the message `name` of the schema. Unknown fields are errors.
///
/// # Errors
/// A sentence with line and column.
///
/// # Panics
/// Where `name` or `T` is no message of the schema.
pub fn from_str<T: Message + Default>(name: &str, text: &str) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(descriptor(name), &mut deserializer, &options)
        .and_then(|message| deserializer.end().map(|()| message))
        .map_err(|error| error.to_string())?;
    Ok(message.transcode_to().expect("same schema"))
}

/// Writes a message of the schema as a JSON value.
///
/// # Panics
/// Where `name` or `T` is no message of the schema.
pub fn to_value<T: Message>(name: &str, message: &T) -> serde_json::Value {
    let mut dynamic = DynamicMessage::new(descriptor(name));
    dynamic.transcode_from(message).expect("same schema");
    let options = SerializeOptions::new().use_proto_field_name(true);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).expect("every message has a JSON form")
}

/// The JSON form of an encoded message `name`, fields that are not set left out.
///
/// # Errors
/// A sentence that says why the bytes are no such message.
///
/// # Panics
/// Where `name` is no message of the schema.
pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<serde_json::Value, String> {
    let message = DynamicMessage::decode(descriptor(name), bytes).map_err(|error| error.to_string())?;
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| error.to_string())
}

/// The encoded message `name` of this JSON form; fields that the schema does not know are left out.
///
/// # Errors
/// A sentence that says what does not fit.
///
/// # Panics
/// Where `name` is no message of the schema.
pub fn to_bytes(name: &str, json: &serde_json::Value) -> Result<Vec<u8>, String> {
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor(name), json, &options);
    message.map(|message| message.encode_to_vec()).map_err(|error| error.to_string())
}
