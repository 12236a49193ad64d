//! The schema of the file: as text for people and editors, and in a form to walk.

use std::sync::LazyLock;

use serde_json::{Map, Value};

/// The schema as people and editors read it.
pub(super) fn schema() -> Value {
    serde_json::from_str(schema_text()).expect("a test reads it")
}

/// As the types of [`super::raw`] have it; a test makes it from them and compares. Making it here takes much code.
fn schema_text() -> &'static str {
    flagstone_assets::text("schema.json")
}

/// The schema with nothing by reference, for walking. What a variable may stand for is not in it: they are expanded first.
pub(super) static INLINE: LazyLock<Value> = LazyLock::new(|| {
    let Value::Object(mut root) = narrowed(schema()) else { return Value::Null };
    let definitions = root.remove("$defs").unwrap_or_default();
    inlined(Value::Object(root), &definitions)
});

/// What a text with a variable in it looks like: `"${WORKERS:-0}"` may stand where a number belongs.
const VARIABLE: &str = r"\$\{";

/// Without the texts with variables that the schema has everywhere.
fn narrowed(schema: Value) -> Value {
    let mut object = match schema {
        Value::Object(object) => object,
        Value::Array(list) => return list.into_iter().map(narrowed).collect(),
        plain => return plain,
    };
    if object.get("pattern").is_some_and(|pattern| pattern == VARIABLE) {
        object.remove("pattern");
        if let Some(Value::Array(kinds)) = object.get_mut("type") {
            kinds.retain(|kind| kind != "string");
            if let [only] = &kinds[..] {
                object["type"] = only.clone();
            }
        }
    }
    let words = object.get("anyOf").and_then(Value::as_array).filter(|each| each.len() == 2);
    if let Some(words) = words.filter(|each| each[1]["pattern"] == VARIABLE).map(|each| each[0].clone()) {
        object.remove("anyOf");
        fill(&mut object, &words);
    }
    Value::Object(object.into_iter().map(|(key, value)| (key, narrowed(value))).collect())
}

/// With what is referred to in place of the reference. What stands beside a reference goes before what it refers to.
fn inlined(schema: Value, definitions: &Value) -> Value {
    match schema {
        Value::Object(mut object) => {
            if let Some(Value::String(reference)) = object.remove("$ref") {
                let name = reference.trim_start_matches("#/$defs/");
                fill(&mut object, &definitions[name]);
                return inlined(Value::Object(object), definitions);
            }
            let each = object.into_iter().map(|(key, value)| (key, inlined(value, definitions)));
            or_null(each.collect())
        }
        Value::Array(list) => list.into_iter().map(|value| inlined(value, definitions)).collect(),
        plain => plain,
    }
}

/// "This, or null" is written as this, with one kind of value more.
fn or_null(mut object: Map<String, Value>) -> Value {
    if let Some([this, null]) = object.get("anyOf").and_then(Value::as_array).map(Vec::as_slice)
        && null["type"] == "null"
    {
        let kinds = this["type"].as_array().cloned().unwrap_or_else(|| vec![this["type"].clone()]);
        let (this, kinds) = (this.clone(), kinds.into_iter().chain([Value::from("null")]).collect());
        object.remove("anyOf");
        object.insert("type".to_owned(), kinds);
        fill(&mut object, &this);
    }
    Value::Object(object)
}

/// Puts in what is not there yet.
fn fill(object: &mut Map<String, Value>, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        object.entry(key).or_insert_with(|| value.clone());
    }
}

#[cfg(test)]
mod tests {
    use schemars::Schema;
    use schemars::generate::SchemaSettings;
    use schemars::transform::RecursiveTransform;

    use super::super::raw;
    use super::*;

    /// With texts with variables wherever they may stand for something else.
    fn widened(schema: Value) -> Value {
        let mut object = match schema {
            Value::Object(object) => object,
            Value::Array(list) => return list.into_iter().map(widened).collect(),
            plain => return plain,
        };
        let kinds = match &object.get("type") {
            Some(Value::Array(kinds)) => kinds.clone(),
            kind => kind.iter().copied().cloned().collect(),
        };
        let is_plain = kinds.iter().any(|kind| ["integer", "number", "boolean"].iter().any(|plain| kind == plain));
        if is_plain && !kinds.iter().any(|kind| kind == "string") {
            object["type"] = kinds.into_iter().chain(["string".into()]).collect();
            object.insert("pattern".to_owned(), VARIABLE.into());
        }
        let words = object.remove("enum");
        let mut object: Map<String, Value> = object.into_iter().map(|(key, value)| (key, widened(value))).collect();
        if let Some(words) = words {
            let words = serde_json::json!([{ "enum": words }, { "pattern": VARIABLE }]);
            object.insert("anyOf".to_owned(), words);
        }
        Value::Object(object)
    }

    /// Where nothing narrower is said, a number may be as large as its type has room for.
    fn settings() -> SchemaSettings {
        let bounded = |schema: &mut Schema| {
            if schema.get("format").is_some_and(|format| format == "uint32") && schema.get("maximum").is_none() {
                schema.insert("maximum".to_owned(), u32::MAX.into());
            }
        };
        SchemaSettings::draft2020_12().with_transform(RecursiveTransform(bounded))
    }

    /// `FLAGSTONE_TESTS_WRITE=1` writes what the program has as text.
    #[test]
    fn the_schema_is_that_of_the_types() {
        let schema = settings().into_generator().into_root_schema_for::<raw::File>();
        let schema = Schema::try_from(widened(schema.to_value())).unwrap();
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("FLAGSTONE_TESTS_WRITE").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../../static/schema.json"), &text).unwrap();
            return;
        }
        assert!(
            text == schema_text(),
            "run this test with FLAGSTONE_TESTS_WRITE=1, which writes static/schema.json anew"
        );
    }

    #[test]
    fn references_are_followed_as_the_generator_does() {
        let settings = settings().with(|settings| settings.inline_subschemas = true);
        let expected = settings.into_generator().into_root_schema_for::<raw::File>().to_value();
        assert_eq!(serde_json::to_string_pretty(&*INLINE).unwrap(), serde_json::to_string_pretty(&expected).unwrap());
    }
}
