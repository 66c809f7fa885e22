//! What does the server add to an inference that itself costs nothing?

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use http::HeaderMap;
use hyper_util::rt::TokioIo;
use model::{InferRequest, InferResponse, ModelName, Parameters};
use smallvec::SmallVec;
use smol_str::SmolStr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Runtime;
use volley::activity::Activity;
use volley::app::App;
use volley::asked::Asked;
use volley::http::{HttpService, builder};

use crate::HotPath;
use crate::echo;
use crate::tensor::{INPUT, MODEL, PICTURE, SMALL, Shape};

/// Requests that are in flight together.
const TOGETHER: usize = 32;

/// Room for every answer here.
const CACHE: Option<NonZeroU64> = NonZeroU64::new(1 << 30);

/// One request alone, many together, one whose answer is kept, and one whole exchange over HTTP on a connection in memory.
pub fn paths() -> Vec<HotPath> {
    let kept = |shape: Shape| {
        HotPath::new(format!("infer/kept/{}", shape.name), move || {
            let (runtime, app) = (runtime(), echo::serving(shape, CACHE));
            let request = request(shape);
            runtime.block_on(infer(&app, &request));
            move || runtime.block_on(infer(&app, &request))
        })
        .rounds(1000)
    };
    vec![
        kept(SMALL),
        kept(PICTURE),
        HotPath::new("infer/alone", || {
            let (runtime, app, request) = (runtime(), echo::app(), request(SMALL));
            move || runtime.block_on(infer(&app, &request))
        })
        .rounds(1000)
        .threaded(),
        HotPath::new(format!("infer/together/{TOGETHER}"), || {
            let (runtime, app, request) = (runtime(), echo::app(), request(SMALL));
            move || runtime.block_on(join_all((0..TOGETHER).map(|_| infer(&app, &request))))
        })
        .threaded(),
        HotPath::new(format!("infer/http_json/{}", SMALL.name), || {
            let runtime = runtime();
            let mut client = runtime.block_on(Client::connect(echo::app()));
            move || runtime.block_on(client.exchange())
        })
        .rounds(1000)
        .threaded(),
    ]
}

/// One thread serves, so that the instructions of one request are always the same.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
}

fn request(shape: Shape) -> InferRequest {
    InferRequest {
        id: SmolStr::default(),
        model: ModelName::parse(MODEL).expect("a name"),
        version: None,
        parameters: Parameters::default(),
        inputs: SmallVec::from_iter([shape.tensor(INPUT)]),
        outputs: SmallVec::new(),
        deadline: None,
    }
}

async fn infer(app: &Arc<App>, request: &InferRequest) -> InferResponse {
    let asked = Asked { request_id: "bench", arrived: Instant::now(), headers: &HeaderMap::new() };
    app.infer(request, asked).await.expect("the model answers")
}

/// Says the same request again and again, and reads the answers.
struct Client {
    stream: DuplexStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Client {
    #[expect(clippy::disallowed_methods, reason = "the connection ends with its runtime")]
    async fn connect(app: Arc<App>) -> Client {
        let (stream, served) = tokio::io::duplex(64 << 10);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let service = HttpService { app, peer, activity: Arc::new(Activity::default()) };
        tokio::spawn(async move { builder().serve_connection(TokioIo::new(served), service).await });
        let body = SMALL.json_body();
        let head = format!(
            "POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let mut client = Client { stream, request: [head.as_bytes(), &body].concat(), answer: Vec::new() };
        client.learn().await;
        client
    }

    /// Reads the first answer to its end, which says how long every other one is.
    async fn learn(&mut self) {
        self.stream.write_all(&self.request).await.expect("the connection is open");
        while !self.answer.ends_with(b"]}]}") {
            let read = self.stream.read_buf(&mut self.answer).await.expect("the connection is open");
            assert!(read > 0, "the answer is cut: {}", String::from_utf8_lossy(&self.answer));
        }
        assert!(self.answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.answer));
    }

    async fn exchange(&mut self) {
        self.stream.write_all(&self.request).await.expect("the connection is open");
        self.stream.read_exact(&mut self.answer).await.expect("the answer is as long as the first");
        debug_assert!(self.answer.ends_with(b"]}]}"));
    }
}
