//! Bodies that are right, element by element and member by member.

use half::{bf16, f16};
use model::{Dims, Parameter, bytes_tensor};

use super::*;

#[track_caller]
fn check(datatype: DataType, data: &str, expected: &[&[u8]]) {
    let shape = format!("[{}]", expected.len());
    assert_eq!(packed(datatype, &shape, data).unwrap(), expected.concat(), "{datatype} {data}");
}

#[track_caller]
fn check_refused(datatype: DataType, elements: &[&str]) {
    for element in elements {
        let error = packed(datatype, "[2]", &format!("[1,{element}]")).unwrap_err().to_string();
        let told = format!("element 1 of input 'x' is {element}, but {datatype} takes ");
        assert!(error.starts_with(&told), "{datatype} {element}: {error}");
    }
}

const NEVER: [&str; 4] = ["null", "{}", "\"one\"", "\"\""];

#[test]
fn bool_is_true_false_one_and_zero() {
    check(DataType::Bool, "[true,false,1,0]", &[&[1], &[0], &[1], &[0]]);
    check_refused(DataType::Bool, &NEVER);
    check_refused(DataType::Bool, &["2", "-1", "1.0", "NaN", "\"true\""]);
}

#[test]
fn integers_are_exact_and_in_range() {
    macro_rules! check_integer {
        ($($integer:ty, $datatype:ident, $below:literal, $above:literal);* $(;)?) => {$(
            let (least, most) = (<$integer>::MIN, <$integer>::MAX);
            check(
                DataType::$datatype,
                &format!("[{least},{most},-0,7]"),
                &[least, most, 0, 7].map(<$integer>::to_le_bytes).each_ref().map(|bytes| &bytes[..]),
            );
            check_refused(DataType::$datatype, &[$below, $above, "1.0", "1e3", "0.5", "true", "NaN", "-Infinity"]);
            check_refused(DataType::$datatype, &["999999999999999999999999999999999999999"]);
            check_refused(DataType::$datatype, &NEVER);
        )*};
    }
    check_integer! {
        u8, Uint8, "-1", "256";
        u16, Uint16, "-1", "65536";
        u32, Uint32, "-1", "4294967296";
        u64, Uint64, "-1", "18446744073709551616";
        i8, Int8, "-129", "128";
        i16, Int16, "-32769", "32768";
        i32, Int32, "-2147483649", "2147483648";
        i64, Int64, "-9223372036854775809", "9223372036854775808";
    }
}

#[test]
fn floats_round_to_nearest_and_stay_in_range() {
    let numbers = "[1,-0.0,0.1,1e-400,\"NaN\",\"Infinity\",\"-Infinity\",NaN,Infinity,-Infinity]";
    macro_rules! check_float {
        ($($float:ty, $datatype:ident, $tenth:expr, $most:literal, $above:literal);* $(;)?) => {$(
            let (nan, infinity, negative) = (<$float>::NAN, <$float>::INFINITY, <$float>::NEG_INFINITY);
            let small = [1.0, -0.0].map(|number: f32| -> $float { num(number) });
            let zero: $float = num(0.0);
            let expected =
                [small[0], small[1], $tenth, zero, nan, infinity, negative, nan, infinity, negative];
            let expected = expected.map(<$float>::to_le_bytes);
            check(DataType::$datatype, numbers, &expected.each_ref().map(|bytes| &bytes[..]));
            check(DataType::$datatype, concat!("[-", $most, "]"), &[&<$float>::MIN.to_le_bytes()]);
            check_refused(DataType::$datatype, &[$above, concat!("-", $above), "1e400", "true", "\"nan\""]);
            check_refused(DataType::$datatype, &NEVER);
        )*};
    }
    check_float! {
        f16, Fp16, f16::from_bits(0x2e66), "65504", "65520";
        bf16, Bf16, bf16::from_bits(0x3dcd), "3.3895314e38", "3.4e38";
        f32, Fp32, 0.1, "3.4028235e38", "3.4028236e38";
        f64, Fp64, 0.1, "1.7976931348623157e308", "1.7976931348623159e308";
    }
}

