//! The walls of the house: who may import whom, and what the core must never pull in.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Normal dependencies of every crate of the workspace, as its manifest names them: (folder, names).
fn manifests() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found = BTreeMap::new();
    for group in ["crates/core", "crates/edge", "crates"] {
        for entry in std::fs::read_dir(root().join(group)).unwrap() {
            let manifest = entry.unwrap().path().join("Cargo.toml");
            let Ok(text) = std::fs::read_to_string(&manifest) else { continue };
            let document: toml::Table = text.parse().unwrap();
            let name = document["package"]["name"].as_str().unwrap().to_owned();
            let dependencies = document.get("dependencies").and_then(|table| table.as_table());
            found.insert(
                name,
                (group.to_owned(), dependencies.into_iter().flatten().map(|(name, _)| name.clone()).collect()),
            );
        }
    }
    found
}

#[test]
fn each_room_imports_only_what_the_plan_allows() {
    let core = ["catalog", "wire", "scoring", "engine", "alarm", "plant"];
    let edge = ["bus", "store", "notify", "dependency"];
    let plan: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
        ("catalog", vec![]),
        ("wire", vec!["catalog"]),
        ("scoring", vec!["catalog", "wire"]),
        ("engine", vec!["catalog", "wire", "scoring"]),
        ("alarm", vec!["catalog", "wire"]),
        ("plant", vec!["catalog", "wire"]),
        ("dependency", core.to_vec()),
        // The other rooms of the edge do not know each other.
        ("bus", [&core[..], &["dependency"]].concat()),
        ("store", [&core[..], &["dependency"]].concat()),
        ("notify", core.to_vec()),
        ("services", [&core[..], &edge[..]].concat()),
        ("portal", [&core[..], &edge[..]].concat()),
        ("millwright", [&core[..], &edge[..], &["services", "portal"]].concat()),
        ("rig", vec![]),
    ]);
    let manifests = manifests();
    assert_eq!(
        manifests.keys().map(String::as_str).collect::<Vec<_>>(),
        plan.keys().copied().collect::<Vec<_>>(),
        "a crate is missing from the plan, or the plan from the tree"
    );
    let ours: BTreeSet<&String> = manifests.keys().collect();
    for (name, (_, dependencies)) in &manifests {
        for dependency in dependencies.iter().filter(|dependency| ours.contains(dependency)) {
            assert!(plan[name.as_str()].contains(&dependency.as_str()), "{name} must not import {dependency}");
        }
    }
}

#[test]
fn the_core_pulls_in_no_runtime_no_engine_and_no_network() {
    let forbidden =
        ["tokio", "async-std", "smol", "reqwest", "hyper", "axum", "rusqlite", "rdkafka", "tokio-postgres", "redis"];
    let lock: toml::Table = std::fs::read_to_string(root().join("Cargo.lock")).unwrap().parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let dependencies = |name: &str| -> Vec<String> {
        packages
            .iter()
            .filter(|package| package["name"].as_str() == Some(name))
            .flat_map(|package| package.get("dependencies").and_then(|list| list.as_array()).into_iter().flatten())
            .map(|entry| entry.as_str().unwrap().split(' ').next().unwrap().to_owned())
            .collect()
    };
    for (name, (_, direct)) in manifests().into_iter().filter(|(_, (folder, _))| folder == "crates/core") {
        // The lock file lists test dependencies too, so the walk starts from the manifest's own list.
        let mut open: Vec<String> = direct.into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(at) = open.pop() {
            assert!(!forbidden.contains(&at.as_str()), "{name} pulls in {at}");
            if seen.insert(at.clone()) && !manifests_have(&at) {
                open.extend(dependencies(&at));
            }
        }
    }
}

/// Crates of the workspace are walked on their own.
fn manifests_have(name: &str) -> bool {
    manifests().contains_key(name)
}

#[test]
fn no_function_of_the_core_is_async_or_reads_a_clock() {
    let mut files = Vec::new();
    let mut open = vec![root().join("crates/core")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") && !path.ends_with("examples") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 10);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let product = text.split("#[cfg(test)]\nmod ").next().unwrap();
        for (number, line) in product.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for word in [
                "SystemTime",
                "Instant",
                "async fn",
                "std::fs",
                "std::net",
                "std::env",
                "std::process",
                "thread::spawn",
            ] {
                assert!(!line.contains(word), "{}:{}: {word}", file.display(), number + 1);
            }
        }
    }
}
