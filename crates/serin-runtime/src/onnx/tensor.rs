//! Typed tensors whose storage is reused from call to call.

use std::fmt;

use super::error::Fault;

/// Most axes a tensor may have. Classic models use two; eight leaves room for exported networks.
pub const RANK_MAX: usize = 8;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float; `FP32` in Open Inference.
    F32,
    /// 64-bit float; `FP64`.
    F64,
    /// 64-bit signed integer; `INT64`.
    I64,
    /// 32-bit signed integer; `INT32`.
    I32,
    /// Truth value; `BOOL`.
    Bool,
    /// UTF-8 text; `BYTES`.
    Str,
}

impl DType {
    /// Bytes that one element takes in a tensor. Text is counted by its index entry; its bytes are counted apart.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F64 | DType::I64 | DType::Str => 8,
            DType::Bool => 1,
        }
    }

    /// The name ONNX uses.
    pub fn onnx_name(self) -> &'static str {
        match self {
            DType::F32 => "float",
            DType::F64 => "double",
            DType::I64 => "int64",
            DType::I32 => "int32",
            DType::Bool => "bool",
            DType::Str => "string",
        }
    }

    /// From `TensorProto.DataType`; `None` for types this runtime does not hold.
    pub fn from_onnx(code: i64) -> Option<DType> {
        Some(match code {
            1 => DType::F32,
            6 => DType::I32,
            7 => DType::I64,
            8 => DType::Str,
            9 => DType::Bool,
            11 => DType::F64,
            _ => return None,
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.onnx_name())
    }
}

/// The extents of a tensor, outermost first. Rank 0 is a scalar.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    dims: [usize; RANK_MAX],
    rank: u8,
}

impl Shape {
    /// A scalar.
    pub const SCALAR: Shape = Shape { dims: [0; RANK_MAX], rank: 0 };

    /// `None` when there are more than [`RANK_MAX`] axes or more than 2^40 elements.
    pub fn new(dims: &[usize]) -> Option<Shape> {
        let mut shape = Shape::SCALAR;
        shape.dims.get_mut(..dims.len())?.copy_from_slice(dims);
        shape.rank = dims.len() as u8;
        // The product of the non-zero extents is what must fit, so that a later change of a zero cannot overflow.
        let mut product = 1usize;
        for &dim in dims.iter().filter(|dim| **dim != 0) {
            product = product.checked_mul(dim)?;
        }
        (product <= 1 << 40).then_some(shape)
    }

    /// One axis.
    pub fn vector(length: usize) -> Shape {
        let mut shape = Shape::SCALAR;
        shape.dims[0] = length;
        shape.rank = 1;
        shape
    }

    /// Two axes.
    pub fn matrix(rows: usize, columns: usize) -> Result<Shape, Fault> {
        Shape::new(&[rows, columns]).ok_or(Fault::Huge)
    }

    /// The extents.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..usize::from(self.rank)]
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    /// Number of elements; 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// Rows and columns as the `ai.onnx.ml` operators see them: one axis is one row, further axes are not allowed.
    pub fn as_rows(&self) -> Result<(usize, usize), Fault> {
        match *self.dims() {
            [columns] => Ok((1, columns)),
            [rows, columns] => Ok((rows, columns)),
            _ => Err(Fault::Rank { got: self.rank(), wanted: "1 or 2" }),
        }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

/// A column of texts in one allocation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Strings {
    text: String,
    ends: Vec<usize>,
}

impl Strings {
    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Drops all texts and keeps the storage.
    pub fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// Appends a text.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// Appends a text in pieces: write to the buffer, then call [`Strings::finish`].
    pub(crate) fn buffer(&mut self) -> &mut String {
        &mut self.text
    }

    /// Ends the text that was written to [`Strings::buffer`].
    pub(crate) fn finish(&mut self) {
        self.ends.push(self.text.len());
    }

    /// The text at `index`.
    ///
    /// # Panics
    /// When `index` is not less than [`Strings::len`], as slices do.
    pub fn get(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start..self.ends[index]]
    }

    /// All texts in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index))
    }

    fn capacity_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

impl<'a> FromIterator<&'a str> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Strings {
        let mut strings = Strings::default();
        for text in texts {
            strings.push(text);
        }
        strings
    }
}

/// A tensor's elements, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// 64-bit integers.
    I64(Vec<i64>),
    /// 32-bit integers.
    I32(Vec<i32>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Texts.
    Str(Strings),
}

