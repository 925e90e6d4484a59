//! Sums of products by equation.

use std::collections::HashMap;

use wgrad_array::{Error, Result};

use crate::Tensor;

/// A tensor with a label for each of its dims.
type Labelled = (Tensor, Vec<char>);

/// The labels of the dims that `...` stands for, counted from the last: characters that no equation has.
fn ellipsis_label(from_last: usize) -> char {
    char::from_u32(0xE000 + from_last as u32).unwrap_or('\u{E000}')
}

fn fail(reason: String) -> Error {
    Error::Argument { op: "einsum", reason }
}

/// # Products by equation
#[wgrad_macros::call_sites]
impl Tensor {
    /// Einstein's summation: each operand's dims get letters, equal letters are walked together, and letters that are not in
    /// the output are summed over. `...` stands for any further dims, which broadcast. Without `->` the output has the letters that
    /// appear once, in alphabetical order.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let a = Tensor::new([[1f32, 2.0], [3.0, 4.0]], &Device::cpu())?;
    /// let b = Tensor::new([1f32, 10.0], &Device::cpu())?;
    /// assert_eq!(Tensor::einsum("ij,j->i", &[&a, &b])?.to_vec::<f32>()?, [21.0, 43.0]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the equation does not fit the operands, or sizes of one letter differ.
    pub fn einsum(equation: &str, operands: &[&Tensor]) -> Result<Tensor> {
        let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (inputs, output) = match equation.split_once("->") {
            Some((inputs, output)) => (inputs.to_owned(), Some(output.to_owned())),
            None => (equation.clone(), None),
        };
        let terms: Vec<&str> = inputs.split(',').collect();
        if terms.len() != operands.len() {
            return Err(fail(format!(
                "{equation:?} has {} operands, but {} were given",
                terms.len(),
                operands.len()
            )));
        }
        let mut ellipsis = 0;
        let mut labelled = Vec::new();
        for (term, operand) in terms.iter().zip(operands) {
            let (labels, wide) = labels(term, Some(operand.rank()), 0)?;
            ellipsis = ellipsis.max(wide);
            labelled.push(diagonals((*operand).clone(), labels)?);
        }
        let output = match output {
            Some(output) => {
                let labels = labels(&output, None, ellipsis)?.0;
                for (i, label) in labels.iter().enumerate() {
                    if labels[..i].contains(label) {
                        return Err(fail(format!("the output of {equation:?} names {label:?} twice")));
                    }
                    if !labelled.iter().any(|(_, own)| own.contains(label)) {
                        return Err(fail(format!(
                            "the output of {equation:?} names {label:?}, which no operand has"
                        )));
                    }
                }
                labels
            }
            None => {
                let mut letters: Vec<char> = inputs.chars().filter(|c| c.is_ascii_alphabetic()).collect();
                letters.sort_unstable();
                let runs = letters.chunk_by(|a, b| a == b);
                let once = runs.filter_map(|run| if let [letter] = run { Some(*letter) } else { None });
                (0..ellipsis).rev().map(ellipsis_label).chain(once).collect()
            }
        };
        contract_all(labelled, &output)
    }
}

/// The labels of a term. With a rank, `...` takes the dims that are left; without one, `ellipsis` of them. Also how many.
fn labels(term: &str, rank: Option<usize>, ellipsis: usize) -> Result<(Vec<char>, usize)> {
    let (before, after) = match term.split_once("...") {
        Some((before, after)) => (before, Some(after)),
        None => (term, None),
    };
    let letters: Vec<char> = before.chars().chain(after.unwrap_or_default().chars()).collect();
    if let Some(wrong) = letters.iter().find(|c| !c.is_ascii_alphabetic()) {
        return Err(fail(format!("{term:?} has {wrong:?}, which is not a letter")));
    }
    let wide = match (rank, after) {
        (Some(rank), Some(_)) => rank.checked_sub(letters.len()),
        (Some(rank), None) => (rank == letters.len()).then_some(0),
        (None, Some(_)) => Some(ellipsis),
        (None, None) => Some(0),
    };
    let Some(wide) = wide else {
        let rank = rank.unwrap_or_default();
        return Err(fail(format!("{term:?} does not name the {rank} dims of its operand")));
    };
    let split = before.chars().count();
    let mut labels = letters[..split].to_vec();
    labels.extend((0..wide).rev().map(ellipsis_label));
    labels.extend(&letters[split..]);
    Ok((labels, wide))
}

/// Dims with one label become their diagonal.
fn diagonals(mut x: Tensor, mut labels: Vec<char>) -> Result<Labelled> {
    while let Some((first, second)) = repeated(&labels) {
        if x.shape()[first] != x.shape()[second] {
            let reason = format!("has different sizes in the dims labelled {:?}", labels[first]);
            return Err(Error::Shape { op: "einsum", shape: x.shape().to_vec(), reason });
        }
        x = x.diagonal(0, first as isize, second as isize)?;
        let label = labels[first];
        labels.remove(second);
        labels.remove(first);
        labels.push(label);
    }
    Ok((x, labels))
}

