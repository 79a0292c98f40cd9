//! What we build on may be built on: licences, bans and sources of all that `Cargo.lock` names, by `deny.toml`. The
//! same as `cargo deny check licenses bans sources` says, for machines without cargo-deny.

use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

use anyhow::ensure;
use cargo_metadata::{CargoOpt, MetadataCommand, Package};
use swarm_tests::needed;

/// The lists of `deny.toml` that concern a single package.
#[derive(Debug, Default)]
struct Rules {
    /// Licences that any package may have.
    licences: BTreeSet<String>,
    /// A package and a licence that it alone may have.
    exceptions: BTreeSet<(String, String)>,
    /// Packages that nobody may need.
    banned: BTreeSet<String>,
}

impl Rules {
    fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deny.toml");
        Self::parse(&fs::read_to_string(file).expect("deny.toml lies at the top"))
    }

    /// Of the form that `deny.toml` has: a list is spread over lines, an item has one.
    fn parse(text: &str) -> Self {
        let (mut rules, mut section, mut list) = (Self::default(), "", "");
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        for line in lines.filter(|line| !line.is_empty()) {
            let texts: Vec<String> = line.split('"').skip(1).step_by(2).map(str::to_owned).collect();
            match (line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')), line.split_once(" = [")) {
                (Some(name), _) => section = name,
                (None, Some((name, ""))) => list = name,
                _ => match (section, list, &texts[..]) {
                    ("licenses", "allow", [licence]) => drop(rules.licences.insert(licence.clone())),
                    ("licenses", "exceptions", [package, licence]) => {
                        rules.exceptions.insert((package.clone(), licence.clone()));
                    }
                    ("bans", "deny", [package]) => drop(rules.banned.insert(package.clone())),
                    _ => {}
                },
            }
        }
        rules
    }

    fn allow(&self, package: &str, licence: &str) -> bool {
        self.licences.contains(licence) || self.exceptions.contains(&(package.into(), licence.into()))
    }
}

/// Whether a licence expression of SPDX is met where single licences are as `allowed` says. Old ones write `/` for
/// `OR`.
fn is_met(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    let met = any(&mut words, allowed);
    met && words.is_empty()
}

