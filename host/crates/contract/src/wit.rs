//! The contract of a component: its exported and imported interfaces, with the names of type aliases, and the documentation from its WIT text.
//! Knows no wasmtime, no JSON and no HTTP.

use std::path::Path;
use std::sync::Arc;

use wit_component::WitPrinter;
use wit_parser::decoding::{self, DecodedWasm};
use wit_parser::{FunctionKind, Handle, InterfaceId, PackageId, Resolve, TypeDefKind, TypeOwner, WorldItem, WorldKey};

use self::docs::{Docs, Note};
use super::bounds::Bounds;
use echo_base::limits;

mod docs;

/// The exports and imports of one component.
#[derive(Clone, Debug)]
pub struct Contract {
    exports: Vec<Interface>,
    imports: Vec<Interface>,
    documented: bool,
}

/// One interface, e.g. `echo:auth/api@0.1.0`.
#[derive(Clone, Debug)]
pub struct Interface {
    /// `echo`; empty for a function that stands alone in the world.
    pub namespace: String,
    /// `auth`.
    pub package: String,
    /// `api`.
    pub name: String,
    /// `0.1.0`.
    pub version: Option<String>,
    /// `echo:auth/api@0.1.0`.
    pub id: String,
    pub docs: Option<String>,
    /// Empty for interfaces of other namespaces than `echo`.
    pub functions: Vec<Function>,
}

#[derive(Clone, Debug)]
pub struct Function {
    /// kebab-case.
    pub name: String,
    pub docs: Option<String>,
    pub params: Vec<Param>,
    pub result: Option<Type>,
    /// Declared `async`; the host calls no such function.
    pub is_async: bool,
}

#[derive(Clone, Debug)]
pub struct Param {
    pub name: String,
    pub ty: Type,
}

/// A type with its names. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Type {
    Bool,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F32,
    F64,
    Char,
    String,
    List(Arc<Type>),
    Option(Arc<Type>),
    Tuple(Arc<[Type]>),
    Result(Arc<ResultType>),
    Record(Arc<Record>),
    Variant(Arc<Variant>),
    Enum(Arc<Enumeration>),
    Flags(Arc<Enumeration>),
    /// A named type that is another one, e.g. `uuid`; the innermost name of a chain of uses.
    Alias(Arc<Alias>),
    /// What is no plain value: handles, streams and the like. Says which.
    Opaque(&'static str),
}

#[derive(Clone, Debug)]
pub struct ResultType {
    pub ok: Option<Type>,
    pub err: Option<Type>,
}

#[derive(Clone, Debug)]
pub struct Record {
    /// The interface that defines it.
    pub interface: String,
    pub name: String,
    pub docs: Option<String>,
    pub fields: Vec<Field>,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    /// The name that clients use, where it is another one (see `changes.rs`).
    pub alias: Option<String>,
    /// What stands for it where it is missing, as JSON text.
    pub default: Option<String>,
    pub docs: Option<String>,
    /// Those of the field alone; its type may have more.
    pub bounds: Bounds,
    pub ty: Type,
}

#[derive(Clone, Debug)]
pub struct Variant {
    pub interface: String,
    pub name: String,
    pub docs: Option<String>,
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub docs: Option<String>,
    /// Of the value, which is no record then.
    pub bounds: Bounds,
    pub ty: Option<Type>,
}

/// The cases of an enum or the names of flags.
#[derive(Clone, Debug)]
pub struct Enumeration {
    pub interface: String,
    pub name: String,
    pub docs: Option<String>,
    pub cases: Vec<EnumerationCase>,
}

#[derive(Clone, Debug)]
pub struct EnumerationCase {
    pub name: String,
    pub docs: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Alias {
    pub interface: String,
    pub name: String,
    pub bounds: Bounds,
    pub target: Type,
}

/// The aliases of `echo:types/types` that mean more than what they stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Uuid,
    Timestamp,
    Phone,
    Cursor,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    #[error("this is no component that can be read: {0}")]
    NotAComponent(String),
    #[error("the WIT text cannot be read: {0}")]
    Text(String),
    #[error("{function}: {reason}")]
    Function { function: String, reason: String },
    /// A tag in the documentation that is none, or says nothing of what it stands on.
    #[error("{item}: {reason}")]
    Tag { item: String, reason: String },
}

