//! Why a repository in object storage gives no answer, in few words.

use std::error::Error;

use object_store::client::{HttpError, HttpErrorKind};

use crate::location::InvalidUrl;

/// What went wrong with a repository, a file of it, or the cache. No text of it holds a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The URL names no repository.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// A setting of the environment cannot be used.
    #[error("cannot open {url}: {reason}")]
    Setting {
        /// The repository.
        url: String,
        /// The setting, and what is wrong with it.
        reason: String,
    },
    /// Nobody answered in time.
    #[error("{url} cannot be reached: {reason}; check the network, the endpoint and that the service is up")]
    Unreachable {
        /// The repository.
        url: String,
        /// The operating system's words, or the time that passed.
        reason: String,
    },
    /// The service does not let us read.
    #[error("{url} may not be read: {reason}; {advice}")]
    Denied {
        /// The repository.
        url: String,
        /// The service's code.
        reason: String,
        /// Which settings to look at.
        advice: &'static str,
    },
    /// There is no such bucket, container or directory, or no longer.
    #[error("{url} is not there: the service knows no such bucket; create it, or correct the URL")]
    MissingBucket {
        /// The repository.
        url: String,
    },
    /// The service answered with an error.
    #[error("{url} answers with an error: {reason}")]
    Service {
        /// The repository.
        url: String,
        /// The service's status and code.
        reason: String,
    },
    /// An object has a name that no file may have.
    #[error("{url} holds an object {object:?} whose name is refused: {reason}; remove or rename it")]
    RefusedName {
        /// The repository.
        url: String,
        /// Its name.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The service lets us read and not write, or neither.
    #[error("{url} may not be written to: {reason}; {advice}")]
    ReadOnly {
        /// The repository.
        url: String,
        /// The service's code.
        reason: String,
        /// Which settings to look at.
        advice: &'static str,
    },
    /// A version that was to be published is there, with other files.
    #[error("{version} is in {url} already, with other files; publish another version, or replace this one")]
    Exists {
        /// The repository.
        url: String,
        /// The model and the version.
        version: String,
    },
    /// What was to be published cannot be.
    #[error("cannot publish {path}: {reason}")]
    Unpublishable {
        /// The file or directory, or the name.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More objects than are listed.
    #[error("{url} holds more than {limit} objects; serve a smaller prefix, or raise the limit")]
    TooManyObjects {
        /// The repository.
        url: String,
        /// How many would be listed.
        limit: usize,
    },
    /// A file is another than the one that was listed.
    #[error("{object} in {url} was replaced or removed while it was fetched; list the repository again")]
    Changed {
        /// The repository.
        url: String,
        /// The file, relative to the repository.
        object: String,
    },
    /// A file is not what the manifest says.
    #[error(
        "{object} in {url} has the SHA-256 {found}, but its manifest says {expected}; publish the version again"
    )]
    Mismatch {
        /// The repository.
        url: String,
        /// The file, relative to the repository.
        object: String,
        /// The sum in the manifest.
        expected: String,
        /// The sum of what was fetched.
        found: String,
    },
    /// The manifest cannot be kept: a file that it names is missing, or it cannot be read.
    #[error("the manifest {manifest} in {url} cannot be kept: {reason}")]
    Manifest {
        /// The repository.
        url: String,
        /// The manifest, relative to the repository.
        manifest: String,
        /// The line or the file, and what is wrong with it.
        reason: String,
    },
    /// The cache has no room for the files, even without all that nobody uses.
    #[error(
        "the cache {path} has no room: {needed} bytes are needed, {kept} are in use, and its size is {capacity}; \
         give it more, or serve less"
    )]
    NoRoom {
        /// The cache's directory.
        path: String,
        /// Bytes of what is to be fetched.
        needed: u64,
        /// Bytes of what may not be evicted.
        kept: u64,
        /// The cache's size.
        capacity: u64,
    },
    /// The disk has no room for the files, even without all that nobody uses.
    #[error(
        "the disk of the cache {path} has no room: {needed} bytes are needed, and {free} are free; free some, or give \
         the cache another disk"
    )]
    DiskFull {
        /// The cache's directory.
        path: String,
        /// Bytes of what is to be fetched.
        needed: u64,
        /// Bytes that the file system has left.
        free: u64,
    },
    /// The cache's directory belongs to something or somebody else.
    #[error("{path} cannot be the cache of object storage: {reason}; name another directory")]
    NotCache {
        /// The directory.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The cache's directory cannot be read or written.
    #[error("cannot {action} {path}: {reason}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: String,
        /// The operating system's words.
        reason: String,
    },
}

