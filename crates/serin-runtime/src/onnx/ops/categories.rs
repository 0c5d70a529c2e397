//! Categories: one-hot columns, label maps.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::super::error::{Fault, NodeFault};
use super::super::node::{Labels, Lowered, Node, ValueType};
use super::super::plan::{Inputs, Kernel, Run};
use super::super::tensor::{DType, Data, RANK_MAX, Shape, Strings, Tensor};
use super::elementwise::push;

/// FNV-1a. The tables are made from the model and only read afterwards, so nobody can choose keys that collide.
#[derive(Clone, Copy)]
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    fn finish(&self) -> u64 {
        // The low bits choose the bucket; fold the high ones in.
        self.0 ^ (self.0 >> 32)
    }
}

type Table<K> = HashMap<K, usize, BuildHasherDefault<Fnv>>;

/// A table from keys to positions.
enum Keys {
    Texts(Table<Box<str>>),
    Ints(Table<i64>),
    /// By the bits of the number as a double; see [`float_key`].
    Floats(Table<u64>),
}

/// Equal floats have equal keys: one for both zeros, one for all NaNs.
fn float_key(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits()
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

/// `OneHotEncoder`: a new last axis with a 1 at the category's place.
struct OneHot {
    keys: Keys,
    count: usize,
    /// Encode an unknown category as all zeros, instead of refusing the row.
    zeros: bool,
}

pub(super) fn one_hot_encoder(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    let (texts, ints) = (node.texts("cats_strings")?, node.ints("cats_int64s")?);
    let zeros = node.int("zeros")?.unwrap_or(1) != 0;
    let (keys, count) = match node.dtype(0)? {
        DType::Str => {
            let table = texts.iter().enumerate().map(|(place, text)| ((*text).into(), place)).collect();
            (Keys::Texts(table), texts.len())
        }
        DType::Bool => return Err(NodeFault::InputType { index: 0, got: DType::Bool, wanted: "a number or string" }),
        _ => (Keys::Ints(ints.iter().enumerate().map(|(place, key)| (*key, place)).collect()), ints.len()),
    };
    if count == 0 {
        return Err(NodeFault::AttributeMissing { name: "cats_strings or cats_int64s, of the input's type" });
    }
    let ty = node.arg(0)?.ty;
    let dims = ty.dims.as_ref().map(|dims| [&dims[..], &[Some(count)]].concat());
    if dims.as_ref().is_some_and(|dims| dims.len() > RANK_MAX) {
        return Err(node.unsupported("an input of more than 7 axes"));
    }
    Lowered::kernel(OneHot { keys, count, zeros }, ValueType { dtype: DType::F32, dims })
}

impl Kernel for OneHot {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let input = inputs.get(0);
        let rank = input.shape().rank();
        if rank >= RANK_MAX {
            return Err(Fault::Rank { got: rank, wanted: "at most 7" });
        }
        let mut dims = [0; RANK_MAX];
        dims[..rank].copy_from_slice(input.dims());
        dims[rank] = self.count;
        let shape = Shape::new(&dims[..=rank]).ok_or(Fault::Huge)?;
        let out = outputs[0].reset::<f32>(shape, &mut run.budget)?;
        let strict = !self.zeros && !run.lenient_categories;
        let mut mark = |index: usize, place: Option<usize>| match place {
            Some(place) => {
                out[index * self.count + place] = 1.0;
                Ok(())
            }
            None if strict => Err(Fault::UnknownCategory { index }),
            None => Ok(()),
        };
        match (&self.keys, input.data()) {
            (Keys::Texts(table), Data::Str(texts)) => {
                texts.iter().enumerate().try_for_each(|(index, text)| mark(index, table.get(text).copied()))
            }
            (Keys::Ints(table), Data::I64(values)) => {
                values.iter().enumerate().try_for_each(|(index, key)| mark(index, table.get(key).copied()))
            }
            (Keys::Ints(table), Data::I32(values)) => {
                values.iter().enumerate().try_for_each(|(index, key)| mark(index, table.get(&i64::from(*key)).copied()))
            }
            (Keys::Ints(table), Data::F32(values)) => {
                values.iter().enumerate().try_for_each(|(index, key)| mark(index, table.get(&(*key as i64)).copied()))
            }
            (Keys::Ints(table), Data::F64(values)) => {
                values.iter().enumerate().try_for_each(|(index, key)| mark(index, table.get(&(*key as i64)).copied()))
            }
            (_, other) => Err(Fault::Type { got: other.dtype(), wanted: DType::Str }),
        }
    }
}

/// `LabelEncoder` and `CategoryMapper`: each key replaced by its value, unknown ones by a default.
struct Mapper {
    keys: Keys,
    /// NaN is a key like another (since opset 4); before, it is never found.
    nan_is_a_key: bool,
    /// The values, and the default last.
    values: Data,
}

