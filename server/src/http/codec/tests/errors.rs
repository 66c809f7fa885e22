//! Every error once, by its text.

use super::*;

#[track_caller]
fn check(json: &str, told: &str) {
    assert_eq!(decode_json(json).unwrap_err().to_string(), told, "{json}");
}

/// For an input that has `members` beside its name 'x'.
#[track_caller]
fn check_input(members: &str, told: &str) {
    check(&with_input(members), told);
}

#[test]
fn what_is_missing_or_twice_is_named() {
    check("{}", "the request has no 'inputs'");
    check(r#"{"inputs":[{}]}"#, "input 0 has no 'name'");
    check_input(r#""data":[1]"#, "input 'x' has no 'datatype'");
    check_input(r#""data":[1],"datatype":"INT8""#, "input 'x' has no 'shape'");
    check(r#"{"inputs":[],"outputs":[{"name":"y"},{}]}"#, "output 1 has no 'name'");
    check(r#"{"inputs":[],"id":"","id":""}"#, "the request has the key 'id' twice");
    check(r#"{"inputs":[],"inputs":[]}"#, "the request has the key 'inputs' twice");
    check_input(r#""shape":[1],"shape":[1]"#, "input 'x' has the key 'shape' twice");
    check_input(r#""data":[1],"data":[1]"#, "input 'x' has the key 'data' twice");
    check_input(
        r#""parameters":{"binary_data_size":1,"binary_data_size":1}"#,
        "input 'x' has the parameter 'binary_data_size' twice",
    );
    check(r#"{"inputs":[],"outputs":[{"name":"y","name":"y"}]}"#, "output 0 has the key 'name' twice");
    check(r#"{"inputs":[],"parameters":{"a":1,"a":1}}"#, "parameter 'a' occurs twice");
    let x = r#"{"name":"x","datatype":"INT8","shape":[0],"data":[]}"#;
    check(&format!(r#"{{"inputs":[{x},{x}]}}"#), "input 'x' occurs twice in the request");
    check(
        r#"{"inputs":[],"outputs":[{"name":"y"},{"name":"z"},{"name":"y"}]}"#,
        "output 'y' occurs twice in the request",
    );
}

#[test]
fn types_and_shapes_that_cannot_be_are_told() {
    check_input(
        r#""datatype":"fp32""#,
        "input 'x' has the datatype 'fp32', which is none of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, \
         INT32, INT64, FP16, FP32, FP64, BYTES, BF16",
    );
    for dim in ["-1", "1.0", "9223372036854775808"] {
        check_input(
            &format!(r#""shape":[2,{dim}]"#),
            &format!(
                "input 'x' has {dim} as dimension 1 of its shape; a dimension is an integer from 0 to \
                 9223372036854775807"
            ),
        );
    }
    check(
        r#"{"inputs":[{"shape":[-7]}]}"#,
        "input 0 has -7 as dimension 0 of its shape; a dimension is an integer from 0 to 9223372036854775807",
    );
    check_input(
        r#""datatype":"INT8","shape":[4294967296,4294967296],"data":[1]"#,
        "input 'x' has shape [4294967296,4294967296], but it has more elements than a 64-bit size can count",
    );
    check_input(
        &format!(r#""shape":[{}1]"#, "1,".repeat(64)),
        "input 'x' has a shape of more than 64 dimensions",
    );
}

#[test]
fn data_that_does_not_fit_its_shape_is_told_with_both_counts() {
    check_input(
        r#""datatype":"FP32","shape":[1,2],"data":[1]"#,
        "input 'x' has 1 elements of data, but FP32 of shape [1,2] takes 2 elements",
    );
    // Reading stops at the third: what follows it is not looked at.
    check_input(
        r#""datatype":"FP32","shape":[1,2],"data":[1,2,3,!"#,
        "input 'x' has more than 2 elements of data, but FP32 of shape [1,2] takes 2 elements",
    );
    check_input(
        r#""datatype":"FP32","shape":[],"data":[]"#,
        "input 'x' has 0 elements of data, but FP32 of shape [] takes 1 elements",
    );
    check_input(
        r#""datatype":"UINT8","shape":[3],"data":[1,255,300]"#,
        "element 2 of input 'x' is 300, but UINT8 takes integers from 0 to 255",
    );
    check_input(
        r#""data":[1,2.50],"datatype":"INT32","shape":[2]"#,
        "element 1 of input 'x' is 2.50, but INT32 takes integers from -2147483648 to 2147483647",
    );
    check_input(
        r#""datatype":"FP32","shape":[1],"data":["0123456789012345678901234567890123456789"]"#,
        "element 0 of input 'x' is \"012345678901234567890123456789012345678…, but FP32 takes numbers from \
         -3.4028235e38 to 3.4028235e38, \"NaN\", \"Infinity\" and \"-Infinity\"",
    );
}

#[test]
fn tensors_beyond_the_limit_are_told_with_the_option_that_raises_it() {
    let told = |size: usize, shape: &str, datatype: &str| {
        format!(
            "the JSON data of input 'x' ({datatype} of shape {shape}: {size} bytes or more) exceeds the maximum \
             allowed input size of 1048576 bytes; raise --http-max-input-size to allow more"
        )
    };
    check_input(r#""datatype":"FP64","shape":[131073],"data":[]"#, &told(1_048_584, "[131073]", "FP64"));
    let text = "a".repeat(1 << 20);
    check_input(
        &format!(r#""datatype":"BYTES","shape":[2],"data":["{text}",""]"#),
        &told((1 << 20) + 4, "[2]", "BYTES"),
    );
}

#[test]
fn an_input_has_its_data_in_one_place() {
    let one = "give one of data, parameters.binary_data_size and parameters.shared_memory_region";
    let typed = r#""datatype":"INT8","shape":[1]"#;
    check_input(typed, &format!("input 'x' has no data; {one}"));
    for both in [
        r#""data":[1],"parameters":{"binary_data_size":1}"#,
        r#""data":[1],"parameters":{"shared_memory_region":"r"}"#,
        r#""parameters":{"shared_memory_region":"r","binary_data_size":1}"#,
    ] {
        check_input(&format!("{typed},{both}"), &format!("input 'x' has its data twice; {one}"));
    }
    let json = with_input(&format!(
        r#"{typed},"parameters":{{"shared_memory_region":"r","shared_memory_byte_size":1}}"#
    ));
    let error = decode_json(&json).unwrap_err();
    assert_eq!(error.code(), model::Code::Unsupported);
    assert_eq!(
        error.to_string(),
        "input 'x' is in a shared memory region, and shared memory regions are not available on this server; \
         send its data in the request"
    );
}

#[test]
fn binary_data_adds_up_to_the_rest_of_the_body() {
    let input = |size: &str| {
        with_input(&format!(r#""datatype":"INT16","shape":[2],"parameters":{{"binary_data_size":{size}}}"#))
    };
    let check_binary = |size: &str, binary: &[u8], told: &str| {
        let json = input(size);
        let body = Bytes::from([json.as_bytes(), binary].concat());
        assert_eq!(decode(&body, Some(json.len()), &LIMITS).unwrap_err().to_string(), told);
    };
    let few = "are left after the JSON (its length is what Inference-Header-Content-Length says)";
    check_binary("4", &[0; 3], &format!("input 'x' has a binary_data_size of 4 bytes, but 3 bytes {few}"));
    check_binary("4", &[0; 5], "5 bytes follow the JSON, but the inputs' binary_data_size add up to 4 bytes");
    check_binary("3", &[0; 3], "input 'x' has 3 bytes of data, but INT16 of shape [2] takes 4 bytes");
    for size in ["-1", "4.0", "99999999999999999999"] {
        check_binary(
            size,
            &[0; 4],
            &format!("input 'x' has a binary_data_size of {size}, which is no number of bytes"),
        );
    }
    check(&input("4"), &format!("input 'x' has a binary_data_size of 4 bytes, but 0 bytes {few}"));
    let body = Bytes::from(input("4"));
    assert_eq!(
        decode(&body, Some(body.len() + 1), &LIMITS).unwrap_err().to_string(),
        format!(
            "Inference-Header-Content-Length is {}, but the body has {} bytes",
            body.len() + 1,
            body.len()
        )
    );
    // Between the end of the JSON and where the header says it ends, there is nothing.
    let body = Bytes::from_static(br#"{"inputs":[]}  x"#);
    assert!(decode(&body, Some(15), &LIMITS).unwrap_err().to_string().starts_with("1 bytes follow the JSON"));
    assert!(matches!(decode(&body, Some(16), &LIMITS), Err(InferError::MalformedJson { offset: 15, .. })));
}

#[test]
fn parameters_have_the_types_that_the_protocol_gives_them() {
    for (name, value, takes) in [
        ("sequence_id", "-1", "an unsigned integer or a string"),
        ("sequence_id", "1.5", "an unsigned integer or a string"),
        ("priority", "\"high\"", "an unsigned integer"),
        ("timeout", "-5", "an unsigned integer"),
        ("sequence_start", "1", "true or false"),
        ("sequence_end", "1", "true or false"),
        ("binary_data_output", "1", "true or false"),
        ("triton_enable_empty_final_response", "\"yes\"", "true or false"),
    ] {
        check(
            &format!(r#"{{"inputs":[],"parameters":{{"{name}":{value}}}}}"#),
            &format!("parameter '{name}' is {value}, but takes {takes}"),
        );
    }
    check(
        r#"{"inputs":[],"parameters":{"triton_x":1}}"#,
        "parameter 'triton_x' is reserved: names that begin with 'triton_' are the server's own; choose another",
    );
    for value in ["null", "[1]", "{}"] {
        check(
            &format!(r#"{{"inputs":[],"parameters":{{"p":{value}}}}}"#),
            "parameter 'p' is null, an array or an object, but takes a string, a number, true or false",
        );
    }
    for value in ["18446744073709551616", "-9223372036854775809", "1e400"] {
        check(
            &format!(r#"{{"inputs":[],"parameters":{{"p":{value}}}}}"#),
            &format!("parameter 'p' is {value}, which is beyond the range of 64-bit numbers"),
        );
    }
    let many: Vec<String> = (0..257).map(|index| format!(r#""p{index}":1"#)).collect();
    check(
        &format!(r#"{{"inputs":[],"parameters":{{{}}}}}"#, many.join(",")),
        "the request has more than 256 parameters",
    );
}

#[test]
fn outputs_are_wanted_in_a_form_that_exists() {
    let output = |parameters: &str| {
        format!(r#"{{"inputs":[],"outputs":[{{"name":"y","parameters":{{{parameters}}}}}]}}"#)
    };
    for count in ["-1", "1.5", "4294967296"] {
        check(
            &output(&format!(r#""classification":{count}"#)),
            &format!("output 0 asks for a classification of {count}; it is the number of classes wanted"),
        );
    }
    let region = r#""shared_memory_region":"r""#;
    for (form, name) in
        [(r#""classification":1"#, "classification"), (r#""binary_data":true"#, "binary_data")]
    {
        check(
            &output(&format!("{region},{form}")),
            &format!("output 'y' asks for {name} and for a shared memory region; they exclude each other"),
        );
    }
    let error = decode_json(&output(region)).unwrap_err();
    assert_eq!(error.code(), model::Code::Unsupported);
    assert_eq!(
        error.to_string(),
        "output 'y' is wanted in a shared memory region, and shared memory regions are not available on this \
         server; let it come back in the response"
    );
}
