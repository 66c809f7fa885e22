//! Makes the client of the service that a location names.

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::error::StorageError;
use crate::listing_answer::Connector;
use crate::location::{Location, Service};
use crate::options::{Environment, Limits, Options};

/// Variables that name an endpoint, the first that is set counts.
const S3_ENDPOINT: &[&str] = &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
const GOOGLE_ENDPOINT: &[&str] = &["GOOGLE_BASE_URL"];
const AZURE_ENDPOINT: &[&str] = &["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"];

/// The client for `location`. Nothing is asked of the service yet.
///
/// # Errors
/// When a setting of the environment cannot be used, or a directory is not there.
pub(crate) fn connect(location: &Location, options: &Options) -> Result<Arc<dyn ObjectStore>, StorageError> {
    // The first provider of a process stays; whoever set one before knew why.
    _ = rustls::crypto::ring::default_provider().install_default();
    let environment = &options.environment;
    let wrong = |error: object_store::Error| StorageError::Setting {
        url: location.to_string(),
        reason: first_line(&error.to_string()),
    };
    match &location.service {
        Service::S3 { bucket, endpoint } => {
            let endpoint = endpoint
                .as_deref()
                .map_or_else(|| named(location, environment, S3_ENDPOINT), |endpoint| Ok(Some(endpoint)))?;
            let builder = s3(bucket, endpoint, options);
            Ok(Arc::new(builder.build().map_err(wrong)?))
        }
        Service::Google { bucket } => {
            let endpoint = named(location, environment, GOOGLE_ENDPOINT)?;
            let builder = google(bucket, endpoint, options);
            Ok(Arc::new(builder.build().map_err(wrong)?))
        }
        Service::Azure { container, account } => {
            let endpoint = named(location, environment, AZURE_ENDPOINT)?;
            let builder = azure(container, account.as_deref(), endpoint, options);
            Ok(Arc::new(builder.build().map_err(wrong)?))
        }
        Service::Directory(path) => {
            if !path.is_dir() {
                return Err(StorageError::MissingBucket { url: location.to_string() });
            }
            Ok(Arc::new(LocalFileSystem::new_with_prefix(path).map_err(wrong)?))
        }
    }
}

fn s3(bucket: &str, endpoint: Option<&str>, options: &Options) -> AmazonS3Builder {
    let builder = AmazonS3Builder::new()
        .with_http_connector(Connector::default())
        .with_client_options(client(&options.limits, endpoint))
        .with_retry(retry(&options.limits));
    let variables = options.environment.with_prefix("AWS_");
    let known = variables.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
    let builder = known.fold(builder, |builder, (key, value)| builder.with_config(key, value));
    let builder = match endpoint {
        // Else the endpoint of the environment would win over the URL's.
        Some(endpoint) => builder
            .with_endpoint(endpoint)
            .with_config(object_store::aws::AmazonS3ConfigKey::S3Endpoint, endpoint),
        None => builder,
    };
    builder.with_bucket_name(bucket)
}

fn google(bucket: &str, endpoint: Option<&str>, options: &Options) -> GoogleCloudStorageBuilder {
    let builder = GoogleCloudStorageBuilder::new()
        .with_http_connector(Connector::default())
        .with_client_options(client(&options.limits, endpoint))
        .with_retry(retry(&options.limits));
    let variables = options.environment.with_prefix("GOOGLE_");
    let known = variables.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
    known.fold(builder, |builder, (key, value)| builder.with_config(key, value)).with_bucket_name(bucket)
}

fn azure(
    container: &str,
    account: Option<&str>,
    endpoint: Option<&str>,
    options: &Options,
) -> MicrosoftAzureBuilder {
    let environment = &options.environment;
    let builder = MicrosoftAzureBuilder::new()
        .with_http_connector(Connector::default())
        .with_client_options(client(&options.limits, endpoint))
        .with_retry(retry(&options.limits));
    let variables = environment.with_prefix("AZURE_");
    let known = variables.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
    let builder = known.fold(builder, |builder, (key, value)| builder.with_config(key, value));
    // The names that Triton and Azure's own command line read.
    let builder = match account.or_else(|| environment.get("AZURE_STORAGE_ACCOUNT")) {
        Some(account) => builder.with_account(account),
        None => builder,
    };
    let builder = match environment.get("AZURE_STORAGE_KEY") {
        Some(key) => builder.with_access_key(key),
        None => builder,
    };
    builder.with_container_name(container)
}

/// Time limits, and plain HTTP only where the endpoint asks for it.
fn client(limits: &Limits, endpoint: Option<&str>) -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(limits.connect)
        .with_timeout(limits.request)
        .with_read_timeout(limits.idle)
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")))
}

fn retry(limits: &Limits) -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: std::time::Duration::from_millis(100),
        max_backoff: std::time::Duration::from_secs(2),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: limits.retries, retry_timeout: limits.retry_within }
}

/// The endpoint that the environment names.
fn named<'a>(
    location: &Location,
    environment: &'a Environment,
    names: &[&str],
) -> Result<Option<&'a str>, StorageError> {
    let Some((name, endpoint)) = names.iter().find_map(|name| Some((name, environment.get(name)?))) else {
        return Ok(None);
    };
    let reason = match endpoint.split_once("://") {
        _ if endpoint.contains('@') => "holds an @; give credentials by their own variables",
        Some(("http" | "https", host)) if !host.is_empty() => return Ok(Some(endpoint)),
        _ => "is not http://HOST:PORT or https://HOST:PORT",
    };
    Err(StorageError::Setting { url: location.to_string(), reason: format!("{name} {reason}") })
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(url: &str, environment: &[(&str, &str)]) -> Result<String, StorageError> {
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let location = Location::parse(url).unwrap();
        connect(&location, &Options { environment, limits: Limits::default() }).map(|store| store.to_string())
    }

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "SECRET")];

    #[test]
    fn each_service_has_a_client() {
        assert_eq!(connected("s3://models/a", &KEYS).unwrap(), "AmazonS3(models)");
        assert_eq!(
            connected("gs://models", &[("GOOGLE_SKIP_SIGNATURE", "true")]).unwrap(),
            "GoogleCloudStorage(models)"
        );
        let azure = "MicrosoftAzure { account: us4, container: models }";
        let key = ("AZURE_STORAGE_KEY", "c2VjcmV0");
        assert_eq!(connected("as://us4/models", &[key]).unwrap(), azure);
        assert_eq!(connected("az://models", &[key, ("AZURE_STORAGE_ACCOUNT", "us4")]).unwrap(), azure);
        assert!(connected("file:///", &[]).unwrap().starts_with("LocalFileSystem"));
    }

    #[test]
    fn a_setting_that_cannot_be_used_is_named_and_not_shown() {
        for (url, environment, words) in [
            ("s3://models", &KEYS[1..], "AccessKeyId"),
            ("s3://models", &[("AWS_ENDPOINT_URL", "http://a:SECRET@b")], "AWS_ENDPOINT_URL holds an @"),
            ("s3://models", &[("AWS_ENDPOINT_URL", "host:9000")], "AWS_ENDPOINT_URL is not http"),
            ("az://models", &[("AZURE_STORAGE_KEY", "SECRET")], "ccount"),
            ("as://us4/models", &[("AZURE_STORAGE_KEY", "SECRET!")], "cannot open as://us4/models"),
            ("gs://models", &[("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file")], "/no/such/file"),
        ] {
            let error = connected(url, environment).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_a_bucket_that_is_not_there() {
        let error = connected("file:///no/such/directory", &[]).unwrap_err();
        assert!(matches!(error, StorageError::MissingBucket { .. }), "{error}");
    }
}
