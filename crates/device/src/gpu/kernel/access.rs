//! Reads and writes the elements of a loop: addresses, packed dtypes, guards and checked indices.
//!
//! Guarantee: every address that a load or a store uses lies inside its binding, for all indices of the space
//! and all values of the data. Affine addresses do so because the kernel promises it and a launch checks the
//! buffers' sizes. Guarded addresses and those of vectors that end beyond the space are clamped to the last
//! element of the binding, and checked indices are clamped to their dim. Rounding up to whole vectors stays
//! inside, since blocks are multiples of 256 bytes.

use super::body::{ShaderBody, to_width};
use super::emit::{Emitter, LANES, Width};
use super::nest::{buffer_name, further};
use crate::gpu::program::UniformPatch;
use crate::kernel::{Access, Instr, Reg, Store, Ty};
use crate::{DType, Error, Result};

/// The form in which a buffer is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An array of elements, or of words that hold several elements.
    Elements,
    /// An array of vectors of four elements.
    Vectors,
    /// An array of atomic words, because several invocations write parts of one word.
    Atomic,
}

/// How the four elements of a vector lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VectorLayout {
    /// Contiguous, beginning at a multiple of four elements.
    Aligned,
    /// At a constant stride.
    Strided,
}

const COMPONENTS: [&str; 4] = ["x", "y", "z", "w"];

