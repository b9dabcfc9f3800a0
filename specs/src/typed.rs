//! From a node of YAML to a typed value.

use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;

use crate::{
    problem::{Level, Problem},
    structure,
    yaml::Node,
};

/// The node as a `T`. What has no value is taken for left out.
///
/// # Errors
/// Every mistake of structure, at its place.
pub fn read<T: DeserializeOwned + JsonSchema>(node: &Node) -> Result<T, Vec<Problem>> {
    let problems = structure::check(node, schema_for!(T).as_value());
    if problems.iter().any(|problem| problem.level == Level::Error) {
        return Err(problems);
    }
    // What the schema doesn't see, the type still may.
    serde_path_to_error::deserialize(node.without_nulls().to_json()).map_err(|error| {
        let field = match error.path().to_string().as_str() {
            "." => String::new(),
            path => path.trim_end_matches(".?").to_owned(),
        };
        vec![Problem::error(node.find(&field).span.clone(), field, error.inner().to_string())]
    })
}

/// The only document of a text that is well formed, for tests of what works on nodes.
#[cfg(test)]
pub(crate) fn node(text: &str) -> Node {
    let read = crate::yaml::read(text);
    assert_eq!(read.problems, [], "{text}");
    let mut documents = read.documents.into_iter();
    let (Some(document), None) = (documents.next(), documents.next()) else { panic!("not one document: {text}") };
    document
}

#[cfg(test)]
mod tests {
    use super::{node, read};

    #[test]
    fn every_mistake_is_told_at_its_place() {
        let text = "{apiVersion: knark.dev/v1alpha1, kind: TracePolicy, metadata: {name: a}, spec: {rules: [{name: b, file: {ops: [chmood], pats: []}}]}}";
        let problems = read::<crate::policy::TracePolicy>(&node(text)).unwrap_err();
        let places: Vec<_> = problems.iter().map(|problem| &text[problem.span.clone()]).collect();
        assert_eq!(places, ["chmood", "pats"]);
    }
}
