//! JSON's grammar, with serde_json as the oracle; and bodies made to hurt.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The codec's verdict on `value` where any value may stand.
fn accepts(value: &[u8]) -> bool {
    let body = [b"{\"inputs\":[],\"unknown\":", value, b"}"].concat();
    decode(&Bytes::from(body), None, &LIMITS).is_ok()
}

/// serde_json's, which also has an opinion on the range of numbers.
fn serde_json_accepts(value: &[u8]) -> Option<bool> {
    match serde_json::from_slice::<Value>(value) {
        Ok(_) => Some(true),
        Err(error) if error.to_string().starts_with("number out of range") => None,
        Err(error) if error.to_string().starts_with("recursion limit") => None,
        Err(_) => Some(false),
    }
}

#[track_caller]
fn check_malformed(json: &[u8], told: &str) {
    let error = decode(&Bytes::copy_from_slice(json), None, &LIMITS).unwrap_err();
    assert_eq!(error.to_string(), format!("failed to parse the request JSON buffer: {told}"));
}

#[test]
fn what_is_malformed_is_told_with_its_place() {
    check_malformed(b"", "expected an object, found the end at offset 0");
    check_malformed(b" [", "expected an object, found '[' at offset 1");
    check_malformed(b"{1", "expected a string, found '1' at offset 1");
    check_malformed(b"{\"a\" 1", "expected ':' after the key 'a', found '1' at offset 5");
    check_malformed(b"{\"a\":1 2", "expected ',' or '}' after the key 'a', found '2' at offset 7");
    check_malformed(b"{\"a\":1,}", "expected a string after the key 'a', found '}' at offset 7");
    check_malformed(b"{\"a\":[1 2", "expected ',' or ']' after the key 'a', found '2' at offset 8");
    check_malformed(b"{\"a\":[1,]", "expected a value after the key 'a', found ']' at offset 8");
    check_malformed(b"{\"a\":[,", "expected a value after the key 'a', found ',' at offset 6");
    check_malformed(b"{\"a\":\x7f", "expected a value after the key 'a', found the byte 0x7f at offset 5");
    check_malformed(b"{\"a\":NaN}", "expected a value after the key 'a', found 'N' at offset 5");
    check_malformed(b"{\"a\":-Infinity}", "expected a digit after the key 'a', found 'I' at offset 6");
    check_malformed(b"{\"a\":01", "expected a digit after the key 'a', found '1' at offset 6");
    check_malformed(b"{\"a\":tru", "expected a value after the key 'a', found 't' at offset 5");
    check_malformed(b"{\"a\":\"b", "a string does not end after the key 'a', found the end at offset 7");
    check_malformed(b"{\"a\":\"b\\\"", "a string does not end after the key 'a', found the end at offset 9");
    check_malformed(
        b"{\"a\":\"\n\"}",
        "a string has an unescaped control character after the key 'a', found the byte 0x0a at offset 6",
    );
    let hint = "(binary data after the JSON needs Inference-Header-Content-Length)";
    check_malformed(b"{\"a\":\"b\xffc\"}", &format!("the text is not valid UTF-8 {hint} at offset 7"));
    check_malformed(b"{\"a\":1}\x80\x81", &format!("the text is not valid UTF-8 {hint} at offset 7"));
    let error = decode(&Bytes::from_static(b"{\"a\":\xff}"), Some(7), &LIMITS).unwrap_err().to_string();
    assert!(error.ends_with("the text is not valid UTF-8 at offset 5"), "{error}");
    check_malformed(b"{\"a\":\"b\\x\"}", "a string has an invalid escape at offset 7");
    check_malformed(b"{\"a\":\"\\ud800\"}", "a string has an invalid escape at offset 6");
    check_malformed(b"{\"a\":\"\\udc00\\ud800\"}", "a string has an invalid escape at offset 6");
    check_malformed(b"{\"a\":\"\\u+123\"}", "a string has an invalid escape at offset 6");
    check_malformed(
        b"{\"inputs\":[]}]",
        "expected the end of the JSON after the key 'inputs', found ']' at offset 13",
    );
    check_malformed(b"{\"inputs\":{}}", "expected an array after the key 'inputs', found '{' at offset 10");
    check_malformed(b"{\"id\":1}", "expected a string after the key 'id', found '1' at offset 6");
    check_malformed(
        b"{\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"parameters\":{\"binary_data\":1}}]}",
        "expected true or false after the key 'binary_data', found '1' at offset 64",
    );
    check_malformed(
        b"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1.]}]}",
        "expected a digit after the key 'data', found ']' at offset 63",
    );
}

