//! Strategic merge patches: merge patches that know which lists are merged item by item, by which key, and that may
//! carry directives, keys that begin with `$`.
//!
//! Does what `StrategicMergeMapPatch` of `k8s.io/apimachinery/pkg/util/strategicpatch` does in a server, error texts and
//! odd corners included. Two things differ. Go visits a map's fields in random order, and so may answer a patch whose
//! fields contradict each other in more than one way; here the answer is always one of those. And where Go panics,
//! there is an error.

mod go;
mod order;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem::take;

use serde_json::{Map, Value};

use go::{Form, Go, GoType, LIST, MAP, NIL, Strategy, Verb, go_type, quoted};
use order::{Order, Scalar, arrange, partition};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";

type Fields = Map<String, Value>;
type Result<T> = std::result::Result<T, StrategicError>;

/// Why a strategic merge patch does not fit. The wording is the Go library's. Kubernetes answers 400 or 422 to some of these and
/// 500 to most; here all are the caller's fault.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum StrategicError {
    /// A key begins with `$deleteFromPrimitiveList` and no slash follows.
    #[error("invalid patch format of primitive list")]
    DeleteFrom,
    /// `$retainKeys` is no list, or lacks a field of the patch.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// A key begins with `$setElementOrder` and no slash follows.
    #[error("invalid patch format of setElementOrder list")]
    SetOrder,
    /// A merged list holds lists.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// An item of a list that is merged by a key lacks it.
    #[error("map: {} does not contain declared merge key: {key}", Go(map, Verb::V))]
    NoMergeKey {
        /// The item.
        map: Value,
        /// The key.
        key: String,
    },
    /// One type is wanted and another one given, by their names in Go.
    #[error("expected a {expected}, but received a {actual}")]
    WrongType {
        /// What is wanted.
        expected: &'static str,
        /// What is given.
        actual: &'static str,
    },
    /// `$patch` says something else than it may.
    #[error("unknown patch type: {} in map: {}", Go(directive, Verb::S), Go(map, Verb::V))]
    UnknownDirective {
        /// What it says.
        directive: Value,
        /// The map that it is in.
        map: Value,
    },
    /// An item of a list says `$patch: merge`.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirectiveInList,
    /// The items of a list, old and new, are of several types.
    #[error("list element types are not identical: {}", Go(lists, Verb::V))]
    MixedItems {
        /// A list of the lists.
        lists: Value,
    },
    /// `$setElementOrder` of a list that is empty in object and patch.
    #[error("no elements in any of the given slices")]
    NoItems,
    /// An item of a `$setElementOrder` list of maps is none.
    #[error("value for key {at} is not a map")]
    NotAMap {
        /// Its index.
        at: usize,
    },
    /// Maps are to be merged, or deleted, in a list whose items have no key.
    #[error("cannot merge lists without merge key for {kind}")]
    NoMergeKeyDeclared {
        /// Go's kind of the list's items.
        kind: &'static str,
    },
    /// `$setElementOrder` lacks an item of the patch, or has them in another order.
    #[error(
        "The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n",
        Go(patch, Verb::V),
        Go(order, Verb::V)
    )]
    OtherOrder {
        /// The list in the patch.
        patch: Value,
        /// The `$setElementOrder` list.
        order: Value,
    },
    /// A field of something that has no fields.
    #[error("merging an object in json but data type is not struct, instead is: {kind}")]
    NotAStruct {
        /// Go's kind of it.
        kind: &'static str,
    },
    /// The type has no such field.
    #[error("unable to find api field in struct {name} for the json field {}", quoted(field))]
    UnknownField {
        /// Go's name of the type.
        name: String,
        /// The field.
        field: String,
    },
    /// `$setElementOrder` or `$deleteFromPrimitiveList` of a field that is no list.
    #[error("expected slice or array type, but got: {kind}")]
    NotAList {
        /// Go's kind of the struct that the field is in.
        kind: &'static str,
    },
    /// A list of lists, by its type.
    #[error("unexpected slice of slice")]
    SliceOfSlices,
    /// The first item of a merged list is null; Go panics.
    #[error("the items of a merged list cannot be null")]
    NullItem,
    /// A map or a list where items or their keys are compared; Go panics.
    #[error("items of a list are told apart by texts, numbers and the like, not by a {got}")]
    Incomparable {
        /// What is given, by its name in Go.
        got: &'static str,
    },
}

/// Merges a strategic merge patch into an object of a type by its name in OpenAPI.
///
/// Fields that the type lacks are taken as they are where the object has no such map or list. They stay in the result, as
/// do directives of parts that the object did not have: the caller prunes them. It recurses as deep as the patch is.
///
/// # Errors
/// [`StrategicError`] when the patch does not fit the object or the type.
pub(crate) fn merge(type_name: &str, original: Fields, patch: Fields) -> Result<Fields> {
    merge_maps(original, patch, GoType { pointer: false, form: Form::Struct(type_name) })
}

