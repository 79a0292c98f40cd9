//! Parts of a file of a hub, by HTTP's range requests (RFC 9110, section 14), and which commit a branch is.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, RANGE},
    redirect::{Attempt, Policy},
};
use tokio::time::{sleep, timeout};

use super::{
    answers::Asked,
    file::{HubFile, cache_of},
};
use crate::{Hash, HubConfig, HubError};

/// A hub that cannot be reached in this time is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A hub that sends nothing for this long has fallen silent.
const SILENCE: Duration = Duration::from_secs(30);
/// One range, at most a piece of 4 MiB: at 0.5 Mbit/s it takes about a minute.
const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// Tries for one range.
const TRIES: u32 = 3;
/// Grows with each failure.
const PAUSE: Duration = Duration::from_millis(500);
/// As browsers do.
const MOST_REDIRECTS: usize = 10;

/// What a hub says of a file, without the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HubState {
    /// The file as it is at one commit, whatever branch or tag was asked for.
    pub file: HubFile,
    /// Its length.
    pub bytes: u64,
    /// The hub tells it of large files.
    pub sha256: Option<Hash>,
}

/// Asks a hub what a name means now.
///
/// # Errors
/// When it does not answer, or does not have the file; always when offline.
pub async fn look_up(file: &HubFile, config: &HubConfig) -> Result<HubState, HubError> {
    let access = Access::new(file, config)?;
    let client = access.client(Policy::custom(within_the_hub))?;
    let response = access.ask(&client, Method::HEAD, &access.address).send().await;
    let response = response.map_err(|error| access.asked.explain(&error))?;
    let status = response.status();
    if !(status.is_success() || status.is_redirection()) {
        return Err(access.asked.refused(status));
    }
    // Where the file itself is kept somewhere else, these are the hub's own words about it.
    let told =
        |linked: &str, plain: &str| text(response.headers(), linked).or(text(response.headers(), plain));
    let missing = |name: &str| access.asked.not_a_hub(format!("it tells no {name} of {file}"));
    let commit = text(response.headers(), "x-repo-commit").ok_or_else(|| missing("X-Repo-Commit"))?;
    let pinned = file.at(&commit).ok_or_else(|| missing("X-Repo-Commit of 40 hexadecimal digits"))?;
    let bytes = told("x-linked-size", CONTENT_LENGTH.as_str()).and_then(|bytes| bytes.parse().ok());
    let etag = told("x-linked-etag", ETAG.as_str());
    Ok(HubState {
        file: pinned,
        bytes: bytes.ok_or_else(|| missing("X-Linked-Size"))?,
        sha256: etag.and_then(|etag| etag.trim_matches('"').parse().ok()),
    })
}

/// Gives ranges of one file as it is at one commit.
#[derive(Debug)]
pub struct HubRanges {
    access: Access,
    client: Client,
    bytes: u64,
    /// Where the hub sends those who ask for the file, with the right to read it for some time.
    kept: Mutex<Option<Url>>,
}

impl HubRanges {
    /// Of a file that has so many bytes. Asks nobody yet.
    ///
    /// # Errors
    /// When offline.
    pub fn new(file: &HubFile, bytes: u64, config: &HubConfig) -> Result<Self, HubError> {
        let access = Access::new(file, config)?;
        let client = access.client(Policy::limited(MOST_REDIRECTS))?;
        Ok(Self { access, client, bytes, kept: Mutex::default() })
    }

