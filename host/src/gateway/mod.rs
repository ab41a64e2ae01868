//! The HTTP edge: layers, identity, dispatch, problem+json. Knows no SQL, no wasmtime and no domain noun.
