//! Who cites which sentence: the code that enforces it, and the tests, vectors and behaviours that test it.

use super::page::is_id;

/// What a citation says of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The code obeys it, or makes others obey it.
    Enforces,
    /// A test shows that it holds.
    Test,
    /// A vector is about it.
    Vector,
    /// A behaviour of the runner tests it.
    Behaviour,
    /// Another implementation names it, which says nothing of ours.
    Other,
}

/// A place that cites a sentence, or a section of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Citation {
    /// An id, or a place such as `protocol-spec/05-channels.md#closing`.
    pub what: String,
    /// What it says.
    pub role: Role,
    /// The file and the line.
    pub place: String,
}

/// The behaviours of the runner. Any string there that is an id says what a behaviour tests; a test of the runner's own
/// sees to it that all that they name are ids.
const BEHAVIOURS: &str = "conformance/src/runner/behaviours/";

/// The citations in a source file: `path` from the root of the repository, with `/` between its parts.
pub(super) fn of_source(path: &str, text: &str) -> (Vec<Citation>, Vec<String>) {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    let mut role = role_of(path);
    for (at, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", at + 1);
        let cite = |what: &str, role| Citation { what: what.to_owned(), role, place: place.clone() };
        // Unit tests stand at the end of their file, if they have none of their own.
        if line == "mod tests {" && role == Role::Enforces {
            role = Role::Test;
        }
        if let Some(cited) = line.trim_start().strip_prefix("//= ") {
            for what in cited.split(',').map(str::trim) {
                if is_id(what) {
                    found.push(cite(what, role));
                } else if !what.starts_with("protocol-spec/") {
                    faults.push(format!("{place}: `{what}` is no id"));
                }
            }
        }
        if path.starts_with(BEHAVIOURS) {
            let quoted = line.split('"').skip(1).step_by(2);
            found.extend(quoted.filter(|what| is_id(what)).map(|id| cite(id, Role::Behaviour)));
        }
        found.extend(places(line).map(|what| cite(what, Role::Other)));
    }
    (found, faults)
}

/// The citations in a file of vectors: whatever stands in an array called `must`.
pub(super) fn of_vectors(path: &str, value: &serde_json::Value) -> (Vec<Citation>, Vec<String>) {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    collect(path, value, &mut found, &mut faults);
    (found, faults)
}

fn collect(path: &str, value: &serde_json::Value, found: &mut Vec<Citation>, faults: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(path, item, found, faults)),
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                if name != "must" {
                    collect(path, value, found, faults);
                    continue;
                }
                for what in value.as_array().into_iter().flatten().filter_map(|what| what.as_str()) {
                    match is_id(what) {
                        true => found.push(Citation {
                            what: what.to_owned(),
                            role: Role::Vector,
                            place: path.to_owned(),
                        }),
                        false => faults.push(format!("{path}: `{what}` is no id")),
                    }
                }
            }
        }
        _ => {}
    }
}

fn role_of(path: &str) -> Role {
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
    match path.split('/').next() {
        Some("conformance") if path.ends_with(".js") || path.ends_with(".mjs") => Role::Other,
        Some("conformance") => Role::Test,
        Some("party" | "apps") if is_test => Role::Test,
        Some("party" | "apps") => Role::Enforces,
        _ => Role::Other,
    }
}

/// The places of the specification that a line names, whatever kind of line it is.
fn places(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("protocol-spec/").filter_map(|(at, start)| {
        let rest = &line[at + start.len()..];
        let of_file = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let stem = rest.find(|c| !of_file(c))?;
        let kind = [".md", ".proto"].into_iter().find(|kind| rest[stem..].starts_with(kind))?;
        let end = stem + kind.len();
        let anchor = rest[end..]
            .strip_prefix('#')
            .map_or(0, |anchor| anchor.find(|c| !of_file(c)).unwrap_or(anchor.len()) + 1);
        (stem > 0).then(|| &line[at..at + start.len() + end + anchor])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cited(path: &str, text: &str) -> Vec<(String, Role)> {
        of_source(path, text).0.into_iter().map(|citation| (citation.what, citation.role)).collect()
    }

    #[test]
    fn code_enforces_until_its_tests_begin() {
        let text = "#[cfg(test)]\nmod more;\n    //= MUX-1, MUX-2\nfn a() {}\n#[cfg(test)]\nmod tests {\n//= MUX-1\n}\n";
        let expected = [("MUX-1", Role::Enforces), ("MUX-2", Role::Enforces), ("MUX-1", Role::Test)];
        assert_eq!(cited("party/src/mux/mod.rs", text), expected.map(|(id, role)| (id.to_owned(), role)));
        assert_eq!(cited("party/src/mux/tests/bounds.rs", "//= MUX-1"), [("MUX-1".to_owned(), Role::Test)]);
        assert_eq!(cited("party/tests/rules.rs", "//= MUX-1"), [("MUX-1".to_owned(), Role::Test)]);
        assert_eq!(
            cited("conformance/node/party/opens.js", "//= MUX-1"),
            [("MUX-1".to_owned(), Role::Other)]
        );
    }

    #[test]
    fn behaviours_and_vectors_name_what_they_test() {
        let text =
            r#"behaviour!(AREA, "closed", "A closed channel stays closed.", ["MUX-1", "MUX-2"], [], run)"#;
        assert!(cited("conformance/src/runner/scene.rs", text).is_empty());
        let behaviours = cited("conformance/src/runner/behaviours/mux.rs", text);
        assert_eq!(behaviours, ["MUX-1", "MUX-2"].map(|id| (id.to_owned(), Role::Behaviour)));
        let vectors = serde_json::json!({ "scenarios": [{ "must": ["ENC-1"] }, { "must": ["ENC-x"] }] });
        let (found, faults) = of_vectors("a.json", &vectors);
        assert_eq!((found[0].what.as_str(), found[0].role, found.len()), ("ENC-1", Role::Vector, 1));
        assert_eq!(faults, ["a.json: `ENC-x` is no id"]);
    }

    #[test]
    fn what_is_no_id_is_found() {
        assert_eq!(of_source("party/src/a.rs", "//= MUX-01").1, ["party/src/a.rs:1: `MUX-01` is no id"]);
    }

    #[test]
    fn places_are_found_in_any_line() {
        let text =
            "//! See `protocol-spec/02-encoding.md#trees`, protocol-spec/party.proto and protocol-spec/.";
        let expected = ["protocol-spec/02-encoding.md#trees", "protocol-spec/party.proto"];
        assert_eq!(cited("party/src/a.rs", text), expected.map(|what| (what.to_owned(), Role::Other)));
    }
}
