//! A JSON file that is a whole V2 request.

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use volley_client::TensorMetadata;

/// The object in `text` when it is a whole V2 request; `None` when it holds the elements of a tensor.
pub(super) fn request(text: &str) -> anyhow::Result<Option<Map<String, Value>>> {
    match serde_json::from_str(text).context("it is not JSON")? {
        Value::Object(request) if request.contains_key("inputs") => Ok(Some(request)),
        Value::Object(_) => bail!(
            r#"it is an object without "inputs"; write a V2 request ({{"inputs":[...]}}) or an array of numbers"#
        ),
        _ => Ok(None),
    }
}

/// Asks `request` for the `count` highest values of those of its outputs that `classified` names. A request that
/// names no outputs asks for all of `outputs`.
pub(super) fn classify(
    request: &mut Map<String, Value>,
    outputs: &[TensorMetadata],
    classified: &[&TensorMetadata],
    count: u32,
) -> anyhow::Result<()> {
    let all = || outputs.iter().map(|output| json!({ "name": output.name })).collect();
    let outputs = request.entry("outputs").or_insert_with(|| Value::Array(all()));
    let outputs = outputs.as_array_mut().context(r#"its "outputs" is not an array"#)?;
    for output in outputs {
        let output = output.as_object_mut().context(r#"its "outputs" holds something else than objects"#)?;
        let name = output.get("name").and_then(Value::as_str).unwrap_or_default();
        if classified.iter().any(|classified| classified.name == name) {
            let parameters = output.entry("parameters").or_insert_with(|| json!({}));
            let parameters =
                parameters.as_object_mut().context(r#"the "parameters" of an output are not an object"#)?;
            parameters.insert("classification".to_owned(), count.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_request_is_told_from_a_tensor() {
        assert!(request(r#"{"inputs":[]}"#).unwrap().is_some());
        assert!(request("[1,2]").unwrap().is_none());
        assert!(request(r#"{"input":[]}"#).unwrap_err().to_string().contains(r#"without "inputs""#));
    }

    #[test]
    fn classes_are_asked_where_they_mean_something() {
        let output = |name: &str| TensorMetadata { name: name.to_owned(), ..TensorMetadata::default() };
        let outputs = [output("label"), output("score")];
        let classified = |text: &str| {
            let mut request = request(text).unwrap().unwrap();
            classify(&mut request, &outputs, &[&outputs[1]], 3).map(|()| request["outputs"].to_string())
        };
        assert_eq!(
            classified(r#"{"inputs":[]}"#).unwrap(),
            r#"[{"name":"label"},{"name":"score","parameters":{"classification":3}}]"#
        );
        assert_eq!(
            classified(r#"{"inputs":[],"outputs":[{"name":"score","parameters":{"a":1}}]}"#).unwrap(),
            r#"[{"name":"score","parameters":{"a":1,"classification":3}}]"#
        );
        for bad in ["7", "[7]", r#"[{"name":"score","parameters":7}]"#] {
            assert!(classified(&format!(r#"{{"inputs":[],"outputs":{bad}}}"#)).is_err(), "{bad}");
        }
    }
}