impl Contract {
    /// Reads a component's bytes. `wit_text` is what `wit_text` made; docs are missing where there is none, or an empty one.
    pub fn decode(component: &[u8], wit_text: Option<&str>) -> Result<Self, ContractError> {
        // The decoder would take a core module for a component without exports.
        if wasmparser::Parser::is_core_wasm(component) {
            return Err(ContractError::NotAComponent("it is a core module".to_owned()));
        }
        let (resolve, world) = match decoding::decode(component) {
            Ok(DecodedWasm::Component(resolve, world)) => (resolve, world),
            Ok(DecodedWasm::WitPackage(..)) => return Err(ContractError::NotAComponent("it is a WIT package without code".to_owned())),
            Err(error) => return Err(ContractError::NotAComponent(format!("{error:#}"))),
        };
        let docs = wit_text.filter(|text| !text.trim().is_empty()).map(Docs::parse).transpose()?;
        let (documented, docs) = (docs.is_some(), &docs.unwrap_or_default());
        let types = Types::convert(&resolve, docs)?;
        let world = &resolve.worlds[world];
        let interfaces = |items: &mut dyn Iterator<Item = (&WorldKey, &WorldItem)>| {
            items.filter_map(|(key, item)| types.interface(&resolve, docs, key, item)).collect::<Vec<_>>()
        };
        Ok(Self { exports: interfaces(&mut world.exports.iter()), imports: interfaces(&mut world.imports.iter()), documented })
    }

    /// Whether its WIT text came with it: without, nothing is known of bounds.
    pub fn is_documented(&self) -> bool {
        self.documented
    }

    pub fn exports(&self) -> &[Interface] {
        &self.exports
    }

    /// All imports; only those of the namespace `echo` have their functions.
    pub fn imports(&self) -> &[Interface] {
        &self.imports
    }

    /// The exported `echo:<package>/<name>`.
    pub fn export(&self, package: &str, name: &str) -> Option<&Interface> {
        self.exports.iter().find(|interface| interface.namespace == NAMESPACE && interface.package == package && interface.name == name)
    }
}

impl Interface {
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }

    /// Whether functions of the other may stand in for this one's by name and version: same package, name, major and minor version.
    pub fn same_track(&self, other: &Interface) -> bool {
        self.same_name(other) && self.track() == other.track()
    }

    /// Same package and name, whatever the version.
    pub fn same_name(&self, other: &Interface) -> bool {
        (&self.namespace, &self.package, &self.name) == (&other.namespace, &other.package, &other.name)
    }

    fn track(&self) -> Option<&str> {
        self.version.as_deref().map(|version| version.rsplit_once('.').map_or(version, |(track, _patch)| track))
    }
}

impl Type {
    /// The type behind all aliases.
    pub fn structure(&self) -> &Type {
        match self {
            Type::Alias(alias) => alias.target.structure(),
            other => other,
        }
    }

    /// The type behind all aliases, and these bounds with theirs.
    pub fn bounded(&self, bounds: &Bounds) -> (&Type, Bounds) {
        let (mut ty, mut bounds) = (self, bounds.clone());
        while let Type::Alias(alias) = ty {
            (ty, bounds) = (&alias.target, bounds.and(&alias.bounds));
        }
        (ty, bounds)
    }

    /// What `echo:types/types` says the value means.
    pub fn meaning(&self) -> Option<Meaning> {
        let Type::Alias(alias) = self else { return None };
        if alias.interface != TYPES && !alias.interface.starts_with(TYPES_VERSIONED) {
            return None;
        }
        match (alias.name.as_str(), &alias.target) {
            ("uuid", Type::String) => Some(Meaning::Uuid),
            ("timestamp", Type::U64) => Some(Meaning::Timestamp),
            ("phone", Type::String) => Some(Meaning::Phone),
            ("cursor", Type::String) => Some(Meaning::Cursor),
            ("json", Type::String) => Some(Meaning::Json),
            _ => None,
        }
    }

