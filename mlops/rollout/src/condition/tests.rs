//! Conditions as they are written for Argo Rollouts, and what must be refused.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn holds(text: &str, result: &Value) -> bool {
    Condition::parse(text).unwrap().holds(result).unwrap()
}

fn numbers(numbers: &[f64]) -> Value {
    Value::Numbers(numbers.to_vec())
}

#[test]
fn conditions_are_asked_of_numbers_and_of_several() {
    for (text, result, held) in [
        ("result >= 0.95", Value::Number(0.95), true),
        ("result[0] >= 0.95", numbers(&[0.9]), false),
        ("result[-1] == 2", numbers(&[1.0, 2.0]), true),
        ("len(result) == 0 || result[0] < 1e-3", numbers(&[]), true),
        ("len(result) > 0 && result[0] < 1", numbers(&[]), false),
        ("all(result, # < 0.05)", numbers(&[0.01, 0.04]), true),
        ("all(result, {# < 0.05})", numbers(&[0.01, 0.06]), false),
        ("any(result, # > 5 and # < 7)", numbers(&[1.0, 6.0]), true),
        ("isNaN(result)", Value::Number(f64::NAN), true),
        ("result >= 0", Value::Number(f64::NAN), false),
        ("isInf(result) || not (result > 0)", Value::Number(f64::INFINITY), true),
        ("default(result, 0) < 0.05", Value::Nil, true),
        ("isNil(result)", Value::Nil, true),
        ("result == nil", Value::Number(1.0), false),
        ("asInt(result) == 3", Value::Number(3.9), true),
        ("1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 7 - 2 - 1 == 4", Value::Nil, true),
        ("-result + 10 % 4 <= -1 == true", Value::Number(3.0), true),
        ("!(result == true)", Value::Truth(false), true),
        ("abs(0 - 2.5e+0) / .5 == 5", Value::Nil, true),
        ("true || result[9] > 1", Value::Nil, true),
        ("false || false && true", Value::Nil, false),
    ] {
        assert_eq!(holds(text, &result), held, "{text} of {result}");
    }
}

#[test]
fn what_cannot_be_understood_is_told_with_its_place() {
    for (text, words) in [
        ("", "at 1: a value is expected, and not the end"),
        ("result >", "at 9: a value is expected"),
        ("result >= 0.95)", "at 15: \")\" is not expected here"),
        ("result => 1", "at 8: '=' means nothing"),
        ("rate > 1", "at 1: \"rate\" is no function, and no value"),
        ("len result", "at 5: \"(\" is expected, and not \"result\""),
        ("default(result)", "default has 1 arguments, and takes 2"),
        ("result[0 > 1", "\"]\" is expected, and not the end"),
        ("1.2.3 > result", "\"1.2.3\" is no number"),
        ("1e > 2", "\"1e\" is no number"),
    ] {
        let error = Condition::parse(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    for deep in ["(".repeat(10_000), "!".repeat(3_000), "-".repeat(70), format!("1{}", "+(1".repeat(80))] {
        assert!(Condition::parse(&deep).is_err());
    }
    assert!(holds(&format!("{}result > 0{}", "(".repeat(30), ")".repeat(30)), &Value::Number(1.0)));
}

#[test]
fn what_cannot_be_asked_is_told() {
    let told =
        |text: &str, result: &Value| Condition::parse(text).unwrap().holds(result).unwrap_err().to_string();
    assert_eq!(
        told("result[0] < 1", &numbers(&[])),
        "the condition \"result[0] < 1\" cannot be asked of []: there is no element 0 of 0"
    );
    assert!(told("result < 1", &numbers(&[1.0])).ends_with("[1.0] is no number"));
    assert!(told("result", &Value::Number(1.0)).ends_with("it gives 1, which is neither true nor false"));
    assert!(told("result && true", &Value::Number(1.0)).ends_with("1 is neither true nor false"));
    assert!(told("# > 1", &Value::Nil).ends_with("# is outside of any and all"));
    assert!(told("result[0.5] > 1", &numbers(&[1.0, 2.0])).ends_with("there is no element 0.5 of 2"));
    assert!(told("all(result, # && true)", &numbers(&[1.0])).ends_with("1 is neither true nor false"));
}

proptest! {
    #[test]
    fn nothing_that_is_written_panics(text in "[a-zA-Z0-9 .#()\\[\\]{}<>=!&|+*/%,-]{0,60}", number: f64) {
        if let Ok(condition) = Condition::parse(&text) {
            let _ = condition.holds(&Value::Number(number));
            let _ = condition.holds(&Value::Numbers(vec![number, 1.0]));
        }
    }

    #[test]
    fn comparisons_are_those_of_numbers(left in -1e6..1e6_f64, right in -1e6..1e6_f64) {
        let condition = |operator: &str| {
            Condition::parse(&format!("result {operator} ({right})")).unwrap().holds(&Value::Number(left)).unwrap()
        };
        prop_assert_eq!(condition("<"), left < right);
        prop_assert_eq!(condition(">="), left >= right);
        prop_assert_eq!(condition("=="), left == right);
    }
}