impl ShaderBody<'_> {
    /// Decides the form of each buffer from all of its accesses.
    pub(super) fn find_forms(&mut self) {
        let kernel = &self.nest.kernel;
        for (i, access) in kernel.accesses.iter().enumerate() {
            let all = kernel.accesses.iter().enumerate().filter(|(_, a)| a.buffer == access.buffer);
            let aligned = all.clone().all(|(j, _)| self.run(j) == VectorLayout::Aligned);
            let packed_store = all.clone().any(|(j, a)| a.dtype.size() < 4 && self.is_stored(j));
            let form = match (aligned, packed_store) {
                _ if self.is_wide(access.buffer) => Form::Elements,
                (true, _) => Form::Vectors,
                (false, true) => Form::Atomic,
                (false, false) => Form::Elements,
            };
            let _ = i;
            self.forms.insert(access.buffer, form);
        }
    }

    fn is_stored(&self, access: usize) -> bool {
        self.nest.kernel.stores.iter().any(|store| store.access == access)
    }

    fn run(&self, index: usize) -> VectorLayout {
        let kernel = &self.nest.kernel;
        let access = &kernel.accesses[index];
        let Some(d) = self.vector.filter(|&d| access.strides[d] == 1) else { return VectorLayout::Strided };
        let four = |n: isize| n % 4 == 0;
        let mut steps = access.strides.iter().enumerate();
        let aligned = four(access.offset)
            && steps.all(|(other, &stride)| other == d || four(stride))
            && access.indexed.iter().all(|dim| four(dim.stride))
            && access.guards.iter().all(|&g| kernel.ranges[g].strides[d] == 0)
            && self.index_width(index) == Width::One;
        let whole_rows = kernel.sizes[d].is_multiple_of(4);
        let others = |j: usize| j != index && kernel.accesses[j].buffer == access.buffer && self.is_stored(j);
        let alone = kernel.sizes.len() == 1 && !access.partial && !(0..kernel.accesses.len()).any(others);
        // A store of whole vectors must not overwrite elements of other rows.
        if aligned && (!self.is_stored(index) || whole_rows || alone) {
            VectorLayout::Aligned
        } else {
            VectorLayout::Strided
        }
    }

    /// The width of the widest index value of an access.
    fn index_width(&self, access: usize) -> Width {
        let widths = self.nest.kernel.body.iter().filter_map(|instr| match instr {
            Instr::Load { access: a, indices } if *a == access => {
                indices.iter().map(|&r| self.widths[r as usize]).max()
            }
            _ => None,
        });
        widths.max().unwrap_or(Width::One)
    }

    /// Declares the buffer of an access, and returns its name.
    fn bind(&self, e: &mut Emitter<'_>, access: &Access) -> String {
        let name = buffer_name(access.buffer);
        let Some(window) = self.windows.get(&access.buffer) else { return name };
        let element = match self.forms[&access.buffer] {
            Form::Atomic => "atomic<u32>",
            form => element_type(access.dtype, self.is_mixed(access.buffer), form == Form::Vectors),
        };
        e.bind(&name, element, window.clone());
        name
    }

    /// Whether a buffer is accessed as elements of several dtypes, and is therefore declared as an array of
    /// words.
    fn is_mixed(&self, buffer: usize) -> bool {
        let mut dtypes = self.nest.kernel.accesses.iter().filter(|a| a.buffer == buffer).map(|a| a.dtype);
        let first = dtypes.next();
        dtypes.any(|dtype| Some(dtype) != first)
    }

    /// The position of the element at the invocation's indices; that of the first element for a vector.
    fn address(&self, e: &mut Emitter<'_>, label: &str, access: &Access) -> String {
        let start =
            self.windows.get(&access.buffer).map_or(0, |window| window.start) / access.dtype.size() as u64;
        let mut address = e.offset_uniform(
            &format!("{label}_offset"),
            access.offset - start as isize,
            access.buffer,
            access.dtype.size(),
        );
        for (d, &stride) in access.strides.iter().enumerate().filter(|(_, s)| **s != 0) {
            if self.vector == Some(d) && stride == 1 {
                address = format!("{address} + i{d}");
            } else {
                let stride = e.signed_uniform(&format!("{label}_stride{d}"), stride);
                address = format!("{address} + i{d} * {stride}");
            }
        }
        address
    }

    /// The positions of a vector's four elements, from that of the first.
    fn addresses(&self, e: &mut Emitter<'_>, label: &str, access: &Access, first: &str) -> String {
        match self.vector.map(|d| (d, access.strides[d])) {
            None | Some((_, 0)) => format!("vec4<u32>({first})"),
            Some((_, 1)) => format!("(vec4<u32>({first}) + {LANES})"),
            Some((d, stride)) => {
                let stride = e.signed_uniform(&format!("{label}_stride{d}"), stride);
                format!("(vec4<u32>({first}) + {LANES} * {stride})")
            }
        }
    }

    /// The expression of a load.
    pub(super) fn load(
        &self,
        e: &mut Emitter<'_>,
        index: usize,
        indices: &[Reg],
        name: &str,
        width: Width,
    ) -> Result<String> {
        let access = &self.nest.kernel.accesses[index];
        let ty = Ty::of(access.dtype);
        let buffer = self.bind(e, access);
        let label = format!("x{index}");
        let form = self.forms[&access.buffer];
        let mut first = self.address(e, &label, access);
        let guard = self.guard(e, access, name, width);
        let mut moved = String::new();
        for (k, (dim, &reg)) in access.indexed.iter().zip(indices).enumerate() {
            let index_width = self.widths[reg as usize];
            let size = e.uniform(&format!("{label}_size{k}"), dim.size);
            let op = e.shared.checked_op(dim.op) as usize;
            let op = e.uniform(&format!("{label}_op{k}"), op);
            let stride = e.signed_uniform(&format!("{label}_index_stride{k}"), dim.stride);
            let active = self.active(guard.as_deref(), width, index_width);
            let check = if self.types[reg as usize] == Ty::I64 { "checked_i64" } else { "checked_i32" };
            let lanes = if index_width == Width::Four { "x4" } else { "" };
            e.use_checks();
            let value = self.value(reg, index_width);
            e.line(format!("let {name}_index{k} = {check}{lanes}({value}, {size}, {op}, {active});"));
            match index_width {
                Width::One => first = format!("{first} + {name}_index{k} * {stride}"),
                Width::Four => moved = format!("{moved} + {name}_index{k} * {stride}"),
            }
        }
        let aligned = form == Form::Vectors
            && width == Width::Four
            && moved.is_empty()
            && self.run(index) == VectorLayout::Aligned;
        let wide = self.is_wide(access.buffer);
        let bounded = !access.guards.is_empty() || (self.valid.is_some() && width == Width::Four && !aligned);
        // Reads from a buffer in several windows are clamped to each window.
        let last = (bounded && !wide).then(|| self.last(e, &label, access));
        let memory =
            ShaderBuffer { buffer: &buffer, dtype: access.dtype, form, mixed: self.is_mixed(access.buffer) };
        let loaded = if aligned {
            e.line(format!("let {name}_at = {};", bound(&first, last.as_deref(), Width::One)));
            memory.load_vector(&format!("{name}_at"))
        } else if moved.is_empty() && self.vector.is_none_or(|d| access.strides[d] == 0) {
            e.line(format!("let {name}_at = {};", bound(&first, last.as_deref(), Width::One)));
            to_width(&self.element(e, &memory, access, &label, &format!("{name}_at")), ty, Width::One, width)
        } else {
            let at = format!("{}{moved}", self.addresses(e, &label, access, &first));
            e.line(format!("let {name}_at = {};", bound(&at, last.as_deref(), Width::Four)));
            let element = |c| self.element(e, &memory, access, &label, &format!("{name}_at.{c}"));
            let parts: Vec<String> = COMPONENTS.into_iter().map(element).collect();
            let parts = parts.join(", ");
            match ty {
                Ty::I64 => format!("i64_join({parts})"),
                _ => format!("{}({parts})", super::emit::type_name(ty, Width::Four)),
            }
        };
        Ok(match guard {
            Some(guard) => super::body::choose(ty, width, &zero(ty, width), &loaded, &guard),
            None => loaded,
        })
    }

    /// Defines the conjunction of an access's guards.
    fn guard(&self, e: &mut Emitter<'_>, access: &Access, name: &str, width: Width) -> Option<String> {
        let checks: Vec<String> = access.guards.iter().map(|&g| self.in_range(e, g, width)).collect();
        if checks.is_empty() {
            return None;
        }
        e.line(format!("let {name}_inside = {};", checks.join(" & ")));
        Some(format!("{name}_inside"))
    }

    /// The condition under which an index is checked: it exists, and no guard prevents its use.
    fn active(&self, guard: Option<&str>, guard_width: Width, width: Width) -> String {
        let mut terms = Vec::new();
        if let Some(guard) = guard {
            terms.push(match (guard_width, width) {
                (Width::Four, Width::One) => format!("any({guard})"),
                _ => guard.to_owned(),
            });
        }
        if width == Width::Four {
            terms.extend(self.valid.clone());
        }
        terms.extend(self.live.as_ref().map(|live| to_width(live, Ty::Bool, Width::One, width)));
        if terms.is_empty() { to_width("true", Ty::Bool, Width::One, width) } else { terms.join(" & ") }
    }

    /// Whether a buffer is bound in several windows.
    fn is_wide(&self, buffer: usize) -> bool {
        self.windows.contains_key(&further(buffer, 1))
    }

    /// The expression of one element of a buffer, from the window in which it lies.
    fn element(
        &self,
        e: &mut Emitter<'_>,
        memory: &ShaderBuffer<'_>,
        access: &Access,
        label: &str,
        at: &str,
    ) -> String {
        if !self.is_wide(access.buffer) {
            return memory.load(at);
        }
        let (ty, bytes) = (Ty::of(access.dtype), access.dtype.size() as u64);
        let element = element_type(access.dtype, memory.mixed, false);
        let mut found = String::new();
        let windows = (0..).map_while(|n| self.windows.get(&further(access.buffer, n)));
        for (n, window) in windows.enumerate() {
            let name = if n == 0 { memory.buffer.to_owned() } else { format!("{}_window{n}", memory.buffer) };
            let binding = e.bind(&name, element, window.clone());
            let last =
                e.patched_uniform(&format!("{label}_last{n}"), "u32", UniformPatch::Last { binding, bytes });
            let part = ShaderBuffer { buffer: &name, ..*memory };
            if n == 0 {
                found = part.load(&format!("min({at}, {last})"));
                continue;
            }
            // Positions are relative to the first window.
            let start = (window.start - self.windows[&access.buffer].start) / bytes;
            let start = e.uniform(&format!("{label}_window{n}"), start as usize);
            let value = part.load(&format!("min(max({at}, {start}) - {start}, {last})"));
            found = super::body::choose(ty, Width::One, &found, &value, &format!("({at} >= {start})"));
        }
        found
    }

    fn last(&self, e: &mut Emitter<'_>, label: &str, access: &Access) -> String {
        // `bind` has just declared the binding.
        let window = self.windows.get(&access.buffer).cloned();
        let binding = window.map_or(0, |window| e.bind(&buffer_name(access.buffer), "", window));
        let patch = UniformPatch::Last { binding, bytes: access.dtype.size() as u64 };
        e.patched_uniform(&format!("{label}_last"), "u32", patch)
    }

    /// Writes a store.
    pub(super) fn store(&self, e: &mut Emitter<'_>, store: &Store) -> Result<()> {
        let access = &self.nest.kernel.accesses[store.access];
        let ty = Ty::of(access.dtype);
        if ty != self.types[store.value as usize] {
            return Err(Error::Unsupported { op: "prepare", reason: format!("a store as {}", access.dtype) });
        }
        let buffer = self.bind(e, access);
        let label = format!("y{}", store.access);
        let form = self.forms[&access.buffer];
        let first = self.address(e, &label, access);
        let memory =
            ShaderBuffer { buffer: &buffer, dtype: access.dtype, form, mixed: self.is_mixed(access.buffer) };
        let steps = self.vector.is_some_and(|d| access.strides[d] != 0);
        if let Some(live) = &self.live {
            e.open(format!("if ({live}) {{"));
        }
        if !steps {
            let value = self.value(store.value, Width::One);
            e.open("{");
            e.line(format!("let at = {first};"));
            memory.store(e, "at", &value);
            e.close();
        } else if form == Form::Vectors {
            let value = self.value(store.value, Width::Four);
            e.open("{");
            e.line(format!("let at = {first};"));
            memory.store_vector(e, "at", &value);
            e.close();
        } else {
            let value = self.value(store.value, Width::Four);
            let at = self.addresses(e, &label, access, &first);
            e.open("{");
            e.line(format!("let at = {at};"));
            e.line(format!("let value = {value};"));
            for c in COMPONENTS {
                let part = if ty == Ty::I64 { format!("i64_{c}(value)") } else { format!("value.{c}") };
                if let Some(valid) = &self.valid {
                    e.open(format!("if ({valid}.{c}) {{"));
                }
                memory.store(e, &format!("at.{c}"), &part);
                if self.valid.is_some() {
                    e.close();
                }
            }
            e.close();
        }
        if self.live.is_some() {
            e.close();
        }
        Ok(())
    }
}

