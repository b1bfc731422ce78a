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

/// A path of the sources: each room of it is a module or a type, its end one of these or a function.
#[track_caller]
fn exists(sources: &str, path: &str) {
    let is_room = |name: &str| {
        ["struct", "enum"].iter().any(|kind| sources.contains(&format!("{kind} {name}")))
            || sources.contains(&format!("mod {name};"))
    };
    let (rooms, end) = path.rsplit_once("::").unwrap_or(("", path));
    for room in rooms.split("::").filter(|room| !room.is_empty()) {
        assert!(is_room(room), "ARCHITECTURE.md walks through `{path}`, and there is no {room}");
    }
    let is_function = sources.contains(&format!("fn {end}(")) || sources.contains(&format!("fn {end}<"));
    assert!(is_function || is_room(end), "ARCHITECTURE.md walks through `{path}`, which is not there");
}

#[test]
fn every_function_of_the_walk_exists() {
    let sources = sources();
    let names = names_under(&read("ARCHITECTURE.md"), "The walk of one reading");
    let functions: Vec<&String> = names.iter().filter(|name| !name.starts_with('/') && !name.contains('.')).collect();
    assert!(functions.len() >= 15, "{functions:?}");
    for name in functions {
        exists(&sources, name);
    }
}

#[test]
fn every_function_of_the_walk_in_a_plant_exists() {
    let sources = sources();
    let names = names_under(&read("ARCHITECTURE.md"), "The same walk in a plant");
    let (functions, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.contains("::"));
    assert!(functions.len() >= 8, "{functions:?}");
    for name in functions {
        exists(&sources, &name);
    }
    // Tables and topics.
    assert!(others.len() >= 3, "{others:?}");
    for name in others {
        assert!(sources.contains(&format!("\"{name}\"")), "ARCHITECTURE.md tells of `{name}`, which nothing names");
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

/// The pages of a folder, by their paths.
fn pages(folder: &str) -> Vec<String> {
    let files = std::fs::read_dir(root().join(folder)).unwrap().map(|file| file.unwrap().file_name());
    let names = files.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".md"));
    let mut pages: Vec<String> = names.map(|name| format!("{folder}/{name}")).collect();
    pages.sort();
    pages
}

/// The files and headings that a document links to.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    targets.filter(|target| !target.starts_with("http"))
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let mut checked = 0;
    let mut documents: Vec<String> = ["README.md", "README.ko.md", "ARCHITECTURE.md"].map(str::to_owned).into();
    documents.extend(["docs", "docs/decisions", "docs/runbook"].into_iter().flat_map(pages));
    for document in documents {
        let text = read(&document);
        let folder = root().join(&document).parent().unwrap().to_owned();
        for target in links(&text).filter(|target| !target.starts_with('#')) {
            let file = target.split('#').next().unwrap();
            assert!(folder.join(file).exists(), "{document} links to {target}");
            checked += 1;
        }
    }
    assert!(checked >= 40, "{checked}");
}

#[test]
fn the_index_of_the_runbook_names_every_page() {
    let index = read("docs/runbook/README.md");
    let named: Vec<&str> = links(&index).collect();
    let pages = pages("docs/runbook");
    assert!(pages.len() >= 15, "{pages:?}");
    for page in pages.iter().map(|page| page.rsplit('/').next().unwrap()).filter(|page| *page != "README.md") {
        assert!(named.contains(&page), "docs/runbook/README.md does not name {page}");
    }
}

/// What stands between backticks with a `{word}` in it is quoted from the sources, whose strings may go over lines, unless it
/// is a route; what begins with `millwright_` is a figure, perhaps with labels, a slot or a publication of ours.
#[test]
fn the_runbook_quotes_what_the_program_says() {
    let mut sources = sources();
    while let Some(at) = sources.find("\\\n") {
        let end = at + 2 + sources[at + 2..].find(|c: char| !c.is_whitespace()).unwrap();
        sources.replace_range(at..end, "");
    }
    let (mut lines, mut figures) = (0, 0);
    for page in pages("docs/runbook") {
        let text = read(&page);
        // Backticks of fences stand alone in their lines.
        let prose: String = text.split("```").step_by(2).collect();
        for quote in prose.split('`').skip(1).step_by(2) {
            let quote = quote.split_whitespace().collect::<Vec<_>>().join(" ");
            let is_line =
                quote.split('{').skip(1).any(|rest| rest.starts_with(|c: char| c.is_alphabetic() || c == '}'));
            if is_line && !quote.contains('/') && !quote.starts_with("millwright_") {
                assert!(sources.contains(&quote), "{page} quotes `{quote}`, which the program does not say");
                lines += 1;
            }
        }
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("millwright_")) {
            assert!(sources.contains(&format!("\"{name}\"")), "{page} names {name}, which is not there");
            figures += 1;
        }
    }
    assert!(lines >= 15 && figures >= 15, "{lines} {figures}");
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
