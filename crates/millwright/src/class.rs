//! `millwright class`, and finding a class by id or file.

use crate::{
    cli::{ClassCommand, Output},
    failure::Failure,
    sink,
};
use anyhow::Result;
use catalog::{Catalogue, Class};
use serde_json::{Value, json};
use std::path::Path;

/// Runs the command.
pub fn run(command: ClassCommand, output: Output) -> Result<()> {
    match command {
        ClassCommand::List => {
            let catalogue = Catalogue::builtin();
            let text = match output {
                Output::Text => catalogue
                    .classes()
                    .map(|class| format!("{:10} {} / {}\n", class.id, class.name.en, class.name.ko))
                    .collect(),
                Output::Json => {
                    let classes: Vec<Value> = catalogue
                        .classes()
                        .map(|class| json!({ "class": class.id, "name": { "en": class.name.en, "ko": class.name.ko } }))
                        .collect();
                    format!("{}\n", json!({ "classes": classes }))
                }
            };
            sink::print(&text)
        }
        ClassCommand::Show { id } => {
            let catalogue = Catalogue::builtin();
            let class = catalogue.class(&id).ok_or_else(|| no_class(&catalogue, &id))?;
            match output {
                Output::Text => sink::print(&class.document),
                Output::Json => {
                    sink::print(&format!("{}\n", json!({ "class": class.id, "document": &*class.document })))
                }
            }
        }
        ClassCommand::Check { files } => {
            let (mut fine, mut mistakes) = (Vec::new(), Vec::new());
            for file in &files {
                match read(file) {
                    Ok(class) => {
                        eprintln!(
                            "{}: class {} is fine: {} channels, {} derived quantities, {} laws",
                            file.display(),
                            class.id,
                            class.channels.len(),
                            class.derived.len(),
                            class.laws.len()
                        );
                        fine.push(json!({
                            "file": file.display().to_string(),
                            "class": class.id,
                            "channels": class.channels.len(),
                            "derived": class.derived.len(),
                            "laws": class.laws.len(),
                        }));
                    }
                    Err(error) => mistakes.push(error.to_string()),
                }
            }
            if !mistakes.is_empty() {
                return Err(Failure::configuration("MW-0020", mistakes.join("\n")).into());
            }
            if output == Output::Json {
                sink::print(&format!("{}\n", json!({ "ok": true, "classes": fine })))?;
            }
            Ok(())
        }
    }
}

/// A catalogue with the given classes (ids or files), the first as the default.
///
/// # Errors
/// A file cannot be read or is wrong, or an id is unknown.
pub fn catalogue<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Catalogue> {
    let mut catalogue = Catalogue::builtin();
    let mut default = None;
    for name in names {
        let id = if catalogue.class(name).is_some() {
            name.to_owned()
        } else if name.contains(['.', '/']) || Path::new(name).exists() {
            let class = read(Path::new(name))?;
            let id = class.id.clone();
            catalogue = catalogue.with_class(class);
            id
        } else {
            return Err(no_class(&catalogue, name).into());
        };
        default = default.or(Some(id));
    }
    Ok(match default {
        Some(id) => catalogue.with_default(&id)?,
        None => catalogue,
    })
}

fn no_class(catalogue: &Catalogue, id: &str) -> Failure {
    let known: Vec<&str> = catalogue.classes().map(|class| class.id.as_str()).collect();
    Failure::configuration("MW-0021", format!("there is no class `{id}`; there are {}", known.join(", ")))
        .hint("give a class file of your own (docs/class-file.md), e.g. --class ./compressor.toml")
}

fn read(file: &Path) -> Result<Class> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::configuration("MW-0022", format!("read the class file {}: {error}", file.display()))
    })?;
    Ok(Class::parse(&file.display().to_string(), &text)
        .map_err(|mistakes| Failure::configuration("MW-0020", mistakes.to_string()))?)
}
