//! The notices of the programs as they are now.

use std::process::Command;

#[test]
fn everything_that_is_shipped_has_its_notice_and_nothing_else() {
    let output = Command::new(env!("CARGO_BIN_EXE_notices")).output().expect("it was built for this test");
    let document = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = |name: &str| document.lines().any(|line| line.starts_with(&format!("{name} ")));
    for name in ["tokio", "libp2p", "candle-core", "tonic", "rustls"] {
        assert!(listed(name), "{name} is in the programs and has no notice");
    }
    for name in ["criterion", "proptest", "protox", "shard-engine"] {
        assert!(!listed(name), "{name} is not in the programs, or is ours");
    }
    assert!(document.contains("Permission is hereby granted") && document.contains("Apache License"));
}