#[test]
fn nesting_ends_at_its_limit_wherever_it_is() {
    let told = "arrays and objects nest deeper than 100 levels";
    for open in ["[", "{\"a\":"] {
        for before in [
            "{\"unknown\":",
            "{\"inputs\":[{\"data\":[",
            "{\"parameters\":{\"a\":",
            "{\"inputs\":[{\"parameters\":{\"a\":",
            "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[",
        ] {
            let json = before.to_owned() + &open.repeat(100_000);
            let error = decode_json(&json).unwrap_err().to_string();
            assert!(error.contains(told), "{open} in {before}: {error}");
        }
    }
    // The object of the request is the first level.
    assert!(accepts(("[".repeat(99) + &"]".repeat(99)).as_bytes()));
    assert!(!accepts(("[".repeat(100) + &"]".repeat(100)).as_bytes()));
    let nested = |levels| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    assert!(packed(DataType::Int8, "[1]", &nested(97)).is_ok());
    assert!(packed(DataType::Int8, "[1]", &nested(98)).is_err());
}

/// A value of any kind as text, with white space, escapes and numbers of every form.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?",
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        "\"([a-z\u{e9}\u{1f600}]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}){0,9}\"",
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let space = "[ \n\r\t]{0,2}";
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..6), space).prop_map(|(values, space)| format!(
                "[{space}{}{space}]",
                values.join(&format!("{space},{space}"))
            )),
            (prop::collection::vec(("\"[a-z]{0,3}\"", inner), 0..6), space).prop_map(|(members, space)| {
                let members: Vec<String> =
                    members.into_iter().map(|(key, value)| format!("{key}{space}:{space}{value}")).collect();
                format!("{{{space}{}{space}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn documents_are_judged_as_serde_json_judges_them(json in any_json()) {
        if let Some(expected) = serde_json_accepts(json.as_bytes()) {
            prop_assert_eq!(accepts(json.as_bytes()), expected, "{}", json);
        }
    }

    #[test]
    fn damaged_documents_are_judged_as_serde_json_judges_them(
        json in any_json(),
        at: prop::sample::Index,
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"[]{}:\"\\,.-+eE019tfnuN \x1f"[..])],
        kind in 0..3,
    ) {
        let mut json = json.into_bytes();
        let at = at.index(json.len());
        match kind {
            0 => json[at] = byte,
            1 => json.insert(at, byte),
            _ => drop(json.remove(at)),
        }
        // Wrapped, so that a comma or a brace cannot reach beyond the value.
        let wrapped = [b"[", &json[..], b"]"].concat();
        if let Some(expected) = serde_json_accepts(&wrapped) {
            let whole = [b"{\"inputs\":[],\"unknown\":", &wrapped[..], b"}"].concat();
            if serde_json_accepts(&whole) == Some(expected) {
                prop_assert_eq!(accepts(&wrapped), expected, "{}", String::from_utf8_lossy(&wrapped));
            }
        }
    }

    #[test]
    fn any_bytes_get_an_answer(bytes: Vec<u8>, header_length: Option<u8>) {
        let _ = decode(&Bytes::from(bytes), header_length.map(usize::from), &LIMITS);
    }

    #[test]
    fn damaged_requests_get_an_answer(
        datatype in prop::sample::select(&DataType::ALL[..]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..6),
        header_length in 0_usize..400,
    ) {
        let json = format!(
            r#"{{"id":"é\n","parameters":{{"priority":1,"d":-1.5e3}},"inputs":[{{"data":[[1,"NaN",NaN],["2"]],"name":"x","shape":[2,2],"datatype":"{datatype}"}},{{"name":"y","datatype":"{datatype}","shape":[1],"parameters":{{"binary_data_size":4}}}}],"outputs":[{{"name":"z","parameters":{{"classification":1,"binary_data":true}}}}]}}"#
        );
        let mut body = [json.as_bytes(), &[0; 4]].concat();
        for (at, byte, kind) in damage {
            let at = at.index(body.len());
            match kind {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                _ => body.truncate(at.max(1)),
            }
        }
        let body = Bytes::from(body);
        let _ = decode(&body, None, &LIMITS);
        let _ = decode(&body, Some(header_length), &LIMITS);
        let _ = decode(&body, Some(json.len()), &LIMITS);
    }
}

/// A quote, a backslash or a control character is found wherever it stands, and nothing is mistaken for one.
#[test]
fn what_interrupts_a_string_is_found_at_every_place() {
    use super::super::reader::plain_length;
    for length in 0..20 {
        for at in 0..length {
            for (before, byte, after) in
                (0..=u8::MAX).map(|byte| (b'x', byte, b'"')).chain([(0x80, b'"', 0), (b' ', b'\\', 0xff)])
            {
                let mut text = vec![before; length];
                text[at] = byte;
                text[at + 1..].fill(after);
                let first = text.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
                assert_eq!(plain_length(&text), first.unwrap_or(length), "{text:?}");
            }
        }
    }
}
