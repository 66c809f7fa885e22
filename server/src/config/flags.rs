//! The command line of the server, made from the declarations.

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use super::setting::{Declaration, DefaultValue, Group};
use super::settings;
use super::triton::{self, ForeignOption};

/// What was typed on the command line, not yet looked at. A flattened part of a `clap` parser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub(super) given: Vec<(&'static str, Vec<String>)>,
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        let own = settings::ALL.iter().enumerate().map(|(order, declaration)| setting(declaration, order));
        command.args(own).args(triton::OPTIONS.iter().map(foreign_option))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, clap::Error> {
        let names = settings::ALL
            .iter()
            .map(|declaration| declaration.name)
            .chain(triton::OPTIONS.iter().map(|option| option.name));
        Ok(given(matches, names))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Flags::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Those of the flags that say how models are read, for a command that names the repositories itself. A flattened
/// part of a `clap` parser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFlags(pub(super) Flags);

/// The settings that [`ModelFlags`] takes.
fn of_models() -> impl Iterator<Item = &'static Declaration> {
    let repository = settings::MODEL_REPOSITORY.declaration.name;
    let own = settings::ALL.iter().copied();
    own.filter(move |declaration| match declaration.group {
        Group::Models => declaration.name != repository,
        _ => declaration.name == settings::CONFIG.declaration.name,
    })
}

impl clap::Args for ModelFlags {
    fn augment_args(command: Command) -> Command {
        command.args(of_models().enumerate().map(|(order, declaration)| setting(declaration, order)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        ModelFlags::augment_args(command)
    }
}

impl FromArgMatches for ModelFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<ModelFlags, clap::Error> {
        Ok(ModelFlags(given(matches, of_models().map(|declaration| declaration.name))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = ModelFlags::from_arg_matches(matches)?;
        Ok(())
    }
}

fn given(matches: &ArgMatches, names: impl Iterator<Item = &'static str>) -> Flags {
    let given = names.filter_map(|name| {
        let values = matches.get_many::<String>(name)?;
        Some((name, values.cloned().collect()))
    });
    Flags { given: given.collect() }
}

fn setting(declaration: &Declaration, order: usize) -> Arg {
    let help = match declaration.default {
        DefaultValue::Value(value) | DefaultValue::Derived(value) => {
            format!("{} [{value}]", declaration.help)
        }
        DefaultValue::Absent => declaration.help.to_owned(),
    };
    let action = if declaration.repeatable { ArgAction::Append } else { ArgAction::Set };
    argument(declaration.name, declaration.switch, action)
        .aliases(declaration.aliases)
        .value_name(declaration.placeholder)
        .help(help)
        .help_heading(declaration.group.title())
        .display_order(order)
        .hide(declaration.rare)
}

fn foreign_option(option: &ForeignOption) -> Arg {
    argument(option.name, option.switch, ArgAction::Append).hide(true)
}

/// A flag that takes one value: `--x v`, `--x=v`, or, for a switch, `--x` alone. When it is given twice and does
/// not collect its values, the last one holds, as with Triton.
fn argument(name: &'static str, switch: bool, action: ArgAction) -> Arg {
    let argument = Arg::new(name).long(name);
    let argument = match action {
        ArgAction::Set => argument.overrides_with(name),
        _ => argument,
    };
    let argument = argument.action(action);
    if switch { argument.num_args(0..=1).default_missing_value("true") } else { argument.num_args(1) }
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;

    #[track_caller]
    fn given(line: &str) -> Vec<(&'static str, Vec<String>)> {
        let command = Flags::augment_args(Command::new("volley"));
        let matches = command
            .try_get_matches_from(["volley"].into_iter().chain(line.split_whitespace()))
            .unwrap_or_else(|error| panic!("{error}"));
        Flags::from_arg_matches(&matches).unwrap().given
    }

    fn one(name: &'static str, values: &[&str]) -> Vec<(&'static str, Vec<String>)> {
        vec![(name, values.iter().map(|value| (*value).to_owned()).collect())]
    }

    #[test]
    fn the_declarations_make_a_sound_command_line() {
        Flags::augment_args(Command::new("volley")).debug_assert();
        ModelFlags::augment_args(Command::new("check")).debug_assert();
    }

    #[test]
    fn a_value_follows_a_space_or_an_equals_sign_and_a_switch_needs_none() {
        assert_eq!(given("--http-port 1"), one("http-port", &["1"]));
        assert_eq!(given("--http-port=1"), one("http-port", &["1"]));
        assert_eq!(given("--allow-http"), one("allow-http", &["true"]));
        assert_eq!(given("--allow-http=off"), one("allow-http", &["off"]));
        assert_eq!(given("--allow-http off"), one("allow-http", &["off"]));
        assert_eq!(given("--log-file="), one("log-file", &[""]));
    }

    #[test]
    fn the_last_value_holds_unless_values_are_collected() {
        assert_eq!(given("--http-port 1 --http-port=2"), one("http-port", &["2"]));
        assert_eq!(given("--allow-http --allow-http=no"), one("allow-http", &["no"]));
        for line in ["--model-repository a --model-repository=b", "--model-store a --model-repo b"] {
            assert_eq!(given(line), one("model-repository", &["a", "b"]), "{line}");
        }
    }

    #[test]
    fn triton_command_lines_are_accepted_unchanged() {
        let line = "--trace-config triton,file=/tmp/t --trace-config=rate=100 --allow-client-shm \
                    --host-policy=gpu_0,numa-node=0 --pinned-memory-pool-byte-size=268435456";
        let names: Vec<_> = given(line).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            ["host-policy", "pinned-memory-pool-byte-size", "allow-client-shm", "trace-config"]
        );
        let command = Flags::augment_args(Command::new("volley"));
        let error = command.try_get_matches_from(["volley", "--host-policy"]).unwrap_err();
        assert!(error.to_string().contains("--host-policy"), "{error}");
    }

    #[test]
    fn the_flags_stand_beside_subcommands() {
        #[derive(clap::Parser)]
        #[command(args_conflicts_with_subcommands = true)]
        struct Line {
            #[command(flatten)]
            flags: Flags,
            #[command(subcommand)]
            command: Option<Task>,
        }
        #[derive(clap::Subcommand)]
        enum Task {
            Check { directories: Vec<String> },
        }
        let parse =
            |words: &[&str]| <Line as clap::Parser>::try_parse_from(words).map_err(|error| error.kind());
        let serve = parse(&["volley", "--http-port", "1"]).unwrap();
        assert_eq!((serve.flags.given, serve.command.is_none()), (one("http-port", &["1"]), true));
        let check = parse(&["volley", "check", "a", "b"]).unwrap();
        let Some(Task::Check { directories }) = check.command else { panic!("no subcommand") };
        assert_eq!(
            (directories.as_slice(), check.flags),
            (["a".to_owned(), "b".to_owned()].as_slice(), Flags::default())
        );
    }

    #[test]
    fn help_is_short() {
        let help = Flags::augment_args(Command::new("volley")).term_width(110).render_help().to_string();
        assert!(help.lines().count() <= 75, "{} lines:\n{help}", help.lines().count());
        for hidden in ["--trace-config", "--grpc-keepalive-time"] {
            assert!(!help.contains(hidden), "{help}");
        }
        let headings = Group::ALL.map(|group| help.find(&format!("\n{}:\n", group.title())));
        assert!(headings.is_sorted() && headings[0].is_some(), "{help}");
    }
}
