//! Builds a WGSL kernel: its source, its bindings and the values of its uniforms, which belong together.
//!
//! The source depends on the structure of a kernel only. Every size, stride, offset and count becomes a named
//! member of the uniform `p`, so that a kernel with other sizes has the same source and therefore the same
//! pipeline.

use std::fmt::Write;

use super::nest::memory_of;
use super::scan::TEMPS;
use crate::gpu::GpuShared;
use crate::gpu::pipeline::ShaderSource;
use crate::gpu::prelude;
use crate::gpu::program::{BoundMemory, Dispatch, UniformPatch, Window};
use crate::kernel::Ty;
use crate::{Error, Result};

/// The number of elements that a value of the source holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Width {
    /// One.
    One,
    /// Four consecutive ones: a vec4.
    Four,
}

impl Width {
    /// The suffix of the library's functions over such values.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Width::One => "",
            Width::Four => "4",
        }
    }

    /// The number of elements.
    pub(super) const fn count(self) -> usize {
        match self {
            Width::One => 1,
            Width::Four => 4,
        }
    }
}

/// The WGSL type of a value.
pub(super) const fn type_name(ty: Ty, width: Width) -> &'static str {
    match (ty, width) {
        (Ty::Bool, Width::One) => "bool",
        (Ty::U32, Width::One) => "u32",
        (Ty::I32, Width::One) => "i32",
        (Ty::I64, Width::One) => "I64",
        (Ty::F32, Width::One) => "f32",
        (Ty::F64, Width::One) => "f64",
        (Ty::Bool, Width::Four) => "vec4<bool>",
        (Ty::U32, Width::Four) => "vec4<u32>",
        (Ty::I32, Width::Four) => "vec4<i32>",
        (Ty::I64, Width::Four) => "I64x4",
        (Ty::F32, Width::Four) => "vec4<f32>",
        (Ty::F64, Width::Four) => "vec4<f64>",
    }
}

/// The bytes of a value of this type in workgroup memory.
pub(super) fn element_bytes(name: &str) -> u32 {
    match name {
        "I64" | "f64" | "Best" => 8,
        "Best64" => 12,
        _ => 4,
    }
}

/// The offsets of the four indices of a vector from the first one.
pub(super) const LANES: &str = "vec4<u32>(0u, 1u, 2u, 3u)";

/// The kernel that is being written.
pub(super) struct Emitter<'a> {
    pub(super) shared: &'a GpuShared,
    title: &'static str,
    workgroup: u32,
    params: Vec<(String, &'static str)>,
    words: Vec<u32>,
    patches: Vec<(usize, UniformPatch)>,
    bindings: Vec<(String, String)>,
    windows: Vec<Window>,
    internal: bool,
    checks_indices: bool,
    workgroup_memory: Vec<String>,
    workgroup_bytes: u32,
    functions: String,
    main: String,
    indent: usize,
}