impl StorageError {
    /// True when the same call may succeed later without anybody's help.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            StorageError::Unreachable { .. } | StorageError::Service { .. } | StorageError::Changed { .. }
        )
    }

    /// True when the service could not be asked: what it said before may still be so.
    pub fn is_away(&self) -> bool {
        matches!(
            self,
            StorageError::Unreachable { .. } | StorageError::Service { .. } | StorageError::Denied { .. }
        )
    }

    /// True when only another version of the files can help.
    pub fn is_of_the_files(&self) -> bool {
        matches!(self, StorageError::Mismatch { .. } | StorageError::Manifest { .. })
    }

    /// `object` may be of any length.
    pub(crate) fn refused_name(url: String, object: &str, reason: &str) -> StorageError {
        let object = object.chars().take(512).collect();
        StorageError::RefusedName { url, object, reason: reason.to_owned() }
    }

    pub(crate) fn disk(action: &'static str, path: &std::path::Path, error: &std::io::Error) -> StorageError {
        StorageError::Disk { action, path: path.display().to_string(), reason: error.to_string() }
    }
}

/// What to do about credentials, by the scheme of the URL.
fn advice(url: &str) -> &'static str {
    match url.split("://").next() {
        Some("s3") => {
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and the bucket's policy"
        }
        Some("gs") => "check GOOGLE_APPLICATION_CREDENTIALS and the bucket's policy",
        Some("as" | "az") => "check AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_KEY and the container's policy",
        _ => "check the permissions of the directory",
    }
}

/// Codes with which a service refuses credentials, whatever the status beside them.
const REFUSALS: &[&str] = &[
    "AccessDenied",
    "AuthenticationFailed",
    "AuthorizationFailure",
    "AuthorizationPermissionMismatch",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
];

/// Codes of services for a bucket that is not there.
const NO_BUCKET: &[&str] = &["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"];

/// Where a cloud's machines ask for credentials; elsewhere nobody answers there.
const METADATA: &[&str] = &["169.254.169.254", "metadata.google.internal", "169.254.170.2"];

/// What `error`, which is long and has the service's whole answer in it, comes to. `object` is the one that was asked
/// for, if it was one.
pub(crate) fn distil(url: &str, object: Option<&str>, error: &object_store::Error) -> StorageError {
    let url = url.to_owned();
    let text = error.to_string();
    let code = between(&text, "<Code>", "</Code>").unwrap_or_default();
    if METADATA.iter().any(|host| text.contains(host)) {
        let reason = "no credentials are set, and this machine is given none by its cloud".to_owned();
        return StorageError::Denied { advice: advice(&url), url, reason };
    }
    if NO_BUCKET.contains(&code) {
        return StorageError::MissingBucket { url };
    }
    if REFUSALS.contains(&code) {
        return StorageError::Denied { advice: advice(&url), url, reason: code.to_owned() };
    }
    if text.contains("configured region")
        || matches!(code, "PermanentRedirect" | "AuthorizationHeaderMalformed")
    {
        return StorageError::Setting {
            url,
            reason: "the bucket is in another region; set AWS_REGION".to_owned(),
        };
    }
    match (error, object) {
        (object_store::Error::InvalidPath { source }, _) => refused(url, source),
        (object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. }, Some(object)) => {
            StorageError::Changed { url, object: object.to_owned() }
        }
        (object_store::Error::NotFound { .. }, None) => StorageError::MissingBucket { url },
        (object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }, _) => {
            let reason = status(&text).unwrap_or_else(|| "the service gives no reason".to_owned());
            StorageError::Denied { advice: advice(&url), url, reason }
        }
        _ => unanswered(url, code, &text, error),
    }
}

/// As [`distil`], for what is written.
pub(crate) fn distil_write(url: &str, error: &object_store::Error) -> StorageError {
    match distil(url, None, error) {
        StorageError::Denied { url, reason, advice } => StorageError::ReadOnly { url, reason, advice },
        other => other,
    }
}