fn bound(address: &str, last: Option<&str>, width: Width) -> String {
    match (last, width) {
        (None, _) => address.to_owned(),
        (Some(last), Width::One) => format!("min({address}, {last})"),
        (Some(last), Width::Four) => format!("min({address}, vec4<u32>({last}))"),
    }
}

/// The expression of zero or false.
pub(super) fn zero(ty: Ty, width: Width) -> String {
    let t = super::emit::type_name(ty, width);
    match (ty, width) {
        (Ty::Bool, _) => format!("{t}(false)"),
        (Ty::I64, Width::One) => "I64(0u, 0u)".to_owned(),
        (Ty::I64, Width::Four) => "I64x4(vec4<u32>(0u), vec4<u32>(0u))".to_owned(),
        _ => format!("{t}(0)"),
    }
}

/// The WGSL type of the elements of a storage array.
pub(super) const fn element_type(dtype: DType, mixed: bool, vectors: bool) -> &'static str {
    match (dtype, vectors) {
        (DType::F32, false) if !mixed => "f32",
        (DType::F32, true) if !mixed => "vec4<f32>",
        (DType::I32, false) if !mixed => "i32",
        (DType::I32, true) if !mixed => "vec4<i32>",
        (DType::F32 | DType::I32, true) => "vec4<u32>",
        (DType::F64, false) if !mixed => "f64",
        (DType::F64, true) if !mixed => "vec4<f64>",
        (DType::I64 | DType::F64, false) => "vec2<u32>",
        (DType::I64 | DType::F64, true) => "vec4<u32>",
        (DType::F16 | DType::BF16, true) => "vec2<u32>",
        _ => "u32",
    }
}

