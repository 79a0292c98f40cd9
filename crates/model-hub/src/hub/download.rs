//! Downloads through the hf-hub crate.
//!
//! The crate fetches in pieces, notes in a file beside the last how far it is, and gives the final name to what is
//! complete; a download that broke off goes on at the piece where it broke. Left to us: trying again, giving up on a
//! hub that falls silent, progress, and ending the tasks that the crate lets run on after a failure.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hf_hub::{
    Cache, Repo,
    api::tokio::{ApiBuilder, ApiError, Progress as HubProgress},
};
use tokio::{
    runtime,
    sync::{oneshot, watch},
};

use super::{
    answers::Asked,
    file::{HubFile, cache_of},
};
use crate::{HubConfig, HubError, files::blocking, progress::Progress};

/// So many failures in a row, without a piece more, mean that it will not go on.
const TRIES: u32 = 4;
/// Grows with each failure.
const PAUSE: Duration = Duration::from_millis(500);
/// A hub that sends nothing for this long has fallen silent.
const SILENCE: Duration = Duration::from_secs(60);

/// Downloads the file into the hub's cache and gives the path of its pointer there.
pub(super) async fn download(file: &HubFile, config: &HubConfig) -> Result<PathBuf, HubError> {
    let meter = Meter::new(file.to_string());
    let mut reached = 0;
    let mut failures = 0;
    loop {
        let attempt = Attempt {
            asked: Asked { endpoint: config.hub.endpoint(), what: file.to_string() },
            cache: cache_of(config)?,
            token: config.hub.token(),
            repo: file.hub_repo(),
            path: file.path().into(),
            meter: meter.clone(),
        };
        // Dropped with this future, which ends the attempt.
        let (_wanted, unwanted) = oneshot::channel();
        let error = match blocking(move || attempt.run(unwanted)).await {
            Err(error @ HubError::NoNetwork { .. }) => error,
            result => return result,
        };
        let resumed = meter.lock().resumed;
        failures = if resumed > reached { 1 } else { failures + 1 };
        reached = reached.max(resumed);
        if failures >= TRIES {
            return Err(error);
        }
        tracing::warn!(%error, "the download broke off, going on where it stopped");
        tokio::time::sleep(PAUSE * failures).await;
    }
}

struct Attempt {
    asked: Asked,
    cache: Cache,
    token: Option<String>,
    repo: Repo,
    path: String,
    meter: Meter,
}

impl Attempt {
    /// Runs on a runtime of its own: with it end the tasks that the crate spawns, which otherwise would go on writing
    /// into the file of the next attempt.
    fn run(self, unwanted: oneshot::Receiver<()>) -> Result<PathBuf, HubError> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| HubError::Internal(error.to_string()))?;
        runtime.block_on(async {
            tokio::select! {
                result = self.download() => result.map_err(|error| self.explain(error)),
                () = silent(self.meter.moved.subscribe(), SILENCE) => {
                    let silent = format!("{} sent nothing for {} s", self.asked.endpoint, SILENCE.as_secs());
                    Err(self.asked.no_network(silent))
                }
                _ = unwanted => Err(HubError::Internal("nobody waits for the download".into())),
            }
        })
    }

    async fn download(&self) -> Result<PathBuf, ApiError> {
        let mut builder = ApiBuilder::from_cache(self.cache.clone())
            .with_progress(false)
            .with_endpoint(self.asked.endpoint.clone());
        // Without one here, the crate takes the one that Hugging Face's tools keep.
        if let Some(token) = &self.token {
            builder = builder.with_token(Some(token.trim().into()));
        }
        let repo = builder.build()?.repo(self.repo.clone());
        repo.download_with_progress(&self.path, self.meter.clone()).await
    }

    fn explain(&self, error: ApiError) -> HubError {
        match error {
            ApiError::RequestError(error) => self.asked.explain(&error),
            ApiError::IoError(source) => HubError::io(self.cache.path().clone())(source),
            ApiError::LockAcquisition(path) => {
                let source = io::Error::other("another program is fetching it: wait for it, then try again");
                HubError::Io { path, source }
            }
            ApiError::TooManyRetries(error) => self.explain(*error),
            ApiError::MissingHeader(_)
            | ApiError::InvalidHeader(_)
            | ApiError::ToStr(_)
            | ApiError::ParseIntError(_) => self.asked.not_a_hub(error.to_string()),
            ApiError::InvalidHeaderValue(_) => {
                HubError::Name("the hub's access token has characters that none has: check HF_TOKEN".into())
            }
            ApiError::TryAcquireError(_) | ApiError::AcquireError(_) | ApiError::Join(_) => {
                HubError::Internal(error.to_string())
            }
        }
    }
}

/// Ends when nothing has moved for so long.
async fn silent(mut moved: watch::Receiver<()>, bound: Duration) {
    while let Ok(Ok(())) = tokio::time::timeout(bound, moved.changed()).await {}
}

/// Where the crate tells how far it is. Its tasks share one.
#[derive(Clone)]
struct Meter {
    state: Arc<Mutex<State>>,
    moved: watch::Sender<()>,
}

struct State {
    what: String,
    progress: Option<Progress>,
    /// Bytes that are here.
    done: u64,
    /// The crate has told what is here from before.
    begun: bool,
    /// Bytes that were here when the last attempt began.
    resumed: u64,
}

impl Meter {
    fn new(what: String) -> Self {
        let state = State { what, progress: None, done: 0, begun: false, resumed: 0 };
        Self { state: Arc::new(Mutex::new(state)), moved: watch::Sender::new(()) }
    }

    /// Numbers stay good when a thread panics in between.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HubProgress for Meter {
    async fn init(&mut self, size: usize, _: &str) {
        let mut state = self.lock();
        let what = state.what.clone();
        state.progress.get_or_insert_with(|| Progress::new(format!("fetching {what}"), Some(size as u64)));
        (state.done, state.begun) = (0, false);
        drop(state);
        self.moved.send_replace(());
    }

    /// First comes what is here from an earlier attempt, then what is new.
    async fn update(&mut self, bytes: usize) {
        let mut state = self.lock();
        state.done += bytes as u64;
        let done = state.done;
        if !state.begun {
            (state.begun, state.resumed) = (true, done);
        }
        if let Some(progress) = &mut state.progress {
            progress.set(done);
        }
        drop(state);
        self.moved.send_replace(());
    }

    async fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silence_ends_a_download_and_bytes_do_not() {
        let mut meter = Meter::new("m".into());
        let moved = meter.moved.subscribe();
        meter.init(100, "m").await;
        meter.update(40).await;
        meter.update(10).await;
        let counted = {
            let state = meter.lock();
            (state.done, state.resumed)
        };
        assert_eq!(counted, (50, 40));
        assert!(moved.has_changed().expect("the meter is there"));
        silent(meter.moved.subscribe(), Duration::ZERO).await;
    }
}