fn merge_maps(mut original: Fields, mut patch: Fields, ty: GoType) -> Result<Fields> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            // The rest counts as it is, nulls and further directives included.
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Fields::new()),
            _ => Err(StrategicError::UnknownDirective { directive: directive.clone(), map: patch.into() }),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, ty)?;
    for (key, value) in patch {
        merge_field(&mut original, key, value, ty)?;
    }
    Ok(original)
}

/// Does and removes `$retainKeys`: fields that it does not name go.
fn retain_keys(original: &mut Fields, patch: &mut Fields) -> Result<()> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let keys = keys.as_array().ok_or(StrategicError::RetainKeys)?;
    let mut retained = HashSet::new();
    for key in keys {
        Scalar::of(key)?;
        retained.extend(key.as_str());
    }
    let is_retained = |key: &str, value: &Value| retained.contains(key) || value.is_null() || is_parallel_list(key);
    if !patch.iter().all(|(key, value)| is_retained(key, value)) {
        return Err(StrategicError::RetainKeys);
    }
    original.retain(|key, _| retained.contains(key.as_str()));
    Ok(())
}

fn is_parallel_list(key: &str) -> bool {
    key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER)
}

/// Does and removes all `$setElementOrder/FIELD`, and the fields that they are about.
fn merge_ordered_lists(original: &mut Fields, patch: &mut Fields, ty: GoType) -> Result<()> {
    let keys: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for key in keys {
        let Some(order) = patch.remove(&key) else { continue };
        let order = list(order)?;
        let name = key[SET_ORDER.len()..].strip_prefix('/').ok_or(StrategicError::SetOrder)?;
        let current = original.remove(name).map(list).transpose()?;
        let wanted = patch.remove(name).map(list).transpose()?;
        let field = ty.field(name)?;
        let item = field.item(ty)?;
        check_order(wanted.as_deref().unwrap_or_default(), &order, field.merge_key)?;
        let item_type = item_type(current.as_deref().unwrap_or_default(), wanted.as_deref().unwrap_or_default());
        let is_maps = item_type == Ok(MAP);
        let key = is_maps.then_some(field.merge_key);
        let (merged, server_order) = match (current, wanted) {
            (None, None) => continue,
            (Some(current), None) => {
                let server_order = Order::of(&current, key);
                (current, server_order)
            }
            (None, Some(wanted)) => (wanted.into_iter().filter_map(without_directives).collect(), Order::of(&[], key)),
            (Some(current), Some(wanted)) if field.strategy == Strategy::Merge => {
                merge_lists(current, wanted, item, field.merge_key)?
            }
            (Some(current), Some(wanted)) => (wanted, Order::of(&current, key)),
        };
        let by = Order::of(&order, Some(field.merge_key).filter(|key| !key.is_empty()));
        let (patched, server_only) = partition(merged, &by, field.merge_key)?;
        item_type?;
        let merged = arrange(patched, server_only, &Order::of(&order, key), &server_order, key)?;
        original.insert(name.to_owned(), merged.into());
    }
    Ok(())
}

fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(StrategicError::WrongType { expected: LIST, actual: go_type(&other) }),
    }
}

/// Refuses a `$setElementOrder` that does not hold the items of the patch in their order.
fn check_order(patch: &[Value], order: &[Value], merge_key: &str) -> Result<()> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut left = Vec::new();
    for item in patch {
        if merge_key.is_empty() || directive(fields(item)?).and_then(Value::as_str) != Some("delete") {
            left.push(item);
        }
    }
    let (mut at, mut order_at) = (0, 0);
    while at < left.len() && order_at < order.len() {
        if left[at].get(DIRECTIVE).is_some() {
            at += 1;
            continue;
        }
        let is_same = if merge_key.is_empty() {
            is_same(left[at], &order[order_at])?
        } else {
            let (left, right) = (fields(left[at])?, fields(&order[order_at])?);
            is_same(key_of(left, merge_key)?, key_of(right, merge_key)?)?
        };
        at += usize::from(is_same);
        order_at += 1;
    }
    if at < left.len() {
        return Err(StrategicError::OtherOrder { patch: patch.into(), order: order.into() });
    }
    Ok(())
}

fn directive(map: &Fields) -> Option<&Value> {
    map.get(DIRECTIVE)
}

fn fields(value: &Value) -> Result<&Fields> {
    value.as_object().ok_or_else(|| StrategicError::WrongType { expected: MAP, actual: go_type(value) })
}

