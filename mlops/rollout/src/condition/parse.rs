//! Reads conditions: by the precedence of their operators.

use super::{Binary, Expression, Function, Value};

/// Where it cannot be understood, in characters from 0, and why.
type Wrong = (usize, String);

/// Deeper is a mistake, or meant ill.
const DEEPEST: usize = 64;

/// Longer is, too.
const LONGEST: usize = 4096;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(f64),
    Word(String),
    Symbol(&'static str),
    End,
}

/// Longer ones first.
const SYMBOLS: [&str; 23] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", ",", "#",
    "{", "}", "?",
];

/// The whole of `text`.
pub(super) fn expression(text: &str) -> Result<Expression, Wrong> {
    if text.len() > LONGEST {
        return Err((0, format!("it has more than {LONGEST} bytes")));
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let expression = parser.binary(0)?;
    match parser.peek() {
        Token::End => Ok(expression),
        other => Err((parser.at(), format!("{} is not expected here", shown(other)))),
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Wrong> {
    let characters: Vec<char> = text.chars().collect();
    let (mut at, mut tokens) = (0, Vec::new());
    while let Some(&character) = characters.get(at) {
        let run = |from: usize, wanted: fn(char) -> bool| {
            characters[from..].iter().take_while(|character| wanted(**character)).count()
        };
        if character.is_whitespace() {
            at += 1;
        } else if character.is_ascii_digit() || character == '.' {
            let mut length = run(at, |character| character.is_ascii_digit() || character == '.');
            if matches!(characters.get(at + length), Some('e' | 'E')) {
                let signed = usize::from(matches!(characters.get(at + length + 1), Some('+' | '-')));
                length += 1
                    + signed
                    + run((at + length + 1 + signed).min(characters.len()), |digit| digit.is_ascii_digit());
            }
            let digits: String = characters[at..at + length].iter().collect();
            let number = digits.parse().map_err(|_| (at, format!("{digits:?} is no number")))?;
            tokens.push((at, Token::Number(number)));
            at += length;
        } else if character.is_alphabetic() || character == '_' {
            let length = run(at, |character| character.is_alphanumeric() || character == '_');
            tokens.push((at, Token::Word(characters[at..at + length].iter().collect())));
            at += length;
        } else {
            let begins = |symbol: &&&str| {
                symbol.chars().enumerate().all(|(index, wanted)| characters.get(at + index) == Some(&wanted))
            };
            let symbol =
                SYMBOLS.iter().find(begins).ok_or_else(|| (at, format!("{character:?} means nothing")))?;
            tokens.push((at, Token::Symbol(symbol)));
            at += symbol.len();
        }
    }
    tokens.push((characters.len(), Token::End));
    Ok(tokens)
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    /// The last one stays.
    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn take_if(&mut self, symbol: &str) -> bool {
        let is_it = matches!(self.peek(), Token::Symbol(other) if *other == symbol);
        if is_it {
            self.take();
        }
        is_it
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Wrong> {
        if self.take_if(symbol) {
            return Ok(());
        }
        Err((self.at(), format!("{symbol:?} is expected, and not {}", shown(self.peek()))))
    }

    /// Operators that bind at least as tight as `least`.
    fn binary(&mut self, least: u8) -> Result<Expression, Wrong> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err((self.at(), format!("it is nested more than {DEEPEST} deep")));
        }
        let mut left = self.unary()?;
        while let Some((operator, tightness)) =
            operator(self.peek()).filter(|(_, tightness)| *tightness >= least)
        {
            self.take();
            let right = self.binary(tightness + 1)?;
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression, Wrong> {
        let mut signs = Vec::new();
        loop {
            let is_not = matches!(self.peek(), Token::Word(word) if word == "not")
                || *self.peek() == Token::Symbol("!");
            let is_minus = *self.peek() == Token::Symbol("-");
            if !is_not && !is_minus {
                break;
            }
            signs.push(is_not);
            self.take();
            if signs.len() > DEEPEST {
                return Err((self.at(), format!("it is nested more than {DEEPEST} deep")));
            }
        }
        let mut value = self.primary()?;
        while self.take_if("[") {
            let index = self.binary(0)?;
            self.expect("]")?;
            value = Expression::Index(Box::new(value), Box::new(index));
        }
        let signed = |inner, is_not| match is_not {
            true => Expression::Not(Box::new(inner)),
            false => Expression::Negative(Box::new(inner)),
        };
        Ok(signs.into_iter().rev().fold(value, signed))
    }

    fn primary(&mut self) -> Result<Expression, Wrong> {
        let at = self.at();
        match self.take() {
            Token::Number(number) => Ok(Expression::Constant(Value::Number(number))),
            Token::Symbol("#") => Ok(Expression::Element),
            Token::Symbol("(") => {
                let inner = self.binary(0)?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Word(word) => match word.as_str() {
                "result" => Ok(Expression::Result),
                "true" => Ok(Expression::Constant(Value::Truth(true))),
                "false" => Ok(Expression::Constant(Value::Truth(false))),
                "nil" => Ok(Expression::Constant(Value::Nil)),
                name => self.call(at, name),
            },
            other => Err((at, format!("a value is expected, and not {}", shown(&other)))),
        }
    }

    fn call(&mut self, at: usize, name: &str) -> Result<Expression, Wrong> {
        let Some(function) = function(name) else {
            return Err((at, format!("{name:?} is no function, and no value; there is `result`")));
        };
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.take_if(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            let braced = self.take_if("{");
            arguments.push(self.binary(0)?);
            if braced {
                self.expect("}")?;
            }
        }
        let wanted =
            if matches!(function, Function::Default | Function::Any | Function::All) { 2 } else { 1 };
        if arguments.len() != wanted {
            return Err((at, format!("{name} has {} arguments, and takes {wanted}", arguments.len())));
        }
        Ok(Expression::Call(function, arguments))
    }
}

/// An operator, and how tight it binds.
fn operator(token: &Token) -> Option<(Binary, u8)> {
    let symbol = match token {
        Token::Symbol(symbol) => symbol,
        Token::Word(word) if word == "and" => "&&",
        Token::Word(word) if word == "or" => "||",
        _ => return None,
    };
    Some(match symbol {
        "||" => (Binary::Or, 1),
        "&&" => (Binary::And, 2),
        "==" => (Binary::Equal, 3),
        "!=" => (Binary::Unequal, 3),
        "<" => (Binary::Less, 3),
        "<=" => (Binary::AtMost, 3),
        ">" => (Binary::Greater, 3),
        ">=" => (Binary::AtLeast, 3),
        "+" => (Binary::Plus, 4),
        "-" => (Binary::Minus, 4),
        "*" => (Binary::Times, 5),
        "/" => (Binary::Divided, 5),
        "%" => (Binary::Remainder, 5),
        _ => return None,
    })
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "isNaN" => Function::IsNan,
        "isInf" => Function::IsInf,
        "isNil" => Function::IsNil,
        "len" => Function::Len,
        "default" => Function::Default,
        "asInt" => Function::AsInt,
        "asFloat" => Function::AsFloat,
        "abs" => Function::Abs,
        "any" => Function::Any,
        "all" => Function::All,
        _ => return None,
    })
}

fn shown(token: &Token) -> String {
    match token {
        Token::Number(number) => number.to_string(),
        Token::Word(word) => format!("{word:?}"),
        Token::Symbol(symbol) => format!("{symbol:?}"),
        Token::End => "the end".to_owned(),
    }
}
