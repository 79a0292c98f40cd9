//! How much a JSON Schema grows when it is made ready: the library copies what is to be true together for each of the
//! ways in which it may be, and looks at no bound of its own before.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::error::GrammarError;

/// Parts of a schema that are copied in all; each takes some 300 bytes.
const MOST_COPIES: u64 = 300_000;
/// Ways of one `oneOf`: each is compared with each other.
const MOST_WAYS: usize = 1000;

/// What may be each for itself.
const EITHER: [&str; 2] = ["anyOf", "oneOf"];
/// What says something of a document by itself, beside what is combined.
const OWN: [&str; 24] = [
    "type",
    "enum",
    "const",
    "properties",
    "patternProperties",
    "additionalProperties",
    "required",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "propertyNames",
];

/// Refuses a schema that would grow too much.
pub(crate) fn check(schema: &Value) -> Result<(), GrammarError> {
    let mut estimate = Estimate { whole: schema, known: HashMap::new(), open: HashSet::new(), copies: 0 };
    estimate.of(schema)?;
    match estimate.copies {
        ..=MOST_COPIES => Ok(()),
        _ => {
            let what = "it combines too much: fewer or smaller alternatives in anyOf, oneOf and allOf";
            Err(GrammarError::Invalid(what.into()))
        }
    }
}

/// What a schema is for one that combines it with others.
#[derive(Clone, Copy)]
struct Shape {
    /// Ways in which it may be true, of itself or of what is in it.
    ways: u64,
    /// Parts.
    size: u64,
}

struct Estimate<'a> {
    whole: &'a Value,
    /// Of what is referred to.
    known: HashMap<&'a str, Shape>,
    /// References that are being followed.
    open: HashSet<&'a str>,
    copies: u64,
}

impl<'a> Estimate<'a> {
    fn of(&mut self, schema: &'a Value) -> Result<Shape, GrammarError> {
        let Value::Object(members) = schema else { return self.of_list(schema) };
        let mut parts = vec![];
        for key in EITHER {
            let Some(Value::Array(options)) = members.get(key) else { continue };
            if key == "oneOf" && options.len() > MOST_WAYS {
                let what = format!("oneOf has {} alternatives, at most {MOST_WAYS} are taken", options.len());
                return Err(GrammarError::Invalid(what));
            }
            let mut all = Shape { ways: 0, size: 1 };
            for option in options {
                let Shape { ways, size } = self.of(option)?;
                all = Shape { ways: all.ways.saturating_add(ways), size: all.size.saturating_add(size) };
            }
            parts.push(Shape { ways: all.ways.max(1), ..all });
        }
        if let Some(Value::Array(together)) = members.get("allOf") {
            for part in together {
                parts.push(self.of(part)?);
            }
        }
        if let Some(Value::String(reference)) = members.get("$ref") {
            parts.push(self.referred(reference)?);
        }
        let own = self.own(members)?;
        if OWN.iter().any(|key| members.contains_key(*key)) {
            parts.push(own);
        }
        Ok(self.combined(&parts, own))
    }

    /// What a schema says by itself: as many ways as the part of it that has most.
    fn own(&mut self, members: &'a Map<String, Value>) -> Result<Shape, GrammarError> {
        let mut own = Shape { ways: 1, size: 1 };
        for (key, value) in members {
            if EITHER.contains(&key.as_str()) || matches!(key.as_str(), "allOf" | "$ref" | "x-guidance") {
                continue;
            }
            let Shape { ways, size } = self.of(value)?;
            own = Shape { ways: own.ways.max(ways), size: own.size.saturating_add(size) };
        }
        Ok(own)
    }

    fn of_list(&mut self, value: &'a Value) -> Result<Shape, GrammarError> {
        let mut all = Shape { ways: 1, size: 1 };
        for value in value.as_array().into_iter().flatten() {
            let Shape { ways, size } = self.of(value)?;
            all = Shape { ways: all.ways.max(ways), size: all.size.saturating_add(size) };
        }
        Ok(all)
    }

    fn combined(&mut self, parts: &[Shape], own: Shape) -> Shape {
        let size = parts.iter().fold(1u64, |sum, part| sum.saturating_add(part.size)).max(own.size);
        let ways = parts.iter().fold(1u64, |product, part| product.saturating_mul(part.ways));
        if parts.len() > 1 {
            self.copies = self.copies.saturating_add(ways.saturating_mul(size));
        }
        Shape { ways: ways.max(own.ways), size }
    }

    fn referred(&mut self, reference: &'a str) -> Result<Shape, GrammarError> {
        if let Some(shape) = self.known.get(reference) {
            return Ok(*shape);
        }
        let target = reference.strip_prefix('#').and_then(|pointer| self.whole.pointer(pointer));
        // What leads back to itself is not copied again; what leads to nothing the library refuses.
        let (Some(target), true) = (target, self.open.insert(reference)) else {
            return Ok(Shape { ways: 1, size: 1 });
        };
        let shape = self.of(target)?;
        self.open.remove(reference);
        self.known.insert(reference, shape);
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_combined_counts_by_its_ways_and_its_size() {
        let many = |count: usize, option: Value| json!({"anyOf": vec![option; count]});
        let wide: Map<String, Value> = (0..4000).map(|n| (format!("p{n}"), json!(true))).collect();
        let grows = json!({
            "allOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}],
            "$defs": {
                "a": many(140, json!({"type": "array"})),
                "b": {"type": "array", "items": {"properties": wide}},
            },
        });
        assert!(check(&grows).is_err());
        let beside = json!({"properties": wide, "anyOf": vec![json!({"required": ["p1"]}); 500]});
        assert!(check(&beside).is_err());
        assert!(check(&json!({"oneOf": vec![json!({"type": "null"}); MOST_WAYS + 1]})).is_err());
    }

    #[test]
    fn what_people_write_is_taken() {
        let shape = |kind: &str| json!({"type": "object", "properties": {"kind": {"const": kind}, "size": {"type": "integer"}}});
        let union = json!({"anyOf": (0..50).map(|n| shape(&n.to_string())).collect::<Vec<_>>()});
        assert!(check(&union).is_ok());
        let wide: Map<String, Value> = (0..500).map(|n| (format!("p{n}"), union.clone())).collect();
        assert!(check(&json!({"type": "object", "properties": wide})).is_ok(), "nothing is combined");
        let tree = json!({
            "$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}}},
            "allOf": [{"$ref": "#/$defs/node"}], "description": "a list",
        });
        assert!(check(&tree).is_ok());
        assert!(check(&json!({"$ref": "#"})).is_ok(), "the library refuses it");
    }
}
