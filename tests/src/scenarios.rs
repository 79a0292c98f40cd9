//! Several scenarios on one thing that takes long to set up, each reported by name.
//!
//! For a test target with `harness = false`: [`scenarios!`](crate::scenarios) makes its `main`. It prints what Rust's
//! own harness prints, and takes the arguments of it that choose tests. What is different: the scenarios run one after
//! the other, in the order given, and what they print is always shown.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    process::ExitCode,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::LocalBoxFuture};

/// Something that must hold, and its name.
pub type Scenario<S> = (&'static str, for<'a> fn(&'a S) -> LocalBoxFuture<'a, anyhow::Result<()>>);

/// Makes the `main` of a test target without a harness: what sets up what all share, then the scenarios.
#[macro_export]
macro_rules! scenarios {
    ($set_up:path; $($scenario:ident),+ $(,)?) => {
        fn main() -> std::process::ExitCode {
            $crate::run_scenarios(
                $set_up,
                &[$((stringify!($scenario), |shared| Box::pin($scenario(shared)))),+],
            )
        }
    };
}

/// Runs the scenarios that the command line asks for, and goes on after one that fails.
///
/// # Panics
/// When no runtime can be made.
pub fn run_scenarios<S>(set_up: impl AsyncFnOnce() -> anyhow::Result<S>, all: &[Scenario<S>]) -> ExitCode {
    let arguments = Arguments::of(std::env::args().skip(1));
    let chosen: Vec<_> = all.iter().filter(|(name, _)| arguments.choose(name)).collect();
    if arguments.list {
        for (name, _) in &chosen {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let since = Instant::now();
    let failed = runtime.block_on(run(set_up, &chosen));
    if !failed.is_empty() {
        println!("\nfailures:");
    }
    for name in &failed {
        println!("    {name}");
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {}\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failed.len(),
        failed.len(),
        all.len() - chosen.len(),
        seconds(since.elapsed())
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Gives the names of those that failed: all of them, when there is nothing to run them on.
async fn run<S>(
    set_up: impl AsyncFnOnce() -> anyhow::Result<S>,
    chosen: &[&Scenario<S>],
) -> Vec<&'static str> {
    if chosen.is_empty() {
        return vec![];
    }
    let since = Instant::now();
    let shared = match caught(set_up()).await {
        Ok(shared) => shared,
        Err(why) => {
            println!("what they share cannot be set up: {why}");
            return chosen.iter().map(|(name, _)| *name).collect();
        }
    };
    println!("what they share is set up after {}", seconds(since.elapsed()));
    let mut failed = vec![];
    for (name, scenario) in chosen {
        let since = Instant::now();
        let result = caught(scenario(&shared)).await;
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} <{}>", seconds(since.elapsed()));
        if let Err(why) = result {
            println!("{why}\n");
            failed.push(*name);
        }
    }
    failed
}

/// An error or a panic in words.
async fn caught<T>(run: impl Future<Output = anyhow::Result<T>>) -> Result<T, String> {
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(result) => result.map_err(|error| format!("{error:?}")),
        Err(panic) => Err(panic_message(&*panic)),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref().copied());
    format!("panicked: {}", text.unwrap_or("without a message"))
}

fn seconds(time: Duration) -> String {
    format!("{:.2}s", time.as_secs_f64())
}

/// What the command line chooses, as `cargo test` hands it on to every test target.
#[derive(Debug, Default)]
struct Arguments {
    /// A name must contain one of these; none: all.
    filters: Vec<String>,
    /// And none of these.
    skip: Vec<String>,
    /// Contain means equal.
    exact: bool,
    /// Say the names only.
    list: bool,
    /// Run what is ignored by default, of which there is nothing here.
    ignored: bool,
}

impl Arguments {
    fn of(mut words: impl Iterator<Item = String>) -> Self {
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--exact" => arguments.exact = true,
                "--list" => arguments.list = true,
                "--ignored" => arguments.ignored = true,
                "--skip" => arguments.skip.extend(words.next()),
                "--test-threads" | "--color" | "--format" | "--logfile" | "--report-time" | "-Z" => {
                    words.next();
                }
                flag if flag.starts_with('-') => {}
                _ => arguments.filters.push(word),
            }
        }
        arguments
    }

    fn choose(&self, name: &str) -> bool {
        let is = |part: &String| if self.exact { name == part } else { name.contains(part.as_str()) };
        let wanted = self.filters.is_empty() || self.filters.iter().any(is);
        wanted && !self.skip.iter().any(is) && !self.ignored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(line: &str) -> Vec<&'static str> {
        let arguments = Arguments::of(line.split_whitespace().map(str::to_owned));
        ["one", "one_more", "two"].into_iter().filter(|name| arguments.choose(name)).collect()
    }

    #[test]
    fn the_command_line_chooses_as_with_rusts_own_harness() {
        assert_eq!(chosen("--nocapture --test-threads 1"), ["one", "one_more", "two"]);
        assert_eq!(chosen("one"), ["one", "one_more"]);
        assert_eq!(chosen("--exact one"), ["one"]);
        assert_eq!(chosen("more two"), ["one_more", "two"]);
        assert_eq!(chosen("one --skip more"), ["one"]);
        assert!(chosen("--ignored").is_empty() && chosen("three").is_empty());
    }

    #[tokio::test]
    async fn a_failure_hides_no_other_and_is_named_whatever_its_kind() {
        let scenarios: [Scenario<u32>; 4] = [
            ("good", |seven| {
                async move {
                    anyhow::ensure!(*seven == 7);
                    Ok(())
                }
                .boxed_local()
            }),
            ("error", |_| async { anyhow::bail!("an error") }.boxed_local()),
            ("panic", |seven| {
                async move {
                    assert_eq!(*seven, 8);
                    Ok(())
                }
                .boxed_local()
            }),
            ("good again", |_| async { Ok(()) }.boxed_local()),
        ];
        let all: Vec<_> = scenarios.iter().collect();
        assert_eq!(run(async || Ok(7), &all).await, ["error", "panic"]);
        let none_set_up = run(async || anyhow::bail!("no swarm"), &all).await;
        assert_eq!(none_set_up, ["good", "error", "panic", "good again"]);
        let never = run(async || -> anyhow::Result<u32> { panic!("set up for nothing") }, &[]).await;
        assert!(never.is_empty());
    }
}
