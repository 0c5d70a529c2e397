//! Types of rules: a rule that cannot be asked is refused with its definition.
//!
//! Source: the checker and the cost estimate of `cel-go`, and `apiserver/schema/cel/compilation.go` of
//! `k8s.io/apiextensions-apiserver`. What is not known to be wrong is taken to be right: a call of a known function is
//! not checked against its arguments, and a rule is refused for its cost only where the estimate is more than a hundred
//! times what is allowed.

use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use serde_json::Value;

use super::internal::{self, Kind as Shown};
use super::rules::{Rule, escape};
use super::{Additional, FieldPath, Format, ListType, Schema, Type};
use crate::status::FieldError;

/// Bytes that kube-apiserver takes at most in one request.
const REQUEST_BYTES_MAX: u64 = 3 << 20;
/// What a rule may cost.
const RULE_COST_MAX: u64 = 10_000_000;
/// What all rules of a schema may cost.
const SCHEMA_COST_MAX: u64 = 100_000_000;
const NAMESPACES: [&str; 8] = ["sets", "optional", "math", "ip", "format", "lists", "strings", "google"];
const TYPE_NAMES: [&str; 11] =
    ["bool", "bytes", "double", "duration", "int", "list", "map", "null_type", "string", "timestamp", "uint"];
const BOOL_FUNCTIONS: &[&str] = &[
    "bool",
    "contains",
    "containsCIDR",
    "containsIP",
    "endsWith",
    "equivalent",
    "hasValue",
    "intersects",
    "isCIDR",
    "isCanonical",
    "isGlobalUnicast",
    "isGreaterThan",
    "isIP",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isQuantity",
    "isSemver",
    "isSorted",
    "isURL",
    "isUnspecified",
    "matches",
    "startsWith",
];
const INT_FUNCTIONS: &[&str] = &[
    "asInteger",
    "compareTo",
    "family",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "indexOf",
    "int",
    "lastIndexOf",
    "major",
    "minor",
    "patch",
    "prefixLength",
    "sign",
    "size",
];
const TEXT_FUNCTIONS: &[&str] = &[
    "charAt",
    "find",
    "getEscapedPath",
    "getHost",
    "getHostname",
    "getPort",
    "getScheme",
    "join",
    "lowerAscii",
    "quote",
    "replace",
    "string",
    "substring",
    "trim",
    "upperAscii",
];
const OTHER_FUNCTIONS: &[&str] = &[
    "add",
    "all",
    "asApproximateFloat",
    "bytes",
    "cidr",
    "cost",
    "distinct",
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "double",
    "duration",
    "dyn",
    "exists",
    "exists_one",
    "filter",
    "findAll",
    "first",
    "flatten",
    "format",
    "getQuery",
    "has",
    "ip",
    "labelValue",
    "last",
    "map",
    "masked",
    "max",
    "min",
    "named",
    "none",
    "of",
    "ofNonZeroValue",
    "or",
    "orValue",
    "qualifiedName",
    "quantity",
    "range",
    "reverse",
    "semver",
    "slice",
    "sort",
    "sortBy",
    "split",
    "sub",
    "sum",
    "timestamp",
    "type",
    "uint",
    "unwrap",
    "unwrapOpt",
    "uri",
    "url",
    "uuid",
    "validate",
    "value",
    "greatest",
    "least",
    "ceil",
    "floor",
    "round",
    "trunc",
    "abs",
    "isNaN",
    "isInf",
    "isFinite",
    "sqrt",
];

/// What is known of a value.
#[derive(Clone, Debug)]
struct Ty<'a> {
    kind: Kind<'a>,
    /// Characters, items or entries at most.
    size: u64,
}

