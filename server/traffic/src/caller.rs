//! Who asks, as far as routing wants to know.

use std::borrow::Cow;

use model::Parameter;
use smol_str::SmolStr;

/// What a request tells about who asks. Names of headers are in lower case.
pub trait Caller {
    /// The value of a header, if it was sent and is text.
    fn header(&self, name: &str) -> Option<&str>;

    /// The value of a request parameter, if it was given.
    fn parameter(&self, name: &str) -> Option<&Parameter>;

    /// The request's own id; empty when there is none.
    fn id(&self) -> &str;

    /// A number that differs from request to request, for those of whom nothing is known.
    fn random(&self) -> u64;
}

/// Where the routing key of a request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In a header, whose name is in lower case.
    Header(SmolStr),
    /// In a request parameter.
    Parameter(SmolStr),
}

impl KeySource {
    /// What stands there; `None` where nothing does, or what is empty.
    pub fn read<'a>(&self, caller: &'a impl Caller) -> Option<Cow<'a, str>> {
        let value = match self {
            KeySource::Header(name) => caller.header(name).map(Cow::Borrowed),
            KeySource::Parameter(name) => caller.parameter(name).map(text),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// A parameter as text: numbers in decimals, `true` and `false`.
pub(crate) fn text(parameter: &Parameter) -> Cow<'_, str> {
    match parameter {
        Parameter::String(text) => Cow::Borrowed(text),
        Parameter::Bool(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
        Parameter::Int(number) => Cow::Owned(number.to_string()),
        Parameter::Uint(number) => Cow::Owned(number.to_string()),
        Parameter::Double(number) => Cow::Owned(number.to_string()),
    }
}