fn key_of<'a>(map: &'a Fields, merge_key: &str) -> Result<&'a Value> {
    let no_key = || StrategicError::NoMergeKey { map: map.clone().into(), key: merge_key.to_owned() };
    map.get(merge_key).ok_or_else(no_key)
}

/// Whether Go's `==` holds.
fn is_same(left: &Value, right: &Value) -> Result<bool> {
    Ok(go_type(left) == go_type(right) && Scalar::of(left)? == Scalar::of(right)?)
}

fn merge_field(original: &mut Fields, key: String, value: Value, ty: GoType) -> Result<()> {
    let (key, is_deletion) = match key.strip_prefix(DELETE_FROM).map(|rest| rest.strip_prefix('/')) {
        Some(None) => return Err(StrategicError::DeleteFrom),
        Some(Some("")) => (key, true),
        Some(Some(name)) => (name.to_owned(), true),
        None => (key, false),
    };
    if value.is_null() {
        original.remove(&key);
        return Ok(());
    }
    match (original.get_mut(&key), value) {
        (Some(Value::Object(current)), Value::Object(value)) => {
            let field = ty.field(&key)?;
            *current = match field.strategy {
                Strategy::Replace => value,
                _ => merge_maps(take(current), value, field.ty)?,
            };
        }
        (Some(Value::Array(current)), Value::Array(value)) => {
            let field = ty.field(&key)?;
            let item = field.item(ty)?;
            if is_deletion && item_type_of_any(current, &value)? != Some(MAP) {
                let deleted = value.iter().map(Scalar::of).collect::<Result<HashSet<_>>>()?;
                let mut kept = Vec::with_capacity(current.len());
                for item in take(current) {
                    if !deleted.contains(&Scalar::of(&item)?) {
                        kept.push(item);
                    }
                }
                *current = kept;
            } else if is_deletion || field.strategy == Strategy::Merge {
                (*current, _) = merge_lists(take(current), value, item, field.merge_key)?;
            } else {
                *current = value;
            }
        }
        (Some(current), value) if go_type(current) == go_type(&value) => *current = value,
        (_, _) if is_deletion => {}
        (_, mut value) => {
            discard_nulls(&mut value);
            match without_directives(value) {
                Some(value) => original.insert(key, value),
                None => original.remove(&key),
            };
        }
    }
    Ok(())
}

/// Fields that are null go, at every depth. Items of lists stay.
fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// Maps with `$patch` go, at every depth.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => None,
        Value::Object(fields) => {
            let kept = fields.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => Some(items.into_iter().filter_map(without_directives).collect()),
        scalar => Some(scalar),
    }
}

/// Merges two lists item by item. Returns the merged list, and the order of what Go's slice of the original holds
/// afterwards: Go deletes and appends in place, which those that still hold the slice can see.
fn merge_lists(original: Vec<Value>, patch: Vec<Value>, item: GoType, merge_key: &str) -> Result<(Vec<Value>, Order)> {
    match item_type_of_any(&original, &patch)? {
        None => Ok((original, Order::default())),
        Some(MAP) if merge_key.is_empty() => Err(StrategicError::NoMergeKeyDeclared { kind: item.kind() }),
        Some(MAP) => merge_lists_of_maps(original, patch, item, merge_key),
        Some(_) => {
            let patch_order = Order::of(&patch, None);
            let order = Order::of(&original, None);
            let is_in_place = patch.is_empty();
            let merged = unique(original.into_iter().chain(patch).collect())?;
            let order = if is_in_place { Order::of(&merged, None) } else { order };
            let (patched, server_only) = partition(merged, &patch_order, merge_key)?;
            Ok((arrange(patched, server_only, &patch_order, &order, None)?, order))
        }
    }
}

/// Each scalar once. One that repeats gives its place to the last, as in Go.
fn unique(mut items: Vec<Value>) -> Result<Vec<Value>> {
    let scalars = items.iter().map(Scalar::of).collect::<Result<Vec<_>>>()?;
    let mut places: HashMap<Scalar, BTreeSet<usize>> = HashMap::new();
    for (place, scalar) in scalars.into_iter().enumerate() {
        places.entry(scalar).or_default().insert(place);
    }
    let mut at = 0;
    while at < items.len() {
        let scalar = Scalar::of(&items[at])?;
        while let Some(again) = places.get(&scalar).and_then(|places| places.range(at + 1..).next().copied()) {
            let last = items.len() - 1;
            let moved = places.entry(Scalar::of(&items[last])?).or_default();
            moved.insert(again);
            moved.remove(&last);
            // What stood there is gone, unless the last is the same again.
            if Scalar::of(&items[last])? != scalar {
                places.entry(scalar.clone()).or_default().remove(&again);
            }
            items.swap_remove(again);
        }
        at += 1;
    }
    Ok(items)
}