fn any(words: &mut Vec<&str>, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut met = all(words, allowed);
    while words.pop_if(|word| *word == "OR").is_some() {
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut Vec<&str>, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut met = one(words, allowed);
    while words.pop_if(|word| *word == "AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Vec<&str>, allowed: &dyn Fn(&str) -> bool) -> bool {
    match words.pop() {
        Some("(") => {
            let met = any(words, allowed);
            words.pop() == Some(")") && met
        }
        // With an exception it is a licence of its own.
        Some(licence) => match words.pop_if(|word| *word == "WITH").and_then(|_| words.pop()) {
            Some(exception) => allowed(&format!("{licence} WITH {exception}")),
            None => allowed(licence),
        },
        None => false,
    }
}

/// All packages of the lock file, on every system and with every feature. Their manifests have to be fetched once.
fn others() -> anyhow::Result<Option<Vec<Package>>> {
    let mut command = MetadataCommand::new();
    let read = command.features(CargoOpt::AllFeatures).other_options(vec!["--locked".into()]).exec();
    let found = needed("the manifests of all dependencies", read.map_err(Into::into))?;
    Ok(found
        .map(|metadata| metadata.packages.into_iter().filter(|package| package.source.is_some()).collect()))
}

#[test]
fn what_we_build_on_is_licensed_allowed_and_from_the_public_registry() -> anyhow::Result<()> {
    let (rules, Some(packages)) = (Rules::read(), others()?) else { return Ok(()) };
    let mut wrong = vec![];
    for package in &packages {
        let (name, version) = (package.name.as_str(), &package.version);
        let licence = package.license.clone().unwrap_or_default();
        if !is_met(&licence, &|licence| rules.allow(name, licence)) {
            wrong.push(format!("{name} {version}: its licence \"{licence}\" is not allowed"));
        }
        if rules.banned.contains(name) {
            wrong.push(format!("{name} {version}: banned, see the reason there"));
        }
        if !package.source.as_ref().is_some_and(cargo_metadata::Source::is_crates_io) {
            wrong.push(format!("{name} {version}: not from crates.io"));
        }
    }
    assert!(wrong.is_empty(), "deny.toml forbids:\n{}\n", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_licence_that_is_allowed_is_needed() -> anyhow::Result<()> {
    let (rules, Some(packages)) = (Rules::read(), others()?) else { return Ok(()) };
    let needed = |left_out: &dyn Fn(&str, &str) -> bool| {
        packages.iter().any(|package| {
            let (name, licence) = (package.name.as_str(), package.license.clone().unwrap_or_default());
            !is_met(&licence, &|licence| rules.allow(name, licence) && !left_out(name, licence))
        })
    };
    for licence in &rules.licences {
        assert!(needed(&|_, one| one == licence), "deny.toml: nobody needs {licence}");
    }
    for (package, licence) in &rules.exceptions {
        let left_out = |name: &str, one: &str| name == package && one == licence;
        assert!(needed(&left_out), "deny.toml: {package} does not need {licence}");
    }
    Ok(())
}

/// What the workspace is built of, each package with its features, by the kinds of dependencies that count.
fn built(kinds: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let arguments =
        ["tree", "--workspace", "--locked", "--prefix=none", "--format={p} [{f}]", "--edges", kinds];
    let told = cargo.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output()?;
    ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let lines = String::from_utf8(told.stdout)?;
    Ok(lines.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect())
}

/// Otherwise it, and all that depends on it, is compiled once for tests and once more for the programs.
#[test]
fn tests_give_no_dependency_other_features() -> anyhow::Result<()> {
    let trees = built("normal,build").and_then(|programs| Ok((programs, built("normal,build,dev")?)));
    let Some((programs, tests)) = needed("the tree of dependencies", trees)? else { return Ok(()) };
    ensure!(programs.iter().any(|package| package.starts_with("tokio v")), "not all are told: {programs:?}");
    let apart: Vec<_> = programs.difference(&tests).collect();
    ensure!(
        apart.is_empty(),
        "tests give these more features, have [dependencies] of tests/ give them too: {apart:#?}"
    );
    Ok(())
}

/// `fuzz/` has a lock file of its own, which a dependency more of the crates that are fuzzed leaves behind.
#[test]
fn the_fuzzers_lock_file_is_not_left_behind() -> anyhow::Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/Cargo.toml");
    let read = MetadataCommand::new().manifest_path(manifest).other_options(vec!["--locked".into()]).exec();
    match read {
        Err(error) if error.to_string().contains("lock file") => {
            panic!("run `cargo metadata --manifest-path fuzz/Cargo.toml` and commit fuzz/Cargo.lock: {error}")
        }
        other => needed("the fuzzers' lock file", other.map_err(Into::into)).map(drop),
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let met = |expression: &str| is_met(expression, &|licence| ["A", "B", "C WITH x"].contains(&licence));
    for right in ["A", "Z OR A", "Z/A", "A AND B", "Z AND Y OR A", "(Z OR A) AND B", "C WITH x", "((A))"] {
        assert!(met(right), "{right}");
    }
    for wrong in ["", "Z", "A AND Z", "A AND (Z OR Y)", "C", "A WITH x", "(A", "A B", "Z OR (A AND Y)"] {
        assert!(!met(wrong), "{wrong}");
    }
}

#[test]
fn the_rules_are_found_in_their_file() {
    let rules = Rules::read();
    assert!(rules.licences.contains("MIT") && !rules.licences.contains("MPL-2.0"), "{rules:?}");
    assert!(rules.allow("option-ext", "MPL-2.0") && !rules.allow("tokio", "MPL-2.0"), "{rules:?}");
    assert!(rules.banned.contains("openssl-sys") && rules.banned.contains("native-tls"), "{rules:?}");
}
