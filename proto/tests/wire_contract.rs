//! Every message, field number, type, `oneof`, enum value and RPC, held against a plain table both ways.

use std::collections::BTreeSet;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor};

#[test]
fn descriptors_agree_with_the_table() {
    let table = include_str!("field_numbers.txt");
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let expected: BTreeSet<String> = lines.map(str::to_owned).collect();
    let compiled = facts();

    let missing: Vec<_> = expected.difference(&compiled).collect();
    let unexpected: Vec<_> = compiled.difference(&expected).collect();
    assert!(missing.is_empty() && unexpected.is_empty(), "missing {missing:#?}, unexpected {unexpected:#?}");

    let count = |kind: &str| compiled.iter().filter(|fact| fact.starts_with(kind)).count();
    assert_eq!((count("field "), count("rpc "), count("enum ")), (317, 20, 39));
}

fn facts() -> BTreeSet<String> {
    let pool = proto::descriptors();
    let messages = pool.all_messages().filter(|message| !message.is_map_entry());
    let mut facts: BTreeSet<String> = messages.flat_map(|message| message_facts(&message)).collect();
    facts.extend(pool.all_enums().flat_map(|descriptor| enum_facts(&descriptor)));
    facts.extend(pool.services().flat_map(|service| rpc_facts(&service)));
    facts
}

fn message_facts(message: &MessageDescriptor) -> Vec<String> {
    let name = short(message.full_name());
    if message.fields().len() == 0 {
        return vec![format!("empty {name}")];
    }
    message.fields().map(|field| format!("field {name} {}", field_fact(&field))).collect()
}

fn field_fact(field: &FieldDescriptor) -> String {
    let kind = if field.is_map() {
        let Kind::Message(entry) = field.kind() else { panic!("a map is a list of entries") };
        let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        format!("map<{},{}>", kind_name(&key), kind_name(&value))
    } else if field.is_list() {
        format!("repeated:{}", kind_name(&field.kind()))
    } else {
        kind_name(&field.kind())
    };
    let oneof = field.containing_oneof().map(|oneof| format!(" oneof {}", oneof.name())).unwrap_or_default();
    format!("{} {} {kind}{oneof}", field.name(), field.number())
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => short(message.full_name()),
        Kind::Enum(descriptor) => short(descriptor.full_name()),
        scalar => format!("{scalar:?}"),
    }
}

fn enum_facts(descriptor: &EnumDescriptor) -> Vec<String> {
    let name = short(descriptor.full_name());
    descriptor.values().map(|value| format!("enum {name} {} {}", value.name(), value.number())).collect()
}

fn rpc_facts(service: &ServiceDescriptor) -> Vec<String> {
    let stream = |streaming: bool| if streaming { "stream:" } else { "" };
    let rpcs = service.methods().map(|rpc| {
        let request = format!("{}{}", stream(rpc.is_client_streaming()), short(rpc.input().full_name()));
        let response = format!("{}{}", stream(rpc.is_server_streaming()), short(rpc.output().full_name()));
        format!("rpc {} {} {request} {response}", service.name(), rpc.name())
    });
    rpcs.collect()
}

fn short(full_name: &str) -> String {
    full_name.strip_prefix("inference.").expect("everything is in the package `inference`").to_owned()
}