/// A small number as any of the float types.
fn num<F: Small>(number: f32) -> F {
    F::small(number)
}

trait Small {
    fn small(number: f32) -> Self;
}

macro_rules! small {
    ($($float:ty, $from:expr);*) => {$(
        impl Small for $float {
            fn small(number: f32) -> $float {
                $from(number)
            }
        }
    )*};
}

small!(f16, f16::from_f32; bf16, bf16::from_f32; f32, f32::from; f64, f64::from);

#[test]
fn byte_strings_are_strings_with_their_escapes_resolved() {
    let data = r#"["","a","\"\\\/\b\f\n\r\t","\u00e9\ud83d\ude00","é😀","\u0000"]"#;
    let mut expected = Vec::new();
    for string in ["", "a", "\"\\/\u{8}\u{c}\n\r\t", "é😀", "é😀", "\0"] {
        bytes_tensor::push(&mut expected, string.as_bytes());
    }
    assert_eq!(packed(DataType::Bytes, "[6]", data).unwrap(), expected);
    for element in ["null", "1", "true", "{}"] {
        let error = packed(DataType::Bytes, "[1]", &format!("[{element}]")).unwrap_err().to_string();
        assert_eq!(error, format!("element 0 of input 'x' is {element}, but BYTES takes strings"));
    }
}

#[test]
fn data_nests_as_it_likes_as_long_as_the_count_is_right() {
    for data in ["[1,2,3,4]", "[[1,2],[3,4]]", "[[[[1]]],2,[],[[3],4]]", " [ [ 1 ,\t2 ] ,\r\n[ 3,4 ] ] "] {
        assert_eq!(packed(DataType::Uint8, "[2,2]", data).unwrap()[..], [1, 2, 3, 4], "{data}");
    }
    assert_eq!(packed(DataType::Uint8, "[]", "[5]").unwrap()[..], [5]);
    assert_eq!(packed(DataType::Uint8, "[]", "[[5]]").unwrap()[..], [5]);
    for data in ["[]", "[[],[]]"] {
        assert!(packed(DataType::Fp64, "[0,9223372036854775807]", data).unwrap().is_empty(), "{data}");
    }
}