impl Mapper {
    /// Keys from the attributes for the input's type. Of equal keys the first counts.
    fn keys(node: &Node<'_, '_>, dtype: DType) -> Result<(Keys, usize), NodeFault> {
        fn table<K: std::hash::Hash + Eq>(keys: impl Iterator<Item = K>) -> Table<K> {
            let mut table = Table::default();
            for (place, key) in keys.enumerate() {
                table.entry(key).or_insert(place);
            }
            table
        }
        let tensor = node.tensor("keys_tensor")?;
        let mismatch = NodeFault::AttributeType { name: "keys_tensor", wanted: "the type of the input" };
        match (dtype, &tensor) {
            (DType::Str, None) => {
                let keys = node.texts("keys_strings")?;
                Ok((Keys::Texts(table(keys.iter().map(|key| Box::from(*key)))), keys.len()))
            }
            (DType::I64, None) => {
                let keys = node.ints("keys_int64s")?;
                Ok((Keys::Ints(table(keys.iter().copied())), keys.len()))
            }
            (DType::F32, None) => {
                let keys = node.floats("keys_floats")?;
                Ok((Keys::Floats(table(keys.iter().map(|key| float_key(f64::from(*key))))), keys.len()))
            }
            (_, Some(tensor)) if tensor.dtype() != dtype => Err(mismatch),
            (_, Some(tensor)) => match tensor.data() {
                Data::Str(keys) => Ok((Keys::Texts(table(keys.iter().map(Box::from))), keys.len())),
                Data::I64(keys) => Ok((Keys::Ints(table(keys.iter().copied())), keys.len())),
                Data::F32(keys) => {
                    Ok((Keys::Floats(table(keys.iter().map(|key| float_key(f64::from(*key))))), keys.len()))
                }
                Data::F64(keys) => Ok((Keys::Floats(table(keys.iter().map(|key| float_key(*key)))), keys.len())),
                _ => Err(NodeFault::InputType { index: 0, got: dtype, wanted: "string, int64, float or double" }),
            },
            (got, None) => Err(NodeFault::InputType { index: 0, got, wanted: "string, int64 or float" }),
        }
    }

    /// Values from whichever attribute holds them, with the default appended.
    fn values(node: &Node<'_, '_>) -> Result<Data, NodeFault> {
        let mut values = if let Some(tensor) = node.tensor("values_tensor")? {
            tensor.data().clone()
        } else if node.has("values_strings") {
            Data::Str(node.texts("values_strings")?.into_iter().collect())
        } else if node.has("values_int64s") {
            Data::I64(node.ints("values_int64s")?)
        } else if node.has("values_floats") {
            Data::F32(node.floats("values_floats")?)
        } else {
            return Err(NodeFault::AttributeMissing { name: "values_strings, values_int64s or values_floats" });
        };
        let fallback = node.tensor("default_tensor")?;
        let wrong = NodeFault::AttributeType { name: "default_tensor", wanted: "one value of the values' type" };
        let first = |data: &Data| -> Result<Data, NodeFault> {
            match data.len() {
                1 => Ok(data.clone()),
                _ => Err(wrong),
            }
        };
        let fallback = fallback.map(|tensor| first(tensor.data())).transpose()?;
        match (&mut values, fallback) {
            (Data::Str(values), Some(Data::Str(default))) => values.push(default.get(0)),
            (Data::Str(values), None) => values.push(node.text("default_string")?.unwrap_or("_Unused")),
            (Data::I64(values), Some(Data::I64(default))) => values.extend(default),
            (Data::I64(values), None) => values.push(node.int("default_int64")?.unwrap_or(-1)),
            (Data::F32(values), Some(Data::F32(default))) => values.extend(default),
            (Data::F32(values), None) => values.push(node.float("default_float")?.unwrap_or(-0.0)),
            (Data::F64(values), Some(Data::F64(default))) => values.extend(default),
            (Data::F64(values), None) => values.push(node.float("default_float")?.map_or(-0.0, f64::from)),
            _ => return Err(NodeFault::AttributeType { name: "values_tensor", wanted: "a type of the definition" }),
        }
        Ok(values)
    }

    fn lowered(self, node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
        let arg = node.arg(0)?;
        let output = arg.ty.with_dtype(self.values.dtype());
        // Mapping a label output makes another label output.
        let classes = arg.classes.and_then(|classes| self.map_labels(classes)).map(Arc::new);
        Lowered::kernels(self, vec![output], classes)
    }