fn merge_lists_of_maps(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    item: GoType,
    merge_key: &str,
) -> Result<(Vec<Value>, Order)> {
    let slots = original.len();
    let Special { plain, is_replaced, tail } = Special::take_from(&mut original, patch, merge_key)?;
    let mut order = Order::of(&original, Some(merge_key));
    if is_replaced {
        tail.iter().for_each(|scalar| order.push(Ok(scalar.clone())));
        let by_itself = Order::of(&plain, Some(merge_key));
        let (patched, server_only) = partition(plain, &Order::default(), merge_key)?;
        return Ok((arrange(patched, server_only, &Order::default(), &by_itself, Some(merge_key))?, order));
    }
    let kept = original.len();
    let patch_order = Order::of(&plain, Some(merge_key));
    for patch in plain {
        let Value::Object(patch) = patch else { continue };
        let value = key_of(&patch, merge_key)?;
        match order.find(value)? {
            Some(at) => {
                let Some(current) = original[at].as_object_mut() else { continue };
                *current = merge_maps(take(current), patch, item)?;
                // A null in both removes the key.
                if !current.contains_key(merge_key) {
                    order.first.remove(&Scalar::Null);
                }
            }
            None => {
                order.push(Scalar::of(value));
                original.push(patch.into());
            }
        }
    }
    let (patched, server_only) = partition(original, &patch_order, merge_key)?;
    order.seen = kept;
    let merged = arrange(patched, server_only, &patch_order, &order, Some(merge_key))?;
    order.seen = slots;
    Ok((merged, order))
}

/// Items with `$patch` of a list of maps, done.
struct Special {
    /// The other items of the patch.
    plain: Vec<Value>,
    /// Whether the list is to be replaced.
    is_replaced: bool,
    /// Keys that are left over at the end of Go's slice, when items before them were deleted and the rest moved up.
    tail: Vec<Scalar>,
}

impl Special {
    fn take_from(original: &mut Vec<Value>, patch: Vec<Value>, merge_key: &str) -> Result<Self> {
        let mut places: HashMap<Scalar, Vec<usize>> = HashMap::new();
        for (place, item) in original.iter().enumerate() {
            if let Some(Ok(scalar)) = item.get(merge_key).map(Scalar::of) {
                places.entry(scalar).or_default().push(place);
            }
        }
        let order = Order::of(original, Some(merge_key));
        let (mut plain, mut is_replaced, mut tail) = (Vec::new(), false, Vec::new());
        let (mut is_deleted, mut end) = (vec![false; original.len()], original.len());
        for item in patch {
            let map = fields(&item)?;
            let Some(said) = directive(map) else {
                plain.push(item);
                continue;
            };
            match said.as_str() {
                Some("delete") => {
                    let value = key_of(map, merge_key)?;
                    order.find(value)?;
                    for place in Scalar::of(value).ok().and_then(|scalar| places.remove(&scalar)).unwrap_or_default() {
                        while end > 0 && is_deleted[end - 1] {
                            end -= 1;
                        }
                        tail.push(original[end - 1].get(merge_key).cloned());
                        is_deleted[place] = true;
                    }
                }
                Some("replace") => is_replaced = true,
                Some("merge") => return Err(StrategicError::MergeDirectiveInList),
                _ => return Err(StrategicError::UnknownDirective { directive: said.clone(), map: item }),
            }
        }
        let mut is_deleted = is_deleted.into_iter();
        original.retain(|_| is_deleted.next() != Some(true));
        let tail = tail.iter().rev().filter_map(|value| value.as_ref().and_then(|value| Scalar::of(value).ok()));
        Ok(Self { plain, is_replaced, tail: tail.collect() })
    }
}

/// Go's name of the one type that the items of two lists have.
fn item_type(original: &[Value], patch: &[Value]) -> Result<&'static str> {
    item_type_of_any(original, patch)?.ok_or(StrategicError::NoItems)
}

/// As [`item_type`], or `None` where there are no items.
fn item_type_of_any(original: &[Value], patch: &[Value]) -> Result<Option<&'static str>> {
    let mut types = original.iter().chain(patch).map(go_type);
    match types.next() {
        None => Ok(None),
        Some(NIL) => Err(StrategicError::NullItem),
        Some(LIST) => Err(StrategicError::ListOfLists),
        Some(first) if types.all(|ty| ty == first) => Ok(Some(first)),
        Some(_) => Err(StrategicError::MixedItems { lists: vec![Value::from(original), Value::from(patch)].into() }),
    }
}

#[cfg(test)]
mod tests;
