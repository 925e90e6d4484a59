//! Sorts: the order of the elements along the last dim of a space.
//!
//! Each element becomes a key of 32 bits, and a radix sort orders the rows of keys together with the
//! elements' places. Elements of 64 bits are sorted twice: by their lower halves, and then by their upper
//! halves, which are read in the order found so far. Rows whose keys do not fit into one binding are sorted
//! in parts, one after the other. On GPUs, rows of up to 1,024 elements are read, sorted in workgroup memory
//! and written by one dispatch.

use super::body::ShaderBody;
use super::emit::{Emitter, GROUP, Width};
use super::loops::{count, indices};
use super::nest::{Nest, raise};
use super::radix::{Keys, RadixRows, WORKGROUP, begin, temp};
use super::scan::{self, TEMPS};
use crate::gpu::GpuShared;
use crate::gpu::program::Dispatch;
use crate::kernel::{Access, IndexedDim, Instr, Sort, Store, Ty};
use crate::layout::{Dims, Strides, contiguous_strides};
use crate::{DType, Error, Result};

/// The most keys that are sorted at a time.
const MAX_KEYS: usize = 1 << 28;

/// The elements that a workgroup sorts, and the number of its invocations.
const WORKGROUP_KEYS: usize = 1024;
const WIDE_WORKGROUP: u32 = 256;

/// A word of a dtype's key: the number of its bits, and its expression in the element's value `x`.
type Word = (usize, &'static str);

/// The words of the key that compares as the elements of a dtype do, the least significant first.
const fn key_words(dtype: DType) -> &'static [Word] {
    match dtype {
        DType::F32 => &[(32, "float_key(bitcast<u32>(x), 0x80000000u, 0x7f800000u)")],
        DType::F16 => &[(16, "float_key(f16_bits(x), 0x8000u, 0x7c00u)")],
        DType::BF16 => &[(16, "float_key(bf16_bits(x), 0x8000u, 0x7f80u)")],
        DType::I64 => &[(32, "x.lo"), (32, "x.hi ^ 0x80000000u")],
        DType::I32 => &[(32, "bitcast<u32>(x) ^ 0x80000000u")],
        DType::U8 => &[(8, "bitcast<u32>(x)")],
        DType::Bool => &[(1, "select(0u, 1u, x)")],
        DType::F64 => &[(32, "d_key_low(x)"), (32, "d_key_high(x)")],
    }
}

/// The dispatches of a sort, and the bytes that its buffers and temporaries need.
pub(super) fn plan(
    shared: &GpuShared,
    sort: &Sort,
    needs: &mut Vec<u64>,
    temps: &mut Vec<usize>,
) -> Result<Vec<Dispatch>> {
    let words = key_words(sort.source.dtype);
    let mut steps = Vec::new();
    scan::nest(sort.sizes.clone(), vec![sort.source.clone()]).needs(needs);
    scan::nest(sort.target_sizes(), vec![sort.target.clone()]).needs(needs);
    if sort.target_sizes().contains(&0) {
        raise(needs, sort.source.buffer, 0);
        return Ok(steps);
    }
    let length = sort.sizes.last().copied().unwrap_or(1);
    if length <= WORKGROUP_KEYS && !shared.caps.spread.software {
        match in_workgroups(shared, sort, words, &mut steps) {
            // A row reaches over more than a binding, so the keys are written and read in parts of rows.
            Err(Error::Unsupported { .. }) => steps.clear(),
            result => return result.map(|()| steps),
        }
    }
    let most = (shared.caps.max_binding as usize / 4).min(MAX_KEYS) / length;
    if most == 0 {
        return Err(Error::Unsupported {
            op: "sort",
            reason: format!(
                "the keys of {length} elements are more than the {} bytes that this device binds at a time; \
                 sort parts, or on the CPU",
                shared.caps.max_binding
            ),
        });
    }
    let mut parts = Vec::new();
    cut(sort, most, &mut parts);
    let rows = |part: &Sort| part.sizes[..part.sizes.len() - 1].iter().product::<usize>();
    // Parts are sorted one after the other, so they share temporaries.
    let largest = parts.iter().map(rows).max().unwrap_or(0);
    let at = Keys { keys: temp(temps, largest * length * 4), order: temp(temps, largest * length * 4) };
    let bits = words.iter().map(|word| word.0).max().unwrap_or(0);
    let all = RadixRows::new(shared, largest, length, bits, at, temps);
    let own = temps.len();
    for part in &parts {
        let mut keys = all.first(rows(part));
        for (n, word) in words.iter().enumerate() {
            make_keys(shared, part, word, n, keys.at, &mut steps)?;
            // The words of a key are sorted one after the other, so they share temporaries as well.
            let mut used = temps[..own].to_vec();
            keys.sort(shared, &mut used, &mut steps)?;
            temps.resize(temps.len().max(used.len()), 0);
            temps.iter_mut().zip(used).for_each(|(bytes, used)| *bytes = used.max(*bytes));
        }
        write_places(shared, part, keys.at.order, &mut steps)?;
    }
    Ok(steps)
}

