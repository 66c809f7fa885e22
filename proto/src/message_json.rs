//! Any message of the contract as JSON: field names as in the .proto file, every default printed, 64-bit
//! integers as numbers.

use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::Value;

use crate::descriptors;

/// Prints `message`, whose full name in the contract is `name`.
///
/// Empty lists and maps are printed; messages and members of a `oneof` that are not set are left out.
pub fn to_json<M: prost::Message>(name: &str, message: &M) -> Value {
    let descriptor =
        descriptors().get_message_by_name(name).expect("the caller names a message of the contract");
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic.transcode_from(message).expect("the message is of the type that was named");
    let mut serializer = serde_json::Serializer::new(Vec::new());
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true)
        .skip_default_fields(false);
    dynamic
        .serialize_with_options(&mut serializer, &options)
        .expect("map keys are strings, memory takes all");
    // By way of text, because a `Value` made directly widens 0.1_f32 to 0.10000000149011612.
    serde_json::from_slice(&serializer.into_inner()).expect("it was just written as JSON")
}
