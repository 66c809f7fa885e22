//! Where a model repository is, as its URL says.
//!
//! Only the URL is read here: credentials, region and endpoints that the environment names come later.

use std::fmt;
use std::path::PathBuf;

/// Longest URL that is read, in bytes.
const MAX_URL: usize = 4096;

/// A model repository's place. It is shown as its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    url: String,
    pub(crate) service: Service,
    /// What the names of all objects of the repository begin with, without slashes around it; empty for the bucket
    /// itself and for a directory.
    pub(crate) prefix: String,
}

/// Who keeps the objects, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    S3 {
        bucket: String,
        /// `http://HOST:PORT` or with `https`, for a URL that names it.
        endpoint: Option<String>,
    },
    Google {
        bucket: String,
    },
    Azure {
        container: String,
        /// For a URL that names it.
        account: Option<String>,
    },
    Directory(PathBuf),
}

/// A URL that names no model repository. Parts of it that may be secret are not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url:?} is not the URL of a model repository: {reason}; write s3://BUCKET/PREFIX, \
     s3://https://HOST:PORT/BUCKET/PREFIX, gs://BUCKET/PREFIX, as://ACCOUNT/CONTAINER/PREFIX, az://CONTAINER/PREFIX \
     or file:///DIRECTORY"
)]
pub struct InvalidUrl {
    url: String,
    reason: &'static str,
}

/// Looks whether `url` can name a model repository; nobody is asked.
///
/// # Errors
/// When it cannot, and why.
pub fn check_url(url: &str) -> Result<(), InvalidUrl> {
    Location::parse(url).map(|_| ())
}

impl Location {
    /// # Errors
    /// When the scheme is none of ours, the bucket or the prefix cannot be, or the URL holds credentials.
    pub(crate) fn parse(url: &str) -> Result<Location, InvalidUrl> {
        let wrong = |reason| InvalidUrl { url: without_secrets(url), reason };
        if url.len() > MAX_URL {
            return Err(wrong("it is longer than 4096 bytes"));
        }
        if url.chars().any(|c| c.is_control() || c == '\\') {
            return Err(wrong("it holds a control character or a backslash"));
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        if scheme != "file" && rest.contains(['?', '#']) {
            return Err(wrong("it has a query, which is not read; credentials come from the environment"));
        }
        if scheme != "file" && rest.contains('@') {
            return Err(wrong("it holds an @; credentials come from the environment"));
        }
        let (service, prefix) = match scheme {
            "s3" => s3(rest),
            "gs" => bucket_and_prefix(rest).map(|(bucket, prefix)| (Service::Google { bucket }, prefix)),
            "az" => bucket_and_prefix(rest)
                .map(|(container, prefix)| (Service::Azure { container, account: None }, prefix)),
            "as" => azure_with_account(rest),
            "file" => directory(rest),
            _ => Err("its scheme is none of s3, gs, as, az and file"),
        }
        .map_err(wrong)?;
        let prefix = clean_prefix(&prefix).map_err(wrong)?;
        Ok(Location { url: url.trim_end_matches('/').to_owned(), service, prefix })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

type Parsed = Result<(Service, String), &'static str>;

/// `BUCKET/PREFIX`, or before that an endpoint: `http://HOST/`, `https://HOST/`, or `HOST:PORT/`, which is spoken to
/// in plain HTTP as with Triton.
fn s3(rest: &str) -> Parsed {
    let (protocol, rest) = match rest.split_once("://") {
        Some((protocol @ ("http" | "https"), rest)) => (Some(protocol), rest),
        Some(_) => return Err("its endpoint is neither http nor https"),
        None => (None, rest),
    };
    let (first, path) = rest.split_once('/').unwrap_or((rest, ""));
    let endpoint = match (protocol, first.contains(':')) {
        (None, false) => None,
        (protocol, _) => Some(format!("{}://{}", protocol.unwrap_or("http"), host(first)?)),
    };
    let (bucket, prefix) = bucket_and_prefix(if endpoint.is_some() { path } else { rest })?;
    Ok((Service::S3 { bucket, endpoint }, prefix))
}

/// `host`, if it can be one, with a port or without.
fn host(host: &str) -> Result<&str, &'static str> {
    let (name, port) = host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let name_holds = |c: char| c.is_ascii_alphanumeric() || ".-_[]:".contains(c);
    if name.is_empty() || !name.chars().all(name_holds) {
        return Err("its endpoint has no host");
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("the port of its endpoint is no number up to 65535");
    }
    Ok(host)
}

/// `ACCOUNT/CONTAINER/PREFIX`; the account may be written as the name of its host.
fn azure_with_account(rest: &str) -> Parsed {
    let (host, path) = rest.split_once('/').ok_or("it names no container")?;
    let account = host.split('.').next().unwrap_or_default();
    if account.is_empty() || !account.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        return Err("its account is not lower-case letters and digits");
    }
    let (container, prefix) = bucket_and_prefix(path)?;
    Ok((Service::Azure { container, account: Some(account.to_owned()) }, prefix))
}

fn directory(rest: &str) -> Parsed {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err("its directory is not absolute");
    }
    Ok((Service::Directory(PathBuf::from(path)), String::new()))
}