#[derive(Clone, Debug)]
enum Kind<'a> {
    Any,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Time,
    Duration,
    List(Box<Ty<'a>>),
    Map(Box<Ty<'a>>),
    Object {
        schema: &'a Schema,
        is_object: bool,
    },
    /// The name and nothing more of an object's metadata.
    Names,
    Optional(Box<Ty<'a>>),
}

impl<'a> Ty<'a> {
    const ANY: Ty<'static> = Ty { kind: Kind::Any, size: u64::MAX };

    fn of(kind: Kind<'a>) -> Self {
        Self { kind, size: u64::MAX }
    }

    /// What a rule sees of a value of this schema; `None` for what rules do not see.
    fn of_schema(schema: &'a Schema, is_object: bool) -> Option<Self> {
        if schema.int_or_string {
            return Some(Ty::ANY);
        }
        let or = |given: Option<u64>, estimate: u64| given.unwrap_or(estimate);
        let checks = &schema.checks;
        let room = REQUEST_BYTES_MAX - 2;
        Some(match schema.ty? {
            Type::Boolean => Self::of(Kind::Bool),
            Type::Integer => Self::of(Kind::Int),
            Type::Number => Self::of(Kind::Double),
            Type::String => match checks.format {
                Some(Format::DateTime | Format::Date) => Self::of(Kind::Time),
                Some(Format::Duration) => Self::of(Kind::Duration),
                Some(Format::Byte) => Self { kind: Kind::Bytes, size: or(checks.max_length, room) },
                _ => Self { kind: Kind::Text, size: or(checks.max_length, room) },
            },
            Type::Array => {
                let items = schema.items.as_deref()?;
                let estimate = room / (least_bytes(items) + 1);
                let item = Self::of_schema(items, items.embedded)?;
                Self { kind: Kind::List(Box::new(item)), size: or(checks.max_items, estimate) }
            }
            Type::Object => match &schema.additional {
                Additional::Each(each) => {
                    let estimate = room / (least_bytes(each) + 6);
                    let value = Self::of_schema(each, each.embedded)?;
                    Self { kind: Kind::Map(Box::new(value)), size: or(checks.max_properties, estimate) }
                }
                Additional::None | Additional::Any => {
                    Self::of(Kind::Object { schema, is_object: is_object || schema.embedded })
                }
            },
        })
    }

    fn field(&self, name: &str) -> Result<Ty<'a>, String> {
        let none = || format!("undefined field '{name}'");
        let text = || Ok(Ty { kind: Kind::Text, size: REQUEST_BYTES_MAX });
        match &self.kind {
            Kind::Any => Ok(Ty::ANY),
            Kind::Map(value) => Ok((**value).clone()),
            Kind::Optional(inner) => Ok(Ty::of(Kind::Optional(Box::new(inner.field(name)?)))),
            Kind::Names if name == "name" || name == "generateName" => text(),
            Kind::Object { is_object: true, .. } if name == "metadata" => Ok(Ty::of(Kind::Names)),
            Kind::Object { is_object: true, .. } if name == "kind" || name == "apiVersion" => text(),
            Kind::Object { schema, .. } => {
                let found = schema.properties.iter().find(|(property, _)| escape(property) == name);
                found.and_then(|(_, schema)| Ty::of_schema(schema, false)).ok_or_else(none)
            }
            Kind::Names => Err(none()),
            other => Err(format!("type '{}' does not support field selection", other.name())),
        }
    }
}

impl Kind<'_> {
    fn name(&self) -> String {
        match self {
            Self::Any => "dyn".into(),
            Self::Null => "null".into(),
            Self::Bool => "bool".into(),
            Self::Int => "int".into(),
            Self::Uint => "uint".into(),
            Self::Double => "double".into(),
            Self::Text => "string".into(),
            Self::Bytes => "bytes".into(),
            Self::Time => "timestamp".into(),
            Self::Duration => "duration".into(),
            Self::List(item) => format!("list({})", item.kind.name()),
            Self::Map(value) => format!("map(string, {})", value.kind.name()),
            Self::Object { .. } | Self::Names => "object".into(),
            Self::Optional(inner) => format!("optional_type({})", inner.kind.name()),
        }
    }

    fn is_scalar(&self) -> bool {
        use Kind::{Bool, Bytes, Double, Duration, Int, Text, Time, Uint};
        matches!(self, Bool | Int | Uint | Double | Text | Bytes | Time | Duration)
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }

    /// Whether two types are known to be of another kind.
    fn differs(&self, other: &Self) -> bool {
        !matches!((self, other), (Self::Any | Self::Null, _) | (_, Self::Any | Self::Null))
            && std::mem::discriminant(self) != std::mem::discriminant(other)
    }
}