    /// For people: `string`, `list<uuid>`, `record device`.
    pub fn describe(&self) -> String {
        let plain = match self {
            Type::Bool => "bool",
            Type::U8 => "u8",
            Type::U16 => "u16",
            Type::U32 => "u32",
            Type::U64 => "u64",
            Type::S8 => "s8",
            Type::S16 => "s16",
            Type::S32 => "s32",
            Type::S64 => "s64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::Char => "char",
            Type::String => "string",
            Type::Opaque(name) => name,
            Type::List(item) => return format!("list<{}>", item.describe()),
            Type::Option(inner) => return format!("option<{}>", inner.describe()),
            Type::Tuple(items) => return format!("tuple<{}>", items.iter().map(Type::describe).collect::<Vec<_>>().join(", ")),
            Type::Result(result) => {
                let side = |ty: &Option<Type>| ty.as_ref().map_or("_".to_owned(), Type::describe);
                return format!("result<{}, {}>", side(&result.ok), side(&result.err));
            }
            Type::Record(record) => return format!("record {}", record.name),
            Type::Variant(variant) => return format!("variant {}", variant.name),
            Type::Enum(cases) => return format!("enum {}", cases.name),
            Type::Flags(cases) => return format!("flags {}", cases.name),
            Type::Alias(alias) => &alias.name,
        };
        plain.to_owned()
    }
}

/// The WIT text, docs included, that travels in a packed file: the world of that name in the folder's main package, then every package
/// it needs in the nested form `package x:y@z { … }`.
pub fn wit_text(wit_dir: &Path, world: &str) -> Result<String, ContractError> {
    let mut resolve = Resolve::new();
    let (main, _) = resolve.push_dir(wit_dir).map_err(|error| ContractError::Text(format!("{error:#}")))?;
    if !resolve.packages[main].worlds.contains_key(world) {
        return Err(ContractError::Text(format!("there is no world {world:?} in package {}", resolve.packages[main].name)));
    }
    // The other worlds would drag in packages that this service has nothing to do with.
    resolve.packages[main].worlds.retain(|name, _| name == world);

    let mut needed = vec![main];
    let mut next = 0;
    while let Some(&package) = needed.get(next) {
        next += 1;
        for dependency in resolve.package_direct_deps(package) {
            if !needed.contains(&dependency) {
                needed.push(dependency);
            }
        }
    }
    let mut nested: Vec<PackageId> = needed.into_iter().skip(1).collect();
    nested.sort_by(|a, b| resolve.packages[*a].name.cmp(&resolve.packages[*b].name));
    let mut printer = WitPrinter::default();
    printer.print(&resolve, main, &nested).map_err(|error| ContractError::Text(format!("{error:#}")))?;
    Ok(printer.output.to_string())
}

const NAMESPACE: &str = "echo";
const TYPES: &str = "echo:types/types";
const TYPES_VERSIONED: &str = "echo:types/types@";

/// The resolve's types, converted once each, by their index.
struct Types(Vec<(Type, usize)>);

impl Types {
    /// The arena is sorted so that a type comes after those it is made of: no recursion, however deep a type is.
    fn convert(resolve: &Resolve, docs: &Docs) -> Result<Self, ContractError> {
        let mut types = Self(Vec::with_capacity(resolve.types.len()));
        for (_, definition) in resolve.types.iter() {
            let (ty, depth) = types.definition(resolve, docs, definition)?;
            if depth > limits::TYPE_DEPTH_MAX {
                return Err(ContractError::NotAComponent(format!("a type is nested deeper than {}", limits::TYPE_DEPTH_MAX)));
            }
            types.0.push((ty, depth));
        }
        Ok(types)
    }