/// Adds the dispatches that sort short rows, padded to a power of two, with as many rows in each workgroup as
/// its memory holds.
fn in_workgroups(shared: &GpuShared, sort: &Sort, words: &[Word], steps: &mut Vec<Dispatch>) -> Result<()> {
    let along = sort.sizes.len() - 1;
    let padded = sort.sizes[along].next_power_of_two().max(2);
    // The space has one dim of elements and another of wanted places.
    let (mut sizes, wanted) = (sort.sizes.clone(), along + 1);
    sizes.push(sort.count);
    let (mut source, mut target) = (sort.source.clone(), sort.target.clone());
    source.strides.push(0);
    target.strides.insert(along, 0);
    let mut nest = scan::nest(sizes, vec![source, target]);
    nest.kernel.body = vec![Instr::Load { access: 0, indices: Default::default() }, Instr::Accumulator];
    nest.kernel.stores = vec![Store { access: 1, value: 1 }];
    let dims: Vec<usize> = (0..along).collect();
    for (part, windows) in nest.spaces(&[0, 1], &dims, None, &shared.caps)? {
        let mut body = ShaderBody::new(&part, &windows, None, Ty::I64);
        let mut e = Emitter::new(shared, "Short rows, sorted in workgroup memory.", WIDE_WORKGROUP);
        let rows = count(&part, &dims, None);
        let each = WORKGROUP_KEYS / padded;
        let (limit, length) = (e.uniform("rows", rows), e.uniform("length", sort.sizes[along]));
        let (padded, each_name) = (e.uniform("padded", padded), e.uniform("group_rows", each));
        let slots = |e: &mut Emitter<'_>, d: usize, count: &str| {
            e.open(format!("for (var slot = local; slot < {WORKGROUP_KEYS}u; slot += {WIDE_WORKGROUP}u) {{"));
            e.line(format!("let row = ({GROUP}) * {each_name} + slot / {padded};"));
            e.line(format!("let i{d} = slot % {padded};"));
            e.line(format!("let is_element = row < {limit} && i{d} < {count};"));
        };
        let names: Vec<String> = (0..words.len()).map(|n| format!("keys{n}")).collect();
        e.workgroup_array("places", "u32", WORKGROUP_KEYS as u32);
        names.iter().for_each(|name| e.workgroup_array(name, "u32", WORKGROUP_KEYS as u32));
        slots(&mut e, along, &length);
        e.line(format!("places[slot] = i{along};"));
        // Padding comes last, since its keys are the largest and its places are larger than those of all
        // elements.
        names.iter().for_each(|name| e.line(format!("{name}[slot] = 0xffffffffu;")));
        e.open("if (is_element) {");
        let mark = body.mark();
        indices(&mut e, &part, &dims, None, "row");
        body.require(&mut e, &[0])?;
        e.line(format!("let x = {};", body.value(0, Width::One)));
        for (n, (name, (bits, expression))) in names.iter().zip(words).enumerate() {
            let flip = e.uniform(&format!("flip{n}"), flip(sort, *bits));
            e.line(format!("{name}[slot] = ({expression}) ^ {flip};"));
        }
        body.forget(mark);
        e.close();
        e.close();
        let load: String = names
            .iter()
            .map(|name| format!("let {name}_a = {name}[a]; let {name}_b = {name}[b]; "))
            .collect();
        let exchange: String =
            names.iter().map(|name| format!("{name}[a] = {name}_b; {name}[b] = {name}_a; ")).collect();
        let after = names.iter().fold("place_a > place_b".to_owned(), |rest, name| {
            format!("{name}_a > {name}_b || ({name}_a == {name}_b && ({rest}))")
        });
        e.insert(
            include_str!("../../../shaders/bitonic.wgsl"),
            &[("padded", &padded), ("load", &load), ("exchange", &exchange), ("after", &after)],
        );
        let wanted_count = e.uniform("wanted", sort.count);
        let first = e.uniform("first_wanted", sort.first);
        slots(&mut e, wanted, &wanted_count);
        e.open("if (is_element) {");
        indices(&mut e, &part, &dims, None, "row");
        body.accumulator = Some(format!("i64_of_u32(places[slot + {first}])"));
        body.require(&mut e, &[1])?;
        body.store(&mut e, &part.kernel.stores[0])?;
        e.close();
        e.close();
        steps.push(e.finish(rows.div_ceil(each))?);
    }
    Ok(())
}

/// The bits that are flipped in a word of the key, so that a descending sort is an ascending one.
fn flip(sort: &Sort, bits: usize) -> usize {
    if sort.descending { (u32::MAX >> (32 - bits)) as usize } else { 0 }
}

/// Cuts the rows of a sort until each part has at most `most` rows.
fn cut(sort: &Sort, most: usize, parts: &mut Vec<Sort>) {
    let outer = &sort.sizes[..sort.sizes.len() - 1];
    if outer.iter().product::<usize>() <= most {
        return parts.push(sort.clone());
    }
    let Some(dim) = (0..outer.len()).max_by_key(|&d| outer[d]) else { return };
    let half = outer[dim] / 2;
    for (start, len) in [(0, half), (half, outer[dim] - half)] {
        let mut part = sort.clone();
        part.sizes[dim] = len;
        for access in [&mut part.source, &mut part.target] {
            access.offset += access.strides[dim] * start as isize;
        }
        cut(&part, most, parts);
    }
}

