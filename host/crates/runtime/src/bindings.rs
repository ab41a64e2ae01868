//! Resolves a manifest's bindings: the exported function behind each route, frame, schedule, topic and the probe, with its codecs compiled. Knows no engine and no other services.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::catalogue::{BoundFunction, Export, Subscription};
use super::frames::FrameBinding;
use super::linking::{Role, role_of};
use super::manifest::{Manifest, Route, Schedule, Socket};
use echo_base::names::ServiceName;
use echo_contract::codec::{EventCodec, ReplyCodec, RequestCodec, Source};
use echo_contract::secrets::undeclared;
use echo_contract::wit::{Contract, Interface};

/// Each binding is an index into `exports` or `calls`.
pub struct Bindings {
    pub exports: Vec<Export>,
    pub api: HashMap<String, usize>,
    pub calls: Vec<BoundFunction>,
    pub routes: Vec<(Arc<Route>, usize)>,
    pub sockets: Vec<(Socket, usize)>,
    pub schedules: Vec<(Schedule, usize)>,
    pub topics: HashMap<String, Subscription>,
    pub probe: Option<(usize, ReplyCodec)>,
    /// By interface and function: `echo:message/pushes@0.1.0`, `typing`.
    pub frames: HashMap<(String, String), Arc<FrameBinding>>,
}

impl Bindings {
    /// Errors: every binding that names no exported function, or one of the wrong shape.
    pub fn find(manifest: &Manifest, contract: &Contract, service: &ServiceName) -> Result<Self, Vec<String>> {
        let mut reasons = Vec::new();
        let mut found = Bindings {
            exports: Vec::new(),
            api: HashMap::new(),
            calls: Vec::new(),
            routes: Vec::new(),
            sockets: Vec::new(),
            schedules: Vec::new(),
            topics: HashMap::new(),
            probe: None,
            frames: HashMap::new(),
        };
        let api = contract.exports().iter().find(|export| role_of(export) == Role::ServiceApi && export.package == service.as_str());
        let Some(api) = api else {
            return Err(vec![format!("it does not export echo:{service}/api")]);
        };
        for function in &api.functions {
            found.api.insert(function.name.clone(), found.exports.len());
            found.exports.push(Export::new(&api.id, function));
        }
        found.bind_topics(manifest, contract, &mut reasons);
        found.bind_frames(manifest, contract, &mut reasons);
        for route in &manifest.routes {
            let source = if matches!(route.method(), "GET" | "DELETE") { Source::Query } else { Source::Body };
            let flag = route.status_unless.as_ref().map(|unless| unless.field.as_str());
            match found.bind_call(api, &route.call, &route.variables(), source, flag) {
                Ok(call) => {
                    if route.secret_answer.is_none() && route.keeps_answers() {
                        reasons.extend(api.function(&route.call).and_then(|function| undeclared(&route.http, function)));
                    }
                    found.routes.push((Arc::new(route.clone()), call));
                }
                Err(reason) => reasons.push(format!("route {:?}: {reason}", route.http)),
            }
        }
        for socket in &manifest.sockets {
            match found.bind_call(api, &socket.call, &[], Source::Json, None) {
                Ok(call) => found.sockets.push((socket.clone(), call)),
                Err(reason) => reasons.push(format!("socket {:?}: {reason}", socket.event)),
            }
        }
        for schedule in &manifest.schedules {
            match found.without_parameters(api, &schedule.call) {
                Ok((export, _)) => found.schedules.push((schedule.clone(), export)),
                Err(reason) => reasons.push(format!("schedule: {reason}")),
            }
        }
        if let Some(probe) = &manifest.probe {
            match found.without_parameters(api, probe) {
                Ok(probe) => found.probe = Some(probe),
                Err(reason) => reasons.push(format!("probe: {reason}")),
            }
        }
        if reasons.is_empty() { Ok(found) } else { Err(reasons) }
    }

    fn bind_call(&mut self, api: &Interface, name: &str, variables: &[&str], source: Source, flag: Option<&str>) -> Result<usize, String> {
        let function = api.function(name).ok_or_else(|| format!("{} has no function {name}", api.id))?;
        let request = RequestCodec::compile(function, variables, source).map_err(|error| error.to_string())?;
        let reply = ReplyCodec::compile(function, flag).map_err(|error| error.to_string())?;
        self.calls.push(BoundFunction { export: self.api[name], request, reply });
        Ok(self.calls.len() - 1)
    }

    fn without_parameters(&self, api: &Interface, name: &str) -> Result<(usize, ReplyCodec), String> {
        let function = api.function(name).ok_or_else(|| format!("{} has no function {name}", api.id))?;
        if !function.params.is_empty() {
            return Err(format!("{name} takes a parameter, and the host has none to give"));
        }
        Ok((self.api[name], ReplyCodec::compile(function, None).map_err(|error| error.to_string())?))
    }

    /// A frame for every function of the imported `pushes` interfaces.
    fn bind_frames(&mut self, manifest: &Manifest, contract: &Contract, reasons: &mut Vec<String>) {
        let mut bound = HashSet::new();
        for interface in contract.imports().iter().filter(|import| role_of(import) == Role::ServicePushes) {
            for function in &interface.functions {
                let Some(frame) = manifest.frames.iter().find(|frame| frame.call == function.name) else {
                    reasons.push(format!("{} {}: the manifest has no [[push]] with this call", interface.id, function.name));
                    continue;
                };
                bound.insert(frame.call.as_str());
                match FrameBinding::find(frame, function) {
                    Ok(binding) => {
                        self.frames.insert((interface.id.clone(), function.name.clone()), Arc::new(binding));
                    }
                    Err(reason) => reasons.push(format!("push {:?}: {reason}", frame.call)),
                }
            }
        }
        let unbound = manifest.frames.iter().filter(|frame| !bound.contains(frame.call.as_str()));
        reasons.extend(unbound.map(|frame| format!("push {:?}: no imported pushes interface has this function", frame.call)));
    }

    /// A topic for every function of the exported `events` interfaces, or for those that the manifest names.
    fn bind_topics(&mut self, manifest: &Manifest, contract: &Contract, reasons: &mut Vec<String>) {
        let mut offered: BTreeMap<String, Subscription> = BTreeMap::new();
        for interface in contract.exports().iter().filter(|export| role_of(export) == Role::ServiceEvents) {
            for function in &interface.functions {
                match EventCodec::compile(function).and_then(|codec| Ok((codec, ReplyCodec::compile(function, None)?))) {
                    Ok((codec, reply)) => {
                        let topic = format!("{}.{}", interface.package, function.name);
                        let gathers = manifest.events.gather.contains(&topic);
                        if gathers && !codec.gathers() {
                            reasons.push(format!("events.gather names {topic}, whose record is not a list named items alone"));
                        }
                        offered.insert(topic, Subscription { export: self.exports.len(), codec, reply, gathers });
                    }
                    Err(error) => reasons.push(format!("{} {}: {error}", interface.id, function.name)),
                }
                self.exports.push(Export::new(&interface.id, function));
            }
        }
        let unknown = manifest.events.gather.iter().filter(|topic| !offered.contains_key(*topic));
        reasons.extend(unknown.map(|topic| format!("events.gather names {topic}, and no exported events interface has it")));
        match &manifest.events.subscribe {
            None => self.topics.extend(offered),
            Some(wanted) => {
                for topic in wanted {
                    match offered.remove(topic) {
                        Some(subscription) => drop(self.topics.insert(topic.clone(), subscription)),
                        None => reasons.push(format!("events.subscribe names {topic}, and no exported events interface has it")),
                    }
                }
            }
        }
    }
}