impl<'a> Emitter<'a> {
    pub(super) fn new(shared: &'a GpuShared, title: &'static str, workgroup: u32) -> Emitter<'a> {
        let mut emitter = Emitter {
            shared,
            title,
            workgroup,
            params: Vec::new(),
            words: Vec::new(),
            patches: Vec::new(),
            bindings: Vec::new(),
            windows: Vec::new(),
            internal: false,
            checks_indices: false,
            workgroup_memory: Vec::new(),
            workgroup_bytes: 0,
            functions: String::new(),
            main: String::new(),
            indent: 1,
        };
        // `finish` sets these to the size of the dispatch.
        emitter.uniform("groups_x", 0);
        emitter.uniform("groups_xy", 0);
        emitter
    }

    /// Adds a u32 uniform, unless there is one of this name, and returns its expression.
    pub(super) fn uniform(&mut self, name: &str, value: usize) -> String {
        self.typed_uniform(name, "u32", value as u32)
    }

    /// Adds a uniform for a number that may be negative, as a u32 whose sums and products wrap.
    pub(super) fn signed_uniform(&mut self, name: &str, value: isize) -> String {
        self.typed_uniform(name, "u32", value as u32)
    }

    /// Adds a uniform for an offset in a buffer, in elements of `bytes` bytes from the start of its binding.
    pub(super) fn offset_uniform(&mut self, name: &str, value: isize, buffer: usize, bytes: usize) -> String {
        let known = self.params.iter().any(|(known, _)| known == name);
        if let (false, BoundMemory::Buffer(buffer @ ..TEMPS)) = (known, memory_of(buffer)) {
            self.patches.push((self.words.len(), UniformPatch::Begin { buffer, bytes: bytes as u64 }));
        }
        self.signed_uniform(name, value)
    }

    /// Adds an f32 uniform.
    pub(super) fn float_uniform(&mut self, name: &str, value: f32) -> String {
        self.typed_uniform(name, "f32", value.to_bits())
    }

    fn typed_uniform(&mut self, name: &str, ty: &'static str, word: u32) -> String {
        if !self.params.iter().any(|(known, _)| known == name) {
            self.params.push((name.to_owned(), ty));
            self.words.push(word);
        }
        format!("p.{name}")
    }

    /// Adds a uniform whose value is known at launch only.
    pub(super) fn patched_uniform(&mut self, name: &str, ty: &'static str, patch: UniformPatch) -> String {
        if !self.params.iter().any(|(known, _)| known == name) {
            self.patches.push((self.words.len(), patch));
        }
        self.typed_uniform(name, ty, 0)
    }

    /// The expression of a parameter of the launch.
    pub(super) fn parameter(&mut self, param: usize, ty: Ty) -> String {
        let name = format!("param{param}");
        let patch = UniformPatch::Scalar { param, ty };
        match ty {
            Ty::F32 => self.patched_uniform(&format!("{name}_f32"), "f32", patch),
            Ty::I32 => self.patched_uniform(&format!("{name}_i32"), "i32", patch),
            Ty::U32 => self.patched_uniform(&format!("{name}_u32"), "u32", patch),
            Ty::Bool => format!("({} != 0u)", self.patched_uniform(&format!("{name}_bool"), "u32", patch)),
            Ty::I64 | Ty::F64 => {
                let (suffix, make) = if ty == Ty::I64 { ("", "I64") } else { ("_f64", "d_of") };
                let low = self.patched_uniform(&format!("{name}{suffix}_lo"), "u32", patch);
                let high = self.uniform(&format!("{name}{suffix}_hi"), 0);
                format!("{make}({low}, {high})")
            }
        }
    }

    /// Adds a storage buffer, unless there is one of this name, and returns its binding. `element` is the
    /// type of the array's elements.
    pub(super) fn bind(&mut self, name: &str, element: &str, window: Window) -> usize {
        if let Some(known) = self.bindings.iter().position(|(known, _)| known == name) {
            return known;
        }
        self.bindings.push((name.to_owned(), element.to_owned()));
        self.windows.push(window);
        self.bindings.len() - 1
    }

    /// Notes that the kernel uses the internal buffer.
    pub(super) fn use_internal(&mut self) {
        self.internal = true;
    }

    /// Notes that the kernel checks indices and reports failures.
    pub(super) fn use_checks(&mut self) {
        self.internal = true;
        self.checks_indices = true;
    }

    /// Declares an array in workgroup memory. [`Emitter::finish`] checks that the device has room for all of
    /// them.
    pub(super) fn workgroup_array(&mut self, name: &str, element: &str, count: u32) {
        let declaration = format!("var<workgroup> {name}: array<{element}, {count}>;");
        if !self.workgroup_memory.contains(&declaration) {
            self.workgroup_memory.push(declaration);
            self.workgroup_bytes += element_bytes(element) * count;
        }
    }

    /// The bytes of workgroup memory that a kernel may declare.
    pub(super) fn room(&self) -> u32 {
        self.shared.caps.workgroup_memory
    }

    /// Whether the kernel uses workgroup memory so far, which other invocations may still be reading.
    pub(super) fn has_workgroup_memory(&self) -> bool {
        !self.workgroup_memory.is_empty()
    }

    /// Adds a line to the body of the current function.
    pub(super) fn line(&mut self, text: impl AsRef<str>) {
        for _ in 0..self.indent {
            self.main.push_str("    ");
        }
        self.main.push_str(text.as_ref());
        self.main.push('\n');
    }

    /// Adds a line that opens a block.
    pub(super) fn open(&mut self, text: impl AsRef<str>) {
        self.line(text);
        self.indent += 1;
    }

    /// Ends a block.
    pub(super) fn close(&mut self) {
        self.indent -= 1;
        self.line("}");
    }

    /// Makes what has been written so far a function of its own, before `main`.
    pub(super) fn end_function(&mut self, signature: &str) {
        let body = std::mem::take(&mut self.main);
        let _ = write!(self.functions, "{signature} {{\n{body}}}\n\n");
    }

    /// Adds the lines of a file, in which each `{{place}}` is replaced.
    pub(super) fn insert(&mut self, file: &str, places: &[(&str, &str)]) {
        let fill =
            |text: String, (place, value): &(&str, &str)| text.replace(&format!("{{{{{place}}}}}"), value);
        let text = places.iter().fold(file.to_owned(), fill);
        for line in text.lines().filter(|line| !line.starts_with("//")) {
            self.line(line);
        }
    }

    /// Compiles the kernel and returns it as a dispatch of `groups` workgroups.
    pub(super) fn finish(mut self, groups: usize) -> Result<Dispatch> {
        let room = self.room();
        if self.workgroup_bytes > room {
            let reason = format!(
                "{} bytes of workgroup memory are more than the {room} that the device has",
                self.workgroup_bytes
            );
            return Err(Error::Unsupported { op: "launch", reason });
        }
        let max = self.shared.caps.max_workgroups as usize;
        let x = groups.min(max);
        let y = groups.div_ceil(x.max(1)).min(max);
        let z = groups.div_ceil((x * y).max(1));
        if z > max {
            let reason =
                format!("{groups} workgroups are more than three dims of {max} have; split the operation");
            return Err(Error::Unsupported { op: "launch", reason });
        }
        self.words[0] = x as u32;
        self.words[1] = (x * y) as u32;
        let shader = self.shared.pipelines.shader(self.source())?;
        Ok(Dispatch {
            shader,
            windows: self.windows,
            words: self.words,
            patches: self.patches,
            groups: [x as u32, y as u32, z as u32],
            checks_indices: self.checks_indices,
        })
    }

    fn source(&self) -> ShaderSource {
        let mut head = format!("// {}\n\nstruct Params {{\n", self.title);
        for (name, ty) in &self.params {
            let _ = writeln!(head, "    {name}: {ty},");
        }
        head.push_str("}\n\n");
        for (i, (name, element)) in self.bindings.iter().enumerate() {
            let _ =
                writeln!(head, "@group(0) @binding({i}) var<storage, read_write> {name}: array<{element}>;");
        }
        head.push_str("@group(1) @binding(0) var<uniform> p: Params;\n");
        if self.internal {
            head.push_str("@group(1) @binding(1) var<storage, read_write> internal: Internal;\n");
        }
        for declaration in &self.workgroup_memory {
            let _ = writeln!(head, "{declaration}");
        }
        head.push('\n');
        let mut tail = self.functions.clone();
        let _ = write!(
            tail,
            "@compute @workgroup_size({})\nfn main(@builtin(workgroup_id) workgroup: vec3<u32>, \
             @builtin(local_invocation_index) local: u32) {{\n{}}}\n",
            self.workgroup, self.main
        );
        if self.internal {
            // The index failure comes first, so that it can be read without knowing anything about scratch
            // memory.
            head.push_str(
                "struct Internal {\n    failures: atomic<u32>,\n    op: u32,\n    size: u32,\n    \
                 index_lo: u32,\n    index_hi: u32,\n    reserved0: u32,\n    reserved1: u32,\n    \
                 reserved2: u32,\n    scratch: array<u32>,\n}\n\n",
            );
        }
        let library = prelude::functions_for(&format!("{head}{tail}"));
        ShaderSource {
            wgsl: format!("{head}{library}{tail}"),
            bindings: self.bindings.len(),
            params_bytes: self.words.len() * 4,
            internal: self.internal,
        }
    }
}

/// The expression of a workgroup's number among all workgroups of the dispatch.
pub(super) const GROUP: &str = "workgroup.x + workgroup.y * p.groups_x + workgroup.z * p.groups_xy";
