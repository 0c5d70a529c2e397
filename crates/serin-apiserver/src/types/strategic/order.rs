//! The order of lists: where their items are, and how merged lists are arranged. `normalizeElementOrder` in Go.

use std::collections::HashMap;

use serde_json::Value;

use super::go::{LIST, MAP, go_type};
use super::{Result, StrategicError, fields, key_of};

/// Parts the items that an order names from those that it does not.
pub(super) fn partition(items: Vec<Value>, by: &Order, merge_key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let (mut patched, mut server_only) = (Vec::new(), Vec::new());
    if let Some(got) = by.incomparable().filter(|_| merge_key.is_empty()) {
        return Err(StrategicError::Incomparable { got });
    }
    for item in items {
        let is_named = if merge_key.is_empty() {
            Scalar::of(&item)?;
            by.find(&item)?.is_some()
        } else {
            by.find(key_of(fields(&item)?, merge_key)?)?.is_some()
        };
        if is_named { patched.push(item) } else { server_only.push(item) }
    }
    Ok((patched, server_only))
}

/// Sorts items of the patch in its order and those of the server in theirs, and inserts each of the latter before the
/// first of the patch that the server has after it.
///
/// `key` is what items are told apart by, if they are maps.
pub(super) fn arrange(
    patched: Vec<Value>,
    server_only: Vec<Value>,
    patch_order: &Order,
    server_order: &Order,
    key: Option<&str>,
) -> Result<Vec<Value>> {
    let patched = sorted(patched, patch_order, key)?;
    let server_only = sorted(server_only, server_order, key)?;
    let mut merged = Vec::with_capacity(patched.len() + server_only.len());
    let (mut left, mut right) = (server_only.into_iter().peekable(), patched.into_iter().peekable());
    while let (Some(server), Some(patch)) = (left.peek(), right.peek()) {
        let (server, patch) = (server_order.place(server, key)?, server_order.place(patch, key)?);
        let is_before = server.zip(patch).is_some_and(|(server, patch)| server < patch);
        merged.extend(if is_before { left.next() } else { right.next() });
    }
    merged.extend(left.chain(right));
    Ok(merged)
}

fn sorted(items: Vec<Value>, order: &Order, key: Option<&str>) -> Result<Vec<Value>> {
    if let Some(fault) = order.fault.as_ref().filter(|_| key.is_some()) {
        return Err(fault.clone());
    }
    let mut placed: Vec<_> = items.into_iter().map(|item| (order.place(&item, key), item)).collect();
    // Items that the order does not name are before all others, and each other: no order at all, and so the outcome is
    // that of Go's way of sorting.
    stable_sort(&mut placed, &|(left, _), (right, _)| match left.clone()? {
        None => Ok(true),
        Some(left) => Ok(right.clone()?.is_none_or(|right| left < right)),
    })?;
    Ok(placed.into_iter().map(|(_, item)| item).collect())
}

/// Go's `sort.SliceStable`, which matters when `less` is no order.
fn stable_sort<T>(items: &mut [T], less: &impl Fn(&T, &T) -> Result<bool>) -> Result<()> {
    const BLOCK: usize = 20;
    for block in items.chunks_mut(BLOCK) {
        for end in 1..block.len() {
            let mut at = end;
            while at > 0 && less(&block[at], &block[at - 1])? {
                block.swap(at, at - 1);
                at -= 1;
            }
        }
    }
    let mut size = BLOCK;
    while size < items.len() {
        for pair in items.chunks_mut(2 * size).filter(|pair| pair.len() > size) {
            merge_halves(pair, size, less)?;
        }
        size *= 2;
    }
    Ok(())
}

/// Merges `items[..half]` and `items[half..]`, each sorted, in place: SymMerge of Kim and Kutzner, as Go has it.
fn merge_halves<T>(items: &mut [T], half: usize, less: &impl Fn(&T, &T) -> Result<bool>) -> Result<()> {
    let len = items.len();
    if half == 1 {
        let end = first_that((half, len), |at| Ok(!less(&items[at], &items[0])?))?;
        items[..end].rotate_left(1);
        return Ok(());
    }
    if len - half == 1 {
        let start = first_that((0, half), |at| less(&items[half], &items[at]))?;
        items[start..].rotate_right(1);
        return Ok(());
    }
    let middle = len / 2;
    let sum = middle + half;
    let range = if half > middle { (sum - len, middle) } else { (0, half) };
    let start = first_that(range, |at| less(&items[sum - 1 - at], &items[at]))?;
    let end = sum - start;
    if start < half && half < end {
        items[start..end].rotate_left(half - start);
    }
    if 0 < start && start < middle {
        merge_halves(&mut items[..middle], start, less)?;
    }
    if middle < end && end < len {
        merge_halves(&mut items[middle..], end - middle, less)?;
    }
    Ok(())
}

