//! For tests: components without code, made from WIT.

use std::path::PathBuf;

use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, FunctionSection, ImportSection, MemorySection, MemoryType, Module, TypeSection,
    ValType,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmSignature, WasmType};
use wit_parser::{Resolve, WorldId, WorldItem};

use super::wit::{Contract, Function, wit_text};

/// The worlds of `wit/services.wit`.
pub const WORLDS: [&str; 5] = ["location", "auth", "user", "message", "notification"];

pub fn wit_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../wit")
}

/// A component of one of the repository's worlds, every function of which traps.
pub fn component(world: &str) -> Vec<u8> {
    let mut resolve = Resolve::new();
    let (package, _) = resolve.push_dir(wit_dir()).expect("the repository's WIT parses");
    let world = resolve.select_world(&[package], Some(world)).expect("the world is there");
    encode(&resolve, world)
}

pub fn contract(world: &str) -> Contract {
    let text = wit_text(&wit_dir(), world).expect("the repository's WIT prints");
    Contract::decode(&component(world), Some(&text)).expect("decodes")
}

/// A contract written in a test: the first package has the world, the others are nested.
pub fn contract_of(text: &str, world: &str) -> Contract {
    let mut resolve = Resolve::new();
    let package = resolve.push_source("test.wit", text).unwrap_or_else(|error| panic!("{}", resolve.render_error(&error)));
    let world = resolve.select_world(&[package], Some(world)).expect("the world is there");
    Contract::decode(&encode(&resolve, world), Some(text)).expect("decodes")
}

/// `body` is put into an interface `echo:thing/api` that uses all of `echo:types/types` of the repository.
pub fn thing(body: &str) -> Contract {
    let types = std::fs::read_to_string(wit_dir().join("deps/types/types.wit")).expect("readable");
    let types = types.replace("package echo:types@0.1.0;", "package echo:types@0.1.0 {");
    contract_of(
        &format!(
            "package echo:services@0.1.0; world t {{ export echo:thing/api@0.1.0; }} {types} }}
             package echo:thing@0.1.0 {{ interface api {{ use echo:types/types@0.1.0.{{uuid, timestamp, phone, cursor, json, error}}; {body} }} }}"
        ),
        "t",
    )
}

pub fn function<'a>(contract: &'a Contract, interface: &str, name: &str) -> &'a Function {
    let mut functions = contract.exports().iter().filter(|found| found.name == interface).flat_map(|found| &found.functions);
    functions.find(|function| function.name == name).expect("the function is there")
}

fn encode(resolve: &Resolve, world: WorldId) -> Vec<u8> {
    let mut module = core_module(resolve, world);
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).expect("embeds");
    ComponentEncoder::default().module(&module).expect("a module").validate(true).encode().expect("encodes")
}

/// A core module that imports and exports what the world wants; every body is `unreachable`.
fn core_module(resolve: &Resolve, world: WorldId) -> Vec<u8> {
    let (mut types, mut imports, mut functions, mut code) =
        (TypeSection::new(), ImportSection::new(), FunctionSection::new(), CodeSection::new());
    let mut exports = ExportSection::new();
    let world = &resolve.worlds[world];
    let mut imported = 0;
    for (key, item) in &world.imports {
        let WorldItem::Interface { id, .. } = item else { continue };
        for function in resolve.interfaces[*id].functions.values() {
            declare(&mut types, &resolve.wasm_signature(AbiVariant::GuestImport, function));
            imports.import(&resolve.name_world_key(key), &function.name, EntityType::Function(types.len() - 1));
            imported += 1;
        }
    }
    let mut define = |types: &mut TypeSection, name: &str| {
        functions.function(types.len() - 1);
        let mut body = wasm_encoder::Function::new([]);
        body.instructions().unreachable().end();
        code.function(&body);
        exports.export(name, ExportKind::Func, imported + functions.len() - 1);
    };
    for (key, item) in &world.exports {
        let WorldItem::Interface { id, .. } = item else { continue };
        for function in resolve.interfaces[*id].functions.values() {
            declare(&mut types, &resolve.wasm_signature(AbiVariant::GuestExport, function));
            define(&mut types, &format!("{}#{}", resolve.name_world_key(key), function.name));
        }
    }
    types.ty().function([ValType::I32; 4], [ValType::I32]);
    define(&mut types, "cabi_realloc");
    exports.export("memory", ExportKind::Memory, 0);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&memories).section(&exports).section(&code);
    module.finish()
}

fn declare(types: &mut TypeSection, signature: &WasmSignature) {
    let flat = |ty: &WasmType| match ty {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => ValType::I32,
        WasmType::I64 | WasmType::PointerOrI64 => ValType::I64,
        WasmType::F32 => ValType::F32,
        WasmType::F64 => ValType::F64,
    };
    types.ty().function(signature.params.iter().map(flat), signature.results.iter().map(flat));
}
