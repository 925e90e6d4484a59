//! Where a set of cases comes from: the project's own archive, or a folder that a variable of the environment
//! names.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The two files of a part of a set; empty where there is none.
#[derive(Default)]
pub struct Files {
    pub json: Vec<u8>,
    pub safetensors: Vec<u8>,
}

/// Where the set is from, and all its files by their names; `index.json` is left out. `archive` is relative
/// to the project.
pub fn read(variable: &str, archive: &str) -> Result<(String, BTreeMap<String, Files>)> {
    let mut set = BTreeMap::new();
    let origin = match std::env::var_os(variable) {
        Some(folder) => {
            let folder = PathBuf::from(folder);
            read_folder(&folder, &mut set).with_context(|| format!("reading {}", folder.display()))?;
            folder.display().to_string()
        }
        None => {
            let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(archive);
            read_archive(&archive, &mut set).with_context(|| format!("reading {}", archive.display()))?;
            "the project's archive".to_owned()
        }
    };
    anyhow::ensure!(!set.is_empty(), "there are no cases in {origin}");
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
    // Names have dots of their own: only the last one starts the extension.
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
