//! Checking an object against its schema, in kube-apiserver's words.

use serde_json::{Number, Value};

use super::{Additional, Bound, Checks, FieldPath, Format, ListType, Schema, Type, keyed, list_key};
use crate::fields::gotext;
use crate::status::{FieldError, FieldErrorKind};

/// Errors reported for one object at most; the rest would not be read.
pub(crate) const ERRORS_MAX: usize = 64;

impl Schema {
    /// Everything that is wrong with `value`. A part that is equal in `old` is not looked at again, so that an object
    /// stored under an older schema can still be changed elsewhere (validation ratcheting).
    pub(crate) fn validate(&self, value: &Value, old: Option<&Value>, path: &str) -> Vec<FieldError> {
        let mut walk = Walk { path: FieldPath::at(path), errors: Vec::new() };
        walk.node(self, value, old);
        walk.errors.truncate(ERRORS_MAX);
        walk.errors
    }

    /// Items that a set or map list holds twice.
    pub(crate) fn duplicates(&self, value: &Value, path: &str) -> Vec<FieldError> {
        let mut walk = Walk { path: FieldPath::at(path), errors: Vec::new() };
        walk.duplicates(self, value);
        walk.errors.truncate(ERRORS_MAX);
        walk.errors
    }
}

struct Walk {
    path: FieldPath,
    errors: Vec<FieldError>,
}

impl Walk {
    fn node(&mut self, schema: &Schema, value: &Value, old: Option<&Value>) {
        if old == Some(value) || self.errors.len() >= ERRORS_MAX {
            return;
        }
        self.check_type(schema, value);
        if value.is_null() {
            self.check_enum(&schema.checks, value);
            return;
        }
        self.check_combinations(&schema.checks, value);
        match value {
            Value::String(text) => self.check_string(&schema.checks, text),
            Value::Number(number) => self.check_number(schema, number),
            Value::Array(items) => self.check_items(schema, items, old),
            Value::Object(fields) => self.check_fields(schema, fields, old),
            Value::Null | Value::Bool(_) => {}
        }
        self.check_enum(&schema.checks, value);
    }

    fn check_type(&mut self, schema: &Schema, value: &Value) {
        let wanted = match (schema.ty, schema.int_or_string) {
            (_, true) => "integer,string",
            (Some(ty), false) => ty.name(),
            (None, false) => return,
        };
        let fits = match value {
            Value::Null => schema.nullable,
            Value::String(_) => schema.int_or_string || schema.ty == Some(Type::String),
            Value::Number(number) => match schema.ty {
                _ if schema.int_or_string => is_whole(number),
                Some(Type::Integer) => is_whole(number),
                ty => ty == Some(Type::Number),
            },
            Value::Bool(_) => schema.ty == Some(Type::Boolean),
            Value::Array(_) => schema.ty == Some(Type::Array),
            Value::Object(_) => schema.ty == Some(Type::Object),
        };
        if fits {
            return;
        }
        // A number is told by its format where a format is wanted.
        match (value, schema.checks.format) {
            (Value::Number(number), Some(format)) => {
                self.wrong_type(format.name(), if number.is_i64() { "int64" } else { "float64" });
            }
            _ => self.wrong_type(wanted, Type::of(value)),
        }
    }

    fn wrong_type(&mut self, wanted: &str, got: &str) {
        let detail = self.sentence(format_args!("must be of type {wanted}: {got:?}"));
        self.errors.push(FieldError {
            kind: FieldErrorKind::TypeInvalid,
            field: self.path.as_str().to_owned(),
            value: Some(got.into()),
            detail,
        });
    }

    fn check_enum(&mut self, checks: &Checks, value: &Value) {
        let Some(allowed) = &checks.enumeration else { return };
        if allowed.iter().any(|allowed| equal(allowed, value)) {
            return;
        }
        let shown: Vec<String> =
            allowed.iter().map(|allowed| allowed.as_str().map_or_else(|| allowed.to_string(), str::to_owned)).collect();
        let shown = shown.iter().map(String::as_str);
        self.errors.push(FieldError::not_supported(self.path.as_str(), value.clone(), shown));
    }

