//! What files may be called where others than this machine name them, so that each stays below its directory.

/// Longest name of a file or directory, in bytes: what common file systems allow.
const MAX_SEGMENT: usize = 255;

/// Why no file may have `name`, a path relative to a directory; `None` when it may.
pub fn refusal(name: &str) -> Option<&'static str> {
    if name.starts_with('/') {
        return Some("it is absolute");
    }
    if name.contains('\\') {
        return Some("it holds a backslash");
    }
    if name.chars().any(char::is_control) {
        return Some("it holds a control character");
    }
    name.split('/').find_map(|segment| match segment {
        "" => Some("it has an empty segment"),
        "." | ".." => Some("it would leave its directory"),
        _ if segment.len() > MAX_SEGMENT => Some("a segment of it is longer than 255 bytes"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use super::*;

    #[test]
    fn names_of_files_are_accepted() {
        for name in ["a", "m/1/model.onnx", "m/config.pbtxt", "m/1/…/ä b", "m/..a", "m/1/a:b"] {
            assert_eq!(refusal(name), None, "{name}");
        }
    }

    #[test]
    fn names_that_would_escape_are_refused() {
        for (name, reason) in [
            ("", "empty"),
            ("/etc/passwd", "absolute"),
            ("m/../../etc", "leave"),
            ("..", "leave"),
            ("m/./1", "leave"),
            ("m//1", "empty"),
            ("m/1/", "empty"),
            ("m\\..\\1", "backslash"),
            ("m/\0", "control"),
            ("m/a\nb", "control"),
            (&"a".repeat(256), "longer"),
        ] {
            assert!(refusal(name).is_some_and(|said| said.contains(reason)), "{name:?}: {:?}", refusal(name));
        }
    }

    proptest::proptest! {
        #[test]
        fn an_accepted_name_stays_below(name in "[a./\\\\\0]{0,12}") {
            let stays = Path::new(&name).components().all(|part| matches!(part, Component::Normal(_)));
            proptest::prop_assert!(refusal(&name).is_some() || stays && !name.is_empty());
        }
    }
}
