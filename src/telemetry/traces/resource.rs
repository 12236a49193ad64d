//! Who sends the traces, and what the environment says of that: the variables every OpenTelemetry exporter reads.
//!
//! | variable | what it does |
//! |---|---|
//! | `OTEL_SERVICE_NAME` | `service.name`, "flagstone" without it |
//! | `OTEL_RESOURCE_ATTRIBUTES` | further attributes, `key=value,key=value` |
//! | `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TRACES_HEADERS` | fields sent to the collector, in the same form; they may hold secrets |

use http::{HeaderName, HeaderValue};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// What `lookup` finds in the environment, over what is so anyway. `instance` tells this process from others.
pub(super) fn resource(instance: &str, lookup: impl Fn(&str) -> Option<String>) -> Resource {
    let mut attributes = vec![
        ("service.name".to_owned(), "flagstone".to_owned()),
        ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id".to_owned(), instance.to_owned()),
    ];
    let further = lookup("OTEL_RESOURCE_ATTRIBUTES").map(|text| pairs(&text)).unwrap_or_default();
    let name = lookup("OTEL_SERVICE_NAME").filter(|name| !name.is_empty());
    let name = name.map(|name| ("service.name".to_owned(), name));
    for (key, value) in further.into_iter().chain(name) {
        match attributes.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => attributes.push((key, value)),
        }
    }
    Resource {
        attributes: attributes.into_iter().map(|(key, value)| text(&key, value)).collect(),
        ..Resource::default()
    }
}

/// The fields that the environment wants sent; what cannot be one is left out.
pub(super) fn headers(lookup: impl Fn(&str) -> Option<String>) -> Vec<(HeaderName, HeaderValue)> {
    // One that is set to nothing counts as not set (OpenTelemetry specification, "Environment variables").
    let set = |name| lookup(name).filter(|text| !text.is_empty());
    let given = set("OTEL_EXPORTER_OTLP_TRACES_HEADERS").or_else(|| set("OTEL_EXPORTER_OTLP_HEADERS"));
    let all = given.map(|text| pairs(&text)).unwrap_or_default();
    let field = |(name, value): (String, String)| {
        let field = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(&value).ok());
        if field.is_none() {
            tracing::warn!(name, "a field of OTEL_EXPORTER_OTLP_HEADERS is left out: it cannot be sent");
        }
        field
    };
    all.into_iter().filter_map(field).collect()
}

/// `key=value,key=value`, values percent-encoded (the Baggage format).
fn pairs(text: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
    let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (decoded(key), decoded(value)));
    text.split(',').filter_map(pair).filter(|(key, _)| !key.is_empty()).collect()
}

pub(super) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

pub(super) fn number(key: &str, value: impl Into<i64>) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value.into()))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(resource: &Resource) -> Vec<(String, String)> {
        let value = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(any_value::Value::StringValue(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        resource.attributes.iter().map(|pair| (pair.key.clone(), value(pair))).collect()
    }

    #[test]
    fn the_environment_adds_and_overrides() {
        let plain = shown(&resource("1f", |_| None));
        assert_eq!(plain[0], ("service.name".into(), "flagstone".into()));
        assert_eq!(plain[2], ("service.instance.id".into(), "1f".into()));
        let full = shown(&resource("1f", |name| {
            Some(match name {
                "OTEL_SERVICE_NAME" => "shop edge".to_owned(),
                _ => "service.name=lost, deployment.environment.name = live%2Ceu,broken,=x".to_owned(),
            })
        }));
        assert_eq!(full[0], ("service.name".into(), "shop edge".into()));
        assert_eq!(full[3..], [("deployment.environment.name".into(), "live,eu".into())]);
    }

    #[test]
    fn fields_for_traces_stand_before_those_for_all_unless_they_are_empty() {
        let api_key = |of_traces: &str| {
            let set = |name: &str| match name {
                "OTEL_EXPORTER_OTLP_TRACES_HEADERS" => Some(of_traces.to_owned()),
                _ => Some("api-key=all".to_owned()),
            };
            headers(set)[0].1.clone()
        };
        assert_eq!((api_key("api-key=traces"), api_key("")), ("traces".parse().unwrap(), "all".parse().unwrap()));
    }

    #[test]
    fn fields_for_the_collector_are_read_and_nonsense_is_left_out() {
        let fields = headers(|name| {
            let text = "api-key=s%20t,bad name=x,x=a%0Ab";
            (name == "OTEL_EXPORTER_OTLP_HEADERS").then(|| text.to_owned())
        });
        assert_eq!(fields, [(HeaderName::from_static("api-key"), HeaderValue::from_static("s t"))]);
    }
}