    fn definition(&self, resolve: &Resolve, docs: &Docs, definition: &wit_parser::TypeDef) -> Result<(Type, usize), ContractError> {
        let name = definition.name.clone().unwrap_or_default();
        let interface = match definition.owner {
            TypeOwner::Interface(id) => interface_id(resolve, id),
            TypeOwner::World(_) | TypeOwner::None => String::new(),
        };
        let item_docs = |item: &str| docs.get(&interface, &format!("{name}.{item}"));
        let own_docs = || docs.get(&interface, &name);
        let checked = |item: &str, bounds: &Bounds, ty: &Type| {
            let tag = |reason| ContractError::Tag { item: format!("{interface} {item}"), reason };
            bounds.check_type(ty).map_err(tag)
        };
        let own_bounds = docs.note(&interface, &name).bounds;
        let mut depth = 0;
        let mut inner = |ty: &wit_parser::Type| {
            let (ty, inner_depth) = self.get(ty);
            depth = depth.max(inner_depth);
            ty
        };
        let ty = match &definition.kind {
            TypeDefKind::Record(record) => {
                let fields = record.fields.iter().map(|field| {
                    let item = format!("{name}.{}", field.name);
                    let (Note { text: docs, bounds }, ty) = (docs.note(&interface, &item), inner(&field.ty));
                    checked(&item, &bounds, &ty)?;
                    Ok(Field { name: field.name.clone(), alias: None, default: None, docs, bounds, ty })
                });
                let fields = fields.collect::<Result<_, ContractError>>()?;
                Type::Record(Arc::new(Record { docs: own_docs(), fields, interface: interface.clone(), name: name.clone() }))
            }
            TypeDefKind::Variant(variant) => {
                let cases = variant.cases.iter().map(|case| {
                    let item = format!("{name}.{}", case.name);
                    let (Note { text: docs, bounds }, ty) = (docs.note(&interface, &item), case.ty.as_ref().map(&mut inner));
                    // A case without a value has nothing that could keep bounds: as much as a record.
                    checked(&item, &bounds, ty.as_ref().unwrap_or(&Type::Opaque("no value")))?;
                    Ok(Case { name: case.name.clone(), docs, bounds, ty })
                });
                let cases = cases.collect::<Result<_, ContractError>>()?;
                Type::Variant(Arc::new(Variant { docs: own_docs(), cases, interface: interface.clone(), name: name.clone() }))
            }
            TypeDefKind::Enum(cases) => {
                let cases =
                    cases.cases.iter().map(|case| EnumerationCase { name: case.name.clone(), docs: item_docs(&case.name) }).collect();
                Type::Enum(Arc::new(Enumeration { docs: own_docs(), cases, interface: interface.clone(), name: name.clone() }))
            }
            TypeDefKind::Flags(flags) => {
                let cases =
                    flags.flags.iter().map(|flag| EnumerationCase { name: flag.name.clone(), docs: item_docs(&flag.name) }).collect();
                Type::Flags(Arc::new(Enumeration { docs: own_docs(), cases, interface: interface.clone(), name: name.clone() }))
            }
            TypeDefKind::Tuple(tuple) => Type::Tuple(tuple.types.iter().map(inner).collect()),
            TypeDefKind::Option(ty) => Type::Option(Arc::new(inner(ty))),
            TypeDefKind::List(ty) => Type::List(Arc::new(inner(ty))),
            TypeDefKind::Result(result) => {
                let (ok, err) = (result.ok.as_ref().map(&mut inner), result.err.as_ref().map(&mut inner));
                Type::Result(Arc::new(ResultType { ok, err }))
            }
            TypeDefKind::Type(target) => match inner(target) {
                // A `use`, or a name for a name: the first name is the one with the meaning.
                named @ (Type::Record(_) | Type::Variant(_) | Type::Enum(_) | Type::Flags(_) | Type::Alias(_)) => named,
                target => {
                    Type::Alias(Arc::new(Alias { interface: interface.clone(), name: name.clone(), bounds: Bounds::default(), target }))
                }
            },
            TypeDefKind::Resource => Type::Opaque("resource"),
            TypeDefKind::Handle(Handle::Own(_)) => Type::Opaque("own handle"),
            TypeDefKind::Handle(Handle::Borrow(_)) => Type::Opaque("borrowed handle"),
            TypeDefKind::Map(..) => Type::Opaque("map"),
            TypeDefKind::FixedLengthList(..) => Type::Opaque("fixed-length list"),
            TypeDefKind::Future(_) => Type::Opaque("future"),
            TypeDefKind::Stream(_) => Type::Opaque("stream"),
            TypeDefKind::Unknown => Type::Opaque("unknown"),
        };
        if own_bounds.is_empty() {
            return Ok((ty, depth + 1));
        }
        checked(&name, &own_bounds, &ty)?;
        let alias = match &ty {
            // It goes on meaning what the first name means.
            Type::Alias(first) => Alias { bounds: own_bounds.and(&first.bounds), ..(**first).clone() },
            _ => Alias { interface, name, bounds: own_bounds, target: ty },
        };
        Ok((Type::Alias(Arc::new(alias)), depth + 1))
    }

