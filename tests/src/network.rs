//! A network of a test's own, in which the path between two processes is cut and mended.
//!
//! A relay between them would not do: nodes tell each other where they listen, and go around it. So the test runs
//! again in a new network namespace, where it may set the routes, also without root; nothing outside changes, and all
//! is gone with the last process. There each process has a loopback address of its own, and a cut is a routing rule
//! against two of them.

use std::{
    ffi::OsString,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Output, Stdio},
};

use anyhow::{Context, ensure};
use tokio::{process::Command, time::timeout};

use crate::{BOUND, Process, needed};

/// Has the namespace that the test was started in, for the test that runs again in another one.
const OUTSIDE: &str = "SWARM_TESTS_OUTER_NETWORK";
/// Where a process listens for peers: see [`host`].
const HOSTS: &str = "127.0.1.0/24";

/// The loopback address on which the process of this number listens for peers.
pub(crate) fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number)
}

/// The network that only this test is in.
#[derive(Debug)]
pub struct Network(());

impl Network {
    /// Call this first, with the name of the test that calls it. Outside, it runs that test again in a network of its
    /// own, and gives none: what was to be tested is tested then. Inside, it gives the network.
    ///
    /// # Errors
    /// Outside when the test fails inside; in CI also when no such network can be made.
    pub async fn of_its_own(test: &str) -> anyhow::Result<Option<Self>> {
        let here = namespace()?;
        // The second condition keeps this from ever changing the routes of the machine.
        if std::env::var_os(OUTSIDE).is_some_and(|outside| outside != here) {
            return Self::set_up().await.map(Some);
        }
        if needed(test, can_be_made().await)?.is_some() {
            run_inside(test, here).await?;
        }
        Ok(None)
    }

    async fn set_up() -> anyhow::Result<Self> {
        ip("link set lo up").await?;
        // The first of all rules finds every local address; others must come before it.
        ip("rule add pref 100 lookup local").await?;
        ip("rule del pref 0").await?;
        // Peers dial from where they listen. Who did not would go around a cut.
        ip(&format!("rule add pref 50 from 127.0.0.1 to {HOSTS} unreachable")).await?;
        Ok(Self(()))
    }

    /// From now on nothing gets from one process to the other, in both directions; each is unreachable for the other,
    /// and neither is told that a connection is over.
    ///
    /// # Errors
    /// When the path is cut already.
    pub async fn cut(&self, one: &Process, other: &Process) -> anyhow::Result<()> {
        self.change("add", one, other).await
    }

    /// From now on they reach each other again.
    ///
    /// # Errors
    /// When the path was not cut.
    pub async fn mend(&self, one: &Process, other: &Process) -> anyhow::Result<()> {
        self.change("del", one, other).await
    }

    async fn change(&self, verb: &str, one: &Process, other: &Process) -> anyhow::Result<()> {
        let (one, other) = (one.host()?, other.host()?);
        for (from, to) in [(one, other), (other, one)] {
            ip(&format!("rule {verb} pref 10 from {from} to {to} unreachable")).await?;
        }
        Ok(())
    }
}

/// The network namespace that this process is in.
fn namespace() -> anyhow::Result<OsString> {
    let link = std::fs::read_link("/proc/self/ns/net").context("finding out in which network this is")?;
    Ok(link.into_os_string())
}

/// `unshare` with what gives the command after it a network of its own, in which it may set the routes, and its own
/// mounts.
fn unshared() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "--mount"]).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn can_be_made() -> anyhow::Result<()> {
    let tried = unshared().args(["ip", "rule", "add", "pref", "100", "lookup", "local"]).output().await;
    let why = match tried {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => said(&output).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    anyhow::bail!(
        "no network of its own can be made: it needs util-linux, iproute2 and user namespaces ({why})"
    )
}

async fn run_inside(test: &str, here: OsString) -> anyhow::Result<()> {
    let itself: PathBuf = std::env::current_exe()?;
    let run = unshared().arg(itself).args([test, "--exact", "--nocapture"]).env(OUTSIDE, here).output();
    // The test has its own bounds, and says more when one is passed.
    let output = timeout(4 * BOUND, run).await.with_context(|| format!("{test} does not end"))??;
    let said = said(&output);
    ensure!(output.status.success(), "in a network of its own:\n{said}");
    ensure!(said.contains("1 passed"), "there is no test {test}:\n{said}");
    eprint!("{said}");
    Ok(())
}

async fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().await?;
    ensure!(output.status.success(), "ip {arguments}: {}", said(&output));
    Ok(())
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned()).concat()
}
