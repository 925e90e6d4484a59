//! Tests that the generated WGSL is valid, and that every shading language that wgpu uses can express it.
#![cfg(feature = "gpu")]

mod common;
mod gpu_common;

use gpu_common::{WORKGROUP_MEMORY, devices, dtypes, hardware, lowered, smallest};
use smallvec::smallvec;
use wgrad_device::kernel::{
    Access, BinaryOp, IndexedDim, Instr, Kernel, Loop, Matmul, Range, ReduceOp, Scan, Scatter, ScatterOp,
    Sort, Store, Ty, UnaryOp,
};
use wgrad_device::{DType, Device, DeviceOptions, gpu_sources};

fn load(access: usize) -> Instr {
    Instr::Load { access, indices: smallvec![] }
}

/// All operations on a type in one elementwise loop. The last result is stored, or all reductions of it over
/// the inner dim.
fn operations(dtype: DType, sizes: &[usize], inner: usize) -> Loop {
    let ty = Ty::of(dtype);
    let rank = sizes.len();
    let strides = wgrad_device::layout::contiguous_strides(sizes);
    let mut accesses = vec![Access::new(0, dtype, &strides, 0)];
    let mut body = vec![load(0)];
    // Each operation whose result has the type of its operands is applied to the result of the one before.
    for &op in UnaryOp::ALL.iter().filter(|op| op.domain().has(ty) && op.result(ty) == ty) {
        body.push(Instr::Unary { op, a: body.len() as u32 - 1 });
    }
    for &op in BinaryOp::ALL.iter().filter(|op| op.domain().has(ty) && op.result(ty) == ty) {
        body.push(Instr::Binary { op, a: body.len() as u32 - 1, b: 0 });
    }
    let mut stores = Vec::new();
    if inner > 0 {
        let a = body.len() as u32 - 1;
        for &op in ReduceOp::ALL {
            body.push(Instr::Reduce { op, a });
        }
        let last = body.len() as u32 - 1;
        let mut along: wgrad_device::layout::Strides = smallvec![0; rank];
        along[0] = if sizes[0] == 1 { 0 } else { 1 };
        for (i, value) in (last - 5..=last).enumerate() {
            let dtype = if i >= 4 { DType::I64 } else { dtype };
            accesses.push(Access::new(1 + i, dtype, &along, 0));
            stores.push(Store { access: accesses.len() - 1, value });
        }
    } else {
        let value = body.len() as u32 - 1;
        accesses.push(Access::new(1, dtype, &strides, 0));
        stores.push(Store { access: 1, value });
    }
    Loop { sizes: sizes.into(), inner, accesses, ranges: vec![], body, stores }
}

fn prepare(device: &Device, kernel: Kernel) {
    drop(device.executor().prepare(&kernel).unwrap_or_else(|e| panic!("{e}\n{kernel:?}")));
}

fn prepare_everything(device: &Device) {
    for dtype in dtypes(device) {
        prepare_loops(device, dtype);
        prepare_products(device, dtype);
        prepare_others(device, dtype);
    }
    prepare_guards_indices_and_random_numbers(device);
}

fn prepare_loops(device: &Device, dtype: DType) {
    for sizes in [&[3][..], &[64], &[5, 18]] {
        prepare(device, Kernel::Loop(operations(dtype, sizes, 0)));
    }
    for sizes in [[1, 5], [7, 64], [200, 300], [1, 500_000]] {
        prepare(device, Kernel::Loop(operations(dtype, &sizes, 1)));
    }
    // Rows whose elements are strided, so that each invocation walks along a row.
    let mut columns = operations(dtype, &[64, 50], 1);
    columns.accesses[0].strides = smallvec![1, 64];
    prepare(device, Kernel::Loop(columns));
    for to in dtypes(device) {
        for n in [3, 64] {
            let kernel = Loop {
                sizes: smallvec![n],
                inner: 0,
                accesses: vec![Access::new(0, dtype, &[1], 0), Access::new(1, to, &[1], 0)],
                ranges: vec![],
                body: vec![load(0), Instr::Cast { a: 0, to }],
                stores: vec![Store { access: 1, value: 1 }],
            };
            prepare(device, Kernel::Loop(kernel));
        }
    }
}

fn prepare_products(device: &Device, dtype: DType) {
    for (m, n, k) in [(1, 8, 8), (70, 80, 90), (9, 1, 40), (4, 4, 3000)] {
        let stride = |size: usize, stride: usize| if size == 1 { 0 } else { stride as isize };
        let epilogue = Loop {
            sizes: smallvec![m, n],
            inner: 0,
            accesses: vec![Access::new(2, dtype, &[stride(m, n), stride(n, 1)], 0)],
            ranges: vec![],
            body: vec![Instr::Accumulator],
            stores: vec![Store { access: 0, value: 0 }],
        };
        let lhs = Access::new(0, dtype, &[stride(m, k), 1], 0);
        let rhs = Access::new(1, dtype, &[n as isize, stride(n, 1)], 0);
        prepare(device, Kernel::Matmul(Matmul::new(k, lhs, rhs, epilogue)));
    }
}

