//! Numpy-style broadcasting: which elements of the operands meet in which element of the result.

use super::super::error::Fault;
use super::super::tensor::{RANK_MAX, Shape};

/// A walk over a result in row-major order, with the position in each of `N` operands. Adjacent axes that all operands
/// step through alike are merged, so that most walks are one or two loops.
#[derive(Debug, Clone)]
pub(super) struct Walk<const N: usize> {
    extents: [usize; RANK_MAX],
    strides: [[usize; N]; RANK_MAX],
    rank: usize,
}

impl<const N: usize> Walk<N> {
    /// The result's shape, and the walk.
    ///
    /// # Errors
    /// [`Fault::Broadcast`] when two extents differ and neither is 1, [`Fault::Huge`].
    pub(super) fn broadcast(shapes: [&Shape; N]) -> Result<(Shape, Walk<N>), Fault> {
        let rank = shapes.iter().map(|shape| shape.rank()).max().unwrap_or(0);
        let mut extents = [1; RANK_MAX];
        for (from_right, extent) in extents[..rank].iter_mut().rev().enumerate() {
            for shape in shapes {
                let Some(position) = shape.rank().checked_sub(from_right + 1) else { continue };
                let got = shape.dims()[position];
                if *extent == 1 {
                    *extent = got;
                } else if got != 1 && got != *extent {
                    return Err(Fault::Broadcast { axis: from_right, left: *extent, right: got });
                }
            }
        }
        let mut strides = [[0; N]; RANK_MAX];
        for (operand, shape) in shapes.iter().enumerate() {
            let mut stride = 1;
            for (from_right, &dim) in shape.dims().iter().rev().enumerate() {
                strides[rank - 1 - from_right][operand] = if dim == 1 { 0 } else { stride };
                stride *= dim;
            }
        }
        let shape = Shape::new(&extents[..rank]).ok_or(Fault::Huge)?;
        Ok((shape, Walk::merged(&extents[..rank], &strides[..rank])))
    }

    /// A walk over `extents` with the given steps per axis and operand.
    pub(super) fn merged(extents: &[usize], strides: &[[usize; N]]) -> Walk<N> {
        let mut walk = Walk { extents: [1; RANK_MAX], strides: [[0; N]; RANK_MAX], rank: 0 };
        for (&extent, steps) in extents.iter().zip(strides) {
            if extent == 1 {
                continue;
            }
            let outer = walk.rank.wrapping_sub(1);
            let mergeable =
                walk.rank > 0 && (0..N).all(|operand| walk.strides[outer][operand] == steps[operand] * extent);
            if mergeable {
                walk.extents[outer] *= extent;
                walk.strides[outer] = *steps;
            } else {
                walk.extents[walk.rank] = extent;
                walk.strides[walk.rank] = *steps;
                walk.rank += 1;
            }
        }
        if walk.rank == 0 {
            walk.rank = 1;
        }
        walk
    }

    /// Calls `run` for each innermost loop, with the operands' start positions, the number of elements and the
    /// operands' steps between them.
    pub(super) fn runs(&self, mut run: impl FnMut([usize; N], usize, [usize; N])) {
        if self.extents[..self.rank].contains(&0) {
            return;
        }
        let inner = self.rank - 1;
        let mut counters = [0; RANK_MAX];
        let mut at = [0; N];
        loop {
            run(at, self.extents[inner], self.strides[inner]);
            // Advance like an odometer, from the axis next to the innermost.
            let mut axis = inner;
            loop {
                let Some(next) = axis.checked_sub(1) else { return };
                axis = next;
                counters[axis] += 1;
                if counters[axis] < self.extents[axis] {
                    for (at, step) in at.iter_mut().zip(self.strides[axis]) {
                        *at += step;
                    }
                    break;
                }
                for (at, step) in at.iter_mut().zip(self.strides[axis]) {
                    *at -= step * (self.extents[axis] - 1);
                }
                counters[axis] = 0;
            }
        }
    }
}

/// Applies `f` to the elements of two operands and appends the results in order.
pub(super) fn apply2<A: Copy, B: Copy, O>(walk: &Walk<2>, a: &[A], b: &[B], out: &mut Vec<O>, f: impl Fn(A, B) -> O) {
    walk.runs(|[a_at, b_at], count, steps| match steps {
        [1, 1] => {
            let pairs = a[a_at..a_at + count].iter().zip(&b[b_at..b_at + count]);
            out.extend(pairs.map(|(a, b)| f(*a, *b)));
        }
        [1, 0] => {
            let b = b[b_at];
            out.extend(a[a_at..a_at + count].iter().map(|a| f(*a, b)));
        }
        [0, 1] => {
            let a = a[a_at];
            out.extend(b[b_at..b_at + count].iter().map(|b| f(a, *b)));
        }
        [a_step, b_step] => {
            out.extend((0..count).map(|index| f(a[a_at + index * a_step], b[b_at + index * b_step])));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(a: &[usize], b: &[usize]) -> Result<(Vec<usize>, Vec<usize>), Fault> {
        let (a, b) = (Shape::new(a).unwrap(), Shape::new(b).unwrap());
        let (shape, walk) = Walk::broadcast([&a, &b])?;
        let left: Vec<usize> = (0..a.elements()).collect();
        let right: Vec<usize> = (0..b.elements()).map(|value| value * 100).collect();
        let mut out = Vec::new();
        apply2(&walk, &left, &right, &mut out, |a, b| a + b);
        Ok((shape.dims().to_vec(), out))
    }

    #[test]
    fn operands_meet_as_in_numpy() {
        type Row<'a> = (&'a str, &'a [usize], &'a [usize], &'a [usize], &'a [usize]);
        let rows: [Row<'_>; 8] = [
            ("equal", &[2, 2], &[2, 2], &[2, 2], &[0, 101, 202, 303]),
            ("scalar", &[2, 2], &[], &[2, 2], &[0, 1, 2, 3]),
            ("one element of any rank", &[1, 1, 1], &[2], &[1, 1, 2], &[0, 100]),
            ("bias", &[2, 2], &[2], &[2, 2], &[0, 101, 2, 103]),
            ("column", &[2, 2], &[2, 1], &[2, 2], &[0, 1, 102, 103]),
            ("outer", &[2, 1], &[1, 2], &[2, 2], &[0, 100, 1, 101]),
            ("middle axis", &[2, 1, 2], &[1, 2, 1], &[2, 2, 2], &[0, 1, 100, 101, 2, 3, 102, 103]),
            ("no rows", &[0, 2], &[2], &[0, 2], &[]),
        ];
        for (why, a, b, shape, out) in rows {
            assert_eq!(add(a, b), Ok((shape.to_vec(), out.to_vec())), "{why}");
        }
        assert_eq!(add(&[2, 3], &[2]), Err(Fault::Broadcast { axis: 0, left: 3, right: 2 }));
    }
}