/// A declared buffer, from which expressions read and to which statements write.
pub(super) struct ShaderBuffer<'a> {
    pub(super) buffer: &'a str,
    pub(super) dtype: DType,
    pub(super) form: Form,
    pub(super) mixed: bool,
}

impl ShaderBuffer<'_> {
    fn word(&self, index: &str) -> String {
        match self.form {
            Form::Atomic => format!("atomicLoad(&{}[{index}])", self.buffer),
            _ => format!("{}[{index}]", self.buffer),
        }
    }

    /// The expression of one element.
    pub(super) fn load(&self, at: &str) -> String {
        match self.dtype {
            DType::F32 if self.mixed => format!("bitcast<f32>({})", self.word(at)),
            DType::I32 if self.mixed => format!("bitcast<i32>({})", self.word(at)),
            DType::F32 | DType::I32 => self.word(at),
            DType::F64 if self.mixed => format!("d_at({})", self.word(at)),
            DType::F64 => self.word(at),
            DType::I64 => format!("i64_at({})", self.word(at)),
            DType::F16 => format!("f16_value(half_of({}, {at}))", self.word(&format!("{at} >> 1u"))),
            DType::BF16 => format!("bf16_value(half_of({}, {at}))", self.word(&format!("{at} >> 1u"))),
            DType::U8 => format!("bitcast<i32>(byte_of({}, {at}))", self.word(&format!("{at} >> 2u"))),
            DType::Bool => format!("(byte_of({}, {at}) != 0u)", self.word(&format!("{at} >> 2u"))),
        }
    }

    /// The expression of four contiguous elements that begin at a multiple of four.
    pub(super) fn load_vector(&self, at: &str) -> String {
        let buffer = self.buffer;
        match self.dtype {
            DType::F32 if self.mixed => format!("bitcast<vec4<f32>>({buffer}[{at} >> 2u])"),
            DType::I32 if self.mixed => format!("bitcast<vec4<i32>>({buffer}[{at} >> 2u])"),
            DType::F32 | DType::I32 => format!("{buffer}[{at} >> 2u]"),
            DType::F64 if !self.mixed => format!("{buffer}[{at} >> 2u]"),
            DType::I64 | DType::F64 => {
                let split = if self.dtype == DType::I64 { "i64_split" } else { "d_split" };
                format!("{split}({buffer}[{at} >> 1u], {buffer}[({at} >> 1u) + 1u])")
            }
            DType::F16 => format!("f16_value4(halves_split({buffer}[{at} >> 2u]))"),
            DType::BF16 => format!("bf16_value4(halves_split({buffer}[{at} >> 2u]))"),
            DType::U8 => format!("bitcast<vec4<i32>>(bytes_split({buffer}[{at} >> 2u]))"),
            DType::Bool => format!("(bytes_split({buffer}[{at} >> 2u]) != vec4<u32>(0u))"),
        }
    }

    /// Writes one element. If several share a word, only the element's own bits are changed.
    pub(super) fn store(&self, e: &mut Emitter<'_>, at: &str, value: &str) {
        let buffer = self.buffer;
        let bits = match self.dtype {
            DType::F32 | DType::I32 if self.mixed => {
                return e.line(format!("{buffer}[{at}] = bitcast<u32>({value});"));
            }
            DType::F64 if self.mixed => return e.line(format!("{buffer}[{at}] = d_words({value});")),
            DType::F32 | DType::I32 | DType::F64 => return e.line(format!("{buffer}[{at}] = {value};")),
            DType::I64 => return e.line(format!("{buffer}[{at}] = i64_words({value});")),
            DType::F16 => format!("f16_bits({value})"),
            DType::BF16 => format!("bf16_bits({value})"),
            DType::U8 => format!("(bitcast<u32>({value}) & 0xffu)"),
            DType::Bool => format!("select(0u, 1u, {value})"),
        };
        let (shift, place, mask) = if self.dtype.is_half() {
            (1, format!("(({at} & 1u) * 16u)"), "0xffffu")
        } else {
            (2, format!("(({at} & 3u) * 8u)"), "0xffu")
        };
        e.line(format!("atomicAnd(&{buffer}[{at} >> {shift}u], ~({mask} << {place}));"));
        e.line(format!("atomicOr(&{buffer}[{at} >> {shift}u], {bits} << {place});"));
    }

    /// Writes four contiguous elements that begin at a multiple of four.
    pub(super) fn store_vector(&self, e: &mut Emitter<'_>, at: &str, value: &str) {
        let buffer = self.buffer;
        let vector = match self.dtype {
            DType::F32 | DType::I32 if self.mixed => format!("bitcast<vec4<u32>>({value})"),
            DType::F32 | DType::I32 => value.to_owned(),
            DType::F64 if !self.mixed => value.to_owned(),
            DType::I64 | DType::F64 => {
                let value =
                    if self.dtype == DType::I64 { value.to_owned() } else { format!("d_pair({value})") };
                e.line(format!("let value = {value};"));
                e.line(format!(
                    "{buffer}[{at} >> 1u] = vec4<u32>(value.lo.x, value.hi.x, value.lo.y, value.hi.y);"
                ));
                return e.line(format!(
                    "{buffer}[({at} >> 1u) + 1u] = vec4<u32>(value.lo.z, value.hi.z, value.lo.w, value.hi.w);"
                ));
            }
            DType::F16 => format!("halves_join(f16_bits4({value}))"),
            DType::BF16 => format!("halves_join(bf16_bits4({value}))"),
            DType::U8 => format!("bytes_join(bitcast<vec4<u32>>({value}))"),
            DType::Bool => format!("bytes_join(select(vec4<u32>(0u), vec4<u32>(1u), {value}))"),
        };
        e.line(format!("{buffer}[{at} >> 2u] = {vector};"));
    }
}