    fn check_string(&mut self, checks: &Checks, text: &str) {
        let chars = || text.chars().count() as u64;
        // The first of these faults is told, as kube-openapi does it.
        if let Some(max) = checks.max_length.filter(|max| chars() > *max) {
            self.errors.push(FieldError::too_long(self.path.as_str(), max));
        } else if let Some(min) = checks.min_length.filter(|min| chars() < *min) {
            self.refuse(text, format_args!("should be at least {min} chars long"));
        } else if let Some(pattern) = checks.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            self.refuse(text, format_args!("should match '{pattern}'"));
        }
        if let Some(format) = checks.format.filter(|format| !format.holds(text)) {
            let detail = self.sentence(format_args!("must be of type {}: {text:?}", format.name()));
            self.errors.push(FieldError {
                kind: FieldErrorKind::TypeInvalid,
                field: self.path.as_str().to_owned(),
                value: Some(text.into()),
                detail,
            });
        }
    }

    /// A whole number is compared with the whole part of a bound, as kube-openapi does it.
    fn check_number(&mut self, schema: &Schema, number: &Number) {
        let checks = &schema.checks;
        let value = || Value::Number(number.clone());
        let bound = |limit: &Number| match (number.as_i64(), limit.as_f64()) {
            // Casts of floats saturate.
            (Some(_), Some(limit)) => Number::from(limit.trunc() as i64),
            _ => limit.clone(),
        };
        self.check_range(schema, number);
        if let Some(factor) = &checks.multiple_of {
            let factor = bound(factor);
            if factor.as_f64().is_none_or(|factor| factor <= 0.0) {
                let why = format!(
                    "factor MultipleOf declared for {} must be positive: {}",
                    self.path.as_str(),
                    plain(&factor)
                );
                self.errors.push(FieldError::invalid(self.path.as_str(), factor, why));
            } else if !is_multiple(number, &factor) {
                self.refuse(value(), format_args!("should be a multiple of {}", plain(&factor)));
            }
        }
        if let Some(Bound { limit, exclusive }) = &checks.maximum {
            let limit = bound(limit);
            match compare(number, &limit) {
                Some(std::cmp::Ordering::Greater) if !exclusive => {
                    self.refuse(value(), format_args!("should be less than or equal to {}", plain(&limit)));
                }
                Some(std::cmp::Ordering::Greater | std::cmp::Ordering::Equal) if *exclusive => {
                    self.refuse(value(), format_args!("should be less than {}", plain(&limit)));
                }
                _ => {}
            }
        }
        if let Some(Bound { limit, exclusive }) = &checks.minimum {
            let limit = bound(limit);
            match compare(number, &limit) {
                Some(std::cmp::Ordering::Less) if !exclusive => {
                    self.refuse(value(), format_args!("should be greater than or equal to {}", plain(&limit)));
                }
                Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal) if *exclusive => {
                    self.refuse(value(), format_args!("should be greater than {}", plain(&limit)));
                }
                _ => {}
            }
        }
    }

    fn check_range(&mut self, schema: &Schema, number: &Number) {
        let (min, max) = match schema.checks.format {
            Some(Format::Int32) => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Some(Format::Int64) => (i64::MIN, i64::MAX),
            _ => return,
        };
        let fits = is_whole(number)
            && compare(number, &min.into()) != Some(std::cmp::Ordering::Less)
            && compare(number, &max.into()) != Some(std::cmp::Ordering::Greater);
        if !fits && let Some(ty @ (Type::Integer | Type::Number)) = schema.ty {
            let format = schema.checks.format.map_or("", Format::name);
            let why =
                format!("Checked value must be of type {} with format {format} in {}", ty.name(), self.path.as_str());
            self.errors.push(FieldError::invalid("", "", why));
        }
    }

    fn check_items(&mut self, schema: &Schema, items: &[Value], old: Option<&Value>) {
        let checks = &schema.checks;
        if let Some(min) = checks.min_items.filter(|min| (items.len() as u64) < *min) {
            self.refuse(items.len(), format_args!("should have at least {min} items"));
        }
        if let Some(max) = checks.max_items.filter(|max| items.len() as u64 > *max) {
            self.errors.push(FieldError::too_many(self.path.as_str(), items.len(), max));
        }
        if checks.unique_items && has_duplicates(items) {
            self.refuse("", format_args!("shouldn't contain duplicates"));
        }
        let Some(item_schema) = &schema.items else { return };
        let old_items = old.and_then(Value::as_array);
        let old_by_key = match (&schema.list_type, old_items) {
            (ListType::Map(keys), Some(old_items)) => Some((keys, keyed(old_items, keys))),
            _ => None,
        };
        for (index, item) in items.iter().enumerate() {
            let old = match &old_by_key {
                Some((keys, old)) => list_key(item, keys).and_then(|key| old.get(&key).copied()),
                None => None,
            };
            self.child_index(index, |this| this.node(item_schema, item, old));
        }
    }

    fn check_fields(&mut self, schema: &Schema, fields: &serde_json::Map<String, Value>, old: Option<&Value>) {
        let checks = &schema.checks;
        let count = fields.len();
        if let Some(min) = checks.min_properties.filter(|min| (count as u64) < *min) {
            self.refuse(count, format_args!("should have at least {min} properties"));
        }
        if let Some(max) = checks.max_properties.filter(|max| count as u64 > *max) {
            self.errors.push(FieldError::too_many(self.path.as_str(), count, max));
        }
        for (name, field) in fields {
            let field_schema = match (schema.properties.get(name), &schema.additional) {
                (Some(schema), _) => schema,
                (None, Additional::Each(schema)) => schema,
                (None, Additional::Any | Additional::None) => continue,
            };
            let old = old.and_then(|old| old.get(name));
            self.child_field(name, |this| this.node(field_schema, field, old));
        }
        let named: &[&str] = if schema.embedded { &["apiVersion", "kind"] } else { &[] };
        let required = checks.required.iter().map(String::as_str);
        let named = named.iter().copied().filter(|name| checks.required.iter().all(|required| required != name));
        for name in required.chain(named).filter(|name| !fields.contains_key(*name)) {
            self.errors.push(FieldError::required(self.path.join(name), ""));
        }
    }

    fn check_combinations(&mut self, checks: &Checks, value: &Value) {
        if !checks.any_of.is_empty()
            && let Err(failures) = self.best_branch(&checks.any_of, value)
        {
            self.refuse_whole("must validate at least one schema (anyOf)");
            self.errors.extend(failures);
        }
        if !checks.one_of.is_empty() {
            let passed = checks.one_of.iter().filter(|branch| self.branch(branch, value).is_empty()).count();
            if passed == 0 {
                self.refuse_whole("must validate one and only one schema (oneOf). Found none valid");
                if let Err(failures) = self.best_branch(&checks.one_of, value) {
                    self.errors.extend(failures);
                }
            } else if passed > 1 {
                self.refuse_whole(&format!(
                    "must validate one and only one schema (oneOf). Found {passed} valid alternatives"
                ));
            }
        }
        if !checks.all_of.is_empty() {
            let failures: Vec<_> = checks.all_of.iter().map(|branch| self.branch(branch, value)).collect();
            let failed = failures.iter().filter(|failures| !failures.is_empty()).count();
            if failed > 0 {
                self.errors.extend(failures.into_iter().flatten());
                let none = if failed == checks.all_of.len() { ". None validated" } else { "" };
                self.refuse_whole(&format!("must validate all the schemas (allOf){none}"));
            }
        }
        if checks.not.as_ref().is_some_and(|branch| self.branch(branch, value).is_empty()) {
            self.refuse_whole("must not validate the schema (not)");
        }
    }

    fn branch(&self, schema: &Schema, value: &Value) -> Vec<FieldError> {
        let mut walk = Walk { path: FieldPath::at(self.path.as_str()), errors: Vec::new() };
        walk.node(schema, value, None);
        walk.errors
    }

    /// The failures of the branch that fails least.
    fn best_branch(&self, branches: &[Schema], value: &Value) -> Result<(), Vec<FieldError>> {
        let mut best: Option<Vec<FieldError>> = None;
        for branch in branches {
            let failures = self.branch(branch, value);
            if failures.is_empty() {
                return Ok(());
            }
            if best.as_ref().is_none_or(|best| failures.len() < best.len()) {
                best = Some(failures);
            }
        }
        best.map_or(Ok(()), Err)
    }

    fn duplicates(&mut self, schema: &Schema, value: &Value) {
        if !schema.has_keyed_lists || self.errors.len() >= ERRORS_MAX {
            return;
        }
        match value {
            Value::Array(items) => {
                let mut seen = std::collections::HashSet::new();
                for (index, item) in items.iter().enumerate() {
                    let key = match &schema.list_type {
                        ListType::Atomic => None,
                        ListType::Set => Some(item.to_string()),
                        ListType::Map(keys) => list_key(item, keys),
                    };
                    if let Some(key) = key.filter(|key| !seen.insert(key.clone())) {
                        let value = match &schema.list_type {
                            ListType::Set => item.clone(),
                            ListType::Atomic | ListType::Map(_) => serde_json::from_str(&key).unwrap_or(Value::Null),
                        };
                        let path = format!("{}[{index}]", self.path.as_str());
                        self.errors.push(FieldError::duplicate(path, value));
                    }
                    if let Some(schema) = &schema.items {
                        self.child_index(index, |this| this.duplicates(schema, item));
                    }
                }
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    if let Some(schema) = schema.child(name) {
                        self.child_field(name, |this| this.duplicates(schema, field));
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn refuse(&mut self, value: impl Into<Value>, why: std::fmt::Arguments<'_>) {
        let detail = self.sentence(why);
        self.errors.push(FieldError::invalid(self.path.as_str(), value, detail));
    }

    /// kube-apiserver names the field of a failed combination in the message only.
    fn refuse_whole(&mut self, why: &str) {
        let detail = format!("{:?} {why}", self.path.as_str());
        self.errors.push(FieldError::invalid("", "", detail));
    }

    fn sentence(&self, what: std::fmt::Arguments<'_>) -> String {
        format!("{} in body {what}", self.path.as_str())
    }

    fn child_field(&mut self, name: &str, work: impl FnOnce(&mut Self)) {
        let len = self.path.push_field(name);
        work(self);
        self.path.cut(len);
    }

    fn child_index(&mut self, index: usize, work: impl FnOnce(&mut Self)) {
        let len = self.path.push_index(index);
        work(self);
        self.path.cut(len);
    }
}

/// Whether a number is an integer. Beyond 64 bits it is a float to Go, and one so large is none.
fn is_whole(number: &Number) -> bool {
    const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;
    number.is_i64() || number.as_f64().is_some_and(|value| value.abs() <= WHOLE_MAX && value.fract() == 0.0)
}

/// A number as Go writes it, without a fraction that is nothing.
fn plain(number: &Number) -> String {
    gotext::plain(&Value::Number(number.clone()))
}

fn compare(a: &Number, b: &Number) -> Option<std::cmp::Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn is_multiple(number: &Number, factor: &Number) -> bool {
    if let (Some(number), Some(factor)) = (number.as_i128(), factor.as_i128()) {
        return factor == 0 || number % factor == 0;
    }
    let (Some(number), Some(factor)) = (number.as_f64(), factor.as_f64()) else { return true };
    // As the reference does it: the quotient is whole. 0.3 is a multiple of 0.1 only within rounding.
    factor == 0.0 || { (number / factor - (number / factor).round()).abs() < 1e-9 }
}

/// Equality of JSON values with 1 equal to 1.0.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b) == Some(std::cmp::Ordering::Equal),
        _ => a == b,
    }
}

fn has_duplicates(items: &[Value]) -> bool {
    let mut seen = std::collections::HashSet::new();
    items.iter().any(|item| !seen.insert(item.to_string()))
}