impl Data {
    /// Empty storage of a type.
    pub fn empty(dtype: DType) -> Data {
        match dtype {
            DType::F32 => Data::F32(Vec::new()),
            DType::F64 => Data::F64(Vec::new()),
            DType::I64 => Data::I64(Vec::new()),
            DType::I32 => Data::I32(Vec::new()),
            DType::Bool => Data::Bool(Vec::new()),
            DType::Str => Data::Str(Strings::default()),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
            Data::I64(_) => DType::I64,
            Data::I32(_) => DType::I32,
            Data::Bool(_) => DType::Bool,
            Data::Str(_) => DType::Str,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(values) => values.len(),
            Data::F64(values) => values.len(),
            Data::I64(values) => values.len(),
            Data::I32(values) => values.len(),
            Data::Bool(values) => values.len(),
            Data::Str(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn capacity_bytes(&self) -> usize {
        match self {
            Data::F32(values) => values.capacity() * 4,
            Data::F64(values) => values.capacity() * 8,
            Data::I64(values) => values.capacity() * 8,
            Data::I32(values) => values.capacity() * 4,
            Data::Bool(values) => values.capacity(),
            Data::Str(values) => values.capacity_bytes(),
        }
    }
}

/// A Rust type that a tensor can hold in a `Vec`.
pub trait Element: Copy + Default + PartialEq + 'static {
    /// Its element type.
    const DTYPE: DType;
    /// The elements, when the storage is of this type.
    fn slice(data: &Data) -> Option<&[Self]>;
    /// The storage, made of this type if it was of another.
    fn storage(data: &mut Data) -> &mut Vec<Self>;
}

macro_rules! element {
    ($rust:ty, $variant:ident) => {
        impl Element for $rust {
            const DTYPE: DType = DType::$variant;
            fn slice(data: &Data) -> Option<&[Self]> {
                match data {
                    Data::$variant(values) => Some(values),
                    _ => None,
                }
            }
            fn storage(data: &mut Data) -> &mut Vec<Self> {
                if !matches!(data, Data::$variant(_)) {
                    *data = Data::$variant(Vec::new());
                }
                match data {
                    Data::$variant(values) => values,
                    _ => unreachable!("the storage was just made of this type"),
                }
            }
        }
    };
}
element!(f32, F32);
element!(f64, F64);
element!(i64, I64);
element!(i32, I32);
element!(bool, Bool);

/// Memory that one evaluation may still use, in bytes. Every kernel takes its outputs from it, so a graph whose
/// tensors grow (a doubling `Concat`, an outer product) stops with an error and not with the machine's memory.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    left: usize,
    limit: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Budget {
        Budget { left: limit, limit }
    }

    /// Takes `count` elements of `size` bytes.
    ///
    /// # Errors
    /// [`Fault::OverBudget`] when that is more than what is left.
    pub fn take(&mut self, count: usize, size: usize) -> Result<(), Fault> {
        match count.checked_mul(size).and_then(|bytes| self.left.checked_sub(bytes)) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Fault::OverBudget { limit_bytes: self.limit }),
        }
    }
}

/// A tensor: shape and elements. `data.len() == shape.elements()` always holds after a kernel wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Shape,
    data: Data,
}

impl Default for Tensor {
    fn default() -> Tensor {
        Tensor { shape: Shape::vector(0), data: Data::F32(Vec::new()) }
    }
}

impl Tensor {
    /// `None` when the number of elements does not fit the shape.
    pub fn new(shape: Shape, data: Data) -> Option<Tensor> {
        (shape.elements() == data.len()).then_some(Tensor { shape, data })
    }

    /// The extents.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The extents as a slice.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The elements as numbers or truth values of type `T`.
    ///
    /// # Errors
    /// [`Fault::Type`] when the tensor holds another type.
    pub fn values<T: Element>(&self) -> Result<&[T], Fault> {
        T::slice(&self.data).ok_or(Fault::Type { got: self.dtype(), wanted: T::DTYPE })
    }

    /// The elements as texts.
    ///
    /// # Errors
    /// [`Fault::Type`] when the tensor holds numbers.
    pub fn strings(&self) -> Result<&Strings, Fault> {
        match &self.data {
            Data::Str(strings) => Ok(strings),
            other => Err(Fault::Type { got: other.dtype(), wanted: DType::Str }),
        }
    }

