//! One client: its limits, and how much of them is taken.

use std::{
    fmt,
    hash::{Hash, Hasher},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{
    allowance::Allowance,
    denied::{Denied, Limit},
    metrics::Used,
};

/// What a client may. What is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests at once.
    pub requests: Option<NonZeroU32>,
    /// Requests a minute.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens a minute, those of prompts and those generated together.
    pub tokens_per_minute: Option<NonZeroU32>,
    /// The models that it may use; none: all.
    pub models: Vec<String>,
}

impl Limits {
    /// Takes one limit as a file of keys writes it.
    pub(super) fn read(&mut self, word: &str) -> Result<(), String> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if name == "models" {
            let models: Vec<String> =
                value.split(',').filter(|name| !name.is_empty()).map(Into::into).collect();
            return match models.is_empty() || !self.models.is_empty() {
                true => Err("models= takes the names of models, once, with commas between them".into()),
                false => {
                    self.models = models;
                    Ok(())
                }
            };
        }
        let limit = match name {
            "requests" => &mut self.requests,
            "requests-per-minute" => &mut self.requests_per_minute,
            "tokens-per-minute" => &mut self.tokens_per_minute,
            _ => {
                let known = "requests=, requests-per-minute=, tokens-per-minute= or models=";
                return Err(format!("{name:?} is no limit: give {known}"));
            }
        };
        let number = value.parse().map_err(|_| format!("{name}= takes a whole number from 1"))?;
        match limit.replace(number) {
            Some(_) => Err(format!("{name}= stands there twice")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [
            ("requests", self.requests),
            ("requests-per-minute", self.requests_per_minute),
            ("tokens-per-minute", self.tokens_per_minute),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(f, " {name}={number}")?;
            }
        }
        if !self.models.is_empty() {
            write!(f, " models={}", self.models.join(","))?;
        }
        Ok(())
    }
}

/// A client with a key. Two of the same name are the same.
#[derive(Debug)]
pub struct Client {
    name: String,
    limits: Limits,
    in_hand: Arc<AtomicU32>,
    requests: Option<Allowance>,
    tokens: Option<Allowance>,
    used: Used,
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Client {}

impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Client {
    /// Nothing of the limits is taken yet.
    pub(super) fn new(name: String, limits: Limits, used: Used) -> Self {
        Self {
            in_hand: Arc::default(),
            requests: limits.requests_per_minute.map(Allowance::new),
            tokens: limits.tokens_per_minute.map(Allowance::new),
            name,
            limits,
            used,
        }
    }

    /// The same with other limits: what is in hand stays so.
    pub(super) fn with_limits(&self, limits: Limits) -> Self {
        let in_hand = self.in_hand.clone();
        Self { in_hand, ..Self::new(self.name.clone(), limits, self.used.clone()) }
    }

    /// As the file of keys has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes a request on, if its limits have room.
    pub(super) fn begin(&self) -> Result<InHand, Denied> {
        let in_hand = self.take_in_hand()?;
        if let Some(tokens) = &self.tokens {
            tokens.draw(0).map_err(|wait| self.too_many(Limit::Tokens, wait))?;
        }
        if let Some(requests) = &self.requests {
            requests.draw(1).map_err(|wait| self.too_many(Limit::Requests, wait))?;
        }
        self.used.requests.inc();
        Ok(in_hand)
    }

    fn take_in_hand(&self) -> Result<InHand, Denied> {
        let most = self.limits.requests.map_or(u32::MAX, NonZeroU32::get);
        let more = |taken: u32| (taken < most).then(|| taken + 1);
        match self.in_hand.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(InHand(self.in_hand.clone())),
            Err(_) => Err(self.too_many(Limit::AtOnce, Duration::from_secs(1))),
        }
    }

    fn too_many(&self, limit: Limit, retry_after: Duration) -> Denied {
        Denied::TooMany { client: self.name.clone(), limit, retry_after }
    }

