//! Holds the answer to a listing for what it is.
//!
//! A page of a website, as a wrong endpoint or a proxy answers it, would be read as a listing without objects, and a
//! repository without objects is one without models. So an answer must say that it is a listing, and it has a bound.

use std::fmt;
use std::pin::Pin;

use futures_util::TryStreamExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

/// A page holds 5000 objects at most (Azure; others 1000), each of about a kilobyte with a long name.
const MAX_PAGE: usize = 64 << 20;

/// The elements with which S3 and Google, and Azure begin a listing.
const LISTINGS: [&[u8]; 2] = [b"<ListBucketResult", b"<EnumerationResults"];

/// Bytes at the beginning of an answer among which the element must be.
const HEAD: usize = 1024;

/// Makes clients that look at the answers to listings.
#[derive(Debug, Default)]
pub(crate) struct Connector(ReqwestConnector);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Checked(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Checked(HttpClient);

type Answer<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Checked {
    fn call<'life0, 'async_trait>(&'life0 self, request: HttpRequest) -> Answer<'async_trait>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let asks_for_listing = request.uri().query().is_some_and(is_listing);
        Box::pin(async move {
            let response = self.0.execute(request).await?;
            if asks_for_listing && response.status().is_success() {
                checked(response).await
            } else {
                Ok(response)
            }
        })
    }
}

fn is_listing(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "list-type=2" | "comp=list"))
}

async fn checked(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let mut chunks = body.bytes_stream();
    let mut page = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        if page.len() + chunk.len() > MAX_PAGE {
            return Err(HttpError::new(HttpErrorKind::Unknown, NotListing::TooLarge));
        }
        page.extend_from_slice(&chunk);
    }
    if !begins_listing(&page) {
        return Err(HttpError::new(HttpErrorKind::Unknown, NotListing::SomethingElse));
    }
    Ok(HttpResponse::from_parts(parts, page.into()))
}

fn begins_listing(page: &[u8]) -> bool {
    let head = &page[..page.len().min(HEAD)];
    LISTINGS.iter().any(|element| head.windows(element.len()).any(|bytes| bytes == *element))
}

/// What an answer is that is no listing.
#[derive(Debug)]
enum NotListing {
    TooLarge,
    SomethingElse,
}

impl fmt::Display for NotListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotListing::TooLarge => "a page of its listing is larger than 64 MiB",
            NotListing::SomethingElse => {
                "what it answers is no listing; is the endpoint that of object storage?"
            }
        })
    }
}

impl std::error::Error for NotListing {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_says_what_it_is() {
        assert!(begins_listing(
            b"<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\"></ListBucketResult>"
        ));
        assert!(begins_listing(b"\xef\xbb\xbf<?xml version=\"1.0\"?><EnumerationResults/>"));
        for page in [&b""[..], b"<html>Welcome</html>", b"{}", &[b' '; 4096]] {
            assert!(!begins_listing(page));
        }
    }

    #[test]
    fn only_answers_to_listings_are_looked_at() {
        assert!(is_listing("list-type=2&prefix=models%2F") && is_listing("restype=container&comp=list"));
        assert!(!is_listing("prefix=list-type=2"));
    }
}
