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
