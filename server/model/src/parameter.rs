//! Named values that travel beside the tensors of a request or a response.

use smol_str::SmolStr;

use crate::InferError;

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// `true` or `false`.
    Bool(bool),
    /// An integer in the range of a signed 64-bit number.
    Int(i64),
    /// An integer above that range, up to 2^64 - 1.
    Uint(u64),
    /// A number with a fraction or an exponent.
    Double(f64),
    /// Text.
    String(String),
}

/// Parameters in the order they were given; a name occurs once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters(Vec<(SmolStr, Parameter)>);

impl Parameters {
    /// A request has no more than this many: looking one up reads them all.
    pub const MAX: usize = 256;

    /// # Errors
    /// When `count` are more than [`Parameters::MAX`].
    pub fn check_count(count: usize) -> Result<(), InferError> {
        if count <= Parameters::MAX {
            return Ok(());
        }
        Err(InferError::invalid(format!("the request has more than {} parameters", Parameters::MAX)))
    }

    /// The value of `name`, if it was given.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Sets `name` to `value`; the last value given wins.
    pub fn insert(&mut self, name: impl Into<SmolStr>, value: Parameter) {
        let name = name.into();
        match self.0.iter_mut().find(|(key, _)| *key == name) {
            Some((_, present)) => *present = value,
            None => self.0.push((name, value)),
        }
    }

    /// Takes `name` out.
    pub fn remove(&mut self, name: &str) -> Option<Parameter> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(at).1)
    }

    /// Every name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_given_wins() {
        let mut parameters = Parameters::default();
        parameters.insert("priority", Parameter::Int(1));
        parameters.insert("priority", Parameter::Int(2));
        assert_eq!(parameters.get("priority"), Some(&Parameter::Int(2)));
        assert_eq!(parameters.len(), 1);
        assert_eq!(parameters.remove("priority"), Some(Parameter::Int(2)));
        assert!(parameters.is_empty());
    }
}
