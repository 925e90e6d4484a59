//! Where the cases come from: the project's own archive, or the folder named by `WGRAD_CONFORMANCE_DIR`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The two files of an operator (or of the errors), by the operator's name.
#[derive(Default)]
pub struct Files {
    pub json: Vec<u8>,
    pub safetensors: Vec<u8>,
}

/// All files of a set, by operator; `index.json` is left out.
pub fn read() -> Result<(String, BTreeMap<String, Files>)> {
    let mut set = BTreeMap::new();
    let origin = match std::env::var_os("WGRAD_CONFORMANCE_DIR") {
        Some(folder) => {
            let folder = PathBuf::from(folder);
            read_folder(&folder, &mut set).with_context(|| format!("reading {}", folder.display()))?;
            folder.display().to_string()
        }
        None => {
            let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases.tar.gz");
            read_archive(&archive, &mut set).with_context(|| format!("reading {}", archive.display()))?;
            "the project's archive".to_owned()
        }
    };
    anyhow::ensure!(!set.is_empty(), "there are no cases in {origin}");
    for (op, files) in &set {
        anyhow::ensure!(
            !files.json.is_empty() && !files.safetensors.is_empty(),
            "{op} has only one of its two files"
        );
    }
    Ok((origin, set))
}

fn read_folder(folder: &Path, set: &mut BTreeMap<String, Files>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            add(&path, std::fs::read(&path)?, set);
        }
    }
    Ok(())
}

fn read_archive(archive: &Path, set: &mut BTreeMap<String, Files>) -> Result<()> {
    let packed = std::fs::read(archive)?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        add(&path, bytes, set);
    }
    Ok(())
}

fn add(path: &Path, bytes: Vec<u8>, set: &mut BTreeMap<String, Files>) {
    // Operators' names have dots of their own: only the last one starts the extension.
    let (Some(name), Some(extension)) = (path.file_stem().and_then(|s| s.to_str()), path.extension()) else {
        return;
    };
    if name == "index" {
        return;
    }
    match extension.to_str() {
        Some("json") => set.entry(name.to_owned()).or_default().json = bytes,
        Some("safetensors") => set.entry(name.to_owned()).or_default().safetensors = bytes,
        _ => {}
    }
}
