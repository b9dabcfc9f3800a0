//! What is in a request's or response's body: JSON of whatever shape.

use serde_json::{Map, Value};

use super::{Field, List};

/// A value; null is as good as absent, as it is to the API server.
pub(super) fn field(value: &Value) -> Option<Field<'_>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => Field::Bool(*value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| number.as_f64().map(Field::Double), |int| Some(Field::Int(int)))?
        }
        Value::String(text) => Field::Text(text),
        Value::Array(items) => Field::List(List::Json(items)),
        Value::Object(map) => Field::Json(map),
    })
}

/// What an object has under a key.
pub(in crate::cel) fn member<'e>(map: &'e Map<String, Value>, key: &str) -> Option<Field<'e>> {
    map.get(key).and_then(field)
}

/// What stands at a dotted path below an object.
pub(super) fn below<'e>(mut map: &'e Map<String, Value>, path: &str) -> Option<Field<'e>> {
    let mut keys = path.split('.').peekable();
    loop {
        match member(map, keys.next()?)? {
            found if keys.peek().is_none() => return Some(found),
            Field::Json(next) => map = next,
            _ => return None,
        }
    }
}