/// An access to a temporary that holds rows of `length` elements, over sizes whose last one may be smaller.
fn rows_access(temp: usize, sizes: &Dims, length: usize, offset: usize) -> Access {
    let mut whole = sizes.clone();
    if let Some(last) = whole.last_mut() {
        *last = length;
    }
    let dense = contiguous_strides(&whole);
    let strides: Strides =
        dense.iter().zip(sizes).map(|(&stride, &size)| if size == 1 { 0 } else { stride }).collect();
    Access::new(TEMPS + temp, DType::I32, &strides, offset as isize)
}

/// Adds the dispatches that write a word of each element's key. For the first word the elements are read in
/// their own order, which is written as well; for the others they are read in the order found so far.
fn make_keys(
    shared: &GpuShared,
    sort: &Sort,
    &(bits, expression): &Word,
    word: usize,
    to: Keys,
    steps: &mut Vec<Dispatch>,
) -> Result<()> {
    let along = sort.sizes.len() - 1;
    let length = sort.sizes[along];
    let keys = rows_access(to.keys, &sort.sizes, length, 0);
    let order = rows_access(to.order, &sort.sizes, length, 0);
    let mut source = sort.source.clone();
    let (body, stores) = if word == 0 {
        let body = vec![
            Instr::Load { access: 0, indices: Default::default() },
            Instr::Accumulator,
            Instr::Coord { dim: along },
        ];
        (body, vec![Store { access: 1, value: 1 }, Store { access: 2, value: 2 }])
    } else {
        let stride = std::mem::take(&mut source.strides[along]);
        source.indexed.push(IndexedDim { stride, size: length, op: "sort" });
        let body = vec![
            Instr::Load { access: 2, indices: Default::default() },
            Instr::Load { access: 0, indices: smallvec::smallvec![0] },
            Instr::Accumulator,
        ];
        (body, vec![Store { access: 1, value: 2 }])
    };
    let mut nest = scan::nest(sort.sizes.clone(), vec![source, keys, order]);
    (nest.kernel.body, nest.kernel.stores) = (body, stores);
    each(shared, "Keys of elements.", &nest, steps, |e, body| {
        let element = u32::from(word > 0);
        body.require(e, &[element])?;
        e.line(format!("let x = {};", body.value(element, Width::One)));
        let flip = e.uniform("flip", flip(sort, bits));
        e.line(format!("let key = bitcast<i32>(({expression}) ^ {flip});"));
        Ok("key".to_owned())
    })
}

/// Adds the dispatches that write the wanted places of the sorted rows.
fn write_places(shared: &GpuShared, sort: &Sort, order: usize, steps: &mut Vec<Dispatch>) -> Result<()> {
    let sizes = sort.target_sizes();
    let length = sort.sizes.last().copied().unwrap_or(1);
    let order = rows_access(order, &sizes, length, sort.first);
    let mut nest = scan::nest(sizes, vec![order, sort.target.clone()]);
    nest.kernel.body =
        vec![Instr::Load { access: 0, indices: Default::default() }, Instr::Cast { a: 0, to: DType::I64 }];
    nest.kernel.stores = vec![Store { access: 1, value: 1 }];
    each(shared, "The places of sorted elements.", &nest, steps, |_, _| Ok(String::new()))
}

/// Adds the dispatches that run a body at each index of a space. `accumulate` writes statements before it,
/// and returns the expression of [`Instr::Accumulator`], an I32.
fn each(
    shared: &GpuShared,
    title: &'static str,
    nest: &Nest,
    steps: &mut Vec<Dispatch>,
    accumulate: impl Fn(&mut Emitter<'_>, &mut ShaderBody<'_>) -> Result<String>,
) -> Result<()> {
    let used: Vec<usize> = (0..nest.kernel.accesses.len()).collect();
    let dims: Vec<usize> = (0..nest.kernel.sizes.len()).collect();
    for (part, mut windows) in nest.spaces(&used, &dims, None, &shared.caps)? {
        windows.values_mut().for_each(scan::name_temp);
        let mut body = ShaderBody::new(&part, &windows, None, Ty::I32);
        let mut e = Emitter::new(shared, title, WORKGROUP);
        let threads = count(&part, &dims, None);
        begin(&mut e, threads);
        indices(&mut e, &part, &dims, None, "thread");
        body.accumulator = Some(accumulate(&mut e, &mut body)?);
        let values: Vec<u32> = part.kernel.stores.iter().map(|store| store.value).collect();
        body.require(&mut e, &values)?;
        for store in &part.kernel.stores {
            body.store(&mut e, store)?;
        }
        steps.push(e.finish(threads.div_ceil(WORKGROUP as usize))?);
    }
    Ok(())
}
