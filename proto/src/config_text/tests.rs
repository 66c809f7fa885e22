//! What `config.pbtxt` files in practical use look like, and what is wrong with those that are refused.

use super::*;
use crate::v2::{
    DataType, ModelInput, ModelInstanceGroup, ModelParameter, model_config::SchedulingChoice,
    model_instance_group, model_sequence_batching, model_version_policy,
};
use proptest::prelude::*;

const EVERY_FORM: &str = include_str!("../../tests/every_form.pbtxt");

fn read(text: &str) -> ModelConfig {
    parse(text, "config.pbtxt").unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> ConfigTextError {
    parse(text, "m/config.pbtxt").unwrap_err()
}

#[track_caller]
fn check_refusal(text: &str, expected: &str) {
    assert_eq!(refusal(text).to_string(), expected);
}

fn groups(text: &str) -> Vec<ModelInstanceGroup> {
    read(text).instance_group
}

fn parameters(text: &str) -> Vec<(String, String)> {
    let mut read: Vec<_> =
        read(text).parameters.into_iter().map(|(key, value)| (key, value.string_value)).collect();
    read.sort();
    read
}

#[test]
fn scalars() {
    let config = read("name: \"m\" max_batch_size: 8");
    assert_eq!((config.name.as_str(), config.max_batch_size), ("m", 8));
    assert_eq!(read(""), ModelConfig::default());
    assert_eq!(read("max_batch_size: -0x10").max_batch_size, -16);
    assert!(read("input { optional: true }").input[0].optional);
}

#[test]
fn messages_with_and_without_colon() {
    let expected = vec![ModelInstanceGroup { count: 2, ..Default::default() }];
    for text in [
        "instance_group { count: 2 }",
        "instance_group: { count: 2 }",
        "instance_group < count: 2 >",
        "instance_group [ { count: 2 } ]",
        "instance_group[{count:2}]",
        "instance_group: [ { count: 2 } ]",
        "instance_group # a comment [ {\n [ { count: 2 } ]",
    ] {
        assert_eq!(groups(text), expected, "{text}");
    }
}

#[test]
fn lists() {
    let dims = |text: &str| read(text).input.into_iter().map(|input| input.dims).collect::<Vec<_>>();
    assert_eq!(dims("input { dims: [ 1, -1 ] }"), [[1, -1]]);
    assert_eq!(dims("input { dims: 1 dims: -1 }"), [[1, -1]]);
    assert_eq!(dims("input { dims: [ 1 ] dims: -1 }"), [[1, -1]]);
    assert_eq!(dims("input { dims [ 1, -1 ] }"), [[1, -1]]);
    assert_eq!(dims("input { dims: [ ] }"), [[0_i64; 0]]);
    assert_eq!(dims("input [ { dims: 1 }, { dims: 2 } ]"), [[1], [2]]);
    assert_eq!(dims("input [ ]"), Vec::<Vec<i64>>::new());
}

#[test]
fn map_entries() {
    let one = [("a".to_owned(), "b".to_owned())];
    assert_eq!(parameters("parameters { key: \"a\" value: { string_value: \"b\" } }"), one);
    assert_eq!(parameters("parameters: { key: \"a\" value { string_value: \"b\" } }"), one);
    assert_eq!(parameters("parameters [ { key: 'a' value { string_value: 'b' } } ]"), one);
    assert_eq!(parameters("parameters { value { string_value: 'b' } key: 'a' }"), one);
    let two = "parameters { key: 'a' value { string_value: 'b' } } parameters { key: 'c' }";
    assert_eq!(parameters(two), [one[0].clone(), ("c".to_owned(), String::new())]);
}

#[test]
fn comments_quotes_and_separators() {
    assert_eq!(read("# all\nname: 'a#b' # more\n# end").name, "a#b");
    assert_eq!(read("name: 'say \"hi\"'").name, "say \"hi\"");
    assert_eq!(read("name: \"it's\"").name, "it's");
    assert_eq!(read(r#"name: "\"\\\n\t\x41\101""#).name, "\"\\\n\tAA");
    assert_eq!(read("name: 'a', max_batch_size: 1; platform: 'p',").platform, "p");
    assert_eq!(groups("instance_group { count: 1, kind: KIND_CPU; }, instance_group { };").len(), 2);
    assert_eq!(read("name: 'one' \"two\"\n # and\n 'three'").name, "onetwothree");
}

#[test]
fn enums_by_name_or_number() {
    let kind = |text: &str| groups(text)[0].kind();
    assert_eq!(kind("instance_group { kind: KIND_MODEL }"), model_instance_group::Kind::Model);
    assert_eq!(kind("instance_group { kind: 2 }"), model_instance_group::Kind::Cpu);
}

#[test]
fn all_forms_in_one_file() {
    let config = read(EVERY_FORM);
    assert_eq!((config.name.as_str(), config.platform.as_str()), ("every_form", "onnxruntime_onnx"));
    assert_eq!(config.max_batch_size, 16);
    let a = ModelInput {
        name: "a \"quoted\" [ { #".into(),
        data_type: DataType::TypeFp32.into(),
        dims: vec![-1, 3],
        ..Default::default()
    };
    assert_eq!(config.input[0], a);
    assert!(config.input[1].optional && config.input[1].allow_ragged_batch);
    assert_eq!(config.output[0].reshape, Some(Default::default()));
    assert_eq!(config.instance_group.len(), 3);
    assert_eq!(config.instance_group[1].gpus, [0, 1]);
    assert_eq!(config.parameters["second"], ModelParameter { string_value: "2\nAC".into() });
    assert_eq!(config.parameters["third"], ModelParameter { string_value: "é".into() });
    let Some(SchedulingChoice::SequenceBatching(sequence)) = config.scheduling_choice else {
        panic!("sequence_batching was given");
    };
    let Some(model_sequence_batching::StrategyChoice::Direct(direct)) = sequence.strategy_choice else {
        panic!("direct was given");
    };
    assert_eq!(direct.minimum_slot_utilization, 0.5);
    assert_eq!(sequence.control_input[0].control[0].fp32_false_true, [0.0, 1.0]);
    let policy = config.version_policy.unwrap().policy_choice;
    assert_eq!(policy, Some(model_version_policy::PolicyChoice::All(Default::default())));
    assert_eq!(config.optimization.unwrap().graph.unwrap().level, -1);
}

#[test]
fn unknown_field() {
    check_refusal(
        "name: 'm'\n  max_batchsize: 8",
        "m/config.pbtxt:2:3: ModelConfig has no field \"max_batchsize\"; the nearest is \"max_batch_size\"",
    );
    check_refusal(
        "input [\n  { name: 'é', datatype: TYPE_FP32 }\n]",
        "m/config.pbtxt:2:16: ModelInput has no field \"datatype\"; the nearest is \"data_type\"",
    );
    check_refusal(
        "version_policy { all { num: 1 } }",
        "m/config.pbtxt:1:24: ModelVersionPolicy.All has no field \"num\"; it has none at all",
    );
    check_refusal(
        "parameters { kee: 'a' }",
        "m/config.pbtxt:1:14: ModelConfig.ParametersEntry has no field \"kee\"; the nearest is \"key\"",
    );
}

#[test]
fn unknown_enum_value() {
    check_refusal(
        "input [ { data_type: FP32 } ]",
        "m/config.pbtxt:1:22: DataType has no value \"FP32\"; the nearest is \"TYPE_FP32\"",
    );
    check_refusal(
        "instance_group [ { kind: kind_gpu } ]",
        "m/config.pbtxt:1:26: ModelInstanceGroup.Kind has no value \"kind_gpu\"; the nearest is \"KIND_GPU\"",
    );
}

#[test]
fn other_mistakes() {
    for (text, expected) in [
        ("name 'm'", "1:6: expected ':' or a message value, but found '\"m\"'"),
        ("name: m", "1:7: expected a string, but found 'm'"),
        ("name: 'a'\nname: 'b'", "2:7: 'name' is already set"),
        (
            "max_batch_size: 3000000000",
            "1:17: expected value to be a signed 32-bit integer, but the value 3000000000 is out of range",
        ),
        (
            "dynamic_batching {} ensemble_scheduling {}",
            "1:41: a value is already set for oneof 'scheduling_choice'",
        ),
        ("name: 'a' @", "1:11: invalid token \"@\""),
        ("name: '\\q'", "1:8: invalid string escape \"\\\\q\""),
        ("name: 'a\n'", "1:9: invalid string character \"\\n\""),
        ("name: 'a", "1:9: expected string terminator, but reached end of input"),
        ("name: '\\xff'", "1:7: string is not valid utf-8"),
        ("input [ { dims: [1,] } ]", "1:20: expected an integer, but found ']'"),
        ("input [ { } { } ]", "1:13: expected ',' or ']', but found '{'"),
        ("}", "1:1: expected a field name, but found '}'"),
        (
            "input {\n  dims: 1\n",
            "3:1: expected '}' or a field name, but reached end of input; the '{' at 1:7 is not closed",
        ),
    ] {
        check_refusal(text, &format!("m/config.pbtxt:{expected}"));
    }
}

#[test]
fn nesting_without_end() {
    for open in ["input {", "input [", "input <", "[", "[a/inference.ModelConfig] {"] {
        let error = refusal(&open.repeat(100_000.min(MAX_BYTES / open.len())));
        assert_eq!(error.problem, Problem::TooDeep, "{open}");
    }
    let deepest_allowed =
        format!("{}{}", "[a/inference.ModelConfig] {".repeat(MAX_DEPTH / 2), "}".repeat(MAX_DEPTH / 2));
    assert!(matches!(refusal(&deepest_allowed).problem, Problem::Syntax(_)));
}

#[test]
fn size_without_end() {
    let error = refusal(&" ".repeat(MAX_BYTES + 1));
    assert_eq!(error.problem, Problem::TooLong { bytes: MAX_BYTES + 1 });
    assert_eq!(read(&" ".repeat(MAX_BYTES)), ModelConfig::default());
    assert_eq!(read(&"#".repeat(MAX_BYTES)), ModelConfig::default());
    assert_eq!(read(&"#\n".repeat(MAX_BYTES / 2)), ModelConfig::default());
    let long = "a".repeat(MAX_BYTES - 100);
    assert_eq!(read(&format!("name: '{long}'")).name, long);
    assert_eq!(read(&format!("name: {}", "'a'".repeat(300_000))).name.len(), 300_000);
    for text in [
        format!("{long}: 1"),
        format!("input {{ data_type: {long} }}"),
        format!("max_batch_size: '{long}'"),
        format!("max_batch_size: {}", "9".repeat(MAX_BYTES - 100)),
        format!("name: '{}", "\\a".repeat(MAX_BYTES / 2 - 100)),
    ] {
        let error = refusal(&text).to_string();
        assert!(error.len() < 1000, "an error of {} bytes", error.len());
    }
}

/// A valid configuration with a few stretches replaced.
fn mutated() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        "[ -~\n]{0,8}",
        r#"[\[\]{}<>:,;"'\\#\n ]{1,6}"#,
        "(input|name|dims|kind|key|value|parameters) ?[:\\[{]?",
        any::<char>().prop_map(String::from),
    ];
    let edit = (any::<prop::sample::Index>(), 0..12_usize, fragment);
    prop::collection::vec(edit, 1..4).prop_map(|edits| {
        let mut text: Vec<char> = EVERY_FORM.chars().collect();
        for (at, removed, inserted) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + removed).min(text.len());
            text.splice(start..end, inserted.chars());
        }
        text.into_iter().collect()
    })
}

/// Whatever the answer, an error points into the text.
fn check_any(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = parse(text, "f") {
        let line = text.split('\n').nth(error.line - 1);
        prop_assert!(line.is_some_and(|line| error.column <= line.chars().count() + 1), "{error}");
        prop_assert!(error.to_string().chars().count() < 600, "{error}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn never_panics_on_any_text(text in any::<String>()) {
        check_any(&text)?;
    }

    #[test]
    fn never_panics_on_text_that_looks_right(text in mutated()) {
        check_any(&text)?;
    }

    #[test]
    fn reads_what_it_prints(config in mutated().prop_filter_map("invalid", |text| parse(&text, "f").ok())) {
        prop_assert_eq!(parse(&print(&config), "f"), Ok(config));
    }
}
