//! The documentation and bounds of each item of a WIT text. Neither survives in a component, so the packed file has the text besides.

use std::collections::HashMap;

use wit_parser::{Resolve, TypeDefKind};

use super::ContractError;
use crate::bounds::{self, Bounds};

/// What is written about each item, by interface and item: `echo:auth/api@0.1.0`, `device.id`.
#[derive(Default)]
pub struct Docs(HashMap<(String, String), Note>);

#[derive(Clone, Default)]
pub struct Note {
    pub text: Option<String>,
    pub bounds: Bounds,
}

impl Docs {
    pub fn parse(text: &str) -> Result<Self, ContractError> {
        let mut resolve = Resolve::new();
        if let Err(error) = resolve.push_source("wit", text) {
            return Err(ContractError::Text(resolve.render_error(&error)));
        }
        let mut docs = Self::default();
        for (id, interface) in resolve.interfaces.iter() {
            let Some(id) = resolve.id_of(id) else { continue };
            docs.keep(&id, String::new(), &interface.docs)?;
            for (name, function) in &interface.functions {
                docs.keep(&id, name.clone(), &function.docs)?;
            }
            for (name, ty) in &interface.types {
                let definition = &resolve.types[*ty];
                let item = |item: &str| format!("{name}.{item}");
                match &definition.kind {
                    TypeDefKind::Record(_) | TypeDefKind::Variant(_) | TypeDefKind::Enum(_) | TypeDefKind::Flags(_) => {
                        docs.keep(&id, name.clone(), &definition.docs)?;
                    }
                    _ => docs.keep_bounds(&id, name.clone(), &definition.docs)?,
                }
                match &definition.kind {
                    TypeDefKind::Record(record) => {
                        record.fields.iter().try_for_each(|field| docs.keep_bounds(&id, item(&field.name), &field.docs))?;
                    }
                    TypeDefKind::Variant(variant) => {
                        variant.cases.iter().try_for_each(|case| docs.keep_bounds(&id, item(&case.name), &case.docs))?;
                    }
                    TypeDefKind::Enum(cases) => {
                        cases.cases.iter().try_for_each(|case| docs.keep(&id, item(&case.name), &case.docs))?;
                    }
                    TypeDefKind::Flags(flags) => {
                        flags.flags.iter().try_for_each(|flag| docs.keep(&id, item(&flag.name), &flag.docs))?;
                    }
                    _ => {}
                }
            }
        }
        Ok(docs)
    }

    /// Of what has no bounds: a tag there is a mistake.
    fn keep(&mut self, interface: &str, item: String, docs: &wit_parser::Docs) -> Result<(), ContractError> {
        let Some(text) = written(docs) else { return Ok(()) };
        if is_ours(interface) && bounds::has_tag(text) {
            let reason = "tags stand on fields, on cases with a value and on types that are a name for another".to_owned();
            return Err(ContractError::Tag { item: format!("{interface} {item}"), reason });
        }
        self.0.insert((interface.to_owned(), item), Note { text: Some(text.to_owned()), bounds: Bounds::default() });
        Ok(())
    }

    fn keep_bounds(&mut self, interface: &str, item: String, docs: &wit_parser::Docs) -> Result<(), ContractError> {
        let Some(text) = written(docs) else { return Ok(()) };
        let note = if is_ours(interface) {
            let tag = |reason| ContractError::Tag { item: format!("{interface} {item}"), reason };
            let (text, bounds) = bounds::split(text).map_err(tag)?;
            Note { text, bounds }
        } else {
            Note { text: Some(text.to_owned()), bounds: Bounds::default() }
        };
        self.0.insert((interface.to_owned(), item), note);
        Ok(())
    }

    pub fn get(&self, interface: &str, item: &str) -> Option<String> {
        self.note(interface, item).text
    }

    pub fn note(&self, interface: &str, item: &str) -> Note {
        if self.0.is_empty() {
            return Note::default();
        }
        self.0.get(&(interface.to_owned(), item.to_owned())).cloned().unwrap_or_default()
    }
}

fn written(docs: &wit_parser::Docs) -> Option<&str> {
    docs.contents.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

/// Others write lines that begin with `@` as they like.
fn is_ours(interface: &str) -> bool {
    interface.split_once(':').is_some_and(|(namespace, _)| namespace == super::NAMESPACE)
}
