//! Fields that this gateway does not know. They are ignored, as by other servers, and named: to the client in a header,
//! to the operator in the log and in a metric.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    http::{HeaderName, HeaderValue},
    response::Response,
};

use super::{error::ApiError, metrics::HttpMetrics};

/// Names the fields of the request that were ignored.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-llama-swarm-ignored");
/// Longer names, and more of them, say nothing more.
const LONGEST_NAME: usize = 64;
const MOST_NAMES: usize = 16;
/// Each name is in the log so often at most.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Names that the log remembers: who makes up more does not fill it. The metric counts them all.
const MOST_REMEMBERED: usize = 256;

/// The names of a request's fields that nobody knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ignored(pub(super) Vec<String>);

impl Ignored {
    #[cfg(test)]
    pub(super) fn names(&self) -> &[String] {
        &self.0
    }

    /// As the header shows them: those that are plain words, each once.
    fn shown(&self) -> Option<String> {
        let plain = |name: &&String| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte);
            !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(allowed)
        };
        let mut names: Vec<&str> = self.0.iter().filter(plain).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(MOST_NAMES);
        let shown = if names.is_empty() { "(unprintable)".into() } else { names.join(", ") };
        (!self.0.is_empty()).then_some(shown)
    }
}

/// What becomes of fields that nobody knows. Cheap to clone.
#[derive(Clone)]
pub(super) struct UnknownFields {
    /// They are refused instead.
    strict: bool,
    told: Arc<Mutex<HashMap<String, Instant>>>,
    metrics: HttpMetrics,
}

impl UnknownFields {
    pub(super) fn new(strict: bool, metrics: HttpMetrics) -> Self {
        Self { strict, told: Arc::default(), metrics }
    }

    /// Takes note of a request's unknown fields.
    ///
    /// # Errors
    /// Names the first, where they are refused.
    pub(super) fn note(&self, ignored: Ignored) -> Result<Noted, ApiError> {
        if let Some(first) = ignored.0.first().filter(|_| self.strict) {
            return Err(ApiError::unknown(first));
        }
        let shown = ignored.shown();
        if let Some(names) = &shown {
            self.metrics.ignored(ignored.0.len() as u64);
            self.log(names);
        }
        Ok(Noted(shown))
    }

    fn log(&self, names: &str) {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, since| now - *since < TOLD_EVERY);
        let is_new = |name: &&str| !told.contains_key(*name) && told.len() < MOST_REMEMBERED;
        let new: Vec<&str> = names.split(", ").filter(is_new).collect();
        if new.is_empty() {
            return;
        }
        tracing::info!(
            fields = new.join(", "),
            "fields of requests that are not known here are ignored; --strict-fields refuses them"
        );
        told.extend(new.into_iter().map(|name| (name.to_owned(), now)));
    }
}

/// What the answer says of fields that were ignored.
#[derive(Debug)]
pub(super) struct Noted(Option<String>);

impl Noted {
    /// The answer with the header, if there is something to say.
    pub(super) fn tell(self, mut response: Response) -> Response {
        if let Some(names) = self.0 {
            let names = HeaderValue::try_from(names).expect("plain words");
            response.headers_mut().insert(HEADER, names);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use swarm_process::metrics::Registry;

    use super::*;

    fn ignored(names: &[&str]) -> Ignored {
        Ignored(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn names_are_shown_once_in_order_and_only_plain_ones() {
        let shown = |names: &[&str]| ignored(names).shown();
        assert_eq!(shown(&[]), None);
        assert_eq!(shown(&["num_ctx", "keep_alive", "num_ctx"]), Some("keep_alive, num_ctx".into()));
        assert_eq!(shown(&["a\r\nset-cookie: x", "ok"]), Some("ok".into()));
        assert_eq!(shown(&["\u{1f600}"]), Some("(unprintable)".into()));
        let many: Vec<String> = (0..100).map(|number| format!("f{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(shown(&many).map(|value| value.split(", ").count()), Some(MOST_NAMES));
    }

    #[test]
    fn where_it_is_strict_the_first_is_refused_by_name() {
        let metrics = HttpMetrics::new(&Registry::default());
        let refused = UnknownFields::new(true, metrics.clone()).note(ignored(&["odd", "b"]));
        assert_eq!(
            refused.err().map(|error| error.body_json()["error"]["param"].clone()),
            Some("odd".into())
        );
        assert!(UnknownFields::new(true, metrics.clone()).note(ignored(&[])).is_ok());
        let noted = UnknownFields::new(false, metrics).note(ignored(&["odd"])).expect("taken");
        let response = noted.tell(Response::default());
        assert_eq!(response.headers()[HEADER], "odd");
    }
}
