//! What a measurement of another system must be, as Argo Rollouts writes it: `result[0] >= 0.95 && len(result) > 0`.
//!
//! Numbers, `true`, `false`, `nil`, `result`, its elements, `+ - * / %`, comparisons, `&& || !` (also `and or not`), and
//! the functions `isNaN`, `isInf`, `isNil`, `len`, `default`, `asInt`, `asFloat`, `abs`, `any` and `all`, of which the
//! last two take a condition on each element, written `#`, in braces or not.

mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

/// A condition that can be asked of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    expression: Expression,
}

/// A condition that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the condition {text:?} cannot be understood at {at}: {reason}")]
pub struct InvalidCondition {
    text: String,
    /// Counted in characters, from 1.
    at: usize,
    reason: String,
}

/// A result that a condition cannot be asked of, such as the first element of none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the condition {text:?} cannot be asked of {result}: {reason}")]
pub struct Unanswerable {
    text: String,
    result: String,
    reason: String,
}

/// What was measured, and what comes of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One number.
    Number(f64),
    /// Several, in their order.
    Numbers(Vec<f64>),
    /// True or false.
    Truth(bool),
    /// Nothing.
    Nil,
}

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Constant(Value),
    Result,
    /// The element that `any` or `all` is at.
    Element,
    Index(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    Binary(Binary, Box<Expression>, Box<Expression>),
    Call(Function, Vec<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binary {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
    Plus,
    Minus,
    Times,
    Divided,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    IsNan,
    IsInf,
    IsNil,
    Len,
    Default,
    AsInt,
    AsFloat,
    Abs,
    Any,
    All,
}

impl Condition {
    /// Reads `text`.
    ///
    /// # Errors
    /// Where it cannot be understood, and why.
    pub fn parse(text: &str) -> Result<Condition, InvalidCondition> {
        let expression = parse::expression(text).map_err(|(at, reason)| InvalidCondition {
            text: text.to_owned(),
            at: at + 1,
            reason,
        })?;
        Ok(Condition { text: text.to_owned(), expression })
    }

    /// Whether `result` is as it must be.
    ///
    /// # Errors
    /// When that cannot be said of it.
    pub fn holds(&self, result: &Value) -> Result<bool, Unanswerable> {
        let asked = evaluate(&self.expression, result, None).and_then(|value| match value {
            Value::Truth(truth) => Ok(truth),
            other => Err(format!("it gives {other}, which is neither true nor false")),
        });
        asked.map_err(|reason| Unanswerable { text: self.text.clone(), result: result.to_string(), reason })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => write!(f, "{number}"),
            Value::Numbers(numbers) => write!(f, "{numbers:?}"),
            Value::Truth(truth) => write!(f, "{truth}"),
            Value::Nil => f.write_str("nil"),
        }
    }
}

/// The value of `expression`, or why it has none.
fn evaluate(expression: &Expression, result: &Value, element: Option<f64>) -> Result<Value, String> {
    let value = |expression: &Expression| evaluate(expression, result, element);
    match expression {
        Expression::Constant(constant) => Ok(constant.clone()),
        Expression::Result => Ok(result.clone()),
        Expression::Element => {
            element.map(Value::Number).ok_or_else(|| "# is outside of any and all".to_owned())
        }
        Expression::Index(of, at) => element_at(&value(of)?, number(&value(at)?)?),
        Expression::Not(inner) => Ok(Value::Truth(!truth(&value(inner)?)?)),
        Expression::Negative(inner) => Ok(Value::Number(-number(&value(inner)?)?)),
        // The right side is not asked where the left one decides: it may guard it.
        Expression::Binary(Binary::Or, left, right) => {
            Ok(Value::Truth(truth(&value(left)?)? || truth(&value(right)?)?))
        }
        Expression::Binary(Binary::And, left, right) => {
            Ok(Value::Truth(truth(&value(left)?)? && truth(&value(right)?)?))
        }
        Expression::Binary(operator, left, right) => operate(*operator, &value(left)?, &value(right)?),
        Expression::Call(function @ (Function::Any | Function::All), arguments) => {
            let [of, condition] = arguments.as_slice() else {
                return Err("it takes two arguments".to_owned());
            };
            let holds = |each: &f64| truth(&evaluate(condition, result, Some(*each))?);
            let of = value(of)?;
            let mut held = numbers(&of)?.iter().map(holds);
            let wanted = *function == Function::Any; // decides as soon as it comes
            match held.find(|held| held.as_ref().map_or(true, |held| *held == wanted)) {
                Some(Err(reason)) => Err(reason),
                Some(Ok(_)) => Ok(Value::Truth(wanted)),
                None => Ok(Value::Truth(!wanted)),
            }
        }
        Expression::Call(function, arguments) => {
            let values = arguments.iter().map(value).collect::<Result<Vec<_>, _>>()?;
            call(*function, &values)
        }
    }
}

fn call(function: Function, arguments: &[Value]) -> Result<Value, String> {
    match (function, arguments) {
        (Function::Default, [value, other]) => {
            Ok(if *value == Value::Nil { other.clone() } else { value.clone() })
        }
        (Function::IsNil, [value]) => Ok(Value::Truth(*value == Value::Nil)),
        (Function::Len, [value]) => Ok(Value::Number(numbers(value)?.len() as f64)),
        (Function::IsNan, [value]) => Ok(Value::Truth(number(value)?.is_nan())),
        (Function::IsInf, [value]) => Ok(Value::Truth(number(value)?.is_infinite())),
        (Function::AsInt, [value]) => Ok(Value::Number(number(value)?.trunc())),
        (Function::AsFloat, [value]) => Ok(Value::Number(number(value)?)),
        (Function::Abs, [value]) => Ok(Value::Number(number(value)?.abs())),
        (Function::Default, _) => Err("it takes two arguments".to_owned()),
        _ => Err("it takes one argument".to_owned()),
    }
}

fn operate(operator: Binary, left: &Value, right: &Value) -> Result<Value, String> {
    let truth = |truth| Ok(Value::Truth(truth));
    match (operator, left, right) {
        (Binary::Equal, Value::Nil, _) | (Binary::Equal, _, Value::Nil) => return truth(left == right),
        (Binary::Unequal, Value::Nil, _) | (Binary::Unequal, _, Value::Nil) => return truth(left != right),
        (Binary::Equal, Value::Truth(left), Value::Truth(right)) => return truth(left == right),
        (Binary::Unequal, Value::Truth(left), Value::Truth(right)) => return truth(left != right),
        _ => {}
    }
    let (left, right) = (number(left)?, number(right)?);
    let number = |number| Ok(Value::Number(number));
    #[expect(clippy::float_cmp, reason = "an operator asked for that")]
    match operator {
        Binary::Equal => truth(left == right),
        Binary::Unequal => truth(left != right),
        Binary::Less => truth(left < right),
        Binary::AtMost => truth(left <= right),
        Binary::Greater => truth(left > right),
        Binary::AtLeast => truth(left >= right),
        Binary::Plus => number(left + right),
        Binary::Minus => number(left - right),
        Binary::Times => number(left * right),
        Binary::Divided => number(left / right),
        Binary::Remainder => number(left % right),
        Binary::Or | Binary::And => Err("it is about true and false".to_owned()),
    }
}

fn element_at(value: &Value, index: f64) -> Result<Value, String> {
    let numbers = numbers(value)?;
    let counted = if index < 0.0 { numbers.len() as f64 + index } else { index };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is checked to be a whole one"
    )]
    let found = (counted >= 0.0 && counted.fract() == 0.0).then(|| numbers.get(counted as usize)).flatten();
    found
        .copied()
        .map(Value::Number)
        .ok_or_else(|| format!("there is no element {index} of {}", numbers.len()))
}

fn number(value: &Value) -> Result<f64, String> {
    match value {
        Value::Number(number) => Ok(*number),
        other => Err(format!("{other} is no number")),
    }
}

fn numbers(value: &Value) -> Result<&[f64], String> {
    match value {
        Value::Numbers(numbers) => Ok(numbers),
        other => Err(format!("{other} has no elements")),
    }
}

fn truth(value: &Value) -> Result<bool, String> {
    match value {
        Value::Truth(truth) => Ok(*truth),
        other => Err(format!("{other} is neither true nor false")),
    }
}
