//! What a setting is: one declaration gives its flag, environment variable, key, default and help.

use super::kind::Kind;

/// A setting whose value is a `T`.
pub(super) struct Setting<T> {
    pub(super) declaration: Declaration,
    pub(super) parse: fn(&str) -> Option<T>,
}

/// Everything about a setting that its users see.
#[derive(Debug)]
pub(super) struct Declaration {
    /// The flag without its dashes; also the key in the configuration file.
    pub(super) name: &'static str,
    /// Other names of the flag.
    pub(super) aliases: &'static [&'static str],
    pub(super) group: Group,
    pub(super) default: DefaultValue,
    /// What its value is called in the help.
    pub(super) placeholder: &'static str,
    /// What its value must be, as the end of a sentence.
    pub(super) accepts: &'static str,
    /// One line that says what it does.
    pub(super) help: &'static str,
    /// True when the flag alone means `true`.
    pub(super) switch: bool,
    /// True when it may be given several times.
    pub(super) repeatable: bool,
    /// True when it is too rarely needed for `--help`; the reference of settings still lists it.
    pub(super) rare: bool,
}

/// What holds when a setting is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DefaultValue {
    /// This text, as if it had been given.
    Value(&'static str),
    /// Something only known at start, in words.
    Derived(&'static str),
    /// Nothing.
    Absent,
}

/// The headings of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Serving,
    Models,
    Http,
    Grpc,
    Metrics,
    Logging,
    Shutdown,
}

impl Group {
    /// In the order of the help.
    #[cfg(test)]
    pub(super) const ALL: [Group; 7] = [
        Group::Serving,
        Group::Models,
        Group::Http,
        Group::Grpc,
        Group::Metrics,
        Group::Logging,
        Group::Shutdown,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Group::Serving => "Serving",
            Group::Models => "Models",
            Group::Http => "HTTP",
            Group::Grpc => "gRPC",
            Group::Metrics => "Metrics",
            Group::Logging => "Logging",
            Group::Shutdown => "Shutdown",
        }
    }
}

/// The environment variable of the setting `name`: `http-port` is `VOLLEY_HTTP_PORT`.
pub(super) fn variable(name: &str) -> String {
    format!("VOLLEY_{}", name.replace('-', "_").to_ascii_uppercase())
}

impl<T> Setting<T> {
    pub(super) const fn new(
        name: &'static str,
        kind: &Kind<T>,
        default: DefaultValue,
        help: &'static str,
    ) -> Setting<T> {
        let declaration = Declaration {
            name,
            aliases: &[],
            group: Group::Serving,
            default,
            placeholder: kind.placeholder,
            accepts: kind.accepts,
            help,
            switch: kind.switch,
            repeatable: false,
            rare: false,
        };
        Setting { declaration, parse: kind.parse }
    }

    pub(super) const fn under(mut self, group: Group) -> Setting<T> {
        self.declaration.group = group;
        self
    }

    pub(super) const fn also(mut self, aliases: &'static [&'static str]) -> Setting<T> {
        self.declaration.aliases = aliases;
        self
    }

    pub(super) const fn repeatable(mut self) -> Setting<T> {
        self.declaration.repeatable = true;
        self
    }

    pub(super) const fn rare(mut self) -> Setting<T> {
        self.declaration.rare = true;
        self
    }
}
