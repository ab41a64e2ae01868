//! For tests: contracts of the repository and of a test's own.

use echo_fixture::component::{Core, encode};
pub use echo_fixture::{WORLDS, component, wit_dir};
use wit_parser::Resolve;

use super::wit::{Contract, ContractError, Function, wit_text};

pub fn contract(world: &str) -> Contract {
    let text = wit_text(&wit_dir(), world).expect("the repository's WIT prints");
    Contract::decode(&component(world), Some(&text)).expect("decodes")
}

/// A contract written in a test: the first package has the world, the others are nested.
pub fn contract_of(text: &str, world: &str) -> Contract {
    Contract::decode(&written_component(text, world), Some(text)).unwrap_or_else(|error| panic!("{error}"))
}

/// The same without its text.
pub fn undocumented_contract_of(text: &str, world: &str) -> Contract {
    Contract::decode(&written_component(text, world), None).expect("decodes")
}

fn written_component(text: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::new();
    let package = resolve.push_source("test.wit", text).unwrap_or_else(|error| panic!("{}", resolve.render_error(&error)));
    let world = resolve.select_world(&[package], Some(world)).expect("the world is there");
    encode(&resolve, world, &Core::default())
}

/// `body` is put into an interface `echo:thing/api` that uses all of `echo:types/types` of the repository.
pub fn thing(body: &str) -> Contract {
    try_thing(body).unwrap_or_else(|error| panic!("{error}"))
}

pub fn try_thing(body: &str) -> Result<Contract, ContractError> {
    let types = std::fs::read_to_string(wit_dir().join("deps/types/types.wit")).expect("readable");
    let types = types.replace("package echo:types@0.1.0;", "package echo:types@0.1.0 {");
    let text = format!(
        "package echo:services@0.1.0; world t {{ export echo:thing/api@0.1.0; }} {types} }}
         package echo:thing@0.1.0 {{ interface api {{ use echo:types/types@0.1.0.{{uuid, timestamp, phone, cursor, json, error}};
         {body} }} }}"
    );
    Contract::decode(&written_component(&text, "t"), Some(&text))
}

pub fn function<'a>(contract: &'a Contract, interface: &str, name: &str) -> &'a Function {
    let mut functions = contract.exports().iter().filter(|found| found.name == interface).flat_map(|found| &found.functions);
    functions.find(|function| function.name == name).expect("the function is there")
}
