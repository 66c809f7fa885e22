//! Holds the answers of a service for what they are.
//!
//! A page of a website, as a wrong endpoint or a proxy answers it, would be read as a listing without objects, and a
//! repository without objects is one without models. So an answer must say that it is a listing, and it has a bound. So
//! must one that is cut off say how it goes on: else what it does not name would be taken for gone. Of an error no more is
//! read than its beginning, where the code is.

use std::fmt;
use std::pin::Pin;

use futures_util::TryStreamExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService, ReqwestConnector,
};

/// A page holds 5000 objects at most (Azure; others 1000), each of about a kilobyte with a long name.
const MAX_PAGE: usize = 64 << 20;

/// The elements with which S3 and Google, and Azure begin a listing.
const LISTINGS: [&[u8]; 2] = [b"<ListBucketResult", b"<EnumerationResults"];

/// Bytes at the beginning of an answer among which the element must be.
const HEAD: usize = 1024;

/// Bytes of an error that are read: it has a code, a sentence and a few names, or is somebody else's page.
const MAX_ERROR: usize = 64 << 10;

/// Makes clients that look at listings and at errors.
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
            match response.status().is_success() {
                true if asks_for_listing => checked(response).await,
                true => Ok(response),
                false => beginning(response).await,
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
    if is_cut_off(&page) {
        return Err(HttpError::new(HttpErrorKind::Unknown, NotListing::CutOff));
    }
    Ok(HttpResponse::from_parts(parts, page.into()))
}

/// The same answer, with the beginning of its body alone.
async fn beginning(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let mut chunks = body.bytes_stream();
    let mut text = Vec::new();
    while text.len() < MAX_ERROR
        && let Some(chunk) = chunks.try_next().await?
    {
        text.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR - text.len())]);
    }
    // It is read as text, which may have been cut within a character.
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(text)))
}

/// Whether a page of S3 or Google says that there is more, and not where. No name can look like these elements: what
/// begins them is escaped in names. Azure has no such element, but an empty marker at the end.
fn is_cut_off(page: &[u8]) -> bool {
    const TOKEN: &[u8] = b"<NextContinuationToken>";
    let token =
        page.windows(TOKEN.len()).position(|bytes| bytes == TOKEN).map(|at| &page[at + TOKEN.len()..]);
    let goes_on = token.is_some_and(|token| !token.starts_with(b"<"));
    let says = |element: &[u8]| page.windows(element.len()).any(|bytes| bytes == element);
    !goes_on && says(b"<IsTruncated>true</IsTruncated>")
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
    CutOff,
}

impl fmt::Display for NotListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotListing::TooLarge => "a page of its listing is larger than 64 MiB",
            NotListing::SomethingElse => {
                "what it answers is no listing; is the endpoint that of object storage?"
            }
            NotListing::CutOff => {
                "its listing is cut off and does not say how it goes on; does the service know ListObjectsV2?"
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
    fn a_page_that_is_not_the_last_says_how_it_goes_on() {
        for (page, cut_off) in [
            ("<IsTruncated>false</IsTruncated>", false),
            ("<IsTruncated>true</IsTruncated>", true),
            ("<IsTruncated>true</IsTruncated><NextMarker>a</NextMarker>", true),
            ("<NextContinuationToken></NextContinuationToken><IsTruncated>true</IsTruncated>", true),
            ("<IsTruncated>true</IsTruncated><NextContinuationToken/>", true),
            ("<NextContinuationToken>a</NextContinuationToken><IsTruncated>true</IsTruncated>", false),
            ("<EnumerationResults><NextMarker/></EnumerationResults>", false),
        ] {
            assert_eq!(is_cut_off(page.as_bytes()), cut_off, "{page}");
        }
    }

    #[test]
    fn only_answers_to_listings_are_looked_at() {
        assert!(is_listing("list-type=2&prefix=models%2F") && is_listing("restype=container&comp=list"));
        assert!(!is_listing("prefix=list-type=2"));
    }
}