    /// Whether it may use the model that has these names.
    pub(super) fn may_use(&self, names: &[String]) -> Result<(), Denied> {
        let models = &self.limits.models;
        match models.is_empty() || models.iter().any(|allowed| names.contains(allowed)) {
            true => Ok(()),
            false => {
                let model = names.first().cloned().unwrap_or_default();
                Err(Denied::Model { client: self.name.clone(), model })
            }
        }
    }

    /// Takes the tokens of prompts, before anything is made of them.
    pub(super) fn draw(&self, tokens: u64) -> Result<(), Denied> {
        match &self.tokens {
            Some(allowance) => allowance.draw(tokens).map_err(|wait| self.too_many(Limit::Tokens, wait)),
            None => Ok(()),
        }
    }

    pub(super) fn give_back(&self, tokens: u64) {
        if let Some(allowance) = &self.tokens {
            allowance.give_back(tokens);
        }
    }

    pub(super) fn prompted(&self, tokens: u64) {
        self.used.prompt_tokens.inc_by(tokens);
    }

    pub(super) fn generated(&self) {
        self.used.generated_tokens.inc();
        if let Some(allowance) = &self.tokens {
            allowance.overdraw(1);
        }
    }
}

/// A request counts among its client's until this is dropped.
#[derive(Debug)]
pub struct InHand(Arc<AtomicU32>);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(limits: &str) -> Client {
        let mut read = Limits::default();
        limits.split(' ').filter(|word| !word.is_empty()).for_each(|word| read.read(word).expect("valid"));
        Client::new("alice".into(), read, Used::default())
    }

    fn limit(result: Result<impl fmt::Debug, Denied>) -> Limit {
        match result.expect_err("denied") {
            Denied::TooMany { limit, retry_after, .. } => {
                assert!(retry_after > Duration::ZERO);
                limit
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn requests_at_once_are_bounded_until_they_end_also_under_new_limits() {
        let alice = client("requests=2");
        let (one, _two) = (alice.begin().expect("first"), alice.begin().expect("second"));
        assert_eq!(limit(alice.begin()), Limit::AtOnce);
        let fewer = alice.with_limits(client("requests=1").limits);
        drop(one);
        assert_eq!(limit(fewer.begin()), Limit::AtOnce, "the second goes on");
        assert!(alice.begin().is_ok());
        let free = client("");
        let many: Vec<_> = (0..1000).map(|_| free.begin()).collect();
        assert!(many.iter().all(Result::is_ok));
    }

    #[test]
    fn a_refused_request_takes_nothing() {
        let alice = client("requests=1 requests-per-minute=2");
        let _one = alice.begin().expect("first");
        assert!((0..10).all(|_| limit(alice.begin()) == Limit::AtOnce));
        drop(_one);
        drop(alice.begin().expect("second"));
        assert!((0..10).all(|_| limit(alice.begin()) == Limit::Requests));
    }

    #[test]
    fn prompts_are_drawn_before_and_generated_tokens_as_they_come() {
        let alice = client("tokens-per-minute=100");
        assert!(alice.begin().is_ok());
        assert_eq!(alice.draw(60), Ok(()));
        assert_eq!(limit(alice.draw(60)), Limit::Tokens);
        alice.give_back(60);
        assert_eq!(alice.draw(90), Ok(()));
        (0..20).for_each(|_| alice.generated());
        assert_eq!(limit(alice.begin()), Limit::Tokens);
    }

    #[test]
    fn only_models_that_are_named_may_be_used() {
        let alice = client("models=a,b");
        let may = |client: &Client, name: &str| client.may_use(&["other".into(), name.into()]);
        assert!(may(&alice, "a").is_ok() && may(&alice, "b").is_ok() && may(&client(""), "c").is_ok());
        let denied = alice.may_use(&["c".into(), "d".into()]);
        assert!(matches!(denied, Err(Denied::Model { model, .. }) if model == "c"));
    }
}
