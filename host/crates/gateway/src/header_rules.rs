//! What the operator changes of headers, made ready for every request and answer. What may be changed, `route_settings` decides.

use http::{HeaderMap, HeaderName, HeaderValue};

use echo_runtime::route_settings::HeaderChanges;

#[derive(Debug)]
pub struct HeaderRules {
    remove: Box<[HeaderName]>,
    rename: Box<[(HeaderName, HeaderName)]>,
    set: Box<[(HeaderName, HeaderValue)]>,
}

impl HeaderRules {
    /// None where nothing changes. What is no header was refused with the settings.
    pub fn new(changes: &HeaderChanges) -> Option<Self> {
        let name = |text: &String| text.parse::<HeaderName>().ok();
        (!changes.is_empty()).then(|| Self {
            remove: changes.remove.iter().filter_map(name).collect(),
            rename: changes.rename.iter().filter_map(|(from, to)| Some((name(from)?, name(to)?))).collect(),
            set: changes.set.iter().filter_map(|(header, value)| Some((name(header)?, value.parse().ok()?))).collect(),
        })
    }

    pub fn apply(&self, headers: &mut HeaderMap) {
        self.remove.iter().for_each(|name| drop(headers.remove(name)));
        // All are taken before one is put back: two may change places.
        let taken: Vec<(&HeaderName, Vec<HeaderValue>)> = (self.rename.iter())
            .map(|(from, to)| (to, headers.get_all(from).iter().cloned().collect::<Vec<_>>()))
            .filter(|(_, values)| !values.is_empty())
            .collect();
        self.rename.iter().for_each(|(from, _)| drop(headers.remove(from)));
        for (to, values) in taken {
            headers.remove(to);
            for value in values {
                headers.append(to, value);
            }
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changes: &str, came: &[(&str, &str)], expect: &[(&str, &str)]) {
        let mut headers = HeaderMap::new();
        for (name, value) in came {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        HeaderRules::new(&toml::from_str(changes).unwrap()).unwrap().apply(&mut headers);
        let mut left: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, expect, "{changes}");
    }

    #[test]
    fn headers_are_removed_renamed_and_set_in_this_order() {
        check("remove = [\"X-A\"]", &[("x-a", "1"), ("x-a", "2"), ("x-b", "3")], &[("x-b", "3")]);
        check("rename = { X-A = \"X-B\" }", &[("x-a", "1"), ("x-a", "2"), ("x-b", "3")], &[("x-b", "1"), ("x-b", "2")]);
        check("rename = { X-A = \"X-B\" }", &[("x-b", "3")], &[("x-b", "3")]);
        check("rename = { X-A = \"X-B\", X-B = \"X-A\" }", &[("x-a", "1"), ("x-b", "2")], &[("x-a", "2"), ("x-b", "1")]);
        check("set = { X-A = \"new\" }", &[("x-a", "1"), ("x-a", "2")], &[("x-a", "new")]);
        check("rename = { X-A = \"X-B\" }\nset = { X-A = \"new\" }", &[("x-a", "1")], &[("x-a", "new"), ("x-b", "1")]);
        assert!(HeaderRules::new(&HeaderChanges::default()).is_none());
    }
}
