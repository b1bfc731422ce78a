//! What comes from Maven Central, fetched once by the profiles of `deploy/engines/pom.xml` and kept.

use crate::process::run;
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// The kept archives.
#[derive(Debug, Clone)]
pub struct Jars {
    /// The pom whose profiles name them.
    pub pom: PathBuf,
    /// Where they are kept, a folder each profile.
    pub cache: PathBuf,
}

impl Jars {
    /// The folder of a profile's jars.
    pub fn libraries(&self, profile: &str) -> Result<PathBuf> {
        self.fetched(profile, "copy-dependencies", "-DincludeScope=runtime")
    }

    /// The folder of a profile's unpacked archive.
    pub fn unpacked(&self, profile: &str) -> Result<PathBuf> {
        self.fetched(profile, "unpack-dependencies", "-DincludeTypes=tar.gz")
    }

    fn fetched(&self, profile: &str, goal: &str, filter: &str) -> Result<PathBuf> {
        fs::create_dir_all(&self.cache)?;
        // Whole, since Maven takes what is relative from the pom's folder.
        let cache = self.cache.canonicalize()?;
        // Named by what the pom asks for: another version is another folder.
        let folder = cache.join(format!("{profile}-{}", self.versions()?));
        // Maven's own store does not like two at a time.
        let lock = File::create(cache.join("lock"))?;
        lock.lock()?;
        if !folder.exists() {
            eprintln!("rig: fetching {profile} from Maven Central");
            let partial = cache.join(format!("{profile}.partial"));
            let _ = fs::remove_dir_all(&partial);
            run(Command::new("mvn")
                .args(["-q", "-B", "-f"])
                .arg(&self.pom)
                .args(["-P", profile, &format!("dependency:{goal}"), filter])
                .arg(format!("-DoutputDirectory={}", partial.display())))
            .with_context(|| format!("fetch {profile}"))?;
            fs::rename(&partial, &folder).with_context(|| format!("keep {}", partial.display()))?;
        }
        Ok(folder)
    }

    /// The pom's properties in one word: `4.3.1-2.25.4-…`.
    fn versions(&self) -> Result<String> {
        versions(&self.pom)
    }
}

fn versions(pom: &Path) -> Result<String> {
    let text = fs::read_to_string(pom).with_context(|| format!("read {}", pom.display()))?;
    let properties = text.split_once("<properties>").and_then(|(_, rest)| rest.split_once("</properties>"));
    let (properties, _) = properties.context("the pom has no properties")?;
    let values: Vec<&str> =
        properties.lines().filter_map(|line| Some(line.split_once('>')?.1.split_once('<')?.0)).collect();
    Ok(values.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_of_the_pom_name_the_folder() {
        let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/engines/pom.xml");
        let found = versions(&pom).unwrap();
        assert_eq!(found.split('-').count(), 4, "{found}");
        assert!(found.starts_with("4.3.1-"), "{found}");
    }
}
