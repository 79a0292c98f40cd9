//! Tells a client that streams what its request waits for, before there is anything to answer: a place among those that
//! run, or a swarm that is whole again. The stream then begins with comments, and a request that is refused after all
//! ends with an error in the stream.

use std::{convert::Infallible, future::pending, pin::Pin, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::waits::{self, Waits};

/// The reason, as it was when the stream began.
pub(super) const WAITING: HeaderName = HeaderName::from_static("x-llama-swarm-waiting");
/// Who waits for less is answered as if it had not waited, with a status of its own if it is refused.
const PATIENCE: Duration = Duration::from_secs(1);
/// The reason is told again as often, so that connections stay open.
const AGAIN_EVERY: Duration = Duration::from_secs(10);
/// Of a refusal's body.
const MAX_REFUSAL: usize = 64 << 10;

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Around the handlers. Those whose answer is a stream of events say so by `waits::streams`.
pub(super) async fn tell(request: Request, next: Next) -> Response {
    let (told, mut waits) = watch::channel(Waits::default());
    let mut answer: Answer = Box::pin(waits::told(told, next.run(request)));
    let reason = tokio::select! {
        biased;
        response = &mut answer => return response,
        reason = lasts(&mut waits) => reason,
    };
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        (WAITING, HeaderValue::from_str(&reason).unwrap_or(HeaderValue::from_static("yes"))),
    ];
    (head, Body::from_stream(stream(reason, answer, waits))).into_response()
}

/// Resolves with the reason when a request has waited for long enough that its client should know.
async fn lasts(waits: &mut watch::Receiver<Waits>) -> String {
    loop {
        if waits.wait_for(|waits| waits.streams && waits.reason.is_some()).await.is_err() {
            return pending().await;
        }
        sleep(PATIENCE).await;
        if let Some(reason) = waits.borrow_and_update().reason.clone() {
            return reason;
        }
    }
}

fn stream(
    mut reason: String,
    mut answer: Answer,
    mut waits: watch::Receiver<Waits>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    async_stream::stream! {
        yield Ok(comment(&reason));
        let response = loop {
            tokio::select! {
                biased;
                response = &mut answer => break response,
                now = next(&reason, &mut waits) => {
                    reason = now;
                    yield Ok(comment(&reason));
                }
            }
        };
        if !response.status().is_success() {
            let body = to_bytes(response.into_body(), MAX_REFUSAL).await.unwrap_or_default();
            yield Ok([b"data: ", &body[..], b"\n\n"].concat().into());
            return;
        }
        let mut pieces = response.into_body().into_data_stream();
        // A body that breaks off ends the stream without its last word.
        while let Some(Ok(piece)) = pieces.next().await {
            yield Ok(piece);
        }
    }
}

/// What is to be told next: another reason as soon as there is one, or the same after a while.
async fn next(reason: &str, waits: &mut watch::Receiver<Waits>) -> String {
    let is_new = |waits: &Waits| waits.reason.as_deref().is_some_and(|now| now != reason);
    let heard = timeout(AGAIN_EVERY, waits.wait_for(is_new)).await;
    match heard.map(|news| news.map(|waits| waits.reason.clone().unwrap_or_default())) {
        Ok(Ok(now)) => now,
        Ok(Err(_)) => pending().await,
        Err(_) => reason.to_owned(),
    }
}

fn comment(reason: &str) -> Bytes {
    format!(": waiting: {}\n\n", reason.replace(['\r', '\n'], " ")).into()
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode, middleware, routing::get};
    use tokio::sync::mpsc;
    use tower::ServiceExt;

    use super::*;

    /// An answer to a request whose handler waits for what it is told to wait for, until it is told how to end.
    async fn asked(streams: bool, end: Result<(), StatusCode>, reasons: &[&'static str]) -> Response {
        let (sender, receiver) = mpsc::channel(8);
        let receiver = std::sync::Arc::new(tokio::sync::Mutex::new(receiver));
        let handler = move || async move {
            if streams {
                waits::streams();
            }
            let mut reasons = receiver.lock().await;
            while let Some(reason) = reasons.recv().await {
                waits::for_this(reason);
                sleep(PATIENCE * 2).await;
            }
            waits::over();
            match end {
                Ok(()) => "data: 1\n\ndata: [DONE]\n\n".into_response(),
                Err(status) => (status, r#"{"error":{"message":"no"}}"#).into_response(),
            }
        };
        for reason in reasons {
            sender.send(*reason).await.unwrap();
        }
        drop(sender);
        let router = Router::new().route("/", get(handler)).layer(middleware::from_fn(tell));
        router.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn text(response: Response) -> String {
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_streams_and_waits_is_told_why_and_then_answered() {
        let response = asked(true, Ok(()), &["place 2 in the queue", "shard 3 has no worker"]).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[WAITING], "place 2 in the queue");
        let expected = ": waiting: place 2 in the queue\n\n: waiting: shard 3 has no worker\n\n\
                        data: 1\n\ndata: [DONE]\n\n";
        assert_eq!(text(response).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_after_all_reads_it_in_the_stream() {
        let response = asked(true, Err(StatusCode::SERVICE_UNAVAILABLE), &["shard 3 has no worker"]).await;
        assert_eq!(response.status(), 200);
        let told = text(response).await;
        let expected = ": waiting: shard 3 has no worker\n\ndata: {\"error\":{\"message\":\"no\"}}\n\n";
        assert_eq!(told, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_stream_or_does_not_wait_is_answered_with_a_status() {
        let refused = Err(StatusCode::SERVICE_UNAVAILABLE);
        for (streams, reasons) in [(false, &["shard 3 has no worker"][..]), (true, &[])] {
            let response = asked(streams, refused, reasons).await;
            assert_eq!(response.status(), 503, "{streams}");
            assert_eq!(response.headers().get(WAITING), None);
        }
    }
}