#[test]
fn keys_come_in_any_order_and_unknown_ones_are_passed_over() {
    let members = [
        r#""name":"x""#,
        r#""datatype":"FP32""#,
        r#""shape":[2]"#,
        r#""data":[[1,NaN]]"#,
        r#""\u0061nnotation":{"a":[null,{}]}"#,
    ];
    for turn in 0..members.len() {
        let mut turned = members;
        turned.rotate_left(turn);
        for swap in 1..turned.len() {
            turned.swap(0, swap);
            let input = turned.join(", ");
            let json = format!(r#"{{"note":[1],"inputs":[{{{input}}}],"outputs":[],"more":{{"a":"\n"}}}}"#);
            let body = decode_json(&json).unwrap();
            let tensor = &body.inputs[0];
            assert_eq!((&*tensor.name, tensor.datatype), ("x", DataType::Fp32));
            assert_eq!(tensor.shape, Dims::new(&[2]));
            assert_eq!(tensor.data, [1_f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat());
        }
    }
}

#[test]
fn everything_a_request_says_is_kept() {
    let json = r#"{
        "id": "request-\u0037",
        "parameters": {"a": 1, "b": -1.5, "c": true, "d": "text", "e": 18446744073709551615, "timeout": 500,
            "sequence_id": 9, "sequence_start": true, "priority": 2, "binary_data_output": true,
            "triton_enable_empty_final_response": false, "f": 1e3},
        "inputs": [],
        "outputs": [{"name": "y", "parameters": {"binary_data": false, "classification": 3, "other": [1]}},
            {"name": "z"}]
    }"#;
    let body = decode_json(json).unwrap();
    assert_eq!(body.id, "request-7");
    assert!(body.binary_data_output);
    assert_eq!(body.parameters.get("binary_data_output"), None);
    for (name, value) in [
        ("a", Parameter::Int(1)),
        ("b", Parameter::Double(-1.5)),
        ("c", Parameter::Bool(true)),
        ("d", Parameter::String("text".to_owned())),
        ("e", Parameter::Uint(u64::MAX)),
        ("f", Parameter::Double(1000.0)),
        ("timeout", Parameter::Int(500)),
        ("sequence_id", Parameter::Int(9)),
    ] {
        assert_eq!(body.parameters.get(name), Some(&value), "{name}");
    }
    let outputs: Vec<_> = body.outputs.iter().map(|spec| (&*spec.output.name, spec.binary)).collect();
    assert_eq!(outputs, [("y", Some(false)), ("z", None)]);
    assert_eq!(body.outputs[0].output.classification, Some(3));
}

#[test]
fn null_is_as_good_as_leaving_an_optional_member_out() {
    let body = decode_json(
        r#"{"id":null,"parameters":null,"outputs":null,
            "inputs":[{"name":"x","datatype":"UINT8","shape":[1],"data":[9],"parameters": null }]}"#,
    );
    let body = body.unwrap();
    assert_eq!((&*body.id, body.parameters.len(), body.outputs.len()), ("", 0, 0));
    assert_eq!(body.inputs[0].data, [9][..]);
    let outputs = r#"{"inputs":[],"outputs":[{"name":"y","parameters":null},
        {"name":"z","parameters":{"classification":0}}]}"#;
    let outputs = decode_json(outputs).unwrap().outputs;
    assert_eq!(outputs[0].binary, None);
    assert_eq!(outputs[1].output.classification, None);
    for needed in [r#"{"inputs":null}"#, r#"{"inputs":[null]}"#, r#"{"inputs":[],"outputs":[null]}"#] {
        assert!(decode_json(needed).is_err(), "{needed}");
    }
    for member in ["name", "datatype", "shape", "data"] {
        let json = r#"{"inputs":[{"name":"x","datatype":"UINT8","shape":[1],"data":[9]}]}"#;
        let at = json.find(&format!("\"{member}\"")).unwrap() + member.len() + 3;
        let end = at + json[at..].find([',', '}']).unwrap();
        let json = format!("{}null{}", &json[..at], &json[end..]);
        assert!(decode_json(&json).is_err(), "{json}");
    }
}

#[test]
fn binary_data_is_a_slice_of_the_body_taken_in_the_order_of_the_inputs() {
    let json = r#"{"inputs":[
        {"name":"a","datatype":"INT16","shape":[2],"parameters":{"binary_data_size":4}},
        {"name":"b","datatype":"UINT8","shape":[1],"data":[9]},
        {"name":"c","parameters":{"binary_data_size":5},"shape":[1,1],"datatype":"BYTES"},
        {"name":"d","parameters":{"binary_data_size":0},"shape":[0],"datatype":"FP64"}]}"#;
    let body = Bytes::from([json.as_bytes(), &[1, 0, 2, 0], &[1, 0, 0, 0, b'!']].concat());
    let decoded = decode(&body, Some(json.len()), &LIMITS).unwrap();
    let data: Vec<&[u8]> = decoded.inputs.iter().map(|input| &input.data[..]).collect();
    assert_eq!(data, [&[1, 0, 2, 0][..], &[9], &[1, 0, 0, 0, b'!'], &[]]);
    assert_eq!(decoded.inputs[0].data.as_ptr(), body[json.len()..].as_ptr(), "not a copy");
}

