//! Any text as a `config.pbtxt`: it is a configuration, or an error that points into the text.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use proto::{config_json, config_text};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    match config_text::parse(text, "config.pbtxt") {
        Ok(config) => {
            let json = config_json::to_json(&config);
            let again = config_json::from_json(&json.to_string()).expect("what was printed can be read");
            assert_eq!(config_json::to_json(&again), json, "JSON keeps every field");
        }
        Err(error) => {
            let lines = text.split('\n').count();
            assert!((1..=lines).contains(&error.line), "line {} of {lines}: {error}", error.line);
        }
    }
    Corpus::Keep
});