    /// The file, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.access.asked.what
    }

    /// These bytes of the file, and no others. Cancel safe.
    ///
    /// # Errors
    /// [`HubError::NoNetwork`] when it may go better later; all others stay.
    pub async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, HubError> {
        let mut failures = 0;
        loop {
            let read = timeout(WHOLE_WITHIN, self.read_once(&range)).await;
            let silent =
                || Err(self.access.asked.no_network(format!("no part in {} s", WHOLE_WITHIN.as_secs())));
            match read.unwrap_or_else(|_| silent()) {
                Err(error @ HubError::NoNetwork { .. }) => {
                    failures += 1;
                    if failures >= TRIES {
                        return Err(error);
                    }
                    sleep(PAUSE * failures).await;
                }
                result => return result,
            }
        }
    }

    async fn read_once(&self, range: &Range<u64>) -> Result<Vec<u8>, HubError> {
        let mut response = self.respond(range).await?;
        self.check(&response, range)?;
        let wanted = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut bytes = vec![];
        while let Some(chunk) = response.chunk().await.map_err(|error| self.access.asked.explain(&error))? {
            if bytes.len() + chunk.len() > wanted {
                return Err(self.no_ranges("it sends more than it was asked for".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        match bytes.len() == wanted {
            true => Ok(bytes),
            false => Err(self.access.asked.no_network("it broke off in the middle of a part".into())),
        }
    }

    /// From where the file was last time, or by way of the hub.
    async fn respond(&self, range: &Range<u64>) -> Result<Response, HubError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(kept) = kept {
            // Not the hub: it is not told who asks.
            let sent = self.client.get(kept).header(RANGE, in_header(range)).send().await;
            if let Some(response) =
                sent.ok().filter(|response| response.status() == StatusCode::PARTIAL_CONTENT)
            {
                return Ok(response);
            }
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        let Access { asked, address, .. } = &self.access;
        let request = self.access.ask(&self.client, Method::GET, address).header(RANGE, in_header(range));
        let response = request.send().await.map_err(|error| asked.explain(&error))?;
        if response.status() == StatusCode::PARTIAL_CONTENT && !is_same_place(address, response.url()) {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(response.url().clone());
        }
        Ok(response)
    }

    /// Whether this is the part that was asked for, of a file of the right length.
    fn check(&self, response: &Response, range: &Range<u64>) -> Result<(), HubError> {
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::OK => return Err(self.no_ranges("it answers with the whole file".into())),
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(self.no_ranges("its file is shorter".into())),
            status => return Err(self.access.asked.refused(status)),
        }
        let expected = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), self.bytes);
        match text(response.headers(), CONTENT_RANGE.as_str()) {
            Some(got) if got == expected => Ok(()),
            got => Err(self.no_ranges(format!("it gives {:?}, not {expected:?}", got.unwrap_or_default()))),
        }
    }

    fn no_ranges(&self, detail: String) -> HubError {
        HubError::NoRanges { what: self.access.asked.what.clone(), detail }
    }
}

/// How a file is asked for.
#[derive(Clone)]
struct Access {
    asked: Asked,
    address: Url,
    token: Option<String>,
}

/// Without the token.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Access {
    fn new(file: &HubFile, config: &HubConfig) -> Result<Self, HubError> {
        let cache = cache_of(config)?;
        if config.offline {
            let place = cache.path().join(file.hub_repo().folder_name());
            return Err(HubError::Offline { model: file.to_string(), place });
        }
        let asked = Asked { endpoint: config.hub.endpoint(), what: file.to_string() };
        let revision = file.revision().replace('/', "%2F");
        let address = format!("{}/{}/resolve/{revision}/{}", asked.endpoint, file.repo(), file.path());
        let address = address.parse().map_err(|error| asked.not_a_hub(format!("{address}: {error}")))?;
        let token = config.hub.token().map(|token| token.trim().to_owned()).or_else(|| cache.token());
        Ok(Self { asked, address, token })
    }

    fn client(&self, redirects: Policy) -> Result<Client, HubError> {
        let client = Client::builder()
            .user_agent(concat!("llama-swarm/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_WITHIN)
            .read_timeout(SILENCE)
            .https_only(self.address.scheme() == "https")
            .redirect(redirects);
        client.build().map_err(|error| self.asked.explain(&error))
    }

    fn ask(&self, client: &Client, method: Method, address: &Url) -> reqwest::RequestBuilder {
        let request = client.request(method, address.clone());
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

/// A repository that was renamed is followed; where the file itself is kept is of no interest.
fn within_the_hub(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let stays = attempt.previous().last().is_some_and(|last| is_same_place(last, attempt.url()));
    match stays {
        true if attempt.previous().len() > MOST_REDIRECTS => attempt.error("too many redirects"),
        true => attempt.follow(),
        false => attempt.stop(),
    }
}

fn is_same_place(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

fn in_header(range: &Range<u64>) -> String {
    format!("bytes={}-{}", range.start, range.end.saturating_sub(1))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