    fn get(&self, ty: &wit_parser::Type) -> (Type, usize) {
        let plain = match ty {
            wit_parser::Type::Bool => Type::Bool,
            wit_parser::Type::U8 => Type::U8,
            wit_parser::Type::U16 => Type::U16,
            wit_parser::Type::U32 => Type::U32,
            wit_parser::Type::U64 => Type::U64,
            wit_parser::Type::S8 => Type::S8,
            wit_parser::Type::S16 => Type::S16,
            wit_parser::Type::S32 => Type::S32,
            wit_parser::Type::S64 => Type::S64,
            wit_parser::Type::F32 => Type::F32,
            wit_parser::Type::F64 => Type::F64,
            wit_parser::Type::Char => Type::Char,
            wit_parser::Type::String => Type::String,
            wit_parser::Type::ErrorContext => Type::Opaque("error-context"),
            // A type that is not there yet would be a forward reference, which the arena's order rules out.
            wit_parser::Type::Id(id) => return self.0.get(id.index()).cloned().unwrap_or((Type::Opaque("unknown"), 0)),
        };
        (plain, 0)
    }

    fn interface(&self, resolve: &Resolve, docs: &Docs, key: &WorldKey, item: &WorldItem) -> Option<Interface> {
        let alone = |name: String| Interface {
            namespace: String::new(),
            package: String::new(),
            name: name.clone(),
            version: None,
            id: name,
            docs: None,
            functions: Vec::new(),
        };
        match item {
            WorldItem::Type { .. } => None,
            WorldItem::Function(function) => Some(alone(function.name.clone())),
            WorldItem::Interface { id, .. } => {
                let interface = &resolve.interfaces[*id];
                let (WorldKey::Interface(_), Some(name), Some(package)) = (key, &interface.name, interface.package) else {
                    return Some(alone(resolve.name_world_key(key)));
                };
                let package = &resolve.packages[package].name;
                let id = interface_id(resolve, *id);
                let functions = if package.namespace == NAMESPACE {
                    interface.functions.values().map(|function| self.function(docs, &id, function)).collect()
                } else {
                    Vec::new()
                };
                Some(Interface {
                    namespace: package.namespace.clone(),
                    package: package.name.clone(),
                    name: name.clone(),
                    version: package.version.as_ref().map(ToString::to_string),
                    docs: docs.get(&id, ""),
                    id,
                    functions,
                })
            }
        }
    }

    fn function(&self, docs: &Docs, interface: &str, function: &wit_parser::Function) -> Function {
        Function {
            name: function.name.clone(),
            docs: docs.get(interface, &function.name),
            params: function.params.iter().map(|param| Param { name: param.name.clone(), ty: self.get(&param.ty).0 }).collect(),
            result: function.result.as_ref().map(|ty| self.get(ty).0),
            is_async: matches!(
                function.kind,
                FunctionKind::AsyncFreestanding | FunctionKind::AsyncMethod(_) | FunctionKind::AsyncStatic(_)
            ),
        }
    }
}

fn interface_id(resolve: &Resolve, id: InterfaceId) -> String {
    resolve.id_of(id).unwrap_or_default()
}

#[cfg(test)]
mod tests;