    /// Gives the tensor a shape and type and returns its elements, all zero, to be overwritten. The storage is reused.
    ///
    /// # Errors
    /// [`Fault::OverBudget`].
    pub fn reset<T: Element>(&mut self, shape: Shape, budget: &mut Budget) -> Result<&mut [T], Fault> {
        let values = self.reset_empty::<T>(shape, budget)?;
        values.resize(shape.elements(), T::default());
        Ok(values)
    }

    /// As [`Tensor::reset`], but returns empty storage that the caller must fill with exactly `shape.elements()` values.
    ///
    /// # Errors
    /// [`Fault::OverBudget`].
    pub fn reset_empty<T: Element>(&mut self, shape: Shape, budget: &mut Budget) -> Result<&mut Vec<T>, Fault> {
        budget.take(shape.elements(), T::DTYPE.size())?;
        self.shape = shape;
        let values = T::storage(&mut self.data);
        values.clear();
        values.reserve(shape.elements());
        Ok(values)
    }

    /// As [`Tensor::reset_empty`], for texts.
    ///
    /// # Errors
    /// [`Fault::OverBudget`].
    pub fn reset_strings(&mut self, shape: Shape, budget: &mut Budget) -> Result<&mut Strings, Fault> {
        budget.take(shape.elements(), DType::Str.size())?;
        self.shape = shape;
        if !matches!(self.data, Data::Str(_)) {
            self.data = Data::Str(Strings::default());
        }
        match &mut self.data {
            Data::Str(strings) => {
                strings.clear();
                Ok(strings)
            }
            _ => unreachable!("the storage was just made of texts"),
        }
    }

    /// Copies `source`'s elements under another shape of as many elements.
    ///
    /// # Errors
    /// [`Fault::OverBudget`], or [`Fault::Elements`] when the counts differ.
    pub fn copy_reshaped(&mut self, source: &Tensor, shape: Shape, budget: &mut Budget) -> Result<(), Fault> {
        if shape.elements() != source.shape.elements() {
            return Err(Fault::Elements { got: source.shape.elements(), wanted: shape.elements() });
        }
        match &source.data {
            Data::F32(values) => self.reset_empty(shape, budget)?.extend_from_slice(values),
            Data::F64(values) => self.reset_empty(shape, budget)?.extend_from_slice(values),
            Data::I64(values) => self.reset_empty(shape, budget)?.extend_from_slice(values),
            Data::I32(values) => self.reset_empty(shape, budget)?.extend_from_slice(values),
            Data::Bool(values) => self.reset_empty(shape, budget)?.extend_from_slice(values),
            Data::Str(values) => {
                budget.take(values.text.len(), 1)?;
                self.reset_strings(shape, budget)?.clone_from(values);
            }
        }
        Ok(())
    }

    /// The elements, to be changed in place.
    ///
    /// # Errors
    /// [`Fault::Type`] when the tensor holds another type.
    pub fn values_mut<T: Element>(&mut self) -> Result<&mut [T], Fault> {
        match self.dtype() {
            dtype if dtype == T::DTYPE => Ok(T::storage(&mut self.data)),
            got => Err(Fault::Type { got, wanted: T::DTYPE }),
        }
    }

    /// Bytes of storage held, used or not.
    pub fn capacity_bytes(&self) -> usize {
        self.data.capacity_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_cannot_be_held_is_refused() {
        assert!(Shape::new(&[1; RANK_MAX]).is_some());
        assert!(Shape::new(&[1; RANK_MAX + 1]).is_none());
        assert!(Shape::new(&[1 << 20, 1 << 20]).is_some());
        assert!(Shape::new(&[1 << 20, 1 << 21]).is_none());
        assert!(Shape::new(&[usize::MAX, 2]).is_none());
        // A zero extent does not hide an overflow of the others.
        assert!(Shape::new(&[0, usize::MAX, 2]).is_none());
    }

    #[test]
    fn a_budget_is_spent_once() {
        let mut budget = Budget::new(16);
        let mut tensor = Tensor::default();
        assert!(tensor.reset::<f32>(Shape::vector(4), &mut budget).is_ok());
        assert_eq!(tensor.reset::<f32>(Shape::vector(1), &mut budget), Err(Fault::OverBudget { limit_bytes: 16 }));
        assert!(Budget::new(usize::MAX).take(usize::MAX, 8).is_err());
    }

    #[test]
    fn texts_are_kept_in_order_and_apart() {
        let strings: Strings = ["", "ab", "", "ñ"].into_iter().collect();
        assert_eq!(strings.iter().collect::<Vec<_>>(), ["", "ab", "", "ñ"]);
        assert_eq!(strings.get(3), "ñ");
    }
}