/// An error that is neither about names nor about rights.
fn unanswered(url: String, code: &str, text: &str, error: &object_store::Error) -> StorageError {
    match status(text) {
        Some(status) if code.is_empty() => StorageError::Service { url, reason: status },
        Some(status) => StorageError::Service { url, reason: format!("{status} ({code})") },
        None => match http_error(error).map(HttpError::kind) {
            Some(HttpErrorKind::Timeout) => {
                StorageError::Unreachable { url, reason: "it took too long".to_owned() }
            }
            Some(
                HttpErrorKind::Connect
                | HttpErrorKind::Request
                | HttpErrorKind::Interrupted
                | HttpErrorKind::Decode,
            ) => StorageError::Unreachable { url, reason: root(error) },
            _ => StorageError::Service { url, reason: root(error) },
        },
    }
}

/// The status in a service's answer, such as `403 Forbidden`.
fn status(text: &str) -> Option<String> {
    let (_, status) = text.split_once("status code: ")?;
    let status: String = status.chars().take_while(|c| !matches!(c, ':' | '\n' | '<')).collect();
    Some(status.trim().to_owned())
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (found, _) = text.split_once(before)?.1.split_once(after)?;
    (found.len() <= 64 && found.chars().all(|c| c.is_ascii_alphanumeric())).then_some(found)
}

fn refused(url: String, source: &object_store::path::Error) -> StorageError {
    let (object, reason) = match source {
        object_store::path::Error::EmptySegment { path } => (path.clone(), "it has an empty segment"),
        object_store::path::Error::BadSegment { path, .. } => {
            (path.clone(), manifest::refusal(path).unwrap_or("a segment of it is no name of a file"))
        }
        other => (other.to_string(), "it is no path"),
    };
    StorageError::refused_name(url, &object, reason)
}

fn http_error(error: &object_store::Error) -> Option<&HttpError> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// The words at the root of `error`, such as `Connection refused (os error 111)`: what stands above it repeats the
/// request.
fn root(error: &object_store::Error) -> String {
    let words = chain(error).last().map(ToString::to_string).unwrap_or_default();
    words.lines().next().unwrap_or_default().chars().take(200).collect()
}

fn chain(error: &object_store::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    fn answer(status: &str, code: &str) -> object_store::Error {
        generic(&format!(
            "Error performing GET http://h/b in 1ms - Server returned non-2xx status code: {status}: \
             <Error><Code>{code}</Code><StringToSign>PRIVATE</StringToSign></Error>"
        ))
    }

    #[test]
    fn the_codes_of_services_are_told_apart() {
        let distil = |error| distil("s3://models", None, &error);
        for (status, code, words) in [
            ("403 Forbidden", "SignatureDoesNotMatch", "may not be read: SignatureDoesNotMatch; check AWS_"),
            ("400 Bad Request", "ExpiredToken", "may not be read: ExpiredToken"),
            ("404 Not Found", "NoSuchBucket", "is not there"),
            ("404 The specified container does not exist", "ContainerNotFound", "is not there"),
            (
                "503 Service Unavailable",
                "SlowDown",
                "answers with an error: 503 Service Unavailable (SlowDown)",
            ),
            ("301 Moved Permanently", "PermanentRedirect", "another region; set AWS_REGION"),
        ] {
            let error = distil(answer(status, code)).to_string();
            assert!(error.contains(words) && !error.contains("PRIVATE"), "{error}");
        }
        let none = distil(generic("Error performing PUT http://169.254.169.254/latest/api/token in 1s"));
        assert!(none.to_string().contains("no credentials are set"), "{none}");
    }

    #[test]
    fn an_object_that_went_is_not_a_bucket_that_went() {
        let gone = || object_store::Error::NotFound { path: "a".to_owned(), source: "NoSuchKey".into() };
        assert!(matches!(distil("s3://m", Some("a/1/x"), &gone()), StorageError::Changed { .. }));
        assert!(matches!(distil("s3://m", None, &gone()), StorageError::MissingBucket { .. }));
    }

    #[test]
    fn a_long_answer_becomes_one_short_line() {
        let error = distil("s3://models", None, &generic(&format!("first\n{}", "x".repeat(10_000))));
        assert_eq!(error.to_string(), "s3://models answers with an error: first");
        assert!(error.is_passing());
    }

    #[test]
    fn the_advice_is_of_the_service() {
        for (url, words) in
            [("s3://m", "AWS_"), ("gs://m", "GOOGLE_"), ("as://a/m", "AZURE_"), ("file:///m", "directory")]
        {
            assert!(advice(url).contains(words));
        }
    }
}