#[test]
fn a_shape_that_lies_reserves_no_more_than_the_body_could_fill() {
    let limits = Limits { max_tensor_bytes: usize::MAX };
    let json = with_input(r#""datatype":"FP64","shape":[1000000000000000],"data":[1,2]"#);
    let error = decode(&Bytes::from(json), None, &limits).unwrap_err().to_string();
    assert_eq!(
        error,
        "input 'x' has 2 elements of data, but FP64 of shape [1000000000000000] takes 1000000000000000 elements"
    );
}

#[test]
fn a_response_is_written_as_triton_writes_it() {
    let tensor = |name: &str, datatype, shape: &[i64], data: &[u8]| Tensor {
        name: name.into(),
        datatype,
        shape: Dims::new(shape),
        data: Bytes::copy_from_slice(data),
    };
    let mut response = response([
        tensor("y", DataType::Fp32, &[1, 2], &[1_f32.to_le_bytes(), 0.1_f32.to_le_bytes()].concat()),
        tensor("label", DataType::Bytes, &[1], b"\x03\0\0\0\"\x01\n"),
        tensor("none", DataType::Int64, &[0], &[]),
    ]);
    let outputs = r#""outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[1.0,0.1]},{"name":"label","datatype":"BYTES","shape":[1],"data":["\"\u0001\n"]},{"name":"none","datatype":"INT64","shape":[0],"data":[]}]}"#;
    let plain = format!(r#"{{"model_name":"m","model_version":"1",{outputs}"#);
    assert_eq!(encode_json(&response).unwrap(), plain);

    response.id = "a\tb".into();
    response.parameters.insert("final", Parameter::Bool(true));
    response.parameters.insert("n", Parameter::Int(-1));
    response.parameters.insert("u", Parameter::Uint(u64::MAX));
    response.parameters.insert("d", Parameter::Double(f64::NAN));
    response.parameters.insert("s", Parameter::String("é\\".to_owned()));
    let parameters = r#""parameters":{"final":true,"n":-1,"u":18446744073709551615,"d":"NaN","s":"é\\"}"#;
    let full = format!(r#"{{"id":"a\tb","model_name":"m","model_version":"1",{parameters},{outputs}"#);
    assert_eq!(encode_json(&response).unwrap(), full);
    serde_json::from_str::<serde_json::Value>(&full).unwrap();
}

#[test]
fn binary_outputs_follow_the_json_and_only_small_ones_are_copied() {
    let (small, large) = (Bytes::from_static(&[1, 0, 2, 0]), Bytes::from_static(&[7; 2_000]));
    let tensor = |name: &str, data: &Bytes| Tensor {
        name: name.into(),
        datatype: DataType::Uint16,
        shape: Dims::new(&[data.len() as i64 / 2]),
        data: data.clone(),
    };
    let outputs = [tensor("a", &small), tensor("b", &small), tensor("c", &small)];
    let encoded = encode(&response(outputs), |index| index != 1).unwrap();
    let json = r#"{"model_name":"m","model_version":"1","outputs":[{"name":"a","datatype":"UINT16","shape":[2],"parameters":{"binary_data_size":4}},{"name":"b","datatype":"UINT16","shape":[2],"data":[1,2]},{"name":"c","datatype":"UINT16","shape":[2],"parameters":{"binary_data_size":4}}]}"#;
    assert_eq!(encoded.chunks[..], [[json.as_bytes(), &small, &small].concat()]);
    assert_eq!(encoded.json_length, Some(json.len()));
    let outputs = [tensor("a", &small), tensor("b", &large), tensor("c", &small)];
    let encoded = encode(&response(outputs), |_| true).unwrap();
    let json_length = encoded.json_length.unwrap();
    assert_eq!(encoded.chunks[0][json_length..], small);
    assert_eq!((encoded.chunks[1].as_ptr(), &encoded.chunks[2..]), (large.as_ptr(), &[small][..]));
}

#[test]
fn bytes_that_are_not_text_are_not_written_as_json() {
    let tensor = |data: &[u8]| Tensor {
        name: "y".into(),
        datatype: DataType::Bytes,
        shape: Dims::new(&[1]),
        data: Bytes::copy_from_slice(data),
    };
    let error = encode_json(&response([tensor(&[1, 0, 0, 0, b'a', 1, 0, 0, 0, 0xff])])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "element 1 of output 'y' cannot be written as JSON, for it is not text: invalid utf-8 sequence of 1 \
         bytes from index 0; ask for this output with the parameter \"binary_data\": true"
    );
    let error = encode_json(&response([tensor(&[9, 0, 0, 0])])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "model 'm' version 1 failed to execute: the BYTES data of output 'y' is cut: the element at offset 0 \
         says it has 9 bytes, but 0 are left"
    );
}