fn repeated(labels: &[char]) -> Option<(usize, usize)> {
    let pair =
        |(i, label): (usize, &char)| labels[..i].iter().position(|l| l == label).map(|first| (first, i));
    labels.iter().enumerate().find_map(pair)
}

/// Multiplies all operands from the left, summing over each label as soon as nobody needs it.
pub(in crate::ops) fn contract_all(operands: Vec<Labelled>, output: &[char]) -> Result<Tensor> {
    // The last operand that has a label: after it the label is only needed by the output.
    let mut last = HashMap::new();
    for (i, (_, labels)) in operands.iter().enumerate() {
        last.extend(labels.iter().map(|&label| (label, i)));
    }
    let mut rest = operands.into_iter().enumerate();
    let Some((_, mut result)) = rest.next() else { return Err(fail("there are no operands".into())) };
    for (i, next) in rest {
        let needed = |label: char| output.contains(&label) || last.get(&label).is_some_and(|&last| last > i);
        result = contract(result, next, needed)?;
    }
    let (mut x, mut labels) = result;
    let extra: Vec<usize> = (0..labels.len()).filter(|&d| !output.contains(&labels[d])).collect();
    if !extra.is_empty() {
        let dtype = x.dtype();
        x = x.sum_dim(extra, false)?.to_dtype(dtype)?;
        labels.retain(|label| output.contains(label));
    }
    let order = output.iter().map(|label| labels.iter().position(|own| own == label));
    let order: Option<Vec<usize>> = order.collect();
    x.permute(order.ok_or_else(|| fail("the output names a label that no operand has".into()))?)
}

/// The product of two operands, summed over the labels that are not needed any more.
fn contract(a: Labelled, b: Labelled, needed: impl Fn(char) -> bool) -> Result<Labelled> {
    let (mut a, mut b) = (a, b);
    let (left, right) = (a.1.clone(), b.1.clone());
    for (own, other) in [(&mut a, &right), (&mut b, &left)] {
        let alone: Vec<usize> =
            (0..own.1.len()).filter(|&d| !other.contains(&own.1[d]) && !needed(own.1[d])).collect();
        if !alone.is_empty() {
            let dtype = own.0.dtype();
            own.0 = own.0.sum_dim(alone.as_slice(), false)?.to_dtype(dtype)?;
            let labels =
                own.1.iter().enumerate().filter(|(d, _)| !alone.contains(d)).map(|(_, &label)| label);
            own.1 = labels.collect();
        }
    }
    let size = |x: &Labelled, label: char| x.1.iter().position(|&l| l == label).map(|d| x.0.shape()[d]);
    let shared: Vec<char> = a.1.iter().copied().filter(|label| b.1.contains(label)).collect();
    let mut sizes = Vec::new();
    for &label in &shared {
        let (left, right) = (size(&a, label).unwrap_or(1), size(&b, label).unwrap_or(1));
        if left != right && left != 1 && right != 1 {
            return Err(fail(format!("the sizes {left} and {right} of one label differ")));
        }
        sizes.push(if left == 1 { right } else { left });
    }
    let batch: Vec<char> = shared.iter().copied().filter(|&label| needed(label)).collect();
    let summed: Vec<char> = shared.iter().copied().filter(|&label| !needed(label)).collect();
    let left: Vec<char> = a.1.iter().copied().filter(|label| !shared.contains(label)).collect();
    let right: Vec<char> = b.1.iter().copied().filter(|label| !shared.contains(label)).collect();
    let full = |x: &Labelled, label: char| {
        let shared = shared.iter().position(|&l| l == label).map(|i| sizes[i]);
        shared.or_else(|| size(x, label)).unwrap_or(1)
    };
    let arranged = |x: &Labelled, order: [&[char]; 3]| -> Result<(Tensor, [Vec<usize>; 3])> {
        let labels: Vec<char> = order.concat();
        let dims: Vec<usize> =
            labels.iter().filter_map(|label| x.1.iter().position(|own| own == label)).collect();
        let parts = order.map(|part| part.iter().map(|&label| full(x, label)).collect::<Vec<usize>>());
        // Whether they can be that large, expanding finds out.
        let joined =
            [0, 1, 2].map(|i| parts[i].iter().fold(1, |product: usize, &n| product.saturating_mul(n)));
        Ok((x.0.permute(dims)?.expand(parts.concat())?.reshape(joined)?, parts))
    };
    let (lhs, [batch_sizes, left_sizes, _]) = arranged(&a, [&batch, &left, &summed])?;
    let (rhs, [_, _, right_sizes]) = arranged(&b, [&batch, &summed, &right])?;
    let product = lhs.matmul(&rhs)?;
    let shape = [batch_sizes, left_sizes, right_sizes].concat();
    Ok((product.reshape(shape)?, [batch, left, right].concat()))
}
