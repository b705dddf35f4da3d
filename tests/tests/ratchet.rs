//! Counts may only fall; `unsafe` stays where it is allowed at all.

use tests::ratchet::{above, allowed, count};

#[test]
fn counts_only_fall() {
    let wrong = above(&count(), &allowed().expect("tests/ratchet.ron"));
    assert!(
        wrong.is_empty(),
        "{}\nshrink it; or, with a reason in the commit, `cargo xtask lint --raise`",
        wrong.join("\n")
    );
}

#[test]
fn unsafe_stays_in_arch() {
    let now = count();
    for (name, n) in &now.unsafe_uses {
        assert!(["arch", "uapi"].contains(&name.as_str()), "{name} uses unsafe {n} times");
    }
    for file in tests::workspace::rust_files("kernel/uapi") {
        let text = std::fs::read_to_string(tests::workspace::root().join(&file)).expect("own source");
        let allows = text.lines().any(|l| l.trim_start().starts_with("#![allow(unsafe_code)"));
        assert!(
            !allows || file.ends_with("pod.rs"),
            "{}: only uapi::pod may allow unsafe code",
            file.display()
        );
    }
}

#[test]
fn every_file_says_what_it_is() {
    let mut wrong = Vec::new();
    for (folder, _) in tests::ratchet::CRATES {
        for file in tests::workspace::rust_files(folder) {
            let text = std::fs::read_to_string(tests::workspace::root().join(&file)).expect("own source");
            // A file that another one includes cannot have inner comments: a plain one will do.
            if !text.trim_start().starts_with("//") {
                wrong.push(file.display().to_string());
            }
        }
    }
    assert!(wrong.is_empty(), "these files do not open with `//!`:\n{}", wrong.join("\n"));
}
