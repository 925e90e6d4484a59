//! `docs/operators.md` is made of the library's sources and of the conformance set, so that no fact in it is written twice.
//! The test fails if the file is not what they give now:
//!
//!     cargo test --workspace --test documents                      # is it current?
//!     WGRAD_WRITE_DOCS=1 cargo test --workspace --test documents   # write it anew

#![allow(missing_docs)]

mod calls;
mod library;
mod page;
#[path = "../recorded/mod.rs"]
mod recorded;
#[path = "../conformance/source.rs"]
mod source;
mod verified;

use std::path::Path;

use anyhow::{Context, Result};

#[test]
fn operators_md_is_current() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = library::Library::read(&root.join("crates/autograd/src"))?;
    let calls = calls::read(&root.join("tests/conformance/ops"), &library)?;
    let page =
        page::write(&library, &calls, &verified::read()?, &calls::unchecked(&root.join("tests/gradcheck"))?)?;
    let file = root.join("docs/operators.md");
    if std::env::var_os("WGRAD_WRITE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(&file, &page).with_context(|| format!("writing {}", file.display()))?;
    }
    let found = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let differs = page.lines().zip(found.lines()).find(|(now, then)| now != then);
    assert!(
        page == found,
        "docs/operators.md is not current; WGRAD_WRITE_DOCS=1 cargo test --workspace --test documents writes it.\n\
         It would be: {}\nbut says:    {}",
        differs.map_or("longer or shorter", |(now, _)| now),
        differs.map_or("", |(_, then)| then)
    );
    Ok(())
}