/// Scatters, scans and sorts.
fn prepare_others(device: &Device, dtype: DType) {
    for op in [ScatterOp::Assign, ScatterOp::Add, ScatterOp::Mul, ScatterOp::Max, ScatterOp::Min] {
        let mut target = Access::new(2, dtype, &[0, 1], 0);
        target.indexed.push(IndexedDim { stride: 4, size: 9, op: "index_add" });
        let scatter = Scatter {
            op,
            sizes: smallvec![2000, 4],
            source: Access::new(0, dtype, &[4, 1], 0),
            indices: vec![Access::new(1, DType::I64, &[1, 0], 0)],
            target,
            base: None,
            elements: 36,
        };
        prepare(device, Kernel::Scatter(scatter));
    }
    for op in [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min] {
        let source = Access::new(0, dtype, &[1], 0);
        let target = Access::new(1, dtype, &[1], 0);
        prepare(device, Kernel::Scan(Scan { op, sizes: smallvec![1000], source, target }));
    }
    for length in [5, 300, 3000] {
        let source = Access::new(0, dtype, &[length as isize, 1], 0);
        let target = Access::new(1, DType::I64, &[length as isize, 1], 0);
        let sizes = smallvec![7, length];
        let sort = Sort { descending: true, sizes, source, target, first: 0, count: length };
        prepare(device, Kernel::Sort(sort));
    }
}

fn prepare_guards_indices_and_random_numbers(device: &Device) {
    for n in [3, 64] {
        let mut guarded = Access::new(0, DType::F32, &[1], -2);
        guarded.guards.push(0);
        guarded.indexed.push(IndexedDim { stride: 64, size: 3, op: "gather" });
        let kernel = Loop {
            sizes: smallvec![n],
            inner: 0,
            accesses: vec![guarded, Access::new(1, DType::I64, &[1], 0), Access::new(2, DType::F32, &[1], 0)],
            ranges: vec![Range { strides: smallvec![1], offset: -2, size: 60 }],
            body: vec![
                load(1),
                Instr::Load { access: 0, indices: smallvec![0] },
                Instr::Param { index: 0, ty: Ty::I32 },
                Instr::Philox { index: 2, params: 1 },
                Instr::Cast { a: 3, to: DType::F32 },
                Instr::Binary { op: BinaryOp::Add, a: 1, b: 4 },
                Instr::InRange { range: 0 },
                Instr::Select { cond: 6, a: 5, b: 1 },
                Instr::Normal { index: 2, params: 1 },
                Instr::Binary { op: BinaryOp::Add, a: 7, b: 8 },
            ],
            stores: vec![Store { access: 2, value: 9 }],
        };
        prepare(device, Kernel::Loop(kernel));
    }
}

/// Parses and validates a source, and translates it to every language in which it may run. f64 exists on
/// Vulkan only.
fn translate(source: &str) -> Result<(), Box<dyn std::error::Error>> {
    use naga::{back, valid};
    let module = naga::front::wgsl::parse_str(source)?;
    let wide = source.contains("f64");
    let mut capabilities = valid::Capabilities::SUBGROUP;
    capabilities.set(valid::Capabilities::FLOAT64 | valid::Capabilities::SHADER_INT64, wide);
    let info = valid::Validator::new(valid::ValidationFlags::all(), capabilities).validate(&module)?;
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx())?;
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|(_, variable)| layouter[variable.ty].size).sum();
    if bytes > WORKGROUP_MEMORY {
        return Err(format!("{bytes} bytes of workgroup memory").into());
    }
    back::spv::write_vec(&module, &info, &back::spv::Options::default(), None)?;
    if wide {
        return Ok(());
    }
    let mut resources = back::msl::EntryPointResources::default();
    for (_, variable) in module.global_variables.iter() {
        if let Some(binding) = variable.binding {
            let slot = (binding.group * 16 + binding.binding) as u8;
            let target = back::msl::BindTarget { buffer: Some(slot), mutable: true, ..Default::default() };
            resources.resources.insert(binding, target);
        }
    }
    resources.sizes_buffer = Some(30);
    let options = back::msl::Options {
        lang_version: (2, 4),
        per_entry_point_map: [("main".to_owned(), resources)].into_iter().collect(),
        fake_missing_bindings: false,
        ..Default::default()
    };
    back::msl::write_string(&module, &info, &options, &back::msl::PipelineOptions::default())?;
    let options = back::hlsl::Options { fake_missing_bindings: true, ..Default::default() };
    let pipeline = back::hlsl::PipelineOptions::default();
    back::hlsl::Writer::new(&mut String::new(), &options, &pipeline).write(&module, &info, None)?;
    // The oldest versions of OpenGL with which devices are listed.
    for version in [back::glsl::Version::Desktop(450), back::glsl::Version::new_gles(310)] {
        let options = back::glsl::Options { version, ..Default::default() };
        let pipeline = back::glsl::PipelineOptions {
            shader_stage: naga::ShaderStage::Compute,
            entry_point: "main".to_owned(),
            multiview: None,
        };
        let policies = naga::proc::BoundsCheckPolicies::default();
        back::glsl::Writer::new(&mut String::new(), &module, &info, &options, &pipeline, policies)?
            .write()?;
    }
    Ok(())
}

#[test]
fn every_source_translates_to_every_language() {
    let sources = gpu_sources(|| {
        for options in [DeviceOptions::default(), smallest(), hardware()] {
            lowered(&options).iter().for_each(prepare_everything);
        }
    });
    let wide = sources.iter().filter(|source| source.contains("f64")).count();
    println!("{} sources, {wide} of them with f64", sources.len());
    assert_eq!(wide > 0, devices().iter().any(|device| device.supports(DType::F64)));
    for source in sources {
        if let Err(error) = translate(&source) {
            panic!("{error:?}\n{source}");
        }
    }
}