/// Halves a range until it has found the first that holds, if all after it hold.
fn first_that((mut start, mut end): (usize, usize), holds: impl Fn(usize) -> Result<bool>) -> Result<usize> {
    while start < end {
        let at = usize::midpoint(start, end);
        if holds(at)? {
            end = at;
        } else {
            start = at + 1;
        }
    }
    Ok(start)
}

/// Where the items of a list are, by themselves or by their keys.
#[derive(Default)]
pub(super) struct Order {
    pub(super) first: HashMap<Scalar, usize>,
    /// The first whose key is a map, and a list.
    map_at: Option<usize>,
    list_at: Option<usize>,
    /// The first that should have a key and is no map.
    not_map_at: Option<usize>,
    /// What is wrong with the first item that has no key, if items are to have one.
    fault: Option<StrategicError>,
    len: usize,
    /// So many items count in [`Order::place`].
    pub(super) seen: usize,
}

impl Order {
    pub(super) fn of(items: &[Value], key: Option<&str>) -> Self {
        let mut order = Self::default();
        for item in items {
            let Some(key) = key else {
                order.push(Scalar::of(item));
                continue;
            };
            match fields(item).and_then(|map| key_of(map, key)) {
                Ok(value) => order.push(Scalar::of(value)),
                Err(fault) => {
                    if !item.is_object() {
                        order.not_map_at.get_or_insert(order.len);
                    }
                    order.fault.get_or_insert(fault);
                    order.len += 1;
                    order.seen += 1;
                }
            }
        }
        order
    }

    pub(super) fn push(&mut self, scalar: Result<Scalar>) {
        let at = self.len;
        match scalar {
            Ok(scalar) => {
                self.first.entry(scalar).or_insert(at);
            }
            Err(StrategicError::Incomparable { got: MAP }) => {
                self.map_at.get_or_insert(at);
            }
            Err(_) => {
                self.list_at.get_or_insert(at);
            }
        }
        self.len += 1;
        self.seen += 1;
    }

    pub(super) fn incomparable(&self) -> Option<&'static str> {
        match (self.map_at, self.list_at) {
            (Some(map), Some(list)) if list < map => Some(LIST),
            (Some(_), _) => Some(MAP),
            (None, list) => list.map(|_| LIST),
        }
    }

    /// The index of a value, as if all were looked at from the first on.
    pub(super) fn find(&self, value: &Value) -> Result<Option<usize>> {
        let found = match value {
            Value::Object(_) => self.map_at,
            Value::Array(_) => self.list_at,
            scalar => self.first.get(&Scalar::of(scalar)?).copied(),
        };
        match self.not_map_at {
            Some(at) if found.is_none_or(|found| at < found) => Err(StrategicError::NotAMap { at }),
            _ if found.is_some() => Scalar::of(value).map(|_| found),
            _ => Ok(None),
        }
    }

    /// The index of an item in what is seen of the order.
    pub(super) fn place(&self, item: &Value, key: Option<&str>) -> Result<Option<usize>> {
        let value = match key {
            Some(key) => item.get(key).unwrap_or(&Value::Null),
            None => item,
        };
        let found = match value {
            Value::Object(_) => self.map_at,
            Value::Array(_) => self.list_at,
            scalar => self.first.get(&Scalar::of(scalar)?).copied(),
        };
        found.filter(|at| *at < self.seen).map(|at| Scalar::of(value).map(|_| at)).transpose()
    }
}

/// What Go can compare. Integers and other numbers are never the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Integer(i64),
    /// Its bits, zero never negative.
    Float(u64),
    Text(String),
}

impl Scalar {
    pub(super) fn of(value: &Value) -> Result<Self> {
        Ok(match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Bool(*truth),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => Self::Integer(integer),
                None => Self::Float((number.as_f64().unwrap_or_default() + 0.0).to_bits()),
            },
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(_) | Value::Object(_) => {
                return Err(StrategicError::Incomparable { got: go_type(value) });
            }
        })
    }
}
