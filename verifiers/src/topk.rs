//! Rows by what stands at their top.
//!
//! Over `logits` the top of a row are the indices of its k largest numbers: −0 equals 0, NaN is below everything, and of equal
//! ones the first counts. Over `ids` it is the set of its first k numbers. The overlap of two rows is how many their tops have
//! in common: near at `accept_overlap` or more, far below `reject_overlap`, else between the bands. A row of fewer than k
//! numbers has no top, and an id that is no integer below 2^53 is none, so nobody can tell; a row's two sides are always of one
//! length.

use std::{cmp::Ordering, collections::BTreeSet};

use tribunal_events::Over;

use crate::sequential::Sample;

/// What the comparator of that name asks for.
pub(crate) struct Topk {
    pub(crate) over: Over,
    pub(crate) k: usize,
    pub(crate) accept_overlap: usize,
    pub(crate) reject_overlap: usize,
}

impl Topk {
    pub(crate) fn judge(&self, row: &str, own: &[f64], claimed: &[f64]) -> Sample {
        if own.len() < self.k {
            return Sample::Open(format!("{row}: {} numbers have no top {}", own.len(), self.k));
        }
        // Before anything is called the same: beyond 2^53 two ids can be one double.
        let (Some(left), Some(right)) = (self.top(own), self.top(claimed)) else {
            return Sample::Open(format!("{row}: an id is no integer below 2^53"));
        };
        let same = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan());
        if own.iter().zip(claimed).all(same) {
            return Sample::Same;
        }
        let overlap = left.intersection(&right).count();
        if overlap >= self.accept_overlap {
            return Sample::Near;
        }
        let lost = left.difference(&right).next().map_or_else(String::new, |lost| match self.over {
            Over::Logits => {
                let lost = *lost as usize;
                format!(", not [{lost}]: expected {}, claimed {}", own[lost], claimed[lost])
            }
            Over::Ids => {
                let at = (0..self.k).find(|at| own[*at] as u64 == *lost).unwrap_or(0);
                format!(", not id {lost} at [{at}], where {} is claimed", claimed[at])
            }
        });
        let what = format!("{row}: {overlap} of the top {} in common{lost}", self.k);
        if overlap >= self.reject_overlap { Sample::Open(what) } else { Sample::Far(what) }
    }

    fn top(&self, row: &[f64]) -> Option<BTreeSet<u64>> {
        match self.over {
            Over::Logits => Some(largest(row, self.k).into_iter().map(|index| index as u64).collect()),
            Over::Ids => {
                let id = |id: &f64| (0.0..9_007_199_254_740_992.0).contains(id) && id.fract() == 0.0;
                row[..self.k].iter().map(|value| id(value).then_some(*value as u64)).collect()
            }
        }
    }
}

/// The indices of the k largest numbers, largest first; at most as many as there are.
pub(crate) fn largest(row: &[f64], k: usize) -> Vec<usize> {
    let order = |a: &usize, b: &usize| {
        let by_value = match (row[*a].is_nan(), row[*b].is_nan()) {
            (false, false) => row[*b].partial_cmp(&row[*a]).unwrap_or(Ordering::Equal),
            (a, b) => a.cmp(&b),
        };
        by_value.then(a.cmp(b))
    };
    let mut indices: Vec<usize> = (0..row.len()).collect();
    if k < indices.len() {
        indices.select_nth_unstable_by(k, order);
        indices.truncate(k);
    }
    indices.sort_unstable_by(order);
    indices
}
