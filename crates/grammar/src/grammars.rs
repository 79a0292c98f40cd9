//! Grammars made ready for the model's tokens, and kept for the sessions that come next.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use swarm_types::Grammar;
use tokio::sync::Semaphore;

use crate::{
    error::GrammarError,
    vocabulary::{Ready, Vocabulary},
};

/// Grammars that are kept. Each takes some hundred KiB, seldom more than some MiB.
const KEPT: usize = 32;
/// Grammars that are made ready at the same time; the others wait. Most take milliseconds.
const AT_ONCE: usize = 2;

/// All grammars of one model. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Grammars(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    model: PathBuf,
    /// There once a session has needed it.
    vocabulary: Mutex<Option<Vocabulary>>,
    /// The last that was used is the last here.
    kept: Mutex<Vec<Ready>>,
    turns: Arc<Semaphore>,
}

impl Grammars {
    /// For the tokens of a model file, which is read when the first grammar comes.
    #[must_use]
    pub fn new(model: PathBuf) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self(Arc::new(Inner { model, vocabulary: Mutex::default(), kept: Mutex::default(), turns }))
    }

    /// A grammar, ready for a session. Work goes to the runtime's threads for what blocks.
    ///
    /// # Errors
    /// When it is not valid, or too much.
    pub async fn ready(&self, grammar: Grammar) -> Result<Ready, GrammarError> {
        if let Some(ready) = self.kept(&grammar) {
            return Ok(ready);
        }
        let turn = self.0.turns.clone().acquire_owned().await.map_err(|error| broken(&error))?;
        // Whoever had the turn before may have made it.
        if let Some(ready) = self.kept(&grammar) {
            return Ok(ready);
        }
        let grammars = self.clone();
        // Who leaves does not end the work, so the turn stays with that.
        let make = move || {
            let _turn = turn;
            grammars.make(&grammar)
        };
        let ready = tokio::task::spawn_blocking(make).await;
        ready.map_err(|error| broken(&error))?
    }

    fn make(&self, grammar: &Grammar) -> Result<Ready, GrammarError> {
        let ready = self.vocabulary()?.ready(grammar)?;
        let mut kept = self.list();
        kept.retain(|other| other != &ready);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(ready.clone());
        Ok(ready)
    }

    fn vocabulary(&self) -> Result<Vocabulary, GrammarError> {
        let mut known = self.0.vocabulary.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vocabulary) = &*known {
            return Ok(vocabulary.clone());
        }
        Ok(known.insert(Vocabulary::read(&self.0.model)?).clone())
    }

    fn kept(&self, grammar: &Grammar) -> Option<Ready> {
        let mut kept = self.list();
        let place = kept.iter().position(|ready| ready.grammar() == grammar)?;
        let ready = kept.remove(place);
        kept.push(ready.clone());
        Some(ready)
    }

    fn list(&self) -> MutexGuard<'_, Vec<Ready>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn broken(error: &dyn std::error::Error) -> GrammarError {
    GrammarError::Internal(error.to_string())
}