    fn map_labels(&self, classes: &Labels) -> Option<Labels> {
        let places: Vec<usize> = match (classes, &self.keys) {
            (Labels::Ints(keys), Keys::Ints(table)) => keys.iter().map(|key| self.place(table.get(key))).collect(),
            (Labels::Texts(keys), Keys::Texts(table)) => {
                keys.iter().map(|key| self.place(table.get(key.as_str()))).collect()
            }
            _ => return None,
        };
        match &self.values {
            Data::I64(values) => Some(Labels::Ints(places.iter().map(|place| values[*place]).collect())),
            Data::Str(values) => {
                Some(Labels::Texts(places.iter().map(|place| values.get(*place).to_owned()).collect()))
            }
            _ => None,
        }
    }

    /// The place of a key that was looked up: its own, or the default's, which is last.
    fn place(&self, found: Option<&usize>) -> usize {
        found.copied().unwrap_or(self.values.len() - 1)
    }
}

pub(super) fn label_encoder(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    if node.opset < 2 {
        return index_mapper(node, "classes_strings", None);
    }
    let (keys, count) = Mapper::keys(node, node.dtype(0)?)?;
    let values = Mapper::values(node)?;
    super::super::node::length("values", values.len() - 1, count)?;
    Mapper { keys, nan_is_a_key: node.opset >= 4, values }.lowered(node)
}

pub(super) fn category_mapper(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    index_mapper(node, "cats_strings", Some("cats_int64s"))
}

/// Maps texts to integers or back. Without a list of integers, a text's integer is its position.
fn index_mapper(node: &Node<'_, '_>, texts: &'static str, ints: Option<&'static str>) -> Result<Lowered, NodeFault> {
    let texts = node.texts(texts)?;
    let ints = match ints {
        Some(name) => {
            let ints = node.ints(name)?;
            super::super::node::length(name, ints.len(), texts.len())?;
            ints
        }
        None => (0..texts.len() as i64).collect(),
    };
    let (keys, values) = match node.dtype(0)? {
        DType::Str => {
            let keys = texts.iter().enumerate().map(|(place, text)| (Box::from(*text), place)).collect();
            let mut values = ints;
            values.push(node.int("default_int64")?.unwrap_or(-1));
            (Keys::Texts(keys), Data::I64(values))
        }
        DType::I64 => {
            let keys = ints.iter().enumerate().map(|(place, key)| (*key, place)).collect();
            let mut values: Strings = texts.into_iter().collect();
            values.push(node.text("default_string")?.unwrap_or("_Unused"));
            (Keys::Ints(keys), Data::Str(values))
        }
        got => return Err(NodeFault::InputType { index: 0, got, wanted: "string or int64" }),
    };
    Mapper { keys, nan_is_a_key: false, values }.lowered(node)
}

impl Kernel for Mapper {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let input = inputs.get(0);
        let places = &mut run.work.indices;
        places.clear();
        run.budget.take(input.data().len(), size_of::<usize>())?;
        match (&self.keys, input.data()) {
            (Keys::Texts(table), Data::Str(texts)) => {
                places.extend(texts.iter().map(|text| self.place(table.get(text))));
            }
            (Keys::Ints(table), Data::I64(keys)) => places.extend(keys.iter().map(|key| self.place(table.get(key)))),
            (Keys::Floats(table), Data::F32(keys)) => {
                places.extend(keys.iter().map(|key| self.float_place(table, f64::from(*key))));
            }
            (Keys::Floats(table), Data::F64(keys)) => {
                places.extend(keys.iter().map(|key| self.float_place(table, *key)));
            }
            (_, other) => return Err(Fault::Type { got: other.dtype(), wanted: DType::Str }),
        }
        let (shape, out) = (*input.shape(), &mut outputs[0]);
        match &self.values {
            Data::I64(values) => {
                out.reset_empty::<i64>(shape, &mut run.budget)?.extend(places.iter().map(|place| values[*place]));
            }
            Data::F32(values) => {
                out.reset_empty::<f32>(shape, &mut run.budget)?.extend(places.iter().map(|place| values[*place]));
            }
            Data::F64(values) => {
                out.reset_empty::<f64>(shape, &mut run.budget)?.extend(places.iter().map(|place| values[*place]));
            }
            Data::Str(values) => {
                let out = out.reset_strings(shape, &mut run.budget)?;
                for place in places.iter() {
                    push(out, values.get(*place), &mut run.budget)?;
                }
            }
            other => return Err(Fault::Type { got: other.dtype(), wanted: DType::I64 }),
        }
        Ok(())
    }
}

impl Mapper {
    fn float_place(&self, table: &Table<u64>, key: f64) -> usize {
        match key.is_nan() && !self.nan_is_a_key {
            true => self.place(None),
            false => self.place(table.get(&float_key(key))),
        }
    }
}