/// Bytes that a value of this schema takes at least.
fn least_bytes(schema: &Schema) -> u64 {
    match schema.ty {
        Some(Type::Boolean) => 4,
        Some(Type::Integer | Type::Number) => 1,
        Some(Type::Object) => {
            let required = schema.checks.required.iter();
            let each =
                required.filter_map(|name| Some(name.len() as u64 + 4 + least_bytes(schema.properties.get(name)?)));
            2 + each.sum::<u64>()
        }
        Some(Type::String | Type::Array) | None => 2,
    }
}

/// What is wrong with the rules of a schema that is right otherwise. `raw` is the schema as it was sent.
pub(super) fn check(schema: &Schema, raw: &Value, path: &str) -> Vec<FieldError> {
    if !schema.has_rules {
        return Vec::new();
    }
    let mut checker = Rules { path: FieldPath::at(path), errors: Vec::new(), cost: 0, costly: Vec::new() };
    checker.node(schema, raw, true, 1, None);
    if checker.cost > SCHEMA_COST_MAX.saturating_mul(100) {
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        for path in std::mem::take(&mut checker.costly) {
            checker.errors.push(FieldError::forbidden(path, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        checker.errors.push(FieldError::forbidden(path, too_costly(what)));
    }
    checker.errors
}

fn too_costly(what: &str) -> String {
    format!(
        "{what} exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

struct Rules {
    path: FieldPath,
    errors: Vec<FieldError>,
    /// Of all rules.
    cost: u64,
    /// Rules that cost too much alone.
    costly: Vec<String>,
}

impl Rules {
    /// `times` says how often the node may stand in one object; `uncorrelated`, above which node old and new values
    /// cannot be told to be the same.
    fn node(&mut self, schema: &Schema, raw: &Value, is_root: bool, times: u64, uncorrelated: Option<&str>) {
        if !schema.has_rules {
            return;
        }
        let own_path = self.path.as_str().to_owned();
        let sent = &raw["x-kubernetes-validations"];
        for (index, rule) in schema.rules.iter().enumerate() {
            let len = self.path.push_field("x-kubernetes-validations");
            self.path.push_index(index);
            self.rule(schema, rule, &sent[index], is_root, times, uncorrelated);
            self.path.cut(len);
        }
        let properties_in = match raw["x-kubernetes-map-type"].as_str() {
            Some("atomic") => uncorrelated.or(Some(&own_path)),
            _ => uncorrelated,
        };
        for (name, property) in &schema.properties {
            let len = self.path.push_field("properties");
            self.path.push_key(name);
            self.node(property, &raw["properties"][name], false, times, properties_in);
            self.path.cut(len);
        }
        let times_of = |size: Option<Ty<'_>>| times.saturating_mul(size.map_or(1, |ty| ty.size));
        if let Additional::Each(each) = &schema.additional {
            let times = times_of(Ty::of_schema(schema, is_root));
            let len = self.path.push_field("additionalProperties");
            self.node(each, &raw["additionalProperties"], false, times, uncorrelated);
            self.path.cut(len);
        }
        if let Some(items) = &schema.items {
            let times = times_of(Ty::of_schema(schema, is_root));
            let items_in = match schema.list_type {
                ListType::Map(_) => uncorrelated,
                ListType::Atomic | ListType::Set => uncorrelated.or(Some(&own_path)),
            };
            let len = self.path.push_field("items");
            self.node(items, &raw["items"], false, times, items_in);
            self.path.cut(len);
        }
    }

    fn rule(
        &mut self,
        schema: &Schema,
        rule: &Rule,
        sent: &Value,
        is_root: bool,
        times: u64,
        uncorrelated: Option<&str>,
    ) {
        let Some(seen) = Ty::of_schema(schema, is_root) else { return };
        let (program, message) = rule.programs();
        let old = if rule.optional_old_self() { Ty::of(Kind::Optional(Box::new(seen.clone()))) } else { seen.clone() };
        for (field, program) in [("rule", Some(program)), ("messageExpression", message)] {
            let (Some(program), Some(source)) = (program, sent[field].as_str()) else { continue };
            let is_rule = field == "rule";
            let scope = vec![("self", seen.clone()), ("oldSelf", old.clone())];
            let mut checker = Checker { source: source.trim(), scope, cost: 0 };
            let found = checker.expr(program);
            let (wanted, what) = if is_rule {
                ("cel expression must evaluate to a bool", "")
            } else {
                ("messageExpression must evaluate to a string", "messageExpression ")
            };
            let why = match &found {
                Err(fault) => Some(format!("{what}compilation failed: {}", fault.show(source.trim()))),
                Ok(Ty { kind: Kind::Any, .. }) => None,
                Ok(Ty { kind: Kind::Bool, .. }) if is_rule => None,
                Ok(Ty { kind: Kind::Text, .. }) if !is_rule => None,
                Ok(_) => Some(wanted.to_owned()),
            };
            let at = self.path.join(field);
            let cost = checker.cost.saturating_mul(times);
            if let Some(why) = why {
                let why = format!("{}: {why}", internal::show(Shown::Rule, sent));
                self.errors.push(FieldError { value: None, ..FieldError::invalid(at, Value::Null, why) });
            } else {
                if cost > RULE_COST_MAX.saturating_mul(100) {
                    let what = if is_rule { "estimated rule cost" } else { "estimated messageExpression cost" };
                    self.errors.push(FieldError::forbidden(at.as_str(), too_costly(what)));
                    self.costly.push(at);
                }
                self.cost = self.cost.saturating_add(cost);
            }
        }
        if rule.uses_old_self() {
            if let Some(path) = uncorrelated {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {path}");
                self.errors.push(FieldError::invalid(self.path.join("rule"), sent["rule"].clone(), why));
            }
        } else if !sent["optionalOldSelf"].is_null() {
            let why = "may not be set if oldSelf is not used in rule";
            self.errors.push(FieldError::invalid(
                self.path.join("optionalOldSelf"),
                sent["optionalOldSelf"].clone(),
                why,
            ));
        }
    }
}

/// Why an expression cannot be asked, and the text it stands at.
struct Fault {
    why: String,
    at: String,
    /// Bytes of that text before the place itself.
    skip: usize,
}

impl Fault {
    fn show(&self, source: &str) -> String {
        let at = source.find(&self.at).map_or(0, |at| at + self.skip);
        let line = source[..at].matches('\n').count();
        let text = source.lines().nth(line).unwrap_or_default();
        let column = source[..at].rsplit('\n').next().unwrap_or_default().chars().count();
        let dots = ".".repeat(column);
        format!("ERROR: <input>:{}:{}: {}\n | {text}\n | {dots}^", line + 1, column + 1, self.why)
    }
}

struct Checker<'a> {
    source: &'a str,
    scope: Vec<(&'a str, Ty<'a>)>,
    cost: u64,
}

impl<'a> Checker<'a> {
    fn expr(&mut self, expr: &'a IdedExpr) -> Result<Ty<'a>, Fault> {
        match &expr.expr {
            Expr::Unspecified | Expr::Struct(_) => Ok(Ty::ANY),
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Ty::of(Kind::Bool),
                LiteralValue::Bytes(bytes) => Ty { kind: Kind::Bytes, size: bytes.inner().len() as u64 },
                LiteralValue::Double(_) => Ty::of(Kind::Double),
                LiteralValue::Int(_) => Ty::of(Kind::Int),
                LiteralValue::Null => Ty::of(Kind::Null),
                LiteralValue::String(text) => Ty { kind: Kind::Text, size: text.inner().chars().count() as u64 },
                LiteralValue::UInt(_) => Ty::of(Kind::Uint),
            }),
            Expr::Ident(name) => {
                self.spend(1);
                if let Some((_, ty)) = self.scope.iter().rev().find(|(known, _)| known == name) {
                    return Ok(ty.clone());
                }
                if TYPE_NAMES.contains(&name.as_str()) || NAMESPACES.contains(&name.as_str()) {
                    return Ok(Ty::ANY);
                }
                Err(undeclared(name, name.clone()))
            }
            Expr::Select(select) => {
                let operand = self.expr(&select.operand)?;
                self.spend(1);
                let at = || format!(".{}", select.field);
                let field = operand.field(&select.field).map_err(|why| Fault { why, at: at(), skip: 0 })?;
                Ok(if select.test { Ty::of(Kind::Bool) } else { field })
            }
            Expr::List(list) => {
                let mut item: Option<Ty<'a>> = None;
                for element in &list.elements {
                    let element = self.expr(element)?;
                    item = Some(item.map_or_else(|| element.clone(), |item| join(item, &element)));
                }
                let size = list.elements.len() as u64;
                Ok(Ty { kind: Kind::List(Box::new(item.unwrap_or(Ty::ANY))), size })
            }
            Expr::Map(map) => {
                let mut value: Option<Ty<'a>> = None;
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.expr(&entry.key)?;
                        let found = self.expr(&entry.value)?;
                        value = Some(value.map_or_else(|| found.clone(), |value| join(value, &found)));
                    }
                }
                Ok(Ty { kind: Kind::Map(Box::new(value.unwrap_or(Ty::ANY))), size: map.entries.len() as u64 })
            }
            Expr::Comprehension(loop_) => {
                let range = self.expr(&loop_.iter_range)?;
                let text = || Ty { kind: Kind::Text, size: REQUEST_BYTES_MAX };
                let (first, second) = match &range.kind {
                    Kind::List(item) => (Ty::of(Kind::Int), (**item).clone()),
                    Kind::Map(value) => (text(), (**value).clone()),
                    _ => (Ty::ANY, Ty::ANY),
                };
                let depth = self.scope.len();
                let start = self.expr(&loop_.accu_init)?;
                self.scope.push((&loop_.accu_var, start.clone()));
                match (&loop_.iter_var2, &range.kind) {
                    (Some(name), _) => self.scope.extend([(loop_.iter_var.as_str(), first), (name, second)]),
                    (None, Kind::Map(_)) => self.scope.push((&loop_.iter_var, first)),
                    (None, _) => self.scope.push((&loop_.iter_var, second)),
                }
                let before = std::mem::take(&mut self.cost);
                self.expr(&loop_.loop_cond)?;
                let step = self.expr(&loop_.loop_step)?;
                let each = std::mem::replace(&mut self.cost, before);
                // An unknown range is one that the schema does not bound, or a value of the rule's own making.
                let times = if range.size == u64::MAX { 1 } else { range.size };
                self.spend(each.saturating_mul(times));
                self.scope.truncate(depth);
                let kind = if matches!(start.kind, Kind::List(_)) { step.kind } else { start.kind };
                self.scope.push((&loop_.accu_var, Ty { kind, size: times }));
                let result = self.expr(&loop_.result);
                self.scope.truncate(depth);
                result
            }
            Expr::Call(call) => {
                let target = match call.target.as_deref() {
                    Some(IdedExpr { expr: Expr::Ident(name), .. })
                        if NAMESPACES.contains(&name.as_str()) && self.scope.iter().all(|(known, _)| known != name) =>
                    {
                        None
                    }
                    Some(target) => Some(self.expr(target)?),
                    None => None,
                };
                let mut args = Vec::new();
                for arg in &call.args {
                    args.push(self.expr(arg)?);
                }
                args.splice(0..0, target);
                self.call(&call.func_name, &args, &call.args)
            }
        }
    }

    fn call(&mut self, name: &str, args: &[Ty<'a>], sent: &[IdedExpr]) -> Result<Ty<'a>, Fault> {
        use Kind::{Any, Bool, Bytes, Double, Duration, Int, List, Map, Optional, Text, Time, Uint};
        self.spend(1);
        let refuse = |this: &Self| {
            let names: Vec<String> = args.iter().map(|arg| arg.kind.name()).collect();
            let at = symbol(name).unwrap_or(name);
            let at = if this.source.contains(at) { at.to_owned() } else { String::new() };
            Fault {
                why: format!("found no matching overload for '{name}' applied to '({})'", names.join(", ")),
                at,
                skip: 0,
            }
        };
        let truth = Ok(Ty::of(Bool));
        let takes_truth = |arg: &Ty<'_>| matches!(arg.kind, Bool | Any);
        match (name, args) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, args) => {
                if args.iter().all(takes_truth) {
                    truth
                } else {
                    Err(refuse(self))
                }
            }
            (operators::LOGICAL_NOT, [arg]) => {
                if takes_truth(arg) {
                    truth
                } else {
                    Err(refuse(self))
                }
            }
            (operators::NOT_STRICTLY_FALSE, _) => truth,
            (operators::CONDITIONAL, [condition, yes, no]) => {
                if takes_truth(condition) {
                    Ok(join(yes.clone(), no))
                } else {
                    Err(refuse(self))
                }
            }
            (operators::EQUALS | operators::NOT_EQUALS, [left, right]) => {
                if matches!((&left.kind, &right.kind), (Text, Text) | (Bytes, Bytes)) {
                    self.spend_on_text(left.size.min(right.size));
                }
                let is_wrong = left.kind.differs(&right.kind)
                    && (left.kind.is_scalar() || matches!(left.kind, List(_)))
                    && (right.kind.is_scalar() || matches!(right.kind, List(_)));
                if is_wrong { Err(refuse(self)) } else { truth }
            }
            (
                operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
                [left, right],
            ) => {
                let fits = |kind: &Kind<'_>| kind.is_scalar() || matches!(kind, Any);
                let numbers = left.kind.is_number() && right.kind.is_number();
                let is_right = fits(&left.kind) && fits(&right.kind) && (numbers || !left.kind.differs(&right.kind));
                if is_right { truth } else { Err(refuse(self)) }
            }
            (operators::ADD, [left, right]) => match (&left.kind, &right.kind) {
                (Any, _) | (_, Any) => Ok(Ty::ANY),
                (Text, Text) | (Bytes, Bytes) => {
                    let size = left.size.saturating_add(right.size);
                    self.spend_on_text(size);
                    Ok(Ty { kind: left.kind.clone(), size })
                }
                (List(one), List(other)) => {
                    let kind = List(Box::new(if matches!(one.kind, Any) {
                        (**other).clone()
                    } else {
                        join((**one).clone(), other)
                    }));
                    Ok(Ty { kind, size: left.size.saturating_add(right.size) })
                }
                (Int, Int) | (Uint, Uint) | (Double, Double) | (Time, Duration) | (Duration, Duration) => {
                    Ok(left.clone())
                }
                (Duration, Time) => Ok(right.clone()),
                _ => Err(refuse(self)),
            },
            (operators::SUBSTRACT, [left, right]) => match (&left.kind, &right.kind) {
                (Any, _) | (_, Any) => Ok(Ty::ANY),
                (Int, Int) | (Uint, Uint) | (Double, Double) | (Time, Duration) | (Duration, Duration) => {
                    Ok(left.clone())
                }
                (Time, Time) => Ok(Ty::of(Duration)),
                _ => Err(refuse(self)),
            },
            (operators::MULTIPLY | operators::DIVIDE | operators::MODULO, [left, right]) => {
                match (&left.kind, &right.kind) {
                    (Any, _) | (_, Any) => Ok(Ty::ANY),
                    (Int, Int) | (Uint, Uint) => Ok(left.clone()),
                    (Double, Double) if name != operators::MODULO => Ok(left.clone()),
                    _ => Err(refuse(self)),
                }
            }
            (operators::NEGATE, [arg]) => match arg.kind {
                Any | Int | Double => Ok(arg.clone()),
                _ => Err(refuse(self)),
            },
            (operators::IN, [_, within]) => match &within.kind {
                Any | List(_) | Map(_) => {
                    self.spend(if within.size == u64::MAX { 1 } else { within.size });
                    truth
                }
                _ => Err(refuse(self)),
            },
            (operators::INDEX, [within, index]) => match (&within.kind, &index.kind) {
                (List(item), Int | Uint | Double | Any) => Ok((**item).clone()),
                (Map(value), Text | Any) => Ok((**value).clone()),
                (Any | Optional(_), _) => Ok(Ty::ANY),
                _ => Err(refuse(self)),
            },
            (operators::OPT_SELECT, [within, _]) => {
                let field = match sent.last().map(|arg| &arg.expr) {
                    Some(Expr::Literal(LiteralValue::String(field))) => field.inner().to_owned(),
                    _ => return Ok(Ty::ANY),
                };
                let found = within.field(&field).map_err(|why| Fault { why, at: format!("?{field}"), skip: 0 })?;
                Ok(if matches!(found.kind, Optional(_)) { found } else { Ty::of(Optional(Box::new(found))) })
            }
            ("orValue", [of, _]) => Ok(match &of.kind {
                Optional(inner) => (**inner).clone(),
                _ => Ty::ANY,
            }),
            ("value", [of]) => Ok(match &of.kind {
                Optional(inner) => (**inner).clone(),
                _ => Ty::ANY,
            }),
            ("matches" | "find" | "findAll" | "startsWith" | "endsWith" | "contains", [text, ..])
                if text.kind.differs(&Text) && text.kind.is_scalar() =>
            {
                Err(refuse(self))
            }
            _ if name.starts_with(['_', '@']) => Ok(Ty::ANY),
            _ if BOOL_FUNCTIONS.contains(&name) => truth,
            _ if INT_FUNCTIONS.contains(&name) => Ok(Ty::of(Int)),
            // Text made of another value may be as long as it likes.
            ("string", [arg]) => {
                Ok(Ty { kind: Text, size: if matches!(arg.kind, Text) { arg.size } else { u64::MAX } })
            }
            _ if TEXT_FUNCTIONS.contains(&name) => {
                let sizes = args.iter().filter(|arg| matches!(arg.kind, Text)).map(|arg| arg.size);
                Ok(Ty { kind: Text, size: sizes.fold(1, u64::saturating_add) })
            }
            ("timestamp", _) => Ok(Ty::of(Time)),
            ("duration", _) => Ok(Ty::of(Duration)),
            ("double", _) => Ok(Ty::of(Double)),
            ("uint", _) => Ok(Ty::of(Uint)),
            _ if OTHER_FUNCTIONS.contains(&name) => Ok(Ty::ANY),
            _ => Err(undeclared(name, format!("{name}("))),
        }
    }

    fn spend(&mut self, cost: u64) {
        self.cost = self.cost.saturating_add(cost);
    }

    /// Text of unknown size costs whatever it takes.
    fn spend_on_text(&mut self, size: u64) {
        self.spend(if size == u64::MAX { u64::MAX } else { size / 10 });
    }
}

fn undeclared(name: &str, at: String) -> Fault {
    // Of a call, cel-go points at the parenthesis.
    let skip = at.len() - at.trim_end_matches('(').len();
    let skip = if skip > 0 { at.len() - skip } else { 0 };
    Fault { why: format!("undeclared reference to '{name}' (in container '')"), at, skip }
}

/// An operator as it is written.
fn symbol(name: &str) -> Option<&str> {
    name.strip_prefix('_').and_then(|rest| rest.strip_suffix('_')).or_else(|| name.strip_suffix('_'))
}

/// What may be one or the other.
fn join<'a>(one: Ty<'a>, other: &Ty<'a>) -> Ty<'a> {
    let size = one.size.max(other.size);
    let kind = if one.kind.differs(&other.kind) { Kind::Any } else { one.kind };
    Ty { kind, size }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(rule: Value) -> Vec<String> {
        let schema = json!({
            "type": "object",
            "x-kubernetes-validations": [rule],
            "properties": {
                "text": {"type": "string", "maxLength": 100}, "n": {"type": "integer"}, "share": {"type": "number"},
                "list": {"type": "array", "items": {"type": "string"}}, "port": {"x-kubernetes-int-or-string": true},
                "map": {"type": "object", "maxProperties": 9, "additionalProperties": {"type": "integer"}},
                "a-b": {"type": "string"}, "since": {"type": "string", "format": "date-time"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "items": {"type": "array", "maxItems": 9, "items": {"type": "object", "properties": {"w": {"type": "integer"}}}},
            },
        });
        let errors = Schema::parse(&schema, "p").err().unwrap_or_default();
        errors.iter().map(|error| format!("{} {}", error.field, error.detail)).collect()
    }

    #[test]
    fn rules_that_can_be_asked_are_accepted() {
        let rules = [
            "self.n > 1 && self.n < 2.5",
            "self.share * 2.0 == 1.0 || self.text + 'x' == 'y'",
            "self.list.all(x, x.startsWith('a')) && self.list.map(x, x).exists(x, x == 'ab')",
            "type(self.port) == int ? self.port < 9 : self.port == '50%'",
            "self.map.all(k, self.map[k] > 0) && 'a' in self.map && self.map['a'] == 1",
            "has(self.a__dash__b) && self.a__dash__b == 'x'",
            "self.since < timestamp('2030-01-01T00:00:00Z') && self.since + duration('1h') > self.since",
            "self.items.all(item, item.w > 0) && self.items[0].w == 1",
            "self.items.filter(item, item.w > 0).size() == 1 && self.items.exists_one(item, item.w == 1)",
            "self.metadata.name == 'x' && self.kind == 'K'",
            "self.n >= oldSelf.n",
            "quantity('1Gi').isGreaterThan(quantity('1Mi')) && sets.contains(self.list, ['a'])",
            "!has(self.text) || self.text == null",
        ];
        for rule in rules {
            assert_eq!(said(json!({"rule": rule})), Vec::<String>::new(), "{rule}");
        }
    }

    #[test]
    fn rules_that_cannot_be_asked_are_refused_with_the_place_of_their_fault() {
        let rows = [
            ("self.none == 1", "ERROR: <input>:1:5: undefined field 'none'\n | self.none == 1\n | ....^"),
            ("self.free.x == 1", "ERROR: <input>:1:10: undefined field 'x'"),
            ("self.text.x == 1", "type 'string' does not support field selection"),
            ("self.items.all(item, item.none > 0)", "undefined field 'none'"),
            ("self.text > 1", "ERROR: <input>:1:11: found no matching overload for '_>_' applied to '(string, int)'"),
            ("self.text == 1", "found no matching overload for '_==_' applied to '(string, int)'"),
            ("self.n && true", "found no matching overload for '_&&_' applied to '(int, bool)'"),
            ("sing(self.text)", "ERROR: <input>:1:5: undeclared reference to 'sing' (in container '')"),
            ("other > 1", "undeclared reference to 'other' (in container '')"),
            ("self.n + 1", "cel expression must evaluate to a bool"),
        ];
        for (rule, why) in rows {
            let said = said(json!({"rule": rule}));
            assert!(said.len() == 1 && said[0].starts_with("p.x-kubernetes-validations[0].rule {\"Rule\""), "{said:?}");
            assert!(said[0].contains(why), "{said:?} lacks {why}");
        }
        let text = said(json!({"rule": "true", "messageExpression": "self.n"}));
        assert!(text[0].ends_with("messageExpression must evaluate to a string"), "{text:?}");
        let unused = said(json!({"rule": "self.n > 1", "optionalOldSelf": true}));
        assert_eq!(
            unused,
            ["p.x-kubernetes-validations[0].optionalOldSelf may not be set if oldSelf is not used in rule"]
        );
    }

    #[test]
    fn rules_that_may_cost_far_too_much_are_refused() {
        let nested = "self.list.all(x, self.list.all(y, self.list.all(z, x + y + z != 'abc')))";
        let said = said(json!({"rule": nested}));
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("estimated rule cost exceeds budget by factor of more than 100x"), "{said:?}");
    }
}