fn bucket_and_prefix(path: &str) -> Result<(String, String), &'static str> {
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    if bucket.is_empty() {
        return Err("it names no bucket");
    }
    if !bucket.chars().all(|c| c.is_ascii_alphanumeric() || ".-_$".contains(c)) || bucket.starts_with('.') {
        return Err("no bucket can have this name");
    }
    Ok((bucket.to_owned(), prefix.to_owned()))
}

/// `prefix` without the slash at its end. A segment is taken as it is written: `%20` is three characters.
fn clean_prefix(prefix: &str) -> Result<String, &'static str> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("its prefix has an empty segment, . or ..");
    }
    Ok(prefix.to_owned())
}

/// `url` without what stands before an `@` or after a `?`: people put keys and tokens there.
fn without_secrets(url: &str) -> String {
    let url: String = url.chars().take(256).collect();
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    match (shown.split_once("://"), shown.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        (None, Some((_, rest))) => format!("…@{rest}"),
        _ => shown.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn s3(url: &str, bucket: &str, prefix: &str, endpoint: Option<&str>) {
        let location = Location::parse(url).unwrap();
        let service = Service::S3 { bucket: bucket.to_owned(), endpoint: endpoint.map(str::to_owned) };
        assert_eq!((location.service, location.prefix.as_str()), (service, prefix));
    }

    #[track_caller]
    fn wrong(url: &str, words: &str) {
        let error = Location::parse(url).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("SECRET"), "{error}");
    }

    #[test]
    fn a_bucket_may_have_a_prefix_and_an_endpoint() {
        s3("s3://models", "models", "", None);
        s3("s3://models/", "models", "", None);
        s3("s3://models/a/b c/", "models", "a/b c", None);
        s3("s3://https://host:9000/models/a", "models", "a", Some("https://host:9000"));
        s3("s3://https://host/models/a", "models", "a", Some("https://host"));
        s3("s3://http://10.0.0.1:9000/models", "models", "", Some("http://10.0.0.1:9000"));
        s3("s3://host:9000/models/a/b", "models", "a/b", Some("http://host:9000"));
        s3("s3://[::1]:9000/models", "models", "", Some("http://[::1]:9000"));
    }

    #[test]
    fn the_other_services_have_their_schemes() {
        let service = |url| Location::parse(url).unwrap().service;
        assert_eq!(service("gs://models/a"), Service::Google { bucket: "models".to_owned() });
        assert_eq!(
            service("az://models/a"),
            Service::Azure { container: "models".to_owned(), account: None }
        );
        let account = Service::Azure { container: "models".to_owned(), account: Some("us4".to_owned()) };
        assert_eq!(service("as://us4/models/a"), account);
        assert_eq!(service("as://us4.blob.core.windows.net/models/a"), account);
        assert_eq!(service("file:///srv/models"), Service::Directory("/srv/models".into()));
    }

    #[test]
    fn what_is_no_repository_is_refused() {
        wrong("models", "it has no scheme");
        wrong("ftp://models", "its scheme");
        wrong("s3://", "no bucket");
        wrong("s3:///a", "no bucket");
        wrong("s3://host:9000/", "no bucket");
        wrong("s3://host:port/models", "the port of its endpoint");
        wrong("s3://ftp://host:9000/models", "neither http nor https");
        wrong("s3://models/a//b", "empty segment");
        wrong("s3://models/../other", "empty segment, . or ..");
        wrong("gs://mod els/a", "no bucket can have this name");
        wrong("as://us4", "no container");
        wrong("as://US4/models", "its account");
        wrong("file://models", "not absolute");
        wrong("s3://models/a\nb", "control character");
        wrong(&format!("s3://models/{}", "a".repeat(5000)), "longer than");
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_shown() {
        wrong("s3://key:SECRET@host:9000/models", "credentials come from the environment");
        wrong("s3://https://key:SECRET@host/models", "credentials come from the environment");
        wrong("as://us4/models?sig=SECRET", "credentials come from the environment");
        wrong("key:SECRET@host", "no scheme");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(url in "(s3|gs|as|az|file)://.{0,60}") {
            if let Ok(location) = Location::parse(&url) {
                proptest::prop_assert!(!location.prefix.split('/').any(|part| part == ".."));
            }
        }
    }
}
