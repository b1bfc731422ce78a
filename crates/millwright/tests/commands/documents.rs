//! What the documents say is there.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every source file of the crates, one after the other.
fn sources() -> String {
    let mut text = String::new();
    let mut open = vec![root().join("crates")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &std::fs::read_to_string(&path).unwrap();
            }
        }
    }
    text
}

/// What stands between backticks in the part of a document under a heading.
fn names_under(document: &str, heading: &str) -> Vec<String> {
    let part = document.split(&format!("## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no heading {heading}"));
    let part = part.split("\n## ").next().unwrap();
    part.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_function_of_the_walk_exists() {
    let sources = sources();
    let names = names_under(&read("ARCHITECTURE.md"), "The walk of one reading");
    let functions: Vec<&String> = names.iter().filter(|name| !name.starts_with('/') && !name.contains('.')).collect();
    assert!(functions.len() >= 15, "{functions:?}");
    for name in functions {
        let function = name.rsplit("::").next().unwrap();
        let is_type = function.starts_with(char::is_uppercase);
        let found = if is_type {
            sources.contains(&format!("struct {function}")) || sources.contains(&format!("enum {function}"))
        } else {
            sources.contains(&format!("fn {function}(")) || sources.contains(&format!("fn {function}<"))
        };
        assert!(found, "ARCHITECTURE.md walks through `{name}`, which is not there");
        if let Some((owner, _)) = name.split_once("::") {
            let owned = sources.contains(&format!("struct {owner}"))
                || sources.contains(&format!("enum {owner}"))
                || sources.contains(&format!("mod {owner};"));
            assert!(owned, "ARCHITECTURE.md walks through `{name}`, and there is no {owner}");
        }
    }
}

#[test]
fn every_room_is_on_the_plan_and_in_the_tree() {
    let plan = read("ARCHITECTURE.md");
    for line in plan.lines().filter(|line| line.starts_with("| `crates/")) {
        let room = line.split('`').nth(1).unwrap();
        assert!(root().join(room).join("Cargo.toml").exists(), "{room} is no crate");
    }
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let mut checked = 0;
    for document in ["README.md", "README.ko.md", "ARCHITECTURE.md", "docs/glossary.md", "docs/class-file.md"] {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let file = target.split('#').next().unwrap();
            assert!(folder.join(file).exists(), "{document} links to {target}");
            checked += 1;
        }
    }
    assert!(checked >= 10);
}

/// Korean that leaves the choice of a particle to the reader is not Korean.
#[test]
fn korean_documents_choose_their_particles() {
    for document in ["README.ko.md", "docs/glossary.md"] {
        let text = read(document);
        for open in ["이(가)", "을(를)", "은(는)", "와(과)", "(으)로"] {
            assert!(!text.contains(open), "{document}: {open}");
        }
    }
}
