//! `millwright class`, and finding a class by id or file.

use crate::{cli::ClassCommand, failure::Failure};
use anyhow::Result;
use catalog::{Catalogue, Class};
use std::path::Path;

/// Runs the command.
pub fn run(command: ClassCommand) -> Result<()> {
    match command {
        ClassCommand::List => {
            for class in Catalogue::builtin().classes() {
                println!("{:10} {} / {}", class.id, class.name.en, class.name.ko);
            }
            Ok(())
        }
        ClassCommand::Show { id } => {
            let catalogue = Catalogue::builtin();
            let class = catalogue.class(&id).ok_or_else(|| no_class(&catalogue, &id))?;
            print!("{}", class.document);
            Ok(())
        }
        ClassCommand::Check { files } => {
            let mut mistakes = Vec::new();
            for file in &files {
                match read(file) {
                    Ok(class) => eprintln!(
                        "{}: class {} is fine: {} channels, {} derived quantities, {} laws",
                        file.display(),
                        class.id,
                        class.channels.len(),
                        class.derived.len(),
                        class.laws.len()
                    ),
                    Err(error) => mistakes.push(error.to_string()),
                }
            }
            if mistakes.is_empty() {
                Ok(())
            } else {
                Err(Failure::configuration("MW-0020", mistakes.join("\n")).into())
            }
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
